//! One Unix address of an app, stream or datagram: a socket a lane, one of them published at the path.
//!
//! Unix sockets have no reuseport groups. For `/run/app.sock` each lane is bound beside it, as `/run/.app.sock.0`, `.1`
//! and so on, and stays there; a second link to it is renamed over the path when the lane is to get the new
//! connections. Connecting finds one lane or the other and never nothing.
//!
//! Some runtimes remove the name their socket is bound to when they end. So every lane has one more link,
//! `/run/.app.sock.0+`, which no worker hears of, and the bound name is put back by `reassert_listen`.
//!
//! Files are removed only when they are sockets that nobody listens on any more, and at the end, when they are ours.
//! What can go wrong: a file system without hard links, a folder that is not writable, a path too long for the
//! lanes' names.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};

use camino::{Utf8Path, Utf8PathBuf};
use nix::libc;
use socket2::{Domain, SockAddr, Socket, Type};

use super::addr::{ListenAddr, UNIX_PATH_MAX};
use super::diag::SockDiag;
use super::error::{BindError, StartProbeError};
use super::steer::{ProbeConnection, ProbeEnds, ProbeId};
use super::tcp::{BACKLOG, in_use, inode_of};

/// Anybody who may enter the folder may connect.
const SOCKET_MODE: u32 = 0o666;

#[derive(Debug)]
pub(super) struct UnixGroup {
    addr: ListenAddr,
    kind: Kind,
    path: Utf8PathBuf,
    lanes: Vec<Lane>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Stream,
    Datagram,
}

#[derive(Debug)]
struct Lane {
    socket: Socket,
    inode: u64,
    /// The name the socket is bound to.
    bound: Utf8PathBuf,
    /// The link that nobody else knows.
    kept: Utf8PathBuf,
    /// Device and inode of the file.
    file: (u64, u64),
}

impl UnixGroup {
    /// Takes `path` and publishes lane 0 there, the only one so far.
    pub(super) fn bind(path: &Utf8Path, kind: Kind) -> Result<Self, BindError> {
        let addr = match kind {
            Kind::Stream => ListenAddr::Unix(path.to_owned()),
            Kind::Datagram => ListenAddr::UnixDatagram(path.to_owned()),
        };
        let mut group = Self { addr, kind, path: path.to_owned(), lanes: Vec::new() };
        group.clear(path)?;
        group.ensure_lanes(1)?;
        let publish =
            |source| BindError::File { addr: group.addr.clone(), step: "publish", path: group.path.clone(), source };
        group.publish(0).map_err(publish)?;
        Ok(group)
    }

    /// Takes over the sockets of each lane, whose files lie where they were made. A lane whose socket is gone gets another.
    pub(super) fn adopt(path: &Utf8Path, kind: Kind, sockets: Vec<Option<Socket>>) -> Result<Self, BindError> {
        let addr = match kind {
            Kind::Stream => ListenAddr::Unix(path.to_owned()),
            Kind::Datagram => ListenAddr::UnixDatagram(path.to_owned()),
        };
        let mut group = Self { addr: addr.clone(), kind, path: path.to_owned(), lanes: Vec::new() };
        for (number, socket) in sockets.into_iter().enumerate() {
            let Some(socket) = socket else {
                let lane = group.new_lane(number)?;
                group.lanes.push(lane);
                continue;
            };
            let (bound, kept) = (group.beside(&number.to_string()), group.beside(&format!("{number}+")));
            let file = file_at(&kept).or_else(|| file_at(&bound)).ok_or_else(|| BindError::File {
                addr: addr.clone(),
                step: "look at",
                path: kept.clone(),
                source: io::ErrorKind::NotFound.into(),
            })?;
            let inode = inode_of(socket.as_fd()).map_err(|source| BindError::Listen { addr: addr.clone(), source })?;
            group.lanes.push(Lane { socket, inode, bound, kept, file });
        }
        Ok(group)
    }

    /// Makes lanes, none of them published, until there are `lanes` of them.
    pub(super) fn ensure_lanes(&mut self, lanes: usize) -> Result<(), BindError> {
        while self.lanes.len() < lanes {
            let lane = self.new_lane(self.lanes.len())?;
            self.lanes.push(lane);
        }
        Ok(())
    }

    fn new_lane(&self, number: usize) -> Result<Lane, BindError> {
        let (bound, kept) = (self.beside(&number.to_string()), self.beside(&format!("{number}+")));
        if kept.as_str().len() > UNIX_PATH_MAX {
            return Err(BindError::LanePathTooLong { addr: self.addr.clone(), path: kept });
        }
        self.clear(&bound)?;
        self.clear(&kept)?;
        let addr = || self.addr.clone();
        let kind = match self.kind {
            Kind::Stream => Type::STREAM,
            Kind::Datagram => Type::DGRAM,
        };
        let socket = Socket::new(Domain::UNIX, kind.nonblocking().cloexec(), None)
            .map_err(|source| BindError::Socket { addr: addr(), source })?;
        let name = SockAddr::unix(&bound).map_err(|source| BindError::Bind { addr: addr(), source })?;
        socket.bind(&name).map_err(|source| match source.raw_os_error() {
            Some(libc::EADDRINUSE) => in_use(addr()),
            Some(libc::EACCES | libc::EPERM) => BindError::Denied { addr: addr(), source },
            _ => BindError::Bind { addr: addr(), source },
        })?;
        let file = |step, path: &Utf8Path| {
            let path = path.to_owned();
            move |source| BindError::File { addr: addr(), step, path, source }
        };
        let made = fs::symlink_metadata(&bound).map_err(file("look at", &bound))?;
        let lane = Lane {
            inode: inode_of(socket.as_fd()).map_err(|source| BindError::Listen { addr: addr(), source })?,
            socket,
            file: (made.dev(), made.ino()),
            bound,
            kept,
        };
        // From here on the drop of `lane` takes its files away. Who may connect is the folder's to say, as with
        // systemd's sockets (SocketMode=0666): the web server in front is another user.
        fs::set_permissions(&lane.bound, fs::Permissions::from_mode(SOCKET_MODE))
            .map_err(file("set the mode of", &lane.bound))?;
        fs::hard_link(&lane.bound, &lane.kept).map_err(file("link", &lane.kept))?;
        if self.kind == Kind::Stream {
            lane.socket.listen(BACKLOG).map_err(|source| BindError::Listen { addr: addr(), source })?;
        }
        Ok(lane)
    }

    /// Removes what a dead process left at `path`; refuses when it is anything else.
    fn clear(&self, path: &Utf8Path) -> Result<(), BindError> {
        let file =
            |step| move |source| BindError::File { addr: self.addr.clone(), step, path: path.to_owned(), source };
        let found = match fs::symlink_metadata(path) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(source) => return Err(file("look at")(source)),
        };
        if !found.file_type().is_socket() {
            return Err(BindError::NotASocket { addr: self.addr.clone(), path: path.to_owned() });
        }
        if is_alive(path).map_err(file("connect to"))? {
            return Err(match self.kind {
                Kind::Stream => in_use(ListenAddr::Unix(path.to_owned())),
                Kind::Datagram => in_use(ListenAddr::UnixDatagram(path.to_owned())),
            });
        }
        match fs::remove_file(path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(file("remove")(source)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn beside(&self, suffix: &str) -> Utf8PathBuf {
        let name = self.path.file_name().unwrap_or_default();
        self.path.with_file_name(format!(".{name}.{suffix}"))
    }

    pub(super) fn addr(&self) -> &ListenAddr {
        &self.addr
    }

    pub(super) fn lane(&self, lane: usize) -> Option<BorrowedFd<'_>> {
        self.lanes.get(lane).map(|lane| lane.socket.as_fd())
    }

    pub(super) fn inodes(&self) -> impl Iterator<Item = u64> {
        self.lanes.iter().map(|lane| lane.inode)
    }

    /// The names that the sockets are bound to, which is what accepted sockets carry.
    pub(super) fn bound_names(&self) -> impl Iterator<Item = &Utf8Path> {
        self.lanes.iter().map(|lane| lane.bound.as_path())
    }

    /// Sends new connections to `lane`.
    pub(super) fn publish(&self, lane: usize) -> io::Result<()> {
        let Some(lane) = self.lanes.get(lane) else { return Err(io::ErrorKind::NotFound.into()) };
        if file_at(&self.path) == Some(lane.file) {
            // Renaming one link over another of the same file does nothing and leaves both.
            return Ok(());
        }
        let fresh = self.beside("new");
        match fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        fs::hard_link(&lane.kept, &fresh)?;
        fs::rename(&fresh, &self.path)
    }

    /// The lane that the weights publish: the heaviest, the first of those that are alike.
    pub(super) fn heaviest(weights: &[u32]) -> Option<usize> {
        let live = weights.iter().enumerate().filter(|(_, weight)| **weight > 0);
        live.max_by_key(|(lane, weight)| (**weight, std::cmp::Reverse(*lane))).map(|(lane, _)| lane)
    }

    /// `listen()` again with our backlog, and the bound name put back where the worker before removed it.
    pub(super) fn reassert_listen(&self, lane: usize) -> io::Result<()> {
        let Some(lane) = self.lanes.get(lane) else { return Err(io::ErrorKind::NotFound.into()) };
        if file_at(&lane.bound).is_none() {
            fs::hard_link(&lane.kept, &lane.bound)?;
        }
        match self.kind {
            Kind::Stream => lane.socket.listen(BACKLOG),
            Kind::Datagram => Ok(()),
        }
    }

    /// Connections nobody accepted yet, or for datagrams bytes nobody received yet.
    pub(super) fn queued(&self, lane: usize, diag: &mut SockDiag) -> io::Result<u32> {
        let Some(lane) = self.lanes.get(lane) else { return Err(io::ErrorKind::NotFound.into()) };
        let found = diag.unix_exact(lane.inode)?.ok_or(io::ErrorKind::NotFound)?;
        Ok(found.receive_queue)
    }

    /// A connection to one lane, published or not.
    pub(super) fn start_probe(&self, id: ProbeId, lane: u32) -> Result<ProbeConnection, StartProbeError> {
        let addr = || self.addr.clone();
        let Some(found) = self.lanes.get(lane as usize) else {
            return Err(StartProbeError::NoSuchLane { lane, lanes: self.lanes.len() });
        };
        if self.kind == Kind::Datagram {
            return Err(StartProbeError::NoConnections(addr()));
        }
        let from = |source| StartProbeError::Source { addr: addr(), source };
        let to = |source| StartProbeError::Connect { addr: addr(), lane, source };
        let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None).map_err(from)?;
        let inode = inode_of(socket.as_fd()).map_err(from)?;
        let peer = SockAddr::unix(&found.kept).map_err(to)?;
        socket.connect(&peer).map_err(to)?;
        Ok(ProbeConnection { id, ends: ProbeEnds::Unix { inode }, app_sockets: Vec::new(), socket })
    }
}

impl Drop for UnixGroup {
    fn drop(&mut self) {
        if self.lanes.iter().any(|lane| file_at(&self.path) == Some(lane.file)) {
            remove(&self.path);
        }
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        for path in [&self.bound, &self.kept] {
            if file_at(path) == Some(self.file) {
                remove(path);
            }
        }
    }
}

fn remove(path: &Utf8Path) {
    if let Err(error) = fs::remove_file(path) {
        tracing::warn!(%path, %error, "could not remove a socket's file");
    }
}

/// Device and inode of what is at `path`.
fn file_at(path: &Utf8Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

/// Whether somebody has the socket at `path` open. Connecting is the only test that sees through namespaces.
fn is_alive(path: &Utf8Path) -> io::Result<bool> {
    let peer = SockAddr::unix(path)?;
    for kind in [Type::STREAM, Type::DGRAM, Type::SEQPACKET] {
        match Socket::new(Domain::UNIX, kind.nonblocking().cloexec(), None)?.connect(&peer) {
            Ok(()) => return Ok(true),
            Err(error) => match error.raw_os_error() {
                // A full queue is somebody's queue.
                Some(libc::EAGAIN) => return Ok(true),
                // Bound, to a socket of another kind.
                Some(libc::EPROTOTYPE) => {}
                Some(libc::ECONNREFUSED | libc::ENOENT) => return Ok(false),
                _ => return Err(error),
            },
        }
    }
    Ok(true)
}
