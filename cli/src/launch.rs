//! Starting the daemon when this user has none.
//!
//! The happy path: find `agentd` beside this program, else on `PATH`; start this program again as
//! `agentctl daemon run --detach`, which leaves the terminal's session, closes inherited descriptors and becomes
//! `agentd`; wait until its control socket accepts. The detour makes the new session without `fork` in a process
//! that may have threads, and keeps the process id, so that an early end is seen by `wait`. Where `agentctl startup` made
//! the instance a service, systemd starts it.
//!
//! What can go wrong: there is no `agentd`; it ends at once (its own words are shown); it does not listen in time
//! (it goes on, and its log is named); another start was faster, which is as good.

use std::env;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use camino::Utf8PathBuf;
use thiserror::Error;

use crate::client::{Client, ClientError};
use crate::home::{CONTROL_SOCKET, Home, HomeError, STATUS_SOCKET};
use crate::systemctl::{self, Scope, SystemctlError};
use crate::unit;

/// How long a started daemon may take to listen.
const LISTEN_WITHIN: Duration = Duration::from_secs(10);

/// How long after the end of the daemon another one is looked for, that was started at the same time.
const RIVAL_WITHIN: Duration = Duration::from_millis(300);

/// Pause between two looks at the socket.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// How much of what a failed daemon said is shown, in bytes.
const SAID_MAX: u64 = 16 * 1024;

/// The daemon's program.
const PROGRAM: &str = "agentd";

/// Why the daemon could not be started.
#[derive(Debug, Error)]
pub(crate) enum LaunchError {
    /// Neither beside this program nor on `PATH`.
    #[error("no agentd beside agentctl or on PATH")]
    NoProgram,
    /// The folder for its log could not be made.
    #[error("making the folder {path}: {source}")]
    StateFolder {
        /// The folder.
        path: Utf8PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Its log could not be opened.
    #[error("opening the daemon's log {path}: {source}")]
    Log {
        /// The file.
        path: Utf8PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// No process could be started.
    #[error("starting agentctl daemon run: {0}")]
    Spawn(io::Error),
    /// This program could not become the daemon.
    #[error("running {path}: {source}")]
    Exec {
        /// The daemon's program.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Leaving the terminal's session failed.
    #[error("leaving the session: {0}")]
    Session(nix::Error),
    /// It ended before it listened.
    #[error("the daemon ended at once ({status})\n{said}")]
    Ended {
        /// How it ended.
        status: ExitStatus,
        /// What it printed, without a line break at its end.
        said: String,
    },
    /// It runs and does not listen.
    #[error("the daemon (pid {pid}) does not answer after {}s; it says in {log}:\n{said}", LISTEN_WITHIN.as_secs())]
    Silent {
        /// Its process.
        pid: u32,
        /// Its log.
        log: Utf8PathBuf,
        /// What it printed, without a line break at its end.
        said: String,
    },
    /// It is a service, and systemd did not start it.
    #[error(transparent)]
    Service(#[from] SystemctlError),
    /// Its socket cannot be reached, for a reason that waiting does not mend.
    #[error(transparent)]
    Home(#[from] HomeError),
}

/// Starts the daemon of `home` in the background unless it runs; returns whether it was started.
///
/// # Errors
/// See [`LaunchError`].
pub(crate) fn ensure(home: &Home) -> Result<bool, LaunchError> {
    if accepts(home, CONTROL_SOCKET)? && answers(home) {
        return Ok(false);
    }
    if home.given.is_none()
        && let Some(scope) = service()
    {
        scope.call(&["start", unit::NAME])?;
        return Ok(true);
    }
    // Looked for here too, so that a missing program is an error of this command and not a line in a log.
    program()?;
    let (log, from) = open_log(home)?;
    let errors = log.try_clone().map_err(LaunchError::Spawn)?;
    let mut command = Command::new("/proc/self/exe");
    command.args(["daemon", "run", "--detach"]).stdin(Stdio::null()).stdout(log).stderr(errors);
    match &home.given {
        Some(given) => command.env("AGENTD_HOME", given),
        None => command.env_remove("AGENTD_HOME"),
    };
    let mut child = command.spawn().map_err(LaunchError::Spawn)?;
    let pid = child.id();
    let (ended, end) = mpsc::channel();
    // Nobody joins this thread: while the daemon lives it waits, and this process ends before it.
    thread::spawn(move || ended.send(child.wait()));
    await_listening(home, pid, &end, from)
}

/// Whether who accepts lives: a daemon that was killed a moment ago accepts until the kernel has closed its sockets.
fn answers(home: &Home) -> bool {
    !matches!(Client::connect(home), Err(ClientError::Closed | ClientError::Line(_)))
}

/// Whose service the usual instance of this user is, if it is one: a daemon beside it would be fought with by systemd.
fn service() -> Option<Scope> {
    let scope = if nix::unistd::geteuid().is_root() { Scope::System } else { Scope::User };
    (systemctl::is_booted() && unit::path(scope)?.exists()).then_some(scope)
}

/// Waits until the daemon listens or ended; returns whether it is the one that was started here.
fn await_listening(
    home: &Home,
    pid: u32,
    end: &mpsc::Receiver<io::Result<ExitStatus>>,
    from: u64,
) -> Result<bool, LaunchError> {
    let mut deadline = Instant::now() + LISTEN_WITHIN;
    let mut ended = None;
    loop {
        match end.recv_timeout(LOOK_EVERY) {
            Ok(Ok(status)) => {
                // A start beside this one may have won the race, and is about to listen.
                ended = Some(status);
                deadline = deadline.min(Instant::now() + RIVAL_WITHIN);
            }
            Ok(Err(source)) => return Err(LaunchError::Spawn(source)),
            // A thread that said its one word is gone: no pause is made for it any more.
            Err(RecvTimeoutError::Disconnected) => thread::sleep(LOOK_EVERY),
            Err(RecvTimeoutError::Timeout) => {}
        }
        if listens(home)? {
            return Ok(ended.is_none());
        }
        if Instant::now() < deadline {
            continue;
        }
        let said = said(home, from);
        return Err(match ended {
            Some(status) => LaunchError::Ended { status, said },
            None => LaunchError::Silent { pid, log: home.daemon_log(), said },
        });
    }
}

/// Becomes the daemon of `home`. Returns only what went wrong.
///
/// With `detach`, leaves the session and closes every inherited descriptor but the standard three.
pub(crate) fn become_daemon(home: &Home, detach: bool, args: &[OsString]) -> LaunchError {
    let path = match program() {
        Ok(path) => path,
        Err(error) => return error,
    };
    if detach {
        if let Err(error) = nix::unistd::setsid() {
            return LaunchError::Session(error);
        }
        close_inherited();
    }
    let mut command = Command::new(&path);
    command.args(args);
    if let Some(given) = &home.given {
        command.env("AGENTD_HOME", given);
    }
    if detach {
        // A daemon in the folder where somebody happened to type would keep its file system from being unmounted.
        command.current_dir("/");
    }
    LaunchError::Exec { path, source: command.exec() }
}

/// Has the daemon's program look at the state, which changes nothing; what it says against it.
///
/// # Errors
/// There is no such program, or it cannot be run.
pub(crate) fn check_state(home: &Home) -> Result<Result<(), String>, LaunchError> {
    let mut command = Command::new(program()?);
    command.arg("--check-state").stdin(Stdio::null());
    if let Some(given) = &home.given {
        command.env("AGENTD_HOME", given);
    }
    let output = command.output().map_err(LaunchError::Spawn)?;
    if output.status.success() {
        return Ok(Ok(()));
    }
    Ok(Err(String::from_utf8_lossy(&output.stderr).into_owned()))
}

/// Whether both sockets are there: what follows a start may use either.
fn listens(home: &Home) -> Result<bool, HomeError> {
    Ok(accepts(home, CONTROL_SOCKET)? && accepts(home, STATUS_SOCKET)?)
}

fn accepts(home: &Home, socket: &str) -> Result<bool, HomeError> {
    match home.connect(socket) {
        Ok(_) => Ok(true),
        Err(HomeError::NoDaemon { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The daemon's program: beside this one, else the first on `PATH`.
fn program() -> Result<PathBuf, LaunchError> {
    let beside = env::current_exe().ok().and_then(|own| Some(own.parent()?.join(PROGRAM)));
    let on_path = env::var_os("PATH");
    let on_path = on_path.iter().flat_map(|path| env::split_paths(path).map(|dir| dir.join(PROGRAM)));
    beside.into_iter().chain(on_path).find(|path| is_program(path)).ok_or(LaunchError::NoProgram)
}

fn is_program(path: &Path) -> bool {
    path.is_file() && nix::unistd::access(path, nix::unistd::AccessFlags::X_OK).is_ok()
}

/// Opens the daemon's log for appending; also returns where its new part begins.
fn open_log(home: &Home) -> Result<(File, u64), LaunchError> {
    let failed = |source| LaunchError::StateFolder { path: home.state.clone(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(&home.state).map_err(failed)?;
    let path = home.daemon_log();
    let failed = |source| LaunchError::Log { path: path.clone(), source };
    let log = OpenOptions::new().create(true).append(true).mode(0o600).open(&path).map_err(failed)?;
    let from = log.metadata().map_err(failed)?.len();
    Ok((log, from))
}

/// What was written to the daemon's log since `from`.
fn said(home: &Home, from: u64) -> String {
    let read = || -> io::Result<Vec<u8>> {
        let mut log = File::open(home.daemon_log())?;
        // A new one is shorter: what was there before was put aside meanwhile.
        let anew = log.metadata()?.len() < from;
        log.seek(SeekFrom::Start(if anew { 0 } else { from }))?;
        let mut text = Vec::new();
        log.take(SAID_MAX).read_to_end(&mut text)?;
        Ok(text)
    };
    // The failure itself is told either way; that its log cannot be read adds nothing.
    String::from_utf8_lossy(&read().unwrap_or_default()).trim_end().to_owned()
}

/// Closes descriptors that whoever started `agentctl` left open: the daemon would hold them for its whole life,
/// and a pipe held so never ends for its reader.
fn close_inherited() {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else { return };
    let open: Vec<i32> = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    for fd in open.into_iter().filter(|&fd| fd > 2) {
        // The listing's own descriptor is among them and is closed already.
        let _ = nix::unistd::close(fd);
    }
}
