//! Lines from a Unix socket, with everything else that a waiting command waits for.
//!
//! Owns one connection, the buffer between its reads, and the one `poll` that a command ever sleeps in: for the next
//! line, a deadline, Ctrl-C, or the reader of our own output going away (`agentctl logs -f | head`).

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use agentd_protocol::frame::{LineDecoder, LineTooLong, RESPONSE_MAX};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use thiserror::Error;

/// Bytes read at once: the status of some fifty apps. More is mostly memory that is touched for nothing.
const CHUNK: usize = 16 * 1024;

/// Why no line came.
#[derive(Debug, Error)]
pub(crate) enum LineError {
    /// The socket broke.
    #[error("reading from the daemon: {0}")]
    Read(io::Error),
    /// The request could not be handed over.
    #[error("writing to the daemon: {0}")]
    Write(io::Error),
    /// Waiting itself failed.
    #[error("waiting for the daemon: {0}")]
    Poll(Errno),
    /// The line is longer than any answer may be.
    #[error(transparent)]
    TooLong(#[from] LineTooLong),
}

/// What ended a wait.
#[derive(Debug)]
pub(crate) enum Arrival {
    /// A line, without its end.
    Line(Vec<u8>),
    /// The daemon closed the connection.
    Closed,
    /// The deadline passed.
    Elapsed,
    /// Somebody pressed Ctrl-C.
    Interrupted,
    /// Nobody reads our standard output any more.
    OutputClosed,
}

/// Ctrl-C as something to wait for, instead of as an end.
#[derive(Debug)]
pub(crate) struct Interrupt(SignalFd);

impl Interrupt {
    /// Holds SIGINT back for the rest of this process. Call it before any thread or process is started: both
    /// inherit the mask.
    ///
    /// # Errors
    /// When the kernel has no descriptor left.
    pub(crate) fn hold() -> Result<Self, Errno> {
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGINT);
        mask.thread_block()?;
        SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).map(Self)
    }
}

/// One connection, read by lines.
#[derive(Debug)]
pub(crate) struct LineStream {
    stream: UnixStream,
    decoder: LineDecoder,
    ended: bool,
    interrupt: Option<Interrupt>,
    reader: Reader,
}

/// Whether whoever reads our standard output is waited for, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reader {
    /// Its end is the command's.
    Watched,
    /// The command has an end of its own, and an exit code that tells of it.
    Ignored,
}

impl LineStream {
    /// Reads `stream` by lines.
    pub(crate) const fn new(stream: UnixStream) -> Self {
        Self { stream, decoder: LineDecoder::new(RESPONSE_MAX), ended: false, interrupt: None, reader: Reader::Ignored }
    }

    /// From now on a wait also ends by Ctrl-C.
    pub(crate) fn interrupted_by(&mut self, interrupt: Interrupt) {
        self.interrupt = Some(interrupt);
    }

    /// From now on a wait also ends when nobody reads our output any more: for commands that only print.
    pub(crate) const fn ends_with_reader(&mut self) {
        self.reader = Reader::Watched;
    }

    /// Sends one line. A daemon that has closed already has turned us away: why is what it said last, and is read as
    /// the next line.
    ///
    /// # Errors
    /// [`LineError::Write`] when the daemon does not take it.
    pub(crate) fn send(&mut self, line: &str) -> Result<(), LineError> {
        let whole = format!("{line}\n");
        match self.stream.write_all(whole.as_bytes()) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
            written => written.map_err(LineError::Write),
        }
    }

    /// Tells the daemon that nothing more will be sent.
    ///
    /// # Errors
    /// [`LineError::Write`] when the connection is gone.
    pub(crate) fn end_sending(&mut self) -> Result<(), LineError> {
        self.stream.shutdown(Shutdown::Write).map_err(LineError::Write)
    }

    /// Whether the next line is here already.
    pub(crate) fn has_line(&self) -> bool {
        self.decoder.has_line()
    }

    /// The next line, or what else ended the wait for it. Without `until` it waits for ever.
    ///
    /// # Errors
    /// See [`LineError`].
    pub(crate) fn next(&mut self, until: Option<Instant>) -> Result<Arrival, LineError> {
        loop {
            if let Some(line) = self.decoder.next_line()? {
                return Ok(Arrival::Line(line.to_vec()));
            }
            if self.ended {
                // Every line of a daemon has an end: what has none was cut by the end of the connection.
                return Ok(Arrival::Closed);
            }
            if let Some(arrival) = self.wait(until)? {
                return Ok(arrival);
            }
            self.fill()?;
        }
    }

    /// Reads what is there. To be called only when something is.
    fn fill(&mut self) -> Result<(), LineError> {
        let mut chunk = [0; CHUNK];
        match self.stream.read(&mut chunk) {
            Ok(0) => self.ended = true,
            Ok(count) => self.decoder.feed(&chunk[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // A daemon that dies with our request unread resets the connection; it is gone all the same.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => self.ended = true,
            Err(error) => return Err(LineError::Read(error)),
        }
        Ok(())
    }

    /// Waits until the socket can be read (none) or something else happened.
    fn wait(&self, until: Option<Instant>) -> Result<Option<Arrival>, LineError> {
        let stdout = io::stdout();
        // Asks for nothing: errors are reported unasked, and a pipe without a reader is one.
        let reader = (self.reader == Reader::Watched).then(|| PollFd::new(stdout.as_fd(), PollFlags::empty()));
        let interrupt = self.interrupt.as_ref().map(|held| PollFd::new(held.0.as_fd(), PollFlags::POLLIN));
        let (at_reader, at_interrupt) = (1, 1 + usize::from(reader.is_some()));
        let mut watched = vec![PollFd::new(self.stream.as_fd(), PollFlags::POLLIN)];
        watched.extend(reader.into_iter().chain(interrupt));
        match poll(&mut watched, timeout(until)) {
            Err(Errno::EINTR) => return self.wait(until),
            Err(error) => return Err(LineError::Poll(error)),
            Ok(_) => {}
        }
        let happened = |index: usize| watched.get(index).is_some_and(|fd| fd.any().unwrap_or(true));
        if self.interrupt.is_some() && happened(at_interrupt) {
            return Ok(Some(Arrival::Interrupted));
        }
        if happened(0) {
            return Ok(None);
        }
        if self.reader == Reader::Watched && happened(at_reader) {
            return Ok(Some(Arrival::OutputClosed));
        }
        if until.is_some_and(|until| Instant::now() >= until) {
            return Ok(Some(Arrival::Elapsed));
        }
        self.wait(until)
    }
}

/// The time until `until`, rounded up: rounded down, the last millisecond would be spent spinning.
fn timeout(until: Option<Instant>) -> PollTimeout {
    let Some(until) = until else { return PollTimeout::NONE };
    let left = until.saturating_duration_since(Instant::now()).as_micros().div_ceil(1000);
    PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
}
