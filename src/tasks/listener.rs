//! The worker socket: a Unix stream socket that workers of any user may reach, and who is at the other end.
//!
//! Its mode is 0666: a worker may run as another user, and proves itself by its token and its credentials. Everybody may
//! pass through the folder that it lies in, for the same reason.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

use camino::{Utf8Path, Utf8PathBuf};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

use super::link::Peer;

/// The listening socket. Its file goes with it.
#[derive(Debug)]
pub(super) struct Listener {
    listener: UnixListener,
    path: Utf8PathBuf,
}

impl Listener {
    /// Listens at `path`, in place of what a dead daemon left there: the instance's lock is ours.
    pub(super) fn bind(path: &Utf8Path) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, path: path.to_owned() })
    }

    /// The next connection that waits, with who made it.
    pub(super) fn accept(&self) -> Option<(OwnedFd, Peer)> {
        loop {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(error) => {
                    tracing::warn!(%error, "a worker's connection was not accepted");
                    return None;
                }
            };
            // Without credentials nobody is believed.
            if let Ok(peer) = getsockopt(&stream, PeerCredentials)
                && stream.set_nonblocking(true).is_ok()
            {
                let pid = u32::try_from(peer.pid()).unwrap_or(0);
                return Some((stream.into(), Peer { pid, uid: peer.uid() }));
            }
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(path = %self.path, %error, "the worker socket was gone already");
        }
    }
}
