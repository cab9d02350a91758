//! What the daemon answers, and what it tells on the way to an answer.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::apply::Applied;
use super::deployments::{DeploymentList, DeploymentReport};
use super::releases::Releases;
use super::request::LogStream;
use super::supervisor::{DaemonUpgrade, SupervisorView};
use super::tasks::{EffectList, GraceView, SessionList, TaskChanged, TaskList, TasksUsage};
use crate::exit;
use crate::status::{AppView, RefreshedWorker, StatusDocument};

/// The result of any method. On the wire the bare value: the call's method tells which it is.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Reply {
    /// To `hello`.
    Hello(HelloReply),
    /// To `start`, `stop`, `restart`, `delete`, `scale`, `reload`, `refresh`.
    Changed(Changed),
    /// To `upgrade` with `dry_run`.
    UpgradePlan(Box<UpgradePlan>),
    /// To `releases`.
    Releases(Releases),
    /// To `deployments`.
    Deployments(DeploymentList),
    /// To `deployment`.
    Deployment(Box<DeploymentReport>),
    /// To `promote`, `pause`, `resume`, `abort`.
    Steered(Box<Steered>),
    /// To `apply`.
    Applied(Box<Applied>),
    /// To `signal`.
    Signalled(Signalled),
    /// To `status`.
    Status(Box<StatusDocument>),
    /// To `describe`.
    Details(Box<AppDetails>),
    /// To `logs`.
    LogsEnd(LogsEnd),
    /// To `tasks.list`.
    Tasks(TaskList),
    /// To `tasks.change`.
    TaskChanged(Box<TaskChanged>),
    /// To `effects.list`.
    Effects(EffectList),
    /// To `sessions.list`.
    Sessions(SessionList),
    /// To `grace`.
    Grace(Box<GraceView>),
    /// To `tasks.usage` and `tasks.prune`.
    TasksUsage(TasksUsage),
    /// To `daemon.status`.
    Daemon(Box<DaemonView>),
    /// To `daemon.stop`.
    DaemonStop(DaemonStop),
    /// To `daemon.upgrade`.
    DaemonUpgrade(DaemonUpgrade),
}

/// What a peer may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Look.
    View,
    /// Look and change.
    Operate,
    /// A role newer than this reader.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

/// Answer to `hello`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HelloReply {
    /// The control protocol that this connection speaks.
    pub protocol: u32,
    /// Version of the daemon.
    pub version: String,
    /// Name of its instance.
    pub instance: String,
    /// Its process.
    pub pid: u32,
    /// What this client may do.
    pub role: Role,
}

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OperationKind {
    /// Start.
    Start,
    /// Drain and end.
    Stop,
    /// End, then start.
    Restart,
    /// End and forget.
    Delete,
    /// Another number of workers.
    Scale,
    /// A new generation.
    Reload,
    /// A new generation of another release.
    Upgrade,
    /// A new generation of a release that served before.
    Rollback,
    /// Another configuration for the workers that run.
    Adopt,
    /// What the workers that run know, renewed.
    Refresh,
    /// A kind newer than this reader.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OperationState {
    /// As asked for.
    Done,
    /// Tried and taken back: what ran before runs.
    RolledBack,
    /// Ended by another command before it was done.
    Aborted,
    /// It could not be done, nor taken back.
    Failed,
    /// A state newer than this reader.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

impl OperationState {
    /// The exit code for a command that ended so. See [`exit`].
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Done => exit::DONE,
            Self::RolledBack => exit::ROLLED_BACK,
            Self::Aborted => exit::REFUSED,
            Self::Failed | Self::Unknown => exit::FAILED,
        }
    }
}

/// An admitted request that changes one app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OperationView {
    /// Its number, never used twice in an instance. A reload's is also its deployment's.
    pub id: u64,
    /// The app.
    pub app: String,
    /// What it does.
    pub kind: OperationKind,
    /// The app was as asked for already, or is on its way there by an earlier operation, whose number this is.
    pub already: bool,
    /// What a person should know: that it waits for another, which one it replaced.
    pub note: Option<String>,
}

/// An operation that ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OperationResult {
    /// Its number.
    pub id: u64,
    /// The app.
    pub app: String,
    /// What it did.
    pub kind: OperationKind,
    /// How it ended.
    pub state: OperationState,
    /// Why it did not end as asked for.
    pub why: Option<String>,
    /// The last lines of the worker that made it fail.
    #[serde(default)]
    pub log_tail: Vec<String>,
    /// When it was admitted.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Timestamp,
    /// How long it took, in milliseconds, on a clock that nobody sets.
    pub duration_ms: u64,
    /// What became of the tasks of the workers that ended.
    #[serde(default)]
    pub tasks: TaskCounts,
    /// The lost ones of them by name; at most 100.
    #[serde(default)]
    pub lost_tasks: Vec<LostTask>,
    /// What became of their connections.
    #[serde(default)]
    pub connections: ConnectionCounts,
    /// The deployment's number, when it was one.
    pub deployment: Option<u64>,
    /// The release that ran before.
    pub from: Option<String>,
    /// The release that it was to lead to.
    pub to: Option<String>,
    /// For a refresh: what came of each worker.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refreshed: Vec<RefreshedWorker>,
}

/// A task that its worker took to its grave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LostTask {
    /// Its id.
    pub task: String,
    /// Why.
    pub why: String,
}

/// What became of tasks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TaskCounts {
    /// Ended by themselves.
    pub finished: u64,
    /// Resumed by another worker.
    pub handed_over: u64,
    /// Ended by us.
    pub lost: u64,
}

/// What became of connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConnectionCounts {
    /// Still open when their worker was ended.
    pub cut: u64,
}

/// Answer to every request that changes apps. One entry an app, in the order in which they were taken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Changed {
    /// What was admitted; the same as in the `accepted` notice.
    pub operations: Vec<OperationView>,
    /// How each ended. Empty without `wait`; with it, one for every operation.
    #[serde(default)]
    pub results: Vec<OperationResult>,
}

impl Changed {
    /// The exit code for the whole: that of the worst result, where failed > rolled back > aborted > done.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        let rank = |state: OperationState| match state {
            OperationState::Done => 0,
            OperationState::Aborted => 1,
            OperationState::RolledBack => 2,
            OperationState::Failed | OperationState::Unknown => 3,
        };
        self.results.iter().map(|r| r.state).max_by_key(|s| rank(*s)).map_or(exit::DONE, OperationState::exit_code)
    }
}

/// The `accepted` notice: what a request that waits has set going. Sent once, before all else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Accepted {
    /// One entry an app.
    pub operations: Vec<OperationView>,
}

/// The `progress` notice: an app that an awaited operation is about looks different now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Progress {
    /// How it is now.
    pub app: AppView,
}

/// Answer to `upgrade`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Upgraded {
    /// It began, or ended.
    Changed(Changed),
    /// What it would do.
    Plan(Box<UpgradePlan>),
}

/// What an upgrade would do, without doing it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UpgradePlan {
    /// The app.
    pub app: String,
    /// The release that serves.
    pub from: String,
    /// The release that would serve then; none when only the configuration is new.
    #[serde(default)]
    pub to: Option<String>,
    /// Where the new one would be cut from; none when only the configuration is new.
    pub source: Option<String>,
    /// What differs, one entry a difference: `command`, `env.MODEL`, `code: 3 files`.
    pub changes: Vec<String>,
    /// By which road it would go.
    pub strategy: Option<crate::status::Strategy>,
    /// By which road such a change should go, where that is another.
    pub advised: Option<crate::status::Strategy>,
    /// Why.
    pub because: Option<String>,
    /// Why this very release was taken back before: it is deployed again only when that is asked for.
    #[serde(default)]
    pub taken_back: Option<String>,
    /// What would become of the sessions and tasks in flight, a sentence each.
    pub in_flight: Vec<String>,
    /// Commands that would run, in their order.
    #[serde(default)]
    pub runs: Vec<PlannedRun>,
}

/// A command that a deployment would run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlannedRun {
    /// What it is, or what it is told: `build`, `check`, `eval`, `before_deployment`, `before_stage`, `after_stage`, `deployed`,
    /// `reload`, `rollback`.
    pub on: String,
    /// The program and its arguments, as configured.
    pub command: Vec<String>,
    /// At which percents of the new connections for the new version; empty where it is of the whole deployment.
    pub percents: Vec<u8>,
    /// Whether the deployment waits for it, and goes back or does not begin where it fails.
    pub awaited: bool,
}

/// Answer to `promote`, `pause`, `resume`, `abort`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Steered {
    /// The app.
    pub app: String,
    /// The deployment that was told; none when it was so already.
    pub deployment: Option<u64>,
    /// The app as it is now.
    pub view: AppView,
}

/// Answer to `signal`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Signalled {
    /// The signal by name: `SIGHUP`.
    pub signal: String,
    /// Who received it.
    pub workers: Vec<SignalledWorker>,
}

/// A worker that received a signal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SignalledWorker {
    /// `app.slot.generation`.
    pub id: String,
    /// The process.
    pub pid: u32,
}

/// Answer to `describe`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AppDetails {
    /// As in the status document.
    pub app: AppView,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// The directory that it runs in.
    pub cwd: String,
    /// Names of the variables in its environment. Values are never shown.
    #[serde(default)]
    pub env: Vec<String>,
    /// What it listens on.
    #[serde(default)]
    pub listeners: Vec<ListenerView>,
    /// The file that it was configured by; none when it was started by hand.
    pub config_file: Option<String>,
    /// Number of its configuration. A reload with an unchanged file keeps it.
    pub revision: u64,
    /// What governs it, by the configuration's keys, each in the configuration's own words.
    #[serde(default)]
    pub policy: BTreeMap<String, String>,
    /// Where what it prints is kept.
    #[serde(default)]
    pub log_files: Vec<LogFileView>,
    /// What it printed last, oldest first.
    #[serde(default)]
    pub last_lines: Vec<LogLine>,
}

/// A listening socket of an app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ListenerView {
    /// Its name in the configuration.
    pub name: String,
    /// As configured.
    pub configured: String,
    /// As bound: with the port that the kernel chose, where 0 was asked for. None while it is not bound.
    pub address: Option<String>,
}

/// A file that an app's output is written to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogFileView {
    /// Which output; none when it holds both.
    pub stream: Option<LogStream>,
    /// Where it is.
    pub path: String,
    /// Its size in bytes, rotated predecessors not counted; none when it cannot be read.
    pub bytes: Option<u64>,
}

/// The `log` notice: one line that a worker printed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogLine {
    /// The app.
    pub app: String,
    /// The worker, where it is known.
    pub worker: Option<String>,
    /// Where it was printed.
    pub stream: LogStream,
    /// When it was read, where it is known.
    pub at: Option<Timestamp>,
    /// The line without its end. Bytes that are no UTF-8 are replaced.
    pub text: String,
}

/// Answer to `logs`, after the last line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogsEnd {
    /// Lines sent.
    pub lines: u64,
    /// Lines left out, because the client read too slowly.
    #[serde(default)]
    pub skipped: u64,
    /// Where lines are that could not be shown, and how they are read there: a sentence an app.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub elsewhere: Vec<String>,
}

/// Answer to `daemon.status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DaemonView {
    /// Name of the instance.
    pub instance: String,
    /// Process of the daemon.
    pub pid: u32,
    /// Its version.
    pub version: String,
    /// The newest control protocol that it speaks.
    pub protocol: u32,
    /// When it started.
    pub started_at: Timestamp,
    /// Where it keeps what must outlive it.
    pub state_dir: String,
    /// Where its sockets are.
    pub runtime_dir: String,
    /// Where logs are.
    pub log_dir: String,
    /// Apps known.
    pub apps: u32,
    /// Processes alive.
    pub workers: u32,
    /// Its own memory in bytes; none when it cannot be read.
    pub memory_bytes: Option<u64>,
    /// Number of the newest event.
    pub seq: u64,
    /// What a person should know of its surroundings: no cgroup controllers, no `SO_ATTACH_REUSEPORT_EBPF`.
    #[serde(default)]
    pub notes: Vec<String>,
    /// The instance's last supervisors, the oldest first; the last of them is the one that answers.
    #[serde(default)]
    pub supervisors: Vec<SupervisorView>,
}

/// Answer to `daemon.stop`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DaemonStop {
    /// Workers that were alive when it was asked for.
    pub workers: u32,
    /// Connections cut; known only with `wait`.
    pub cut: Option<u64>,
}
