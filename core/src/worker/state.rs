//! The life of one worker: a place in an app, and the process that fills it.
//!
//! ```text
//!                 ┌─────────────── Again (delay over) ──────────────┐
//!                 ▼                                                 │
//!  made ─► Starting ── proven ──► Ready ── drain ──► Draining       │
//!             │  │                 │  │ ▲               │ │         │
//!             │  │                 │  │ └── undrain ────┘ │ empty,  │
//!             │  │ not in time     │  │ unhealthy,        │ deadline│
//!             │  └──────────┐      │  │ watchdog          │         │
//!             │             ▼      │  ▼                   ▼         │
//!             │           Stopping ◄────────────────── (signal)     │
//!             │             │  │ deadline                           │
//!             │             │  └──────► Killed                      │
//!             │ exit        │ exit        │ exit    exit             │
//!             └─────────────┴──────┬──────┴───────────              │
//!                                  ▼                                │
//!                wanted again: ─► Backoff ──────────────────────────┘
//!                too often, or cannot start: ─► Failed    (until somebody asks)
//!                wanted no more: ─► Exited                (stays, or is removed by its app)
//! ```
//!
//! Happy path: `Starting → Ready → Draining → Stopping → Exited`. Every unhappy path is an arrow above. A word about a
//! process start that is not the present one reaches no worker (see `Fleet::step`).

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::effect::{ExitCause, StopReason};
use crate::event::{Exit, InFlight, Proof};
use crate::id::{Lane, Launch, Pid, Revision, WorkerId};
use crate::restart::RestartHistory;
use crate::time::Moment;

/// A worker: who it is, what it is doing, and what it has been through.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Worker {
    /// Its name, the same across restarts.
    pub id: WorkerId,
    /// The configuration it runs.
    pub revision: Revision,
    /// The socket it accepts from.
    pub lane: Option<Lane>,
    /// What it is doing.
    pub state: State,
    /// Its past restarts.
    pub restarts: RestartHistory,
    /// How its last process ended.
    pub last_exit: Option<LastExit>,
}

/// What a worker is doing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Its process was started and has not proven itself yet.
    Starting {
        /// The process.
        process: Process,
        /// When waiting ends.
        ready_by: Moment,
        /// The latest reason why it did not count as ready.
        refuted: Option<String>,
    },
    /// It serves.
    Ready {
        /// The process.
        process: Process,
        /// Since when.
        since: Moment,
        /// How that was known.
        proof: Proof,
        /// Where its liveness probes stand; none when there are none.
        probe: Option<Probe>,
    },
    /// It takes nothing new and finishes what it has.
    Draining {
        /// The process.
        process: Process,
        /// Since when it had served; none when it never was ready.
        served_since: Option<Moment>,
        /// Why.
        reason: StopReason,
        /// When it is told to end whatever it has.
        deadline: Moment,
        /// When the time of what it has in hand is over, which ends the drain earlier than `deadline`: when the ledger takes
        /// its tasks from it, or where it is kept warm for longer than that. None before either is known.
        #[serde(default)]
        tasks_until: Option<Moment>,
        /// It is not told to end before this, so that it can be taken back into service; none once that is over.
        warm_until: Option<Moment>,
        /// What it was last seen to have.
        in_flight: Option<InFlight>,
    },
    /// It was told to end.
    Stopping {
        /// The process.
        process: Process,
        /// Since when it had served.
        served_since: Option<Moment>,
        /// Why.
        reason: StopReason,
        /// When it is killed.
        kill_at: Moment,
    },
    /// Its whole tree was killed; the kernel has not let go of it yet.
    Killed {
        /// The process.
        process: Process,
        /// Since when it had served.
        served_since: Option<Moment>,
        /// Why it was told to end.
        reason: StopReason,
        /// When it is killed once more: something may have been forked meanwhile.
        again_at: Moment,
    },
    /// It has no process and gets one at `until`.
    Backoff {
        /// When.
        until: Moment,
    },
    /// It has no process and its policy wants none.
    Exited,
    /// It has no process and gets none until somebody asks.
    Failed {
        /// Why.
        why: String,
    },
}

/// The process of a worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Process {
    /// Which start this is.
    pub launch: Launch,
    /// The kernel's names for it, once it exists.
    pub kernel: Option<KernelProcess>,
    /// When the start was decided.
    pub started_at: Moment,
    /// Tasks that it told of and that have not ended: id → since when, and kind.
    pub tasks: BTreeMap<String, Task>,
    /// Tasks that the ledger knows it to have in hand, while it drains.
    #[serde(default)]
    pub in_hand: u32,
    /// It said that it finishes what it has after the stop signal.
    pub drains_itself: bool,
    /// Its watchdog, when it has one.
    pub watchdog: Option<Watchdog>,
}

/// What names a process for ever within one boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelProcess {
    /// Its id, reused by the kernel after its end.
    pub pid: Pid,
    /// Its start in clock ticks since boot, which tells it from a later process of the same id.
    pub start_time: u64,
}

/// A task that a worker told of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// When it was told.
    pub since: Moment,
    /// Its kind, if told.
    pub kind: Option<String>,
}

/// `sd_notify`'s watchdog of one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watchdog {
    /// The longest silence allowed.
    pub interval: Duration,
    /// When the present silence is too long.
    pub due: Moment,
}

/// Where a worker's liveness probes stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// How many failed in a row.
    pub failures: u32,
    /// What comes next.
    pub next: NextProbe,
}

/// What comes next of a worker's liveness probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NextProbe {
    /// One is due.
    At(Moment),
    /// One is under way.
    UnderWay,
}

/// How a worker's last process ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastExit {
    /// Which start that was.
    pub launch: Launch,
    /// How it ended.
    pub exit: Exit,
    /// Who wanted it to end.
    pub cause: ExitCause,
    /// In words.
    pub reason: String,
}

/// A [`State`] without its data, for tables and views.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// See [`State::Starting`].
    Starting,
    /// See [`State::Ready`].
    Ready,
    /// See [`State::Draining`].
    Draining,
    /// See [`State::Stopping`] and [`State::Killed`].
    Stopping,
    /// See [`State::Backoff`].
    Backoff,
    /// See [`State::Exited`].
    Exited,
    /// See [`State::Failed`].
    Failed,
}

impl State {
    /// The state's name.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match self {
            Self::Starting { .. } => Phase::Starting,
            Self::Ready { .. } => Phase::Ready,
            Self::Draining { .. } => Phase::Draining,
            Self::Stopping { .. } | Self::Killed { .. } => Phase::Stopping,
            Self::Backoff { .. } => Phase::Backoff,
            Self::Exited => Phase::Exited,
            Self::Failed { .. } => Phase::Failed,
        }
    }

    /// The process, while there is one.
    #[must_use]
    pub fn process(&self) -> Option<&Process> {
        match self {
            Self::Starting { process, .. }
            | Self::Ready { process, .. }
            | Self::Draining { process, .. }
            | Self::Stopping { process, .. }
            | Self::Killed { process, .. } => Some(process),
            Self::Backoff { .. } | Self::Exited | Self::Failed { .. } => None,
        }
    }

    /// The process, to note what it says.
    pub(crate) fn process_mut(&mut self) -> Option<&mut Process> {
        match self {
            Self::Starting { process, .. }
            | Self::Ready { process, .. }
            | Self::Draining { process, .. }
            | Self::Stopping { process, .. }
            | Self::Killed { process, .. } => Some(process),
            Self::Backoff { .. } | Self::Exited | Self::Failed { .. } => None,
        }
    }

    /// Since when it serves or had served, while its process is there.
    #[must_use]
    pub fn served_since(&self) -> Option<Moment> {
        match self {
            Self::Ready { since, .. } => Some(*since),
            Self::Draining { served_since, .. }
            | Self::Stopping { served_since, .. }
            | Self::Killed { served_since, .. } => *served_since,
            Self::Starting { .. } | Self::Backoff { .. } | Self::Exited | Self::Failed { .. } => None,
        }
    }

    /// Why it is on its way out, while it is.
    #[must_use]
    pub fn reason(&self) -> Option<StopReason> {
        match self {
            Self::Draining { reason, .. } | Self::Stopping { reason, .. } | Self::Killed { reason, .. } => {
                Some(*reason)
            }
            Self::Starting { .. } | Self::Ready { .. } | Self::Backoff { .. } | Self::Exited | Self::Failed { .. } => {
                None
            }
        }
    }

    /// Why it waits for a person, when it does.
    #[must_use]
    pub fn why_failed(&self) -> Option<&str> {
        match self {
            Self::Failed { why } => Some(why),
            Self::Starting { .. }
            | Self::Ready { .. }
            | Self::Draining { .. }
            | Self::Stopping { .. }
            | Self::Killed { .. }
            | Self::Backoff { .. }
            | Self::Exited => None,
        }
    }

    /// The earliest moment at which the state changes by itself.
    #[must_use]
    pub fn wake(&self) -> Option<Moment> {
        match self {
            // A watchdog counts from readiness on; a program may beat before.
            Self::Starting { ready_by, .. } => Some(*ready_by),
            Self::Ready { process, probe, .. } => {
                let probe = probe.and_then(|probe| match probe.next {
                    NextProbe::At(at) => Some(at),
                    NextProbe::UnderWay => None,
                });
                match (probe, watchdog_due(process)) {
                    (Some(a), b) => Some(earlier(a, b)),
                    (None, b) => b,
                }
            }
            Self::Draining { deadline, warm_until, .. } => Some(earlier(*deadline, *warm_until)),
            Self::Stopping { kill_at, .. } => Some(*kill_at),
            Self::Killed { again_at, .. } => Some(*again_at),
            Self::Backoff { until } => Some(*until),
            Self::Exited | Self::Failed { .. } => None,
        }
    }
}

fn watchdog_due(process: &Process) -> Option<Moment> {
    process.watchdog.map(|watchdog| watchdog.due)
}

fn earlier(a: Moment, b: Option<Moment>) -> Moment {
    b.map_or(a, |b| a.min(b))
}

impl Worker {
    /// The present process start, while there is one.
    #[must_use]
    pub fn launch(&self) -> Option<Launch> {
        self.state.process().map(|process| process.launch)
    }

    /// Tasks in hand that it told of.
    #[must_use]
    pub fn tasks(&self) -> usize {
        self.state.process().map_or(0, |process| process.tasks.len() + process.in_hand as usize)
    }
}
