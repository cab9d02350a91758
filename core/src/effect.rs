//! What a step asks for, in the order in which it is to be done: persist, act, publish.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::event::{Exit, InFlight, Proof};
use crate::id::{AppName, Generation, Lane, Launch, Operation, Pid, Revision, Slot, WorkerId};
use crate::limit::LimitMet;
use crate::policy::DrainBy;
use crate::refresh::Renewal;
use crate::rollout::{StepName, StepReached};
use crate::task::{Loss, Tally, TaskId};
use crate::time::Moment;

/// All that came of one step. The shell commits what is dirty, then does `act` in order, then shows `publish`.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What must survive the supervisor before anything in `act` is seen by others.
    pub persist: Dirty,
    /// What to do.
    pub act: Vec<Effect>,
    /// What to tell.
    pub publish: Vec<Notice>,
}

/// Which parts of the fleet changed and must be written. Keys only: the shell writes the state as it is after the
/// step, so several changes of one worker are one write.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Dirty {
    /// Apps whose head (everything but the workers) changed, or that are gone.
    pub apps: BTreeSet<AppName>,
    /// Slots whose worker changed, or is gone.
    pub workers: BTreeSet<(AppName, Slot)>,
}

impl Dirty {
    /// Nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.apps.is_empty() && self.workers.is_empty()
    }
}

/// Something to do. What comes of it returns as an [`Event`](crate::event::Event) with the same launch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Start a process; answered by `Spawned` or `SpawnFailed`.
    Spawn {
        /// The new process start.
        launch: Launch,
        /// For whom.
        worker: WorkerId,
        /// With which configuration.
        revision: Revision,
        /// On which socket.
        lane: Option<Lane>,
    },
    /// Prove that it is ready, trying until told to stop or until it ends; answered by `ReadyProven`, and by
    /// `ReadyRefuted` for each new reason why not.
    ProveReady {
        /// Which process.
        launch: Launch,
    },
    /// Probe once whether it lives; answered by `ProbeAnswered`.
    ProbeLive {
        /// Which process.
        launch: Launch,
    },
    /// Watch what it still has in hand; answered by `DrainObserved` at each change until it ends.
    WatchDrain {
        /// Which process.
        launch: Launch,
    },
    /// Stop watching: it serves again.
    UnwatchDrain {
        /// Which process.
        launch: Launch,
    },
    /// Send the configured stop signal to its whole tree.
    SendStop {
        /// Which process.
        launch: Launch,
    },
    /// Send SIGABRT to it, so that a hung program leaves a trace.
    SendAbort {
        /// Which process.
        launch: Launch,
    },
    /// Kill its whole tree, escapees included.
    Kill {
        /// Which process.
        launch: Launch,
    },
    /// From now on this configuration governs a process that was started with another: how it is asked to end, how it
    /// is probed, how its output is kept.
    Govern {
        /// Which process.
        launch: Launch,
        /// By which configuration.
        revision: Revision,
    },
    /// Share new connections out like this from now on, atomically.
    SetWeights {
        /// Whose.
        app: AppName,
        /// A share per lane, index by lane; never all zero.
        weights: Vec<u32>,
    },
    /// Do what has to succeed before anything of a deployment begins; answered by `Prepared` or `Unprepared`.
    Prepare {
        /// Whose.
        app: AppName,
        /// Which deployment.
        id: Operation,
    },
    /// Look whether the new generation of a deployment may take its next step; answered by `Verified` or `Refused`.
    Verify {
        /// Whose.
        app: AppName,
        /// Which deployment.
        id: Operation,
        /// Which step.
        step: usize,
    },
    /// Find out which open checkpoints the new release of a deployment reads; answered by `Checked` or `Unfit`.
    Check {
        /// Whose.
        app: AppName,
        /// Which deployment.
        id: Operation,
    },
    /// Begin to judge the new generation by what it does, and go on until the next word about this deployment;
    /// answered by `Judged` at each change, or by `Condemned`.
    Judge {
        /// Whose.
        app: AppName,
        /// Which deployment.
        id: Operation,
    },
    /// Ask it to renew what it knows, as its configuration says; answered by `Refreshed`, or not in time.
    Refresh {
        /// Which process.
        launch: Launch,
        /// For which refresh.
        id: Operation,
    },
    /// Nothing of the app is left; give its sockets and names back.
    Forget {
        /// Which.
        app: AppName,
    },
}

/// Something to tell operators: what changed and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Notice {
    /// Whose.
    pub app: AppName,
    /// Which worker, where it is about one.
    pub worker: Option<WorkerId>,
    /// What.
    pub news: News,
}

/// What changed.
#[derive(Clone, Debug, PartialEq)]
pub enum News {
    /// The app is known from now on.
    AppAdded,
    /// The app is gone.
    AppDeleted,
    /// A process start was decided.
    Starting {
        /// Its launch.
        launch: Launch,
    },
    /// The process exists.
    Spawned {
        /// Its id.
        pid: Pid,
    },
    /// It serves.
    Ready {
        /// How that is known.
        proof: Proof,
        /// Time since its start.
        after: Duration,
    },
    /// It takes nothing new.
    Draining {
        /// Why.
        reason: StopReason,
        /// When it is told to end whatever it has.
        deadline: Moment,
    },
    /// How long it has for its tasks became known, or changed.
    DrainDeadline {
        /// When they are taken.
        deadline: Moment,
    },
    /// What it still has, while it drains.
    DrainProgress {
        /// In hand.
        in_flight: InFlight,
        /// Tasks it told of.
        tasks: u32,
    },
    /// It serves again: what replaced it was taken back.
    Undrained,
    /// It was told to end.
    Stopping {
        /// Why.
        reason: StopReason,
        /// Kept-alive connections between requests that this closes, and work that it cuts.
        cut: InFlight,
        /// Tasks it told of that are cut.
        tasks_cut: u32,
    },
    /// It did not end in time and was killed.
    Killed,
    /// Its process ended.
    Exited {
        /// How.
        exit: Exit,
        /// Who wanted it.
        cause: ExitCause,
        /// In words.
        reason: String,
        /// How long it ran.
        uptime: Duration,
    },
    /// It is started again after a wait.
    Backoff {
        /// How long.
        delay: Duration,
        /// Which restart within the period this is.
        attempt: u32,
    },
    /// It is not started again until somebody asks.
    Parked {
        /// Why.
        why: String,
    },
    /// A liveness probe failed.
    ProbeFailed {
        /// What was seen.
        why: String,
        /// How many in a row now.
        failures: u32,
        /// How many replace it.
        of: u32,
    },
    /// It met one of its limits and serves on, until another has taken its place.
    Outgrown {
        /// Which, with figures.
        limit: LimitMet,
    },
    /// A deployment began.
    RolloutStarted {
        /// Its id.
        id: Operation,
        /// From.
        from: Generation,
        /// To.
        to: Generation,
    },
    /// A deployment failed and goes back.
    RolloutReversed {
        /// Its id.
        id: Operation,
        /// Why, in one sentence.
        why: String,
        /// The worker that failed.
        culprit: Option<Launch>,
    },
    /// A deployment reached its next stage.
    StageReached {
        /// Its id.
        id: Operation,
        /// Which.
        name: StepName,
        /// Percent of new connections for the new generation.
        percent: Option<u8>,
    },
    /// The gates let a deployment stand where it is.
    RolloutHeld {
        /// Its id.
        id: Operation,
        /// Why, with figures.
        why: String,
    },
    /// Somebody lets a deployment stand where it is.
    RolloutPaused {
        /// Its id.
        id: Operation,
    },
    /// It goes on.
    RolloutResumed {
        /// Its id.
        id: Operation,
    },
    /// It was asked to renew what it knows, and this came of it.
    Refreshed(Renewal),
    /// An operation is over; a deployment's id is its operation's.
    Finished(Finished),
}

/// The end of an operation.
#[derive(Clone, Debug, PartialEq)]
pub struct Finished {
    /// Which.
    pub id: Operation,
    /// What was asked for.
    pub kind: OperationKind,
    /// How it ended.
    pub result: OperationResult,
    /// Why, unless it is done.
    pub why: Option<String>,
    /// The worker start to blame, whose log is worth showing.
    pub culprit: Option<Launch>,
    /// When it began.
    pub started_at: Moment,
    /// When it ended.
    pub finished_at: Moment,
    /// For a deployment: the generation that served before, and the one asked for.
    pub deployment: Option<(Generation, Generation)>,
    /// What it did to the work in flight.
    pub toll: Toll,
    /// For a deployment: when it reached each of its stages.
    pub steps: Vec<StepReached>,
}

/// What an operation did to the work in flight of the workers that it ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Toll {
    /// Tasks that ended by themselves while their worker drained.
    pub finished: u32,
    /// Tasks that go on in another worker.
    #[serde(default)]
    pub handed_over: u32,
    /// Tasks that their worker took to its grave.
    pub lost: u32,
    /// The first of these by name, each with why.
    #[serde(default)]
    pub lost_tasks: Vec<(TaskId, Loss)>,
    /// Idle kept-alive connections that were closed.
    pub idle_cut: u32,
    /// Connections on which work may have been going on when their worker was told to end at its deadline.
    pub busy_cut: u32,
}

impl Toll {
    /// Adds what became of one worker's tasks.
    pub(crate) fn add(&mut self, tally: &Tally) {
        self.finished += tally.finished;
        self.handed_over += tally.handed_over + tally.parked;
        self.lost += tally.lost;
        let room = Tally::NAMED.saturating_sub(self.lost_tasks.len());
        self.lost_tasks.extend(tally.named.iter().take(room).cloned());
    }
}

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationKind {
    /// Make it run.
    Start,
    /// Make it end.
    Stop,
    /// Make it end, then forget it.
    Delete,
    /// Change the number of workers.
    Scale,
    /// A new generation beside the old.
    Reload,
    /// A new generation after the old.
    Restart,
    /// A new generation of another release.
    Upgrade,
    /// A new generation of a release that served before.
    Rollback,
    /// Another configuration for the workers that run.
    Adopt,
    /// Let the workers that run renew what they know.
    Refresh,
}

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationResult {
    /// As asked.
    Done,
    /// Taken back; what served before serves again.
    RolledBack,
    /// Another request took its place.
    Aborted,
    /// Not as asked, and nothing to go back to.
    Failed,
}

/// Why a worker is drained, stopped or killed; decides what follows its exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// Somebody stopped its app.
    Stop,
    /// Fewer workers are wanted.
    ScaleDown,
    /// A deployment put another in its place.
    Replaced,
    /// It belongs to a deployment that was taken back.
    RolledBack,
    /// It never became ready in time.
    NotReady,
    /// It failed its liveness probes.
    Unhealthy,
    /// It kept silent longer than its watchdog allows.
    Watchdog,
    /// It said by itself that it is ending.
    Own,
}

/// Who wanted a process to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitCause {
    /// Nobody: it ended by itself.
    Itself,
    /// Nobody: its program never ran.
    StartFailed,
    /// We did, for this reason.
    Asked(StopReason),
    /// It met one of its limits: the kernel ended it, or we replaced it.
    Limit(LimitMet),
}

impl StopReason {
    /// The word shown as an exit's reason.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::ScaleDown => "scale down",
            Self::Replaced => "reload",
            Self::RolledBack => "rollback",
            Self::NotReady => "not ready in time",
            Self::Unhealthy => "failed its liveness probes",
            Self::Watchdog => "watchdog",
            Self::Own => "ended by itself",
        }
    }
}

impl Outcome {
    /// Appends what came of a later step, so that both are persisted, done and told together.
    pub fn merge(&mut self, mut later: Self) {
        self.persist.apps.append(&mut later.persist.apps);
        self.persist.workers.append(&mut later.persist.workers);
        self.act.append(&mut later.act);
        self.publish.append(&mut later.publish);
    }

    pub(crate) fn tell(&mut self, worker: &WorkerId, news: News) {
        self.publish.push(Notice { app: worker.app.clone(), worker: Some(worker.clone()), news });
    }

    pub(crate) fn tell_app(&mut self, app: &AppName, news: News) {
        self.publish.push(Notice { app: app.clone(), worker: None, news });
    }

    pub(crate) fn save_worker(&mut self, worker: &WorkerId) {
        self.persist.workers.insert((worker.app.clone(), worker.slot));
    }

    pub(crate) fn save_app(&mut self, app: &AppName) {
        self.persist.apps.insert(app.clone());
    }
}

/// How a worker's drain ends, once its [`DrainBy`] and what it said are weighed.
#[must_use]
pub fn drain_by(policy: DrainBy, drains_itself: bool) -> DrainBy {
    if drains_itself { DrainBy::Signal } else { policy }
}
