//! What is told of supervisors: the present one, and those before it.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Answer to `daemon.upgrade`, never given: it is refused, or the old daemon has no last word and its connections end as
/// its successor begins, which tells of itself in `daemon.status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DaemonUpgrade {}

/// How a supervisor ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SupervisorEnd {
    /// `agentctl daemon stop`: with every worker.
    Stopped,
    /// SIGTERM or SIGINT: the workers stayed.
    Signalled,
    /// Another binary took its place, in the same process.
    Upgraded,
    /// It left no word: killed, crashed, or gone with the machine.
    Unknown,
    /// An end newer than this reader.
    #[serde(other)]
    #[schemars(skip)]
    Other,
}

/// Where a supervisor got the listening sockets of its apps from, in the order in which it looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SocketOrigins {
    /// From the keeper.
    pub keeper: u32,
    /// From the service manager's store.
    #[serde(default)]
    pub store: u32,
    /// Out of live workers.
    #[serde(default)]
    pub workers: u32,
    /// Bound afresh.
    pub fresh: u32,
}

/// One supervisor of the instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SupervisorView {
    /// Its process.
    pub pid: u32,
    /// Its version.
    pub version: String,
    /// When it was ready.
    pub started_at: Timestamp,
    /// Workers that it took over.
    pub adopted: u32,
    /// Where its sockets came from.
    #[serde(default)]
    pub sockets: SocketOrigins,
    /// How long nobody watched before it did, in microseconds; none when that is not known, and for the first.
    #[serde(default)]
    pub unwatched_us: Option<u64>,
    /// How it ended; none while it runs.
    #[serde(default)]
    pub end: Option<SupervisorEnd>,
    /// When it ended, where that is known.
    #[serde(default)]
    pub ended_at: Option<Timestamp>,
}
