//! The fleet simulator: the real `core` in a world of seeded faults.
//!
//! Owns one run from its seed: [`run`]. The same seed is the same run, on every machine. A run has two parts: a time
//! of faults, in which anything happens at any moment, and a calm, in which every process does right and nobody asks
//! for anything; by its end the fleet must have come to rest. After every step of the fleet the [`invariants`] are
//! checked; the first that does not hold ends the run with a [`Failure`], which prints the command that replays it.
//!
//! What it cannot find: what a shell does wrong (the end-to-end tests), and what a core does right but too late for
//! a person's taste.

pub mod cause;
pub mod invariants;
pub mod process;
pub mod random;
pub mod report;
pub mod rest;
pub mod script;
pub mod store;
pub mod tasks;
pub mod world;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use agentd_core::admission::{Admitted, Request};
use agentd_core::app::Steer;
use agentd_core::effect::{Finished, News, OperationResult, Outcome};
use agentd_core::event::{Event, Exit, RolloutEvent, WorkerEvent};
use agentd_core::fleet::Fleet;
use agentd_core::id::{Lane, Launch, Operation, Pid};
use agentd_core::rollout::Judgement;
use agentd_core::time::{Moment, Tick};

use cause::{Cause, Doom, Happening, Record};
use invariants::Step;
pub use random::Random;
use report::{Broken, World};
pub use report::{Failure, Summary};
use script::Script;
use store::Store;

/// Steps that are shown of a run that failed.
const SHOWN: usize = 30;

/// Longest calm before the fleet must have come to rest, in virtual time.
const CALM_MAX: Duration = Duration::from_secs(1_800);

/// Most turns of a run: beyond, it does not come to an end.
const TURNS_MAX: u64 = 200_000;

/// Whether every step is printed as it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trace {
    /// Only what led to a failure.
    Off,
    /// Every step, on standard output.
    On,
}

/// Runs one seed to its end.
///
/// # Errors
/// The first invariant that did not hold. A panic of core counts as one.
pub fn run(seed: u64, trace: Trace) -> Result<Summary, Box<Failure>> {
    let mut simulation = Simulation::new(seed, trace);
    let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| simulation.run()));
    let broken = match ran {
        Ok(Ok(())) => return Ok(simulation.summary),
        Ok(Err(broken)) => broken,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Broken::new("core never panics", text.unwrap_or_default())
        }
    };
    let recent = simulation.recent.iter().map(ToString::to_string).collect();
    Err(Box::new(Failure { seed, world: World::Fleet, invariant: broken.invariant, detail: broken.detail, recent }))
}

/// Once faults are over, nothing is found to be wrong.
fn well_if(calm: bool, event: RolloutEvent) -> RolloutEvent {
    if !calm {
        return event;
    }
    match event {
        RolloutEvent::Prepared | RolloutEvent::Unprepared { .. } => RolloutEvent::Prepared,
        RolloutEvent::Refused { step, .. } | RolloutEvent::Verified { step } => RolloutEvent::Verified { step },
        // Which of the two looks it was about is not known any more; the other one's word says nothing.
        RolloutEvent::Unfit { .. } => RolloutEvent::Checked { last: false },
        RolloutEvent::Checked { last } => RolloutEvent::Checked { last },
        RolloutEvent::Condemned { .. } | RolloutEvent::Judged(_) => RolloutEvent::Judged(Judgement::Promote),
    }
}

struct Simulation {
    world: world::World,
    fleet: Fleet,
    store: Store,
    script: Script,
    /// Operations that were begun: whether each is over.
    operations: BTreeMap<Operation, bool>,
    /// How the supervisor dies at its next steps, one after the other.
    dooms: VecDeque<Doom>,
    /// A new supervisor has not taken everything over yet, so fleet and world may still differ.
    taking_over: bool,
    recent: VecDeque<Record>,
    trace: Trace,
    summary: Summary,
}

impl Simulation {
    fn new(seed: u64, trace: Trace) -> Self {
        let mut random = Random::new(seed);
        let script = Script::new(&mut random);
        let mut simulation = Self {
            world: world::World::new(random),
            fleet: Fleet::default(),
            store: Store::default(),
            script,
            operations: BTreeMap::new(),
            dooms: VecDeque::new(),
            taking_over: false,
            recent: VecDeque::new(),
            trace,
            summary: Summary::default(),
        };
        simulation.draw_schedule();
        simulation
    }

    /// When people ask, when clients come, when the supervisor dies and the clock jumps.
    fn draw_schedule(&mut self) {
        let world = &mut self.world;
        let length = world.random.between(5_000, 60_000);
        let at = |world: &mut world::World, happening: Happening| {
            let after = world.random.millis(0, length);
            world.schedule(after, happening);
        };
        world.schedule(Duration::ZERO, Happening::Ask);
        for _ in 0..world.random.between(3, 16) {
            at(world, Happening::Ask);
        }
        for _ in 0..world.random.between(0, 120) {
            at(world, Happening::Connect);
        }
        for _ in 0..world.random.between(0, 3) {
            at(world, Happening::Die);
            for doom in Doom::ALL {
                at(world, Happening::Doom(doom));
            }
        }
        if world.random.chance(10) {
            // One supervisor after the other dies at its first step, and at every one for a while.
            let streak = world.random.between(2, 30);
            let after = world.random.millis(0, length);
            for _ in 0..streak {
                let doom = world.random.pick(&Doom::ALL);
                world.schedule(after, Happening::Doom(doom));
            }
        }
        if world.random.chance(30) {
            let by = world.random.millis(100, 30_000);
            at(world, Happening::Jump(by));
        }
        world.schedule(Duration::from_millis(length), Happening::Calm);
    }

    fn run(&mut self) -> Result<(), Broken> {
        let mut calm_since: Option<Moment> = None;
        for _ in 0..TURNS_MAX {
            self.turn()?;
            if !self.world.calm {
                continue;
            }
            let since = *calm_since.get_or_insert(self.world.now);
            let Err(restless) = rest::at_rest(&self.fleet, &self.world, &self.operations) else {
                return Ok(());
            };
            if self.world.now.since(since) > CALM_MAX {
                return Err(restless);
            }
        }
        Err(Broken::new("a run comes to its end", format!("{TURNS_MAX} turns were not enough")))
    }

    /// Lets the next thing happen: a deadline of the fleet, or what is due in the world, whichever is first.
    fn turn(&mut self) -> Result<(), Broken> {
        let wake = self.fleet.next_wake();
        let due = self.world.next_due();
        match (wake, due) {
            (Some(wake), due) if due.is_none_or(|due| wake <= due) => {
                self.world.now = self.world.now.max(wake);
                self.step(Cause::Woke)
            }
            (_, Some(_)) => {
                let happening = self.world.take_due().expect("something is due, as was just seen");
                self.happen(happening)
            }
            (_, None) => {
                self.world.now = self.world.now + Duration::from_secs(1);
                Ok(())
            }
        }
    }

    fn happen(&mut self, happening: Happening) -> Result<(), Broken> {
        let calm = self.world.calm;
        match happening {
            Happening::Fact(launch, event) => self.step(Cause::Fact(launch, event)),
            Happening::Finding(app, id, event) => self.step(Cause::Finding(app, id, well_if(calm, event))),
            Happening::Act(launch, act) => {
                self.world.act(launch, act);
                Ok(())
            }
            Happening::Look(launch) => match self.world.look(launch) {
                Some(event) => self.step(Cause::Fact(launch, event)),
                None => Ok(()),
            },
            Happening::Calm => {
                self.world.calm_down();
                self.dooms.clear();
                for app in self.script.apps().to_vec() {
                    self.ask(Request::Steer { app, steer: Steer::Resume })?;
                }
                self.world.calm = true;
                Ok(())
            }
            Happening::Ask | Happening::Connect | Happening::Jump(_) | Happening::Die | Happening::Doom(_) if calm => {
                Ok(())
            }
            Happening::Ask => {
                let request = self.script.request(&mut self.world.random);
                let request = script::fitting(request, &self.fleet);
                self.ask(request)
            }
            Happening::Connect => match self.world.connect() {
                Some((app, lane)) => invariants::connected(&self.fleet, &self.world, &app, lane),
                None => Ok(()),
            },
            Happening::Jump(by) => {
                self.world.now = self.world.now + by;
                Ok(())
            }
            Happening::Die => self.restart(),
            Happening::Doom(doom) => {
                self.dooms.push_back(doom);
                Ok(())
            }
        }
    }

    fn tick(&mut self) -> Tick {
        Tick { now: self.world.now, entropy: self.world.random.number() }
    }

    fn ask(&mut self, request: Request) -> Result<(), Broken> {
        let before = self.fleet.clone();
        let tick = self.tick();
        match self.fleet.request(tick, request.clone()) {
            Ok((admitted, outcome)) => {
                if let Admitted::Begun(id) = admitted {
                    self.summary.operations += 1;
                    if self.operations.insert(id, false).is_some() {
                        return Err(Broken::new("no operation has another's number", id.to_string()));
                    }
                }
                self.settle(before, Cause::Request(Box::new(request)), outcome)
            }
            Err(denied) => {
                self.summary.denied += 1;
                self.settle(before, Cause::Denied(Box::new(request), denied), Outcome::default())
            }
        }
    }

    fn step(&mut self, cause: Cause) -> Result<(), Broken> {
        let before = self.fleet.clone();
        let tick = self.tick();
        let event = match &cause {
            Cause::Fact(launch, event) => {
                if matches!(event, WorkerEvent::Exited { .. } | WorkerEvent::SpawnFailed { .. }) {
                    self.world.processes.remove(launch);
                }
                Event::Worker { launch: *launch, event: event.clone() }
            }
            Cause::Finding(app, id, event) => Event::Rollout { app: app.clone(), id: *id, event: event.clone() },
            Cause::Woke | Cause::Request(_) | Cause::Denied(..) | Cause::Restarted => Event::Woke,
        };
        let outcome = self.fleet.step(tick, event);
        self.settle(before, cause, outcome)
    }

    /// A supervisor died and the next one starts from what was written.
    fn restart(&mut self) -> Result<(), Broken> {
        self.summary.restarts += 1;
        self.world.lose_supervisor();
        let away = self.world.random.millis(0, 5_000);
        self.world.now = self.world.now + away;
        let restored = self.store.restore();
        self.fleet = restored.map_err(|error| Broken::new("what is stored can be read", error.to_string()))?;
        // A shell gives back the sockets of apps that nobody knows any more.
        let fleet = &self.fleet;
        self.world.listeners.retain(|name, _| fleet.app(name).is_some());
        // First who is still there, as the shell finds by looking; then core goes on.
        let found: Vec<Launch> = self
            .world
            .processes
            .iter()
            .filter(|(launch, _)| {
                let known = self.fleet.worker(**launch).and_then(|worker| worker.state.process());
                known.is_some_and(|process| process.kernel.is_none())
            })
            .map(|(&launch, _)| launch)
            .collect();
        self.taking_over = true;
        for launch in found {
            self.step(Cause::Fact(launch, WorkerEvent::Spawned { pid: Pid(1), start_time: launch.0 }))?;
        }
        let before = self.fleet.clone();
        let tick = self.tick();
        let outcome = self.fleet.resume(tick);
        let restarts = self.summary.restarts;
        self.settle(before, Cause::Restarted, outcome)?;
        if self.summary.restarts != restarts {
            // This one is dead too, and its successor has taken over.
            return Ok(());
        }
        // An end that the last supervisor heard and did not write down: nobody else saw it.
        while let Some(launch) = self.gone() {
            self.step(Cause::Fact(launch, WorkerEvent::Exited { exit: Exit::Unknown }))?;
        }
        self.taking_over = false;
        invariants::in_step(&self.fleet, &self.world)
    }

    /// A process that is recorded as living and is not there.
    fn gone(&self) -> Option<Launch> {
        let recorded = self.fleet.apps().flat_map(|app| app.workers.values()).filter_map(|worker| {
            let process = worker.state.process()?;
            process.kernel.map(|_| process.launch)
        });
        recorded.into_iter().find(|launch| !self.world.processes.contains_key(launch))
    }

    /// Persist, act, publish, in that order; then everything that must hold is looked at.
    fn settle(&mut self, before: Fleet, cause: Cause, outcome: Outcome) -> Result<(), Broken> {
        self.summary.steps += 1;
        let doom = self.doom_of(&cause, &outcome);
        let lost = doom.is_some();
        let record = Record {
            step: self.summary.steps,
            at: self.world.now,
            cause: cause.clone(),
            effects: outcome.act.clone(),
            lost,
        };
        if self.trace == Trace::On {
            println!("{record}");
        }
        self.recent.push_back(record);
        if self.recent.len() > SHOWN {
            self.recent.pop_front();
        }
        let step = Step { before: &before, after: &self.fleet, cause: &cause, outcome: &outcome, world: &self.world };
        step.check()?;
        if doom == Some(Doom::BeforeWriting) {
            // Whoever asked has no answer, and its operation was never begun.
            if self.operations.remove(&before.counters().operation).is_some() {
                self.summary.operations -= 1;
            }
            return self.restart();
        }
        self.note_given_up(&before);
        self.store.write(&self.fleet, &outcome.persist);
        self.store.verify(&self.fleet).map_err(|detail| Broken::new("what lasts is written at once", detail))?;
        for notice in &outcome.publish {
            if let News::Finished(finished) = &notice.news {
                self.finish(finished)?;
            }
            self.summary.kills += u64::from(matches!(notice.news, News::Killed));
            self.summary.stages += u64::from(matches!(notice.news, News::StageReached { .. }));
            self.summary.undrained += u64::from(matches!(notice.news, News::Undrained));
        }
        let done = match doom {
            None => outcome.act.len(),
            Some(Doom::AmidActing) => outcome.act.len() / 2,
            Some(Doom::BeforeWriting | Doom::BeforeActing) => 0,
        };
        for effect in &outcome.act[..done] {
            self.world.apply(effect).map_err(|detail| Broken::new("effects can be done", detail))?;
        }
        if lost {
            return self.restart();
        }
        if self.taking_over {
            return Ok(());
        }
        invariants::in_step(&self.fleet, &self.world)
    }

    /// How the supervisor dies at this step, if it does. One that only acts differently needs something to do.
    fn doom_of(&mut self, cause: &Cause, outcome: &Outcome) -> Option<Doom> {
        let may = !self.taking_over || matches!(cause, Cause::Restarted);
        let doom = *self.dooms.front().filter(|_| may)?;
        let due = match doom {
            Doom::BeforeWriting => !outcome.persist.is_empty(),
            Doom::BeforeActing => !outcome.act.is_empty(),
            Doom::AmidActing => outcome.act.len() > 1,
        };
        if due { self.dooms.pop_front() } else { None }
    }

    /// A relief that will not run takes what waits for it along; that is said, not hidden.
    fn note_given_up(&mut self, before: &Fleet) {
        for app in before.apps() {
            let Some(now) = self.fleet.app(&app.head.name) else { continue };
            let lane = app.head.relief.map(|slot| Lane(slot.0));
            if let Some(lane) = lane.filter(|lane| app.head.owed.contains(lane) && !now.head.owed.contains(lane)) {
                self.world.given_up.insert((app.head.name.clone(), lane));
            }
        }
    }

    fn finish(&mut self, finished: &Finished) -> Result<(), Broken> {
        match finished.result {
            OperationResult::Done => self.summary.done += 1,
            OperationResult::RolledBack => self.summary.rolled_back += 1,
            OperationResult::Aborted => self.summary.aborted += 1,
            OperationResult::Failed => self.summary.failed += 1,
        }
        match self.operations.insert(finished.id, true) {
            Some(false) => Ok(()),
            Some(true) => Err(Broken::new("an operation ends once", format!("{} ended twice", finished.id))),
            None => Err(Broken::new("an operation ends once", format!("{} was never begun", finished.id))),
        }
    }
}
