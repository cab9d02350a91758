//! One app: what is wanted of it, its workers, and the deployment that changes it.
//!
//! ```text
//!            start                         stop                      (all ended)
//!  unknown ────────► Running ◄──────────────────────────── Stopped ──────────────┐
//!                     │   ▲  └────────────── stop ───────────► ▲                 │ delete
//!                     │   │                                    │                 ▼
//!        reload, restart, scale (shared)                       └─── delete ──► Deleted ──► forgotten
//!                     ▼   │
//!                    rollout (see `rollout`)
//! ```
//!
//! Desired and current state are apart: a request changes what is desired, and [`App::reconcile`] moves what is
//! towards it after every event, by levels rather than by scripts, so a crash in the middle of anything needs no
//! code of its own.

mod operation;
mod outgrown;
mod reconcile;
mod refreshing;
mod relief;
mod sound;
mod stages;
#[cfg(test)]
mod table;
mod weights;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::effect::{Outcome, StopReason};
use crate::event::WorkerEvent;
use crate::id::{AppName, Generation, Lane, Launch, Revision, Slot, WorkerId};
use crate::policy::{AppPolicy, Lanes};
use crate::refresh::{Refresh, Refreshes};
use crate::rollout::Rollout;
use crate::time::{Moment, Tick};
use crate::worker::{After, Phase, State, Worker};

pub use operation::{Pending, Undo};
pub use sound::Unsound;
pub use stages::Steer;

pub use crate::needs::Rise;

/// An app with its workers.
#[derive(Clone, Debug, PartialEq)]
pub struct App {
    /// Everything but the workers; written as one record.
    pub head: Head,
    /// Its workers by slot; each written as a record of its own. Boxed: a node of the map has room for eleven.
    pub workers: BTreeMap<Slot, Box<Worker>>,
    /// The shares last asked for, by lane.
    pub weights: Vec<u32>,
}

/// What is kept of an app beside its workers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Head {
    /// Its name.
    pub name: AppName,
    /// What somebody asked for last.
    pub desired: Desired,
    /// How many workers serve; the configuration's number unless it was scaled.
    pub count: u32,
    /// How far it has come since it was asked to run.
    #[serde(default)]
    pub rise: Rise,
    /// The configuration that new workers of `generation` get.
    pub revision: Revision,
    /// The generation that serves (while a deployment runs: served before it).
    pub generation: Generation,
    /// The newest generation ever made.
    pub last_generation: Generation,
    /// The policy of each revision that a worker may still run. Boxed, as the workers are.
    pub policies: BTreeMap<Revision, Box<AppPolicy>>,
    /// The deployment that runs.
    pub rollout: Option<Rollout>,
    /// Requests that are not over.
    pub pending: Vec<Pending>,
    /// The lane where connections wait while nobody is ready; the next worker starts there.
    pub parked: Option<Lane>,
    /// Lanes in whose accept queue connections may wait: they had a share, and have not been seen empty since. One
    /// that no worker is in gets one (see `app::relief`).
    #[serde(default)]
    pub owed: BTreeSet<Lane>,
    /// The worker that is started beyond `count` for the sake of an owed lane, until it is ready.
    #[serde(default)]
    pub relief: Option<Slot>,
    /// The refresh that runs, and what is kept of those before.
    #[serde(default)]
    pub refreshes: Refreshes,
}

impl Head {
    /// An app that was found running, with nothing written of it: it is wanted as it runs.
    #[must_use]
    pub fn of_running(
        name: AppName,
        revision: Revision,
        policy: AppPolicy,
        generation: Generation,
        count: u32,
    ) -> Self {
        let head = App::new(name, revision, policy).head;
        Self { desired: Desired::Running, generation, last_generation: generation, count, ..head }
    }
}

/// What somebody asked for last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Desired {
    /// Run.
    Running,
    /// Be there, without workers.
    Stopped,
    /// Be gone, once nothing of it is left.
    Deleted,
}

/// How an app is, in one word, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppState {
    /// All its workers are ready.
    Running,
    /// None is ready yet, and some are starting.
    Starting,
    /// Some are ready and some are not, outside of a deployment.
    Degraded,
    /// A deployment runs.
    Deploying,
    /// Nobody wants it to run, or its workers ended for good.
    Stopped,
    /// None is ready, and one waits for a person.
    Failed,
}

/// What an app needs of the fleet while it takes a step.
pub(crate) struct Context<'a> {
    /// Now, and chance.
    pub(crate) tick: Tick,
    /// The next number for a process start.
    pub(crate) next_launch: &'a mut Launch,
    /// Where to put what is to be done.
    pub(crate) out: &'a mut Outcome,
    /// The supervisor ends: workers are stopped, though their app is wanted.
    pub(crate) winding_down: bool,
    /// Somebody who needs the app is on its way out and not gone: until then it goes on serving.
    pub(crate) held: bool,
}

impl Context<'_> {
    fn launch(&mut self) -> Launch {
        let launch = *self.next_launch;
        *self.next_launch = launch.next();
        launch
    }
}

impl App {
    pub(crate) fn new(name: AppName, revision: Revision, policy: AppPolicy) -> Self {
        let head = Head {
            name,
            desired: Desired::Stopped,
            rise: Rise::Waiting,
            count: policy.workers,
            revision,
            generation: Generation(0),
            last_generation: Generation(0),
            policies: BTreeMap::from([(revision, Box::new(policy))]),
            rollout: None,
            pending: Vec::new(),
            parked: None,
            owed: BTreeSet::new(),
            relief: None,
            refreshes: Refreshes::default(),
        };
        Self { head, workers: BTreeMap::new(), weights: Vec::new() }
    }

    /// How it is, in one word.
    #[must_use]
    pub fn state(&self) -> AppState {
        let (mut ready, mut starting, mut failed) = (0, 0, 0);
        for worker in self.workers.values() {
            match worker.state.phase() {
                Phase::Ready => ready += 1,
                Phase::Starting | Phase::Backoff => starting += 1,
                Phase::Failed => failed += 1,
                Phase::Draining | Phase::Stopping | Phase::Exited => {}
            }
        }
        if self.head.rollout.is_some() {
            AppState::Deploying
        } else if self.head.desired != Desired::Running {
            AppState::Stopped
        } else if self.head.rise == Rise::Waiting && !self.has_any_process() {
            AppState::Starting
        } else if ready >= self.head.count {
            AppState::Running
        } else if ready > 0 {
            AppState::Degraded
        } else if failed > 0 {
            AppState::Failed
        } else if starting > 0 || self.has_any_process() {
            AppState::Starting
        } else {
            AppState::Stopped
        }
    }

    /// Workers that serve now.
    #[must_use]
    pub fn ready(&self) -> u32 {
        self.in_phase(|_| true, Phase::Ready)
    }

    /// The policy of the revision that `worker` runs.
    #[must_use]
    pub fn policy_of(&self, worker: &Worker) -> &AppPolicy {
        self.policy(worker.revision)
    }

    /// The policy of the revision that serves.
    #[must_use]
    pub fn policy_now(&self) -> &AppPolicy {
        self.policy(self.head.revision)
    }

    fn policy(&self, revision: Revision) -> &AppPolicy {
        self.head.policies.get(&revision).expect("every revision that is named has its policy")
    }

    /// When something changes by itself next.
    #[must_use]
    pub fn wake(&self) -> Option<Moment> {
        let deployment = self.head.rollout.as_ref().and_then(Rollout::due).filter(|_| self.deploys());
        let refresh = self.head.refreshes.running.as_ref().and_then(Refresh::due);
        self.workers.values().filter_map(|worker| worker.state.wake()).chain(deployment).chain(refresh).min()
    }

    /// Whether a deployment moves on; one of an app that is being stopped does not.
    fn deploys(&self) -> bool {
        self.head.desired == Desired::Running
    }

    pub(crate) fn has_any_process(&self) -> bool {
        self.workers.values().any(|worker| worker.state.process().is_some())
    }

    fn in_phase(&self, of: impl Fn(&Worker) -> bool, phase: Phase) -> u32 {
        let count = self.workers.values().filter(|worker| of(worker) && worker.state.phase() == phase).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// Whether what becomes of the tasks of the worker in `slot` is part of how an operation goes. What an old worker loses
    /// that crashes by itself is not the deployment's doing.
    #[must_use]
    pub fn answers_for(&self, slot: Slot) -> bool {
        let is_new = |worker: &Worker| {
            self.head.rollout.as_ref().is_some_and(|rollout| rollout.to.generation == worker.id.generation)
        };
        self.workers.get(&slot).is_some_and(|worker| worker.state.reason().is_some() || is_new(worker))
    }

    /// Takes in a fact about the process of the worker in `slot`, then moves the app on.
    pub(crate) fn on_worker(&mut self, cx: &mut Context<'_>, slot: Slot, event: WorkerEvent) {
        let Some(worker) = self.workers.get_mut(&slot) else { return };
        if let (WorkerEvent::Refreshed { id, result }, Some(launch)) = (&event, worker.launch()) {
            return self.on_refreshed(cx, launch, *id, result.clone());
        }
        let reason = worker.state.reason();
        if let WorkerEvent::TaskEnded { id } = &event
            && reason.is_some()
            && worker.state.process().is_some_and(|process| process.tasks.contains_key(id))
        {
            self.count(cx, reason, |toll| toll.finished += 1);
        }
        if let WorkerEvent::TasksSettled(tally) = &event
            && self.answers_for(slot)
        {
            self.count(cx, reason, |toll| toll.add(tally));
        }
        let Some(worker) = self.workers.get_mut(&slot) else { return };
        let policy = self.head.policies.get(&worker.revision).expect("a worker's revision has its policy");
        let after = worker.step(cx.tick, policy, event, cx.out);
        self.follow(cx, slot, after);
    }

    /// Goes on under a new supervisor.
    pub(crate) fn resume(&mut self, cx: &mut Context<'_>) {
        let slots: Vec<Slot> = self.workers.keys().copied().collect();
        for slot in slots {
            let Some(worker) = self.workers.get_mut(&slot) else { continue };
            let policy = self.head.policies.get(&worker.revision).expect("a worker's revision has its policy");
            let after = worker.resume(cx.tick, policy, cx.out);
            self.follow(cx, slot, after);
        }
        self.ask_about_stage(cx);
        if let Some(refresh) = &mut self.head.refreshes.running {
            refresh.resume();
        }
        self.reconcile(cx);
    }

    /// Does what is due for every worker, then moves the app on.
    pub(crate) fn on_wake(&mut self, cx: &mut Context<'_>) {
        let due: Vec<Slot> = self
            .workers
            .iter()
            .filter(|(_, worker)| worker.state.wake().is_some_and(|at| at <= cx.tick.now))
            .map(|(&slot, _)| slot)
            .collect();
        let mut moved = self.head.rollout.as_ref().and_then(Rollout::due).is_some_and(|at| at <= cx.tick.now);
        moved |= self.head.refreshes.running.as_ref().and_then(Refresh::due).is_some_and(|at| at <= cx.tick.now);
        let mut afters = Vec::new();
        for slot in due {
            let Some(worker) = self.workers.get_mut(&slot) else { continue };
            let policy = self.head.policies.get(&worker.revision).expect("a worker's revision has its policy");
            if matches!(worker.state, State::Backoff { until } if until <= cx.tick.now) && !cx.winding_down {
                let launch = cx.launch();
                worker.start(cx.tick, policy, launch, cx.out);
                continue;
            }
            let after = worker.wake(cx.tick, policy, cx.out);
            moved |= after != After::Same;
            afters.push((slot, after));
        }
        // All that is due is known before anything is decided by it.
        for (slot, after) in afters {
            self.note(cx, slot, after);
        }
        if moved {
            self.reconcile(cx);
        }
    }

    /// What a worker's step means to its app; then moves the app on.
    fn follow(&mut self, cx: &mut Context<'_>, slot: Slot, after: After) {
        if after != After::Same {
            self.note(cx, slot, after);
            self.reconcile(cx);
        }
    }

    /// What a worker's step means to its app.
    fn note(&mut self, cx: &mut Context<'_>, slot: Slot, after: After) {
        match after {
            After::Same => {}
            After::Moved => self.reverse_if_useless(cx, slot),
            After::Cut { in_flight } => {
                if in_flight.is_some_and(|seen| seen.queued == 0)
                    && let Some(lane) = self.workers.get(&slot).and_then(|worker| worker.lane)
                    && self.head.owed.remove(&lane)
                {
                    cx.out.save_app(&self.head.name);
                }
                let reason = self.workers.get(&slot).and_then(|worker| worker.state.reason());
                let in_flight = in_flight.unwrap_or_default();
                self.count(cx, reason, |toll| {
                    toll.idle_cut += in_flight.idle;
                    toll.busy_cut += in_flight.busy;
                });
            }
            After::Ended { reason, tasks_lost } => {
                self.count(cx, Some(reason), |toll| toll.lost += tasks_lost);
                let kept = self.keeps_stopped(cx, reason)
                    && self.workers.get(&slot).is_some_and(|worker| worker.id.generation == self.head.generation);
                if !kept {
                    self.remove(cx, slot);
                }
            }
            After::Crashed(crash) => self.crashed(cx, slot, &crash),
        }
    }

    /// Whether a worker that was stopped stays to be seen. One that only ends with the supervisor makes room for the one
    /// that the next supervisor starts.
    fn keeps_stopped(&self, cx: &Context<'_>, reason: StopReason) -> bool {
        reason == StopReason::Stop && !(cx.winding_down && self.head.desired == Desired::Running)
    }

    pub(crate) fn remove(&mut self, cx: &mut Context<'_>, slot: Slot) {
        if let Some(worker) = self.workers.remove(&slot) {
            cx.out.save_worker(&worker.id);
        }
    }

    /// Makes a worker of `generation` in a free slot and starts it.
    fn add_worker(&mut self, cx: &mut Context<'_>, slot: Slot, generation: Generation, revision: Revision) {
        let policy = self.policy(revision).clone();
        let lane = match policy.lanes {
            Lanes::None => None,
            Lanes::PerWorker => Some(Lane(slot.0)),
            Lanes::PerGeneration => Some(self.generation_lane(generation)),
        };
        let id = WorkerId { app: self.head.name.clone(), slot, generation };
        let mut worker = Worker {
            id,
            revision,
            lane,
            state: State::Exited,
            restarts: crate::restart::RestartHistory::default(),
            last_exit: None,
        };
        let launch = cx.launch();
        worker.start(cx.tick, &policy, launch, cx.out);
        self.workers.insert(slot, Box::new(worker));
    }

    /// The lane of a generation under [`Lanes::PerGeneration`]: the one its workers have, else the one where connections
    /// wait, else the lowest that no worker has. Two suffice as long as one deployment's leavings are gone before the
    /// next begins.
    fn generation_lane(&self, generation: Generation) -> Lane {
        if let Some(fellow) = self.workers.values().find(|worker| worker.id.generation == generation)
            && let Some(lane) = fellow.lane
        {
            return lane;
        }
        let free = |lane: &Lane| self.workers.values().all(|worker| worker.lane != Some(*lane));
        let mut lanes = self.head.parked.into_iter().chain((0..).map(Lane));
        lanes.find(free).expect("an app has fewer workers than there are numbers")
    }
}
