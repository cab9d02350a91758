//! Telling: the event journal, and clients that wait for the end of what they asked for.

use std::collections::BTreeSet;
use std::time::Duration;

use agentd_core::effect::{self, ExitCause, Finished, News, Notice, StopReason, Toll};
use agentd_core::event::{Exit, Proof};
use agentd_core::id::{AppName, Launch, Operation, Revision};
use agentd_core::rollout::{self, StepName};
use agentd_core::time::Moment;
use agentd_protocol::control::{
    AppDifference, Applied, Changed, ConnectionCounts, LostTask, Notice as Word, OperationKind, OperationResult,
    OperationState, OperationView, Progress, Reply, TaskCounts,
};
use agentd_protocol::events::{EventKind, TaskOutcome};
use agentd_protocol::status::{AppKind, DeploymentState, ExitReason, Strategy};
use jiff::Timestamp;

use super::Dispatcher;
use super::view::{exit_parts, milliseconds, wall};
use crate::control::ReplySink;
use crate::logs::read::{burst, last_lines};
use crate::notify::TaskOutcome as Heard;
use crate::process::sys;
use crate::store::{Change, Durability};

/// Lines of a failed worker's log that are shown with its failure.
const LAST_LINES: usize = 20;

/// As many of them when they came in one burst, such as a stack below its error.
const LAST_BURST: usize = 40;

/// From this restart on it is looked at what a worker printed last that waits for it: the first must cost nothing.
const TELLING_RESTART: u32 = 3;

/// Slots whose logs are looked through for the last words of an app that is forgotten already.
const SLOTS_OF_THE_GONE: usize = 16;

/// Event numbers reserved by one write.
const EVENTS_AT_ONCE: u64 = 10_000;

/// A client that awaits more operations than this is told of their ends only.
const PROGRESS_MAX: usize = 16;

/// Least time between two looks that a client is shown, and what each worker adds to it: a look holds all workers of an
/// app, and an app of a thousand must not be shown a thousand times a second to a client that cannot read so fast.
const SHOW_EVERY: Duration = Duration::from_millis(50);
const SHOW_EVERY_PER_WORKER: Duration = Duration::from_millis(1);

/// A client that waits for what it asked for.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) reply: ReplySink,
    pub(super) views: Vec<OperationView>,
    pub(super) open: BTreeSet<Operation>,
    pub(super) apps: BTreeSet<AppName>,
    pub(super) results: Vec<OperationResult>,
    /// What an `apply` told that it would do.
    pub(super) plan: Option<Vec<AppDifference>>,
    /// Apps whose look changed since it was last told.
    pub(super) stale: BTreeSet<AppName>,
    /// When it may be shown that.
    pub(super) show_at: Moment,
}

impl Dispatcher {
    /// Records an event and tells it on.
    pub(super) fn record(&mut self, app: Option<&AppName>, worker: Option<String>, event: EventKind) {
        let app_text = app.map(AppName::as_str);
        if self.journal.seq() + 1 >= self.events_reserved {
            self.reserve_events();
        }
        let event = self.journal.record(Timestamp::now(), app_text, worker.as_deref(), event);
        let Some(app) = app else { return };
        self.run_hooks(app, &event);
        for waiter in self.waiters.iter_mut().filter(|waiter| waiter.apps.contains(app)) {
            if waiter.views.len() <= PROGRESS_MAX {
                waiter.stale.insert(app.clone());
                // A client that is gone is noticed when its operations end.
                let _ = waiter.reply.notify(Word::Event(event.clone()));
            }
        }
    }

    /// Numbers of events are given out in blocks that are written down beforehand, so that no number is given twice,
    /// whatever becomes of us; a client that resumes after a crash sees a gap, never another event under an old number.
    pub(super) fn reserve_events(&mut self) {
        self.events_reserved = self.journal.seq() + EVENTS_AT_ONCE;
        let reserved = Change::Meta { key: "events", value: self.events_reserved.to_string() };
        self.write_down(&[reserved], Durability::Process);
    }

    /// When [`Self::show_progress`] has something to show next.
    pub(super) fn next_show(&self) -> Option<Moment> {
        self.waiters.iter().filter(|waiter| !waiter.stale.is_empty()).map(|waiter| waiter.show_at).min()
    }

    /// Shows the apps that changed to those who wait for them, not more often than they can read.
    pub(super) fn show_progress(&mut self) {
        if self.waiters.is_empty() {
            return;
        }
        let now = sys::boottime();
        let mut waiters = std::mem::take(&mut self.waiters);
        for waiter in waiters.iter_mut().filter(|waiter| waiter.show_at <= now && !waiter.stale.is_empty()) {
            waiter.show_at = now + SHOW_EVERY;
            for name in std::mem::take(&mut waiter.stale) {
                if let Some(app) = self.fleet.app(&name) {
                    let workers = u32::try_from(app.workers.len()).unwrap_or(u32::MAX);
                    waiter.show_at = waiter.show_at + SHOW_EVERY_PER_WORKER.saturating_mul(workers);
                    let progress = Progress { app: self.app_view(app) };
                    let _ = waiter.reply.notify(Word::Progress(Box::new(progress)));
                }
            }
        }
        for waiter in waiters {
            if waiter.open.is_empty() {
                let changed = Changed { operations: waiter.views, results: waiter.results };
                waiter.reply.finish(Ok(answer(waiter.plan, changed)));
            } else {
                self.waiters.push(waiter);
            }
        }
    }

    /// Tells one piece of core's news.
    pub(super) fn tell(&mut self, notice: Notice) {
        let Notice { app, worker, news } = notice;
        let worker_text = worker.as_ref().map(ToString::to_string);
        trace(&app, worker_text.as_deref(), &news);
        let event = match news {
            News::AppAdded => {
                let revision = self.fleet.app(&app).map_or(Revision(1), |app| app.head.revision);
                EventKind::AppAdded { kind: self.kind_of(&app), release: self.release_label(&app, revision, 1) }
            }
            News::AppDeleted => EventKind::AppDeleted,
            // Told with its pid a moment later.
            News::Starting { .. } => return,
            News::Spawned { pid } => EventKind::WorkerStarting { pid: pid.0 },
            News::Ready { proof, after } => {
                self.after_ready(&app, worker.as_ref());
                EventKind::WorkerReady { how: proof_word(proof).to_owned(), after_ms: milliseconds(after) }
            }
            News::Draining { reason, deadline } => {
                EventKind::WorkerDraining { reason: stop_reason(reason), deadline: wall(deadline) }
            }
            News::DrainDeadline { deadline } => EventKind::WorkerDrainDeadline { deadline: wall(deadline) },
            // Shown as progress, not kept as an event.
            News::DrainProgress { .. } => {
                self.mark_stale(&app);
                return;
            }
            News::Undrained => EventKind::WorkerReady { how: "it was taken back into service".to_owned(), after_ms: 0 },
            News::Stopping { reason, cut, .. } => {
                let drained = EventKind::WorkerDrained { connections_cut: cut.busy + cut.idle };
                if matches!(reason, StopReason::Stop | StopReason::ScaleDown | StopReason::Replaced) {
                    self.record(Some(&app), worker_text.clone(), drained);
                }
                EventKind::WorkerStopping { signal: self.stop_signal(&app) }
            }
            News::Killed => EventKind::WorkerStopping { signal: "SIGKILL".to_owned() },
            News::Exited { exit, cause, reason: _, uptime } => {
                let (code, signal) = exit_parts(exit);
                let uptime_ms = milliseconds(uptime);
                let (reason, why) = (exit_reason(cause, exit), super::limits::words(cause));
                EventKind::WorkerExited { code, signal, reason, uptime_ms, why }
            }
            News::Backoff { delay, attempt } => {
                if attempt >= TELLING_RESTART && !delay.is_zero() {
                    self.keep_last_lines(&app, worker.as_ref());
                }
                EventKind::WorkerRestarting { in_ms: milliseconds(delay), attempt }
            }
            News::Parked { why } => {
                let log_tail = self.keep_last_lines(&app, worker.as_ref());
                EventKind::WorkerFailed { why, log_tail }
            }
            News::Outgrown { limit } => EventKind::WorkerOutgrown { why: limit.to_string() },
            News::Refreshed(renewal) => {
                let super::refresh::RefreshedWorker { outcome, why, took_ms, .. } = super::refresh::renewed(&renewal);
                EventKind::WorkerRefreshed { outcome, why, took_ms }
            }
            News::ProbeFailed { why, failures, of } => {
                EventKind::ProbeFailed { probe: "live".to_owned(), why, failures, allowed: of }
            }
            News::RolloutStarted { id, from, to } => {
                self.remember_labels(&app);
                EventKind::DeploymentStarted {
                    id: id.0,
                    strategy: self.running_strategy(&app),
                    from: self.label_of(&app, from.0),
                    to: self.label_of(&app, to.0),
                    steps: self.fleet.app(&app).map_or(0, |app| app.head.count),
                }
            }
            News::RolloutReversed { id, why, .. } => {
                self.deployment_step(&app, id, DeploymentState::RollingBack, Some(why), None)
            }
            News::StageReached { id, name, percent } => {
                self.deployment_step(&app, id, DeploymentState::Running, None, Some((name, percent)))
            }
            News::RolloutResumed { id } => self.deployment_step(&app, id, DeploymentState::Running, None, None),
            News::RolloutHeld { id, why } => self.deployment_step(&app, id, DeploymentState::Running, Some(why), None),
            News::RolloutPaused { id } => self.deployment_step(&app, id, DeploymentState::Paused, None, None),
            News::Finished(finished) => {
                self.finished(&app, finished);
                return;
            }
        };
        self.record(Some(&app), worker_text, event);
    }

    /// Keeps what a worker printed last before it ended, for whoever asks why.
    fn keep_last_lines(&mut self, app: &AppName, worker: Option<&agentd_core::id::WorkerId>) -> Vec<String> {
        let launch = worker.and_then(|id| {
            let worker = self.fleet.app(&id.app)?.workers.get(&id.slot)?;
            Some(worker.last_exit.as_ref()?.launch)
        });
        let log_tail = launch.map_or_else(Vec::new, |at| self.log_tail(app, at));
        if let (Some(id), Some(shell)) = (worker, self.apps.get_mut(app)) {
            shell.last_lines.insert(id.slot, log_tail.clone());
        }
        log_tail
    }

    fn running_strategy(&self, app: &AppName) -> Strategy {
        let rollout = self.fleet.app(app).and_then(|app| app.head.rollout.as_ref());
        rollout.map_or(Strategy::Rolling, |rollout| strategy(rollout.plan.strategy))
    }

    fn deployment_step(
        &self,
        app: &AppName,
        id: Operation,
        state: DeploymentState,
        why: Option<String>,
        reached: Option<(StepName, Option<u8>)>,
    ) -> EventKind {
        let view = self.fleet.app(app).and_then(super::view::deployment);
        let (step, steps) = view.map_or((0, 0), |view| (view.step, view.steps));
        let stage = reached.map(|(name, _)| super::history::stage_name(name).to_owned());
        let percent = reached.and_then(|(_, percent)| percent);
        EventKind::DeploymentStep { id: id.0, state, step, steps, why, stage, percent }
    }

    /// An operation is over: its event, and whoever waits for it.
    fn finished(&mut self, app: &AppName, finished: Finished) {
        self.judge_release(app, &finished);
        let log_tail = finished.culprit.map_or_else(Vec::new, |launch| self.log_tail(app, launch));
        let (kind, state) = (operation_kind(finished.kind), operation_state(finished.result));
        let duration_ms = milliseconds(finished.finished_at.since(finished.started_at));
        let id = finished.id.0;
        let toll = &finished.toll;
        let tasks = task_counts(toll);
        if finished.deployment.is_some() {
            let (state, why) = (deployment_state(finished.result), finished.why.clone());
            self.record(Some(app), None, EventKind::DeploymentFinished { id, state, why, duration_ms, tasks });
        }
        let why = finished.why.clone();
        self.record(Some(app), None, EventKind::OperationFinished { id, kind, state, why, duration_ms });
        let generations = finished.deployment;
        let result = OperationResult {
            id,
            app: app.to_string(),
            kind,
            state,
            why: finished.why,
            log_tail,
            started_at: wall(finished.started_at),
            finished_at: wall(finished.finished_at),
            duration_ms,
            tasks,
            lost_tasks: toll.lost_tasks.iter().map(lost_task).collect(),
            connections: ConnectionCounts { cut: connections_cut(toll) },
            deployment: generations.map(|_| id),
            refreshed: self.renewals_of(app, finished.id),
            from: generations.map(|(from, _)| self.label_of(app, from.0)),
            to: generations.map(|(_, to)| self.label_of(app, to.0)),
        };
        for waiter in &mut self.waiters {
            if waiter.open.remove(&finished.id) {
                waiter.results.push(result.clone());
            }
        }
        self.retire_revisions(app);
        self.retire_releases(app);
        self.tend(app);
    }

    /// The last lines that a launch printed.
    pub(super) fn log_tail(&self, app: &AppName, launch: Launch) -> Vec<String> {
        let slot = self.fleet.app(app).and_then(|app| {
            let of = |worker: &agentd_core::worker::Worker| {
                worker.launch() == Some(launch) || worker.last_exit.as_ref().is_some_and(|last| last.launch == launch)
            };
            app.workers.values().find(|worker| of(worker)).map(|worker| worker.id.slot)
        });
        // A worker that was removed from its slot left its words there all the same.
        let slots = self.fleet.app(app).map_or(SLOTS_OF_THE_GONE, |app| app.weights.len().max(app.workers.len() + 1));
        let slots = u32::try_from(slots).unwrap_or(u32::MAX);
        let candidates =
            slot.map_or_else(|| (0..slots).map(agentd_core::id::Slot).collect::<Vec<_>>(), |slot| vec![slot]);
        for slot in candidates {
            match last_lines(&self.home.logs, app, slot, launch, LAST_BURST).map(|lines| burst(lines, LAST_LINES)) {
                Ok(lines) if lines.is_empty() => {}
                Ok(lines) => return lines.into_iter().map(|line| line.text).collect(),
                Err(error) => tracing::debug!(%app, %slot, %error, "its last lines cannot be read"),
            }
        }
        Vec::new()
    }

    pub(super) fn mark_stale(&mut self, app: &AppName) {
        for waiter in self.waiters.iter_mut().filter(|waiter| waiter.apps.contains(app)) {
            if waiter.views.len() <= PROGRESS_MAX {
                waiter.stale.insert(app.clone());
            }
        }
    }

    fn kind_of(&self, app: &AppName) -> AppKind {
        let record = self.apps.get(app).and_then(|app| app.revisions.values().next_back());
        match record.map(|record| record.config.kind) {
            Some(crate::config::AppKind::Skill(_)) => AppKind::Skill,
            Some(crate::config::AppKind::Agent) | None => AppKind::Agent,
        }
    }

    fn stop_signal(&self, app: &AppName) -> String {
        let record = self.apps.get(app).and_then(|app| app.revisions.values().next_back());
        match record.map(|record| record.config.stop) {
            Some(stop) if stop.message => "shutdown".to_owned(),
            Some(stop) => stop.signal.signal().to_string(),
            None => "SIGTERM".to_owned(),
        }
    }

    /// The runtime may have changed the backlog of the socket that it shares with us.
    fn after_ready(&mut self, app: &AppName, worker: Option<&agentd_core::id::WorkerId>) {
        let lane = worker.and_then(|id| self.fleet.app(&id.app)?.workers.get(&id.slot)).and_then(|worker| worker.lane);
        if let (Some(lane), Some(shell)) = (lane, self.apps.get_mut(app))
            && let Err(error) = shell.addresses.reassert_listen(lane.0)
        {
            tracing::warn!(%app, %error, "the backlog could not be set again");
        }
        self.remember_order(app);
    }

    pub(super) fn tell_task_begun(&mut self, launch: Launch, task: &str, kind: Option<String>) {
        if let Some((app, worker)) = self.name_of(launch) {
            self.record(Some(&app), Some(worker), EventKind::TaskBegun { task: task.to_owned(), kind });
        }
    }

    pub(super) fn tell_task_ended(&mut self, launch: Launch, task: &str, outcome: Heard) {
        let since = self.processes.get(&launch).and_then(|process| process.told.get(task).copied());
        let since = since.or_else(|| {
            self.fleet.worker(launch).and_then(|worker| Some(worker.state.process()?.tasks.get(task)?.since))
        });
        let duration_ms = since.map_or(0, |since| milliseconds(sys::boottime().since(since)));
        let outcome = match outcome {
            Heard::Ok => TaskOutcome::Ok,
            Heard::Error => TaskOutcome::Error,
            Heard::Cancelled => TaskOutcome::Cancelled,
        };
        if let Some((app, worker)) = self.name_of(launch) {
            let event = EventKind::TaskEnded { task: task.to_owned(), outcome, duration_ms };
            self.record(Some(&app), Some(worker), event);
        }
    }

    pub(super) fn tell_status(&mut self, launch: Launch, text: String) {
        if let Some((app, worker)) = self.name_of(launch) {
            self.record(Some(&app), Some(worker), EventKind::NotifyStatus { text });
        }
    }

    fn name_of(&self, launch: Launch) -> Option<(AppName, String)> {
        let worker = &self.processes.get(&launch)?.worker;
        Some((worker.app.clone(), worker.to_string()))
    }
}

/// What a request that changed apps is answered with: an `apply` tells its plan along.
pub(super) fn answer(plan: Option<Vec<AppDifference>>, changed: Changed) -> Reply {
    let Changed { operations, results } = changed;
    match plan {
        Some(apps) => Reply::Applied(Box::new(Applied { apps, operations, results })),
        None => Reply::Changed(Changed { operations, results }),
    }
}

/// One line in the daemon's own log for each piece of news.
fn trace(app: &AppName, worker: Option<&str>, news: &News) {
    let who = worker.unwrap_or(app.as_str());
    match news {
        News::Exited { exit, cause: _, reason, uptime } => {
            tracing::info!(worker = who, %exit, reason, uptime_ms = milliseconds(*uptime), "exited");
        }
        News::Parked { why } => tracing::warn!(worker = who, why, "parked"),
        News::RolloutReversed { id, why, .. } => tracing::warn!(app = who, deployment = %id, why, "going back"),
        News::Finished(Finished { id, kind, result, why, .. }) => {
            tracing::info!(app = who, operation = %id, ?kind, ?result, why, "finished");
        }
        News::ProbeFailed { why, failures, of } => {
            tracing::warn!(worker = who, why, failures, of, "liveness probe failed");
        }
        News::Refreshed(renewal) => {
            tracing::info!(worker = who, outcome = ?renewal.outcome, took = ?renewal.took, "asked to refresh")
        }
        News::Outgrown { limit } => tracing::warn!(worker = who, %limit, "another is to take its place"),
        News::Killed => tracing::warn!(worker = who, "killed: it did not end in time"),
        News::AppAdded
        | News::AppDeleted
        | News::Starting { .. }
        | News::Spawned { .. }
        | News::Ready { .. }
        | News::Draining { .. }
        | News::DrainDeadline { .. }
        | News::DrainProgress { .. }
        | News::Undrained
        | News::Stopping { .. }
        | News::Backoff { .. }
        | News::StageReached { .. }
        | News::RolloutHeld { .. }
        | News::RolloutPaused { .. }
        | News::RolloutResumed { .. }
        | News::RolloutStarted { .. } => tracing::debug!(worker = who, ?news),
    }
}

/// A proof as the events name it.
const fn proof_word(proof: Proof) -> &'static str {
    match proof {
        Proof::Notified => "notify",
        Proof::Http => "http",
        Proof::Accepted => "listening",
        Proof::LogLine => "log",
        Proof::Command => "command",
        Proof::Running => "alive",
    }
}

pub(super) fn exit_reason(cause: ExitCause, exit: Exit) -> ExitReason {
    match cause {
        ExitCause::Itself if exit.is_success() => ExitReason::Finished,
        ExitCause::Itself => ExitReason::Crashed,
        ExitCause::StartFailed => ExitReason::StartFailed,
        ExitCause::Asked(reason) => stop_reason(reason),
        ExitCause::Limit(limit) => super::limits::reason(limit),
    }
}

fn stop_reason(reason: StopReason) -> ExitReason {
    match reason {
        StopReason::Stop => ExitReason::Stop,
        StopReason::ScaleDown => ExitReason::Scale,
        StopReason::Replaced => ExitReason::Reload,
        StopReason::RolledBack => ExitReason::Rollback,
        StopReason::NotReady => ExitReason::ReadyTimeout,
        StopReason::Unhealthy => ExitReason::Unhealthy,
        StopReason::Watchdog => ExitReason::Watchdog,
        StopReason::Own => ExitReason::Finished,
    }
}

pub(super) fn operation_kind(kind: effect::OperationKind) -> OperationKind {
    match kind {
        effect::OperationKind::Start => OperationKind::Start,
        effect::OperationKind::Stop => OperationKind::Stop,
        effect::OperationKind::Delete => OperationKind::Delete,
        effect::OperationKind::Scale => OperationKind::Scale,
        effect::OperationKind::Reload => OperationKind::Reload,
        effect::OperationKind::Restart => OperationKind::Restart,
        effect::OperationKind::Upgrade => OperationKind::Upgrade,
        effect::OperationKind::Rollback => OperationKind::Rollback,
        effect::OperationKind::Adopt => OperationKind::Adopt,
        effect::OperationKind::Refresh => OperationKind::Refresh,
    }
}

pub(super) fn strategy(strategy: rollout::Strategy) -> Strategy {
    match strategy {
        rollout::Strategy::Rolling => Strategy::Rolling,
        rollout::Strategy::BlueGreen => Strategy::BlueGreen,
        rollout::Strategy::Canary => Strategy::Canary,
        rollout::Strategy::Recreate => Strategy::Recreate,
    }
}

fn operation_state(result: effect::OperationResult) -> OperationState {
    match result {
        effect::OperationResult::Done => OperationState::Done,
        effect::OperationResult::RolledBack => OperationState::RolledBack,
        effect::OperationResult::Aborted => OperationState::Aborted,
        effect::OperationResult::Failed => OperationState::Failed,
    }
}

pub(super) fn deployment_state(result: effect::OperationResult) -> DeploymentState {
    match result {
        effect::OperationResult::Done => DeploymentState::Done,
        effect::OperationResult::RolledBack => DeploymentState::RolledBack,
        effect::OperationResult::Aborted => DeploymentState::Aborted,
        effect::OperationResult::Failed => DeploymentState::Failed,
    }
}

/// What became of tasks, as clients are told.
pub(super) fn task_counts(toll: &Toll) -> TaskCounts {
    TaskCounts { finished: toll.finished.into(), handed_over: toll.handed_over.into(), lost: toll.lost.into() }
}

/// Connections that were closed, at rest or not.
pub(super) fn connections_cut(toll: &Toll) -> u64 {
    u64::from(toll.busy_cut) + u64::from(toll.idle_cut)
}

/// A lost task, as clients are told.
pub(super) fn lost_task((task, loss): &(agentd_core::task::TaskId, agentd_core::task::Loss)) -> LostTask {
    LostTask { task: task.to_string(), why: loss.word().to_owned() }
}
