//! The life of one task, from its admission to its end.
//!
//! ```text
//!             begin                                      end: ok, error, cancelled
//!   (worker) ──────► Running: held ──────────────────────────────────────────────► ended
//!                     ▲   │  │  │                                                    ▲ ▲
//!   first word of the │   │  │  │ nothing to resume from, and its worker ended,      │ │
//!   new owner         │   │  │  └──── was cut, or its lease ran out: lost ───────────┘ │
//!            Running: offered │                                                        │
//!                     ▲   │  ├── cancel ──► Running: cancelling ── any end, worker's ──┤
//!   task.run, or a    │   │  │                                     exit, lease over    │
//!   begin of its key  │   │  │                                                         │
//!                     │   │  └── yield, deadline, crash, lease over:  fence + 1        │
//!                     │   ▼                                                            │
//!                    Waiting { not_before, after }          cancel, discard ───────────┤
//!                     ▲   │                                                            │
//!              retry  │   │ third crash, or an effect that only a person can judge     │
//!                     │   ▼                                                            │
//!                    Parked ───────────────────── cancel, discard ─────────────────────┘
//!
//!   (datagram) BEGIN ──► Told ── END ──► ended        no owner to fence: lost when its process ends
//! ```
//!
//! Happy path: `Running: held → ended`. Whatever takes a task from its owner raises its fence in the same write.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::{AppName, Generation, Launch, Pid};
use crate::time::Moment;

use super::name::{EffectKey, Fence, Key, Kind, Link, Session, TaskId};

/// An open task: one that was admitted and has not ended.
///
/// Written whole when [`Row::Task`](super::Row::Task) says so. What is read back by other ways is marked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Its name.
    pub id: TaskId,
    /// Whose it is.
    pub app: AppName,
    /// What sort of work.
    pub kind: Option<Kind>,
    /// What it belongs with.
    pub session: Option<Session>,
    /// Its idempotency key.
    pub key: Option<Key>,
    /// Whether the store has what it was begun with.
    pub input: Input,
    /// Who owns it now, or will.
    pub fence: Fence,
    /// Which run this is, or the next will be, from 1.
    pub attempt: u32,
    /// Runs that ended in a crash or a lost lease since a person last looked at it.
    pub crashes: u32,
    /// How long it ran before the present run.
    pub ran: Duration,
    /// Its latest checkpoint. Read back from the checkpoints.
    pub checkpoint: Option<Mark>,
    /// Effects that the present owner began and has not ended. Read back from the effects (intents with its fence).
    pub intents: u32,
    /// The last time that an owner gave it up and was told so: its word may come again.
    pub released: Option<Released>,
    /// The generation that was found, by its own `check`, not to read the checkpoint; nor is any later one believed to,
    /// before another look says so.
    #[serde(default)]
    pub unread_by: Option<Generation>,
    /// What it is doing.
    pub state: State,
}

/// Whether the store has what a task was begun with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Input {
    /// Nothing was given: only its worker knows what to do.
    Absent,
    /// It can be begun again from it.
    Kept,
}

/// A durable checkpoint. Its payload is the store's, found by task and step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Which step of the task, rising.
    pub step: u64,
    /// The task may be handed over here.
    pub safe: bool,
    /// What the release that wrote it calls its format.
    pub state_version: Option<u32>,
    /// When it came.
    pub at: Moment,
}

/// An owner gave a task up, and was told that it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Released {
    /// Who.
    pub launch: Launch,
    /// The fence it had.
    pub fence: Fence,
}

/// What an open task is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// A worker owns it.
    Running(Run),
    /// A worker told of it by datagram. Nobody can be fenced, nothing can be resumed.
    Told {
        /// Which process start.
        launch: Launch,
        /// Since when.
        since: Moment,
        /// When it was last at a safe point.
        safe_at: Moment,
    },
    /// Nobody runs it, and it goes on elsewhere.
    Waiting {
        /// Not earlier than this.
        not_before: Moment,
        /// Not before this process has ended; none when no process may still be at it.
        after: Option<Launch>,
        /// Why it is not running.
        why: Paused,
    },
    /// Nobody runs it until a person says what to do.
    Parked {
        /// Since when.
        since: Moment,
        /// Why.
        why: ParkedFor,
    },
}

/// One ownership of a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The process start that owns it.
    pub launch: Launch,
    /// The process of it that began it or was offered it.
    pub pid: Pid,
    /// Where that process can be told something; none while it is not connected.
    #[serde(skip)]
    pub link: Option<Link>,
    /// Since when.
    pub since: Moment,
    /// Until when the owner need not say that it is at it.
    pub lease_until: Moment,
    /// When it last got on: a checkpoint, an effect, or a beat with other progress.
    pub sign: Moment,
    /// The progress last told, as the shell's number for it.
    #[serde(skip)]
    pub progress: Option<u64>,
    /// When it was last at a safe point; none when that is not known any more.
    pub safe_at: Option<Moment>,
    /// How far the two agree on it.
    pub stage: Stage,
}

/// How far a worker and the ledger agree on who runs a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// It was sent `task.run` and has not said a word about it yet. Sent again when it redials.
    Offered,
    /// It is at it.
    Held,
    /// Somebody wants it to end. Sent again when it redials; it is not run again, however it ends.
    Cancelling {
        /// Who or why, in words.
        reason: String,
    },
}

/// Why a task that can go on is not running.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Paused {
    /// Its worker gave it up at a safe point.
    Yielded,
    /// Its worker's drain had no more time, or its worker was ended.
    Cut,
    /// Its worker crashed.
    Crashed,
    /// Its worker kept silent for a whole lease.
    Silent,
    /// A person asked for another run.
    Retried,
}

/// Why a task waits for a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ParkedFor {
    /// It crashed its worker too often.
    Crashes,
    /// An effect was begun and nobody knows whether it happened.
    Effect(EffectKey),
}

/// How a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// Its worker said so: done.
    Ok,
    /// Its worker said so: failed.
    Error,
    /// Cancelled, by its worker's word or in its absence.
    Cancelled,
    /// It was cut and could not go on elsewhere.
    Lost(Loss),
    /// A person gave it up.
    Discarded,
}

/// Why a task was lost. There is nothing to resume it from, unless the policy is to kill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Loss {
    /// Its worker crashed.
    Crashed,
    /// Its worker was ended while it ran.
    Cut,
    /// Its worker kept silent for a whole lease.
    Silent,
}

impl Loss {
    /// As a reason after the task's name.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Crashed => "its worker crashed, and it had no checkpoint and no input to go on from",
            Self::Cut => "its worker was ended before it was done",
            Self::Silent => "its worker kept silent for a whole lease, and it had no checkpoint and no input",
        }
    }
}

impl Task {
    /// Whether it can go on in another worker.
    #[must_use]
    pub fn resumable(&self) -> bool {
        match self.state {
            State::Told { .. } => false,
            State::Running(_) | State::Waiting { .. } | State::Parked { .. } => {
                self.checkpoint.is_some() || self.input == Input::Kept
            }
        }
    }

    /// Whether a generation reads its checkpoint, as far as is known: it reads what it writes and what is older, unless it
    /// looked and could not. One that states no version is believed to read all; so is everybody where there is no
    /// checkpoint.
    #[must_use]
    pub fn is_read_by(&self, generation: Generation, state_version: Option<u32>) -> bool {
        let Some(mark) = self.checkpoint else { return true };
        let newer = mark.state_version.zip(state_version).is_some_and(|(written, reads)| written > reads);
        !newer && self.unread_by.is_none_or(|unread| generation < unread)
    }

    /// The process start that has it in hand.
    #[must_use]
    pub fn owner(&self) -> Option<Launch> {
        match &self.state {
            State::Running(run) => Some(run.launch),
            State::Told { launch, .. } => Some(*launch),
            State::Waiting { .. } | State::Parked { .. } => None,
        }
    }

    /// Its present ownership.
    #[must_use]
    pub fn run(&self) -> Option<&Run> {
        match &self.state {
            State::Running(run) => Some(run),
            State::Told { .. } | State::Waiting { .. } | State::Parked { .. } => None,
        }
    }

    /// How long it has run by now, over all its runs.
    #[must_use]
    pub fn age(&self, now: Moment) -> Duration {
        match &self.state {
            State::Running(Run { since, .. }) | State::Told { since, .. } => self.ran + now.since(*since),
            State::Waiting { .. } | State::Parked { .. } => self.ran,
        }
    }

    /// How long it has run since it was last at a safe point; none when that is not known.
    #[must_use]
    pub fn since_safe(&self, now: Moment) -> Option<Duration> {
        match &self.state {
            State::Running(run) => run.safe_at.map(|at| now.since(at)),
            State::Told { safe_at, .. } => Some(now.since(*safe_at)),
            State::Waiting { .. } | State::Parked { .. } => None,
        }
    }

    /// When it last got on, while somebody is at it.
    #[must_use]
    pub fn sign(&self) -> Option<Moment> {
        match &self.state {
            State::Running(run) => Some(run.sign),
            State::Told { safe_at, .. } => Some(*safe_at),
            State::Waiting { .. } | State::Parked { .. } => None,
        }
    }

    /// Whether a drain does not wait for it: it made checkpoints, and has not got on for longer than `usual`, the gap that
    /// its kind usually has between safe points. One without a checkpoint may be slow, and cannot be told from one that
    /// is stuck.
    #[must_use]
    pub fn stuck(&self, now: Moment, usual: Duration) -> bool {
        self.checkpoint.is_some() && self.sign().is_some_and(|sign| now.since(sign) > usual)
    }
}
