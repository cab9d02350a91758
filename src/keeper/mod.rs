//! The keeper: a second holder of every descriptor whose loss a client or a worker would notice.
//!
//! ```text
//! agentd ──hold, release──► agentd keep        a process of its own, in a session of its own
//!    │                          │              listening sockets, FIFOs, notify sockets
//!  dies                         │
//!    ╳        next agentd ──take┘              the same descriptors, under the same names
//! ```
//!
//! While it lives, the supervisor's death closes no socket (so the kernel's reuseport indices, and with them the
//! weights, stay as they are), and loses no line that waits in a FIFO. It decides nothing and knows nothing but names
//! and descriptors. This file owns the supervisor's side; [`process`] is the other.
//!
//! **What can go wrong.** It dies: the supervisor notices at once (its connection ends), starts another and gives it
//! everything again. It hangs: a word that is not taken within [`PATIENCE`] counts as its death, and it is killed, since
//! a second holder of sockets that nobody can ask would keep the supervisor from adding to them. Whoever takes over from
//! it wakes it first, should somebody have stopped it, and waits ten times as long. Both die at once: what only they held
//! is gone; what workers hold they go on serving.

pub mod process;

use std::fmt;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::str::FromStr;
use std::time::Duration;

use agentd_core::id::{AppName, Lane, Launch};
use agentd_core::time::Moment;
use camino::{Utf8Path, Utf8PathBuf};
use nix::sys::socket::{getsockopt, sockopt};
use rustix::cmsg_space;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, fchmod};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, bind,
    connect, listen, sendmsg, socket_with,
};
use rustix::process::{Pid, PidfdFlags, Signal, getpid, pidfd_open, pidfd_send_signal};
use thiserror::Error;

use crate::logs::layout::StreamKind;
use crate::process::sys;
use crate::sockets::ListenAddr;

/// What agentd is called with to be a keeper.
pub const COMMAND: &str = "keep";
/// Longest wait for the keeper to take a word, or to answer.
pub const PATIENCE: Duration = Duration::from_millis(500);
/// Longest wait of whoever takes over for each word of a keeper that was silent at first. Workers serve on meanwhile.
const PATIENCE_WITH_THE_SLOW: Duration = PATIENCE.saturating_mul(10);
/// Supervisors that may wait to be heard.
const BACKLOG: i32 = 8;
/// Descriptors in one word.
const AT_ONCE: usize = 64;
/// Longest word, in bytes.
const WORD_MAX: usize = 64 * 1024;
/// Longest word of the keeper's, which holds one name at most, in bytes.
const ANSWER_MAX: usize = 4 * 1024;

/// What a kept descriptor is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Held {
    /// A listening socket.
    Lane {
        /// Whose.
        app: AppName,
        /// Its place in the group.
        lane: Lane,
        /// Where it listens.
        addr: ListenAddr,
    },
    /// The reading end of a worker's output.
    Fifo {
        /// Whose.
        launch: Launch,
        /// Which output.
        stream: StreamKind,
    },
    /// A worker's notify socket.
    Notify {
        /// Whose.
        launch: Launch,
    },
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lane { app, lane, addr } => write!(f, "lane {app} {lane} {addr}"),
            Self::Fifo { launch, stream } => write!(f, "fifo {launch} {}", stream.as_str()),
            Self::Notify { launch } => write!(f, "notify {launch}"),
        }
    }
}

/// A text that names nothing that is kept.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{0:?} names nothing that is kept")]
pub struct UnknownName(String);

impl FromStr for Held {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        let unknown = || UnknownName(text.chars().take(200).collect());
        let mut words = text.splitn(4, ' ');
        let mut next = || words.next().ok_or_else(unknown);
        match next()? {
            "lane" => {
                let app = next()?.parse().map_err(|_| unknown())?;
                let lane = Lane(next()?.parse().map_err(|_| unknown())?);
                Ok(Self::Lane { app, lane, addr: next()?.parse().map_err(|_| unknown())? })
            }
            "fifo" => {
                let launch = Launch(next()?.parse().map_err(|_| unknown())?);
                let stream = next()?;
                let stream = StreamKind::BOTH.into_iter().find(|kind| kind.as_str() == stream).ok_or_else(unknown)?;
                Ok(Self::Fifo { launch, stream })
            }
            "notify" => Ok(Self::Notify { launch: Launch(next()?.parse().map_err(|_| unknown())?) }),
            _ => Err(unknown()),
        }
    }
}

/// The keeper could not be reached, or does not do its work.
#[derive(Debug, Error)]
pub enum KeeperError {
    /// Nobody listens at its socket.
    #[error("failed to reach the keeper at {path}")]
    Absent {
        /// Its socket.
        path: Utf8PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Its socket could not be made.
    #[error("failed to make the keeper's socket {path}")]
    Socket {
        /// Where.
        path: Utf8PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A word was not taken.
    #[error("failed to tell the keeper")]
    Tell(#[source] io::Error),
    /// An answer did not come.
    #[error("failed to hear the keeper")]
    Hear(#[source] io::Error),
}

/// What a keeper gave to the next supervisor.
#[derive(Debug, Default)]
pub struct Taken {
    /// What it holds.
    pub held: Vec<(Held, OwnedFd)>,
    /// When its last supervisor was gone; none when it never had one.
    pub alone_since: Option<Moment>,
}

/// The supervisor's connection to its keeper.
#[derive(Debug)]
pub struct Keeper {
    socket: OwnedFd,
    /// A hold on its process; none where the kernel does not tell which it is.
    process: Option<OwnedFd>,
}

impl Keeper {
    /// Where the keeper of the instance with this runtime folder listens.
    #[must_use]
    pub fn path(run: &Utf8Path) -> Utf8PathBuf {
        run.join("keeper.sock")
    }

    /// Connects to a keeper that runs.
    ///
    /// # Errors
    /// [`KeeperError::Absent`].
    pub fn find(path: &Utf8Path) -> Result<Self, KeeperError> {
        let failed = |source: io::Error| KeeperError::Absent { path: path.to_owned(), source };
        let socket = seqpacket().map_err(failed)?;
        let address = SocketAddrUnix::new(path.as_str()).map_err(|errno| failed(errno.into()))?;
        connect(&socket, &address).map_err(|errno| failed(errno.into()))?;
        let process = process_behind(socket.as_fd());
        Ok(Self { socket, process })
    }

    /// Connects to a keeper that was started just now, and may not have listened itself yet.
    ///
    /// # Errors
    /// [`KeeperError::Absent`].
    pub fn find_started(path: &Utf8Path, process: OwnedFd) -> Result<Self, KeeperError> {
        Ok(Self { process: Some(process), ..Self::find(path)? })
    }

    /// Makes the socket that a new keeper is to listen on. A connection can be made at once and waits there.
    ///
    /// # Errors
    /// [`KeeperError::Socket`].
    pub fn make_socket(path: &Utf8Path) -> Result<OwnedFd, KeeperError> {
        let failed = |source: io::Error| KeeperError::Socket { path: path.to_owned(), source };
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            Ok(()) | Err(_) => {}
        }
        let socket = seqpacket().map_err(failed)?;
        let address = SocketAddrUnix::new(path.as_str()).map_err(|errno| failed(errno.into()))?;
        // The file that bind() makes takes its mode from the socket.
        fchmod(&socket, Mode::RUSR | Mode::WUSR).map_err(|errno| failed(errno.into()))?;
        bind(&socket, &address).map_err(|errno| failed(errno.into()))?;
        listen(&socket, BACKLOG).map_err(|errno| failed(errno.into()))?;
        Ok(socket)
    }

    /// Gives it descriptors to hold; what it has under the same names is replaced.
    ///
    /// # Errors
    /// It did not take them within [`PATIENCE`].
    pub fn hold(&self, given: &[(Held, BorrowedFd<'_>)]) -> Result<(), KeeperError> {
        for part in given.chunks(AT_ONCE) {
            let word = word("hold", part.iter().map(|(held, _)| held));
            let fds: Vec<BorrowedFd<'_>> = part.iter().map(|(_, fd)| *fd).collect();
            self.tell(word.as_bytes(), &fds)?;
        }
        Ok(())
    }

    /// Lets it let go.
    ///
    /// # Errors
    /// It did not take the word within [`PATIENCE`].
    pub fn release(&self, names: &[Held]) -> Result<(), KeeperError> {
        for part in names.chunks(AT_ONCE) {
            self.tell(word("release", part.iter()).as_bytes(), &[])?;
        }
        Ok(())
    }

    /// The keeper that listens at `path`, with copies of everything that it holds. One that does not answer is woken, and
    /// has more time then.
    ///
    /// # Errors
    /// There is none, or it did not answer in full; such a one is killed.
    pub fn take_over(path: &Utf8Path) -> Result<(Self, Taken), KeeperError> {
        let keeper = Self::find(path)?;
        let silence = |keeper: &Self| {
            tracing::warn!("the keeper is slow, or was stopped: it is woken");
            keeper.signal(Signal::CONT);
            PATIENCE_WITH_THE_SLOW
        };
        let taken = keeper.ask(PATIENCE, Some(&silence)).inspect_err(|_| keeper.kill())?;
        Ok((keeper, taken))
    }

    /// Copies of everything that it holds, and since when it had no supervisor. Names of a later version are passed
    /// over.
    ///
    /// # Errors
    /// It did not answer in full within [`PATIENCE`] a word.
    pub fn take(&self) -> Result<Taken, KeeperError> {
        self.ask(PATIENCE, None)
    }

    /// Asks for all of it. What is to be done at the first silence of longer than `patience` a word says how long each may
    /// take from then on.
    fn ask(
        &self,
        mut patience: Duration,
        mut silence: Option<&dyn Fn(&Self) -> Duration>,
    ) -> Result<Taken, KeeperError> {
        self.tell(b"take", &[])?;
        let mut taken = Vec::new();
        let mut buffer = [0; ANSWER_MAX];
        loop {
            match (wait(self.socket.as_fd(), PollFlags::IN, patience), silence) {
                (Ok(()), _) => {}
                (Err(error), Some(then)) if error.kind() == io::ErrorKind::TimedOut => {
                    (patience, silence) = (then(self), None);
                    continue;
                }
                (Err(error), _) => return Err(KeeperError::Hear(error)),
            }
            let received = sys::receive(self.socket.as_fd(), &mut buffer).map_err(KeeperError::Hear)?;
            let text = String::from_utf8_lossy(&buffer[..received.length]).into_owned();
            match (text.split_once('\n'), received.fds.into_iter().next()) {
                (Some(("held", name)), Some(fd)) => match name.parse() {
                    Ok(held) => taken.push((held, fd)),
                    Err(error) => tracing::warn!(%error, "the keeper holds something unknown"),
                },
                (Some(("end", since)), None) => {
                    let alone_since = since.parse().ok().map(Moment::from_micros);
                    return Ok(Taken { held: taken, alone_since });
                }
                (_, _) => return Err(KeeperError::Hear(io::ErrorKind::UnexpectedEof.into())),
            }
        }
    }

    /// Ends it, and with it what only it holds: by a word, or where it takes none, by a signal.
    ///
    /// # Errors
    /// It did not take the word within [`PATIENCE`].
    pub fn end(self) -> Result<(), KeeperError> {
        let told = self.tell(b"exit", &[]);
        if self.process.is_some() && (told.is_err() || !self.has_ended_within(PATIENCE)) {
            self.kill();
        }
        told
    }

    /// Ends it whatever it does, and with it what only it holds: for one that does not answer. Waits for its end, as long
    /// as [`PATIENCE`]: until then its sockets are in the way of those that are to take their place.
    pub fn kill(&self) {
        self.signal(Signal::KILL);
        if self.process.is_some() && !self.has_ended_within(PATIENCE) {
            tracing::error!("the keeper was killed, and does not go");
        }
    }

    fn has_ended_within(&self, patience: Duration) -> bool {
        self.process.as_ref().is_some_and(|process| wait(process.as_fd(), PollFlags::IN, patience).is_ok())
    }

    fn signal(&self, signal: Signal) {
        match self.process.as_ref().map(|process| pidfd_send_signal(process, signal)) {
            // It is gone: nothing is left to be woken or ended.
            Some(Ok(()) | Err(rustix::io::Errno::SRCH)) => {}
            Some(Err(error)) => tracing::error!(%error, ?signal, "the keeper cannot be signalled"),
            // Of a version that did not make itself known.
            None => tracing::error!(?signal, "the keeper cannot be signalled: which process it is cannot be told"),
        }
    }

    /// A descriptor that becomes readable when the keeper is gone.
    ///
    /// # Errors
    /// Descriptors have run out.
    pub fn death(&self) -> io::Result<OwnedFd> {
        self.socket.try_clone()
    }

    fn tell(&self, word: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), KeeperError> {
        send(self.socket.as_fd(), word, fds).map_err(KeeperError::Tell)
    }
}

/// The process that listens behind a connection to a keeper: whoever listened last, if it is another than this one and
/// was started to keep.
fn process_behind(connection: BorrowedFd<'_>) -> Option<OwnedFd> {
    let pid = getsockopt(&connection, sockopt::PeerCredentials).ok()?.pid();
    let pid = Pid::from_raw(pid).filter(|&pid| pid != getpid())?;
    let process = pidfd_open(pid, PidfdFlags::empty()).ok()?;
    // Looked at once it is held on to: the number may have been another's.
    let arguments = std::fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).ok()?;
    (arguments.split(|&byte| byte == 0).nth(1) == Some(COMMAND.as_bytes())).then_some(process)
}

fn word<'h>(verb: &str, names: impl Iterator<Item = &'h Held>) -> String {
    names.fold(verb.to_owned(), |word, name| format!("{word}\n{name}"))
}

fn seqpacket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

/// Sends one word with its descriptors, waiting for room as long as [`PATIENCE`].
pub(crate) fn send(socket: BorrowedFd<'_>, word: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    loop {
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(AT_ONCE))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        match sendmsg(socket, &[IoSlice::new(word)], &mut ancillary, SendFlags::NOSIGNAL) {
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::AGAIN) => wait(socket, PollFlags::OUT, PATIENCE)?,
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn wait(socket: BorrowedFd<'_>, wanted: PollFlags, patience: Duration) -> io::Result<()> {
    let patience = rustix::event::Timespec::try_from(patience).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut polled = [PollFd::from_borrowed_fd(socket, wanted)];
    // A child that ends just then is no word of the keeper's: the signal interrupts the call.
    match rustix::io::retry_on_intr(|| poll(&mut polled, Some(&patience)))? {
        0 => Err(io::ErrorKind::TimedOut.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
