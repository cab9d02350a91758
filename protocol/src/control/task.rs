//! Everything that is kept of one task: what a person needs who looks at one that is parked.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::tasks::EffectView;

/// What is kept of a task beside what lists show.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TaskDetails {
    /// What it was begun with. Of one that is over it is not kept.
    pub input: Option<PayloadView>,
    /// What its worker gave at its end: its result, or what went wrong.
    pub result: Option<PayloadView>,
    /// Its checkpoints that are kept, the last first.
    pub checkpoints: Vec<CheckpointView>,
    /// Who had it before and has it no more, the last first.
    pub runs: Vec<RunView>,
    /// What it did outside, indeterminate ones first; at most 100.
    pub effects: Vec<EffectView>,
}

/// Something that a task carries.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PayloadView {
    /// How large it is.
    pub bytes: u64,
    /// What it is, where it is JSON of at most 64 KiB.
    pub json: Option<Value>,
}

/// A durable checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CheckpointView {
    /// Which step of the task.
    pub step: u64,
    /// How large it is.
    pub bytes: u64,
    /// When it came.
    pub at: Timestamp,
    /// Under which fence.
    pub fence: u64,
    /// Whether the task may be handed over there.
    pub safe: bool,
    /// What the release that wrote it calls its format.
    pub state_version: Option<u32>,
}

/// A run of a task that its worker did not end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RunView {
    /// Under which fence.
    pub fence: u64,
    /// By which worker.
    pub worker: String,
    /// Of which generation.
    pub generation: Option<u64>,
    /// What that worker ran.
    pub release: String,
    /// When it was over.
    pub left_at: Timestamp,
    /// How: `yielded`, `cut`, `crashed`, `silent`, `parked`, `lost`.
    pub how: String,
    /// How its worker's process ended, once it has: "killed by SIGKILL".
    pub exit: Option<String>,
}
