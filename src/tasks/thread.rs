//! The ledger thread as the rest of the daemon sees it: a handle that gives orders and never waits.
//!
//! One thread owns every open task, the workers' connections and `tasks.db`; [`super::desk`] is what it does. It has a
//! thread of its own because a commit waits for the disk, and nothing else in the daemon may.
//!
//! What can go wrong: only starting it. What fails later is told to the workers it concerns and reported as a
//! [`Report::Trouble`].

use std::collections::BTreeSet;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use agentd_core::event::Exit;
use agentd_core::id::{AppName, Generation, Launch, Operation, WorkerId};
use agentd_core::policy::GracePolicy;
use agentd_core::task::{Fact, Gone, Successor, TaskId, TaskPolicy, Told};
use agentd_core::time::Moment;
use agentd_protocol::control::{ErrorObject, Reply};
use camino::Utf8PathBuf;
use nix::sys::signal::SigSet;
use rustix::event::EventfdFlags;
use thiserror::Error;

use super::ask::Question;
use super::askers::AskedBy;
use super::db::{Db, DbError};
use super::desk::Desk;
use super::inspect::Inspect;
use super::panels::{Judge, Judged};
use super::retention::Retention;
use super::token::{Secret, SecretError};
use super::versions::{Measure, Measured};

/// SQLite's own frames are deep.
const STACK_BYTES: usize = 1 << 20;

/// The ledger thread could not be started, or is gone.
#[derive(Debug, Error)]
pub enum TasksError {
    /// Its database.
    #[error(transparent)]
    Db(#[from] DbError),
    /// What workers prove themselves by.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// No eventfd or epoll.
    #[error("make the ledger thread's epoll")]
    Epoll(#[source] io::Error),
    /// The socket.
    #[error("listen at {path}")]
    Listen {
        /// Where.
        path: Utf8PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The kernel gave no thread.
    #[error("start the ledger thread")]
    Spawn(#[source] io::Error),
    /// It ended early; the daemon's own log says why.
    #[error("reach the ledger thread: it has ended")]
    Gone,
}

/// What a worker has in hand, kept up to date by the thread a few times a second.
#[derive(Debug, Default)]
pub struct Gauge {
    tasks: AtomicU32,
    /// When the oldest began, in µs of `CLOCK_BOOTTIME`; 0 when there is none.
    oldest: AtomicU64,
    /// How long a drain that began now might take, in ms; 0 while it is not known.
    grace_ms: AtomicU64,
}

impl Gauge {
    /// Tasks in hand.
    #[must_use]
    pub fn tasks(&self) -> u32 {
        self.tasks.load(Ordering::Relaxed)
    }

    /// When the oldest of them began, what it took before it was resumed counted in.
    #[must_use]
    pub fn oldest(&self) -> Option<Moment> {
        Some(self.oldest.load(Ordering::Relaxed)).filter(|&at| at > 0).map(Moment::from_micros)
    }

    /// How long a drain that began now might take; none while that is not known.
    #[must_use]
    pub fn grace(&self) -> Option<Duration> {
        Some(self.grace_ms.load(Ordering::Relaxed)).filter(|&ms| ms > 0).map(Duration::from_millis)
    }

    pub(super) fn set(&self, tasks: u32, oldest: Option<Moment>, grace: Option<Duration>) {
        self.tasks.store(tasks, Ordering::Relaxed);
        self.oldest.store(oldest.map_or(0, |at| at.as_micros().max(1)), Ordering::Relaxed);
        let grace = grace.map_or(0, |grace| u64::try_from(grace.as_millis()).unwrap_or(u64::MAX).max(1));
        self.grace_ms.store(grace, Ordering::Relaxed);
    }
}

/// What governs the tasks of an app.
#[derive(Clone, Debug, PartialEq)]
pub struct Governed {
    /// Its tasks.
    pub tasks: TaskPolicy,
    /// How long drains may take.
    pub grace: GracePolicy,
    /// How much of it is kept once it is over.
    pub retention: Retention,
}

/// A process start, as far as its tasks and connections go.
#[derive(Clone, Debug)]
pub struct Born {
    /// Which.
    pub launch: Launch,
    /// Whose.
    pub worker: WorkerId,
    /// What it runs.
    pub release: String,
    /// The version of the checkpoints that it can read; none where it does not say.
    pub state_version: Option<u32>,
    /// The user it runs as; none for the daemon's own.
    pub uid: Option<u32>,
    /// Where what it has in hand is to be shown.
    pub gauge: Arc<Gauge>,
    /// What governs its app from now on.
    pub governed: Governed,
}

/// A drain that begins.
#[derive(Clone, Debug)]
pub struct Drain {
    /// Of whom.
    pub launch: Launch,
    /// Why, in one of the words of the protocol.
    pub reason: &'static str,
    /// What takes its place.
    pub to_release: Option<String>,
    /// Who takes its place, as far as checkpoints go.
    pub successor: Option<Successor>,
    /// When it ends at the latest, whatever the estimator says.
    pub latest: Moment,
}

/// What the daemon tells the thread. Each may come twice.
#[derive(Debug)]
pub enum Command {
    /// What governs an app from now on.
    Govern(AppName, Box<Governed>),
    /// A process start exists.
    Born(Box<Born>),
    /// An operation of an app began, and who asked for it.
    Asked(AppName, AskedBy),
    /// It serves, or serves again.
    Ready(Launch),
    /// It is to come to its end.
    Drain(Box<Drain>),
    /// Its process ended, with all its tree.
    Gone(Launch, Gone, Exit),
    /// It is to renew what it knows.
    Refresh {
        /// Which.
        launch: Launch,
        /// For which refresh.
        id: Operation,
        /// What, in the configuration's word.
        scope: String,
    },
    /// It told of a task by datagram.
    Told(Launch, TaskId, Told),
    /// A deployment's new version is judged from now on, or still.
    Judge(Box<Judge>),
    /// It is not judged any more.
    Unjudge(AppName),
    /// Which checkpoints are open?
    Inspect(Box<Inspect>),
    /// A deployment's new generation was shown the open checkpoints of an app, and cannot read these.
    Looked {
        /// Whose.
        app: AppName,
        /// Which deployment.
        deployment: Operation,
        /// Its new workers.
        generation: Generation,
        /// Whose checkpoint is not read.
        unread: BTreeSet<TaskId>,
    },
    /// What did the two versions of a deployment?
    Measure(Box<Measure>),
    /// Every process that is there has been told of: workers may connect.
    AllTold,
    /// Somebody wants to know or change something.
    Ask(Box<Question>, Asker),
    /// End, with everything that was answered on disk.
    Stop,
}

/// Where the answer to a question goes.
pub struct Asker(Box<dyn FnOnce(Result<Reply, ErrorObject>) + Send>);

impl Asker {
    /// Calls `answer` with what there is to say.
    pub fn new(answer: impl FnOnce(Result<Reply, ErrorObject>) + Send + 'static) -> Self {
        Self(Box::new(answer))
    }

    pub(super) fn answer(self, answer: Result<Reply, ErrorObject>) {
        (self.0)(answer);
    }
}

impl std::fmt::Debug for Asker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Asker")
    }
}

/// What the thread tells the daemon.
#[derive(Clone, Debug, PartialEq)]
pub enum Report {
    /// What the gates of a deployment say; durable.
    Judged(Box<Judged>),
    /// What the two versions of a deployment did.
    Measured(Box<Measured>),
    /// Something that the fleet is to know; durable.
    Fact(Fact),
    /// What a worker made of a refresh.
    Refreshed {
        /// Which.
        launch: Launch,
        /// For which refresh.
        id: Operation,
        /// Why not.
        result: Result<(), String>,
    },
    /// All that there was to tell of a process start whose end it was told.
    Gone(Launch),
    /// Writing fails since now; why.
    Trouble(String),
    /// Writing works again.
    Mended,
}

/// What the thread is made of.
#[derive(Debug)]
pub struct Parts {
    /// The state folder: the database, its blobs, the secret.
    pub state: Utf8PathBuf,
    /// Where workers connect.
    pub socket: Utf8PathBuf,
}

/// The running ledger thread. Dropping it commits what was taken in, then ends the thread; workers dial again when
/// there is another.
#[derive(Debug)]
pub struct TaskThread {
    commands: mpsc::Sender<Command>,
    wake: Arc<OwnedFd>,
    secret: Secret,
    socket: Utf8PathBuf,
    thread: Option<JoinHandle<()>>,
}

/// The thread, while it opens everything.
#[derive(Debug)]
pub struct Opening {
    thread: TaskThread,
    opened: LedgerOpened,
}

/// What is to be heard of how the opening went.
#[derive(Debug)]
pub struct LedgerOpened(mpsc::Receiver<Result<(), TasksError>>);

impl LedgerOpened {
    /// How it went. Waits until everything is open.
    ///
    /// # Errors
    /// [`TasksError`]; nothing that was there is changed then, and the thread has ended.
    ///
    /// # Panics
    /// When the thread did.
    pub fn outcome(self) -> Result<(), TasksError> {
        self.0.recv().expect("the thread tells how it went")
    }
}

impl Opening {
    /// The running thread. Waits until everything is open.
    ///
    /// # Errors
    /// As [`LedgerOpened::outcome`].
    ///
    /// # Panics
    /// When the thread did.
    pub fn ready(self) -> Result<TaskThread, TasksError> {
        let (thread, opened) = self.begun();
        opened.outcome().map(|()| thread)
    }

    /// The thread as it is, and what is to be heard of it. It takes commands, and carries them out once everything is open.
    #[must_use]
    pub fn begun(self) -> (TaskThread, LedgerOpened) {
        (self.thread, self.opened)
    }
}

impl TaskThread {
    /// Starts the thread and waits until everything is open. `report` is called on the thread, after the commit of what it
    /// tells.
    ///
    /// # Errors
    /// [`TasksError`]; nothing that was there is changed then.
    pub fn start(parts: Parts, report: impl FnMut(Report) + Send + 'static) -> Result<Self, TasksError> {
        Self::begin(parts, report)?.ready()
    }

    /// The same without waiting: whoever starts has other things to open meanwhile.
    ///
    /// # Errors
    /// [`TasksError`]; nothing that was there is changed then.
    pub fn begin(parts: Parts, report: impl FnMut(Report) + Send + 'static) -> Result<Opening, TasksError> {
        let Parts { state, socket } = parts;
        let secret = Secret::keep_at(&state.join("worker.secret"))?;
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let wake = rustix::event::eventfd(0, flags).map_err(|errno| TasksError::Epoll(errno.into()))?;
        let wake = Arc::new(wake);
        let (commands, inbox) = mpsc::channel();
        let (tell, opened) = mpsc::channel();
        let (its_secret, its_socket, its_wake) = (secret.clone(), socket.clone(), Arc::clone(&wake));
        let desk = move || {
            // Signals are the main thread's; and a file size limit (`SIGXFSZ`) is to be an error here, not the end.
            let _ = SigSet::all().thread_block();
            let opened = Db::open(&state.join("tasks.db")).map_err(TasksError::from);
            let desk = opened.and_then(|db| Desk::new(db, its_secret, its_socket, its_wake, inbox, Box::new(report)));
            // Who began the thread and did not wait for it is gone, and so is the sender of commands.
            match desk {
                Ok(desk) => drop(tell.send(Ok(())).map(|()| desk.run())),
                Err(error) => drop(tell.send(Err(error))),
            }
        };
        let thread = std::thread::Builder::new()
            .name("agentd-tasks".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(desk)
            .map_err(TasksError::Spawn)?;
        Ok(Opening {
            thread: Self { commands, wake, secret, socket, thread: Some(thread) },
            opened: LedgerOpened(opened),
        })
    }

    /// What goes into the environment of the worker of `launch`.
    #[must_use]
    pub fn variables(&self, launch: Launch) -> [(String, String); 2] {
        use agentd_protocol::worker::{SOCKET_VARIABLE, TOKEN_VARIABLE};
        [(SOCKET_VARIABLE.to_owned(), self.socket.to_string()), (TOKEN_VARIABLE.to_owned(), self.secret.token(launch))]
    }

    /// Tells the thread something. False when it is gone, and nothing happens; the log says why it is.
    pub fn tell(&self, command: Command) -> bool {
        let heard = self.commands.send(command).is_ok();
        if heard {
            // The only failure is a counter about to overflow, and then the thread is awake.
            let _ = rustix::io::write(&*self.wake, &1u64.to_ne_bytes());
        }
        heard
    }
}

impl Drop for TaskThread {
    fn drop(&mut self) {
        self.tell(Command::Stop);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the ledger thread had panicked");
        }
    }
}
