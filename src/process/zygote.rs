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
//! Every order carries the instance's lock until the copy is born: a supervisor that dies before the answer leaves an order
//! that may still be carried out, and its successor cannot begin before that. It finds the copy by its cgroup.
//!
//! What can go wrong: it was killed, and another is started ([`Launcher`](super::spawn::Launcher)); the kernel refuses the
//! copy, which is answered and has the supervisor take the longer road; it took an order and does not answer, and is
//! killed with all that is in the cgroup. It ends when its supervisor does.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Command, ExitCode};
use std::time::Duration;

use rustix::cmsg_space;
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recv, recvmsg, send, sendmsg, socketpair,
};
use rustix::process::{Pid, Signal, kill_process, setsid};

use super::sys::{self, Copied};
use super::{rest, shim};

/// The argument that makes this binary a zygote.
pub const COMMAND: &str = "zygote";

/// Longest wait for an answer. It takes a tenth of a millisecond; a machine that is out of memory may take long.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Descriptors of an order: the parcel's socket, the cgroup's folder, and the lock where there is one.
const ORDER_MAX: usize = 3;

/// The supervisor's hold on its zygote.
#[derive(Debug)]
pub(super) struct Zygote {
    socket: OwnedFd,
    pid: Pid,
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
        Ok(Self { socket: ours, pid: Pid::from_child(&child) })
    }

    /// Has it copy itself into `cgroup`; the copy carries out what waits in the socket `parcel`. Nobody else gets `lock`
    /// before that. Waits for the answer.
    pub(super) fn copy(
        &self,
        parcel: BorrowedFd<'_>,
        cgroup: BorrowedFd<'_>,
        lock: Option<BorrowedFd<'_>>,
    ) -> Result<Pid, Refusal> {
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(ORDER_MAX))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let order: Vec<BorrowedFd<'_>> = [Some(parcel), Some(cgroup), lock].into_iter().flatten().collect();
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&order)), "the space holds an order");
        sendmsg(&self.socket, &[IoSlice::new(&[0])], &mut ancillary, SendFlags::NOSIGNAL).map_err(Refusal::Gone)?;
        let mut answer = [0_u8; size_of::<i32>()];
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
        let answer = i32::from_ne_bytes(answer);
        let copy = if answer > 0 { Pid::from_raw(answer) } else { None };
        copy.ok_or_else(|| Refusal::ByKernel(Errno::from_raw_os_error(answer.saturating_neg())))
    }
}

/// The entry of `agentd zygote`. Returns when its supervisor is gone, and in each of its copies that became no program.
#[must_use]
pub fn run() -> ExitCode {
    // What a terminal or systemd sends to everybody is the supervisor's to act upon. It leads no group yet.
    let _ = setsid();
    // Its copies inherit it.
    shim::leave_supervisor_behind();
    loop {
        let Ok(Order { parcel, cgroup, lock }) = receive_order() else { return ExitCode::SUCCESS };
        // Read here, where the code and the memory for it are warm: all of it would be new to the copy.
        let unpacked = shim::unpack(parcel.as_fd());
        let answer = match sys::copy_into_cgroup(cgroup.as_fd()) {
            Ok(Copied::Copy) => {
                // From here on it is found by its cgroup. What it does next may take long.
                drop(lock);
                // Where orders came from: one that is slow must not take the next for the zygote.
                return match sys::place_descriptor(parcel.as_fd(), 0) {
                    Ok(()) => shim::go_on(unpacked, shim::Birth::InCgroup, io::stdin().as_fd()),
                    Err(_) => ExitCode::FAILURE,
                };
            }
            Ok(Copied::Original { copy }) => copy.as_raw_nonzero().get(),
            Err(errno) => errno.raw_os_error().saturating_neg(),
        };
        if send(io::stdin(), &answer.to_ne_bytes(), SendFlags::NOSIGNAL).is_err() {
            return ExitCode::SUCCESS;
        }
    }
}

/// What a copy is made of.
struct Order {
    parcel: OwnedFd,
    cgroup: OwnedFd,
    /// Held for no other purpose than that nobody else has it.
    lock: Option<OwnedFd>,
}

/// The next order. An error when there is nobody to give one.
fn receive_order() -> Result<Order, Errno> {
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
        (Some(parcel), Some(cgroup), lock) => Ok(Order { parcel, cgroup, lock }),
        (_, _, _) => Err(Errno::BADMSG),
    }
}
