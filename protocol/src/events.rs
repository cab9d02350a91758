//! What happened: one line each on a watched `status.sock`, and the `event` notice on `control.sock`.
//!
//! Every event has a number, one more than the one before it, in the order in which things happened. Events tell of
//! transitions; the status document tells of states. Whoever missed some reads the document.
//!
//! # Version history
//! - with schema 1 (0.1.0): the first. New types may come; a reader takes them as [`EventKind::Unknown`].

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::control::{OperationKind, OperationState, TaskCounts};
use crate::status::{AppKind, AppState, DeploymentState, ExitReason, GateVerdict, GateView, RefreshOutcome, Strategy};

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// Its number. Rises by one an event; begins anew only with a `daemon_started`.
    pub seq: u64,
    /// When it happened.
    pub at: Timestamp,
    /// The app that it is about, if it is about one.
    #[serde(default)]
    pub app: Option<String>,
    /// The worker that it is about (`app.slot.generation`), if it is about one.
    #[serde(default)]
    pub worker: Option<String>,
    /// What happened.
    pub event: EventKind,
}

/// What happened. `type` names the variant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum EventKind {
    /// The daemon started, and `adopted` workers of its predecessor kept running.
    DaemonStarted {
        /// Its version.
        version: String,
        /// Its process.
        pid: u32,
        /// Workers found alive.
        adopted: u32,
    },
    /// The daemon began to end.
    DaemonStopping {
        /// Who or what asked: `SIGTERM`, `agentctl daemon stop`.
        why: String,
    },
    /// An app is known from now on.
    AppAdded {
        /// What it is for.
        kind: AppKind,
        /// The release that its workers start from.
        release: String,
    },
    /// An app is forgotten.
    AppDeleted,
    /// The app as a whole changed its state.
    AppState {
        /// Before.
        from: AppState,
        /// Now.
        to: AppState,
        /// What led to it.
        why: Option<String>,
    },
    /// Another number of workers is wanted.
    AppScaled {
        /// Before.
        from: u32,
        /// Now.
        to: u32,
    },
    /// A process was started.
    WorkerStarting {
        /// Its main process.
        pid: u32,
    },
    /// It proved that it serves.
    WorkerReady {
        /// By which proof: `http`, `notify`, `log`, `command`, `listening`, `alive`.
        how: String,
        /// Milliseconds since it was started.
        after_ms: u64,
    },
    /// It takes nothing new.
    WorkerDraining {
        /// Why it drains.
        reason: ExitReason,
        /// When waiting ends.
        deadline: Timestamp,
    },
    /// How long a draining worker has for the tasks in its hands became known, or changed.
    WorkerDrainDeadline {
        /// When what is left goes on elsewhere, or is cut.
        deadline: Timestamp,
    },
    /// Its drain ended.
    WorkerDrained {
        /// Connections still open when waiting ended; 0 when nothing was lost.
        connections_cut: u32,
    },
    /// It was told to end.
    WorkerStopping {
        /// By this signal: `SIGTERM`; or `shutdown`, Node's message, which the signal follows if need be.
        signal: String,
    },
    /// Its process ended.
    WorkerExited {
        /// Exit code, if it exited.
        code: Option<i32>,
        /// Signal, if one ended it.
        signal: Option<String>,
        /// What led to it.
        reason: ExitReason,
        /// How long it ran, in milliseconds.
        uptime_ms: u64,
        /// For a limit that it met: which, with figures.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        why: Option<String>,
    },
    /// It met a limit and serves on, until another has taken its place.
    WorkerOutgrown {
        /// Which, with figures.
        why: String,
    },
    /// It is started again after a wait.
    WorkerRestarting {
        /// The wait in milliseconds.
        in_ms: u64,
        /// How often it was started again within the restart policy's period, this time included.
        attempt: u32,
    },
    /// It failed too often, or can not start; nothing more is tried without a command.
    WorkerFailed {
        /// Why, in a sentence.
        why: String,
        /// The last lines that it printed.
        #[serde(default)]
        log_tail: Vec<String>,
    },
    /// A probe was not answered as it must be.
    ProbeFailed {
        /// Which proof: `http`, `command`, `watchdog`.
        probe: String,
        /// What came instead.
        why: String,
        /// How many in a row, this one included.
        failures: u32,
        /// How many in a row lead to a replacement.
        allowed: u32,
    },
    /// It was asked to renew what it knows.
    WorkerRefreshed {
        /// What came of it.
        outcome: RefreshOutcome,
        /// Why it failed.
        why: Option<String>,
        /// How long it took, in milliseconds.
        took_ms: u64,
    },
    /// New connections are shared out anew.
    Weights {
        /// Worker id → percent of new connections.
        weights: BTreeMap<String, u8>,
    },
    /// A deployment began.
    DeploymentStarted {
        /// Its number.
        id: u64,
        /// How workers are replaced.
        strategy: Strategy,
        /// The release that is replaced.
        from: String,
        /// The release that takes its place.
        to: String,
        /// How many steps it has.
        steps: u32,
    },
    /// A deployment moved on, was held, or turned back.
    DeploymentStep {
        /// Its number.
        id: u64,
        /// Where it is.
        state: DeploymentState,
        /// Steps finished.
        step: u32,
        /// Steps in all.
        steps: u32,
        /// What it waits for, or why it turned back.
        why: Option<String>,
        /// The stage that it reached just now, if this tells of one: as in its report.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stage: Option<String>,
        /// Percent of new connections for the new version in that stage.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        percent: Option<u8>,
    },
    /// The gates of a deployment changed their mind.
    DeploymentJudged {
        /// Its number.
        id: u64,
        /// What they say together.
        verdict: GateVerdict,
        /// Why, in one sentence, unless nothing speaks against it.
        why: Option<String>,
        /// Each of them.
        gates: Vec<GateView>,
    },
    /// A deployment ended.
    DeploymentFinished {
        /// Its number.
        id: u64,
        /// How it ended.
        state: DeploymentState,
        /// Why it ended so.
        why: Option<String>,
        /// How long it took, in milliseconds.
        duration_ms: u64,
        /// What became of the tasks of the workers that it ended.
        #[serde(default)]
        tasks: TaskCounts,
    },
    /// A release is being cut. Nothing has changed yet.
    ReleaseCutting {
        /// The number of the deployment or the request that needs it.
        id: u64,
    },
    /// A release was cut and installed.
    ReleaseCut {
        /// What it is called.
        release: String,
        /// What it was cut from.
        origin: String,
        /// Bytes of its files.
        bytes: u64,
    },
    /// No release was cut, and nothing has changed.
    ReleaseFailed {
        /// The number of the deployment or the request that needed it.
        id: u64,
        /// Why, in a sentence.
        why: String,
        /// The last lines of its build, where it was the build.
        #[serde(default)]
        log_tail: Vec<String>,
    },
    /// A request that changes something was admitted.
    OperationStarted {
        /// Its number.
        id: u64,
        /// What was asked for.
        kind: OperationKind,
    },
    /// A request that changes something came to its end.
    OperationFinished {
        /// Its number.
        id: u64,
        /// What was asked for.
        kind: OperationKind,
        /// How it ended.
        state: OperationState,
        /// Why it ended so.
        why: Option<String>,
        /// How long it took, in milliseconds.
        duration_ms: u64,
    },
    /// A worker said how it is (`STATUS=`).
    NotifyStatus {
        /// Its words.
        text: String,
    },
    /// A worker took up a task.
    TaskBegun {
        /// The task.
        task: String,
        /// What sort of task, if it said so.
        kind: Option<String>,
    },
    /// A worker ended a task.
    TaskEnded {
        /// The task.
        task: String,
        /// How.
        outcome: TaskOutcome,
        /// How long it took, in milliseconds.
        duration_ms: u64,
    },
    /// A new configuration could not be taken; the old one stays.
    ConfigRejected {
        /// The file.
        file: String,
        /// Why, in a sentence.
        why: String,
    },
    /// A log file takes nothing, and lines are being dropped.
    LogsDropping {
        /// The log file.
        file: String,
        /// What the kernel said: "no space left on device".
        why: String,
    },
    /// A log file takes lines again.
    LogsResumed {
        /// The log file.
        file: String,
        /// Lines that were dropped meanwhile.
        lines: u64,
        /// Bytes of them.
        bytes: u64,
    },
    /// A hook did not end as it must.
    HookFailed {
        /// What it was run for: `crash`, `park` and so on.
        on: String,
        /// The program and its arguments.
        command: Vec<String>,
        /// How it ended.
        why: String,
        /// The last lines that it printed.
        #[serde(default)]
        output: Vec<String>,
    },
    /// The events from `from` up to and including `to` are no longer kept. Never journaled: sent in their place to
    /// a client that asked for them. Its `seq` is `to`.
    EventsLost {
        /// The first that is missing.
        from: u64,
        /// The last that is missing.
        to: u64,
    },
    /// A type newer than this reader.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

/// How a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TaskOutcome {
    /// It was done.
    Ok,
    /// It failed.
    Error,
    /// It was called off.
    Cancelled,
    /// Its worker handed it over to another.
    Yielded,
    /// Its worker ended under it.
    Lost,
    /// An outcome newer than this reader.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}
