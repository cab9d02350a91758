//! The fleet as others see it: the status document.

use std::collections::HashMap;
use std::time::Duration;

use agentd_core::app::{App, AppState, Desired};
use agentd_core::breaker::Breaker;
use agentd_core::event::Exit;
use agentd_core::event::SignalName;
use agentd_core::grace;
use agentd_core::id::Launch;
use agentd_core::needs;
use agentd_core::rollout::{Direction, Pace, Rollout, Side};
use agentd_core::time::Moment;
use agentd_core::worker::{Phase, State, Worker};
use agentd_protocol::status as wire;
use jiff::Timestamp;

use super::Dispatcher;
use super::launch::release_name;
use crate::config::AppKind;
use crate::process::sys;
use crate::process::usage::{self, Usage};
use crate::status::server::{Snapshot, StatusQuery};

/// What workers use is read again when a status is asked for and the last reading is older than this.
const USAGE_FRESH: Duration = Duration::from_secs(1);

/// What workers use, as last read. Nothing is read while nobody asks.
#[derive(Debug, Default)]
pub(super) struct UsageCache {
    read_at: Option<Moment>,
    by_launch: HashMap<Launch, Reading>,
}

#[derive(Clone, Copy, Debug)]
struct Reading {
    usage: Usage,
    /// Share of one processor since the reading before, or since the start.
    cpu_percent: f64,
}

impl UsageCache {
    pub(super) fn forget(&mut self, launch: Launch) {
        self.by_launch.remove(&launch);
    }
}

impl Dispatcher {
    pub(super) fn status(&mut self, query: StatusQuery) {
        match query {
            StatusQuery::Document { reply } => {
                let document = self.document(|_| true);
                let seq = self.journal.seq();
                // A client that went away needs no answer.
                drop(reply.send(Snapshot { document: document.to_line().into(), seq }));
            }
            StatusQuery::Events { since, reply } => {
                drop(reply.send(self.journal.subscribe(since, Timestamp::now())));
            }
        }
    }

    /// The status document of the apps that `wanted` picks.
    pub(super) fn document(&mut self, wanted: impl Fn(&App) -> bool) -> wire::StatusDocument {
        self.refresh_usage();
        let apps = self.fleet.apps().filter(|app| wanted(app)).map(|app| self.app_view(app)).collect();
        wire::StatusDocument {
            schema: wire::SCHEMA,
            instance: self.instance.to_string(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: self.started_at,
            now: Timestamp::now(),
            seq: self.journal.seq(),
            apps,
        }
    }

    pub(super) fn app_view(&self, app: &App) -> wire::AppView {
        let shell = self.apps.get(&app.head.name);
        let record = shell.and_then(|shell| shell.revisions.get(&app.head.revision));
        let workers: Vec<wire::WorkerView> = app.workers.values().map(|worker| self.worker_view(app, worker)).collect();
        let desired = if app.head.desired == Desired::Running { app.head.count } else { 0 };
        let listen = record.map(|record| &record.config.listen).into_iter().flatten().map(|(name, addr)| {
            let real = shell.and_then(|shell| shell.addresses.local(addr)).unwrap_or_else(|| addr.clone());
            (name.clone(), real.to_string())
        });
        wire::AppView {
            name: app.head.name.to_string(),
            kind: match record.map(|record| record.config.kind) {
                Some(AppKind::Skill(_)) => wire::AppKind::Skill,
                Some(AppKind::Agent) | None => wire::AppKind::Agent,
            },
            state: app_state(app.state()),
            release: self.release_label(&app.head.name, app.head.revision, app.head.generation.0),
            desired,
            ready: app.ready(),
            in_flight: workers.iter().map(|worker| worker.in_flight).sum(),
            grace_ms: milliseconds(self.grace_of(app)),
            deployment: self.deployment_view(app),
            cutting: self.cutting_view(&app.head.name),
            why: self.why(app),
            workers,
            listen: listen.collect(),
            refresh: super::refresh::view(app),
            breaker: {
                let fallen = app.workers.values().map(|worker| worker.restarts.consecutive()).max();
                breaker(Breaker::of_app(app, sys::boottime()), fallen.unwrap_or(0))
            },
        }
    }

    /// The deployment that runs, by the names of its releases.
    pub(super) fn deployment_view(&self, app: &App) -> Option<wire::DeploymentView> {
        let (view, rollout) = (deployment(app)?, app.head.rollout.as_ref()?);
        let name = &app.head.name;
        let [from, to] = [rollout.from, rollout.to].map(|side| self.label_of(name, side.generation.0));
        let (gates, lacking) = self.gates_of(name, rollout.id);
        let waits = rollout.waits_for().is_some() && rollout.pace == Pace::Going;
        let why = lacking.filter(|_| waits).or(view.why);
        let why = why.or_else(|| self.hook_waited_for(rollout.id)).or_else(|| self.waited_for(app, rollout));
        Some(wire::DeploymentView { from, to, gates, why, ..view })
    }

    /// The tasks that a deployment's old workers are left with, in a sentence.
    fn waited_for(&self, app: &App, rollout: &Rollout) -> Option<String> {
        let stay: u32 = app
            .workers
            .values()
            .filter_map(|worker| Some(self.processes.get(&worker.launch()?)?.stay))
            .fold(0, u32::saturating_add);
        let side = |side: Side| self.label_of(&app.head.name, side.generation.0);
        let (from, to) = (side(rollout.from), side(rollout.to));
        let tasks = if stay == 1 { "1 task stays".to_owned() } else { format!("{stay} tasks stay") };
        let app = &app.head.name;
        (stay > 0).then(|| {
            format!(
                "{tasks} with {from} until done, however long that takes: {to} does not read what was saved. \
                 `agentctl tasks {app}` lists them, `agentctl tasks cancel ID` ends one, `agentctl abort {app}` goes back"
            )
        })
    }

    /// Why it is not as it should be, in a sentence.
    pub(super) fn why(&self, app: &App) -> Option<String> {
        app.workers
            .values()
            .find_map(|worker| Some(format!("{} {}", worker.id, worker.state.why_failed()?)))
            .or_else(|| app.workers.values().find_map(|worker| falling(worker)))
            .or_else(|| self.waits_for(app))
            .or_else(|| self.drops_lines(&app.head.name))
    }

    /// What it waits for before it starts.
    fn waits_for(&self, app: &App) -> Option<String> {
        let lacks = self.fleet.lacks(app);
        (!lacks.is_empty()).then(|| needs::sentence(&lacks))
    }

    /// How long a drain of all its workers that began now might take.
    fn grace_of(&self, app: &App) -> Duration {
        let shells = app.workers.values().filter_map(|worker| self.processes.get(&worker.launch()?));
        let asked = shells.filter_map(|shell| shell.gauge.grace()).max();
        asked.unwrap_or_else(|| grace::bound(&app.policy_now().grace))
    }

    fn worker_view(&self, app: &App, worker: &Worker) -> wire::WorkerView {
        let now = sys::boottime();
        let launch = worker.launch();
        let shell = launch.and_then(|launch| self.processes.get(&launch));
        let reading = launch.and_then(|launch| self.usage.by_launch.get(&launch));
        let process = worker.state.process();
        let total: u32 = app.weights.iter().sum();
        let weight = worker.lane.and_then(|lane| app.weights.get(lane.0 as usize)).copied().unwrap_or(0);
        let oldest = process.and_then(|process| process.tasks.values().map(|task| task.since).min());
        let oldest = oldest.into_iter().chain(shell.and_then(|shell| shell.gauge.oldest())).min();
        wire::WorkerView {
            breaker: breaker(Breaker::of(worker, &app.policy_of(worker).restart, now), worker.restarts.consecutive()),
            id: worker.id.to_string(),
            slot: worker.id.slot.0,
            generation: worker.id.generation.0,
            release: self.release_label(&worker.id.app, worker.revision, worker.id.generation.0),
            pid: process.and_then(|process| process.kernel).map(|kernel| kernel.pid.0),
            state: worker_state(&worker.state),
            weight: percent(weight, total),
            restarts: worker.restarts.total(),
            started_at: shell.map(|shell| shell.started_at),
            in_flight: in_flight(worker).max(shell.map_or(0, |shell| shell.gauge.tasks())),
            oldest_task_ms: oldest.map(|since| milliseconds(now.since(since))),
            drain_deadline: match &worker.state {
                State::Draining { deadline, tasks_until, .. } => Some(wall(tasks_until.unwrap_or(*deadline))),
                State::Stopping { kill_at, .. } => Some(wall(*kill_at)),
                State::Starting { .. }
                | State::Ready { .. }
                | State::Killed { .. }
                | State::Backoff { .. }
                | State::Exited
                | State::Failed { .. } => None,
            },
            memory_bytes: reading.map(|reading| reading.usage.memory_bytes),
            cpu_percent: reading.map(|reading| reading.cpu_percent),
            // What is noted of the process that runs is for its own end.
            last_exit: worker.last_exit.as_ref().filter(|last| Some(last.launch) != launch).map(|last| {
                let (code, signal) = exit_parts(last.exit);
                let reason = super::tell::exit_reason(last.cause, last.exit);
                wire::ExitView { code, signal, reason, why: super::limits::words(last.cause) }
            }),
            status_text: shell.and_then(|shell| shell.status_text.clone()),
            why: match &worker.state {
                State::Failed { why } => Some(why.clone()),
                State::Starting { refuted, .. } => refuted.clone(),
                State::Backoff { .. } | State::Exited => worker.last_exit.as_ref().map(|last| last.reason.clone()),
                State::Ready { .. } | State::Draining { .. } | State::Stopping { .. } | State::Killed { .. } => None,
            },
            log_tail: match &worker.state {
                State::Failed { .. } | State::Backoff { .. } => {
                    let kept = self.apps.get(&worker.id.app).and_then(|app| app.last_lines.get(&worker.id.slot));
                    kept.cloned().unwrap_or_default()
                }
                State::Starting { .. }
                | State::Ready { .. }
                | State::Draining { .. }
                | State::Stopping { .. }
                | State::Killed { .. }
                | State::Exited => Vec::new(),
            },
            restart_at: match &worker.state {
                State::Backoff { until } => Some(wall(*until)),
                State::Starting { .. }
                | State::Ready { .. }
                | State::Draining { .. }
                | State::Stopping { .. }
                | State::Killed { .. }
                | State::Exited
                | State::Failed { .. } => None,
            },
        }
    }

    fn refresh_usage(&mut self) {
        let now = sys::boottime();
        let age = self.usage.read_at.map(|at| now.since(at));
        if age.is_some_and(|age| age < USAGE_FRESH) {
            return;
        }
        let (launches, trees): (Vec<Launch>, Vec<_>) =
            self.processes.iter().map(|(&launch, process)| (launch, &process.tree)).unzip();
        let mut by_launch = HashMap::with_capacity(launches.len());
        for (launch, used) in launches.into_iter().zip(usage::of_trees(&trees)) {
            let before = self.usage.by_launch.get(&launch).map(|reading| reading.usage.cpu);
            let started = self.fleet.worker(launch).and_then(|worker| Some(worker.state.process()?.started_at));
            let (spent, over) = match (before, age, started) {
                (Some(before), Some(age), _) => (used.cpu.saturating_sub(before), age),
                (_, _, Some(started)) => (used.cpu, now.since(started)),
                (_, _, None) => (Duration::ZERO, Duration::ZERO),
            };
            let share = if over.is_zero() { 0.0 } else { spent.as_secs_f64() / over.as_secs_f64() };
            by_launch.insert(launch, Reading { usage: used, cpu_percent: (share * 1000.0).round() / 10.0 });
        }
        self.usage = UsageCache { read_at: Some(now), by_launch };
    }
}

/// A breaker as others are told. What is closed has no crashes to speak of.
fn breaker(of: Breaker, crashes: u32) -> wire::BreakerView {
    let (state, until) = match of {
        Breaker::Closed => return wire::BreakerView::default(),
        Breaker::HalfOpen { closes_at } => (wire::BreakerState::HalfOpen, closes_at),
        Breaker::Open { until } => (wire::BreakerState::Open, until),
    };
    wire::BreakerView { state, until: until.map(wall), crashes }
}

/// Why a worker that keeps falling is not there just now.
fn falling(worker: &Worker) -> Option<String> {
    let last = worker.last_exit.as_ref().filter(|_| matches!(worker.state.phase(), Phase::Backoff))?;
    let id = &worker.id;
    Some(format!("{id} {}; it was restarted {} times and will be again", last.reason, worker.restarts.total()))
}

/// What the worker has in hand: tasks where it tells of them, else what was last seen of its connections.
fn in_flight(worker: &Worker) -> u32 {
    let tasks = u32::try_from(worker.tasks()).unwrap_or(u32::MAX);
    match &worker.state {
        State::Draining { in_flight: Some(seen), .. } => tasks.max(seen.busy.saturating_add(seen.queued)),
        State::Draining { in_flight: None, .. }
        | State::Starting { .. }
        | State::Ready { .. }
        | State::Stopping { .. }
        | State::Killed { .. }
        | State::Backoff { .. }
        | State::Exited
        | State::Failed { .. } => tasks,
    }
}

/// The deployment that runs.
pub(super) fn deployment(app: &App) -> Option<wire::DeploymentView> {
    let rollout = app.head.rollout.as_ref()?;
    let target = rollout.target();
    let wanted = if rollout.is_undecided() { rollout.raised().generation } else { target };
    let moved = app
        .workers
        .values()
        .filter(|worker| worker.id.generation == wanted && matches!(worker.state, State::Ready { .. }))
        .count();
    let (state, why) = match &rollout.direction {
        Direction::Forward if rollout.pace == Pace::Paused => (wire::DeploymentState::Paused, rollout.waits_for()),
        Direction::Forward => (wire::DeploymentState::Running, rollout.waits_for()),
        Direction::Back { why, .. } => (wire::DeploymentState::RollingBack, Some(why.clone())),
    };
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let (step, steps) = if rollout.is_undecided() && !rollout.plan.steps.is_empty() {
        let steps = rollout.plan.steps.len();
        (count(rollout.stage.step().unwrap_or(steps)), count(steps))
    } else {
        (count(moved), rollout.target_side().count)
    };
    Some(wire::DeploymentView {
        id: rollout.id.0,
        strategy: super::tell::strategy(rollout.plan.strategy),
        from: release_name(rollout.from.generation.0),
        to: release_name(rollout.to.generation.0),
        state,
        step,
        steps,
        percent: rollout.percent(),
        started_at: wall(rollout.started_at),
        why,
        gates: Vec::new(),
    })
}

pub(super) fn app_state(state: AppState) -> wire::AppState {
    match state {
        AppState::Running => wire::AppState::Running,
        AppState::Starting => wire::AppState::Starting,
        AppState::Degraded => wire::AppState::Degraded,
        AppState::Deploying => wire::AppState::Deploying,
        AppState::Stopped => wire::AppState::Stopped,
        AppState::Failed => wire::AppState::Failed,
    }
}

fn worker_state(state: &State) -> wire::WorkerState {
    match state {
        State::Starting { .. } => wire::WorkerState::Starting,
        State::Ready { .. } => wire::WorkerState::Ready,
        State::Draining { .. } => wire::WorkerState::Draining,
        State::Stopping { .. } | State::Killed { .. } => wire::WorkerState::Stopping,
        State::Backoff { .. } => wire::WorkerState::Backoff,
        State::Exited => wire::WorkerState::Exited,
        State::Failed { .. } => wire::WorkerState::Failed,
    }
}

pub(super) fn exit_parts(exit: Exit) -> (Option<i32>, Option<String>) {
    match exit {
        Exit::Code(code) => (Some(code), None),
        Exit::Signal(number) => (None, Some(SignalName(number).to_string())),
        Exit::Unknown => (None, None),
    }
}

/// A moment of the monotonic clock as the wall clock shows it now.
pub(super) fn wall(at: Moment) -> Timestamp {
    let now = sys::boottime();
    let away = |duration: Duration| jiff::SignedDuration::try_from(duration).unwrap_or(jiff::SignedDuration::ZERO);
    let shifted = if at >= now {
        Timestamp::now().checked_add(away(at.since(now)))
    } else {
        Timestamp::now().checked_sub(away(now.since(at)))
    };
    shifted.unwrap_or(Timestamp::MAX)
}

pub(super) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn percent(part: u32, total: u32) -> u8 {
    let share = (part * 100 + total / 2).checked_div(total).unwrap_or(0);
    u8::try_from(share).unwrap_or(100)
}
