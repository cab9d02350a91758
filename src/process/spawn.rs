//! Starting a process, as the supervisor sees it.
//!
//! Owns the supervisor's half of the shim: sending the plan, starting `agentd exec`, hearing how it went. Knows nothing
//! of what the program does afterwards; its end comes through the [reaper](super::reaper).
//!
//! Happy path: the plan goes to a memfd (an environment may be larger than a socket's buffer), the descriptors go into
//! a socket pair, and only then the shim is started with the other end as its standard input, so it never waits for
//! us. Where it has a cgroup it is born there, as a copy of the [zygote](super::zygote); otherwise plain [`Command`] without
//! hooks takes the `posix_spawn` path, whose cost does not grow with our memory.
//!
//! Unhappy: a zygote that is gone is replaced, and where the kernel makes no copies the shim enters its cgroup by itself.
//! [`spawn`] fails before there is a process, or kills it. Later failures are the shim's, told by
//! [`Report::outcome`]; the process then also ends by itself and is reaped as any other.

use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use agentd_core::id::Pid;
use camino::{Utf8Path, Utf8PathBuf};
use rustix::cmsg_space;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, Mode, OFlags, SeekFrom, memfd_create, seek};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recv,
    sendmsg, socketpair,
};
use rustix::process::{PidfdFlags, Signal, kill_process, pidfd_open};
use thiserror::Error;

use super::cgroup::Cgroup;
use super::plan::{ExecPlan, ShimWord, Stage, StageFailure};
use super::shim::DESCRIPTORS_MAX;
use super::sys::ReadableFd;
use super::zygote::{Order, Refusal, Zygote};
use super::{INSTANCE_VARIABLE, LAUNCH_VARIABLE};

/// Descriptors beside the listeners in the message to the shim: the plan, standard output, standard error.
const FIXED_DESCRIPTORS: usize = 3;
/// Longest word of the shim that is read, in bytes; its longest holds two texts of a kilobyte, escaped sixfold at worst.
const WORD_MAX: usize = 16 * 1024;

/// What a process takes to become a program, twice over where it is slow. One that hangs holds its supervisor for as long.
const FIRST_STEPS: Timespec = Timespec { tv_sec: 0, tv_nsec: 2_000_000 };

/// Starts processes through the shim of one binary, even when its file was replaced or removed meanwhile.
#[derive(Debug)]
pub struct Launcher {
    /// Holds the binary, whatever happens to its name.
    binary: OwnedFd,
    /// The way to `binary` for a process that has a copy of our descriptors, as a child has until it executes.
    shim: Utf8PathBuf,
    /// Started when it is needed first, or made ready before.
    zygote: Option<Zygote>,
    /// Kept from everybody else until what was ordered of the zygote is there.
    lock: Option<OwnedFd>,
}

impl Launcher {
    /// A launcher that uses the binary this process runs. Make it once, at start.
    ///
    /// # Errors
    /// When `/proc` is not mounted or descriptors are used up.
    pub fn of_this_binary() -> io::Result<Self> {
        Self::of_binary_at(Utf8Path::new("/proc/self/exe"))
    }

    /// A launcher that uses the agentd binary at `path`; for tests, which are no agentd themselves.
    ///
    /// # Errors
    /// When there is no such file.
    pub fn of_binary_at(path: &Utf8Path) -> io::Result<Self> {
        let binary = rustix::fs::open(path.as_str(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let shim = format!("/proc/self/fd/{}", binary.as_raw_fd()).into();
        Ok(Self { binary, shim, zygote: None, lock: None })
    }

    /// The same for the holder of an instance's lock: a successor cannot begin before every process that was ordered is
    /// there to be found.
    #[must_use]
    pub fn under(self, lock: OwnedFd) -> Self {
        Self { lock: Some(lock), ..self }
    }
}

impl Launcher {
    /// A command that runs this binary itself, whatever became of its file.
    #[must_use]
    pub fn itself(&self) -> Command {
        let mut command = Command::new(&self.shim);
        command.arg0("agentd");
        command
    }

    /// Starts a zygote where there is none, or it has ended with its last copy, or is held up by it: the next start need not wait
    /// for that. Where none can be had, the next start finds that out.
    pub fn make_ready(&mut self) {
        if !self.zygote.as_mut().is_some_and(Zygote::is_ready) {
            match Zygote::start(self.itself()) {
                Ok(zygote) => self.zygote = Some(zygote),
                Err(error) => tracing::debug!(%error, "no zygote can be started"),
            }
        }
    }

    /// The zygote's process, where there is one.
    #[must_use]
    pub fn zygote(&self) -> Option<rustix::process::Pid> {
        self.zygote.as_ref().map(Zygote::pid)
    }

    /// A copy of the zygote in `cgroup`, which carries out what waits in the socket `parcel`. None where none can be had,
    /// and another way may work; whether the parcel was taken is not known then.
    fn born_in(
        &mut self,
        cgroup: &Utf8Path,
        parcel: BorrowedFd<'_>,
        alone: bool,
    ) -> Option<Result<rustix::process::Pid, SpawnError>> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = match rustix::fs::open(cgroup.as_str(), flags, Mode::empty()) {
            Ok(folder) => folder,
            Err(error) => {
                tracing::debug!(%cgroup, %error, "the cgroup cannot be opened");
                return None;
            }
        };
        // One that was there may have been killed since; a new one was not.
        for _ in 0..2 {
            let mut zygote = match self.zygote.take().map_or_else(|| Zygote::start(self.itself()), Ok) {
                Ok(zygote) => zygote,
                Err(error) => {
                    tracing::debug!(%error, "no zygote can be started");
                    return None;
                }
            };
            let lock = self.lock.as_ref().map(AsFd::as_fd);
            match zygote.copy(&Order { parcel, cgroup: folder.as_fd(), lock, alone }) {
                Ok(pid) => {
                    self.zygote = Some(zygote);
                    return Some(Ok(pid));
                }
                Err(Refusal::ByKernel(errno)) => {
                    tracing::debug!(%cgroup, %errno, "no process can be born in its cgroup");
                    self.zygote = Some(zygote);
                    return None;
                }
                Err(Refusal::Gone(errno)) => tracing::debug!(%errno, "the zygote is gone, or its last copy hangs"),
                Err(Refusal::Unanswered) => {
                    // Nobody would know of a copy that it still makes.
                    let _ = Cgroup::at(cgroup.to_owned()).kill();
                    return Some(Err(SpawnError::Unanswered));
                }
            }
        }
        None
    }
}

impl AsFd for Launcher {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.binary.as_fd()
    }
}

/// The descriptors that a program is started with. They stay open here; the program gets copies.
#[derive(Debug)]
pub struct SpawnFds<'fd> {
    /// Its standard output.
    pub stdout: BorrowedFd<'fd>,
    /// Its standard error.
    pub stderr: BorrowedFd<'fd>,
    /// Its standard input; there where [`ExecPlan::stdin`] says so.
    pub stdin: Option<BorrowedFd<'fd>>,
    /// Descriptors from 3 on: listeners, then stored ones; as many as [`ExecPlan::listen_names`].
    pub listeners: Vec<BorrowedFd<'fd>>,
}

/// What else waits to be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Company {
    /// Nothing, as far as is known: the start is to be soon over.
    Alone,
    /// Other processes, at once: as many as can be are to be on their way.
    Others,
}

/// A process that was started and is about to become its program.
#[derive(Debug)]
pub struct Child {
    /// Its id, which is the program's, its session's and its process group's.
    pub pid: Pid,
    /// A hold on this process that is no other's, whatever becomes of the number; readable once it has ended.
    pub pidfd: OwnedFd,
    /// How the start went, yet to be heard.
    pub report: Report,
}

/// Why no process was started.
#[derive(Debug, Error)]
pub enum SpawnError {
    /// The plan names more or fewer listeners than were given.
    #[error("pass {given} descriptors under {named} names")]
    Unnamed {
        /// Descriptors given.
        given: usize,
        /// Names in the plan.
        named: usize,
    },
    /// More listeners than one message carries.
    #[error("pass {0} descriptors to a program, at most {max} can be", max = DESCRIPTORS_MAX - FIXED_DESCRIPTORS)]
    TooManyDescriptors(usize),
    /// The plan could not be put into a memfd.
    #[error("write down the plan for the exec shim")]
    Plan(#[source] io::Error),
    /// No socket pair.
    #[error("make a socket to the exec shim")]
    Socket(#[source] io::Error),
    /// The descriptors could not be sent.
    #[error("send descriptors to the exec shim")]
    Send(#[source] io::Error),
    /// The shim itself could not be started.
    #[error("start the exec shim {shim}")]
    Start {
        /// The path used for it.
        shim: Utf8PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Whether there was a process is not known; all in its cgroup were killed.
    #[error("have the zygote copy itself: it gave no answer and was killed")]
    Unanswered,
    /// The process runs, but no hold on it could be had; it was killed.
    #[error("open a pidfd for process {pid}")]
    PidFd {
        /// The process.
        pid: Pid,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Starts a process that carries out `plan`. Does not wait for it: see [`Report::outcome`].
///
/// # Errors
/// [`SpawnError`]; no process remains then, though one that was started and killed may still have to be reaped.
pub fn spawn(
    launcher: &mut Launcher,
    plan: &ExecPlan,
    fds: &SpawnFds<'_>,
    company: Company,
) -> Result<Child, SpawnError> {
    let (given, named) = (fds.listeners.len(), plan.listen_names.len());
    if given != named {
        return Err(SpawnError::Unnamed { given, named });
    }
    if given + usize::from(fds.stdin.is_some()) > DESCRIPTORS_MAX - FIXED_DESCRIPTORS {
        return Err(SpawnError::TooManyDescriptors(given));
    }
    let written = write_plan(plan).map_err(SpawnError::Plan)?;
    let (pid, ours) = match born_in_its_cgroup(launcher, plan, &written, fds, company)? {
        Some(born) => born,
        None => {
            let (ours, theirs) = pack(&written, fds)?;
            (start_shim(launcher, plan, theirs)?, ours)
        }
    };
    // Our own child that nobody has reaped yet: the number cannot have become another's.
    match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => Ok(Child { pid: super::our_pid(pid), pidfd, report: Report(ours) }),
        Err(errno) => {
            let _ = kill_process(pid, Signal::KILL);
            Err(SpawnError::PidFd { pid: super::our_pid(pid), source: errno.into() })
        }
    }
}

fn write_plan(plan: &ExecPlan) -> io::Result<OwnedFd> {
    let mut file = File::from(memfd_create("agentd-plan", MemfdFlags::CLOEXEC)?);
    file.write_all(&serde_json::to_vec(plan)?)?;
    Ok(file.into())
}

/// A socket pair with the parcel in it: our end, and the one that it is to be taken from, once.
fn pack(written: &OwnedFd, fds: &SpawnFds<'_>) -> Result<(OwnedFd, OwnedFd), SpawnError> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
        .map_err(|errno| SpawnError::Socket(errno.into()))?;
    // The position is shared with whoever reads it, and with whoever has read it before.
    seek(written, SeekFrom::Start(0)).map_err(|errno| SpawnError::Plan(errno.into()))?;
    send_descriptors(&ours, written, fds).map_err(|errno| SpawnError::Send(errno.into()))?;
    Ok((ours, theirs))
}

fn send_descriptors(socket: &OwnedFd, plan: &OwnedFd, fds: &SpawnFds<'_>) -> Result<(), Errno> {
    let mut all = vec![plan.as_fd(), fds.stdout, fds.stderr];
    all.extend(fds.stdin);
    all.extend(&fds.listeners);
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    assert!(ancillary.push(SendAncillaryMessage::ScmRights(&all)), "the space holds as many as spawn() lets pass");
    // Descriptors travel only with at least one byte.
    sendmsg(socket, &[IoSlice::new(&[0])], &mut ancillary, SendFlags::NOSIGNAL).map(drop)
}

/// A copy of the zygote, with our end of its socket; none where the plan names no cgroup, or none can be had and another way may
/// work.
fn born_in_its_cgroup(
    launcher: &mut Launcher,
    plan: &ExecPlan,
    written: &OwnedFd,
    fds: &SpawnFds<'_>,
    company: Company,
) -> Result<Option<(rustix::process::Pid, OwnedFd)>, SpawnError> {
    let Some(cgroup) = &plan.cgroup else { return Ok(None) };
    let (ours, theirs) = pack(written, fds)?;
    let born = launcher.born_in(cgroup, theirs.as_fd(), company == Company::Alone).transpose()?;
    Ok(born.map(|pid| (pid, ours)))
}

fn start_shim(launcher: &Launcher, plan: &ExecPlan, socket: OwnedFd) -> Result<rustix::process::Pid, SpawnError> {
    let mut command = launcher.itself();
    command.arg("exec").env_clear().stdin(socket);
    // A successor that looks for processes nobody recorded finds it by this, from its first moment on.
    for (name, value) in plan.env.iter().filter(|(name, _)| name == INSTANCE_VARIABLE || name == LAUNCH_VARIABLE) {
        command.env(name, value);
    }
    let child = command.spawn().map_err(|source| SpawnError::Start { shim: launcher.shim.clone(), source })?;
    Ok(rustix::process::Pid::from_child(&child))
}

/// The supervisor's end of the socket to a shim.
#[derive(Debug)]
pub struct Report(OwnedFd);

impl Report {
    /// Sleeps until the process has become its program or has ended, [`FIRST_STEPS`] at most: until then whatever we do may take
    /// the processor that it needs.
    pub fn let_it_begin(&self) {
        let mut polled = [PollFd::new(&self.0, PollFlags::empty())];
        // Nothing but the end of the other side wakes us. Whatever it was, the outcome tells.
        let _ = poll(&mut polled, Some(&FIRST_STEPS));
    }

    /// Waits until the process has become its program, or could not. Well under a millisecond usually; a program on a
    /// slow file system may take as long as that takes, so give it a deadline where that matters.
    ///
    /// A success means that `execve` was called and not refused. A process that was killed in the very moment
    /// before it counts as well; its end is reaped like any other's.
    ///
    /// # Errors
    /// The step that failed.
    pub async fn outcome(self) -> Result<(), StageFailure> {
        let broken = |source: io::Error| {
            let errno = Errno::from_io_error(&source);
            StageFailure::explained(Stage::ReadingPlan, errno, format!("its report cannot be heard: {source}"))
        };
        let socket = ReadableFd::register(self.0).map_err(broken)?;
        let mut executing = false;
        loop {
            match socket.read_with(hear).await {
                Ok(word) if word.is_empty() && executing => return Ok(()),
                Ok(word) if word.is_empty() => return Err(ended_early()),
                Ok(word) => match serde_json::from_slice(&word) {
                    Ok(ShimWord::Executing) => executing = true,
                    Ok(ShimWord::Failed(failure)) => return Err(failure),
                    Err(source) => return Err(broken(source.into())),
                },
                // The other end closed with our message unread in it.
                Err(source) if source.kind() == io::ErrorKind::ConnectionReset => return Err(ended_early()),
                Err(source) => return Err(broken(source)),
            }
        }
    }
}

/// One word of the shim. Room for the longest is taken for this moment only: a hundred starts wait for theirs at once.
fn hear(fd: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    let mut word = [0_u8; WORD_MAX];
    let (length, _) = recv(fd, word.as_mut_slice(), RecvFlags::DONTWAIT)?;
    Ok(word[..length].to_vec())
}

fn ended_early() -> StageFailure {
    StageFailure::explained(Stage::ReadingPlan, None, "the process ended before it had carried out its plan")
}

#[cfg(test)]
mod tests {
    use rustix::net::send;

    use super::*;

    /// A report, and the end that the shim would have.
    fn report() -> (Report, OwnedFd) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        (Report(ours), theirs)
    }

    fn say(shim: &OwnedFd, word: &ShimWord) {
        send(shim, &serde_json::to_vec(word).unwrap(), SendFlags::NOSIGNAL).unwrap();
    }

    #[tokio::test]
    async fn the_end_of_the_socket_is_a_success_only_when_it_was_announced() {
        let (announced, shim) = report();
        say(&shim, &ShimWord::Executing);
        drop(shim);
        assert_eq!(announced.outcome().await, Ok(()));

        let (silent, shim) = report();
        drop(shim);
        assert_eq!(silent.outcome().await, Err(ended_early()));
    }

    #[tokio::test]
    async fn a_shim_that_was_killed_before_it_read_its_plan_is_no_success() {
        let (unread, shim) = report();
        send(&unread.0, &[0], SendFlags::NOSIGNAL).unwrap();
        drop(shim);
        assert_eq!(unread.outcome().await, Err(ended_early()));
    }

    #[tokio::test]
    async fn a_program_that_was_announced_and_then_refused_is_a_failure() {
        let (refused, shim) = report();
        let failure = StageFailure::explained(Stage::Executing("/x".into()), Some(Errno::NOEXEC), "no program");
        say(&shim, &ShimWord::Executing);
        say(&shim, &ShimWord::Failed(failure.clone()));
        drop(shim);
        assert_eq!(refused.outcome().await, Err(failure));
    }

    #[test]
    fn names_and_descriptors_that_do_not_match_start_nothing() {
        let mut launcher = Launcher::of_binary_at(Utf8Path::new("/bin/sh")).unwrap();
        let null = File::open("/dev/null").unwrap();
        let mut plan = ExecPlan {
            argv: vec!["true".into()],
            cwd: "/".into(),
            env: vec![],
            umask: 0o022,
            limits: vec![],
            soft_files: None,
            cgroup: None,
            listen_names: vec!["http".into()],
            listen_pid: true,
            node_channel: false,
            stdin: false,
            account: crate::process::account::Account::default(),
            secrets: crate::process::plan::Secrets::default(),
        };
        let with = |count| SpawnFds {
            stdout: null.as_fd(),
            stderr: null.as_fd(),
            stdin: None,
            listeners: vec![null.as_fd(); count],
        };
        let unnamed = spawn(&mut launcher, &plan, &with(2), Company::Others).unwrap_err();
        assert_eq!(unnamed.to_string(), "pass 2 descriptors under 1 names");
        plan.listen_names = vec!["x".into(); 251];
        let too_many = spawn(&mut launcher, &plan, &with(251), Company::Others).unwrap_err();
        assert_eq!(too_many.to_string(), "pass 251 descriptors to a program, at most 250 can be");
    }
}
