//! The envelopes: what makes a line on `control.sock` a call, an answer or a notice.
//!
//! Owns: JSON-RPC 2.0's members, and telling the ways apart in which a line is no call. Does not own: what the
//! members mean. Batches (arrays) and calls without an id are refused: the first would answer out of turn, the
//! second could not be answered at all.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use thiserror::Error;

use super::error::{ErrorKind, ErrorObject};
use super::reply::{Accepted, LogLine, Progress, Reply};
use super::request::Request;
use crate::events::Event;

const VERSION: &str = "2.0";

/// What a client calls its call. Returned as it came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum RequestId {
    /// A number.
    Number(u64),
    /// A text.
    Text(String),
}

/// A client's line: a request under an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Named again by the answer and by every notice.
    pub id: RequestId,
    /// What is asked for.
    pub request: Request,
}

/// A line that is no call: what to answer, under which id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallRejected {
    /// The call's id, if that much could be read.
    pub id: Option<RequestId>,
    /// What to answer.
    pub error: ErrorObject,
}

impl Call {
    /// The line, without its end.
    #[must_use]
    pub fn encode(&self) -> String {
        #[derive(Serialize)]
        struct Wire<'a> {
            jsonrpc: &'static str,
            id: &'a RequestId,
            method: &'static str,
            params: Value,
        }
        let mut request = to_value(&self.request);
        let params = request.get_mut("params").map_or(Value::Null, Value::take);
        to_line(&Wire { jsonrpc: VERSION, id: &self.id, method: self.request.method(), params })
    }

    /// Reads a line.
    ///
    /// # Errors
    /// What to answer, when it is no call of this version. Parameters may be left out where all have a default.
    pub fn decode(line: &[u8]) -> Result<Self, Box<CallRejected>> {
        let value: Value = serde_json::from_slice(line)
            .map_err(|e| reject(None, ErrorKind::Parse, format!("the line is no JSON: {e}")))?;
        let Value::Object(mut members) = value else {
            return Err(reject(None, ErrorKind::InvalidRequest, "a call is one JSON object a line".to_owned()));
        };
        let id = members.remove("id").and_then(|id| serde_json::from_value::<RequestId>(id).ok());
        let invalid = |why: &str| reject(id.clone(), ErrorKind::InvalidRequest, why.to_owned());
        if members.get("jsonrpc").and_then(Value::as_str) != Some(VERSION) {
            return Err(invalid("a call has the member \"jsonrpc\":\"2.0\""));
        }
        let Some(Value::String(method)) = members.remove("method") else {
            return Err(invalid("a call names its \"method\""));
        };
        let Some(id) = id.clone() else {
            return Err(invalid("a call has an \"id\" that is a text or a whole number"));
        };
        if !Request::METHODS.contains(&method.as_str()) {
            let mut error = ErrorObject::new(ErrorKind::UnknownMethod, format!("no method is called {method:?}"))
                .with_help("the daemon may be older than its client; see `agentctl daemon status`");
            error = error.with_advice(format!("methods: {}", Request::METHODS.join(", ")));
            return Err(Box::new(CallRejected { id: Some(id), error }));
        }
        let params = match members.remove("params") {
            None | Some(Value::Null) => Value::Object(Map::new()),
            Some(params @ Value::Object(_)) => params,
            // By position, they would bind us to an order.
            Some(_) => {
                let why = format!("parameters of {method} are given by name, in an object");
                return Err(reject(Some(id), ErrorKind::InvalidParams, why));
            }
        };
        let request = Map::from_iter([("method".to_owned(), method.as_str().into()), ("params".to_owned(), params)]);
        match serde_json::from_value(Value::Object(request)) {
            Ok(request) => Ok(Self { id, request }),
            Err(e) => Err(reject(Some(id), ErrorKind::InvalidParams, format!("parameters of {method}: {e}"))),
        }
    }
}

fn reject(id: Option<RequestId>, kind: ErrorKind, message: String) -> Box<CallRejected> {
    Box::new(CallRejected { id, error: ErrorObject::new(kind, message) })
}

/// What the daemon tells on the way to an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "method", content = "value", rename_all = "snake_case")]
pub enum Notice {
    /// What was set going.
    Accepted(Accepted),
    /// An app looks different now.
    Progress(Box<Progress>),
    /// Something happened to it.
    Event(Event),
    /// A line of a log.
    Log(LogLine),
}

impl Notice {
    const METHODS: [&str; 4] = ["accepted", "progress", "event", "log"];
}

/// The daemon's line.
#[derive(Clone, Debug, PartialEq)]
pub enum ServerMessage {
    /// The one answer to a call.
    Answer {
        /// The call; none when the line was too broken to tell.
        id: Option<RequestId>,
        /// What came of it. See [`super::Command::Reply`] for its shape.
        result: Result<Value, Box<ErrorObject>>,
    },
    /// Something on the way to an answer.
    Notice {
        /// The call.
        call: RequestId,
        /// What it is.
        notice: Notice,
    },
    /// A notice of a method newer than this reader. To be ignored.
    UnknownNotice {
        /// Its method.
        method: String,
    },
}

/// A line that no daemon of this protocol sends.
#[derive(Debug, Error)]
pub enum ServerMessageError {
    /// The line is no JSON.
    #[error("read the daemon's line as JSON")]
    Json(#[source] serde_json::Error),
    /// Neither an answer nor a notice.
    #[error("read the daemon's line: it is neither an answer nor a notice")]
    Shape,
    /// An answer's id or error does not have its fields.
    #[error("read the daemon's answer")]
    Answer(#[source] serde_json::Error),
    /// A notice does not have its fields.
    #[error("read the daemon's notice {method:?}")]
    Notice {
        /// Its method.
        method: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

impl ServerMessage {
    /// The line, without its end.
    #[must_use]
    pub fn encode(&self) -> String {
        #[derive(Serialize)]
        struct Failure<'a> {
            jsonrpc: &'static str,
            id: Option<&'a RequestId>,
            error: &'a ErrorObject,
        }
        match self {
            Self::Answer { id, result: Ok(result) } => success_line(id.as_ref(), result),
            Self::Answer { id, result: Err(error) } => to_line(&Failure { jsonrpc: VERSION, id: id.as_ref(), error }),
            Self::Notice { call, notice } => match notice {
                Notice::Accepted(value) => notice_line("accepted", call, value),
                Notice::Progress(value) => notice_line("progress", call, value),
                Notice::Event(value) => notice_line("event", call, value),
                Notice::Log(value) => notice_line("log", call, value),
            },
            Self::UnknownNotice { method } => {
                to_line(&serde_json::json!({ "jsonrpc": VERSION, "method": method, "params": {} }))
            }
        }
    }

    /// The line of a call's answer, without its end, written from the reply as it is: one of a hundred apps is half a megabyte
    /// of [`Value`]s otherwise.
    #[must_use]
    pub fn encode_reply(id: &RequestId, reply: &Reply) -> String {
        success_line(Some(id), reply)
    }

    /// Reads a line.
    ///
    /// # Errors
    /// When the line is none that a daemon of this protocol sends.
    pub fn decode(line: &[u8]) -> Result<Self, ServerMessageError> {
        let value: Value = serde_json::from_slice(line).map_err(ServerMessageError::Json)?;
        let Value::Object(mut members) = value else { return Err(ServerMessageError::Shape) };
        if let Some(Value::String(method)) = members.remove("method") {
            return decode_notice(method, members.remove("params").unwrap_or(Value::Null));
        }
        let id = match members.remove("id") {
            None | Some(Value::Null) => None,
            Some(id) => Some(serde_json::from_value(id).map_err(ServerMessageError::Answer)?),
        };
        if let Some(error) = members.remove("error") {
            let error = serde_json::from_value(error).map_err(ServerMessageError::Answer)?;
            return Ok(Self::Answer { id, result: Err(error) });
        }
        let result = members.remove("result").ok_or(ServerMessageError::Shape)?;
        Ok(Self::Answer { id, result: Ok(result) })
    }
}

fn decode_notice(method: String, mut params: Value) -> Result<ServerMessage, ServerMessageError> {
    if !Notice::METHODS.contains(&method.as_str()) {
        return Ok(ServerMessage::UnknownNotice { method });
    }
    let mut take = |name: &str| params.get_mut(name).map_or(Value::Null, Value::take);
    let (call, value) = (take("call"), take("value"));
    let read = || -> Result<(RequestId, Notice), serde_json::Error> {
        let wire = Map::from_iter([("method".to_owned(), method.as_str().into()), ("value".to_owned(), value)]);
        Ok((serde_json::from_value(call)?, serde_json::from_value(Value::Object(wire))?))
    };
    match read() {
        Ok((call, notice)) => Ok(ServerMessage::Notice { call, notice }),
        Err(source) => Err(ServerMessageError::Notice { method, source }),
    }
}

fn success_line<T: Serialize>(id: Option<&RequestId>, result: &T) -> String {
    #[derive(Serialize)]
    struct Success<'a, T> {
        jsonrpc: &'static str,
        id: Option<&'a RequestId>,
        result: &'a T,
    }
    to_line(&Success { jsonrpc: VERSION, id, result })
}

fn notice_line<T: Serialize>(method: &str, call: &RequestId, value: &T) -> String {
    #[derive(Serialize)]
    struct Wire<'a, T> {
        jsonrpc: &'static str,
        method: &'a str,
        params: Params<'a, T>,
    }
    #[derive(Serialize)]
    struct Params<'a, T> {
        call: &'a RequestId,
        value: &'a T,
    }
    to_line(&Wire { jsonrpc: VERSION, method, params: Params { call, value } })
}

fn to_value<T: Serialize>(wire: &T) -> Value {
    serde_json::to_value(wire).expect("wire types have text keys and no failing serializer")
}

fn to_line<T: Serialize>(wire: &T) -> String {
    serde_json::to_string(wire).expect("wire types have text keys and no failing serializer")
}
