//! Accepting clients of `control.sock`, and letting them go at the end.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use agentd_protocol::control::{ErrorKind, ErrorObject, HelloParams, HelloReply, PROTOCOL, Reply, Role, ServerMessage};
use interprocess::local_socket::tokio::Stream;
use interprocess::os::unix::uds_local_socket::tokio::Stream as UnixStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::access::{Access, Peer};
use super::connection::{Connection, Patience};
use super::line::refuse;
use super::reply::ControlCall;
use super::socket::BoundSocket;

/// What one client, and all of them, may cost.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Clients at a time. One more is told so and closed.
    pub(super) clients: usize,
    /// A line must be whole this long after its first byte, and the first line this long after connecting.
    pub(super) line_within: Duration,
    /// A client that awaits nothing and sends nothing for this long is let go.
    pub(super) idle: Duration,
    /// A client that takes no byte for this long is dropped.
    pub(super) write_stall: Duration,
    /// And one that reads a log back: a person turns its pages.
    pub(super) reading_stall: Duration,
    /// And once the doors are closed, where it has no part of the next line yet. It has 200 KiB to read in the kernel by then.
    pub(super) parting_stall: Duration,
    /// How long a client that broke a bound has to read why.
    pub(super) last_words: Duration,
    /// How long clients have, once the daemon ends, to read what they are owed.
    pub(super) last_answers: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            clients: 256,
            line_within: Duration::from_secs(10),
            idle: Duration::from_secs(300),
            write_stall: Duration::from_secs(60),
            reading_stall: Duration::from_hours(1),
            parting_stall: Duration::from_millis(50),
            last_words: Duration::from_secs(1),
            last_answers: Duration::from_secs(2),
        }
    }
}

/// What the daemon says of itself in `hello`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Name of the instance.
    pub instance: String,
    /// Version of the daemon.
    pub version: String,
    /// Process of the daemon.
    pub pid: u32,
}

impl Identity {
    /// Answers `hello`: with the newest protocol that both sides speak.
    pub(super) fn greet(&self, hello: &HelloParams, role: Role) -> Result<Reply, ErrorObject> {
        if hello.protocol == 0 {
            let why = format!("there is no control protocol 0; the daemon speaks 1 to {PROTOCOL}");
            return Err(ErrorObject::new(ErrorKind::UnsupportedProtocol, why));
        }
        Ok(Reply::Hello(HelloReply {
            protocol: hello.protocol.min(PROTOCOL),
            version: self.version.clone(),
            instance: self.instance.clone(),
            pid: self.pid,
            role,
        }))
    }
}

/// Serves clients, and those that the program before this one had, until `shutdown` ends; then gives those who await an
/// answer a moment to read it. Or until the socket's doors close and every client was answered: those that are left, at
/// rest between two lines, are for the next program.
///
/// `calls` is how requests reach the dispatcher. While it is full, clients wait; the dispatcher never does. Dropping
/// the future drops every client at once.
pub async fn serve(
    socket: BoundSocket,
    handed: Vec<OwnedFd>,
    access: Access,
    identity: Identity,
    calls: mpsc::Sender<ControlCall>,
    shutdown: impl Future<Output = ()>,
) -> Vec<OwnedFd> {
    serve_within(Limits::default(), socket, handed, access, identity, calls, shutdown).await
}

/// The same, within other limits.
pub(super) async fn serve_within(
    limits: Limits,
    socket: BoundSocket,
    handed: Vec<OwnedFd>,
    access: Access,
    identity: Identity,
    calls: mpsc::Sender<ControlCall>,
    shutdown: impl Future<Output = ()>,
) -> Vec<OwnedFd> {
    let identity = Arc::new(identity);
    let (open, closing) = watch::channel(());
    let mut doors = socket.watch_doors();
    let mut clients = JoinSet::new();
    let serve = |clients: &mut JoinSet<Option<OwnedFd>>, stream: Stream, patience: Patience| {
        let full = clients.len() >= limits.clients;
        let Some((stream, peer, role)) = admit(stream, &access, full) else { return };
        let (identity, closing, doors) = (Arc::clone(&identity), closing.clone(), socket.watch_doors());
        let connection = Connection { limits, stream, peer, role, identity, patience, closing, doors };
        clients.spawn(connection.run(calls.clone()));
    };
    for client in handed {
        match UnixStream::try_from(client) {
            Ok(stream) => serve(&mut clients, stream.into(), Patience::between_lines(&limits)),
            Err(error) => tracing::warn!(%error, "a client of the program before this one was dropped"),
        }
    }
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        tokio::select! {
            biased;
            () = &mut shutdown => break,
            () = doors.shut() => return at_rest(&mut clients).await,
            Some(ended) = clients.join_next(), if !clients.is_empty() => drop(left(ended)),
            stream = socket.accept() => serve(&mut clients, stream, Patience::with_stranger(&limits)),
        }
    }
    drop((socket, open, calls));
    let all_gone = async { while clients.join_next().await.is_some() {} };
    if timeout(limits.last_answers, all_gone).await.is_err() {
        tracing::debug!("clients that did not read their answer were dropped at the end");
    }
    Vec::new()
}

/// The connections that are left when everybody was answered.
async fn at_rest(clients: &mut JoinSet<Option<OwnedFd>>) -> Vec<OwnedFd> {
    let mut all = Vec::new();
    while let Some(ended) = clients.join_next().await {
        all.extend(left(ended));
    }
    all
}

fn admit(stream: Stream, access: &Access, full: bool) -> Option<(Stream, Peer, Role)> {
    let peer = match Peer::of(&stream) {
        Ok(peer) => peer,
        Err(error) => {
            tracing::warn!(%error, "refused a client whose credentials the kernel does not tell");
            turn_away(stream, ErrorKind::Forbidden, "who you are could not be found out");
            return None;
        }
    };
    let Some(role) = access.role(&peer) else {
        tracing::warn!(uid = peer.uid, pid = peer.pid, "refused a client that may not use the control socket");
        let why = format!("user {} has no role: root and the daemon's user give one in daemon.toml", peer.uid);
        turn_away(stream, ErrorKind::Forbidden, &why);
        return None;
    };
    if full {
        turn_away(stream, ErrorKind::Overloaded, "too many clients are connected");
        return None;
    }
    Some((stream, peer, role))
}

fn turn_away(stream: Stream, kind: ErrorKind, why: &str) {
    let result = Err(Box::new(ErrorObject::new(kind, why)));
    refuse(stream, &ServerMessage::Answer { id: None, result }.encode());
}

fn left(ended: Result<Option<OwnedFd>, tokio::task::JoinError>) -> Option<OwnedFd> {
    ended.unwrap_or_else(|error| {
        tracing::error!(%error, "a control connection's task failed");
        None
    })
}
