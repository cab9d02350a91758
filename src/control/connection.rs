//! One client of `control.sock`.
//!
//! Owns: reading its lines within their bounds, answering what needs no decision (`hello`, lines that are no call,
//! what its role forbids), handing the rest on, and writing what comes back.
//!
//! ```text
//!            ┌─ line ──► call ──► dispatcher ─┐
//! client ────┤                                ├─ ReplySink ──► outbox ──► client
//!            └─ line ──► error ───────────────┘
//! ```
//! Reading and writing go on beside each other. When the client has sent its last line, what it is owed is still
//! written, until the last answer or until it hangs up. When it broke a bound, it has a moment to read why.
//!
//! When another program is to take the daemon's place the doors close: no further line is read, what was asked is
//! answered, and a connection that awaits nothing more is handed to that program as it is. Its client notices nothing.
//! Only who follows something without an end is let go, and who has paused in a log.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use agentd_protocol::control::{Call, ErrorKind, ErrorObject, Request, Role, ServerMessage};
use agentd_protocol::frame::{LineDecoder, REQUEST_MAX};
use interprocess::local_socket::tokio::Stream;
use tokio::io::AsyncReadExt;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::access::Peer;
use super::line::{hung_up, write_noting};
use super::outbox::{Outbox, Outgoing, Shared, outbox};
use super::reply::{ControlCall, ReplySink};
use super::server::{Identity, Limits};
use super::socket::Doors;

/// Calls of one connection that may await their answer at a time.
const PENDING_MAX: usize = 64;

/// Bytes read at a time.
const CHUNK: usize = 16 * 1024;

/// Why reading ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The client sent its last line, or the daemon is ending.
    Finished,
    /// It broke a bound, and was told.
    Fault,
    /// The connection failed.
    Lost,
    /// The doors are closed, and every line that was read is answered.
    AtRest,
    /// The doors are closed, and what it awaits has no end, or it has paused in a log.
    LetGo,
}

/// How long the next byte may take.
#[derive(Clone, Copy, Debug)]
pub(super) enum Patience {
    /// Within a line, or before the first.
    Line(Instant),
    /// Between lines.
    Idle(Instant),
}

impl Patience {
    /// With a client that has just connected.
    pub(super) fn with_stranger(limits: &Limits) -> Self {
        Self::Line(Instant::now() + limits.line_within)
    }

    /// With one that was served before, by the program before this one.
    pub(super) fn between_lines(limits: &Limits) -> Self {
        Self::Idle(Instant::now() + limits.idle)
    }

    /// For the next byte, after some that ended `lines` and left `partial` bytes of one more.
    fn after(self, lines: usize, partial: usize, limits: &Limits) -> Self {
        match self {
            Self::Line(until) if lines == 0 => Self::Line(until),
            Self::Line(_) | Self::Idle(_) if partial > 0 => Self::Line(Instant::now() + limits.line_within),
            Self::Line(_) | Self::Idle(_) => Self::Idle(Instant::now() + limits.idle),
        }
    }
}

/// One client.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) limits: Limits,
    pub(super) stream: Stream,
    pub(super) peer: Peer,
    pub(super) role: Role,
    pub(super) identity: Arc<Identity>,
    /// For its first byte.
    pub(super) patience: Patience,
    /// Its sender goes when the daemon ends.
    pub(super) closing: watch::Receiver<()>,
    /// Whether another program is to take the daemon's place.
    pub(super) doors: Doors,
}

impl Connection {
    /// Serves the client to its end. `calls` goes with its last line, so that the dispatcher can tell when no call
    /// can come any more. Returns the connection where it is to be served on by another program.
    pub(super) async fn run(self, calls: mpsc::Sender<ControlCall>) -> Option<OwnedFd> {
        if self.serve(calls).await != End::AtRest {
            return None;
        }
        let Stream::UdSocket(stream) = &self.stream;
        let kept = stream.as_fd().try_clone_to_owned();
        kept.inspect_err(|_| self.note("cannot be kept")).ok()
    }

    async fn serve(&self, calls: mpsc::Sender<ControlCall>) -> End {
        let (outbox, outgoing) = outbox();
        let shared = outgoing.shared();
        let mut writing = Box::pin(write_lines(&self.stream, outgoing, self.limits));
        let end = tokio::select! {
            biased;
            () = shared.given_up() => {
                self.note("is given up");
                return End::Lost;
            }
            () = &mut writing => {
                self.note("cannot be written to");
                return End::Lost;
            }
            end = Box::pin(self.read_calls(outbox, calls, &shared)) => end,
        };
        let rest = async {
            tokio::select! {
                () = shared.given_up() => self.note("is given up"),
                () = &mut writing => {}
                () = hung_up(&self.stream) => {}
            }
        };
        match end {
            End::Finished => rest.await,
            End::Fault => {
                if timeout(self.limits.last_words, rest).await.is_err() {
                    self.note("broke a bound");
                }
            }
            End::Lost => self.note("cannot be read from"),
            End::AtRest | End::LetGo => {}
        }
        end
    }

    fn note(&self, why: &'static str) {
        tracing::debug!(uid = self.peer.uid, pid = self.peer.pid, why, "control client dropped");
    }

    /// Reads to the last line. The outbox goes with it, so that writing ends with the last answer.
    async fn read_calls(&self, outbox: Outbox, calls: mpsc::Sender<ControlCall>, shared: &Shared) -> End {
        let mut decoder = LineDecoder::new(REQUEST_MAX);
        let mut chunk = vec![0; CHUNK];
        let mut patience = self.patience;
        let (mut closing, mut doors) = (self.closing.clone(), self.doors.clone());
        let mut input = &self.stream;
        loop {
            let (Patience::Line(until) | Patience::Idle(until)) = patience;
            let read = tokio::select! {
                biased;
                _ = closing.changed() => return End::Finished,
                // A line that has begun is read to its end.
                () = doors.shut(), if decoder.partial() == 0 => return self.come_to_rest(&outbox, shared).await,
                read = timeout_at(until, input.read(&mut chunk)) => read,
            };
            let count = match (read, patience) {
                (Ok(Ok(count)), _) => count,
                (Ok(Err(_)), _) => return End::Lost,
                (Err(_), Patience::Idle(_)) if outbox.pending() > 0 => {
                    patience = Patience::Idle(Instant::now() + self.limits.idle);
                    continue;
                }
                (Err(_), Patience::Idle(_)) => return End::Finished,
                (Err(_), Patience::Line(_)) => {
                    let why = format!("no whole line came within {:?}", self.limits.line_within);
                    return fault(&outbox, why);
                }
            };
            if count == 0 {
                // A client that ends its only line by closing is understood.
                if let Some(line) = decoder.take_rest() {
                    self.take_line(&line, &outbox, &calls).await;
                }
                return End::Finished;
            }
            decoder.feed(&chunk[..count]);
            let mut lines = 0;
            loop {
                match decoder.next_line() {
                    Ok(Some(line)) => self.take_line(line, &outbox, &calls).await,
                    Ok(None) => break,
                    Err(e) => return fault(&outbox, format!("the line is longer than {} bytes", e.max)),
                }
                lines += 1;
            }
            patience = patience.after(lines, decoder.partial(), &self.limits);
        }
    }

    /// Waits until every answer is written. The daemon bounds how long, and meanwhile nobody is served: who has paused in
    /// a log would have all others wait for that long.
    async fn come_to_rest(&self, outbox: &Outbox, shared: &Shared) -> End {
        let mut closing = self.closing.clone();
        loop {
            // Made before the look, so that nothing that is written in between is missed.
            let written = shared.written();
            if shared.is_endless() {
                return End::LetGo;
            }
            if outbox.pending() == 0 && shared.is_empty() {
                return End::AtRest;
            }
            tokio::select! {
                _ = closing.changed() => return End::Finished,
                () = written => {}
                () = sleep(self.limits.parting_stall) => {
                    if shared.reads_back() && shared.is_between_lines() {
                        self.note("has paused in a log, and another program is to take the daemon's place");
                        return End::LetGo;
                    }
                }
            }
        }
    }

    async fn take_line(&self, line: &[u8], outbox: &Outbox, calls: &mpsc::Sender<ControlCall>) {
        let Call { id, request } = match Call::decode(line) {
            Ok(call) => call,
            Err(rejected) => {
                let message = ServerMessage::Answer { id: rejected.id, result: Err(Box::new(rejected.error)) };
                // Who cannot be told is being dropped already.
                let _ = outbox.put(message.encode());
                return;
            }
        };
        let pending = outbox.pending();
        let reply = ReplySink::new(id, outbox.clone());
        if pending >= PENDING_MAX {
            let why = format!("{PENDING_MAX} calls of this connection await their answer");
            return reply.finish(Err(ErrorObject::new(ErrorKind::Overloaded, why)));
        }
        if let Request::Hello(hello) = request {
            return reply.finish(self.identity.greet(&hello, self.role));
        }
        if request.operates() && self.role != Role::Operate {
            let why = format!("user {} may look (role view), and {} changes things", self.peer.uid, request.method());
            let help = "ask for the role `operate` in daemon.toml, or run agentctl as the daemon's user";
            return reply.finish(Err(ErrorObject::new(ErrorKind::Forbidden, why).with_help(help)));
        }
        match calls.reserve().await {
            Ok(permit) => permit.send(ControlCall { request, peer: self.peer.clone(), reply }),
            Err(_) => reply.finish(Err(ErrorObject::new(ErrorKind::ShuttingDown, "the daemon is ending"))),
        }
    }
}

fn fault(outbox: &Outbox, why: String) -> End {
    let error = Box::new(ErrorObject::new(ErrorKind::InvalidRequest, why));
    // Who cannot be told is being dropped already.
    let _ = outbox.put(ServerMessage::Answer { id: None, result: Err(error) }.encode());
    End::Fault
}

/// Writes lines until nobody can send one any more, or the client takes none.
async fn write_lines(stream: &Stream, mut outgoing: Outgoing, limits: Limits) {
    let shared = outgoing.shared();
    while let Some(batch) = outgoing.next().await {
        let stall = if shared.reads_back() { limits.reading_stall } else { limits.write_stall };
        if write_noting(stream, batch.text.as_bytes(), stall, || shared.has_begun()).await.is_err() {
            return;
        }
        outgoing.written(&batch);
    }
}
