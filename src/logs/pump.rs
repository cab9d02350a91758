//! What the log thread does: wait, move, pause.
//!
//! One stream:
//!
//! ```text
//!            bytes came              nothing more came
//!   Armed ──────────────► Pausing ─────────────────────► Armed
//!                          │   ▲
//!                          └───┘ pause over, more was moved
//! ```
//!
//! - *Armed*: registered with epoll for one event (`EPOLLONESHOT`). The first byte after silence is moved at once, and
//!   silence costs nothing: no timer runs while every stream is armed.
//! - *Pausing*: not watched. What comes is left to gather for a few ms, so that a program that prints a line per
//!   `write` costs a splice per pause and not one per line. The pause shrinks while a stream would fill its pipe within
//!   it, and a splice that found much is repeated at once: a worker is not to block on its log.
//! - Streams whose pauses end almost together are served together.
//!
//! What can go wrong with files is [`super::file`]'s; here only epoll can fail, and then the thread ends with an error
//! in the daemon's log, because without it nothing can be waited for.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use camino::{Utf8Path, Utf8PathBuf};
use nix::sys::signal::SigSet;
use rustix::event::Timespec;
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::io::Errno;

use tokio::sync::watch;

use super::debt::Debt;
use super::fifo::{PIPE_BYTES, capacity};
use super::file::{LogFile, Taken};
use super::journal::{Journal, JournalStream, SOCKET};
use super::rotate::Rotation;
use super::thread::{Command, Counters, Finished, LogNews, LogThreadError, Stream, StreamId, Target, Tell};

/// How long bytes may gather.
const PAUSE_LONGEST: Duration = Duration::from_millis(8);
/// And how long at least, where a stream is fast.
const PAUSE_SHORTEST: Duration = Duration::from_millis(1);
/// Pauses that end this soon are ended now.
const SLACK: Duration = Duration::from_millis(2);
/// How often a file that lacks lines is tried though nobody prints.
const SETTLE_EVERY: Duration = Duration::from_secs(1);
/// Splices in a row for one stream before the others have their turn.
const TURNS: usize = 8;
/// The eventfd's name in epoll; no stream has it.
const WAKE: u64 = u64::MAX;

#[derive(Clone, Copy, Debug)]
enum Phase {
    Armed,
    Pausing { until: Instant, pause: Duration },
}

#[derive(Debug)]
struct Attached {
    stream: Stream,
    /// Bytes that the pipe holds.
    capacity: usize,
    phase: Phase,
    moved: Finished,
    /// Its way to the journal; none where it goes to a file, which is in `files`.
    journal: Option<JournalStream>,
}

/// A log file and how many streams print into it.
#[derive(Debug)]
struct Shared {
    file: LogFile,
    streams: usize,
}

pub(super) struct Pump {
    epoll: OwnedFd,
    wake: Arc<OwnedFd>,
    inbox: mpsc::Receiver<Command>,
    grew: watch::Sender<u64>,
    counters: Arc<Counters>,
    journal: Journal,
    /// Where bytes are looked at that go to the journal.
    scratch: Vec<u8>,
    tell: Tell,
    /// When files that lack lines are asked again whether they take the words about it.
    settle_at: Option<Instant>,
    // Boxed: a node of a map has room for eleven, and is half empty where what comes is the next in order.
    streams: BTreeMap<StreamId, Box<Attached>>,
    files: BTreeMap<Utf8PathBuf, Box<Shared>>,
}

/// Whether the loop goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Continue,
    Stop,
}

impl Pump {
    pub(super) fn new(
        wake: Arc<OwnedFd>,
        inbox: mpsc::Receiver<Command>,
        grew: watch::Sender<u64>,
        counters: Arc<Counters>,
        tell: Tell,
    ) -> Result<Self, LogThreadError> {
        let made = epoll::create(epoll::CreateFlags::CLOEXEC).and_then(|epoll| {
            epoll::add(&epoll, &*wake, EventData::new_u64(WAKE), EventFlags::IN)?;
            Ok(epoll)
        });
        let epoll = made.map_err(|errno| LogThreadError::Epoll(errno.into()))?;
        let (journal, scratch) = (Journal::at(SOCKET), Vec::new());
        let (streams, files) = (BTreeMap::new(), BTreeMap::new());
        Ok(Self { epoll, wake, inbox, grew, counters, journal, scratch, tell, settle_at: None, streams, files })
    }

    /// The thread's life. Returns after `Stop`, or when the handle is gone.
    pub(super) fn run(mut self) {
        // Signals are the main thread's; and a file size limit (`SIGXFSZ`) is to be an error here, not the end.
        let _ = SigSet::all().thread_block();
        let id = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
        self.counters.thread.store(u64::from(id), Ordering::Relaxed);
        let mut events = Vec::with_capacity(64);
        loop {
            match self.wait(&mut events) {
                Ok(()) | Err(Errno::INTR) => {}
                Err(errno) => {
                    tracing::error!(error = %errno, "log thread ends: epoll failed");
                    return;
                }
            }
            let mut next = Next::Continue;
            let mut grown = false;
            for event in events.drain(..) {
                match event.data.u64() {
                    WAKE => next = self.obey(),
                    id => grown |= self.serve(StreamId(id)),
                }
            }
            grown |= self.serve_due();
            grown |= self.settle_debts();
            self.tell(grown);
            if next == Next::Stop {
                let grown = self.drain_all();
                self.tell(grown);
                return;
            }
        }
    }

    fn wait(&self, events: &mut Vec<Event>) -> Result<(), Errno> {
        let until = self.streams.values().filter_map(|attached| match attached.phase {
            Phase::Armed => None,
            Phase::Pausing { until, .. } => Some(until),
        });
        let timeout = until.chain(self.settle_at).min().map(|until| {
            let left = until.saturating_duration_since(Instant::now());
            Timespec { tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX), tv_nsec: left.subsec_nanos().into() }
        });
        events.clear();
        epoll::wait(&self.epoll, rustix::buffer::spare_capacity(events), timeout.as_ref())?;
        Ok(())
    }

    fn tell(&self, grown: bool) {
        // A receiver of its own lives in the handle; more than that one means that somebody follows.
        if grown && self.grew.receiver_count() > 1 {
            self.grew.send_modify(|count| *count = count.wrapping_add(1));
        }
    }

    fn obey(&mut self) -> Next {
        let mut count = [0; 8];
        // Cleared before the inbox is read, so that a command sent meanwhile wakes again.
        let _ = rustix::io::read(&*self.wake, &mut count);
        loop {
            match self.inbox.try_recv() {
                Ok(Command::Attach(streams)) => streams.into_iter().for_each(|stream| self.attach(stream)),
                Ok(Command::Finish(ids, answer)) => {
                    let moved = ids.into_iter().map(|id| self.finish(id)).fold(Finished::default(), Finished::and);
                    // Nobody waits any more: fine.
                    let _ = answer.send(moved);
                }
                Ok(Command::Govern(id, rotation)) => self.govern(id, rotation),
                Ok(Command::Flush(answer)) => {
                    let grown = self.drain_all();
                    self.tell(grown);
                    // Nobody waits any more: fine.
                    let _ = answer.send(());
                }
                Ok(Command::Stop) | Err(mpsc::TryRecvError::Disconnected) => return Next::Stop,
                Err(mpsc::TryRecvError::Empty) => return Next::Continue,
            }
        }
    }

    fn attach(&mut self, stream: Stream) {
        let id = stream.id;
        let added =
            epoll::add(&self.epoll, &stream.fifo, EventData::new_u64(id.0), EventFlags::IN | EventFlags::ONESHOT);
        if let Err(errno) = added {
            // Only when memory or watches have run out: served by pauses alone until epoll takes it.
            tracing::warn!(log = %stream.to.name(), error = %errno, "log stream is polled");
        }
        let journal = match &stream.to {
            Target::Journal { fields, .. } => Some(JournalStream::new(fields.clone())),
            Target::File { path, rotation } => {
                self.share(path, *rotation);
                None
            }
        };
        let capacity = capacity(&stream.fifo).unwrap_or(PIPE_BYTES);
        let phase = match added {
            Ok(()) => Phase::Armed,
            Err(_) => Phase::Pausing { until: Instant::now(), pause: PAUSE_LONGEST },
        };
        let attached = Box::new(Attached { stream, capacity, phase, moved: Finished::default(), journal });
        if let Some(old) = self.streams.insert(id, attached) {
            tracing::error!(stream = id.0, "a log stream was attached twice; the first is let go");
            // Closing is not enough: the keeper holds a duplicate, so epoll would go on telling of it.
            let _ = epoll::delete(&self.epoll, &old.stream.fifo);
            self.release(*old);
        }
    }

    /// One stream more prints into the file at `path`.
    fn share(&mut self, path: &Utf8Path, rotation: Rotation) {
        match self.files.get_mut(path) {
            Some(shared) => {
                shared.streams += 1;
                shared.file.set_rotation(rotation);
            }
            None => {
                let file = LogFile::new(path.to_owned(), rotation);
                self.files.insert(path.to_owned(), Box::new(Shared { file, streams: 1 }));
            }
        }
    }

    fn finish(&mut self, id: StreamId) -> Finished {
        let grown = self.drain(id);
        let moved = match self.streams.remove(&id) {
            None => Finished::default(),
            Some(attached) => {
                // Closing is not enough: the keeper holds a duplicate, so epoll would go on telling of it.
                let _ = epoll::delete(&self.epoll, &attached.stream.fifo);
                if let Some(path) = &attached.stream.fifo_path {
                    // Swept with the runtime folder otherwise.
                    let _ = std::fs::remove_file(path);
                }
                let moved = attached.moved;
                self.release(*attached);
                moved
            }
        };
        self.tell(grown);
        moved
    }

    fn govern(&mut self, id: StreamId, rotation: Rotation) {
        let path = self.streams.get(&id).and_then(|attached| match &attached.stream.to {
            Target::File { path, .. } => Some(path),
            Target::Journal { .. } => None,
        });
        if let Some(shared) = path.and_then(|path| self.files.get_mut(path)) {
            shared.file.set_rotation(rotation);
        }
    }

    /// A stream is over: what it or, after its last stream, its file owes is told now or never.
    fn release(&mut self, attached: Attached) {
        let Attached { stream, journal, .. } = attached;
        let name = stream.to.name();
        let owed = if let Some(mut journal) = journal {
            let before = journal.owed().cloned();
            journal.settle_debt(&mut self.journal);
            tell_of_debt(&self.tell, name, before, journal.owed());
            journal.owed().cloned()
        } else {
            let Some(shared) = self.files.get_mut(name) else { return };
            shared.streams -= 1;
            if shared.streams > 0 {
                return;
            }
            let before = shared.file.owed().cloned();
            shared.file.settle_debt();
            tell_of_file(&self.tell, name, &mut shared.file, before);
            self.files.remove(name).and_then(|shared| shared.file.owed().cloned())
        };
        if let Some(owed) = owed {
            tracing::warn!(log = %name, ?owed, "log closed with dropped lines that it does not tell of");
        }
    }

    /// Tells in files and in the journal what they lack, once they take it, though nobody prints any more. Tried every
    /// second.
    fn settle_debts(&mut self) -> bool {
        let now = Instant::now();
        if self.settle_at.is_some_and(|at| now < at) {
            return false;
        }
        let due = self.settle_at.take().is_some();
        let (mut grown, mut left) = (false, false);
        for (path, shared) in self.files.iter_mut().filter(|(_, shared)| shared.file.owed().is_some()) {
            if due {
                let before = shared.file.owed().cloned();
                shared.file.settle_debt();
                grown |= shared.file.owed().is_none();
                tell_of_file(&self.tell, path, &mut shared.file, before);
            }
            left |= shared.file.owed().is_some();
        }
        for attached in self.streams.values_mut() {
            let Attached { stream, journal, .. } = &mut **attached;
            let Some(journal) = journal.as_mut().filter(|journal| journal.owed().is_some()) else { continue };
            if due {
                let before = journal.owed().cloned();
                journal.settle_debt(&mut self.journal);
                tell_of_debt(&self.tell, stream.to.name(), before, journal.owed());
            }
            left |= journal.owed().is_some();
        }
        self.settle_at = left.then(|| now + SETTLE_EVERY);
        grown
    }

    /// Serves every stream whose pause is over, or almost.
    fn serve_due(&mut self) -> bool {
        let now = Instant::now() + SLACK;
        let due = |attached: &Attached| match attached.phase {
            Phase::Armed => false,
            Phase::Pausing { until, .. } => until <= now,
        };
        let ids: Vec<_> = self.streams.iter().filter(|(_, attached)| due(attached)).map(|(id, _)| *id).collect();
        let mut grown = false;
        for id in ids {
            grown |= self.serve(id);
        }
        grown
    }

    /// Moves what waits in one stream and chooses its next phase. True when its file grew.
    fn serve(&mut self, id: StreamId) -> bool {
        let mut grown = false;
        let mut filled = false;
        let mut quiet = true;
        for _ in 0..TURNS {
            let Some((moved, capacity)) = self.take(id, Pace::AsItComes) else { return grown };
            let bytes = match moved {
                Taken::Nothing => break,
                Taken::Waiting => {
                    // Not watched: what waits would wake at once.
                    (quiet, filled) = (false, false);
                    break;
                }
                Taken::Written(bytes) => {
                    grown = true;
                    bytes
                }
                Taken::Dropped(bytes) => bytes,
            };
            quiet = false;
            filled = bytes >= capacity / 4;
            if !filled {
                break;
            }
        }
        let Some(attached) = self.streams.get_mut(&id) else { return grown };
        let pause = match attached.phase {
            Phase::Armed => PAUSE_LONGEST,
            Phase::Pausing { pause, .. } => pause,
        };
        attached.phase = if quiet && arm(&self.epoll, &attached.stream) {
            Phase::Armed
        } else {
            let pause = if filled { pause / 2 } else { pause * 2 }.clamp(PAUSE_SHORTEST, PAUSE_LONGEST);
            Phase::Pausing { until: Instant::now() + pause, pause }
        };
        grown
    }

    fn take(&mut self, id: StreamId, pace: Pace) -> Option<(Taken, u64)> {
        let attached = self.streams.get_mut(&id)?;
        let stream = &attached.stream;
        let pipe = stream.fifo.end();
        stream.fifo.set_moving(true);
        let taken = if let Some(to) = &mut attached.journal {
            let before = to.owed().cloned();
            let taken = match pace {
                Pace::AsItComes => to.take(pipe, &mut self.journal, &mut self.scratch),
                Pace::AllOfIt => to.finish(pipe, &mut self.journal, &mut self.scratch),
            };
            tell_of_debt(&self.tell, stream.to.name(), before, to.owed());
            taken
        } else {
            let shared = self.files.get_mut(stream.to.name())?;
            let before = shared.file.owed().cloned();
            let taken = shared.file.take(pipe, stream.launch, attached.capacity);
            tell_of_file(&self.tell, stream.to.name(), &mut shared.file, before);
            taken
        };
        stream.fifo.set_moving(false);
        match taken {
            Taken::Nothing | Taken::Waiting => {}
            Taken::Written(bytes) => attached.moved.written += bytes,
            Taken::Dropped(bytes) => {
                attached.moved.dropped += bytes;
                self.counters.dropped.fetch_add(bytes, Ordering::Relaxed);
            }
        }
        Some((taken, attached.capacity as u64))
    }

    /// Moves all that waits in one stream now, but not what a writer that never stops adds meanwhile.
    fn drain(&mut self, id: StreamId) -> bool {
        let Some(attached) = self.streams.get(&id) else { return false };
        let mut left = rustix::io::ioctl_fionread(&attached.stream.fifo).unwrap_or(attached.capacity as u64);
        let mut grown = false;
        while left > 0 {
            match self.take(id, Pace::AllOfIt) {
                None | Some((Taken::Nothing, _)) => break,
                // Room is there again, or the next answer is that there is none.
                Some((Taken::Waiting, _)) => {}
                Some((Taken::Written(bytes), _)) => {
                    grown = true;
                    left = left.saturating_sub(bytes);
                }
                Some((Taken::Dropped(bytes), _)) => left = left.saturating_sub(bytes),
            }
        }
        grown
    }

    fn drain_all(&mut self) -> bool {
        let ids: Vec<_> = self.streams.keys().copied().collect();
        let mut grown = false;
        for id in ids {
            grown |= self.drain(id);
        }
        grown
    }
}

/// How much of a stream is to be moved.
#[derive(Clone, Copy, Debug)]
enum Pace {
    /// What is ready.
    AsItComes,
    /// Half lines too, waiting where it has to be waited.
    AllOfIt,
}

/// Tells what befell a file whose debt was `before`.
fn tell_of_file(tell: &Tell, path: &Utf8Path, file: &mut LogFile, before: Option<Debt>) {
    if file.take_rotated() {
        tell(LogNews::Rotated { path: path.to_owned() });
    }
    tell_of_debt(tell, path, before, file.owed());
}

/// Tells that dropping began, or ended.
fn tell_of_debt(tell: &Tell, path: &Utf8Path, before: Option<Debt>, now: Option<&Debt>) {
    match (before, now) {
        (None, Some(debt)) => tell(LogNews::Dropping { path: path.to_owned(), why: debt.reason.clone() }),
        (Some(Debt { bytes, lines, .. }), None) => tell(LogNews::Resumed { path: path.to_owned(), lines, bytes }),
        (None, None) | (Some(_), Some(_)) => {}
    }
}

/// Watches the stream for its next byte. A byte that is there already counts as one to come.
fn arm(epoll: &OwnedFd, stream: &Stream) -> bool {
    let (data, flags) = (EventData::new_u64(stream.id.0), EventFlags::IN | EventFlags::ONESHOT);
    match epoll::modify(epoll, &stream.fifo, data, flags) {
        Err(Errno::NOENT) => epoll::add(epoll, &stream.fifo, data, flags).is_ok(),
        other => other.is_ok(),
    }
}
