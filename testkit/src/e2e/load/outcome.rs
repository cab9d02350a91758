//! What became of a request.

use std::fmt;
use std::time::Instant;

/// The sort of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// A connection for each request.
    Fresh,
    /// One connection for all requests.
    KeepAlive,
    /// A task that takes seconds.
    Long,
    /// A stream of events that takes seconds.
    Sse,
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Fresh => "fresh",
            Self::KeepAlive => "keepalive",
            Self::Long => "long",
            Self::Sse => "sse",
        })
    }
}

/// What became of a request. Exactly one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// A whole answer with a 2xx status.
    Ok,
    /// No connection came about.
    Refused,
    /// The connection ended before the first byte of the answer.
    Reset,
    /// As [`Outcome::Reset`], on a connection that had served a request before: a client may repeat the request, and
    /// most do.
    ResetIdle,
    /// The answer broke off in the middle.
    Truncated,
    /// A whole answer with another status.
    Http(u16),
    /// What came was no HTTP answer.
    Garbled,
    /// Nothing more came in time.
    Timeout,
}

/// A request that did not end well, and the connection that carried it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Whose it was.
    pub class: Class,
    /// What became of it.
    pub outcome: Outcome,
    /// The client's port; none when no connection came about, and over a Unix socket.
    pub port: Option<u16>,
    /// When it was begun: before the connection was, where it opened one.
    pub begun: Instant,
    /// When it was lost.
    pub ended: Instant,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ok => f.pad("ok"),
            Self::Refused => f.pad("refused"),
            Self::Reset => f.pad("reset"),
            Self::ResetIdle => f.pad("reset_idle"),
            Self::Truncated => f.pad("truncated"),
            Self::Http(code) => f.pad(&format!("http_{code}")),
            Self::Garbled => f.pad("garbled"),
            Self::Timeout => f.pad("timeout"),
        }
    }
}
