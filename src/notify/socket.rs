//! The datagram socket of one worker.
//!
//! Owns the descriptor and the socket's file. The file stays when the descriptor is dropped, because a worker may
//! outlive its supervisor; [`NotifySocket::remove`] takes it away. Nobody but the worker's user and root can write to
//! it: the mode is set before the file is made, not after.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use agentd_core::id::Pid;
use camino::{Utf8Path, Utf8PathBuf};
use rustix::fs::{FileType, Mode, Uid, chown, fchmod, lstat, unlink};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, bind, sendto, socket_with, sockopt,
};
use thiserror::Error;

use super::notice::{Notice, parse};
use super::sender::Sender;
use crate::process::shim::channel_beside;
use crate::process::sys::{self, ReadableFd};

/// Longest datagram read, in bytes; systemd's limit is 4096.
const DATAGRAM_MAX: usize = 8192;

/// What Node's `process.on('message')` is to hear: a line of JSON.
const NODE_SHUTDOWN: &[u8] = b"\"shutdown\"\n";

/// Why a notify socket does not work.
#[derive(Debug, Error)]
pub enum NotifyError {
    /// Something else has its name.
    #[error("make the notify socket {path}: something that is no socket has this name")]
    Occupied {
        /// Its path.
        path: Utf8PathBuf,
    },
    /// A stale file could not be removed.
    #[error("remove the stale notify socket {path}")]
    Unlink {
        /// Its path.
        path: Utf8PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// No socket, or its options were refused.
    #[error("make a notify socket")]
    Socket(#[source] io::Error),
    /// It could not be given its name; a name has at most 107 bytes.
    #[error("bind the notify socket {path}")]
    Bind {
        /// Its path.
        path: Utf8PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// It could not be given to the worker's user.
    #[error("give the notify socket {path} to user {uid}")]
    Own {
        /// Its path.
        path: Utf8PathBuf,
        /// The user.
        uid: u32,
        /// What the kernel said.
        source: io::Error,
    },
    /// The runtime cannot watch it.
    #[error("watch the notify socket {path}")]
    Watch {
        /// Its path.
        path: Utf8PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A message did not get through.
    #[error("send over Node's channel {path}")]
    Send {
        /// Its path.
        path: Utf8PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Nothing could be received.
    #[error("receive from the notify socket {path}")]
    Receive {
        /// Its path.
        path: Utf8PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// One datagram.
#[derive(Debug)]
pub struct Datagram {
    /// What it says, in its order.
    pub messages: Vec<Notice>,
    /// The descriptors that came with it. Dropping them answers a [`Notice::Barrier`], so they are to be dropped only
    /// once this datagram and all before it were processed.
    pub fds: Vec<OwnedFd>,
    /// Who sent it.
    pub sender: Option<Sender>,
}

/// The socket that a worker finds in `NOTIFY_SOCKET`.
#[derive(Debug)]
pub struct NotifySocket {
    fd: ReadableFd,
    path: Utf8PathBuf,
}

impl NotifySocket {
    /// Makes the socket at `path`, in place of a stale one. `owner` is the worker's user where it is not ours.
    ///
    /// # Errors
    /// [`NotifyError`], with the step that failed.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn bind(path: &Utf8Path, owner: Option<u32>) -> Result<Self, NotifyError> {
        clear(path)?;
        let fd = unnamed().map_err(|errno| NotifyError::Socket(errno.into()))?;
        SocketAddrUnix::new(path.as_str())
            .and_then(|address| bind(&fd, &address))
            .map_err(|errno| NotifyError::Bind { path: path.to_owned(), source: errno.into() })?;
        if let Some(uid) = owner {
            chown(path.as_str(), Some(Uid::from_raw(uid)), None).map_err(|errno| NotifyError::Own {
                path: path.to_owned(),
                uid,
                source: errno.into(),
            })?;
        }
        Self::adopt(fd, path)
    }

    /// Takes over the socket `fd`, which a predecessor has made at `path`.
    ///
    /// # Errors
    /// [`NotifyError::Watch`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn adopt(fd: OwnedFd, path: &Utf8Path) -> Result<Self, NotifyError> {
        let fd = ReadableFd::register(fd).map_err(|source| NotifyError::Watch { path: path.to_owned(), source })?;
        Ok(Self { fd, path: path.to_owned() })
    }

    /// Its path, to be the value of `NOTIFY_SOCKET`.
    #[must_use]
    pub fn path(&self) -> &Utf8Path {
        &self.path
    }

    /// The user that it was given to, whose worker speaks here; ours where that cannot be told.
    #[must_use]
    pub fn owner(&self) -> u32 {
        lstat(self.path.as_str()).map_or_else(|_| nix::unistd::geteuid().as_raw(), |found| found.st_uid)
    }

    /// Sends Node's message `shutdown` over the channel that its worker has beside this socket.
    ///
    /// # Errors
    /// [`NotifyError::Send`]: it has none, has closed it or does not read.
    pub fn say_shutdown(&self) -> Result<(), NotifyError> {
        let path = channel_beside(&self.path);
        SocketAddrUnix::new(path.as_str())
            .and_then(|to| sendto(&self.fd, NODE_SHUTDOWN, SendFlags::NOSIGNAL, &to))
            .map(drop)
            .map_err(|errno| NotifyError::Send { path, source: errno.into() })
    }

    /// Waits for the next datagram. May be dropped at any time without losing one.
    ///
    /// # Errors
    /// [`NotifyError::Receive`]; not for anything that a sender does.
    pub async fn recv(&self) -> Result<Datagram, NotifyError> {
        let received = self.fd.read_with(receive).await;
        received.map_err(|source| NotifyError::Receive { path: self.path.clone(), source })
    }

    /// The next datagram, if one has arrived. To be called until there is none when the worker has ended, so that its
    /// last words are heard before its end.
    ///
    /// # Errors
    /// [`NotifyError::Receive`].
    pub fn try_recv(&self) -> Result<Option<Datagram>, NotifyError> {
        match receive(self.fd.as_fd()) {
            Ok(datagram) => Ok(Some(datagram)),
            Err(source) if source.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(source) => Err(NotifyError::Receive { path: self.path.clone(), source }),
        }
    }

    /// Closes the socket and removes its file.
    pub fn remove(self) {
        // Gone already is as good.
        let _ = unlink(self.path.as_str());
    }
}

impl AsFd for NotifySocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Removes a socket that is left at `path`.
fn clear(path: &Utf8Path) -> Result<(), NotifyError> {
    match lstat(path.as_str()) {
        Ok(found) if FileType::from_raw_mode(found.st_mode) == FileType::Socket => {
            unlink(path.as_str()).map_err(|errno| NotifyError::Unlink { path: path.to_owned(), source: errno.into() })
        }
        Ok(_) => Err(NotifyError::Occupied { path: path.to_owned() }),
        // What is wrong with the path beside that it is free, binding will say.
        Err(_) => Ok(()),
    }
}

fn unnamed() -> Result<OwnedFd, Errno> {
    let fd = socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    // The file that bind() makes takes its mode from the socket.
    fchmod(&fd, Mode::RUSR | Mode::WUSR)?;
    sockopt::set_socket_passcred(&fd, true)?;
    Ok(fd)
}

fn receive(fd: BorrowedFd<'_>) -> io::Result<Datagram> {
    let mut bytes = [0_u8; DATAGRAM_MAX];
    let received = sys::receive(fd, &mut bytes)?;
    let sender = received.credentials.map(|(pid, uid)| Sender {
        // Zero is how the kernel shows a process that we cannot see.
        pid: u32::try_from(pid).ok().filter(|&pid| pid != 0).map(Pid),
        uid,
    });
    let mut text = &bytes[..received.length];
    if received.is_truncated {
        // The last line was cut, and could mean something else now.
        text = &text[..text.iter().rposition(|&b| b == b'\n').unwrap_or(0)];
    }
    Ok(Datagram { messages: parse(text), fds: received.fds, sender })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixDatagram;

    use super::*;

    fn place() -> (tempfile::TempDir, Utf8PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(dir.path().join("n.sock")).unwrap();
        (dir, path)
    }

    fn say(path: &Utf8Path, text: &[u8]) {
        UnixDatagram::unbound().unwrap().send_to(text, path).unwrap();
    }

    #[tokio::test]
    async fn a_datagram_comes_with_its_sender() {
        let (_keep, path) = place();
        let socket = NotifySocket::bind(&path, None).unwrap();
        say(&path, b"READY=1\nSTATUS=up");
        let datagram = socket.recv().await.unwrap();
        assert_eq!(datagram.messages, [Notice::Ready, Notice::Status("up".into())]);
        let me = Sender { pid: Some(Pid(std::process::id())), uid: rustix::process::getuid().as_raw() };
        assert_eq!(datagram.sender, Some(me));
        assert!(datagram.fds.is_empty());
        assert!(socket.try_recv().unwrap().is_none());
    }

    #[tokio::test]
    async fn only_its_owner_may_write_and_a_stale_socket_is_replaced_but_no_other_file() {
        let (_keep, path) = place();
        drop(NotifySocket::bind(&path, None).unwrap());
        let socket = NotifySocket::bind(&path, Some(rustix::process::getuid().as_raw())).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        socket.remove();
        assert!(!path.exists());
        std::fs::write(&path, "precious").unwrap();
        assert!(matches!(NotifySocket::bind(&path, None), Err(NotifyError::Occupied { .. })));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }

    #[tokio::test]
    async fn a_name_that_is_too_long_is_refused_as_such() {
        let (_keep, path) = place();
        let long = path.with_file_name("x".repeat(120));
        assert!(matches!(NotifySocket::bind(&long, None), Err(NotifyError::Bind { .. })));
    }

    #[tokio::test]
    async fn of_a_datagram_that_is_too_long_only_the_whole_lines_count() {
        let (_keep, path) = place();
        let socket = NotifySocket::bind(&path, None).unwrap();
        say(&path, format!("READY=1\nMAINPID=1{}", " ".repeat(DATAGRAM_MAX)).as_bytes());
        say(&path, "X".repeat(2 * DATAGRAM_MAX).as_bytes());
        assert_eq!(socket.recv().await.unwrap().messages, [Notice::Ready]);
        assert_eq!(socket.recv().await.unwrap().messages, []);
    }

    #[tokio::test]
    async fn descriptors_come_in_their_order_as_many_as_the_kernel_passes_and_close_on_exec() {
        let (_keep, path) = place();
        let socket = NotifySocket::bind(&path, None).unwrap();
        let files = (0..253).map(|_| tempfile::tempfile().unwrap()).collect::<Vec<_>>();
        for (n, file) in files.iter().enumerate() {
            file.set_len(n as u64).unwrap();
        }
        let borrowed = files.iter().map(AsFd::as_fd).collect::<Vec<_>>();
        let sender = UnixDatagram::unbound().unwrap();
        sender.connect(&path).unwrap();
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
        let mut ancillary = rustix::net::SendAncillaryBuffer::new(&mut space);
        assert!(ancillary.push(rustix::net::SendAncillaryMessage::ScmRights(&borrowed)));
        let text = [io::IoSlice::new(b"FDSTORE=1")];
        rustix::net::sendmsg(&sender, &text, &mut ancillary, SendFlags::empty()).unwrap();
        let datagram = socket.recv().await.unwrap();
        let sizes = datagram.fds.iter().map(|fd| rustix::fs::fstat(fd).unwrap().st_size).collect::<Vec<_>>();
        assert_eq!(sizes, (0..253).collect::<Vec<_>>());
        assert!(datagram.sender.is_some());
        let flags = rustix::io::fcntl_getfd(&datagram.fds[252]).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
    }

    #[tokio::test]
    async fn an_adopted_socket_hears_what_was_said_in_between() {
        let (_keep, path) = place();
        let first = NotifySocket::bind(&path, None).unwrap();
        let duplicate = first.as_fd().try_clone_to_owned().unwrap();
        drop(first);
        say(&path, b"WATCHDOG=1");
        let second = NotifySocket::adopt(duplicate, &path).unwrap();
        assert_eq!(second.recv().await.unwrap().messages, [Notice::Watchdog]);
    }
}
