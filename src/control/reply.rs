//! A call on its way to the dispatcher, and the way back.
//!
//! Owns: the promise that every call gets exactly one answer. [`ReplySink::finish`] takes the sink; a sink that is
//! dropped without it answers that the daemon failed. Nothing here waits, except [`ReplySink::notify_when_room`],
//! which is for tasks beside the dispatcher.

use agentd_protocol::control::{ErrorKind, ErrorObject, Notice, Reply, Request, RequestId, ServerMessage};
use thiserror::Error;

use super::access::Peer;
use super::outbox::Outbox;

/// One request, for the dispatcher.
#[derive(Debug)]
pub struct ControlCall {
    /// What is asked for. Its sender's role allows it, and it is not `hello`.
    pub request: Request,
    /// Who asks.
    pub peer: Peer,
    /// Where the answer goes.
    pub reply: ReplySink,
}

/// The client reads no more. What it asked for goes on; nobody needs to be told.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("tell a client that is gone")]
pub struct ClientGone;

/// The way back to whoever made a call.
#[derive(Debug)]
pub struct ReplySink {
    /// Taken by the answer.
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    id: RequestId,
    outbox: Outbox,
}

impl ReplySink {
    pub(super) const fn new(id: RequestId, outbox: Outbox) -> Self {
        Self { open: Some(Open { id, outbox }) }
    }

    /// The way back to nobody: for what goes on after its client was answered.
    #[must_use]
    pub const fn nobody() -> Self {
        Self { open: None }
    }

    /// Tells something on the way to the answer. Never waits: a client that does not read is given up.
    ///
    /// # Errors
    /// When the client is gone or was given up. There is nothing to do about it, but notices need not be made.
    pub fn notify(&self, notice: Notice) -> Result<(), ClientGone> {
        let Some(open) = &self.open else { return Err(ClientGone) };
        let message = ServerMessage::Notice { call: open.id.clone(), notice };
        open.outbox.put(message.encode()).map_err(|_| ClientGone)
    }

    /// The same, waiting until the client has read enough. For tasks beside the dispatcher that read a log back.
    ///
    /// # Errors
    /// When the client is gone or was given up.
    pub async fn notify_when_room(&self, notice: Notice) -> Result<(), ClientGone> {
        let Some(open) = &self.open else { return Err(ClientGone) };
        let message = ServerMessage::Notice { call: open.id.clone(), notice };
        open.outbox.put_when_room(message.encode()).await.map_err(|_| ClientGone)
    }

    /// Whether the client is known to be gone.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.open.as_ref().is_none_or(|open| open.outbox.is_closed())
    }

    /// Answers. Whether the client is still there to read it makes no difference to anybody.
    pub fn finish(mut self, answer: Result<Reply, ErrorObject>) {
        self.answer(answer);
    }

    /// Ends the connection, and that is the answer.
    pub fn hang_up(mut self) {
        if let Some(open) = self.open.take() {
            open.outbox.give_up();
        }
    }

    /// Tells that from now on the answer comes when the client wants it, as when it follows a log: who waits for
    /// requests to end does not wait for this one.
    pub fn has_no_end(&self) {
        if let Some(open) = &self.open {
            open.outbox.is_endless_now();
        }
    }

    fn answer(&mut self, answer: Result<Reply, ErrorObject>) {
        let Some(Open { id, outbox }) = self.open.take() else { return };
        let line = match answer {
            Ok(reply) => ServerMessage::encode_reply(&id, &reply),
            Err(error) => ServerMessage::Answer { id: Some(id), result: Err(Box::new(error)) }.encode(),
        };
        if outbox.put(line).is_err() {
            tracing::debug!("an answer's client is gone");
        }
    }
}

impl Drop for ReplySink {
    fn drop(&mut self) {
        if self.open.is_some() {
            self.answer(Err(ErrorObject::new(ErrorKind::Internal, "the daemon dropped the request unanswered")));
        }
    }
}
