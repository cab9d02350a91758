//! journald as the place that a stream's lines go to: one entry a line, in its native protocol, with fields.
//!
//! ```text
//!            lines came           sent, and only then taken out of the FIFO
//!   FIFO ──tee──► peeked at ──► /run/systemd/journal/socket
//!     ▲                 │ journald has its hands full: they stay in the FIFO, as on a slow disk
//!     └─────────────────┘ gone, or silent for PATIENCE: they are dropped and counted
//! ```
//!
//! Owns the connection and the protocol, and what of a stream is a line. Nothing is kept here that was not said yet: what
//! waits, half a line included, waits in the FIFO, so that a `kill -9` loses no line. It may say up to [`PEEK_BYTES`] of
//! them twice, those that were sent and not yet taken out.
//!
//! What can go wrong: journald is not there or does not take anything. Then lines are dropped, counted, and told of by an
//! entry once it is back. What journald itself drops by its rate limit only journald tells.

use std::fmt::Write as _;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use agentd_core::id::{Launch, WorkerId};
use camino::Utf8PathBuf;
use rustix::cmsg_space;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
    connect, sendmsg, socket_with,
};
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, tee};

use super::debt::Debt;
use super::fifo::PIPE_BYTES;
use super::file::Taken;
use super::layout::StreamKind;
use super::line::HOLD;

/// Where journald listens.
pub(super) const SOCKET: &str = "/run/systemd/journal/socket";

/// Bytes of a FIFO that are looked at together, and the most that is said twice after a `kill -9`.
const PEEK_BYTES: usize = 64 << 10;
/// A line of more bytes than this becomes several entries. More than a datagram holds, less than a FIFO does.
const ENTRY_BYTES: usize = 256 << 10;
/// So long it may take nothing before lines are dropped: it is started again within less.
const PATIENCE: Duration = Duration::from_secs(3);
/// Severities of syslog: what workers print, and what is said about it.
const INFO: u8 = 6;
const WARNING: u8 = 4;

/// The fields of every entry of one stream, as they are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fields(Vec<u8>);

impl Fields {
    /// What is known of a stream's lines before they come. `release` names the version that runs.
    #[must_use]
    pub fn of(instance: &str, worker: &WorkerId, launch: Launch, release: &str, stream: StreamKind) -> Self {
        let mut text = String::new();
        let stream = match stream {
            StreamKind::Out => "stdout",
            StreamKind::Err => "stderr",
        };
        let fields: [(&str, &dyn std::fmt::Display); 9] = [
            ("SYSLOG_IDENTIFIER", &worker.app),
            ("AGENTD_INSTANCE", &instance),
            ("AGENTD_APP", &worker.app),
            ("AGENTD_WORKER", worker),
            ("AGENTD_SLOT", &worker.slot),
            ("AGENTD_GENERATION", &worker.generation),
            ("AGENTD_RELEASE", &release),
            ("AGENTD_LAUNCH", &launch),
            ("AGENTD_STREAM", &stream),
        ];
        for (name, value) in fields {
            // A field ends at its newline; none of these values may hold one, and a string takes all that is written.
            let value = value.to_string().replace('\n', " ");
            let _ = writeln!(text, "{name}={value}");
        }
        Self(text.into_bytes())
    }
}

/// Why an entry was not taken.
#[derive(Debug)]
enum Refused {
    /// For now: it has its hands full.
    Busy,
    /// It is not there, or has taken nothing for too long.
    Gone(io::Error),
}

/// The one connection to journald, and the pipe in which FIFOs are looked at.
#[derive(Debug)]
pub(super) struct Journal {
    path: Utf8PathBuf,
    socket: Option<OwnedFd>,
    /// Both ends of the pipe that bytes are copied to, made when it is first needed.
    glass: Option<(OwnedFd, OwnedFd)>,
    /// Since when it has taken nothing.
    busy_since: Option<Instant>,
    entry: Vec<u8>,
}

impl Journal {
    /// The journald that listens at `path`. Nothing is opened before there are lines.
    pub(super) fn at(path: impl Into<Utf8PathBuf>) -> Self {
        Self { path: path.into(), socket: None, glass: None, busy_since: None, entry: Vec::new() }
    }

    /// Sends one entry.
    fn say(&mut self, fields: &Fields, priority: u8, message: &[u8]) -> Result<(), Refused> {
        let entry = &mut self.entry;
        entry.clear();
        entry.extend_from_slice(&fields.0);
        entry.extend_from_slice(format!("PRIORITY={priority}\nMESSAGE\n").as_bytes());
        // With its length before it a value may hold any byte.
        entry.extend_from_slice(&(message.len() as u64).to_le_bytes());
        entry.extend_from_slice(message);
        entry.push(b'\n');
        match self.send() {
            Ok(()) => {
                self.busy_since = None;
                Ok(())
            }
            Err(Errno::AGAIN) => {
                let since = *self.busy_since.get_or_insert_with(Instant::now);
                Err(if since.elapsed() < PATIENCE { Refused::Busy } else { Refused::Gone(silence()) })
            }
            Err(errno) => Err(Refused::Gone(errno.into())),
        }
    }

    /// Sends `entry`, by another connection where the one that is there leads nowhere any more.
    fn send(&mut self) -> Result<(), Errno> {
        if let Some(socket) = &self.socket {
            match send_entry(socket, &self.entry) {
                Err(Errno::CONNREFUSED | Errno::NOTCONN | Errno::CONNRESET | Errno::PIPE) => self.socket = None,
                other => return other,
            }
        }
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
        connect(&socket, &SocketAddrUnix::new(self.path.as_std_path())?)?;
        let sent = send_entry(&socket, &self.entry);
        self.socket = Some(socket);
        sent
    }

    /// Waits until it takes more, at most for what is left of its patience. False when that is used up.
    fn wait(&self) -> bool {
        let (Some(socket), Some(since)) = (&self.socket, self.busy_since) else { return false };
        let left = PATIENCE.saturating_sub(since.elapsed());
        let mut polled = [PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::OUT)];
        // Where it cannot be waited for, it is asked once more and then is gone.
        Timespec::try_from(left).is_ok_and(|left| poll(&mut polled, Some(&left)).is_ok_and(|ready| ready > 0))
    }

    /// Copies the first of the `waiting` bytes in `pipe` into `into`, and more of them where the first line is long.
    fn look(&mut self, pipe: BorrowedFd<'_>, waiting: usize, into: &mut Vec<u8>) -> Result<(), Errno> {
        self.peek(pipe, PEEK_BYTES, into)?;
        if into.len() == PEEK_BYTES && waiting > PEEK_BYTES && !into.contains(&b'\n') {
            self.peek(pipe, ENTRY_BYTES + 1, into)?;
        }
        Ok(())
    }

    /// Copies the first bytes of `pipe`, at most `most`, and leaves them there.
    fn peek(&mut self, pipe: BorrowedFd<'_>, most: usize, into: &mut Vec<u8>) -> Result<(), Errno> {
        let (read, write) = match &mut self.glass {
            Some(ends) => ends,
            none => {
                let ends = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
                // A small one only makes for shorter looks.
                let _ = fcntl_setpipe_size(&ends.1, PIPE_BYTES);
                none.insert(ends)
            }
        };
        let copied = match tee(pipe, &*write, most, SpliceFlags::NONBLOCK) {
            Ok(copied) => copied,
            Err(Errno::AGAIN) => 0,
            Err(errno) => return Err(errno),
        };
        into.resize(copied, 0);
        let mut filled = 0;
        while filled < copied {
            filled += rustix::io::read(&*read, &mut into[filled..])?;
        }
        Ok(())
    }
}

fn silence() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "it takes nothing")
}

/// As a datagram, or where it is too long for one, in a sealed file of memory.
fn send_entry(socket: &OwnedFd, entry: &[u8]) -> Result<(), Errno> {
    match rustix::net::send(socket, entry, SendFlags::NOSIGNAL) {
        Ok(_) => Ok(()),
        Err(Errno::MSGSIZE | Errno::NOBUFS) => {
            let file = rustix::fs::memfd_create("agentd-entry", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
            let mut left = entry;
            while !left.is_empty() {
                left = &left[rustix::io::write(&file, left)?..];
            }
            let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL;
            rustix::fs::fcntl_add_seals(&file, seals)?;
            let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            let fds = [file.as_fd()];
            assert!(ancillary.push(SendAncillaryMessage::ScmRights(&fds)), "there is space for one descriptor");
            sendmsg(socket, &[IoSlice::new(&[])], &mut ancillary, SendFlags::NOSIGNAL).map(drop)
        }
        Err(errno) => Err(errno),
    }
}

/// One stream on its way to the journal.
#[derive(Debug)]
pub(super) struct JournalStream {
    fields: Fields,
    debt: Option<Debt>,
    /// Since when half a line waits for its rest.
    half_since: Option<Instant>,
}

impl JournalStream {
    pub(super) fn new(fields: Fields) -> Self {
        Self { fields, debt: None, half_since: None }
    }

    /// What is lost of which the journal does not yet tell.
    pub(super) fn owed(&self) -> Option<&Debt> {
        self.debt.as_ref()
    }

    /// Sends the whole lines that wait in `pipe`, and half a line that has waited long enough.
    pub(super) fn take(&mut self, pipe: &OwnedFd, journal: &mut Journal, scratch: &mut Vec<u8>) -> Taken {
        self.go_on(pipe, journal, scratch, HOLD)
    }

    /// Sends all that waits in `pipe`; nobody prints into it any more. Waits for journald where it is slow.
    pub(super) fn finish(&mut self, pipe: &OwnedFd, journal: &mut Journal, scratch: &mut Vec<u8>) -> Taken {
        let taken = self.go_on(pipe, journal, scratch, Duration::ZERO);
        if taken == Taken::Waiting && !journal.wait() { self.discard(pipe, &silence()) } else { taken }
    }

    /// Tells in the journal what was lost, if anything was and it takes that.
    pub(super) fn settle_debt(&mut self, journal: &mut Journal) {
        // Refused: the debt stays, and is told at the next try.
        let _ = self.announce_debt(journal);
    }

    fn go_on(&mut self, pipe: &OwnedFd, journal: &mut Journal, scratch: &mut Vec<u8>, hold: Duration) -> Taken {
        let waiting = match rustix::io::ioctl_fionread(pipe) {
            Ok(0) => {
                self.half_since = None;
                return Taken::Nothing;
            }
            Ok(waiting) => usize::try_from(waiting).unwrap_or(usize::MAX),
            Err(_) => PIPE_BYTES,
        };
        match self.announce_debt(journal) {
            Ok(()) => {}
            Err(Refused::Busy) => return Taken::Waiting,
            Err(Refused::Gone(error)) => return self.discard(pipe, &error),
        }
        if let Err(errno) = journal.look(pipe.as_fd(), waiting, scratch) {
            return self.discard(pipe, &errno.into());
        }
        let (sent, refused) = self.say_lines(journal, scratch, waiting, hold);
        // Said, and so to be forgotten here. It is there: nobody else reads this FIFO.
        let mut left = sent;
        while left > 0 {
            match rustix::io::read(pipe, &mut scratch[..left]) {
                Ok(0) | Err(_) => break,
                Ok(got) => left -= got,
            }
        }
        match refused {
            Some(Refused::Gone(error)) => self.discard(pipe, &error),
            Some(Refused::Busy) | None if sent == 0 => Taken::Waiting,
            Some(Refused::Busy) | None => Taken::Written(sent as u64),
        }
    }

    /// Sends what of `seen` is to be sent now: how many bytes that were, and why it were not more.
    fn say_lines(
        &mut self,
        journal: &mut Journal,
        seen: &[u8],
        waiting: usize,
        hold: Duration,
    ) -> (usize, Option<Refused>) {
        let mut sent = 0;
        for piece in seen.split_inclusive(|&byte| byte == b'\n') {
            let line = piece.strip_suffix(b"\n");
            if line.is_none() && piece.len() < ENTRY_BYTES {
                let all_seen = seen.len() >= waiting;
                let since = *self.half_since.get_or_insert_with(Instant::now);
                // Its rest lies behind what was looked at, or is to come. A first line of which no more can be looked at
                // than this, by a small pipe, is cut.
                if if all_seen { since.elapsed() < hold } else { sent > 0 } {
                    break;
                }
            }
            let text = line.unwrap_or(piece);
            let cut = text.len().min(ENTRY_BYTES);
            if let Err(refused) = journal.say(&self.fields, INFO, &text[..cut]) {
                return (sent, Some(refused));
            }
            self.half_since = None;
            if cut < text.len() {
                // The rest is the next entry.
                return (sent + cut, None);
            }
            sent += piece.len();
        }
        (sent, None)
    }

    fn discard(&mut self, pipe: &OwnedFd, error: &io::Error) -> Taken {
        if self.debt.is_none() {
            tracing::warn!(%error, "log lines for the journal are being dropped");
        }
        self.half_since = None;
        let reason = format!("journald: {}", Debt::reason_of(error));
        match self.debt.get_or_insert_default().drop_waiting(pipe, PIPE_BYTES, reason) {
            0 => Taken::Nothing,
            bytes => Taken::Dropped(bytes),
        }
    }

    fn announce_debt(&mut self, journal: &mut Journal) -> Result<(), Refused> {
        let Some(debt) = &self.debt else { return Ok(()) };
        journal.say(&self.fields, WARNING, debt.to_string().as_bytes())?;
        tracing::info!(bytes = debt.bytes, lines = debt.lines, "the journal takes log lines again");
        self.debt = None;
        Ok(())
    }
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
