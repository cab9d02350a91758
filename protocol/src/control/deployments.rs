//! Deployments, as they are remembered.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::reply::{LostTask, OperationKind, TaskCounts};
use super::tasks::EffectView;
use crate::status::{DeploymentState, GateVerdict, GateView, Strategy};

/// Parameters of `deployments`: the latest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeploymentsParams {
    /// Only of this app; of every one without it.
    #[serde(default)]
    pub name: Option<String>,
}

/// Answer to `deployments`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DeploymentList {
    /// At most a hundred of each app are kept. Without verdicts, curves, effects and hooks: `deployment` tells those.
    pub deployments: Vec<DeploymentReport>,
}

/// Parameters of `deployment`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeploymentParams {
    /// Which.
    pub id: u64,
}

/// A stage that a deployment reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StageView {
    /// `preparing`, `checking`, `replacing`, `raising`, `verifying`, `sharing`, `warm`, `retiring` or `back`.
    pub name: String,
    /// Percent of new connections for the new version from then on, where shares are by stage.
    pub percent: Option<u8>,
    /// When.
    pub at: Timestamp,
}

/// What the gates said at a time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct VerdictView {
    /// When.
    pub at: Timestamp,
    /// All together.
    pub verdict: GateVerdict,
    /// Why, unless nothing speaks against it.
    pub why: Option<String>,
    /// Each.
    pub gates: Vec<GateView>,
}

/// How long the tasks of a version took.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Durations {
    /// How many.
    pub n: u64,
    /// Half took at most so many milliseconds.
    pub p50_ms: u64,
    /// 99 in 100 took at most so many. Of fewer than 500 it is not worth much.
    pub p99_ms: u64,
    /// Durations in milliseconds at evenly spaced shares from 0 to all of them, at most 65.
    pub curve_ms: Vec<u64>,
}

/// A deployment from its beginning on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DeploymentReport {
    /// Its number.
    pub id: u64,
    /// Whose.
    pub app: String,
    /// What was asked for.
    pub kind: OperationKind,
    /// By which road.
    pub strategy: Strategy,
    /// What served before.
    pub from: String,
    /// What took its place, or tried to.
    pub to: String,
    /// The old workers.
    pub from_generation: u64,
    /// The new ones.
    pub to_generation: u64,
    /// Where it is, or how it ended.
    pub state: DeploymentState,
    /// Why it ended so, or went back; of one that runs, what it waits for.
    pub why: Option<String>,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// The stages that it reached, in order.
    pub stages: Vec<StageView>,
    /// What became of the tasks of the workers that it ended.
    pub tasks: TaskCounts,
    /// The first of those that were lost.
    #[serde(default)]
    pub lost_tasks: Vec<LostTask>,
    /// Connections that were cut.
    pub connections_cut: u64,
    /// Its gates as they stood last.
    #[serde(default)]
    pub gates: Vec<GateView>,
    /// What they said on the way: each change.
    #[serde(default)]
    pub verdicts: Vec<VerdictView>,
    /// The old version's tasks, the latest 4000 of the app at the end of the deployment considered.
    #[serde(default)]
    pub before: Option<Durations>,
    /// The new version's.
    #[serde(default)]
    pub after: Option<Durations>,
    /// What a version that was taken back did to the outside: rollback does not undo it. At most a hundred.
    #[serde(default)]
    pub effects: Vec<EffectView>,
    /// Which open checkpoints the new version reads, where that was looked at: the last look.
    #[serde(default)]
    pub checkpoints: Option<CheckpointsView>,
    /// The hooks that ran for it, in order.
    #[serde(default)]
    pub hooks: Vec<HookRun>,
}

/// One run of a hook for a deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HookRun {
    /// For what: `before_deployment`, `before_stage`, `after_stage`, `deployed`, `rollback` or `reload`.
    pub on: String,
    /// Which of the app's hooks, counted from 1.
    pub hook: u32,
    /// Percent of the new connections that the stage is about.
    pub percent: Option<u8>,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// What became of it.
    pub state: HookState,
    /// Why it failed, or why that is not known.
    pub why: Option<String>,
    /// When it began.
    pub begun_at: Timestamp,
    /// How long it took, in milliseconds, once it is over.
    pub took_ms: Option<u64>,
    /// The last lines that it printed.
    #[serde(default)]
    pub output: Vec<String>,
}

/// What became of a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HookState {
    /// It runs.
    Running,
    /// It ended with code 0.
    Done,
    /// It ended otherwise, was too late, or could not be run.
    Failed,
    /// It was ended with its supervisor, or with its deployment: how much of its work it did is not known.
    Cut,
    /// A state newer than this reader.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

/// What a release was shown of the checkpoints of open tasks before it took anything over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CheckpointsView {
    /// How many there were.
    pub open: u64,
    /// How many were shown to its `check`.
    pub shown: u64,
    /// How many it does not read: their tasks stay with the old version until they end.
    pub unread: u64,
    /// The first of these.
    pub tasks: Vec<UnreadTask>,
}

/// A task whose checkpoint a release does not read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UnreadTask {
    /// Which.
    pub task: String,
    /// Why not.
    pub why: String,
}
