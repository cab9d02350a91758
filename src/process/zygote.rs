//! The process that workers are copies of.
//!
//! Owns one small process of this binary, `agentd zygote`, which has nothing to do but to copy itself. A worker's process
//! is such a copy: it is born in its cgroup, is the supervisor's child and not the zygote's (`CLONE_PARENT`), and goes on
//! as the [shim]. What every program's start costs before its first instruction was paid once, by the
//! zygote; `docs/adr/0016-copies-of-a-small-process.md` has the figures. Knows no plans and decides nothing.
//!
//! ```text
//!  supervisor                        zygote                           copy
//!  ── parcel's socket, cgroup ─────► reads the parcel
//!                                    clone3(INTO_CGROUP | PARENT) ──► the shim's steps, execve
//!  ◄───────────────────────── pid ── waits for the next order
//! ```
//!
//! A copy that is ordered alone does not copy the memory: it shares the zygote's until it executes, which waits for that and
//! then says that it is free ([`sys::share_until_execution`]). Who comes in numbers is copied, so that several prepare
//! themselves at a time; so is who changes its user or is told secrets. A zygote that is not free in time, because
//! its copy hangs, is left behind for another, and ends when its copy has executed or is gone. One whose copy failed
//! ends with it: nobody knows what it left half done.
//!
//! Every order carries the instance's lock until the copy is born: a supervisor that dies before the answer leaves an order
//! that may still be carried out, and its successor cannot begin before that. It finds the copy by its cgroup.
//!
//! What can go wrong: it was killed, and another is started ([`Launcher`](super::spawn::Launcher)); the kernel refuses the
//! copy, which is answered and has the supervisor take the longer road; it took an order and does not answer, and is
//! killed with all that is in the cgroup. It ends when its supervisor does, or as soon after that as it shares its memory with
//! nobody.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::process::{Command, ExitCode};
use std::time::Duration;

use rustix::cmsg_space;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recv, recvmsg, send, sendmsg, socketpair,
};
use rustix::process::{Pid, Signal, kill_process, setsid};

use super::plan::StageFailure;
use super::shim::{Left, Parcel};
use super::sys::{self, Copied, Stack};
use super::{rest, shim};

/// The argument that makes this binary a zygote.
pub const COMMAND: &str = "zygote";

/// Longest wait for an answer. It takes a tenth of a millisecond; a machine that is out of memory may take long.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Descriptors of an order: the parcel's socket, the cgroup's folder, and the lock where there is one.
const ORDER_MAX: usize = 3;

/// Longest wait for a zygote that shares its memory to be free again. Its copy takes half a millisecond; its supervisor has
/// waited for that already when it gives the next order.
const FREE_WITHIN: Timespec = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };

/// In an order, that no other waits behind it.
const ALONE: u8 = 1;

/// The supervisor's hold on its zygote.
#[derive(Debug)]
pub(super) struct Zygote {
    socket: OwnedFd,
    pid: Pid,
    /// Whether it shares its memory with a copy and has not said yet that it is free.
    shares: bool,
}

/// What a zygote is to do.
#[derive(Debug)]
pub(super) struct Order<'fd> {
    /// The socket in which waits what the copy carries out.
    pub(super) parcel: BorrowedFd<'fd>,
    /// The folder of the cgroup that it is born in.
    pub(super) cgroup: BorrowedFd<'fd>,
    /// Nobody else gets it before that.
    pub(super) lock: Option<BorrowedFd<'fd>>,
    /// Whether no other waits behind it.
    pub(super) alone: bool,
}

/// Why no copy was made.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The kernel's word: another way may work.
    ByKernel(Errno),
    /// It was gone before it could take the order: another zygote may work.
    Gone(Errno),
    /// It took the order and has not said whether it did it; it is no more. The copy may be there.
    Unanswered,
}

impl Zygote {
    /// Starts one by `command`, which runs this binary.
    ///
    /// # Errors
    /// What the system refused.
    pub(super) fn start(mut command: Command) -> io::Result<Self> {
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        set_socket_timeout(&ours, Timeout::Recv, Some(ANSWER_WITHIN))?;
        let child = command.arg(COMMAND).env_clear().stdin(theirs).spawn()?;
        Ok(Self { socket: ours, pid: Pid::from_child(&child), shares: false })
    }

    /// Has it copy itself. Waits for the answer.
    pub(super) fn copy(&mut self, order: &Order<'_>) -> Result<Pid, Refusal> {
        self.await_free().map_err(Refusal::Gone)?;
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(ORDER_MAX))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let all: Vec<BorrowedFd<'_>> =
            [Some(order.parcel), Some(order.cgroup), order.lock].into_iter().flatten().collect();
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&all)), "the space holds an order");
        let word = [if order.alone { ALONE } else { 0 }];
        sendmsg(&self.socket, &[IoSlice::new(&word)], &mut ancillary, SendFlags::NOSIGNAL).map_err(Refusal::Gone)?;
        let mut answer = [0_u8; Answer::LENGTH];
        let length = loop {
            match recv(&self.socket, answer.as_mut_slice(), RecvFlags::empty()) {
                Ok((length, _)) => break length,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    // Our own child; nobody reaps it but us.
                    let _ = kill_process(self.pid, Signal::KILL);
                    return Err(Refusal::Unanswered);
                }
                // The kernel says so only where the order was left unread.
                Err(Errno::CONNRESET) => return Err(Refusal::Gone(Errno::CONNRESET)),
                Err(_) => return Err(Refusal::Unanswered),
            }
        };
        if length != answer.len() {
            return Err(Refusal::Unanswered);
        }
        let Answer { copy, shares } = Answer::of_bytes(answer);
        self.shares = shares;
        let pid = if copy > 0 { Pid::from_raw(copy) } else { None };
        pid.ok_or_else(|| Refusal::ByKernel(Errno::from_raw_os_error(copy.saturating_neg())))
    }

    /// Waits until it shares its memory with nobody, for a moment only.
    fn await_free(&mut self) -> Result<(), Errno> {
        while self.shares {
            match poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&FREE_WITHIN)) {
                Ok(0) => return Err(Errno::TIMEDOUT),
                Ok(_) => self.hear_whether_free()?,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    /// Takes the word that it is free, where it has come.
    fn hear_whether_free(&mut self) -> Result<(), Errno> {
        let mut word = [0_u8; 1];
        match recv(&self.socket, word.as_mut_slice(), RecvFlags::DONTWAIT) {
            Ok((0, _)) => Err(Errno::CONNRESET),
            Ok((_, _)) => {
                self.shares = false;
                Ok(())
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// Whether it takes an order at once: it is there, and shares its memory with nobody.
    pub(super) fn is_ready(&mut self) -> bool {
        self.hear_whether_free().is_ok() && !self.shares
    }

    /// Its process.
    pub(super) const fn pid(&self) -> Pid {
        self.pid
    }
}

/// What a zygote says of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Answer {
    /// The copy's id, or below zero the kernel's error.
    copy: i32,
    /// Whether one byte more will follow, when it is free for the next.
    shares: bool,
}

impl Answer {
    const LENGTH: usize = size_of::<i32>() + 1;

    fn to_bytes(self) -> [u8; Self::LENGTH] {
        let [a, b, c, d] = self.copy.to_ne_bytes();
        [a, b, c, d, u8::from(self.shares)]
    }

    const fn of_bytes([a, b, c, d, shares]: [u8; Self::LENGTH]) -> Self {
        Self { copy: i32::from_ne_bytes([a, b, c, d]), shares: shares != 0 }
    }
}

/// The entry of `agentd zygote`. Returns when its supervisor is gone, and in each of its copies that became no program.
#[must_use]
pub fn run() -> ExitCode {
    // What a terminal or systemd sends to everybody is the supervisor's to act upon. It leads no group yet.
    let _ = setsid();
    // Its copies inherit it.
    shim::leave_supervisor_behind();
    // Where there is none, every copy has a memory of its own.
    let mut stack = Stack::make().ok();
    loop {
        let Ok(Received { parcel, cgroup, lock, alone }) = receive_order() else { return ExitCode::SUCCESS };
        // Read here, where the code and the memory for it are warm: all of it would be new to the copy.
        let unpacked = shim::unpack(parcel.as_fd());
        let may_share = alone && unpacked.as_ref().is_ok_and(Parcel::may_share);
        let mut worker = Worker { unpacked: Some(unpacked), parcel, lock: None, left: Left::default() };
        let (cgroup, lock) = match &mut stack {
            Some(stack) if may_share => match share(stack, cgroup, lock, &mut worker) {
                Err(refused) => refused,
                Ok(()) => {
                    worker.let_go();
                    if send(io::stdin(), &[0], SendFlags::NOSIGNAL).is_err() {
                        return ExitCode::SUCCESS;
                    }
                    continue;
                }
            },
            Some(_) | None => (cgroup, lock),
        };
        let answer = match sys::copy_into_cgroup(cgroup.as_fd()) {
            Ok(Copied::Copy) => {
                // From here on it is found by its cgroup. What it does next may take long.
                drop(lock);
                return worker.begin().into();
            }
            Ok(Copied::Original { copy }) => copy.as_raw_nonzero().get(),
            Err(errno) => errno.raw_os_error().saturating_neg(),
        };
        if tell(Answer { copy: answer, shares: false }).is_err() {
            return ExitCode::SUCCESS;
        }
    }
}

/// The first descriptor that came with an order: what is below, the zygote was started with.
const FIRST_OF_ORDERS: RawFd = 3;

/// A process on its way to its program.
struct Worker {
    unpacked: Option<Result<Parcel, StageFailure>>,
    parcel: OwnedFd,
    /// The number of its copy of the lock, where it shares memory with the lock's owner.
    lock: Option<RawFd>,
    left: Left,
}

impl Worker {
    /// The shim's steps, in a process of its own. Returns only when they failed, with the code to exit with.
    fn begin(&mut self) -> u8 {
        if let Some(lock) = self.lock {
            sys::close_copied(lock);
        }
        // Where orders came from: one that is slow must not take the next for the zygote.
        match (sys::place_descriptor(self.parcel.as_fd(), 0), self.unpacked.take()) {
            (Ok(()), Some(unpacked)) => {
                shim::go_on(unpacked, shim::Birth::InCgroup, io::stdin().as_fd(), &mut self.left)
            }
            (Ok(()) | Err(_), _) => 1,
        }
    }

    /// Lets go of what a process left behind that shared this memory. The zygote's descriptor is closed already.
    fn let_go(self) {
        let _closed = self.parcel.into_raw_fd();
    }
}

/// Has a copy share this memory, and returns when it does not any more; not at all where it ended on the way. Where there
/// can be none, nothing is changed, and the order's cgroup and lock come back.
fn share(
    stack: &mut Stack,
    cgroup: OwnedFd,
    lock: Option<OwnedFd>,
    worker: &mut Worker,
) -> Result<(), (OwnedFd, Option<OwnedFd>)> {
    worker.lock = lock.as_ref().map(AsRawFd::as_raw_fd);
    let mut told = false;
    let made = sys::share_until_execution(cgroup.as_fd(), stack, Worker::begin, worker, |copy| {
        // It has copies of all descriptors that came with the order, and is found by its cgroup: nobody is to wait for the
        // zygote, which may be held up, to let go of a lock, a listener, or the end of a report.
        let answer = Answer { copy: copy.as_raw_nonzero().get(), shares: true };
        told = sys::close_from(FIRST_OF_ORDERS).is_ok() && tell(answer).is_ok();
    });
    if made.is_err() {
        worker.lock = None;
        return Err((cgroup, lock));
    }
    let _closed = (cgroup.into_raw_fd(), lock.map(IntoRawFd::into_raw_fd));
    if told && worker.left.is_whole() {
        return Ok(());
    }
    // It may have been in the middle of anything, with locks that nobody else will open.
    sys::end_now(0)
}

fn tell(answer: Answer) -> Result<(), Errno> {
    send(io::stdin(), &answer.to_bytes(), SendFlags::NOSIGNAL).map(drop)
}

/// An order, as it comes.
struct Received {
    parcel: OwnedFd,
    cgroup: OwnedFd,
    /// Held for no other purpose than that nobody else has it.
    lock: Option<OwnedFd>,
    alone: bool,
}

/// The next order. An error when there is nobody to give one.
fn receive_order() -> Result<Received, Errno> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(ORDER_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0_u8; 1];
    let stdin = io::stdin();
    rest::await_and_let_go(&mut [PollFd::new(&stdin, PollFlags::IN)])?;
    let received = recvmsg(&stdin, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::CMSG_CLOEXEC);
    if received?.bytes == 0 {
        return Err(Errno::CONNRESET);
    }
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(came) = message {
            descriptors.extend(came);
        }
    }
    let mut descriptors = descriptors.into_iter();
    match (descriptors.next(), descriptors.next(), descriptors.next()) {
        (Some(parcel), Some(cgroup), lock) => Ok(Received { parcel, cgroup, lock, alone: byte == [ALONE] }),
        (_, _, _) => Err(Errno::BADMSG),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A zygote of which this test is the other side.
    fn zygote() -> (Zygote, OwnedFd) {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        // Beyond what a process can have.
        (Zygote { socket: ours, pid: Pid::from_raw(i32::MAX).unwrap(), shares: false }, theirs)
    }

    /// Has `zygote` copy itself.
    fn order(zygote: &mut Zygote) -> Result<Pid, Refusal> {
        let any = std::fs::File::open("/dev/null").unwrap();
        zygote.copy(&Order { parcel: any.as_fd(), cgroup: any.as_fd(), lock: None, alone: true })
    }

    /// The same, where it answers that `copy` shares its memory.
    fn order_shared(zygote: &mut Zygote, theirs: &OwnedFd, copy: i32) -> Result<Pid, Refusal> {
        send(theirs, &Answer { copy, shares: true }.to_bytes(), SendFlags::NOSIGNAL).unwrap();
        order(zygote)
    }

    #[test]
    fn one_that_shares_its_memory_takes_the_next_order_when_it_has_said_that_it_is_free() {
        let (mut zygote, theirs) = zygote();
        for copy in 1..4 {
            assert!(zygote.is_ready());
            assert_eq!(order_shared(&mut zygote, &theirs, copy).unwrap(), Pid::from_raw(copy).unwrap());
            assert!(!zygote.is_ready());
            send(&theirs, &[0], SendFlags::NOSIGNAL).unwrap();
        }
        assert!(zygote.await_free().is_ok());
    }

    #[test]
    fn one_whose_copy_hangs_is_given_no_order_and_another_may_work() {
        let (mut zygote, theirs) = zygote();
        order_shared(&mut zygote, &theirs, 5).unwrap();
        let next = order(&mut zygote);
        assert!(matches!(next, Err(Refusal::Gone(Errno::TIMEDOUT))), "{next:?}");
        let mut orders = [0; 8];
        recv(&theirs, orders.as_mut_slice(), RecvFlags::DONTWAIT).unwrap();
        assert!(recv(&theirs, orders.as_mut_slice(), RecvFlags::DONTWAIT).is_err(), "only the first came");
    }

    #[test]
    fn one_that_ended_with_its_copy_is_gone() {
        let (mut zygote, theirs) = zygote();
        order_shared(&mut zygote, &theirs, 5).unwrap();
        // What it had not read would be answered by a reset.
        recv(&theirs, [0; 8].as_mut_slice(), RecvFlags::DONTWAIT).unwrap();
        drop(theirs);
        assert!(!zygote.is_ready());
        let next = order(&mut zygote);
        assert!(matches!(next, Err(Refusal::Gone(Errno::CONNRESET))), "{next:?}");
    }

    #[test]
    fn an_answer_is_read_as_it_was_written() {
        for answer in [Answer { copy: 1 << 21, shares: true }, Answer { copy: -38, shares: false }] {
            assert_eq!(Answer::of_bytes(answer.to_bytes()), answer);
        }
    }
}
