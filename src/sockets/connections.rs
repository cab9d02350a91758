//! What processes do with sockets: the connections they serve, what they listen on, whether they took a probe.
//!
//! Owns nothing; joins the kernel's socket tables with `/proc/PID/fd`. Both are read one after the other, so a
//! connection that is accepted or closed in between may be missing. Who decides by "none left" looks at the accept
//! queue too, and looks twice.
//!
//! A look reads one table for each address family in use and then the descriptors of the processes, and stops at the
//! table when it is empty.

use std::collections::{BTreeSet, HashSet};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use agentd_core::id::Pid;

use super::addr::ListenAddr;
use super::diag::{Family, Flow, InetSocket, SockDiag, TcpState, UnixKind, UnixSocket};
use super::procfs;
use super::steer::ProbeEnds;

/// One accepted connection that a process holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Its number in `/proc/PID/fd`, unique among open sockets.
    pub inode: u64,
    /// The client's address; none for a Unix connection.
    pub remote: Option<SocketAddr>,
    /// Which ends are still open.
    pub state: ConnectionState,
    /// Bytes from the client that the worker has not read.
    pub unread: u32,
    /// Bytes of the worker that are not sent or not acknowledged; for Unix, not read by the client.
    pub unsent: u32,
    /// What went over it; none for a Unix connection, of which the kernel keeps no account.
    pub traffic: Option<Traffic>,
}

/// Which ends of a connection are still open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionState {
    /// Both.
    Open,
    /// The client sends no more; it may still wait for the answer.
    ClientDone,
    /// The worker sends no more.
    WorkerDone,
}

/// What went over a TCP connection so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traffic {
    /// Time since the client's last data, or since the connection was made when there was none. Milliseconds matter,
    /// less does not exist.
    pub since_received: Duration,
    /// Time since data was last sent to the client, or since the connection was made when there was none.
    pub since_sent: Duration,
    /// Time since the client last acknowledged anything, with or without data of its own.
    pub since_acknowledged: Duration,
    /// Payload bytes from the client.
    pub bytes_received: u64,
    /// Payload bytes to the client that the kernel has not sent even once.
    pub bytes_not_sent: u32,
    /// Payload bytes to the client, repeated ones included; 0 before Linux 4.19.
    pub bytes_sent: u64,
}

/// What became of a connection that a prober made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acceptance {
    /// It waits in the accept queue.
    Queued,
    /// One of the processes asked about holds it.
    Held,
    /// Somebody accepted it who is not among them, or who cannot be looked into.
    HeldElsewhere,
    /// Nobody holds it any more: accepted and closed, or reset with its listener.
    Gone,
}

impl SockDiag {
    /// The connections that these processes hold and that came in at one of these addresses, which
    /// [`Listeners::accepting_addrs`](super::Listeners::accepting_addrs) gives. Connections in an accept queue are
    /// nobody's yet and not among them.
    ///
    /// # Errors
    /// When the kernel does not answer. Processes that ended hold nothing.
    pub fn connections(&mut self, pids: &[Pid], addrs: &[ListenAddr]) -> io::Result<Vec<Connection>> {
        let mut found = Vec::new();
        let tcp: Vec<SocketAddr> = addrs.iter().filter_map(ListenAddr::socket_addr).collect();
        let served = [
            TcpState::ESTABLISHED,
            TcpState::CLOSE_WAIT,
            TcpState::FIN_WAIT_1,
            TcpState::FIN_WAIT_2,
            TcpState::CLOSING,
            TcpState::LAST_ACK,
        ];
        for family in [Family::V4, Family::V6] {
            let ports: Vec<u16> =
                tcp.iter().filter(|addr| addr.is_ipv4() == (family == Family::V4)).map(SocketAddr::port).collect();
            if ports.is_empty() {
                continue;
            }
            let mut sockets = self.inet(family, TcpState::mask(&served), &ports, true)?;
            sockets.retain(|socket| tcp.iter().any(|addr| takes(*addr, socket.local)));
            found.extend(sockets.iter().map(tcp_connection));
        }
        let names: HashSet<&str> = addrs.iter().filter_map(|addr| addr.path().map(camino::Utf8Path::as_str)).collect();
        if !names.is_empty() {
            let sockets = self.unix(TcpState::mask(&[TcpState::ESTABLISHED]))?;
            let ours = |socket: &&UnixSocket| socket.name.as_deref().is_some_and(|name| names.contains(name));
            found.extend(sockets.iter().filter(ours).filter(|s| s.kind == UnixKind::Stream).map(unix_connection));
        }
        found.retain(|connection| connection.inode != 0);
        if !found.is_empty() {
            let held = procfs::sockets_of(pids);
            found.retain(|connection| held.contains(&connection.inode));
        }
        Ok(found)
    }

    /// Clients whose connections to one of these addresses are being made: begun, and in no accept queue yet.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn handshakes(&mut self, addrs: &[ListenAddr]) -> io::Result<BTreeSet<SocketAddr>> {
        let mut found = BTreeSet::new();
        let tcp: Vec<SocketAddr> = addrs.iter().filter_map(ListenAddr::socket_addr).collect();
        for family in [Family::V4, Family::V6] {
            let of_it = |addr: &&SocketAddr| addr.is_ipv4() == (family == Family::V4);
            let ports: Vec<u16> = tcp.iter().filter(of_it).map(SocketAddr::port).collect();
            if ports.is_empty() {
                continue;
            }
            let mut sockets = self.inet(family, TcpState::mask(&[TcpState::SYN_RECV]), &ports, false)?;
            sockets.retain(|socket| tcp.iter().any(|addr| takes(*addr, socket.local)));
            found.extend(sockets.into_iter().map(|socket| socket.remote));
        }
        Ok(found)
    }

    /// What these processes listen on, except for the sockets in `without`: a worker that was given sockets and
    /// listens elsewhere has bound by itself.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn listening(&mut self, pids: &[Pid], without: &[u64]) -> io::Result<Vec<ListenAddr>> {
        let mut held = procfs::sockets_of(pids);
        held.retain(|inode| !without.contains(inode));
        if held.is_empty() {
            return Ok(Vec::new());
        }
        let mask = TcpState::mask(&[TcpState::LISTEN]);
        let mut addrs = Vec::new();
        for family in [Family::V4, Family::V6] {
            let sockets = self.inet(family, mask, &[], false)?;
            addrs.extend(sockets.iter().filter(|s| held.contains(&s.inode)).map(|s| ListenAddr::Tcp(s.local)));
        }
        let unix = self.unix(mask)?;
        let unix = unix.into_iter().filter(|socket| held.contains(&socket.inode));
        addrs.extend(unix.filter_map(|socket| Some(ListenAddr::Unix(socket.name?.into()))));
        addrs.sort();
        addrs.dedup();
        Ok(addrs)
    }

    /// What became of a probe's connection; `pids` are asked for only once somebody has accepted it.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn acceptance(&mut self, probe: &ProbeEnds, pids: impl FnOnce() -> Vec<Pid>) -> io::Result<Acceptance> {
        let inode = match probe {
            ProbeEnds::Tcp { local, peer } => match self.inet_exact(*peer, *local)? {
                // A listener is what the kernel finds when the connection is gone.
                None => return Ok(Acceptance::Gone),
                Some(InetSocket { state: TcpState::LISTEN | TcpState::CLOSE, .. }) => return Ok(Acceptance::Gone),
                Some(InetSocket {
                    inode: 0,
                    state: TcpState::FIN_WAIT_1 | TcpState::FIN_WAIT_2 | TcpState::CLOSING,
                    ..
                }) => return Ok(Acceptance::Gone),
                Some(socket) => socket.inode,
            },
            ProbeEnds::Unix { inode } => match self.unix_exact(*inode)? {
                Some(UnixSocket { peer: Some(peer), shut, .. }) if peer != 0 || !shut => peer,
                Some(_) | None => return Ok(Acceptance::Gone),
            },
        };
        Ok(match inode {
            0 => Acceptance::Queued,
            inode if procfs::sockets_of(&pids()).contains(&inode) => Acceptance::Held,
            _ => Acceptance::HeldElsewhere,
        })
    }
}

/// Whether a connection with this own address came in at `addr`.
fn takes(addr: SocketAddr, local: SocketAddr) -> bool {
    addr.port() == local.port() && (addr.ip().is_unspecified() || addr.ip() == local.ip())
}

fn tcp_connection(socket: &InetSocket) -> Connection {
    let state = match socket.state {
        TcpState::ESTABLISHED => ConnectionState::Open,
        TcpState::CLOSE_WAIT => ConnectionState::ClientDone,
        // The request names no state but these and those in which the worker has sent its end.
        _ => ConnectionState::WorkerDone,
    };
    Connection {
        inode: socket.inode,
        remote: Some(socket.remote),
        state,
        unread: socket.receive_queue,
        unsent: socket.send_queue,
        traffic: socket.flow.map(traffic),
    }
}

fn traffic(flow: Flow) -> Traffic {
    Traffic {
        since_received: Duration::from_millis(flow.last_data_received_ms.into()),
        since_sent: Duration::from_millis(flow.last_data_sent_ms.into()),
        since_acknowledged: Duration::from_millis(flow.last_ack_received_ms.into()),
        bytes_received: flow.bytes_received,
        bytes_not_sent: flow.bytes_not_sent,
        bytes_sent: flow.bytes_sent,
    }
}

fn unix_connection(socket: &UnixSocket) -> Connection {
    Connection {
        inode: socket.inode,
        remote: None,
        state: ConnectionState::Open,
        unread: socket.receive_queue,
        unsent: socket.send_queue,
        traffic: None,
    }
}
