//! Where one instance lives, and how its sockets are reached.
//!
//! With a home (`--home`, `AGENTD_HOME`) everything lies under it: `state/`, `run/`, `logs/`. Without one the system
//! service (root) uses `/var/lib/agentd` and `/run/agentd`, and a user `$XDG_STATE_HOME/agentd` and
//! `$XDG_RUNTIME_DIR/agentd`, or `/tmp/agentd-<uid>` where the session has no runtime directory. The daemon follows
//! the same rules.
//!
//! A Unix socket's address holds 107 bytes. A socket whose path is longer is reached through its folder's descriptor,
//! `/proc/self/fd/<n>/<name>`, whatever the depth of the folder and whether or not `run` is a link.
//!
//! What can go wrong: there is no folder or no socket (no daemon runs), the socket is there and nobody accepts (a
//! daemon died), this user may not connect, and, in `/tmp` only, the folder belongs to somebody else, who could pose
//! as the daemon; it is then not used.

use std::env::{self, VarError};
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;

use camino::{Utf8Path, Utf8PathBuf};
use nix::fcntl::OFlag;
use thiserror::Error;

/// Longest socket path that the kernel takes, in bytes, without its closing zero.
const SOCKET_PATH_MAX: usize = 107;

/// Name of the socket that answers requests.
pub(crate) const CONTROL_SOCKET: &str = "control.sock";

/// Name of the socket that tells how things stand.
pub(crate) const STATUS_SOCKET: &str = "status.sock";

/// Why an instance's sockets cannot be reached.
#[derive(Debug, Error)]
pub(crate) enum HomeError {
    /// No socket, or a socket that nobody listens on.
    #[error("no daemon runs at {path}")]
    NoDaemon {
        /// The socket that was tried.
        path: Utf8PathBuf,
        /// Nobody accepts on a socket that is there: a daemon died without removing it.
        stale: bool,
    },
    /// The socket's permissions keep this user out.
    #[error("this user may not connect to {path}")]
    Forbidden {
        /// The socket that was tried.
        path: Utf8PathBuf,
    },
    /// The runtime folder in `/tmp` is somebody else's.
    #[error("the runtime folder {path} belongs to user {owner}")]
    ForeignFolder {
        /// The folder.
        path: Utf8PathBuf,
        /// Its owner's uid.
        owner: u32,
    },
    /// Connecting failed in another way.
    #[error("connecting to {path}: {source}")]
    Connect {
        /// The socket that was tried.
        path: Utf8PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// `AGENTD_HOME` is no UTF-8.
    #[error("AGENTD_HOME is no UTF-8")]
    NoText,
    /// The given home is relative and the working directory is unknown or no UTF-8.
    #[error("making the home {home} absolute: {source}")]
    Absolute {
        /// The home as given.
        home: Utf8PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// The folders of one instance, absolute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Home {
    /// The home, when one was given: the daemon is started with it.
    pub(crate) given: Option<Utf8PathBuf>,
    /// Holds the sockets.
    pub(crate) run: Utf8PathBuf,
    /// Holds the daemon's own log and its store.
    pub(crate) state: Utf8PathBuf,
    /// `run` lies in a folder that everybody may write to, so its owner is checked.
    shared_parent: bool,
}

/// What the choice of folders depends on.
struct Surroundings {
    uid: u32,
    runtime_dir: Option<Utf8PathBuf>,
    state_dir: Option<Utf8PathBuf>,
    user_home: Option<Utf8PathBuf>,
}

impl Home {
    /// The instance that `given` (`--home`), else `AGENTD_HOME`, else this process's user chooses.
    ///
    /// # Errors
    /// [`HomeError::NoText`]; [`HomeError::Absolute`] when the home is relative and the working directory is gone.
    pub(crate) fn find(given: Option<Utf8PathBuf>) -> Result<Self, HomeError> {
        // An empty AGENTD_HOME is an unset one, as in every shell script that clears it.
        let variable = match env::var("AGENTD_HOME") {
            Ok(home) => Some(Utf8PathBuf::from(home)).filter(|home| !home.as_str().is_empty()),
            Err(VarError::NotPresent) => None,
            // Falling back to another instance would act on the wrong apps.
            Err(VarError::NotUnicode(_)) if given.is_none() => return Err(HomeError::NoText),
            Err(VarError::NotUnicode(_)) => None,
        };
        let absolute = given.or(variable).map(|home| absolute(&home)).transpose()?;
        Ok(Self::choose(absolute, Surroundings::of_process()))
    }

    fn choose(given: Option<Utf8PathBuf>, around: Surroundings) -> Self {
        if let Some(home) = given {
            return Self { run: home.join("run"), state: home.join("state"), given: Some(home), shared_parent: false };
        }
        if around.uid == 0 {
            return Self {
                given: None,
                run: "/run/agentd".into(),
                state: "/var/lib/agentd".into(),
                shared_parent: false,
            };
        }
        let fallback = || Utf8PathBuf::from(format!("/tmp/agentd-{}", around.uid));
        let state = around
            .state_dir
            .or_else(|| around.user_home.map(|home| home.join(".local/state")))
            .map_or_else(|| fallback().join("state"), |dir| dir.join("agentd"));
        let shared_parent = around.runtime_dir.is_none();
        let run = around.runtime_dir.map_or_else(fallback, |dir| dir.join("agentd"));
        Self { given: None, run, state, shared_parent }
    }

    /// Path of the file that takes what the daemon prints when `agentctl` started it.
    pub(crate) fn daemon_log(&self) -> Utf8PathBuf {
        self.state.join("daemon.log")
    }

    /// Connects to the socket `name` of this instance.
    ///
    /// # Errors
    /// See [`HomeError`].
    pub(crate) fn connect(&self, name: &str) -> Result<UnixStream, HomeError> {
        if self.shared_parent {
            self.check_owner()?;
        }
        let path = self.run.join(name);
        let connected = if path.as_str().len() <= SOCKET_PATH_MAX {
            UnixStream::connect(&path)
        } else {
            self.open_run().and_then(|dir| UnixStream::connect(format!("/proc/self/fd/{}/{name}", dir.as_raw_fd())))
        };
        connected.map_err(|source| {
            let is = |kind| source.kind() == kind;
            if is(ErrorKind::NotFound) || is(ErrorKind::ConnectionRefused) {
                HomeError::NoDaemon { path, stale: is(ErrorKind::ConnectionRefused) }
            } else if is(ErrorKind::PermissionDenied) {
                HomeError::Forbidden { path }
            } else {
                HomeError::Connect { path, source }
            }
        })
    }

    /// Opens the runtime folder as a mere place in the tree: needs no right to read it.
    fn open_run(&self) -> io::Result<File> {
        OpenOptions::new().read(true).custom_flags((OFlag::O_PATH | OFlag::O_DIRECTORY).bits()).open(&self.run)
    }

    fn check_owner(&self) -> Result<(), HomeError> {
        match fs::symlink_metadata(&self.run) {
            Ok(found) if found.uid() == nix::unistd::geteuid().as_raw() => Ok(()),
            Ok(found) => Err(HomeError::ForeignFolder { path: self.run.clone(), owner: found.uid() }),
            // Connecting says more precisely what is missing.
            Err(_) => Ok(()),
        }
    }
}

impl Surroundings {
    fn of_process() -> Self {
        Self {
            uid: nix::unistd::geteuid().as_raw(),
            runtime_dir: absolute_variable("XDG_RUNTIME_DIR"),
            state_dir: absolute_variable("XDG_STATE_HOME"),
            user_home: absolute_variable("HOME"),
        }
    }
}

/// A variable that holds an absolute path; the XDG rules say to ignore any other.
fn absolute_variable(name: &str) -> Option<Utf8PathBuf> {
    env::var(name).ok().map(Utf8PathBuf::from).filter(|path| path.is_absolute())
}

/// `path` from the root on, its links left alone.
///
/// # Errors
/// [`HomeError::Absolute`] when the working directory is gone or no UTF-8.
fn absolute(path: &Utf8Path) -> Result<Utf8PathBuf, HomeError> {
    camino::absolute_utf8(path).map_err(|source| HomeError::Absolute { home: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    fn user(runtime_dir: Option<&str>) -> Surroundings {
        Surroundings {
            uid: 1000,
            runtime_dir: runtime_dir.map(Into::into),
            state_dir: None,
            user_home: Some("/home/ada".into()),
        }
    }

    #[test]
    fn a_given_home_holds_everything() {
        let home = Home::choose(Some("/srv/one".into()), user(Some("/run/user/1000")));
        assert_eq!((home.run.as_str(), home.state.as_str()), ("/srv/one/run", "/srv/one/state"));
    }

    #[test]
    fn root_means_the_system_service_and_a_user_the_xdg_folders() {
        let root = Home::choose(None, Surroundings { uid: 0, ..user(Some("/run/user/0")) });
        assert_eq!((root.run.as_str(), root.state.as_str()), ("/run/agentd", "/var/lib/agentd"));
        let ada = Home::choose(None, user(Some("/run/user/1000")));
        assert_eq!((ada.run.as_str(), ada.state.as_str()), ("/run/user/1000/agentd", "/home/ada/.local/state/agentd"));
        let bare = Home::choose(None, user(None));
        assert_eq!(bare.run, "/tmp/agentd-1000");
        assert!(bare.shared_parent && !ada.shared_parent);
    }

    #[test]
    fn a_home_too_deep_for_a_socket_address_is_reached_through_its_folder() {
        let top = tempfile::tempdir().unwrap();
        let deep = Utf8Path::from_path(top.path()).unwrap().join("d".repeat(120)).join("e".repeat(120));
        let home = Home::find(Some(deep)).unwrap();
        fs::create_dir_all(&home.run).unwrap();
        assert!(matches!(home.connect(STATUS_SOCKET), Err(HomeError::NoDaemon { stale: false, .. })));
        let dir = home.open_run().unwrap();
        let listener = UnixListener::bind(format!("/proc/self/fd/{}/{STATUS_SOCKET}", dir.as_raw_fd())).unwrap();
        home.connect(STATUS_SOCKET).unwrap();
        drop(listener);
        assert!(matches!(home.connect(STATUS_SOCKET), Err(HomeError::NoDaemon { stale: true, .. })));
    }

    #[test]
    fn a_folder_in_tmp_that_is_somebody_elses_is_not_trusted() {
        let mut home = Home::choose(None, user(None));
        // Root's, or, for root, nobody's: in both cases not the tester's.
        let foreign = tempfile::tempdir().unwrap();
        home.run = Utf8PathBuf::from_path_buf(foreign.path().to_owned()).unwrap();
        if nix::unistd::geteuid().is_root() {
            std::os::unix::fs::chown(&home.run, Some(65534), None).unwrap();
        } else {
            home.run = "/".into();
        }
        assert!(matches!(home.connect(STATUS_SOCKET), Err(HomeError::ForeignFolder { .. })));
    }
}
