//! All apps together: the one entry for facts and requests, and the invariants that hold after every step.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use crate::admission::{Admitted, Denied, Request};
use crate::app::{App, Context, Desired, Head, Rise};
use crate::effect::{Effect, News, Outcome};
use crate::event::Event;
use crate::id::{AppName, Launch, Operation, Slot, WorkerId};
use crate::policy::Lanes;
use crate::time::{Moment, Tick};
use crate::worker::{Phase, State, Worker};

/// Numbers that are never given out twice within an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// The next process start.
    pub launch: Launch,
    /// The next operation.
    pub operation: Operation,
}

impl Default for Counters {
    fn default() -> Self {
        Self { launch: Launch(1), operation: Operation(1) }
    }
}

/// Every app of an instance.
#[derive(Clone, Debug, Default)]
pub struct Fleet {
    apps: BTreeMap<AppName, App>,
    counters: Counters,
    /// Which app and slot a process start belongs to, while it is the present one.
    launches: HashMap<Launch, (AppName, Slot)>,
    /// The supervisor ends: every worker does, whatever is wanted of its app.
    pub(crate) winding_down: bool,
}

impl Fleet {
    /// What was persisted, as it was. Afterwards, in this order: look for the processes of workers that have no kernel
    /// names yet and tell of those that are there as `Spawned`; then call [`Fleet::resume`]; then give the facts that
    /// were missed meanwhile as events.
    #[must_use]
    pub fn restore(counters: Counters, heads: Vec<Head>, workers: Vec<Worker>) -> Self {
        let mut fleet = Self { counters, ..Self::default() };
        for head in heads {
            let app = App { workers: BTreeMap::new(), weights: Vec::new(), head };
            fleet.apps.insert(app.head.name.clone(), app);
        }
        let mut launches = BTreeSet::new();
        for mut worker in workers {
            worker.forget_observations();
            if let Some(launch) = worker.launch() {
                // One process fills one place: whoever names it second is not believed.
                if !launches.insert(launch) {
                    continue;
                }
                fleet.counters.launch = fleet.counters.launch.max(launch.next());
            }
            // A policy or an app that is gone leaves nothing to run it by; the shell finds and ends such processes.
            if let Some(app) = fleet.apps.get_mut(&worker.id.app)
                && app.head.policies.contains_key(&worker.revision)
            {
                app.workers.insert(worker.id.slot, Box::new(worker));
            }
        }
        let names: Vec<AppName> = fleet.apps.keys().cloned().collect();
        for name in names {
            fleet.index(&name);
        }
        fleet
    }

    /// All apps by name.
    pub fn apps(&self) -> impl Iterator<Item = &App> {
        self.apps.values()
    }

    /// One app.
    #[must_use]
    pub fn app(&self, name: &AppName) -> Option<&App> {
        self.apps.get(name)
    }

    /// The worker whose present process start this is.
    #[must_use]
    pub fn worker(&self, launch: Launch) -> Option<&Worker> {
        let (app, slot) = self.launches.get(&launch)?;
        self.apps.get(app)?.workers.get(slot).map(Box::as_ref)
    }

    /// Numbers to persist with every write.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// When [`Event::Woke`] is due.
    #[must_use]
    pub fn next_wake(&self) -> Option<Moment> {
        self.apps.values().filter_map(App::wake).min()
    }

    /// Takes in a fact. A fact about a process start that is not present any more changes nothing.
    pub fn step(&mut self, tick: Tick, event: Event) -> Outcome {
        let mut out = Outcome::default();
        match event {
            Event::Woke => {
                let due: Vec<AppName> = self
                    .apps
                    .values()
                    .filter(|app| app.wake().is_some_and(|at| at <= tick.now))
                    .map(|app| app.head.name.clone())
                    .collect();
                for name in due {
                    self.with_app(&name, tick, &mut out, |app, cx| app.on_wake(cx));
                }
            }
            Event::Worker { launch, event } => {
                let Some((name, slot)) = self.launches.get(&launch).cloned() else {
                    // Late or doubled: its process start is over, and so is all that it could tell.
                    return out;
                };
                self.with_app(&name, tick, &mut out, |app, cx| app.on_worker(cx, slot, event));
            }
            Event::Rollout { app: name, id, event } => {
                // One that is over, or another's, is no news to its app.
                let present = self.app(&name).and_then(|app| app.head.rollout.as_ref()).is_some_and(|now| now.id == id);
                if present {
                    self.with_app(&name, tick, &mut out, |app, cx| app.on_rollout(cx, id, event));
                }
            }
        }
        self.follow_needs(tick, &mut out);
        out
    }

    /// Takes in a request: what came of it, and what is to be done.
    ///
    /// # Errors
    /// The reason why not; then nothing changed.
    pub fn request(&mut self, tick: Tick, request: Request) -> Result<(Admitted, Outcome), Denied> {
        self.request_as(tick, request, None)
    }

    /// A number for an operation that is to be asked for later, when what it takes is there.
    pub fn reserve(&mut self) -> Operation {
        let id = self.counters.operation;
        self.counters.operation = id.next();
        id
    }

    /// As [`Self::request`], under a number that was reserved.
    ///
    /// # Errors
    /// The reason why not; then nothing changed.
    pub fn request_as(
        &mut self,
        tick: Tick,
        request: Request,
        reserved: Option<Operation>,
    ) -> Result<(Admitted, Outcome), Denied> {
        self.check(&request)?;
        let mut out = Outcome::default();
        let name = request.app().clone();
        if let (Request::Start { revision, policy, .. } | Request::Create { revision, policy, .. }, None) =
            (&request, self.apps.get(&name))
        {
            self.apps.insert(name.clone(), App::new(name.clone(), *revision, policy.clone()));
            out.tell_app(&name, News::AppAdded);
            out.save_app(&name);
        }
        let id = reserved.unwrap_or(self.counters.operation);
        let mut admitted = Admitted::AlreadySo;
        self.with_app(&name, tick, &mut out, |app, cx| admitted = app.begin(cx, id, request));
        if admitted == Admitted::Begun(id) && reserved.is_none() {
            self.counters.operation = id.next();
        }
        self.follow_needs(tick, &mut out);
        Ok((admitted, out))
    }

    /// Ends every worker as a stop does, and leaves what is wanted of the apps as it is: for the end of the supervisor.
    pub fn wind_down(&mut self, tick: Tick) -> Outcome {
        let mut out = Outcome::default();
        self.winding_down = true;
        let names: Vec<AppName> = self.apps.keys().cloned().collect();
        for name in names {
            self.with_app(&name, tick, &mut out, |app, cx| {
                app.wait_again(cx);
                app.reconcile(cx);
            });
        }
        out
    }

    /// Goes on from persisted state (see [`Fleet::restore`]): shares and watches are asked for anew, deadlines that
    /// nobody could meet while there was no supervisor are moved, and effects that were written and may not have been
    /// done are asked for again. A `Spawn` asked for here was never done.
    pub fn resume(&mut self, tick: Tick) -> Outcome {
        let mut out = Outcome::default();
        let names: Vec<AppName> = self.apps.keys().cloned().collect();
        for name in names {
            self.with_app(&name, tick, &mut out, App::resume);
        }
        self.follow_needs(tick, &mut out);
        out
    }

    pub(crate) fn with_app(
        &mut self,
        name: &AppName,
        tick: Tick,
        out: &mut Outcome,
        act: impl FnOnce(&mut App, &mut Context<'_>),
    ) {
        let held = self.is_held(name);
        let Some(app) = self.apps.get_mut(name) else { return };
        for launch in app.workers.values().filter_map(|worker| worker.launch()) {
            self.launches.remove(&launch);
        }
        let mut own = Outcome::default();
        let winding_down = self.winding_down;
        let mut cx = Context { tick, next_launch: &mut self.counters.launch, out: &mut own, winding_down, held };
        act(app, &mut cx);
        if app.head.desired == Desired::Deleted && !app.has_any_process() {
            for worker in app.workers.values() {
                own.save_worker(&worker.id);
            }
            own.save_app(name);
            own.act.push(Effect::Forget { app: name.clone() });
            own.tell_app(name, News::AppDeleted);
            self.apps.remove(name);
        } else {
            self.index(name);
        }
        // An app that takes several turns in a step has its shares set once, as it said last.
        let shares = |effect: &Effect| matches!(effect, Effect::SetWeights { app, .. } if app == name);
        if let Some(before) = out.act.iter_mut().find(|effect| shares(effect))
            && let Some(now) = own.act.iter().position(shares)
        {
            *before = own.act.remove(now);
        }
        out.merge(own);
    }

    /// Notes the present process starts of one app.
    fn index(&mut self, name: &AppName) {
        let Some(app) = self.apps.get(name) else { return };
        for (&slot, worker) in &app.workers {
            if let Some(launch) = worker.launch() {
                self.launches.insert(launch, (name.clone(), slot));
            }
        }
    }

    /// What must hold after every step, whatever happened.
    ///
    /// # Errors
    /// The name of the invariant that does not hold, and where.
    pub fn check_invariants(&self) -> Result<(), Violation> {
        for app in self.apps.values() {
            check_app(app)?;
        }
        let mut seen = BTreeSet::new();
        for worker in self.apps.values().flat_map(|app| app.workers.values()) {
            let Some(launch) = worker.launch() else { continue };
            let known =
                self.launches.get(&launch).is_some_and(|(app, slot)| *app == worker.id.app && *slot == worker.id.slot);
            if !seen.insert(launch) || !known {
                return Err(Violation::LaunchUnaccounted(launch));
            }
            if launch >= self.counters.launch {
                return Err(Violation::LaunchFromTheFuture(launch));
            }
        }
        Ok(())
    }
}

/// A named invariant that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Somebody who is not ready gets connections although somebody is.
    #[error("{app}: lane {lane} has weight and no ready worker while others are ready")]
    WeightWithoutReady {
        /// Where.
        app: AppName,
        /// Which lane.
        lane: usize,
    },
    /// An app that listens gives its connections to no lane at all.
    #[error("{0}: no lane has weight, so connections would fall to the kernel's choice")]
    NoWeight(AppName),
    /// A worker that drains or stops, and does not come back by itself, gets new connections.
    #[error("{0} takes new connections while it is on its way out")]
    LeavingWithWeight(WorkerId),
    /// Two workers in one lane where each has its own.
    #[error("{0} shares its lane")]
    LaneShared(WorkerId),
    /// A process start that no worker has, or that two have.
    #[error("launch {0} is not accounted for")]
    LaunchUnaccounted(Launch),
    /// A process start whose number was not given out.
    #[error("launch {0} was never given out")]
    LaunchFromTheFuture(Launch),
    /// More processes than the deployment has room for.
    #[error("{app}: {processes} processes where {room} are allowed")]
    TooManyProcesses {
        /// Where.
        app: AppName,
        /// How many run.
        processes: usize,
        /// How many may.
        room: usize,
    },
    /// An app starts workers before what it needs was ready.
    #[error("{0} starts although its app waits for others")]
    StartedBeforeNeeds(WorkerId),
    /// Workers are asked to renew what they know while others take their place.
    #[error("{0}: a refresh and a deployment run together")]
    RefreshInDeployment(AppName),
    /// An app that nobody wants to run starts workers.
    #[error("{0} has a starting worker although its app is not wanted")]
    UnwantedStart(WorkerId),
}

fn check_app(app: &App) -> Result<(), Violation> {
    let name = &app.head.name;
    let ready_lanes: Vec<usize> = app
        .workers
        .values()
        .filter(|worker| worker.state.phase() == Phase::Ready)
        .filter_map(|worker| Some(worker.lane?.0 as usize))
        .collect();
    if !app.weights.is_empty() && app.weights.iter().all(|&weight| weight == 0) {
        return Err(Violation::NoWeight(name.clone()));
    }
    for (lane, &weight) in app.weights.iter().enumerate() {
        if weight > 0 && !ready_lanes.is_empty() && !ready_lanes.contains(&lane) {
            return Err(Violation::WeightWithoutReady { app: name.clone(), lane });
        }
    }
    if app.head.rollout.is_some() && app.head.refreshes.running.is_some() {
        return Err(Violation::RefreshInDeployment(name.clone()));
    }
    for worker in app.workers.values() {
        check_worker(app, worker)?;
    }
    let processes = app.workers.values().filter(|worker| worker.state.process().is_some()).count();
    let surge = app.head.rollout.as_ref().map_or(app.policy_now().reload.max_surge, |rollout| rollout.surge).max(1);
    let count = app.head.rollout.as_ref().map_or(app.head.count, |r| r.from.count.max(r.to.count).max(app.head.count));
    let room = (count + surge) as usize;
    let per_worker = app.policy_now().lanes == Lanes::PerWorker;
    let shrinking = app.workers.values().any(|worker| match &worker.state {
        State::Draining { .. } | State::Stopping { .. } | State::Killed { .. } => true,
        State::Starting { .. } | State::Ready { .. } | State::Backoff { .. } | State::Exited | State::Failed { .. } => {
            false
        }
    });
    if per_worker && !shrinking && processes > room {
        return Err(Violation::TooManyProcesses { app: name.clone(), processes, room });
    }
    Ok(())
}

fn check_worker(app: &App, worker: &Worker) -> Result<(), Violation> {
    if app.head.rise == Rise::Waiting && worker.state.phase() == Phase::Starting {
        return Err(Violation::StartedBeforeNeeds(worker.id.clone()));
    }
    let Some(lane) = worker.lane else { return Ok(()) };
    let per_worker = app.policy_of(worker).lanes == Lanes::PerWorker;
    let leaving = matches!(worker.state.phase(), Phase::Draining | Phase::Stopping) && !app.comes_back(worker);
    if per_worker && leaving && app.weights.get(lane.0 as usize).is_some_and(|&weight| weight > 0) {
        return Err(Violation::LeavingWithWeight(worker.id.clone()));
    }
    if per_worker && app.workers.values().filter(|other| other.lane == Some(lane)).count() > 1 {
        return Err(Violation::LaneShared(worker.id.clone()));
    }
    if app.head.desired != Desired::Running && worker.state.phase() == Phase::Starting {
        return Err(Violation::UnwantedStart(worker.id.clone()));
    }
    Ok(())
}
