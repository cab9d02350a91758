//! One connection of a worker: bytes in, lines out, answers back.
//!
//! ```text
//!   Fresh ── hello ──► Known ──┐
//!     │  not in time           │ lost, dropped, told off
//!     └────────────────────────┴──► Leaving ── its last words were taken, or not in time ──► closed
//! ```
//!
//! **Bounded.** What is read and not yet handled: what one read gave, or one line. A line beyond
//! [`LARGE`] is only read to its end under a permit, of which there are few, so that thousands of connections cannot each
//! hold 8 MiB. What is answered and not yet taken: [`OUT_MAX`] and one line; beyond it the worker does not read,
//! and is dropped.
//!
//! Does no waiting: the desk tells when there is something to read or room to write.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use agentd_core::id::Launch;
use agentd_protocol::frame::{LineDecoder, LineTooLong};
use agentd_protocol::worker::{self, Code, Message};
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

/// Bytes of a line from which on it needs a permit to be read to its end.
pub(super) const LARGE: usize = 64 * 1024;

/// Longest that a large line may take from its permit to its end.
pub(super) const LARGE_WITHIN: Duration = Duration::from_secs(10);

/// Bytes that may wait to be read by a worker.
const OUT_MAX: usize = 16 * 1024 * 1024;

/// How long a new connection has to say `hello`.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long one that is told off has to take its last words. What it sends meanwhile is dropped: were it closed at once,
/// a worker in the middle of a long line would be told of a broken pipe and not of what it did wrong.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Buffers beyond this are given back when they are empty.
const KEPT: usize = 64 * 1024;

/// How a connection stands.
#[derive(Debug)]
pub(super) enum Standing {
    /// It has not said who it is.
    Fresh {
        /// When it is given up.
        until: Instant,
    },
    /// It is a worker's.
    Known {
        /// Whose.
        launch: Launch,
        /// When a large line that it began must be whole; none when it has not begun one.
        large_until: Option<Instant>,
    },
    /// Nothing more of it is heeded.
    Leaving {
        /// When it is closed whatever it has not taken.
        until: Instant,
    },
}

/// What came of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// Bytes, or nothing new.
    Some,
    /// The other side is gone.
    Gone,
}

/// Who is at the other end, by the kernel's word.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    pub(super) pid: u32,
    pub(super) uid: u32,
}

/// What is left in the decoder after a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    /// No whole line.
    Nothing,
    /// Lines whose turn comes in the next round, before anything else is read.
    Lines,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Link {
    stream: OwnedFd,
    pub(super) peer: Peer,
    pub(super) standing: Standing,
    /// What epoll was last asked for.
    pub(super) watched: EventFlags,
    decoder: LineDecoder,
    rest: Rest,
    /// Numbers of the requests of the batch that is not committed yet; answers to them are `staged`.
    asked: Vec<Option<u64>>,
    /// Answers and messages that become true with the commit.
    staged: Vec<u8>,
    /// What is true, and not yet taken by the worker.
    out: Vec<u8>,
    /// How much of `out` it took.
    taken: usize,
}

impl Link {
    pub(super) fn new(stream: OwnedFd, peer: Peer, now: Instant) -> Self {
        Self {
            stream,
            peer,
            standing: Standing::Fresh { until: now + PATIENCE },
            watched: EventFlags::IN,
            decoder: LineDecoder::new(worker::LINE_MAX),
            rest: Rest::Nothing,
            asked: Vec::new(),
            staged: Vec::new(),
            out: Vec::new(),
            taken: 0,
        }
    }

    /// Whose it is.
    pub(super) fn launch(&self) -> Option<Launch> {
        match self.standing {
            Standing::Known { launch, .. } => Some(launch),
            Standing::Fresh { .. } | Standing::Leaving { .. } => None,
        }
    }

    /// When it is to be closed if nothing happens.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.standing {
            Standing::Fresh { until } | Standing::Leaving { until } => Some(until),
            Standing::Known { large_until, .. } => large_until,
        }
    }

    /// Bytes of a line that is not whole.
    pub(super) fn partial(&self) -> usize {
        self.decoder.partial()
    }

    /// Reads once, through `scratch`. Only when every line was taken.
    pub(super) fn read(&mut self, scratch: &mut [u8]) -> Read {
        match rustix::net::recv(&self.stream, &mut *scratch, RecvFlags::DONTWAIT) {
            Ok((_, 0)) => Read::Gone,
            Ok((_, count)) => {
                self.decoder.feed(&scratch[..count]);
                Read::Some
            }
            Err(Errno::AGAIN | Errno::INTR) => Read::Some,
            Err(_) => Read::Gone,
        }
    }

    /// The decoder, to take lines from while the rest of the link is used; given back by [`Link::put_decoder`].
    pub(super) fn take_decoder(&mut self) -> LineDecoder {
        std::mem::replace(&mut self.decoder, LineDecoder::new(0))
    }

    pub(super) fn put_decoder(&mut self, decoder: LineDecoder, lines: bool) {
        self.decoder = decoder;
        self.rest = if lines { Rest::Lines } else { Rest::Nothing };
    }

    /// Whether lines of an earlier read wait for their turn.
    pub(super) fn has_lines(&self) -> bool {
        self.rest == Rest::Lines
    }

    /// What epoll is to tell of. `waits` for its turn to read a large line.
    pub(super) fn interest(&self, waits: bool) -> EventFlags {
        let reads = match self.standing {
            Standing::Fresh { .. } | Standing::Known { .. } => !waits && !self.is_full(),
            Standing::Leaving { .. } => true,
        };
        let read = if reads { EventFlags::IN } else { EventFlags::empty() };
        let write = if self.has_out() { EventFlags::OUT } else { EventFlags::empty() };
        read | write
    }

    /// Notes that a request of this batch wants an answer under this number, so that it gets another if the batch fails.
    pub(super) fn ask(&mut self, n: Option<u64>) {
        if n.is_some() {
            self.asked.push(n);
        }
    }

    /// Answers with the commit. Nothing when no answer is wanted.
    pub(super) fn answer<T: serde::Serialize>(&mut self, n: Option<u64>, body: &T) {
        if let Some(re) = n {
            worker::answer(&mut self.staged, re, body);
        }
    }

    /// Refuses with the commit.
    pub(super) fn refuse(&mut self, n: Option<u64>, code: Code, why: &str) {
        worker::refuse(&mut self.staged, n, code, why);
    }

    /// Tells with the commit.
    pub(super) fn tell(&mut self, message: &Message<'_>) {
        message.write(&mut self.staged);
    }

    /// Bytes that wait for the commit.
    pub(super) fn staged(&self) -> usize {
        self.staged.len()
    }

    /// The batch is committed: what was answered is true.
    pub(super) fn committed(&mut self) {
        self.asked.clear();
        if self.out.is_empty() {
            std::mem::swap(&mut self.out, &mut self.staged);
        } else {
            self.out.append(&mut self.staged);
        }
    }

    /// The batch is not committed: nothing of it is true, and every request of it is refused.
    pub(super) fn failed(&mut self, why: &str) {
        self.staged.clear();
        for n in std::mem::take(&mut self.asked) {
            worker::refuse(&mut self.out, n, Code::Store, why);
        }
    }

    /// Drops what it still sends.
    pub(super) fn drop_bytes(&self, scratch: &mut [u8]) -> Read {
        match rustix::net::recv(&self.stream, &mut *scratch, RecvFlags::DONTWAIT) {
            Ok((_, 0)) => Read::Gone,
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => Read::Some,
            Err(_) => Read::Gone,
        }
    }

    /// It has taken its last words: the other side sees the end.
    pub(super) fn say_goodbye(&self) {
        // One that is gone needs no goodbye.
        let _ = rustix::net::shutdown(&self.stream, rustix::net::Shutdown::Write);
    }

    /// Nothing more is heeded of it; it is closed when it has taken what it was told.
    pub(super) fn leave(&mut self, now: Instant) {
        self.standing = Standing::Leaving { until: now + LAST_WORDS };
        self.decoder = LineDecoder::new(0);
    }

    /// Whether something waits to be taken.
    pub(super) fn has_out(&self) -> bool {
        self.taken < self.out.len()
    }

    /// Whether the worker is so far behind with reading that it is to be dropped.
    pub(super) fn is_behind(&self) -> bool {
        self.out.len() - self.taken > OUT_MAX + worker::LINE_MAX
    }

    /// Whether so much waits to be taken that nothing more is to be asked.
    pub(super) fn is_full(&self) -> bool {
        self.out.len() - self.taken > OUT_MAX
    }

    /// Writes as much as there is room for. False when the other side is gone.
    pub(super) fn flush(&mut self) -> bool {
        while self.has_out() {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match rustix::net::send(&self.stream, &self.out[self.taken..], flags) {
                Ok(count) => self.taken += count,
                Err(Errno::AGAIN) => return true,
                Err(Errno::INTR) => {}
                Err(_) => return false,
            }
        }
        self.out.clear();
        self.taken = 0;
        if self.out.capacity() > KEPT {
            self.out = Vec::new();
        }
        true
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// Why a line cannot be read, for the worker.
pub(super) fn too_long(error: LineTooLong) -> String {
    format!("a line is longer than {} bytes", error.max)
}
