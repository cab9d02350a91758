//! What must hold: after every step, for every connection, and once faults are over.
//!
//! Each has a name, the sentence a [`Failure`](super::Failure) prints. [`Fleet::check_invariants`] covers the fleet in
//! itself; here are those that need the world, the step, or the end.

use std::collections::BTreeMap;
use std::time::Duration;

use agentd_core::app::{App, Desired, Rise};
use agentd_core::drain::{self, Drain};
use agentd_core::effect::{Effect, Outcome, StopReason, drain_by};
use agentd_core::event::{InFlight, WorkerEvent};
use agentd_core::fleet::Fleet;
use agentd_core::id::{AppName, Generation, Lane, Launch};
use agentd_core::policy::DrainBy;
use agentd_core::rollout::Rollout;
use agentd_core::worker::{Phase, State, Worker};

use super::Broken;
use super::cause::Cause;
use super::process::{Life, Process, Saying, Watch};
use super::world::World;

/// One step of the fleet, before its effects are done.
pub struct Step<'a> {
    /// The fleet before it.
    pub before: &'a Fleet,
    /// The fleet after it.
    pub after: &'a Fleet,
    /// What made it.
    pub cause: &'a Cause,
    /// What came of it.
    pub outcome: &'a Outcome,
    /// The world as it is.
    pub world: &'a World,
}

/// Least time between the stop signal and the kill, where the policy asks for no shorter one.
const LEAST_STOP: Duration = Duration::from_secs(5);

type Check = fn(&Step<'_>) -> Result<(), String>;

const OF_A_STEP: [(&str, Check); 16] = [
    ("the fleet is sound", sound),
    ("what is late or denied changes nothing", late_changes_nothing),
    ("a wake leaves nothing that is due", wake_does_what_is_due),
    ("an effect is about a process that a worker has", effects_have_a_worker),
    ("a spawn is written before it is done", spawns_are_written),
    ("a worker starts in a lane of its own", spawns_in_a_free_lane),
    ("shares are asked for once, before anything is watched", weights_come_first),
    ("a draining worker is told to end when it is empty or out of time", ends_are_due),
    ("whoever serves is drained before it is told to end", no_end_without_a_drain),
    ("nothing is killed before its time", kills_are_due),
    ("a deployment keeps enough workers ready", floor_is_kept),
    ("a restart ends the old before it begins the new", restart_has_no_overlap),
    ("an undecided deployment shares as its step says", shares_are_the_steps),
    ("an undecided deployment takes nobody out of service", undecided_takes_nobody),
    ("no app starts before what it needs was ready once", needs_come_first),
    ("what is needed serves until whoever needs it is gone", needs_go_last),
];

impl Step<'_> {
    /// Looks at everything that must hold of a step.
    ///
    /// # Errors
    /// The first that does not.
    pub fn check(&self) -> Result<(), Broken> {
        for (name, check) in OF_A_STEP {
            check(self).map_err(|detail| Broken::new(name, detail))?;
        }
        Ok(())
    }
}

pub(super) fn ensure(holds: bool, detail: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(detail()) }
}

fn sound(step: &Step<'_>) -> Result<(), String> {
    step.after.check_invariants().map_err(|violation| violation.to_string())
}

fn late_changes_nothing(step: &Step<'_>) -> Result<(), String> {
    let idle = match step.cause {
        Cause::Fact(launch, _) => step.before.worker(*launch).is_none(),
        Cause::Denied(..) => true,
        Cause::Finding(app, id, _) => {
            let present = step.before.app(app).and_then(|app| app.head.rollout.as_ref());
            let open = |rollout: &Rollout| rollout.is_undecided() || rollout.is_judged_on_the_way();
            present.is_none_or(|rollout| rollout.id != *id || !open(rollout))
        }
        Cause::Woke | Cause::Request(_) | Cause::Restarted => false,
    };
    let same = || {
        step.outcome.act.is_empty()
            && step.outcome.publish.is_empty()
            && step.outcome.persist.is_empty()
            && step.before.apps().eq(step.after.apps())
    };
    ensure(!idle || same(), || format!("{:?} and {:?}", step.outcome.act, step.outcome.persist))
}

fn wake_does_what_is_due(step: &Step<'_>) -> Result<(), String> {
    if !matches!(step.cause, Cause::Woke) {
        return Ok(());
    }
    let left = step.after.next_wake().filter(|&at| at <= step.world.now);
    ensure(left.is_none(), || format!("{left:?} is still due at {:?}", step.world.now))
}

fn about(effect: &Effect) -> Option<Launch> {
    match effect {
        Effect::Spawn { launch, .. }
        | Effect::Govern { launch, .. }
        | Effect::ProveReady { launch }
        | Effect::ProbeLive { launch }
        | Effect::WatchDrain { launch }
        | Effect::UnwatchDrain { launch }
        | Effect::SendStop { launch }
        | Effect::Refresh { launch, .. }
        | Effect::SendAbort { launch }
        | Effect::Kill { launch } => Some(*launch),
        Effect::SetWeights { .. }
        | Effect::Prepare { .. }
        | Effect::Check { .. }
        | Effect::Verify { .. }
        | Effect::Judge { .. }
        | Effect::Forget { .. } => None,
    }
}

fn effects_have_a_worker(step: &Step<'_>) -> Result<(), String> {
    for effect in &step.outcome.act {
        let known = about(effect).is_none_or(|launch| step.after.worker(launch).is_some());
        ensure(known, || format!("{effect:?}"))?;
    }
    Ok(())
}

fn spawns_are_written(step: &Step<'_>) -> Result<(), String> {
    for effect in &step.outcome.act {
        if let Effect::Spawn { launch, worker, .. } = effect {
            let key = (worker.app.clone(), worker.slot);
            // A supervisor that took over asks for what its predecessor wrote.
            let written = matches!(step.cause, Cause::Restarted) && step.before.worker(*launch).is_some();
            ensure(written || step.outcome.persist.workers.contains(&key), || format!("{effect:?}"))?;
        }
    }
    Ok(())
}

/// Whoever waited and starts now finds all that it needs risen. Looked at from the workers, not from what core noted of
/// them: at least one of each needed app is ready or has completed.
fn needs_come_first(step: &Step<'_>) -> Result<(), String> {
    for effect in &step.outcome.act {
        let Effect::Spawn { worker, .. } = effect else { continue };
        let waited = step.before.app(&worker.app).is_none_or(|app| app.head.rise == Rise::Waiting);
        let Some(app) = step.after.app(&worker.app).filter(|_| waited) else { continue };
        for need in &app.policy_now().needs {
            let risen = step.after.app(need).is_some_and(|needed| needed.head.rise == Rise::Served);
            ensure(risen, || format!("{worker} starts before {need} was ready"))?;
        }
    }
    for app in step.after.apps().filter(|app| app.head.rise == Rise::Served) {
        let rose = step.before.app(&app.head.name).is_some_and(|before| before.head.rise != Rise::Served);
        let whole = app.ready() + completed(app) >= app.head.count;
        ensure(!rose || whole, || format!("{} counts as served, and {} are ready", app.head.name, app.ready()))?;
    }
    Ok(())
}

fn completed(app: &App) -> u32 {
    let exited = app.workers.values().filter(|worker| worker.state.phase() == Phase::Exited).count();
    u32::try_from(exited).unwrap_or(u32::MAX)
}

/// Nobody who serves is drained by a stop while a dependant that is stopped too has a process.
fn needs_go_last(step: &Step<'_>) -> Result<(), String> {
    for app in step.after.apps().filter(|app| app.head.desired != Desired::Running) {
        let name = &app.head.name;
        let dependant = step.after.apps().find(|other| {
            other.head.name != *name
                && other.head.desired != Desired::Running
                && other.policy_now().needs.contains(name)
                && other.workers.values().any(|worker| worker.state.process().is_some())
        });
        let Some(dependant) = dependant else { continue };
        for (slot, worker) in &app.workers {
            let before = step.before.app(name).and_then(|before| before.workers.get(slot));
            let served = before.is_some_and(|before| before.id == worker.id && before.state.phase() == Phase::Ready);
            let drained = matches!(&worker.state, State::Draining { reason: StopReason::Stop, .. });
            ensure(!(served && drained), || format!("{} is drained before {}", worker.id, dependant.head.name))?;
        }
    }
    Ok(())
}

fn spawns_in_a_free_lane(step: &Step<'_>) -> Result<(), String> {
    let mut shares: BTreeMap<&AppName, usize> =
        step.world.listeners.iter().map(|(app, listener)| (app, listener.weights.len())).collect();
    for effect in &step.outcome.act {
        if let Effect::SetWeights { app, weights } = effect {
            shares.insert(app, weights.len());
        }
        let Effect::Spawn { launch, worker, lane: Some(lane), .. } = effect else { continue };
        let known = shares.get(&worker.app).copied().unwrap_or(0);
        ensure((lane.0 as usize) < known, || format!("{effect:?} while {known} lanes are known"))?;
        let other = step.world.processes.iter().find(|(other, process)| {
            *other != launch
                && process.life == Life::Alive
                && process.lane == Some(*lane)
                && process.worker.app == worker.app
                && process.worker.generation != worker.generation
        });
        ensure(other.is_none(), || format!("{effect:?} beside {other:?}"))?;
    }
    Ok(())
}

fn weights_come_first(step: &Step<'_>) -> Result<(), String> {
    for app in step.after.apps() {
        let name = &app.head.name;
        let acts = || step.outcome.act.iter().enumerate();
        let mut weights = acts().filter(|(_, effect)| matches!(effect, Effect::SetWeights { app, .. } if app == name));
        let first = weights.next().map(|(index, _)| index);
        ensure(weights.next().is_none(), || format!("{name} twice: {:?}", step.outcome.act))?;
        let watch = acts().find(|(_, effect)| {
            matches!(effect, Effect::WatchDrain { launch }
                if step.after.worker(*launch).is_some_and(|worker| worker.id.app == *name))
        });
        if let (Some(first), Some((watch, _))) = (first, watch) {
            ensure(first < watch, || format!("{:?}", step.outcome.act))?;
        }
    }
    Ok(())
}

/// The drain of a worker as it was before the step, with what the step told of it.
fn ends_are_due(step: &Step<'_>) -> Result<(), String> {
    for effect in &step.outcome.act {
        let Effect::SendStop { launch } = effect else { continue };
        let Some(worker) = step.before.worker(*launch) else { continue };
        let State::Draining { process, deadline, warm_until, in_flight, .. } = &worker.state else { continue };
        let Some(app) = step.before.app(&worker.id.app) else { continue };
        let policy = app.policy_of(worker);
        let (mut in_flight, mut itself, mut tasks) = (*in_flight, process.drains_itself, process.tasks.clone());
        if let Cause::Fact(of, event) = step.cause
            && of == launch
        {
            if let WorkerEvent::DrainObserved(seen) = event {
                in_flight = Some(*seen);
            }
            if let WorkerEvent::TaskEnded { id } = event {
                tasks.remove(id);
            }
            itself |= matches!(event, WorkerEvent::DrainsItselfSaid);
        }
        let by = drain_by(policy.stop.drain, itself);
        let drain = Drain { deadline: *deadline, warm_until: *warm_until, by, in_flight, tasks: tasks.len() };
        let now = step.world.now;
        ensure(drain::verdict(&drain, now) == drain::Verdict::Terminate, || format!("{}: {drain:?}", worker.id))?;
        if now < *deadline && by == DrainBy::Connections {
            nothing_is_cut(step, worker, *launch)?;
        }
    }
    Ok(())
}

fn no_end_without_a_drain(step: &Step<'_>) -> Result<(), String> {
    for effect in &step.outcome.act {
        let Effect::SendStop { launch } = effect else { continue };
        let (before, after) = (step.before.worker(*launch), step.after.worker(*launch));
        let Some(State::Stopping { reason, .. }) = after.map(|worker| &worker.state) else {
            return Err(format!("{launch} is told to end and is {after:?}"));
        };
        let asked = match reason {
            StopReason::Stop | StopReason::ScaleDown | StopReason::Replaced | StopReason::RolledBack => true,
            StopReason::NotReady | StopReason::Unhealthy | StopReason::Watchdog | StopReason::Own => false,
        };
        let served = before.is_some_and(|worker| worker.state.phase() == Phase::Ready);
        // One that is unfit ends at once. Where its app is on its way out too, that is the reason that stays with it.
        let unfit = |event: &WorkerEvent| matches!(event, WorkerEvent::ProbeAnswered { result: Err(_) });
        let served = served && !matches!(step.cause, Cause::Fact(of, event) if of == launch && unfit(event));
        ensure(!(asked && served), || format!("{launch} is told to end ({})", reason.word()))?;
    }
    Ok(())
}

/// What was observed is also true: nobody's request ends with the worker.
fn nothing_is_cut(step: &Step<'_>, worker: &Worker, launch: Launch) -> Result<(), String> {
    let Some(process) = step.world.processes.get(&launch).filter(|process| process.life == Life::Alive) else {
        return Ok(());
    };
    let queued = step.world.queued(process);
    ensure(process.busy == 0 && queued == 0, || {
        let has = InFlight { queued, busy: process.busy, idle: process.idle, reused: 0 };
        format!("{} has {has:?} and is told to end", worker.id)
    })
}

fn kills_are_due(step: &Step<'_>) -> Result<(), String> {
    for effect in &step.outcome.act {
        let Effect::Kill { launch } = effect else { continue };
        let due = match step.before.worker(*launch).map(|worker| &worker.state) {
            Some(State::Stopping { kill_at, .. }) => *kill_at,
            Some(State::Killed { again_at, .. }) => *again_at,
            other => return Err(format!("{launch} is killed while {other:?}")),
        };
        ensure(due <= step.world.now, || format!("{launch} is killed before {due:?}"))?;
        let told = step.world.processes.get(launch).and_then(|process| process.told);
        let policy = step
            .before
            .worker(*launch)
            .and_then(|worker| step.before.app(&worker.id.app).map(|app| app.policy_of(worker).stop.timeout));
        let (Some(told), Some(timeout)) = (told, policy) else { continue };
        let least = timeout.map_or(LEAST_STOP, |timeout| timeout.min(LEAST_STOP));
        ensure(told + least <= step.world.now, || format!("{launch} is killed though told to end at {told:?}"))?;
    }
    Ok(())
}

/// Only where the step itself took a worker out of service for the deployment: what crashes is nobody's choice.
fn floor_is_kept(step: &Step<'_>) -> Result<(), String> {
    for before in step.before.apps() {
        let Some(after) = step.after.app(&before.head.name) else { continue };
        let Some(rollout) = after.head.rollout.as_ref().or(before.head.rollout.as_ref()) else { continue };
        let taken = after.workers.values().any(|worker| {
            let for_it =
                matches!(worker.state, State::Draining { reason: StopReason::Replaced | StopReason::RolledBack, .. });
            let was = before.workers.get(&worker.id.slot);
            // Where the deployment is over, one that has outgrown its limit goes for its own sake.
            let own = after.head.rollout.is_none() && was.is_some_and(|worker| worker.has_outgrown());
            for_it && !own && was.map(|worker| worker.state.phase()) == Some(Phase::Ready)
        });
        let target = rollout.target();
        // A worker that ended for good is as ready as it will ever be.
        let fulfilled = after
            .workers
            .values()
            .filter(|worker| match worker.state.phase() {
                Phase::Ready => true,
                Phase::Exited | Phase::Failed => worker.id.generation == target,
                Phase::Starting | Phase::Draining | Phase::Stopping | Phase::Backoff => false,
            })
            .count();
        let floor = rollout.floor() as usize;
        ensure(!taken || fulfilled >= floor, || {
            format!("{}: {fulfilled} of at least {floor} workers are ready", before.head.name)
        })?;
    }
    Ok(())
}

/// Percent by percent, as long as both generations have somebody who serves; everything to the old one on the way back.
fn shares_are_the_steps(step: &Step<'_>) -> Result<(), String> {
    for app in step.after.apps() {
        let Some(rollout) = &app.head.rollout else { continue };
        let Some(percent) = rollout.percent() else { continue };
        let share_of = |new: bool| {
            let ready = app.workers.values().filter(|worker| worker.state.phase() == Phase::Ready);
            let side = ready.filter(|worker| (worker.id.generation == rollout.to.generation) == new);
            let lanes: std::collections::BTreeSet<Lane> = side.filter_map(|worker| worker.lane).collect();
            let sum = |lane: &Lane| u64::from(app.weights.get(lane.0 as usize).copied().unwrap_or(0));
            (!lanes.is_empty()).then(|| lanes.iter().map(sum).sum::<u64>())
        };
        let (Some(new), Some(old)) = (share_of(true), share_of(false)) else { continue };
        ensure(new * 100 == (new + old) * u64::from(percent), || {
            format!("{}: new {new} and old {old} at {percent} %", app.head.name)
        })?;
    }
    Ok(())
}

fn undecided_takes_nobody(step: &Step<'_>) -> Result<(), String> {
    for app in step.after.apps() {
        if !app.head.rollout.as_ref().is_some_and(Rollout::is_undecided) {
            continue;
        }
        let Some(before) = step.before.app(&app.head.name) else { continue };
        let taken = app.workers.values().find(|worker| {
            let was = before.workers.get(&worker.id.slot).map(|worker| worker.state.phase());
            let replaced =
                matches!(worker.state, State::Draining { reason: StopReason::Replaced | StopReason::RolledBack, .. });
            replaced && was == Some(Phase::Ready)
        });
        ensure(taken.is_none(), || format!("{:?} drains", taken.map(|worker| &worker.id)))?;
    }
    Ok(())
}

fn restart_has_no_overlap(step: &Step<'_>) -> Result<(), String> {
    for effect in &step.outcome.act {
        let Effect::Spawn { worker, .. } = effect else { continue };
        let Some(app) = step.after.app(&worker.app) else { continue };
        let Some(rollout) = &app.head.rollout else { continue };
        if !rollout.is_exclusive() {
            continue;
        }
        // Before the old end, their own number is made good as ever, beside leavings of what was before them.
        let (own, to) = (worker.generation, rollout.to.generation);
        let is_other = |of: Generation| if own == to { of != own } else { of == to };
        let mut others = app.workers.values().filter(|other| is_other(other.id.generation));
        let other = others.find(|other| other.state.process().is_some());
        ensure(other.is_none(), || format!("{worker} starts while {:?} is there", other.map(|other| &other.id)))?;
    }
    Ok(())
}

/// What must hold between fleet and world once a step's effects are done.
///
/// # Errors
/// What does not hold.
pub fn in_step(fleet: &Fleet, world: &World) -> Result<(), Broken> {
    const NAME: &str = "every process has its one worker, and every worker's process is there";
    let mut known = 0;
    for app in fleet.apps() {
        for worker in app.workers.values() {
            let Some(launch) = worker.launch() else { continue };
            known += 1;
            let Some(process) = world.processes.get(&launch) else {
                return Err(Broken::new(NAME, format!("launch {launch} is nowhere")));
            };
            is_treated_as_it_is(worker, process)?;
        }
        let in_force = world.listeners.get(&app.head.name).map(|listener| &listener.weights);
        // An app that listens no more has none, and a new supervisor does not know what its sockets had.
        if !app.weights.is_empty() && in_force.is_some_and(|weights| *weights != app.weights) {
            let detail = format!("{}: {in_force:?} are, {:?} should be", app.head.name, app.weights);
            return Err(Broken::new("the shares in force are those decided", detail));
        }
    }
    if known == world.processes.len() {
        return Ok(());
    }
    let orphans: Vec<String> = world
        .processes
        .iter()
        .filter(|(launch, _)| fleet.worker(**launch).is_none())
        .map(|(launch, process)| format!("launch {launch} of {}", process.worker))
        .collect();
    Err(Broken::new(NAME, format!("orphans: {}", orphans.join(", "))))
}

/// What the shell does with a process is what core believes of it.
fn is_treated_as_it_is(worker: &Worker, process: &Process) -> Result<(), Broken> {
    let draining = worker.state.phase() == Phase::Draining;
    if process.life == Life::Alive && draining && process.watch == Watch::Off {
        return Err(Broken::new("whoever drains is watched", worker.id.to_string()));
    }
    let own = matches!(
        worker.state,
        State::Stopping { reason: StopReason::Own, .. } | State::Killed { reason: StopReason::Own, .. }
    );
    // Its own word that it is ending stands in for the signal, whatever follows its exit by now.
    let spoke = process.plan.says.iter().any(|(_, saying)| matches!(saying, Saying::Stopping));
    if worker.state.phase() == Phase::Stopping && !own && !spoke && process.told.is_none() {
        return Err(Broken::new("whoever is to end is told so", worker.id.to_string()));
    }
    Ok(())
}

/// What must hold of a connection that just arrived in `lane`.
///
/// # Errors
/// It went to somebody who should get none.
pub fn connected(fleet: &Fleet, world: &World, app: &AppName, lane: Lane) -> Result<(), Broken> {
    for launch in world.takers(app, lane) {
        let Some(worker) = fleet.worker(launch) else { continue };
        if worker.state.phase() == Phase::Draining {
            let detail = format!("{} drains and got a connection", worker.id);
            return Err(Broken::new("whoever has no share gets no connection", detail));
        }
    }
    Ok(())
}
