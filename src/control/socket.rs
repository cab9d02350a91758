//! A Unix socket of the daemon's own, bound at a path.
//!
//! Owns: replacing what a dead daemon left behind, never what a living one holds, and never a file that is no
//! socket; the mode of the file, set before anybody can connect; and removing the file at the end, if it still is
//! the one made here. Does not own: which of two daemons may have the instance. That is the instance lock's.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use interprocess::local_socket::tokio::{Listener, Stream};
use interprocess::local_socket::traits::tokio::Listener as _;
use interprocess::local_socket::{GenericFilePath, ListenerOptions, ToFsName};
use interprocess::os::unix::local_socket::ListenerOptionsExt;
use interprocess::os::unix::uds_local_socket::tokio::Listener as UnixListener;
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use socket2::{Domain, SockAddr, Socket, Type};
use thiserror::Error;
use tokio::sync::watch;

/// Between two tries to accept, after one failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why a socket could not be bound.
#[derive(Debug, Error)]
pub enum BindError {
    /// Somebody listens there.
    #[error("bind {path}: a daemon listens there{}", .pid.map(|p| format!(", process {p}")).unwrap_or_default())]
    Busy {
        /// The socket.
        path: Utf8PathBuf,
        /// Who, if the kernel told.
        pid: Option<u32>,
    },
    /// The path holds something that is not ours to remove.
    #[error("bind {path}: there is a file that is no socket")]
    NotASocket {
        /// The path.
        path: Utf8PathBuf,
    },
    /// What is there could not be looked at.
    #[error("look at {path}")]
    Inspect {
        /// The path.
        path: Utf8PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Whether somebody listens there could not be found out.
    #[error("ask who listens at {path}")]
    Probe {
        /// The path.
        path: Utf8PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The socket that a dead daemon left could not be removed.
    #[error("remove the left-over socket {path}")]
    Remove {
        /// The path.
        path: Utf8PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It could not be bound: a missing folder, a path of more than 107 bytes, no permission.
    #[error("bind {path}")]
    Bind {
        /// The path.
        path: Utf8PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its mode could not be set.
    #[error("set the mode of {path} to {mode:o}")]
    Mode {
        /// The path.
        path: Utf8PathBuf,
        /// The mode wanted.
        mode: u32,
        /// Why.
        source: io::Error,
    },
}

/// A listening socket and its file, which goes with it unless the doors are closed.
#[derive(Debug)]
pub struct BoundSocket {
    listener: Listener,
    path: Utf8PathBuf,
    /// Device and inode of the file, so that a successor's is never removed.
    file: (u64, u64),
    /// True once nobody is to be let in any more: who comes waits in the queue, for the next program.
    doors: watch::Sender<bool>,
}

/// Whether a socket's doors are closed: another program is to take the daemon's place, and who comes waits for it.
#[derive(Clone, Debug)]
pub(crate) struct Doors(watch::Receiver<bool>);

impl Doors {
    /// Ends when they are.
    pub(crate) async fn shut(&mut self) {
        // Its sender lives as long as the socket; what is served beyond that is served to its end.
        if self.0.wait_for(|shut| *shut).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl BoundSocket {
    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Utf8Path {
        &self.path
    }

    /// A second hold on the listening socket, to be passed on to the program that takes this one's place.
    ///
    /// # Errors
    /// Descriptors have run out.
    pub fn copy(&self) -> io::Result<OwnedFd> {
        match &self.listener {
            Listener::UdSocket(listener) => listener.as_fd().try_clone_to_owned(),
        }
    }

    /// What lets nobody in any more, by `send(true)`.
    #[must_use]
    pub fn doors(&self) -> watch::Sender<bool> {
        self.doors.clone()
    }

    /// What tells those who serve its clients.
    pub(crate) fn watch_doors(&self) -> Doors {
        Doors(self.doors.subscribe())
    }

    /// The next connection. When the kernel gives none, for want of descriptors above all, tries again after a pause:
    /// an error that stays must not become a loop that takes the processor from the dispatcher.
    pub async fn accept(&self) -> Stream {
        let mut refused = 0_u32;
        loop {
            match self.listener.accept().await {
                Ok(stream) => return stream,
                Err(error) => {
                    if refused == 0 {
                        tracing::warn!(path = %self.path, %error, "could not accept a connection; it waits");
                    }
                    refused = refused.saturating_add(1);
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

impl Drop for BoundSocket {
    fn drop(&mut self) {
        if *self.doors.borrow() {
            // The next program listens there.
            return;
        }
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|m| (m.dev(), m.ino()) == self.file);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path, %error, "could not remove a socket's file");
        }
    }
}

/// Binds `path` with `mode` (permission bits, whatever the umask), in place of what a dead daemon left there. Must be
/// called within a tokio runtime.
///
/// # Errors
/// When somebody listens there, or the socket cannot be made.
pub fn bind_private(path: &Utf8Path, mode: u32) -> Result<BoundSocket, BindError> {
    clear_stale(path)?;
    let bind = |source| BindError::Bind { path: path.to_owned(), source };
    let name = path.as_std_path().to_fs_name::<GenericFilePath>().map_err(bind)?;
    // The mode is on the socket before the file exists. The umask can only take bits away, and they are given back.
    let listener =
        ListenerOptions::new().name(name).mode(mode & 0o777).reclaim_name(false).create_tokio().map_err(bind)?;
    let wrong = |source| BindError::Mode { path: path.to_owned(), mode, source };
    let found = fs::symlink_metadata(path).map_err(wrong)?;
    let bound = BoundSocket { listener, path: path.to_owned(), file: (found.dev(), found.ino()), doors: doors() };
    if found.mode() & 0o777 != mode {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(wrong)?;
    }
    Ok(bound)
}

/// Takes over a socket that listens at `path` already, with whoever waits in its queue. Must be called within a tokio
/// runtime.
///
/// # Errors
/// [`BindError::Bind`] when it is no listening socket, or its file is gone.
pub fn adopt_bound(path: &Utf8Path, socket: OwnedFd) -> Result<BoundSocket, BindError> {
    let bind = |source| BindError::Bind { path: path.to_owned(), source };
    let listener = UnixListener::try_from(socket).map_err(bind)?;
    let found = fs::symlink_metadata(path).map_err(bind)?;
    Ok(BoundSocket {
        listener: listener.into(),
        path: path.to_owned(),
        file: (found.dev(), found.ino()),
        doors: doors(),
    })
}

fn doors() -> watch::Sender<bool> {
    watch::channel(false).0
}

fn clear_stale(path: &Utf8Path) -> Result<(), BindError> {
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(BindError::Inspect { path: path.to_owned(), source }),
        Ok(found) if !found.file_type().is_socket() => return Err(BindError::NotASocket { path: path.to_owned() }),
        Ok(_) => {}
    }
    if let Some(pid) = who_listens(path)? {
        return Err(BindError::Busy { path: path.to_owned(), pid });
    }
    match fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(BindError::Remove { path: path.to_owned(), source }),
    }
}

/// Some when somebody listens at `path`, with the process if the kernel tells.
fn who_listens(path: &Utf8Path) -> Result<Option<Option<u32>>, BindError> {
    let probe = |source| BindError::Probe { path: path.to_owned(), source };
    let address = SockAddr::unix(path.as_std_path()).map_err(probe)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(probe)?;
    // A listener whose backlog is full would make a blocking connect wait for it.
    socket.set_nonblocking(true).map_err(probe)?;
    match socket.connect(&address) {
        Ok(()) => {
            let pid = getsockopt(&socket, PeerCredentials).ok().and_then(|c| u32::try_from(c.pid()).ok());
            Ok(Some(pid.filter(|p| *p > 0)))
        }
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(Some(None)),
        Err(e) if matches!(e.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => Ok(None),
        Err(source) => Err(probe(source)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener as StdListener;

    use super::*;

    fn folder() -> (tempfile::TempDir, Utf8PathBuf) {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = Utf8PathBuf::from_path_buf(dir.path().join("x.sock")).expect("a folder named in UTF-8");
        (dir, path)
    }

    fn mode_of(path: &Utf8Path) -> u32 {
        fs::symlink_metadata(path).expect("the socket's file").mode() & 0o777
    }

    #[tokio::test]
    async fn the_mode_is_as_asked_for_whatever_the_umask() {
        for mode in [0o600, 0o660, 0o666] {
            let (_dir, path) = folder();
            let _bound = bind_private(&path, mode).expect("bound");
            assert_eq!(mode_of(&path), mode);
        }
    }

    #[tokio::test]
    async fn what_a_dead_daemon_left_is_replaced_and_what_a_living_one_holds_is_not() {
        let (_dir, path) = folder();
        drop(StdListener::bind(&path).expect("a first listener"));
        assert!(path.exists(), "the dead daemon leaves its file");
        let living = bind_private(&path, 0o600).expect("bound in its place");
        let error = bind_private(&path, 0o600).expect_err("a second daemon is refused");
        assert!(matches!(error, BindError::Busy { pid: Some(pid), .. } if pid == std::process::id()), "{error}");
        drop(living);
        assert!(!path.exists(), "the file goes with the socket");
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_is_left_alone() {
        let (_dir, path) = folder();
        fs::write(&path, "mine").expect("written");
        let error = bind_private(&path, 0o600).expect_err("refused");
        assert!(matches!(error, BindError::NotASocket { .. }), "{error}");
        assert_eq!(fs::read_to_string(&path).expect("still there"), "mine");
    }

    #[tokio::test]
    async fn a_successors_socket_is_not_removed_by_its_predecessor() {
        let (_dir, path) = folder();
        let first = bind_private(&path, 0o600).expect("bound");
        fs::remove_file(&path).expect("taken away");
        let _second = bind_private(&path, 0o600).expect("bound again");
        drop(first);
        assert!(path.exists(), "the successor's file stays");
    }
}
