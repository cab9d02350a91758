//! A conversation on `control.sock`: calls out, answers and notices in.
//!
//! Owns the numbering of calls and the greeting. Does not own what is asked or how an answer is shown.
//! Closing the connection is always safe: what was asked for goes on without us.

use std::time::{Duration, Instant};

use agentd_protocol::control::{
    Call, Command, ErrorKind, ErrorObject, HelloParams, HelloReply, Notice, PROTOCOL, Request, RequestId,
    ServerMessage, ServerMessageError,
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use thiserror::Error;

use crate::home::{CONTROL_SOCKET, Home, HomeError};
use crate::line::{Arrival, Interrupt, LineError, LineStream};
use crate::render;

/// How long the daemon may take for an answer that it need not wait for anything to give.
pub(crate) const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Why a conversation failed.
#[derive(Debug, Error)]
pub(crate) enum ClientError {
    /// No conversation came about.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// It broke off.
    #[error(transparent)]
    Line(#[from] LineError),
    /// The daemon sent what no daemon sends.
    #[error("{}", chain(.0))]
    Message(#[from] ServerMessageError),
    /// An answer has another shape than its method's.
    #[error("reading the answer to {method}: {source}")]
    Answer {
        /// The method.
        method: &'static str,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The daemon ended or dropped us.
    #[error("the daemon closed the connection before it answered")]
    Closed,
    /// The daemon is there and says nothing.
    #[error("the daemon did not answer within {}s", ANSWER_WITHIN.as_secs())]
    Silent,
    /// Nobody reads our output: no reason to go on, and none to complain.
    #[error("nobody reads the output")]
    OutputClosed,
    /// The daemon would not.
    #[error("{}", .0.message)]
    Refused(Box<ErrorObject>),
}

/// A thing that the daemon said, or a reason to look up from waiting for it.
#[derive(Debug)]
pub(crate) enum Heard {
    /// The end of the call with this number.
    Answer(u64, Result<Value, Box<ErrorObject>>),
    /// Something on the way there.
    Notice(Notice),
    /// Something that only a later version understands.
    Nothing,
    /// The deadline passed.
    Elapsed,
    /// Somebody pressed Ctrl-C.
    Interrupted,
}

/// One connection to `control.sock`.
#[derive(Debug)]
pub(crate) struct Client {
    lines: LineStream,
    calls: u64,
}

impl Client {
    /// Connects and greets. A daemon of another protocol is remarked on stderr.
    ///
    /// # Errors
    /// See [`ClientError`]; `Refused` when the two have no protocol in common.
    pub(crate) fn connect(home: &Home) -> Result<Self, ClientError> {
        let mut client = Self { lines: LineStream::new(home.connect(CONTROL_SOCKET)?), calls: 0 };
        let hello = HelloParams { protocol: PROTOCOL, version: env!("CARGO_PKG_VERSION").to_owned() };
        let HelloReply { protocol, version, .. } = match client.call(hello) {
            Ok(reply) => reply,
            // A daemon that knows no greeting may still know the rest.
            Err(ClientError::Refused(error)) if error.kind() == ErrorKind::UnknownMethod => return Ok(client),
            Err(error) => return Err(error),
        };
        if protocol != PROTOCOL {
            render::note(&format!(
                "note: the daemon ({version}) speaks control protocol {protocol}, this agentctl ({}) speaks {PROTOCOL}",
                env!("CARGO_PKG_VERSION"),
            ));
        }
        Ok(client)
    }

    /// From now on [`next`](Self::next) also returns for Ctrl-C.
    pub(crate) fn interrupted_by(&mut self, interrupt: Interrupt) {
        self.lines.interrupted_by(interrupt);
    }

    /// From now on [`next`](Self::next) also fails when nobody reads our output: for commands that only print.
    pub(crate) const fn ends_with_reader(&mut self) {
        self.lines.ends_with_reader();
    }

    /// Sends a call; returns its number.
    ///
    /// # Errors
    /// [`ClientError::Line`] when the daemon does not take it.
    pub(crate) fn send(&mut self, request: impl Into<Request>) -> Result<u64, ClientError> {
        self.calls += 1;
        let call = Call { id: RequestId::Number(self.calls), request: request.into() };
        self.lines.send(&call.encode())?;
        Ok(self.calls)
    }

    /// Whether the daemon has said something more that is here already.
    pub(crate) fn has_heard(&self) -> bool {
        self.lines.has_line()
    }

    /// The next thing that the daemon says. Without `until` it waits for ever.
    ///
    /// # Errors
    /// See [`ClientError`]. An answer that names no call is `Refused`: our last line was not understood.
    pub(crate) fn next(&mut self, until: Option<Instant>) -> Result<Heard, ClientError> {
        let line = match self.lines.next(until)? {
            Arrival::Line(line) => line,
            Arrival::Closed => return Err(ClientError::Closed),
            Arrival::OutputClosed => return Err(ClientError::OutputClosed),
            Arrival::Elapsed => return Ok(Heard::Elapsed),
            Arrival::Interrupted => return Ok(Heard::Interrupted),
        };
        match ServerMessage::decode(&line)? {
            ServerMessage::Answer { id: Some(RequestId::Number(call)), result } => Ok(Heard::Answer(call, result)),
            ServerMessage::Answer { result: Err(error), .. } => Err(ClientError::Refused(error)),
            ServerMessage::Answer { result: Ok(_), .. } | ServerMessage::UnknownNotice { .. } => Ok(Heard::Nothing),
            ServerMessage::Notice { notice, .. } => Ok(Heard::Notice(notice)),
        }
    }

    /// Asks what is answered at once.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub(crate) fn call<C: Command>(&mut self, params: C) -> Result<C::Reply, ClientError> {
        let request = params.into();
        let method = request.method();
        let call = self.send(request)?;
        let until = Instant::now() + ANSWER_WITHIN;
        loop {
            match self.next(Some(until))? {
                Heard::Answer(of, result) if of == call => return read(method, result.map_err(ClientError::Refused)?),
                Heard::Answer(..) | Heard::Notice(_) | Heard::Nothing | Heard::Interrupted => {}
                Heard::Elapsed => return Err(ClientError::Silent),
            }
        }
    }
}

/// Reads the answer to `method`.
///
/// # Errors
/// [`ClientError::Answer`] when it has another shape.
pub(crate) fn read<T: DeserializeOwned>(method: &'static str, value: Value) -> Result<T, ClientError> {
    serde_json::from_value(value).map_err(|source| ClientError::Answer { method, source })
}

/// An error with its causes, which the wire types keep apart.
fn chain(error: &ServerMessageError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text.push_str(&format!(": {inner}"));
        cause = inner.source();
    }
    text
}
