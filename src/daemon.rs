//! The daemon from its first breath: folders, lock, store, sockets, then the loop.
//!
//! The order matters. The lock comes first: nothing of another daemon's is touched. The log thread blocks its signals,
//! so it starts before handlers are registered. The control socket is bound last: whoever can connect is served.

use std::io;
use std::sync::Arc;

use camino::Utf8PathBuf;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use crate::control::{self, Access, Identity, bind_private};
use crate::dispatcher::{Departure, Dispatcher, Parts, Signals, Sources};
use crate::home::{Home, HomeError};
use crate::logs::thread::{LogThread, LogThreadError};
use crate::process::cgroup::Cgroups;
use crate::process::reaper;
use crate::process::spawn::Launcher;
use crate::status;
use crate::store::{Store, StoreError};
use crate::systemd::Systemd;

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
    /// One of its two sockets.
    #[error("failed to open {path}")]
    Socket {
        /// Which.
        path: Utf8PathBuf,
        /// Why.
        source: control::BindError,
    },
}

/// Runs the daemon in the foreground until it is asked to end.
///
/// # Errors
/// What keeps it from running; nothing of an earlier or another daemon was changed then.
pub fn run(home: Home) -> Result<Departure, DaemonError> {
    // First: the numbers of what systemd passes on are anybody's once something else was opened.
    let (systemd, kept_by_systemd) = Systemd::from_environment();
    let (home, _lock) = home.enter()?;
    let kernel = |step| move |source| DaemonError::Kernel { step, source };
    reaper::adopt_orphans().map_err(kernel("adopt orphans"))?;
    quiet_signals().map_err(kernel("set signal handlers"))?;
    let files = raise_file_limit();
    let mut store = Store::open(&home.database())?;
    let instance = instance_name(&mut store)?;
    let launcher = Launcher::of_this_binary().map_err(kernel("open its own binary"))?;
    let logs = LogThread::start()?;
    let mut notes = Vec::new();
    let cgroups = match Cgroups::open(&instance) {
        Ok(cgroups) => {
            tracing::debug!(removed = cgroups.remove_empty(), "empty cgroups of earlier workers were removed");
            Some(cgroups)
        }
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
        .build()
        .map_err(DaemonError::Runtime)?;
    runtime.block_on(async {
        let signals = Signals::register().map_err(kernel("register signal handlers"))?;
        let (input_sender, inputs) = mpsc::unbounded_channel();
        let (call_sender, control_calls) = mpsc::channel(CALLS_WAITING);
        let (query_sender, queries) = mpsc::channel(CALLS_WAITING);
        let status_socket = bind(home.status_socket(), 0o660)?;
        let control_socket = bind(home.control_socket(), 0o600)?;
        let identity = Identity {
            instance: instance.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
        };
        let access = Access::owner_only(nix::unistd::geteuid().as_raw());
        let (ended, end) = oneshot::channel::<()>();
        let parts = Parts {
            home,
            instance,
            store,
            logs,
            launcher,
            cgroups,
            inputs: input_sender,
            files,
            notes,
            systemd,
            kept_by_systemd,
        };
        let mut dispatcher = Dispatcher::new(parts);
        dispatcher.restore()?;
        let status = tokio::spawn(status::serve(status_socket, query_sender));
        let shutdown = async move {
            // Dropped or sent: either way the loop is over.
            let _ = end.await;
        };
        let control = tokio::spawn(control::serve(control_socket, access, identity, call_sender, shutdown));
        let departure = dispatcher.run(Sources { inputs, control: control_calls, status: queries, signals }).await;
        drop(ended);
        // Those who await an answer get a moment to read it.
        if let Err(error) = control.await {
            tracing::error!(%error, "the control server failed");
        }
        status.abort();
        Ok(departure)
    })
}

fn bind(path: Utf8PathBuf, mode: u32) -> Result<control::BoundSocket, DaemonError> {
    bind_private(&path, mode).map_err(|source| DaemonError::Socket { path, source })
}

/// A name that no other instance has: written once, kept for ever.
fn instance_name(store: &mut Store) -> Result<Arc<str>, DaemonError> {
    if let Some(name) = store.meta("instance")? {
        return Ok(name.into());
    }
    let random = std::fs::read_to_string("/proc/sys/kernel/random/uuid")
        .map_err(|source| DaemonError::Kernel { step: "draw an instance name", source })?;
    let name: String = random.chars().filter(char::is_ascii_hexdigit).take(12).collect();
    store.set_meta("instance", &name)?;
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
