//! A probe that reaches one lane and no other.
//!
//! Owns the prober's end: a socket bound before it connects, so that the group's program can name its address and
//! port. `tcp.rs` and `unix.rs` own the other end. Nobody else can have the probe's address and port while it is
//! bound, so no peer gets to a lane without weight by it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpStream, UnixStream};

/// One running probe of one [`Listeners`](super::Listeners); never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProbeId(pub(super) u64);

/// A connection under way to one lane.
///
/// It counts as connected as soon as the kernel has queued it; whether a worker accepted it is another question, which
/// [`SockDiag::acceptance`](super::SockDiag::acceptance) answers for [`ends`](Self::ends).
#[derive(Debug)]
pub struct ProbeConnection {
    /// To be given to [`Listeners::finish_probe`](super::Listeners::finish_probe) when the probe is over.
    pub id: ProbeId,
    /// Both ends, to find the accepted socket by.
    pub ends: ProbeEnds,
    /// The inodes of all listening sockets of the app: what else its workers listen on is not the app's.
    pub app_sockets: Vec<u64>,
    pub(super) socket: Socket,
}

/// Both ends of a probe, as the prober sees them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeEnds {
    /// A TCP connection.
    Tcp {
        /// The prober's own address and port.
        local: SocketAddr,
        /// The app's.
        peer: SocketAddr,
    },
    /// A Unix connection.
    Unix {
        /// The inode of the prober's socket.
        inode: u64,
    },
}

/// The prober's end of an established probe.
#[derive(Debug)]
pub enum ProbeStream {
    /// To a TCP lane.
    Tcp(TcpStream),
    /// To a Unix lane.
    Unix(UnixStream),
}

impl ProbeConnection {
    /// Waits until the kernel has made the connection. The caller limits the time. The socket is closed when the
    /// returned stream is dropped.
    ///
    /// # Errors
    /// That of the connection; or that the runtime takes no more sockets.
    pub async fn connected(self) -> io::Result<ProbeStream> {
        match self.ends {
            ProbeEnds::Tcp { .. } => {
                let stream = TcpStream::from_std(self.socket.into())?;
                stream.writable().await?;
                match stream.take_error()? {
                    Some(error) => Err(error),
                    None => Ok(ProbeStream::Tcp(stream)),
                }
            }
            ProbeEnds::Unix { .. } => Ok(ProbeStream::Unix(UnixStream::from_std(self.socket.into())?)),
        }
    }
}

/// Where on this machine a listener at `local` is reached from this machine, the best first: `[::]` takes IPv4 too,
/// which helps where the loopback interface has no IPv6.
pub(super) fn reachable(local: SocketAddr) -> Vec<SocketAddr> {
    let at = |ip: IpAddr| SocketAddr::new(ip, local.port());
    match local.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => vec![at(Ipv4Addr::LOCALHOST.into())],
        IpAddr::V6(ip) if ip.is_unspecified() => vec![at(Ipv6Addr::LOCALHOST.into()), at(Ipv4Addr::LOCALHOST.into())],
        IpAddr::V4(_) | IpAddr::V6(_) => vec![local],
    }
}

/// A socket that is bound and not connected yet, and both ends of what it will be.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) socket: Socket,
    pub(super) local: SocketAddr,
    pub(super) peer: SocketAddr,
}

impl Source {
    /// One to probe the first of `peers` from that this machine can connect to.
    pub(super) fn to_any(peers: &[SocketAddr]) -> io::Result<Self> {
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for peer in peers {
            match Self::to(*peer) {
                Ok(source) => return Ok(source),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// One to probe `peer` from: bound to the same address, and a port that the kernel chooses.
    pub(super) fn to(peer: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(peer), Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
        socket.set_tcp_nodelay(true)?;
        let mut local = peer;
        local.set_port(0);
        socket.bind(&local.into())?;
        let bound = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { socket, local: bound, peer })
    }
}
