//! The task protocol `agentd/1`: what a worker may tell of its work, and be told, on `worker.sock`.
//!
//! # The happy path
//! ```text
//! worker                                                     agentd
//!   {"t":"hello","n":1,"proto":"agentd/1","token":…}   ──►     {"re":1,"ok":true,"worker":"chat.0.3","lease_ms":30000,…}
//!   {"t":"ready"}                                      ──►
//!   {"t":"task.begin","n":2,"task":"a1","kind":"chat"} ──►     {"re":2,"ok":true,"task":"a1","fence":1}
//!   {"t":"ckpt","n":3,"task":"a1","fence":1,"step":1,…} ─►     {"re":3,"ok":true}              once it is durable
//!                                                              {"t":"drain","deadline_ms":60000,"reason":"reload"}
//!   {"t":"task.yield","n":4,"task":"a1","fence":1,…}   ──►     {"re":4,"ok":true}
//!   another worker:                                            {"t":"task.run","task":"a1","fence":2,"attempt":2,"ckpt":…}
//! ```
//! One JSON object a line. A [`Request`] with a number `n` has exactly one answer, which names it as `re`; one without
//! is answered only when it is refused. Answers come in the order of their requests. [`Message`]s come at any time
//! after the welcome.
//!
//! # The unhappy paths
//! - What is refused is answered with a [`Code`], and changes nothing. After those of [`Code::closes`] comes end of file.
//! - A connection that is lost loses nothing: tasks stay the worker's for their lease. It dials again, says `hello`,
//!   and sends again what was not answered; every request may be sent twice and counts once.
//! - A worker that sends faster than its requests can be made durable is read more slowly. One that does not read what
//!   it is sent is dropped.
//!
//! [`request`] has what a worker says, [`mod@answer`] what it is answered, [`message`] what it is told, [`error`] what is
//! refused.
//!
//! # Version history
//! - `agentd/1` (0.1.0): the first. Fields and types are added within a version; a reader skips what it does not know.

pub mod answer;
pub mod error;
pub mod message;
pub mod request;
mod text;

pub use answer::{
    Begun, Deleted, Dup, Effected, Found, Held, IntentPolicy, Item, Nothing, Page, Put, Refusal, Welcome, answer,
    refuse,
};
pub use error::{Code, Rejected};
pub use message::{DrainReason, Message, Resumed, Snapshot};
pub use request::{
    Beat, BeatTask, Begin, Ckpt, EffectBegin, EffectEnd, End, Hello, KvDel, KvGet, KvItem, KvPut, KvScan, Line,
    Outcome, Refreshed, Request, Yield,
};
pub use text::Text;

/// The newest version that this side speaks.
pub const VERSION: u32 = 1;

/// The oldest version that this side speaks.
pub const OLDEST: u32 = 1;

/// Where the socket is, in a worker's environment.
pub const SOCKET_VARIABLE: &str = "AGENTD_WORKER_SOCKET";

/// What the worker proves itself by, in its environment.
pub const TOKEN_VARIABLE: &str = "AGENTD_WORKER_TOKEN";

/// What a worker that was fenced exits with: its tasks are another's now (`EX_TEMPFAIL` of sysexits.h).
pub const EXIT_FENCED: u8 = 75;

/// Longest line in either direction, in bytes without its end.
pub const LINE_MAX: usize = 8 * 1024 * 1024;

/// Longest id of a task, in bytes.
pub const TASK_MAX: usize = 128;

/// Longest kind, of a task or an effect, in bytes.
pub const KIND_MAX: usize = 64;

/// Longest key (of a task, an effect, an item), session or namespace, in bytes.
pub const KEY_MAX: usize = 512;

/// Longest description, reason or compensation, in bytes.
pub const WORDS_MAX: usize = 4096;

/// How long a task stays its worker's without a sign of life, in ms, unless configured otherwise.
pub const LEASE_MS: u64 = 30_000;

/// Reads a version as it is named on the wire: `agentd/1`.
///
/// ```
/// assert_eq!(agentd_protocol::worker::parse_version("agentd/7"), Some(7));
/// assert_eq!(agentd_protocol::worker::parse_version("pm2/7"), None);
/// ```
#[must_use]
pub fn parse_version(proto: &str) -> Option<u32> {
    proto.strip_prefix("agentd/").and_then(|number| number.parse().ok())
}

/// The version that two sides speak: the newest that both know; none when there is none.
///
/// ```
/// use agentd_protocol::worker::{VERSION, negotiate};
/// assert_eq!(negotiate(VERSION + 5), Some(VERSION));
/// assert_eq!(negotiate(0), None);
/// ```
#[must_use]
pub fn negotiate(theirs: u32) -> Option<u32> {
    let common = theirs.min(VERSION);
    (common >= OLDEST).then_some(common)
}
