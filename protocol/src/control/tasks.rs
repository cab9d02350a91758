//! What is asked of tasks, effects, sessions and the estimator, and what is answered.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::task::TaskDetails;

/// Rows that a list has when not said, and at most.
pub const ROWS: u32 = 100;
/// The most rows of one answer.
pub const ROWS_MAX: u32 = 10_000;

const fn rows() -> u32 {
    ROWS
}

/// Where a task is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    /// A worker has it.
    Running,
    /// It goes on as soon as a worker takes it.
    Waiting,
    /// It waits for a person.
    Parked,
    /// It is over.
    Ended,
    /// A state newer than this reader.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

/// Parameters of `tasks.list`: the open tasks, oldest first, then those that are over, latest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TasksParams {
    /// Only of these apps; of every app when empty.
    #[serde(default)]
    pub names: Vec<String>,
    /// Only of this kind.
    #[serde(default)]
    pub kind: Option<String>,
    /// Only of this session.
    #[serde(default)]
    pub session: Option<String>,
    /// Only this task, with all that is kept of it.
    #[serde(default)]
    pub task: Option<String>,
    /// Only in these states; in any when empty.
    #[serde(default)]
    pub states: Vec<TaskState>,
    /// At most so many.
    #[serde(default = "rows")]
    pub limit: u32,
}

impl Default for TasksParams {
    fn default() -> Self {
        Self { names: Vec::new(), kind: None, session: None, task: None, states: Vec::new(), limit: ROWS }
    }
}

/// Answer to `tasks.list`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TaskList {
    /// As asked for.
    pub tasks: Vec<TaskView>,
    /// There are more than were asked for.
    pub more: bool,
}

/// A task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TaskView {
    /// Its id.
    pub id: String,
    /// Whose.
    pub app: String,
    /// What sort of work.
    pub kind: Option<String>,
    /// What it belongs with.
    pub session: Option<String>,
    /// Its idempotency key.
    pub key: Option<String>,
    /// Where it is in its life.
    pub state: TaskState,
    /// Why it waits or is parked; how it ended: `ok`, `error`, `cancelled`, `discarded`, `lost: …`.
    pub why: Option<String>,
    /// Whether it has a checkpoint and has not got on for longer than its kind usually takes between safe points: a
    /// drain does not wait for it.
    pub stuck: bool,
    /// Which run this is, or the next will be.
    pub attempt: u32,
    /// Its owner's number.
    pub fence: u64,
    /// The worker that has it, or had it last.
    pub worker: Option<String>,
    /// The generation of that worker.
    #[serde(default)]
    pub generation: Option<u64>,
    /// What that worker runs.
    pub release: Option<String>,
    /// Trace that it belongs to (W3C).
    pub traceparent: Option<String>,
    /// How long it has run, over all its runs.
    pub age_ms: u64,
    /// What half of its kind take, where anything is known.
    pub p50_ms: Option<u64>,
    /// What 99 in a hundred of its kind take.
    pub p99_ms: Option<u64>,
    /// The step of its last checkpoint.
    pub step: Option<u64>,
    /// When that was.
    pub checkpoint_at: Option<Timestamp>,
    /// Effects that were begun and not ended.
    pub open_effects: u32,
    /// For one that is parked over an effect: its key.
    pub parked_effect: Option<String>,
    /// When it was begun.
    pub begun_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Figures that its worker told at its end: tokens, cost and the like.
    pub figures: Option<serde_json::Value>,
    /// All else that is kept of it, where it was asked for by its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Box<TaskDetails>>,
}

/// What is done with a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum TaskChange {
    /// Let a parked one run again.
    Retry {
        /// What became of the effect that it is parked over; needed when it is.
        #[serde(default)]
        effect: Option<EffectJudgement>,
    },
    /// Give a waiting or parked one up.
    Discard,
    /// Tell a running one to end; give up one that does not run.
    Cancel {
        /// Who or why, for the worker.
        #[serde(default)]
        reason: Option<String>,
    },
}

/// What a person says of an effect that nobody knows the end of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EffectJudgement {
    /// Do it again.
    Redo,
    /// Leave it.
    Skip,
}

/// Parameters of `tasks.change`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TaskChangeParams {
    /// Which task.
    pub task: String,
    /// What to do.
    pub change: TaskChange,
}

/// Answer to `tasks.change`: the task as it is now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TaskChanged {
    /// The task.
    pub task: TaskView,
}

/// Parameters of `effects.list`: indeterminate ones first, then the latest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EffectsParams {
    /// Only of these apps; of every app when empty.
    #[serde(default)]
    pub names: Vec<String>,
    /// Only of this task.
    #[serde(default)]
    pub task: Option<String>,
    /// Only what this release did.
    #[serde(default)]
    pub release: Option<String>,
    /// At most so many.
    #[serde(default = "rows")]
    pub limit: u32,
}

impl Default for EffectsParams {
    fn default() -> Self {
        Self { names: Vec::new(), task: None, release: None, limit: ROWS }
    }
}

/// Answer to `effects.list`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EffectList {
    /// As asked for.
    pub effects: Vec<EffectView>,
    /// There are more than were asked for.
    pub more: bool,
}

/// What is known of an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EffectState {
    /// Begun, and its worker is at it.
    Open,
    /// Begun and never ended, and its worker is gone: nobody knows.
    Indeterminate,
    /// It happened.
    Done,
    /// It did not happen.
    Failed,
    /// Nobody knows, and it is not to be done again.
    Skipped,
    /// A state newer than this reader.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

/// An effect.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EffectView {
    /// Whose.
    pub app: String,
    /// Of which task.
    pub task: String,
    /// Its name within the task.
    pub key: String,
    /// What sort of effect.
    pub kind: String,
    /// What is known of it.
    pub state: EffectState,
    /// The release that began it.
    pub release: String,
    /// Under which fence.
    pub fence: u64,
    /// In words, as its worker told.
    pub description: Option<String>,
    /// How it could be undone, as its worker told.
    pub compensate: Option<serde_json::Value>,
    /// What went wrong.
    pub error: Option<serde_json::Value>,
    /// When it was begun.
    pub begun_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
}

/// Parameters of `sessions.list`: latest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SessionsParams {
    /// Whose.
    pub name: String,
    /// At most so many.
    #[serde(default = "rows")]
    pub limit: u32,
}

/// Answer to `sessions.list`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SessionList {
    /// As asked for.
    pub sessions: Vec<SessionView>,
    /// There are more than were asked for.
    pub more: bool,
}

/// A session: tasks that belong together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SessionView {
    /// Its name.
    pub session: String,
    /// Tasks of it that are open.
    pub open: u64,
    /// Of these, those that wait for a person.
    pub parked: u64,
    /// Tasks of it that are over and kept.
    pub ended: u64,
    /// The release that its latest task ran on.
    pub release: String,
    /// When its latest task was begun.
    pub last_at: Timestamp,
}

/// Parameters of `grace`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GraceParams {
    /// Whose.
    pub name: String,
}

/// Answer to `grace`: what its tasks take, and how long a drain that began now might.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GraceView {
    /// Whose.
    pub app: String,
    /// How long a drain of all its workers that began now might take.
    pub grace_ms: u64,
    /// Why, in a sentence: "3 tasks, oldest 41 s; 99 % of such finish within 312 s; 37 of 512 observations censored".
    pub why: String,
    /// Wanted probability that nothing is cut.
    pub target: f64,
    /// Its workers with what they have in hand.
    pub workers: Vec<WorkerGrace>,
    /// Survival curves: of all tasks, then of each kind; until the end, then until a safe point.
    pub curves: Vec<CurveView>,
    /// The tasks in hand, oldest first; at most 1,000.
    pub tasks: Vec<InHandView>,
}

/// How long a drain of one worker might take.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WorkerGrace {
    /// Which.
    pub worker: String,
    /// How long a drain that began now might take.
    pub grace_ms: u64,
    /// Why, in a sentence.
    pub why: String,
}

/// A survival curve.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CurveView {
    /// Of which kind; of all tasks when none.
    pub kind: Option<String>,
    /// Whether it is of the gaps between safe points instead of whole tasks.
    pub gaps: bool,
    /// Durations in seconds with the share that takes longer, falling from 1.
    pub points: Vec<(f64, f64)>,
    /// What half take longer than, in seconds.
    pub p50_s: f64,
    /// What one in ten takes longer than, in seconds.
    pub p90_s: f64,
    /// What one in a hundred takes longer than, in seconds.
    pub p99_s: f64,
    /// Observations that it rests on.
    pub seen: u64,
    /// How many of them were cut.
    pub cut: u64,
}

/// A task in hand.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct InHandView {
    /// Its id.
    pub task: String,
    /// Its kind.
    pub kind: Option<String>,
    /// Who has it.
    pub worker: String,
    /// Its age.
    pub age_ms: u64,
    /// Since its last safe point, where it has one.
    pub since_safe_ms: Option<u64>,
    /// Whether it has a checkpoint and has not got on for longer than its kind usually takes between safe points: a
    /// drain does not wait for it.
    pub stuck: bool,
}

/// Parameters of `tasks.usage`: none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TasksUsageParams {}

/// Answer to `tasks.usage` and `tasks.prune`: what is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TasksUsage {
    /// By app.
    pub apps: Vec<AppUsage>,
    /// Bytes of the database with its log.
    pub database_bytes: u64,
    /// Files of large payloads.
    pub blobs: u64,
    /// And their bytes.
    pub blob_bytes: u64,
    /// Tasks that were let go of by this request.
    pub pruned: u64,
    /// Bytes of payload files that were removed by it.
    pub freed_bytes: u64,
}

/// What is kept of one app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AppUsage {
    /// Which.
    pub app: String,
    /// Tasks that are open.
    pub open: u64,
    /// Tasks that are over.
    pub ended: u64,
    /// Their effects, and those of open tasks.
    pub effects: u64,
    /// Checkpoints.
    pub checkpoints: u64,
    /// Items of its small store.
    pub items: u64,
}

/// Parameters of `tasks.prune`: lets go of tasks that are over, and of payload files that nothing names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TasksPruneParams {
    /// Only of these apps; of every app when empty.
    #[serde(default)]
    pub names: Vec<String>,
    /// Those that ended so long ago; all when 0.
    #[serde(default)]
    pub older_than_ms: u64,
}
