//! One TCP address of an app: a reuseport group with a socket a lane, and the program that picks among them.
//!
//! Owns the sockets, the weights and the probes' clauses. The first socket is bound without `SO_REUSEPORT`, so that
//! a port in anybody's use is refused instead of silently shared, and gets the option before it listens.
//!
//! The kernel knows a socket by its index in the group: the order of `listen()`, where one that stops listening makes
//! room for the last. Our lanes keep their numbers; `order` says which lane an index is. A worker that calls
//! `shutdown()` on its copy takes the socket out of the group for everybody; it is put back at the end before the next
//! program is attached. Where two were shut down between two looks, their order of leaving is taken to be that of
//! their lanes, which can give a lane its neighbour's connections until the next change. A process of the same user
//! can join the port with a socket of its own; no program ever names its index, so it gets nothing, and no lane is
//! added while it is there.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};

use nix::libc;
use socket2::{Domain, Protocol, Socket, Type};

use super::addr::ListenAddr;
use super::diag::u32_at;
use super::error::{BindError, StartProbeError};
use super::owner::{Holder, holder_of, sharer_of};
use super::program::Clause;
use super::shares::{Pick, Shares};
use super::steer::{self, ProbeConnection, ProbeEnds, ProbeId, Source};
use crate::process::sys;

/// Connections a lane may queue; `net.core.somaxconn` caps it.
pub(super) const BACKLOG: i32 = 4096;
/// Clauses in one program: it stays short enough for `optmem_max` of older kernels (20 KiB).
const PROBES_MAX: usize = 64;
/// `tcpi_unacked` in `struct tcp_info`: the accept queue's length on a listener.
const TCPI_UNACKED: usize = 24;

#[derive(Debug)]
pub(super) struct TcpGroup {
    requested: SocketAddr,
    local: SocketAddr,
    lanes: Vec<Lane>,
    /// The lane of each index that the kernel knows.
    order: Vec<usize>,
    shares: Shares,
    probes: Vec<Probe>,
}

#[derive(Debug)]
struct Lane {
    socket: Socket,
    inode: u64,
}

#[derive(Debug)]
struct Probe {
    id: ProbeId,
    source: SocketAddr,
    lane: usize,
    /// A second hold on the prober's socket: its port must be nobody else's while a clause names it.
    _port: Socket,
}

impl TcpGroup {
    /// Takes `addr` and gives everything to lane 0, the only one so far.
    pub(super) fn bind(addr: SocketAddr, pick: Pick) -> Result<Self, BindError> {
        let (socket, local) = bind_alone(addr)?;
        option(addr, "SO_REUSEPORT", socket.set_reuse_port(true))?;
        let mut group = Self {
            requested: addr,
            local,
            lanes: Vec::new(),
            order: Vec::new(),
            shares: Shares::first_lane(pick),
            probes: Vec::new(),
        };
        group.add(socket)?;
        group.attach().map_err(|source| BindError::Program { addr: ListenAddr::Tcp(addr), source })?;
        Ok(group)
    }

    /// Takes over the group that these sockets are, lane by lane. The kernel's indices were those of `known`
    /// ([`order`](Self::order)); lanes that are not in it came later, in their order. The program stays until weights are
    /// set. A lane without a socket lost it, and gets a new one at the group's end; those that were lost are taken to have
    /// left in the order of their lanes.
    pub(super) fn adopt(
        addr: SocketAddr,
        sockets: Vec<Option<Socket>>,
        known: &[u32],
        pick: Pick,
    ) -> Result<Self, BindError> {
        let failed = |source| BindError::Listen { addr: ListenAddr::Tcp(addr), source };
        let mut lanes = Vec::new();
        let mut local = addr;
        let mut order: Vec<usize> = known.iter().map(|&lane| lane as usize).collect();
        let later = (0..sockets.len()).filter(|lane| !order.contains(lane)).collect::<Vec<_>>();
        order.extend(later);
        if let Some(present) = sockets.iter().flatten().next() {
            local = present.local_addr().map_err(failed)?.as_socket().unwrap_or(addr);
        }
        let mut lost: Vec<usize> =
            order.iter().copied().filter(|&lane| sockets.get(lane).is_none_or(Option::is_none)).collect();
        lost.sort_unstable();
        for lane in lost {
            if let Some(index) = order.iter().position(|other| *other == lane) {
                order.swap_remove(index);
            }
        }
        for (number, socket) in sockets.into_iter().enumerate() {
            let Some(socket) = socket else {
                let socket = joined(local)?;
                order.push(number);
                lanes.push(Lane { inode: inode_of(socket.as_fd()).map_err(failed)?, socket });
                continue;
            };
            let bound = socket.local_addr().map_err(failed)?.as_socket();
            local = bound
                .filter(|bound| bound.ip() == addr.ip())
                .ok_or_else(|| failed(io::ErrorKind::InvalidData.into()))?;
            lanes.push(Lane { inode: inode_of(socket.as_fd()).map_err(failed)?, socket });
        }
        Ok(Self { requested: addr, local, lanes, order, shares: Shares::first_lane(pick), probes: Vec::new() })
    }

    /// Makes lanes, all of weight 0, until there are `lanes` of them.
    pub(super) fn ensure_lanes(&mut self, lanes: usize) -> Result<(), BindError> {
        if self.lanes.len() >= lanes {
            return Ok(());
        }
        let addr = ListenAddr::Tcp(self.local);
        match sharer_of(self.local, self.inodes()) {
            Ok(None) => {}
            Ok(Some(holder)) => return Err(BindError::Shared { addr, holder }),
            Err(source) => return Err(BindError::Look { addr, source }),
        }
        // A socket that a worker shut down has left the group; it must be back before others come behind it.
        self.attach().map_err(|source| BindError::Program { addr, source })?;
        while self.lanes.len() < lanes {
            let socket = new_socket(self.local)?;
            option(self.local, "SO_REUSEPORT", socket.set_reuse_port(true))?;
            socket.bind(&self.local.into()).map_err(|source| refused(self.local, source))?;
            self.add(socket)?;
        }
        Ok(())
    }

    fn add(&mut self, socket: Socket) -> Result<(), BindError> {
        let addr = || ListenAddr::Tcp(self.local);
        let inode = inode_of(socket.as_fd()).map_err(|source| BindError::Listen { addr: addr(), source })?;
        socket.listen(BACKLOG).map_err(|source| match source.raw_os_error() {
            Some(libc::EADDRINUSE) => in_use(addr()),
            _ => BindError::Listen { addr: addr(), source },
        })?;
        self.order.push(self.lanes.len());
        self.lanes.push(Lane { socket, inode });
        Ok(())
    }

    /// The address as it was asked for, which is what a changed configuration is compared with.
    pub(super) fn requested(&self) -> SocketAddr {
        self.requested
    }

    /// Changes by what connections pick their lane; the weights stay.
    pub(super) fn set_pick(&mut self, pick: Pick) -> io::Result<()> {
        let Some(picked) = self.shares.picked_by(pick) else { return Ok(()) };
        let before = std::mem::replace(&mut self.shares, picked);
        self.attach().inspect_err(|_| self.shares = before)
    }

    /// The lane of each index that the kernel knows. Nobody can ask it for that: whoever adopts the group has to be told.
    pub(super) fn order(&self) -> impl Iterator<Item = u32> {
        self.order.iter().map(|&lane| u32::try_from(lane).expect("the kernel has at most 65535 sockets in a group"))
    }

    /// The address with the port that the kernel gave.
    pub(super) fn local(&self) -> SocketAddr {
        self.local
    }

    pub(super) fn lane(&self, lane: usize) -> Option<BorrowedFd<'_>> {
        self.lanes.get(lane).map(|lane| lane.socket.as_fd())
    }

    pub(super) fn inodes(&self) -> impl Iterator<Item = u64> {
        self.lanes.iter().map(|lane| lane.inode)
    }

    /// Gives the lanes other weights, which [`shares::check`](super::shares::check) has seen.
    pub(super) fn set_weights(&mut self, weights: &[u32]) -> io::Result<()> {
        let reweighed = self.shares.reweighed(weights);
        let before = std::mem::replace(&mut self.shares, reweighed);
        self.attach().inspect_err(|_| self.shares = before)
    }

    /// `listen()` again with our backlog.
    pub(super) fn reassert_listen(&mut self, lane: usize) -> io::Result<()> {
        let Some(found) = self.lanes.get(lane) else { return Err(io::ErrorKind::NotFound.into()) };
        if found.socket.is_listener()? {
            return found.socket.listen(BACKLOG);
        }
        self.attach()
    }

    /// Connections on this lane that nobody accepted yet.
    pub(super) fn queued(&self, lane: usize) -> io::Result<u32> {
        let Some(found) = self.lanes.get(lane) else { return Err(io::ErrorKind::NotFound.into()) };
        let info = sys::tcp_info_bytes(found.socket.as_fd())?;
        u32_at(&info, TCPI_UNACKED).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// Sends one connection to one lane, whatever its weight.
    pub(super) fn start_probe(&mut self, id: ProbeId, lane: u32) -> Result<ProbeConnection, StartProbeError> {
        if self.probes.len() >= PROBES_MAX {
            return Err(StartProbeError::TooMany { addr: ListenAddr::Tcp(self.local), running: self.probes.len() });
        }
        let source = Source::to_any(&steer::reachable(self.local))
            .map_err(|source| StartProbeError::Source { addr: ListenAddr::Tcp(self.local), source })?;
        self.start_probe_from(source, id, lane)
    }

    /// As [`start_probe`](Self::start_probe), from this source.
    pub(super) fn start_probe_from(
        &mut self,
        from: Source,
        id: ProbeId,
        lane: u32,
    ) -> Result<ProbeConnection, StartProbeError> {
        let Source { socket, local, peer } = from;
        let port = socket
            .try_clone()
            .map_err(|source| StartProbeError::Source { addr: ListenAddr::Tcp(self.local), source })?;
        self.probes.push(Probe { id, source: local, lane: lane as usize, _port: port });
        if let Err(source) = self.attach() {
            self.probes.pop();
            return Err(StartProbeError::Program { addr: ListenAddr::Tcp(self.local), lane, source });
        }
        match socket.connect(&peer.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
            Err(source) => {
                self.finish_probe(id);
                return Err(StartProbeError::Connect { addr: ListenAddr::Tcp(self.local), lane, source });
            }
        }
        Ok(ProbeConnection { id, ends: ProbeEnds::Tcp { local, peer }, app_sockets: Vec::new(), socket })
    }

    /// Takes a probe's clause out of the program and then lets go of its port; nothing when it is not one of ours.
    pub(super) fn finish_probe(&mut self, id: ProbeId) {
        let Some(at) = self.probes.iter().position(|probe| probe.id == id) else { return };
        let _ended = self.probes.swap_remove(at);
        if let Err(error) = self.attach() {
            tracing::warn!(addr = %self.local, %error, "could not take a probe's clause out of the program");
        }
    }

    /// Gives the kernel the program for the present weights and probes.
    fn attach(&mut self) -> io::Result<()> {
        self.revive()?;
        let index_of = |lane: usize| {
            let index = self.order.iter().position(|other| *other == lane).expect("every lane listens after revive");
            u32::try_from(index).expect("the kernel has at most 65535 sockets in a group")
        };
        let clauses: Vec<Clause> =
            self.probes.iter().map(|probe| Clause { source: probe.source, index: index_of(probe.lane) }).collect();
        let program = self.shares.program(&clauses, index_of);
        sys::attach_reuseport_cbpf(self.lanes[0].socket.as_fd(), &program)
    }

    /// Makes sockets listen that a worker shut down.
    fn revive(&mut self) -> io::Result<()> {
        for (number, lane) in self.lanes.iter().enumerate() {
            if lane.socket.is_listener()? {
                continue;
            }
            if let Some(index) = self.order.iter().position(|other| *other == number) {
                self.order.swap_remove(index);
            }
            tracing::warn!(addr = %self.local, lane = number, "a worker shut its listening socket down; it listens again");
            lane.socket.listen(BACKLOG)?;
            self.order.push(number);
        }
        Ok(())
    }
}

/// One more socket of the group at `addr`, listening.
fn joined(addr: SocketAddr) -> Result<Socket, BindError> {
    let socket = new_socket(addr)?;
    option(addr, "SO_REUSEPORT", socket.set_reuse_port(true))?;
    socket.bind(&addr.into()).map_err(|source| refused(addr, source))?;
    socket.listen(BACKLOG).map_err(|source| BindError::Listen { addr: ListenAddr::Tcp(addr), source })?;
    Ok(socket)
}

fn new_socket(addr: SocketAddr) -> Result<Socket, BindError> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(addr), kind, Some(Protocol::TCP))
        .map_err(|source| BindError::Socket { addr: ListenAddr::Tcp(addr), source })?;
    if addr.is_ipv6() {
        option(addr, "IPV6_V6ONLY", socket.set_only_v6(!addr.ip().is_unspecified()))?;
    }
    option(addr, "SO_REUSEADDR", socket.set_reuse_address(true))?;
    // Accepted sockets inherit it; some runtimes forget it on sockets that they are given.
    option(addr, "TCP_NODELAY", socket.set_tcp_nodelay(true))?;
    Ok(socket)
}

fn option(addr: SocketAddr, option: &'static str, done: io::Result<()>) -> Result<(), BindError> {
    done.map_err(|source| BindError::Option { addr: ListenAddr::Tcp(addr), option, source })
}

/// A socket bound to `addr`, which nobody else listens on, and where that is.
fn bind_alone(addr: SocketAddr) -> Result<(Socket, SocketAddr), BindError> {
    let bind = |addr: SocketAddr| {
        let socket = new_socket(addr)?;
        socket.bind(&addr.into()).map_err(|source| refused(addr, source))?;
        let shown = ListenAddr::Tcp(addr);
        let bound = socket.local_addr().map_err(|source| BindError::Bind { addr: shown, source })?;
        Ok((socket, bound.as_socket().expect("a socket made for TCP is bound to an IP address")))
    };
    let (chooser, chosen) = bind(addr)?;
    if addr.port() != 0 {
        return Ok((chooser, chosen));
    }
    // A socket loses a port that the kernel chose when it stops listening, and keeps one that it asked for. The
    // chooser holds the port until the second one has it.
    bind(chosen)
}

fn refused(addr: SocketAddr, source: io::Error) -> BindError {
    let addr = ListenAddr::Tcp(addr);
    match source.raw_os_error() {
        Some(libc::EADDRINUSE) => in_use(addr),
        Some(libc::EACCES | libc::EPERM) => BindError::Denied { addr, source },
        Some(libc::EADDRNOTAVAIL) => BindError::NotLocal { addr, source },
        _ => BindError::Bind { addr, source },
    }
}

pub(super) fn in_use(addr: ListenAddr) -> BindError {
    let holder = holder_of(&addr).unwrap_or(Holder::Unknown);
    BindError::InUse { addr, holder }
}

/// The number that `/proc` and the kernel's tables know a socket by.
pub(super) fn inode_of(fd: BorrowedFd<'_>) -> io::Result<u64> {
    Ok(nix::sys::stat::fstat(fd)?.st_ino)
}
