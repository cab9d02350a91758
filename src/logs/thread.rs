//! The log thread as the rest of the daemon sees it: a handle that sends commands and never waits.
//!
//! One thread reads every supervisor end of a FIFO and owns every live log file; `pump` is what it does. It has a
//! thread of its own because writing a file blocks, and nothing else in the daemon may wait for a disk.
//!
//! What can go wrong: only starting it. A file that cannot be opened or written drops lines, counted, and is no error
//! of whoever attached the stream.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use agentd_core::id::Launch;
use camino::{Utf8Path, Utf8PathBuf};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, poll};
use thiserror::Error;
use tokio::sync::{oneshot, watch};

pub use super::journal::Fields;
use super::pump::Pump;
use super::rotate::Rotation;

/// Enough for the loop, its 4 KiB of events and a tracing subscriber.
const STACK_BYTES: usize = 256 << 10;

/// One stream of one launch, for as long as it is attached. Chosen by the caller, unique among those attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);

/// The supervisor's end of a FIFO: the thread's, and, to see how far the thread is, that of whoever attached it.
#[derive(Debug)]
pub struct Inlet {
    fifo: OwnedFd,
    /// The thread is at work on it.
    moving: AtomicBool,
}

impl Inlet {
    /// The end `fifo`, of which nothing was taken yet.
    #[must_use]
    pub fn new(fifo: OwnedFd) -> Arc<Self> {
        Arc::new(Self { fifo, moving: AtomicBool::new(false) })
    }

    /// Whether all that was printed so far has reached its file, or was dropped. Where the kernel does not tell, and for half a
    /// line on its way to the journal, the answer is no.
    ///
    /// Never waits: to be asked whether it can be read a pipe needs no lock, and to be asked how much is in it needs the one
    /// that is held while its bytes are written to a disk.
    #[must_use]
    pub fn is_moved(&self) -> bool {
        let mut asked = [PollFd::new(&self.fifo, PollFlags::IN)];
        // A writer that is gone is told of as well: only bytes count.
        let empty = poll(&mut asked, Some(&Timespec::default())).is_ok() && !asked[0].revents().contains(PollFlags::IN);
        // In this order: the thread says that it is at work before it takes the first byte out.
        fence(Ordering::SeqCst);
        empty && !self.moving.load(Ordering::SeqCst)
    }

    pub(super) const fn end(&self) -> &OwnedFd {
        &self.fifo
    }

    pub(super) fn set_moving(&self, moving: bool) {
        self.moving.store(moving, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }
}

impl AsFd for Inlet {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fifo.as_fd()
    }
}

/// A FIFO to move and where it goes.
#[derive(Debug)]
pub struct Stream {
    /// Its name in later commands.
    pub id: StreamId,
    /// The supervisor's end.
    pub fifo: Arc<Inlet>,
    /// The FIFO's name, removed when the stream is finished; none when there is nothing to remove.
    pub fifo_path: Option<Utf8PathBuf>,
    /// Which process prints.
    pub launch: Launch,
    /// Where its lines are kept.
    pub to: Target,
}

/// Where the lines of a stream are kept.
#[derive(Clone, Debug)]
pub enum Target {
    /// In a file. Several streams may share it: during a reload two launches print into the same slot's log.
    File {
        /// The live log file; its folder is made when missing. The time index lies beside it.
        path: Utf8PathBuf,
        /// Limits of the file; the last attached stream of a file decides.
        rotation: Rotation,
    },
    /// In journald.
    Journal {
        /// What the stream is called in news: the name that a file of it would have, in the folder "journald".
        name: Utf8PathBuf,
        /// What each entry carries.
        fields: Fields,
    },
}

impl Target {
    /// What it is called in news.
    pub(super) fn name(&self) -> &Utf8Path {
        match self {
            Self::File { path, .. } => path,
            Self::Journal { name, .. } => name,
        }
    }
}

/// What finished streams came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Finished {
    /// Bytes that reached the file since they were attached.
    pub written: u64,
    /// Bytes that were dropped because the file refused them.
    pub dropped: u64,
}

impl Finished {
    pub(super) const fn and(self, other: Self) -> Self {
        Self { written: self.written + other.written, dropped: self.dropped + other.dropped }
    }
}

/// The log thread could not be started, or is gone.
#[derive(Debug, Error)]
pub enum LogThreadError {
    /// No eventfd to wake it.
    #[error("make the log thread's eventfd")]
    Eventfd(#[source] io::Error),
    /// No epoll to wait with.
    #[error("make the log thread's epoll")]
    Epoll(#[source] io::Error),
    /// The kernel gave no thread.
    #[error("start the log thread")]
    Spawn(#[source] io::Error),
    /// It ended early; the daemon's own log says why.
    #[error("reach the log thread: it has ended")]
    Gone,
}

#[derive(Debug)]
pub(super) enum Command {
    Attach(Vec<Stream>),
    Finish(Vec<StreamId>, oneshot::Sender<Finished>),
    Govern(StreamId, Rotation),
    Flush(oneshot::Sender<()>),
    Stop,
}

/// What the thread tells unasked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogNews {
    /// The live file was put aside.
    Rotated {
        /// The live file.
        path: Utf8PathBuf,
    },
    /// A file, or journald, takes nothing, and lines are being dropped.
    Dropping {
        /// The live file, or what stands for it.
        path: Utf8PathBuf,
        /// What the kernel said: "no space left on device".
        why: String,
    },
    /// It takes lines again, and tells what is missing.
    Resumed {
        /// The live file, or what stands for it.
        path: Utf8PathBuf,
        /// Lines dropped meanwhile.
        lines: u64,
        /// Bytes of them.
        bytes: u64,
    },
}

/// Whom the thread tells. It must not wait.
pub type Tell = Box<dyn Fn(LogNews) + Send>;

/// Figures that the thread keeps while it works.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) dropped: AtomicU64,
    pub(super) thread: AtomicU64,
}

/// The running log thread. Dropping it moves what waits in the FIFOs, then ends the thread; the FIFOs stay for the next
/// supervisor.
#[derive(Debug)]
pub struct LogThread {
    commands: mpsc::Sender<Command>,
    wake: Arc<OwnedFd>,
    grew: watch::Receiver<u64>,
    counters: Arc<Counters>,
    thread: Option<JoinHandle<()>>,
}

impl LogThread {
    /// Starts the thread, with nothing attached and nobody to be told.
    ///
    /// # Errors
    /// [`LogThreadError`], when descriptors or threads have run out.
    pub fn start() -> Result<Self, LogThreadError> {
        Self::start_telling(Box::new(drop))
    }

    /// Starts the thread, with nothing attached. It calls `tell` from within.
    ///
    /// # Errors
    /// [`LogThreadError`], when descriptors or threads have run out.
    pub fn start_telling(tell: Tell) -> Result<Self, LogThreadError> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let wake = rustix::event::eventfd(0, flags).map_err(|errno| LogThreadError::Eventfd(errno.into()))?;
        let wake = Arc::new(wake);
        let (commands, inbox) = mpsc::channel();
        let (grew_sender, grew) = watch::channel(0);
        let counters = Arc::new(Counters::default());
        let pump = Pump::new(Arc::clone(&wake), inbox, grew_sender, Arc::clone(&counters), tell)?;
        let thread = std::thread::Builder::new()
            .name("agentd-logs".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || pump.run())
            .map_err(LogThreadError::Spawn)?;
        Ok(Self { commands, wake, grew, counters, thread: Some(thread) })
    }

    /// Moves the streams' bytes from now on.
    ///
    /// # Errors
    /// [`LogThreadError::Gone`].
    pub fn attach(&self, streams: Vec<Stream>) -> Result<(), LogThreadError> {
        self.send(Command::Attach(streams))
    }

    /// To be called once the worker has exited: moves what it left in its FIFOs, closes and removes them, and answers
    /// once, when its last line is in the file. An unknown id counts as a stream without bytes. The answer fails only when
    /// the thread is gone.
    ///
    /// A descendant that still holds the FIFO can print until it is full and then blocks: end those first.
    ///
    /// # Errors
    /// [`LogThreadError::Gone`].
    pub fn finish(&self, ids: Vec<StreamId>) -> Result<oneshot::Receiver<Finished>, LogThreadError> {
        let (answer, receiver) = oneshot::channel();
        self.send(Command::Finish(ids, answer))?;
        Ok(receiver)
    }

    /// Other limits for the file that a stream prints into. An unknown `id` is none of ours any more.
    ///
    /// # Errors
    /// [`LogThreadError::Gone`].
    pub fn govern(&self, id: StreamId, rotation: Rotation) -> Result<(), LogThreadError> {
        self.send(Command::Govern(id, rotation))
    }

    /// Answers when everything that waited in the FIFOs at the time of the call is in the files.
    ///
    /// # Errors
    /// [`LogThreadError::Gone`].
    pub fn flush(&self) -> Result<oneshot::Receiver<()>, LogThreadError> {
        let (answer, receiver) = oneshot::channel();
        self.send(Command::Flush(answer))?;
        Ok(receiver)
    }

    /// Changes whenever some file grew: what a follower waits on. Nothing is sent while nobody listens, so look once
    /// after subscribing.
    #[must_use]
    pub fn grew(&self) -> watch::Receiver<u64> {
        let mut receiver = self.grew.clone();
        receiver.mark_unchanged();
        receiver
    }

    /// Bytes dropped since the start, over all streams.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.counters.dropped.load(Ordering::Relaxed)
    }

    /// The thread's kernel id, for figures of its CPU time (`/proc/self/task/<id>`); none until it runs.
    #[must_use]
    pub fn thread_id(&self) -> Option<u32> {
        u32::try_from(self.counters.thread.load(Ordering::Relaxed)).ok().filter(|&id| id != 0)
    }

    fn send(&self, command: Command) -> Result<(), LogThreadError> {
        self.commands.send(command).map_err(|_| LogThreadError::Gone)?;
        // The only failure is a counter about to overflow, and then the thread is awake.
        let _ = rustix::io::write(&*self.wake, &1u64.to_ne_bytes());
        Ok(())
    }
}

impl Drop for LogThread {
    fn drop(&mut self) {
        // Gone already: nothing is left to stop.
        let _ = self.send(Command::Stop);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the log thread had panicked");
        }
    }
}

#[cfg(test)]
#[path = "thread_tests.rs"]
mod tests;
