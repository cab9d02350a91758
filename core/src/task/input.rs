//! What comes in: messages of workers, orders of the supervisor, and what the store knows about the names in them.
//!
//! No payload passes through here: input, checkpoints and results are the shell's, which stores them by task, step
//! and key next to the rows that a step asks for.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::{AppName, Generation, Launch, Operation};
use crate::time::Moment;

use super::name::{EffectKey, Fence, Key, Kind, Link, Session, TaskId};
use super::state::{End, Input, Released};

/// What a worker says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// It dialled, or dialled again.
    Hello {
        /// How many tasks it lets itself be sent at once; 0 when it takes none.
        max_tasks: u32,
    },
    /// It is ready (protocol level 3's readiness).
    Ready,
    /// It takes up a task.
    Begin(Begin),
    /// It is at a point that it can go on from.
    Checkpoint {
        /// Which task, under which fence.
        own: Own,
        /// Which step, rising.
        step: u64,
        /// It may be handed over here.
        safe: bool,
        /// What its release calls the format.
        state_version: Option<u32>,
    },
    /// It is about to do something that the world sees.
    EffectBegin {
        /// Which task, under which fence.
        own: Own,
        /// The effect's name within the task.
        key: EffectKey,
        /// What sort of effect: chooses the policy.
        kind: Kind,
    },
    /// It did it, or could not.
    EffectEnd {
        /// Which task, under which fence.
        own: Own,
        /// The effect's name within the task.
        key: EffectKey,
        /// Whether it happened.
        ok: bool,
    },
    /// A task is over.
    End {
        /// Which task, under which fence.
        own: Own,
        /// How it ended.
        outcome: Ending,
    },
    /// It gives a task up at a safe point.
    Yield {
        /// Which task, under which fence.
        own: Own,
    },
    /// It is at these tasks.
    Beat {
        /// Which, under which fences, and how far (the shell's number for what was told).
        tasks: Vec<(Own, Option<u64>)>,
    },
    /// It is about to write something that hangs on a task (`kv.put` with a task named).
    Guard {
        /// Which task, under which fence.
        own: Own,
    },
}

/// A task and the fence that the speaker believes to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Own {
    /// Which.
    pub task: TaskId,
    /// Under which.
    pub fence: Fence,
}

/// What a task is begun with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begin {
    /// Its name, if its worker chose one. Without it and without a key, a `begin` sent again is another task.
    pub task: Option<TaskId>,
    /// Its idempotency key.
    pub key: Option<Key>,
    /// What sort of work.
    pub kind: Option<Kind>,
    /// What it belongs with.
    pub session: Option<Session>,
    /// Whether there is an input to begin again from.
    pub input: Input,
}

/// How a worker says that a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Done.
    Ok,
    /// Failed.
    Error,
    /// Given up, as somebody wanted.
    Cancelled,
}

impl From<Ending> for End {
    fn from(outcome: Ending) -> Self {
        match outcome {
            Ending::Ok => Self::Ok,
            Ending::Error => Self::Error,
            Ending::Cancelled => Self::Cancelled,
        }
    }
}

/// What the store is to look up before a message is given to the ledger: [`Ledger::needs`](super::Ledger::needs).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs<'a> {
    /// An ended task by its id.
    pub task: Option<&'a TaskId>,
    /// The latest ended task by its app and key.
    pub key: Option<(&'a AppName, &'a Key)>,
    /// Whether there is a checkpoint of this task at this step.
    pub checkpoint: Option<(&'a TaskId, u64)>,
    /// An effect by its task and key.
    pub effect: Option<(&'a TaskId, &'a EffectKey)>,
}

/// What the store found, field by field of [`Needs`]. It sees what the open transaction wrote before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// The ended task of that id.
    pub task: Option<Ended>,
    /// The ended task of that key.
    pub key: Option<Ended>,
    /// There is a checkpoint at that step.
    pub checkpoint: bool,
    /// The effect.
    pub effect: Option<EffectRecord>,
}

/// A task that is over, as the store keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Its name.
    pub task: TaskId,
    /// Whose it was.
    pub app: AppName,
    /// The last fence.
    pub fence: Fence,
    /// How it ended.
    pub end: End,
    /// See [`Task::released`](super::Task::released).
    pub released: Option<Released>,
}

/// An effect as the store keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EffectRecord {
    /// The fence it was last begun under.
    pub fence: Fence,
    /// What is known of it.
    pub state: EffectState,
}

/// What is known of an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EffectState {
    /// Begun and never ended: indeterminate once its owner is another.
    Intent,
    /// It happened.
    Done,
    /// It did not happen; it may be begun again.
    Failed,
    /// Nobody knows, and it is not to be done again.
    Skipped,
}

/// What follows when an effect of an earlier owner is indeterminate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Doubt {
    /// Do it again: the remote side takes our key, or doing it twice is harmless.
    Retry,
    /// Leave it.
    Skip,
    /// Park the task until a person has judged.
    Ask,
}

/// How long an owner may keep silent where its app asks for nothing else.
pub const LEASE: Duration = Duration::from_secs(30);

/// What an app wants for its tasks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskPolicy {
    /// What becomes of tasks that a drain has no more time for.
    pub on_deadline: OnDeadline,
    /// Effect kinds and what follows their doubt; others are asked for, but for `model` and `read`, which retry.
    pub doubts: BTreeMap<Kind, Doubt>,
    /// The most open tasks; what is begun beyond is refused.
    pub max_open: usize,
    /// How long an owner may keep silent. It is to beat every third of this.
    pub lease: Duration,
}

impl Default for TaskPolicy {
    fn default() -> Self {
        Self { on_deadline: OnDeadline::Checkpoint, doubts: BTreeMap::new(), max_open: 100_000, lease: LEASE }
    }
}

impl TaskPolicy {
    /// What follows when an effect of this kind is indeterminate.
    #[must_use]
    pub fn doubt(&self, kind: &Kind) -> Doubt {
        match self.doubts.get(kind) {
            Some(&doubt) => doubt,
            None if matches!(kind.as_str(), "model" | "read") => Doubt::Retry,
            None => Doubt::Ask,
        }
    }
}

/// What becomes of tasks that a drain has no more time for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnDeadline {
    /// They go on elsewhere from their last checkpoint; what has none is lost.
    Checkpoint,
    /// As long as one gets on, the deadline moves, up to the most; then as [`OnDeadline::Checkpoint`].
    Extend,
    /// They are lost.
    Kill,
}

/// What the supervisor tells the ledger. Every order may be given twice, and is given again when the batch that it was
/// in could not be committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// An app's policy, from now on. Given before its first `LaunchBorn`.
    Policy {
        /// Whose.
        app: AppName,
        /// What it wants.
        policy: TaskPolicy,
    },
    /// A process start exists.
    LaunchBorn {
        /// Which.
        launch: Launch,
        /// Whose.
        app: AppName,
        /// Of which deployment.
        generation: Generation,
        /// The format of checkpoints that its release writes; it is taken to read older ones.
        state_version: Option<u32>,
    },
    /// It serves, or serves again after a drain that was taken back.
    LaunchReady {
        /// Which.
        launch: Launch,
    },
    /// It takes nothing new and is to come to its end. Given again to change the deadline.
    DrainBegan {
        /// Which.
        launch: Launch,
        /// The drain.
        drain: Drain,
    },
    /// Its process ended, with all its tree.
    LaunchGone {
        /// Which.
        launch: Launch,
        /// Who wanted it.
        gone: Gone,
    },
    /// One of its connections closed.
    LinkClosed {
        /// Whose.
        launch: Launch,
        /// Which.
        link: Link,
    },
    /// The next generation of an app was shown copies of its open checkpoints.
    Looked {
        /// Whose.
        app: AppName,
        /// By which deployment, for the answer.
        deployment: Operation,
        /// Who looked.
        generation: Generation,
        /// Tasks whose checkpoint it cannot read. It reads all others.
        unread: BTreeSet<TaskId>,
    },
    /// Every process that is there has been told of: what restored tasks' owners are not among them are gone.
    AllTold,
    /// A worker told of a task by datagram.
    Told {
        /// Which worker.
        launch: Launch,
        /// See [`TaskId::told`].
        task: TaskId,
        /// What.
        word: Told,
    },
}

/// What a person wants of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// A person wants a parked task to run again.
    Retry {
        /// Which.
        task: TaskId,
        /// What to do about the effect it is parked for; none when it is parked for its crashes.
        effect: Option<Judged>,
    },
    /// A person gives a waiting or parked task up.
    Discard {
        /// Which.
        task: TaskId,
    },
    /// A person wants a task to end.
    Cancel {
        /// Which.
        task: TaskId,
        /// Who or why, in words.
        reason: String,
    },
}

/// A drain as far as tasks go. The deadline is the shell's to find: the estimator's answer for the ages in
/// [`Ledger::in_hand`](super::Ledger::in_hand).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drain {
    /// Why, as the worker is told.
    pub reason: String,
    /// What replaces it, as the worker is told.
    pub to_release: Option<String>,
    /// Until when the task that asked for it, and those that are stuck with a checkpoint, have time when no other is left.
    pub least: Moment,
    /// When tasks are cut, unless they extend it.
    pub deadline: Moment,
    /// When they are cut whatever they do.
    pub latest: Moment,
    /// The task that asked for this. It is never a reason to extend.
    pub asked_by: Option<TaskId>,
    /// Who takes its place; none where nobody does.
    pub successor: Option<Successor>,
    /// The longest usual gap between safe points, by kind.
    pub usual: Usual,
}

/// The workers that take the place of a draining one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Successor {
    /// Of which deployment.
    pub generation: Generation,
    /// The format of checkpoints that its release writes; it is taken to read older ones.
    pub state_version: Option<u32>,
    /// Whether a task whose checkpoint it does not read is waited for until it ends. Where it is not, that task has the
    /// time of the others, and waits then for a worker that reads it.
    pub waits: bool,
}

/// How long tasks usually go without a safe point, from the estimator's gap series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usual {
    /// By kind.
    pub kinds: BTreeMap<Kind, Duration>,
    /// For all others.
    pub other: Duration,
}

impl Usual {
    /// For tasks of this kind.
    #[must_use]
    pub fn of(&self, kind: Option<&Kind>) -> Duration {
        kind.and_then(|kind| self.kinds.get(kind)).copied().unwrap_or(self.other)
    }
}

/// Who wanted a process to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gone {
    /// It was told to.
    Asked,
    /// Nobody: a crash, as tasks go.
    Crashed,
}

/// What a worker tells of a task by datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// It took it up.
    Began {
        /// What sort of work.
        kind: Option<Kind>,
    },
    /// It is at a safe point.
    Safe,
    /// It is over.
    Ended(Ending),
}

/// What a person says about an effect that nobody knows the end of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Judged {
    /// It did not happen, or may happen again.
    Redo,
    /// It happened, or is not to.
    Skip,
}
