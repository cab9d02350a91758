//! What comes out: rows to write, then answers and words to give, then facts to report. In this order, always: nothing
//! of it is seen by anybody before the transaction that holds the rows is committed.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::id::{AppName, Launch, Operation};
use crate::time::Moment;

use super::input::{Drain, EffectState, Ended};
use super::name::{EffectKey, Fence, Kind, Link, Session, TaskId};
use super::state::{End, Loss};

/// All that came of the steps of one batch, in order.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What to write. The shell takes these after each step, while it has the payloads of the message in hand.
    pub rows: Vec<Row>,
    /// What to tell workers, after the commit.
    pub words: Vec<ToWorker>,
    /// What the fleet is to know, after the commit.
    pub facts: Vec<Fact>,
    /// What the estimator is to learn, after the commit.
    pub spans: Vec<Span>,
}

/// Something to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Row {
    /// Write this open task as it now is (`Ledger::task`), new or changed.
    Task(TaskId),
    /// Its owner reached this checkpoint.
    Checkpoint {
        /// Whose.
        task: TaskId,
        /// The owner's.
        fence: Fence,
        /// Which; one of the same step is replaced.
        mark: super::Mark,
    },
    /// An effect is now known to be so.
    Effect {
        /// Whose.
        task: TaskId,
        /// Which.
        key: EffectKey,
        /// Under whose fence.
        fence: Fence,
        /// Its kind, when it is begun.
        kind: Option<Kind>,
        /// What is known.
        state: EffectState,
    },
    /// An open task is over and is none any more.
    Ended {
        /// What is kept.
        ended: Ended,
        /// How long it ran, over all its runs.
        ran: Duration,
    },
}

/// The answer to a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Welcome; these tasks are its own as far as the ledger knows.
    Welcome {
        /// Its tasks and fences. What it has and does not find here was never begun or is another's.
        resume: Vec<Resume>,
        /// How long a lease lasts.
        lease: Duration,
    },
    /// Done, or done before.
    Ok,
    /// The task is its own.
    Begun {
        /// Its name.
        task: TaskId,
        /// Its owner's number.
        fence: Fence,
        /// Which run this is, from 1.
        attempt: u32,
        /// The step to go on from.
        checkpoint: Option<u64>,
    },
    /// There is, or was, such a task.
    Duplicate {
        /// Its name.
        task: TaskId,
        /// How it stands.
        of: Duplicate,
    },
    /// What to do about an effect.
    Effect(EffectAnswer),
}

/// A task that a worker owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resume {
    /// Its name.
    pub task: TaskId,
    /// The owner's number.
    pub fence: Fence,
    /// The last step that was made durable.
    pub checkpoint: Option<u64>,
}

/// How the task stands that a key or an id already belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duplicate {
    /// Somebody runs it.
    Running,
    /// It goes on elsewhere.
    Waiting,
    /// It waits for a person.
    Parked,
    /// It is done; its result is the store's.
    Done,
}

/// What to do about an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EffectAnswer {
    /// Do it.
    New,
    /// It happened; its result is the store's.
    Done,
    /// It was begun by an earlier owner and may have happened: do it again.
    Retry,
    /// It was begun by an earlier owner and may have happened: leave it.
    Skip,
    /// It was begun by an earlier owner and may have happened: the task is parked, and no more its speaker's.
    Parked,
}

/// Why a message was refused. Nothing was changed by it.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Refused {
    /// The supervisor knows of no such process start, or saw it end.
    #[error("launch {0} is not a running worker")]
    UnknownWorker(Launch),
    /// It never said hello on this connection.
    #[error("say hello first")]
    NoHello,
    /// No such task was ever begun, or it is forgotten.
    #[error("no task {0} is known")]
    UnknownTask(TaskId),
    /// Another owns it now, or will.
    #[error("task {task} {}", fenced_words(*said, *now))]
    Fenced {
        /// Which.
        task: TaskId,
        /// What the message carried.
        said: Fence,
        /// Its fence now.
        now: Fence,
    },
    /// It is over.
    #[error("task {task} is over: {}", end_word(.end))]
    Ended {
        /// Which.
        task: TaskId,
        /// How.
        end: End,
    },
    /// The id belongs to another app's task, or to one told by datagram.
    #[error("task id {0} is taken")]
    Taken(TaskId),
    /// Too many tasks are open.
    #[error("{app} has {open} open tasks, the most that it may have")]
    TooMany {
        /// Whose.
        app: AppName,
        /// How many.
        open: usize,
    },
    /// Checkpoints go forward.
    #[error("checkpoint {step} of task {task} is behind the last one, {last}")]
    StepBack {
        /// Which task.
        task: TaskId,
        /// What was sent.
        step: u64,
        /// What is there.
        last: u64,
    },
    /// It was not begun by this owner.
    #[error("effect {key} of task {task} was not begun by this owner")]
    UnknownEffect {
        /// Whose.
        task: TaskId,
        /// Which.
        key: EffectKey,
    },
    /// Nobody could go on with it.
    #[error("task {0} has no checkpoint and no input that another worker could go on from")]
    NotResumable(TaskId),
    /// Whoever takes over cannot read its checkpoint.
    #[error("task {0} stays: what takes the place of this worker does not read its checkpoint")]
    Unread(TaskId),
    /// It would be run elsewhere while its owner may still be at an effect.
    #[error("task {task} has {open} open effects: end them first")]
    EffectsOpen {
        /// Whose.
        task: TaskId,
        /// How many.
        open: u32,
    },
}

/// How a task ended, as a fragment.
#[must_use]
pub fn end_word(end: &End) -> &'static str {
    match end {
        End::Ok => "done",
        End::Error => "failed",
        End::Cancelled => "cancelled",
        End::Lost(loss) => loss.word(),
        End::Discarded => "discarded by a person",
    }
}

/// Whose a task is, as far as its fence tells.
fn fenced_words(said: Fence, now: Fence) -> String {
    if said == now {
        return "is not this worker's".to_owned();
    }
    format!("has fence {now}, not {said}: it was taken from this worker")
}

/// Why an order of a person was denied. Nothing was changed by it.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Denied {
    /// No such task is open.
    #[error("no open task {0}")]
    NotOpen(TaskId),
    /// Only parked tasks are retried.
    #[error("task {0} is not parked")]
    NotParked(TaskId),
    /// It has an owner, who must be told first.
    #[error("task {0} is running: cancel it instead")]
    Running(TaskId),
    /// Nobody can say it to its worker.
    #[error("task {0} was told of by datagram, and its worker cannot be told to end it")]
    Unreachable(TaskId),
    /// A person must say what became of the effect.
    #[error("task {task} is parked because nobody knows whether effect {key} happened: say redo or skip")]
    EffectUnjudged {
        /// Which.
        task: TaskId,
        /// For which effect.
        key: EffectKey,
    },
}

/// A word to a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToWorker {
    /// Whose.
    pub launch: Launch,
    /// Over which connection.
    pub link: Link,
    /// What.
    pub word: Word,
}

/// What a worker is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// Run this. May come twice: the same task and fence are the same run. Input and checkpoint are the store's.
    Run {
        /// Which.
        task: TaskId,
        /// Its owner's number.
        fence: Fence,
        /// What sort of work.
        kind: Option<Kind>,
        /// What it belongs with.
        session: Option<Session>,
        /// Which run this is, from 1.
        attempt: u32,
        /// The step to go on from.
        checkpoint: Option<u64>,
    },
    /// Finish or yield what you have; take nothing new.
    Drain {
        /// Until when.
        deadline: Moment,
        /// Why.
        reason: String,
        /// What replaces it.
        to_release: Option<String>,
    },
    /// The drain was taken back: serve on.
    DrainEnded,
    /// Make a checkpoint of this task if you can: it is cut soon.
    CheckpointNow {
        /// Which.
        task: TaskId,
    },
    /// End this task.
    Cancel {
        /// Which.
        task: TaskId,
        /// Who or why, in words.
        reason: String,
    },
    /// This task is not yours any more.
    Fenced {
        /// Which.
        task: TaskId,
    },
}

/// What the fleet is to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// A worker said that it is ready.
    Ready {
        /// Which.
        launch: Launch,
    },
    /// A draining worker has so many tasks in hand. Told when its drain begins and whenever it changes.
    InHand {
        /// Which.
        launch: Launch,
        /// How many.
        tasks: u32,
        /// Of these, the one that asked for the drain: whoever it asked need not wait for it.
        asker: u32,
        /// Of these, those that stay until they end: whoever takes its place does not read their checkpoint.
        stay: u32,
    },
    /// What a generation reads and does not read is written down.
    Looked {
        /// Whose.
        app: AppName,
        /// By which deployment.
        deployment: Operation,
    },
    /// When a draining worker's tasks are cut. Told when its drain begins and whenever it moves.
    Deadline {
        /// Which.
        launch: Launch,
        /// When.
        at: Moment,
    },
    /// A draining worker has no more time: what could be handed over was taken from it. It is to be told to end.
    TimeOver {
        /// Which.
        launch: Launch,
        /// So many it had in hand until now, or had given up before and go on at its end.
        tasks: u32,
    },
    /// A worker ended: what became of its tasks in its drain, and of those that it had in hand at its end.
    Settled {
        /// Which.
        launch: Launch,
        /// What became of them.
        tally: Tally,
    },
}

/// What became of the tasks of a worker that drained or ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Ended while it drained.
    pub finished: u32,
    /// Go on elsewhere.
    pub handed_over: u32,
    /// Wait for a person.
    pub parked: u32,
    /// Lost; the first [`Tally::NAMED`] of them by name.
    pub lost: u32,
    /// Names and reasons.
    pub named: Vec<(TaskId, Loss)>,
}

impl Tally {
    /// The most lost tasks that are named.
    pub const NAMED: usize = 100;
}

/// A stretch of work for the estimator (grace.md, `on end`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Which task.
    pub task: TaskId,
    /// Whose.
    pub app: AppName,
    /// Which kind's series, beside the app's pool.
    pub kind: Option<Kind>,
    /// Which of the two twins.
    pub of: Stretch,
    /// The age it was at when it was first seen (left truncation).
    pub age0: Duration,
    /// The age at its end.
    pub age: Duration,
    /// How it ended: only `Done` is an end, all others censor.
    pub fate: Fate,
}

/// What a stretch of work spans.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stretch {
    /// A run of a task.
    Task,
    /// From one safe point to the next, or to the task's end.
    Gap,
}

/// How a stretch of work ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// By itself.
    Done,
    /// It was cut and is lost.
    Killed,
    /// Its worker crashed or fell silent.
    Crashed,
    /// It goes on elsewhere, or waits for a person.
    HandedOver,
}

/// A task that a worker has in hand, as the estimator and the reader of a drain want it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InHand {
    /// Its name.
    pub task: TaskId,
    /// Its kind.
    pub kind: Option<Kind>,
    /// How long it has run.
    pub age: Duration,
    /// Since its last safe point, for tasks that have a checkpoint; none for others.
    pub since_safe: Option<Duration>,
    /// Whether it has a checkpoint: one that never made any says nothing by being silent.
    pub checkpointed: bool,
    /// Since it last got on.
    pub since_sign: Duration,
}

impl InHand {
    /// Whether a drain does not wait for it: it made checkpoints, and has not got on for longer than `usual`, the gap
    /// of its kind. One without a checkpoint may be slow, and cannot be told from one that is stuck.
    #[must_use]
    pub fn stuck(&self, usual: Duration) -> bool {
        self.checkpointed && self.since_sign > usual
    }
}

impl Outcome {
    pub(super) fn say(&mut self, launch: Launch, link: Link, word: Word) {
        self.words.push(ToWorker { launch, link, word });
    }
}

impl Word {
    pub(super) fn drain(drain: &Drain) -> Self {
        Self::Drain { deadline: drain.deadline, reason: drain.reason.clone(), to_release: drain.to_release.clone() }
    }
}
