//! What is refused, and how that is said.
//!
//! | code | when | then |
//! |---|---|---|
//! | `malformed` | no JSON, no such `t`, a field that is missing or of another type, data that is no base64 | stays open |
//! | `too_large` | a line beyond 8 MiB, or a field beyond its bound | closed for a line, else stays open |
//! | `version` | no version in common | closed |
//! | `token` | the token is not that of a worker of this instance, or the peer is another user | closed |
//! | `hello` | something was said before `hello`, or `hello` twice | closed |
//! | `gone` | the worker that the token names has ended | closed |
//! | `unknown_task` | no task has that id | stays open |
//! | `fenced` | the task is another's by now: end, with exit code 75 | stays open |
//! | `finished` | the task has ended already | stays open |
//! | `unknown_effect` | an effect is ended that was never begun | stays open |
//! | `conflict` | an id or key is another task's, a step goes back, a yield that nobody could go on from | stays open |
//! | `flood` | more open tasks than an app may have, or more connections than a worker may | stays open, or closed for a connection |
//! | `store` | it could not be made durable (disk full): nothing of it counts; send it again later | stays open |

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Why a request was refused. On the wire in snake case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// No JSON, no such `t`, a field that is missing or of another type, data that is no base64.
    Malformed,
    /// A line or a field is beyond its bound.
    TooLarge,
    /// The two sides have no version in common.
    Version,
    /// The token is not that of a worker of this instance, or the peer is another user.
    Token,
    /// Something was said before `hello`, or `hello` twice.
    Hello,
    /// The worker that the token names has ended.
    Gone,
    /// No task has that id.
    UnknownTask,
    /// The task is another's by now, and nothing that is said of it with this fence counts.
    Fenced,
    /// The task has ended already.
    Finished,
    /// An effect is ended that was never begun.
    UnknownEffect,
    /// An id or key is another task's, a step goes back, or a yield is one that nobody could go on from.
    Conflict,
    /// More open tasks than an app may have, or more connections than a worker may.
    Flood,
    /// It could not be made durable. Nothing of it counts; it may be sent again.
    Store,
    /// A code newer than this reader.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

impl Code {
    /// Every code of this version.
    pub const ALL: [Self; 13] = [
        Self::Malformed,
        Self::TooLarge,
        Self::Version,
        Self::Token,
        Self::Hello,
        Self::Gone,
        Self::UnknownTask,
        Self::Fenced,
        Self::Finished,
        Self::UnknownEffect,
        Self::Conflict,
        Self::Flood,
        Self::Store,
    ];

    /// Whether nothing else is read from the connection after it. A `too_large` line and a `flood` of connections close
    /// as well; a field that is too large and a flood of tasks do not.
    #[must_use]
    pub const fn closes(self) -> bool {
        match self {
            Self::Version | Self::Token | Self::Hello | Self::Gone => true,
            Self::Malformed
            | Self::TooLarge
            | Self::UnknownTask
            | Self::Fenced
            | Self::Finished
            | Self::UnknownEffect
            | Self::Conflict
            | Self::Flood
            | Self::Store
            | Self::Unknown => false,
        }
    }
}

/// A line that is no request, or one with a field out of bounds: what to answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// The request's number, if that much could be read.
    pub n: Option<u64>,
    /// Which way it is wrong.
    pub code: Code,
    /// In words.
    pub msg: String,
}
