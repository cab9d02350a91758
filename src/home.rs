//! Where an instance keeps its things, and the lock that makes it the only one there.
//!
//! | what | `AGENTD_HOME` | system service (root) | a user |
//! |---|---|---|---|
//! | state | `$AGENTD_HOME/state` | `/var/lib/agentd` | `$XDG_STATE_HOME/agentd` |
//! | run | `$AGENTD_HOME/run` | `/run/agentd` | `$XDG_RUNTIME_DIR/agentd`, else `/tmp/agentd-<uid>` |
//! | logs | `$AGENTD_HOME/logs` | `/var/log/agentd` | `$XDG_STATE_HOME/agentd/logs` |
//! | settings | `$AGENTD_HOME/daemon.toml` | `/etc/agentd/daemon.toml` | `$XDG_CONFIG_HOME/agentd/daemon.toml` |
//!
//! Where systemd made all three for the unit (`STATE_DIRECTORY`, `RUNTIME_DIRECTORY`, `LOGS_DIRECTORY`), and no home is
//! given, they are taken, whoever runs the daemon.
//!
//! `state` and `logs` are made with mode 0700 and must belong to the user that runs the daemon. `run` and the folders in
//! it that others have something in (`notify`, `secrets`) are 0710, and 0711 where the daemon is root or roles are given: a
//! worker under a user of its own, or somebody who may use a socket there, passes through and lists nothing; what is in them has a mode of its own
//! (docs/reference/paths.md). A Unix socket's name holds
//! 107 bytes; where `run` is so deep that a worker's notify socket would not fit, `run` is made a link to a short folder
//! below `/tmp` with a name that only this path has.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::time::{Duration, Instant};

use agentd_core::id::Pid;
use camino::{Utf8Path, Utf8PathBuf};
use nix::fcntl::{Flock, FlockArg};
use thiserror::Error;

use crate::process::stat::Stat;

/// Longest `run` folder below which every socket's name fits 107 bytes (`notify/`, a launch number and `.node`).
const RUN_MAX: usize = 80;

/// Folders of `run` that workers have something in.
const PASSED: [&str; 2] = ["notify", "secrets"];

/// How long a lock may outlive its owner: a child that was being started when the owner died holds it until it is another
/// program, or is there to be found.
const LET_GO_WITHIN: Duration = Duration::from_secs(2);

/// The bits of a folder's mode that let its group pass through.
const GROUP: u32 = 0o010;

/// The same, for everybody.
const EVERYBODY: u32 = 0o011;

/// Name of the daemon's settings.
const SETTINGS: &str = "daemon.toml";

/// The folders of one instance.
#[derive(Clone, Debug)]
pub struct Home {
    /// The database.
    pub state: Utf8PathBuf,
    /// Sockets and FIFOs; short enough for their names.
    pub run: Utf8PathBuf,
    /// What workers print.
    pub logs: Utf8PathBuf,
    /// The daemon's settings, a file that need not be there.
    pub settings: Utf8PathBuf,
}

/// Why an instance cannot use its folders.
#[derive(Debug, Error)]
pub enum HomeError {
    /// A folder could not be made.
    #[error("failed to make the folder {path}")]
    Make {
        /// Which.
        path: Utf8PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A folder belongs to somebody else, who could put sockets of their own there.
    #[error("the folder {path} belongs to uid {owner}, not to uid {us}: choose another with AGENTD_HOME")]
    Foreign {
        /// Which.
        path: Utf8PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who runs the daemon.
        us: u32,
    },
    /// Another daemon has it.
    #[error("another agentd (pid {pid}) runs in {run}; `agentctl daemon status` tells of it")]
    Taken {
        /// Its pid, as far as it told.
        pid: String,
        /// Where.
        run: Utf8PathBuf,
    },
    /// Another daemon had it, and somebody holds it still.
    #[error(
        "agentd (pid {pid}) ended and a process that it was starting still holds {run}; it lets go when it goes on or ends: \
         `fuser {run}/agentd.lock` names it"
    )]
    StillHeld {
        /// The pid of the daemon that ended.
        pid: String,
        /// Where.
        run: Utf8PathBuf,
    },
    /// The lock could not be taken for another reason.
    #[error("failed to lock {path}")]
    Lock {
        /// Which file.
        path: Utf8PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Held as long as the daemon lives; the kernel lets go of it with the process.
#[derive(Debug)]
pub struct InstanceLock {
    file: Flock<File>,
}

impl InstanceLock {
    /// A second hold on it, to be passed on to the program that takes this one's place.
    ///
    /// # Errors
    /// Descriptors have run out.
    pub fn copy(&self) -> io::Result<OwnedFd> {
        Ok(self.file.try_clone()?.into())
    }
}

impl Home {
    /// The folders for `home`, or the usual ones for who we are. Nothing is made yet.
    #[must_use]
    pub fn locate(home: Option<&Utf8Path>) -> Self {
        let variable =
            |name: &str| std::env::var(name).ok().filter(|value| value.starts_with('/')).map(Utf8PathBuf::from);
        // An empty AGENTD_HOME is an unset one, here as for agentctl.
        let given = || std::env::var("AGENTD_HOME").ok().filter(|home| !home.is_empty()).map(Into::into);
        if let Some(home) = home.map(Utf8Path::to_owned).or_else(given) {
            let home = camino::absolute_utf8(&home).unwrap_or(home);
            let settings = home.join(SETTINGS);
            return Self { state: home.join("state"), run: home.join("run"), logs: home.join("logs"), settings };
        }
        if let (Some(state), Some(run), Some(logs)) =
            (variable("STATE_DIRECTORY"), variable("RUNTIME_DIRECTORY"), variable("LOGS_DIRECTORY"))
        {
            return Self { state, run, logs, settings: Utf8Path::new("/etc/agentd").join(SETTINGS) };
        }
        let uid = nix::unistd::geteuid();
        if uid.is_root() {
            let settings = Utf8Path::new("/etc/agentd").join(SETTINGS);
            let [state, run, logs] = ["/var/lib/agentd", "/run/agentd", "/var/log/agentd"].map(Utf8PathBuf::from);
            return Self { state, run, logs, settings };
        }
        let user_home = variable("HOME").unwrap_or_else(|| "/tmp".into());
        let state = variable("XDG_STATE_HOME").unwrap_or_else(|| user_home.join(".local/state")).join("agentd");
        let run = variable("XDG_RUNTIME_DIR")
            .map_or_else(|| Utf8PathBuf::from(format!("/tmp/agentd-{uid}")), |dir| dir.join("agentd"));
        let config = variable("XDG_CONFIG_HOME").unwrap_or_else(|| user_home.join(".config"));
        Self { logs: state.join("logs"), state, run, settings: config.join("agentd").join(SETTINGS) }
    }

    /// Makes the folders, shortens `run` where it must be, and takes the lock.
    ///
    /// # Errors
    /// What stands in the way; [`HomeError::Taken`] names the other daemon.
    pub fn enter(self) -> Result<(Self, InstanceLock), HomeError> {
        let home = self.make()?;
        let lock = lock(&home.run)?;
        Ok((home, lock))
    }

    /// As [`enter`](Self::enter), where the program before this one, in the same process, holds the lock already.
    ///
    /// # Errors
    /// What stands in the way.
    pub fn enter_with(self, lock: OwnedFd) -> Result<(Self, InstanceLock), HomeError> {
        let home = self.make()?;
        let path = home.run.join("agentd.lock");
        let file = Flock::lock(File::from(lock), FlockArg::LockExclusiveNonblock)
            .map_err(|(_, errno)| HomeError::Lock { path, source: errno.into() })?;
        Ok((home, InstanceLock { file }))
    }

    fn make(mut self) -> Result<Self, HomeError> {
        make(&self.state)?;
        make(&self.logs)?;
        self.run = short_run(&self.run)?;
        make(&self.run.join("fifo"))?;
        for below in PASSED {
            make(&self.run.join(below))?;
        }
        // Workers have users of their own only where the daemon is root.
        self.let_through(if nix::unistd::geteuid().is_root() { EVERYBODY } else { GROUP })?;
        Ok(self)
    }

    /// Lets everybody pass through `run`, where some of them may use its sockets.
    ///
    /// # Errors
    /// [`HomeError::Make`].
    pub fn open_to_everybody(&self) -> Result<(), HomeError> {
        self.let_through(EVERYBODY)
    }

    /// Lets others pass through `run` and what they have something in, to what is there by a name that they know.
    fn let_through(&self, whom: u32) -> Result<(), HomeError> {
        for path in PASSED.map(|below| self.run.join(below)).into_iter().chain([self.run.clone()]) {
            let failed = |source| HomeError::Make { path: path.clone(), source };
            let mode = fs::metadata(&path).map_err(failed)?.mode() & 0o7777;
            if mode & whom != whom {
                fs::set_permissions(&path, fs::Permissions::from_mode(mode | whom)).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Where workers find the secrets that reach them by file.
    #[must_use]
    pub fn secrets(&self) -> Utf8PathBuf {
        self.run.join("secrets")
    }

    /// Where agentctl talks to the daemon.
    #[must_use]
    pub fn control_socket(&self) -> Utf8PathBuf {
        self.run.join("control.sock")
    }

    /// Where scripts read the status.
    #[must_use]
    pub fn status_socket(&self) -> Utf8PathBuf {
        self.run.join("status.sock")
    }

    /// Where workers tell of their tasks.
    #[must_use]
    pub fn worker_socket(&self) -> Utf8PathBuf {
        self.run.join("worker.sock")
    }

    /// The database.
    #[must_use]
    pub fn database(&self) -> Utf8PathBuf {
        self.state.join("agentd.db")
    }
}

fn make(path: &Utf8Path) -> Result<(), HomeError> {
    let failed = |source| HomeError::Make { path: path.to_owned(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
    let owner = fs::metadata(path).map_err(failed)?.uid();
    let us = nix::unistd::geteuid().as_raw();
    if owner != us {
        return Err(HomeError::Foreign { path: path.to_owned(), owner, us });
    }
    Ok(())
}

fn short_run(run: &Utf8Path) -> Result<Utf8PathBuf, HomeError> {
    if run.as_str().len() <= RUN_MAX {
        make(run)?;
        return Ok(run.to_owned());
    }
    let mut hasher = DefaultHasher::new();
    run.as_str().hash(&mut hasher);
    let short = Utf8PathBuf::from(format!("/tmp/agentd-{}-{:016x}", nix::unistd::geteuid(), hasher.finish()));
    make(&short)?;
    let failed = |source| HomeError::Make { path: run.to_owned(), source };
    match symlink(&short, run) {
        Ok(()) => Ok(short),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            match run.read_link_utf8() {
                Ok(target) if target == short => Ok(short),
                // An empty folder from elsewhere may make way; anything else is somebody's.
                Ok(_) | Err(_) => {
                    fs::remove_dir(run).map_err(failed)?;
                    symlink(&short, run).map_err(failed)?;
                    Ok(short)
                }
            }
        }
        Err(error) => Err(failed(error)),
    }
}

fn lock(run: &Utf8Path) -> Result<InstanceLock, HomeError> {
    let path = run.join("agentd.lock");
    let failed = |source| HomeError::Lock { path: path.clone(), source };
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(failed)?;
    let deadline = Instant::now() + LET_GO_WITHIN;
    let mut wanted = file;
    loop {
        match Flock::lock(wanted, FlockArg::LockExclusiveNonblock) {
            Ok(mut file) => {
                file.set_len(0).map_err(failed)?;
                file.rewind().map_err(failed)?;
                writeln!(file, "{}", std::process::id()).map_err(failed)?;
                return Ok(InstanceLock { file });
            }
            Err((mut file, nix::errno::Errno::EWOULDBLOCK)) => {
                let mut pid = String::new();
                file.rewind().map_err(failed)?;
                file.read_to_string(&mut pid).map_err(failed)?;
                let pid = pid.trim();
                let owner = pid.parse().ok().and_then(|pid| Stat::of(Pid(pid)));
                let (named, run) = (if pid.is_empty() { "unknown" } else { pid }.to_owned(), run.to_owned());
                if owner.is_some_and(|owner| !owner.is_zombie) {
                    return Err(HomeError::Taken { pid: named, run });
                }
                if Instant::now() >= deadline {
                    return Err(HomeError::StillHeld { pid: named, run });
                }
                std::thread::sleep(Duration::from_millis(1));
                wanted = file;
            }
            Err((_, errno)) => return Err(failed(errno.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn temporary() -> (tempfile::TempDir, Utf8PathBuf) {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = Utf8PathBuf::from_path_buf(dir.path().to_owned()).expect("a UTF-8 path");
        (dir, path)
    }

    #[test]
    fn the_second_daemon_in_a_home_is_refused_and_told_of_the_first() {
        let (_dir, path) = temporary();
        let (home, lock) = Home::locate(Some(&path)).enter().expect("the first gets it");
        let refused = Home::locate(Some(&path)).enter();
        assert!(matches!(refused, Err(HomeError::Taken { pid, .. }) if pid == std::process::id().to_string()));
        drop(lock);
        Home::locate(Some(&path)).enter().expect("it is free again");
        assert_eq!(home.run, path.join("run"));
    }

    #[test]
    fn a_home_too_deep_for_a_sockets_name_gets_a_short_folder_for_its_sockets() {
        let (_dir, path) = temporary();
        let deep = path.join("x".repeat(60)).join("y".repeat(60));
        let (home, lock) = Home::locate(Some(&deep)).enter().expect("it is entered");
        assert!(home.run.as_str().len() <= RUN_MAX);
        let (again, _) = {
            drop(lock);
            Home::locate(Some(&deep)).enter().expect("it is entered again")
        };
        assert_eq!(home.run, again.run);
        assert_eq!(fs::canonicalize(deep.join("run")).ok(), fs::canonicalize(&home.run).ok());
        fs::remove_dir_all(&home.run).expect("the short folder is removed");
    }
}
