//! The daemon from its first breath: folders, lock, store, sockets, then the loop.
//!
//! The order matters. The lock comes first: nothing of another daemon's is touched. The log thread blocks its signals,
//! so it starts before handlers are registered. The control socket is bound last: whoever can connect is served.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use camino::Utf8PathBuf;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use crate::control::{self, Identity, adopt_bound, bind_private};
use crate::dispatcher::{DaemonSignal, Departure, Dispatcher, Input, Parts, Signals, Sources};
use crate::handover::{self, Checked, HANDOVER, Handover};
use crate::home::{Home, HomeError};
use crate::logs::housekeeper::{Doorbell, Housekeeper, HousekeeperError};
use crate::logs::thread::{LogNews, LogThread, LogThreadError, Tell};
use crate::process::cgroup::Cgroups;
use crate::process::reaper;
use crate::process::spawn::Launcher;
use crate::standing::Standing;
use crate::status;
use crate::store::{self, Store, StoreError};
use crate::systemd::Systemd;
use crate::tasks::{self, Opening, TaskThread, TasksError};

/// Requests that wait for the loop before their clients do.
const CALLS_WAITING: usize = 256;

/// Why the daemon cannot run.
#[derive(Debug, Error)]
pub enum DaemonError {
    /// Its folders, or another daemon in them.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// Its database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The log thread.
    #[error("failed to start the log thread")]
    Logs(#[from] LogThreadError),
    /// The thread that packs logs.
    #[error("failed to {0}")]
    Housekeeper(#[from] HousekeeperError),
    /// The runtime.
    #[error("failed to start the event loop")]
    Runtime(#[source] io::Error),
    /// Something of the kernel's that it cannot do without.
    #[error("failed to {step}")]
    Kernel {
        /// What it was doing.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// Neither the new binary nor this one could be executed.
    #[error("failed to become the new binary; the workers go on, and the next start takes them over")]
    Become(#[source] io::Error),
    /// One of its two sockets.
    #[error("failed to open {path}")]
    Socket {
        /// Which.
        path: Utf8PathBuf,
        /// Why.
        source: control::BindError,
    },
}

/// Whether this program could go on from the state in `home`. Changes nothing; another daemon may be running on it.
///
/// # Errors
/// Why it could not.
pub fn check_state(home: &Home) -> Result<Checked, DaemonError> {
    let stored = store::check(&home.database())?;
    Ok(Checked {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        schema: store::SCHEMA,
        handover: HANDOVER,
        apps: stored.heads.len(),
        workers: stored.workers.len(),
    })
}

/// Runs the daemon in the foreground until it is asked to end. `handed` is what the program before this one, in the same
/// process, left for it.
///
/// # Errors
/// What keeps it from running; nothing of an earlier or another daemon was changed then.
pub fn run(home: Home, handed: Option<Handover>) -> Result<Departure, DaemonError> {
    // First: the numbers of what systemd passes on are anybody's once something else was opened.
    let (systemd, kept_by_systemd) = match &handed {
        Some(_) => (Systemd::after_an_upgrade(), BTreeMap::new()),
        None => Systemd::from_environment(),
    };
    let (handed_lock, handed) = handed
        .map_or((None, None), |handed| (Some(handed.lock), Some((handed.control, handed.status, handed.clients))));
    let (home, lock) = match handed_lock {
        Some(lock) => home.enter_with(lock)?,
        None => home.enter()?,
    };
    let kernel = |step| move |source| DaemonError::Kernel { step, source };
    reaper::adopt_orphans().map_err(kernel("adopt orphans"))?;
    quiet_signals().map_err(kernel("set signal handlers"))?;
    let files = raise_file_limit();
    tracing::debug!("the instance is ours");
    let mut opened = store::open(&home.database())?;
    tracing::debug!("the store is open");
    let instance = instance_name(&mut opened.store, &home)?;
    let launcher = Launcher::of_this_binary().map_err(kernel("open its own binary"))?;
    let launcher = launcher.under(lock.copy().map_err(kernel("hold its lock a second time"))?);
    let (input_sender, inputs) = mpsc::unbounded_channel();
    let housekeeper = Housekeeper::start(home.logs.clone())?;
    let logs = LogThread::start_telling(told_of_logs(housekeeper.doorbell(), input_sender.clone()))?;
    let mut notes = Vec::new();
    let tasks = begin_tasks(&home, &input_sender);
    let cgroups = match Cgroups::open(&instance) {
        Ok(cgroups) => Some(cgroups),
        Err(why) => {
            let note = format!("workers are contained by process group, not by cgroup: {why}");
            tracing::info!("{note}");
            notes.push(note);
            None
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4)
        // They are for the loop alone; what another thread takes is lost between two programs.
        .on_thread_start(|| {
            // The only refusal is of a set that is none.
            let _ = SigSet::all().thread_block();
        })
        .build()
        .map_err(DaemonError::Runtime)?;
    runtime.block_on(async {
        let signals = Signals::register().map_err(kernel("register signal handlers"))?;
        handover::release_signals().map_err(kernel("let signals through"))?;
        // Signals coalesce, ends do not: whoever ended under the program before us is asked for once, unprompted.
        let ended_before = reaper::reap();
        let (call_sender, control_calls) = mpsc::channel(CALLS_WAITING);
        let (query_sender, queries) = mpsc::channel(CALLS_WAITING);
        let (handed_control, handed_status, clients) = match handed {
            Some((control, status, clients)) => (Some(control), Some(status), clients),
            None => (None, None, Vec::new()),
        };
        let standing = Standing::of(&home);
        let access = standing.access();
        let status_socket = bind(home.status_socket(), standing.status(), handed_status)?;
        let control_socket = bind(home.control_socket(), standing.control(), handed_control)?;
        let doors = vec![control_socket.doors(), status_socket.doors()];
        let copied = kernel("copy its sockets");
        let mut handed = Handover {
            lock: lock.copy().map_err(copied)?,
            control: control_socket.copy().map_err(copied)?,
            status: status_socket.copy().map_err(copied)?,
            clients: Vec::new(),
        };
        let identity = Identity {
            instance: instance.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
        };
        let (ended, end) = oneshot::channel::<()>();
        let parts = Parts {
            home,
            instance,
            opened,
            logs,
            housekeeper,
            standing,
            tasks,
            launcher,
            cgroups,
            inputs: input_sender.clone(),
            files,
            notes,
            systemd,
            kept_by_systemd,
            ended_before,
        };
        tracing::debug!("threads and sockets are there");
        let mut dispatcher = Dispatcher::new(parts);
        dispatcher.restore()?;
        let served = status::serve(status_socket, access.clone(), query_sender);
        let status = tokio::spawn(telling(
            async move {
                served.await;
                Vec::new()
            },
            input_sender.clone(),
        ));
        let shutdown = async move {
            // Dropped or sent: either way the loop is over.
            let _ = end.await;
        };
        let served = control::serve(control_socket, clients, access, identity, call_sender, shutdown);
        let control = tokio::spawn(telling(served, input_sender));
        let mut sources = Sources { inputs, control: control_calls, status: queries, signals, doors };
        let departure = dispatcher.run(&mut sources).await;
        if let Departure::Upgrade(binary, clients) = departure {
            handed.clients = clients;
            tracing::info!(binary = %binary.path().display(), "becoming the new binary");
            hold_signals(&mut sources).await.map_err(kernel("hold signals back"))?;
            // From here to the new program nothing runs: tasks and threads end with this one, and nothing that
            // would give up a socket's name is dropped.
            return Err(DaemonError::Become(handover::become_program(&binary, &handed)));
        }
        drop(handed);
        drop(ended);
        // Those who await an answer get a moment to read it.
        if let Err(error) = control.await {
            tracing::error!(%error, "the control server failed");
        }
        status.abort();
        Ok(departure)
    })
}

/// Tells the loop when a socket's clients are all served, and who is left.
async fn telling(served: impl Future<Output = Vec<OwnedFd>>, inputs: mpsc::UnboundedSender<Input>) {
    let left = served.await;
    // At the daemon's end nobody listens any more.
    let _ = inputs.send(Input::Emptied(left));
}

/// Who hears what from the log thread.
fn told_of_logs(doorbell: Doorbell, inputs: mpsc::UnboundedSender<Input>) -> Tell {
    Box::new(move |news| match news {
        LogNews::Rotated { path } => doorbell.rotated(path),
        LogNews::Dropping { .. } | LogNews::Resumed { .. } => {
            // The loop is gone only at the very end.
            let _ = inputs.send(Input::Logs(news));
        }
    })
}

/// Begins to open the ledger of tasks.
fn begin_tasks(home: &Home, inputs: &mpsc::UnboundedSender<Input>) -> Result<Opening, TasksError> {
    let inputs = inputs.clone();
    let parts = tasks::Parts { state: home.state.clone(), socket: home.worker_socket() };
    TaskThread::begin(parts, move |report| {
        // The loop is gone only at the very end.
        let _ = inputs.send(Input::Tasks(report));
    })
}

/// The socket that was handed over, or a new one.
fn bind(path: Utf8PathBuf, mode: u32, handed: Option<OwnedFd>) -> Result<control::BoundSocket, DaemonError> {
    let handed = handed.map(|socket| {
        adopt_bound(&path, socket).inspect(|_| {
            let mode = std::fs::Permissions::from_mode(mode);
            if let Err(error) = std::fs::set_permissions(&path, mode) {
                tracing::warn!(%path, %error, "the mode of a socket could not be set; it has that of the daemon before");
            }
        })
    });
    // Somebody may have removed the file meanwhile: a new one then.
    let bound = handed.and_then(Result::ok).map_or_else(|| bind_private(&path, mode), Ok);
    bound.map_err(|source| DaemonError::Socket { path, source })
}

/// Holds signals back for the next program, and gives back to it those that a handler of ours took and nobody read.
async fn hold_signals(sources: &mut Sources) -> io::Result<()> {
    handover::hold_signals()?;
    // The runtime sees what has come.
    tokio::task::yield_now().await;
    while let Some(taken) = sources.signals.try_next() {
        let again = match taken {
            DaemonSignal::Leave(signal) => signal,
            DaemonSignal::Hangup => Signal::SIGHUP,
            // Ends are asked for unprompted.
            DaemonSignal::Child => continue,
        };
        nix::sys::signal::kill(nix::unistd::getpid(), again)?;
    }
    Ok(())
}

/// A name that no other instance has: written once, kept for ever. In a file of its own too: should the store be lost,
/// the workers that carry it are still ours.
fn instance_name(store: &mut Store, home: &Home) -> Result<Arc<str>, DaemonError> {
    let path = home.state.join(store::INSTANCE_FILE);
    let kernel = |step| move |source| DaemonError::Kernel { step, source };
    let in_file = std::fs::read_to_string(&path).ok().map(|text| text.trim().to_owned());
    let is_name = |name: &String| name.len() == 12 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    let stored = store.meta("instance")?;
    let name = match stored.clone().or_else(|| in_file.clone().filter(is_name)) {
        Some(name) => name,
        None => {
            let random =
                std::fs::read_to_string("/proc/sys/kernel/random/uuid").map_err(kernel("draw an instance name"))?;
            random.chars().filter(char::is_ascii_hexdigit).take(12).collect()
        }
    };
    if stored.is_none() {
        store.set_meta("instance", &name)?;
    }
    if in_file.as_ref() != Some(&name)
        && let Err(error) = std::fs::write(&path, format!("{name}\n"))
    {
        tracing::warn!(%path, %error, "the instance's name is in the database alone");
    }
    Ok(name.into())
}

/// A thousand workers need more descriptors than the usual soft limit. Returns the limit that workers are to have.
fn raise_file_limit() -> Option<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    if let Err(errno) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        tracing::warn!(%errno, soft, hard, "the limit of open files could not be raised");
    }
    Some(soft)
}

/// A signal whose default would end the daemon because of somebody else: a file size limit that it meets.
fn quiet_signals() -> io::Result<()> {
    // A handler that does nothing, not "ignore": that would be inherited. SIGPIPE is Rust's own care.
    let unread = Arc::new(std::sync::atomic::AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGXFSZ, unread).map(drop)
}
