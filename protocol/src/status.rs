//! The status document, and the lines of `status.sock`.
//!
//! A client that connects and sends nothing reads one [`StatusDocument`] and end of file. A client that sends
//! [`StatusRequest`] with `watch` reads the document, then one [`Event`] a line. What cannot be served is answered
//! with one [`StatusError`] and end of file. [`StatusLine`] tells the three apart.
//!
//! # Version history
//! - schema 1 (0.1.0): the first.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::events::Event;

/// The number in [`StatusDocument::schema`]. It rises only when a field goes or changes its meaning.
pub const SCHEMA: u32 = 1;

/// Everything the daemon knows of its apps, at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StatusDocument {
    /// Version of this document's shape: [`SCHEMA`].
    pub schema: u32,
    /// Name of this daemon's instance; the same as long as its state directory lives.
    pub instance: String,
    /// Process id of the daemon.
    pub pid: u32,
    /// Version of the daemon.
    pub version: String,
    /// When the daemon started.
    pub started_at: Timestamp,
    /// When this document was made.
    pub now: Timestamp,
    /// Number of the newest event that this document already shows. Watch with `since` set to it to miss nothing.
    #[serde(default)]
    pub seq: u64,
    /// The apps, ordered by name.
    pub apps: Vec<AppView>,
}

impl StatusDocument {
    /// The document as one line of JSON, without its end. It is written here, because this crate is compiled for speed.
    ///
    /// # Panics
    /// Never: its keys are text, and no part of it fails to be written.
    #[must_use]
    pub fn to_line(&self) -> String {
        serde_json::to_string(self).expect("a status document is plain data")
    }
}

/// What an app is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AppKind {
    /// Long-lived, talks to users.
    Agent,
    /// A tool that agents call.
    Skill,
    /// A kind newer than this reader.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

/// How an app as a whole is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AppState {
    /// As many workers as wanted are ready.
    Running,
    /// It was just started, and not every worker has been ready yet.
    Starting,
    /// Fewer workers than wanted are ready, and it is being worked on.
    Degraded,
    /// A deployment runs.
    Deploying,
    /// Nothing runs, as asked for.
    Stopped,
    /// No worker is ready and nothing more is tried without a command.
    Failed,
    /// A state newer than this reader.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

/// One app.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AppView {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub kind: AppKind,
    /// How it is as a whole.
    pub state: AppState,
    /// The release that new workers start from; before releases are cut, a label of the configuration's revision.
    pub release: String,
    /// How many workers are wanted.
    pub desired: u32,
    /// How many workers are ready.
    pub ready: u32,
    /// Tasks, or where a worker reports none, connections that are being served.
    pub in_flight: u32,
    /// How long a drain that began now might take, in milliseconds.
    pub grace_ms: u64,
    /// The deployment that runs, if one does.
    pub deployment: Option<DeploymentView>,
    /// The release that is being cut for it, if one is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cutting: Option<CuttingView>,
    /// The workers, by slot, then generation. During a deployment one slot may hold two.
    pub workers: Vec<WorkerView>,
    /// Listening sockets by the name given to them in the configuration: `http` → `0.0.0.0:8080`.
    #[serde(default)]
    pub listen: BTreeMap<String, String>,
    /// The refresh that runs, or the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh: Option<RefreshView>,
    /// Why it is degraded or failed, in a sentence.
    #[serde(default)]
    pub why: Option<String>,
    /// Its circuit breaker: that of its most trusted worker.
    #[serde(default)]
    pub breaker: BreakerView,
}

/// A release that is being cut.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CuttingView {
    /// The number of what it is cut for.
    pub operation: u64,
    /// What it is cut from.
    pub origin: String,
    /// Since when, by this supervisor: one that died over it is not counted.
    pub since: Timestamp,
}

/// The restart policy as a circuit breaker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BreakerView {
    /// How it stands.
    pub state: BreakerState,
    /// While open: when it is tried again. While half-open: when it closes, if it serves until then. None where that is
    /// not known: an open one waits for somebody then.
    #[serde(default)]
    pub until: Option<Timestamp>,
    /// Crashes since it was last closed.
    #[serde(default)]
    pub crashes: u32,
}

/// How a circuit breaker stands.
///
/// ```text
/// closed ── crash ──► open ── the wait is over ──► half_open ── served long enough ──► closed
///                      ▲                               │
///                      └──────────── crash ────────────┘
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BreakerState {
    /// It is trusted.
    #[default]
    Closed,
    /// It fell and runs again, on trial.
    HalfOpen,
    /// It fell and is not started for now.
    Open,
    /// A state newer than this reader.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

/// How the workers of one generation are replaced by the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// One worker after another.
    Rolling,
    /// The whole new generation beside the old one, then a switch.
    BlueGreen,
    /// A growing share of new connections, judged at each step.
    Canary,
    /// The old generation ends before the new one starts. The only strategy with a gap.
    Recreate,
    /// A strategy newer than this reader.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

/// Where a deployment is.
///
/// ```text
/// running ⇄ paused ──► done | aborted | failed
///    └──────────► rolling_back ──► rolled_back | failed
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeploymentState {
    /// Workers are being replaced.
    Running,
    /// Held by a command; both generations serve.
    Paused,
    /// The old generation is being restored.
    RollingBack,
    /// Ended: the new generation serves.
    Done,
    /// Ended: the old generation serves, because the new one was worse.
    RolledBack,
    /// Ended by a command before it was done.
    Aborted,
    /// Ended, and neither generation is whole.
    Failed,
    /// A state newer than this reader.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

/// What a gate says of a new version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GateVerdict {
    /// It is worse: the deployment goes back.
    Rollback,
    /// It may be worse: no next step.
    Hold,
    /// Too few tasks were seen.
    TooFew,
    /// Nothing speaks against the next step.
    Promote,
    /// No task tells of it, or the old version's did not.
    NotEvaluated,
    /// Switched off in the configuration.
    Off,
    /// A verdict newer than this reader.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

/// One gate of a deployment, as it stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GateView {
    /// What it judges: `error_rate`, `latency` (seconds), `tokens`, `cost` (US dollars), `tool_calls`, `steps`,
    /// `context`, `quality`.
    pub gate: String,
    /// Tasks of this step that told of it.
    pub n: u64,
    /// Their mean.
    pub observed: Option<f64>,
    /// The old version's mean.
    pub baseline: Option<f64>,
    /// Natural logarithm of the evidence that it is worse; from 5.08 (160) on it is taken back, from 2.08 (8) on it is
    /// held.
    pub log_e: f64,
    /// What follows.
    pub verdict: GateVerdict,
}

/// A change of an app from one release or configuration to another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DeploymentView {
    /// Its number, never used twice in an instance; the same as that of the operation which began it.
    pub id: u64,
    /// How workers are replaced.
    pub strategy: Strategy,
    /// The release that is being replaced.
    pub from: String,
    /// The release that takes its place.
    pub to: String,
    /// Where it is.
    pub state: DeploymentState,
    /// Steps finished.
    pub step: u32,
    /// Steps in all.
    pub steps: u32,
    /// Percent of new connections that the new release gets; none where workers take their share one by one.
    #[serde(default)]
    pub percent: Option<u8>,
    /// When it began.
    pub started_at: Timestamp,
    /// What it waits for, or why it turned back.
    pub why: Option<String>,
    /// Its gates, where its tasks are judged.
    #[serde(default)]
    pub gates: Vec<GateView>,
}

/// Where a worker is in its life.
///
/// ```text
/// starting ──► ready ──► draining ──► stopping ──► exited
///    │           │                                   │
///    └───────────┴──► backoff ──► starting           └─ or gone from the document, once replaced
///                        └──────► failed
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WorkerState {
    /// The process runs and has not proven that it can serve.
    Starting,
    /// It serves.
    Ready,
    /// It takes nothing new and finishes what it has.
    Draining,
    /// It was told to end.
    Stopping,
    /// It ended by itself and is started again at [`WorkerView::restart_at`].
    Backoff,
    /// It ended, and its restart policy leaves it so.
    Exited,
    /// It failed too often; nothing more is tried without a command.
    Failed,
    /// A state newer than this reader.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

/// One worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WorkerView {
    /// `app.slot.generation`; the same across restarts.
    pub id: String,
    /// Its place within the app.
    pub slot: u32,
    /// Which deployment started it.
    pub generation: u64,
    /// The release it runs.
    pub release: String,
    /// Its main process, while there is one.
    pub pid: Option<u32>,
    /// Where it is in its life.
    pub state: WorkerState,
    /// Its share of the app's new connections, in percent.
    pub weight: u8,
    /// How often it was started again after ending by itself.
    pub restarts: u32,
    /// When its present process started.
    pub started_at: Option<Timestamp>,
    /// Tasks, or where it reports none, connections that it is serving.
    pub in_flight: u32,
    /// Age of its oldest task in milliseconds.
    pub oldest_task_ms: Option<u64>,
    /// While it drains: when waiting ends.
    pub drain_deadline: Option<Timestamp>,
    /// Memory of its process tree in bytes; none when it cannot be read.
    pub memory_bytes: Option<u64>,
    /// Processor time of its process tree; 100 is one core kept busy.
    pub cpu_percent: Option<f64>,
    /// How its previous process ended.
    pub last_exit: Option<ExitView>,
    /// What it last said of itself (`STATUS=`).
    #[serde(default)]
    pub status_text: Option<String>,
    /// Why it is in backoff or failed, in a sentence.
    #[serde(default)]
    pub why: Option<String>,
    /// While in backoff: when it is started again.
    #[serde(default)]
    pub restart_at: Option<Timestamp>,
    /// The last lines that it printed, once it is parked as failed or ends again and again.
    #[serde(default)]
    pub log_tail: Vec<String>,
    /// Its circuit breaker.
    #[serde(default)]
    pub breaker: BreakerView,
}

/// How a process ended. Neither code nor signal: its end was seen by nobody who could tell (the daemon was away).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ExitView {
    /// The exit code, if it exited.
    pub code: Option<i32>,
    /// The signal that ended it, by name: `SIGKILL`.
    pub signal: Option<String>,
    /// What led to it.
    pub reason: ExitReason,
    /// For a limit that it met: which, with figures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// What led to the end of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExitReason {
    /// It ended by itself, with success.
    Finished,
    /// It ended by itself, otherwise.
    Crashed,
    /// The kernel ended it for want of memory.
    OutOfMemory,
    /// It used more memory than its ceiling, and another took its place.
    MemoryCeiling,
    /// It was refused another process at its limit, and ended.
    PidsLimit,
    /// It used up its processor time.
    CpuTimeLimit,
    /// It wrote a file beyond its limit.
    FileSizeLimit,
    /// It did not become ready in time.
    ReadyTimeout,
    /// It failed its liveness probes.
    Unhealthy,
    /// It did not answer its watchdog.
    Watchdog,
    /// It could not be started at all: a stage of the exec shim failed.
    StartFailed,
    /// Asked for: `stop`.
    Stop,
    /// Asked for: `restart`.
    Restart,
    /// Asked for: `delete`.
    Delete,
    /// Asked for: `scale`.
    Scale,
    /// Replaced by a newer generation.
    Reload,
    /// It belonged to a generation that was taken back.
    Rollback,
    /// The daemon ended its workers before ending itself.
    Shutdown,
    /// A reason newer than this reader.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

/// The one line a client may send on `status.sock`. An empty connection is the same as `{}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StatusRequest {
    /// After the document, send every event.
    #[serde(default)]
    pub watch: bool,
    /// With `watch`: begin after this event instead of after the document. Events that are no longer kept are
    /// announced by one `events_lost`.
    #[serde(default)]
    pub since: Option<u64>,
}

/// The last line of a connection that could not be served, or no longer: `{"error":{…}}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StatusError {
    /// What went wrong.
    pub error: StatusErrorBody,
}

/// What went wrong on `status.sock`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StatusErrorBody {
    /// For programs.
    pub kind: StatusErrorKind,
    /// For people.
    pub message: String,
}

/// Kinds of [`StatusError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StatusErrorKind {
    /// The line sent is no [`StatusRequest`], or too long.
    Malformed,
    /// The client read too slowly and events were lost to it; resume with `since`.
    TooSlow,
    /// Too many clients are connected.
    Overloaded,
    /// The client may not look.
    Forbidden,
    /// The daemon is ending.
    ShuttingDown,
    /// A kind newer than this reader.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

/// Any line that a client reads on `status.sock`.
#[derive(Clone, Debug, PartialEq)]
pub enum StatusLine {
    /// The first line.
    Document(Box<StatusDocument>),
    /// A later line of a watch.
    Event(Event),
    /// The last line, when something went wrong.
    Error(StatusErrorBody),
}

/// A line that is none of the three.
#[derive(Debug, Error)]
pub enum StatusLineError {
    /// The line is no JSON.
    #[error("read a status line as JSON")]
    Json(#[source] serde_json::Error),
    /// The document does not have its fields.
    #[error("read a status document")]
    Document(#[source] serde_json::Error),
    /// The event does not have its fields.
    #[error("read an event")]
    Event(#[source] serde_json::Error),
    /// The error does not have its fields.
    #[error("read a status error")]
    Error(#[source] serde_json::Error),
    /// The document is of a schema that this reader does not know.
    #[error("read a status document of schema {0}; this program knows up to {SCHEMA}")]
    Schema(u64),
}

impl StatusLine {
    /// Reads one line.
    ///
    /// # Errors
    /// When the line is not JSON, or not of any of the three shapes.
    pub fn decode(line: &[u8]) -> Result<Self, StatusLineError> {
        let value: serde_json::Value = serde_json::from_slice(line).map_err(StatusLineError::Json)?;
        if value.get("error").is_some() {
            let error: StatusError = serde_json::from_value(value).map_err(StatusLineError::Error)?;
            return Ok(Self::Error(error.error));
        }
        match value.get("schema").and_then(serde_json::Value::as_u64) {
            Some(schema) if schema > u64::from(SCHEMA) => Err(StatusLineError::Schema(schema)),
            Some(_) => serde_json::from_value(value).map(Self::Document).map_err(StatusLineError::Document),
            None => serde_json::from_value(value).map(Self::Event).map_err(StatusLineError::Event),
        }
    }
}

/// How a refresh is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RefreshState {
    /// A worker is being asked, or awaited.
    Running,
    /// Every worker knows it.
    Done,
    /// A worker could not; those after it were not asked.
    Failed,
    /// Another command took its place.
    Aborted,
    /// A state newer than this reader.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

/// Workers that renew what they know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RefreshView {
    /// The operation's number.
    pub id: u64,
    /// How it is.
    pub state: RefreshState,
    /// Who is being asked just now.
    pub asking: Option<String>,
    /// Why it failed or was aborted.
    pub why: Option<String>,
    /// When it ended; none while it runs, and once the machine was started anew since.
    pub finished_at: Option<Timestamp>,
    /// What came of each worker so far.
    pub workers: Vec<RefreshedWorker>,
    /// How many renewals were seen to their end, of the last 200.
    pub n: u64,
    /// Half of them took at most so many milliseconds.
    pub p50_ms: Option<u64>,
    /// The longest of them took so many milliseconds.
    pub max_ms: Option<u64>,
}

/// What came of one worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RefreshedWorker {
    /// `app.slot.generation`.
    pub worker: String,
    /// What came of it.
    pub outcome: RefreshOutcome,
    /// Why it failed.
    pub why: Option<String>,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
}

/// What came of asking a worker to renew what it knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RefreshOutcome {
    /// It said that it knows it by now.
    Renewed,
    /// It was told, by a way on which it says nothing back.
    Told,
    /// It was on its way out: whoever took its place read it at its start.
    Gone,
    /// It refused, did not answer in time, or fell.
    Failed,
    /// It was not asked, because one before it failed.
    Spared,
    /// An outcome newer than this reader.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}
