//! What is remembered of deployments: a report each, kept up to date and written down while it runs, so that it lacks
//! nothing when the supervisor that began it did not end it.
//!
//! A hundred of each app are kept (`store`). What tasks took and what a bad version did is asked of the ledger at the
//! end; a report whose supervisor died between the two lacks it.

use std::collections::BTreeSet;

use agentd_core::effect::{Finished, News, OperationResult};
use agentd_core::id::{AppName, Generation, Operation};
use agentd_core::rollout::{Rollout, StepName};
use agentd_protocol::control::{
    CheckpointsView, DeploymentList, DeploymentReport, ErrorKind, ErrorObject, HookRun, HookState, Reply, StageView,
    TaskCounts, VerdictView,
};
use agentd_protocol::status::{DeploymentState, GateVerdict, GateView};
use jiff::Timestamp;

use super::Dispatcher;
use super::control::Answer;
use super::hooks::Running;
use super::tell::{connections_cut, deployment_state, lost_task, operation_kind, strategy, task_counts};
use super::view::wall;
use crate::causes::in_full;
use crate::config::Occasion;
use crate::store::{Change, DeploymentStanding, Durability};
use crate::tasks::Command;
use crate::tasks::versions::{Measure, Measured};

impl Dispatcher {
    /// Takes news into the report of the deployment that they are about.
    pub(super) fn remember(&mut self, app: &AppName, news: &News) {
        match news {
            News::RolloutStarted { id, .. } => {
                self.remember_labels(app);
                if let Some(report) = self.new_report(app, *id) {
                    self.reports.insert(*id, report);
                    self.write_report(*id);
                }
            }
            News::StageReached { id, name, percent } => {
                self.with_report(*id, |report| report.stages.push(stage(*name, *percent, Timestamp::now())));
            }
            News::RolloutReversed { id, why, .. } => {
                self.call_off_hooks(*id);
                self.with_report(*id, |report| {
                    report.state = DeploymentState::RollingBack;
                    report.why = Some(why.clone());
                    report.stages.push(stage(StepName::Back, None, Timestamp::now()));
                });
            }
            News::RolloutPaused { id } => self.with_report(*id, |report| report.state = DeploymentState::Paused),
            News::RolloutResumed { id } => self.with_report(*id, |report| report.state = DeploymentState::Running),
            News::Finished(finished) if finished.deployment.is_some() => self.close_report(app, finished),
            News::Finished(_)
            | News::RolloutHeld { .. }
            | News::AppAdded
            | News::AppDeleted
            | News::Starting { .. }
            | News::Spawned { .. }
            | News::Ready { .. }
            | News::Draining { .. }
            | News::DrainDeadline { .. }
            | News::DrainProgress { .. }
            | News::Undrained
            | News::Stopping { .. }
            | News::Killed
            | News::Exited { .. }
            | News::Backoff { .. }
            | News::Parked { .. }
            | News::Outgrown { .. }
            | News::Refreshed(_)
            | News::ProbeFailed { .. } => {}
        }
    }

    pub(super) fn new_report(&self, app: &AppName, id: Operation) -> Option<DeploymentReport> {
        let rollout = self.fleet.app(app)?.head.rollout.as_ref().filter(|rollout| rollout.id == id)?;
        Some(self.report_of(app, rollout))
    }

    fn report_of(&self, app: &AppName, rollout: &Rollout) -> DeploymentReport {
        let [from, to] = [rollout.from, rollout.to].map(|side| side.generation);
        DeploymentReport {
            id: rollout.id.0,
            app: app.to_string(),
            kind: operation_kind(rollout.kind),
            strategy: strategy(rollout.plan.strategy),
            from: self.label_of(app, from.0),
            to: self.label_of(app, to.0),
            from_generation: from.0,
            to_generation: to.0,
            state: DeploymentState::Running,
            why: None,
            started_at: wall(rollout.started_at),
            finished_at: None,
            stages: rollout.steps.iter().map(|step| stage(step.name, step.percent, wall(step.at))).collect(),
            tasks: TaskCounts::default(),
            lost_tasks: Vec::new(),
            connections_cut: 0,
            gates: Vec::new(),
            verdicts: Vec::new(),
            before: None,
            after: None,
            effects: Vec::new(),
            checkpoints: None,
            hooks: Vec::new(),
        }
    }

    fn with_report(&mut self, id: Operation, change: impl FnOnce(&mut DeploymentReport)) {
        if let Some(report) = self.reports.get_mut(&id) {
            change(report);
            self.write_report(id);
        }
    }

    /// The gates changed their mind.
    pub(super) fn remember_verdict(
        &mut self,
        id: Operation,
        verdict: GateVerdict,
        why: Option<String>,
        gates: Vec<GateView>,
    ) {
        self.with_report(id, |report| {
            report.gates.clone_from(&gates);
            report.verdicts.push(VerdictView { at: Timestamp::now(), verdict, why, gates });
        });
    }

    /// What open checkpoints its new version reads.
    pub(super) fn remember_checkpoints(&mut self, id: Operation, view: CheckpointsView) {
        self.with_report(id, |report| report.checkpoints = Some(view));
    }

    /// A hook is about to run for a deployment.
    pub(super) fn remember_hook(&mut self, running: &Running) {
        let Some(part) = running.part else { return };
        let run = HookRun {
            on: running.on.as_str().to_owned(),
            hook: hook_number(running.place),
            percent: part.percent,
            command: running.command.clone(),
            state: HookState::Running,
            why: None,
            begun_at: Timestamp::now(),
            took_ms: None,
            output: Vec::new(),
        };
        self.amend_report(part.id, |report| report.hooks.push(run));
    }

    /// It ended.
    pub(super) fn remember_hook_end(
        &mut self,
        running: &Running,
        state: HookState,
        why: Option<String>,
        output: Vec<String>,
    ) {
        let Some(part) = running.part else { return };
        self.amend_report(part.id, |report| {
            let of = |run: &&mut HookRun| {
                run.state == HookState::Running && of_hook(run, running.on, running.place, part.percent)
            };
            if let Some(run) = report.hooks.iter_mut().find(of) {
                let took = Timestamp::now().duration_since(run.begun_at).as_millis();
                (run.state, run.why, run.output) = (state, why, output);
                run.took_ms = Some(u64::try_from(took).unwrap_or(0));
            }
        });
    }

    /// As [`Self::with_report`], also where the deployment is over and its report only on disk.
    fn amend_report(&mut self, id: Operation, change: impl FnOnce(&mut DeploymentReport)) {
        if self.reports.contains_key(&id) {
            return self.with_report(id, change);
        }
        let kept = self.store.deployments(None, Some(id.0), false);
        let report = kept.map(|kept| kept.first().and_then(|json| serde_json::from_str(json).ok()));
        match report {
            Ok(Some(report)) => {
                self.reports.insert(id, report);
                self.with_report(id, change);
                self.reports.remove(&id);
            }
            // The app is gone, and its reports with it.
            Ok(None) => {}
            Err(error) => tracing::error!(deployment = %id, error = in_full(&error), "its report could not be read"),
        }
    }

    fn close_report(&mut self, app: &AppName, finished: &Finished) {
        self.call_off_hooks(finished.id);
        let Some(generations) = finished.deployment else { return };
        let gates = self.gates_of(app, finished.id).0;
        if let Some(shell) = self.apps.get_mut(app) {
            shell.judged = None;
        }
        self.tell_tasks(Command::Unjudge(app.clone()));
        let Some(report) = self.reports.get_mut(&finished.id) else { return };
        report.state = deployment_state(finished.result);
        report.why.clone_from(&finished.why);
        report.finished_at = Some(wall(finished.finished_at));
        report.tasks = task_counts(&finished.toll);
        report.lost_tasks = finished.toll.lost_tasks.iter().map(lost_task).collect();
        report.connections_cut = connections_cut(&finished.toll);
        if !gates.is_empty() {
            report.gates = gates;
        }
        let bad = finished.result != OperationResult::Done;
        let effects_of = bad.then(|| (report.to.clone(), report.started_at));
        let measure = Measure { app: app.clone(), deployment: finished.id, generations, effects_of };
        self.write_report(finished.id);
        self.tell_tasks(Command::Measure(Box::new(measure)));
        if self.tasks.is_none() {
            self.reports.remove(&finished.id);
        }
    }

    /// The ledger tells what the versions of a deployment did: its report is whole.
    pub(super) fn measured(&mut self, measured: Measured) {
        let id = measured.deployment;
        self.with_report(id, |report| {
            (report.before, report.after, report.effects) = (measured.before, measured.after, measured.effects);
        });
        self.reports.remove(&id);
    }

    fn write_report(&mut self, id: Operation) {
        let Some(report) = self.reports.get(&id) else { return };
        match change(report) {
            Ok(change) => self.write_down(&[change], Durability::Process),
            Err(error) => tracing::error!(deployment = %id, error, "its report could not be written down"),
        }
    }

    /// Reports that are to be written again with everything else.
    pub(super) fn open_reports(&self) -> impl Iterator<Item = Change> {
        self.reports.values().filter_map(|report| change(report).ok())
    }

    /// Goes on with the reports of deployments that were not over. One whose deployment is gone ended with the machine.
    pub(super) fn restore_reports(&mut self) {
        let open = match self.store.deployments(None, None, true) {
            Ok(open) => open,
            Err(error) => return tracing::error!(error = in_full(&error), "what was deployed could not be read"),
        };
        let open: Vec<DeploymentReport> = open.iter().filter_map(|json| serde_json::from_str(json).ok()).collect();
        // One that is awaited is run once more, and never beside itself.
        if open.iter().flat_map(|report| &report.hooks).any(|run| run.state == HookState::Running) {
            self.end_left_hooks();
        }
        for report in open {
            let id = Operation(report.id);
            let runs = self.fleet.apps().any(|app| app.head.rollout.as_ref().is_some_and(|rollout| rollout.id == id));
            self.reports.insert(id, report);
            self.with_report(id, |report| cut_hooks(report, "the supervisor died under it"));
            if !runs {
                self.with_report(id, |report| {
                    report.state = DeploymentState::Aborted;
                    report.finished_at = Some(Timestamp::now());
                    report.why.get_or_insert_with(|| "the supervisor ended before it did".to_owned());
                });
                self.reports.remove(&id);
            }
        }
    }

    /// Generations of an app whose tasks are nothing to compare with.
    pub(super) fn distrusted(&self, app: &AppName) -> BTreeSet<u64> {
        self.store.taken_back(app).unwrap_or_else(|error| {
            tracing::error!(error = in_full(&error), "what was taken back could not be read");
            BTreeSet::new()
        })
    }

    /// The deployments of an app, or of all.
    pub(super) fn list_deployments(&self, name: Option<&str>) -> Answer<Reply> {
        if let Some(name) = name {
            self.one(name)?;
        }
        let kept = self.store.deployments(name, None, false).map_err(|error| unread(&error))?;
        let mut deployments: Vec<DeploymentReport> =
            kept.iter().filter_map(|json| serde_json::from_str(json).ok()).collect();
        for report in &mut deployments {
            (report.verdicts, report.effects) = (Vec::new(), Vec::new());
            report.hooks = Vec::new();
            for durations in [&mut report.before, &mut report.after].into_iter().flatten() {
                durations.curve_ms = Vec::new();
            }
        }
        Ok(Reply::Deployments(DeploymentList { deployments }))
    }

    /// One deployment from its beginning on.
    pub(super) fn show_deployment(&self, id: u64) -> Answer<Reply> {
        let mut report = match self.reports.get(&Operation(id)) {
            Some(report) => report.clone(),
            None => {
                let kept = self.store.deployments(None, Some(id), false).map_err(|error| unread(&error))?;
                let found = kept.first().and_then(|json| serde_json::from_str(json).ok());
                found.ok_or_else(|| {
                    ErrorObject::new(ErrorKind::Refused, format!("no deployment {id} is known"))
                        .with_help("`agentctl deployments` lists those that are kept")
                })?
            }
        };
        if !self.hooks.runs_for(Operation(id)) {
            cut_hooks(&mut report, "the supervisor died under it");
        }
        if report.finished_at.is_none()
            && let Ok(app) = report.app.parse::<AppName>()
        {
            report.gates = self.gates_of(&app, Operation(id)).0;
            let present = self.fleet.app(&app).and_then(|app| self.deployment_view(app));
            let waits = present.filter(|present| present.id == id).and_then(|present| present.why);
            report.why = report.why.or(waits);
        }
        Ok(Reply::Deployment(Box::new(report)))
    }
}

fn change(report: &DeploymentReport) -> Result<Change, String> {
    let state = match report.state {
        // What failed without a way back serves all the same.
        DeploymentState::Done | DeploymentState::Failed => DeploymentStanding::Done,
        DeploymentState::RolledBack | DeploymentState::Aborted => DeploymentStanding::TakenBack,
        DeploymentState::Running
        | DeploymentState::Paused
        | DeploymentState::RollingBack
        | DeploymentState::Unknown => DeploymentStanding::Open,
    };
    let app = report.app.parse().map_err(|error| format!("{error}"))?;
    let json = serde_json::to_string(report).map_err(|error| error.to_string())?;
    let generation = Generation(report.to_generation);
    Ok(Change::Deployment { app, id: Operation(report.id), state, generation, json })
}

fn unread(error: &crate::store::StoreError) -> ErrorObject {
    ErrorObject::new(ErrorKind::Internal, in_full(error))
}

fn stage(name: StepName, percent: Option<u8>, at: Timestamp) -> StageView {
    StageView { name: stage_name(name).to_owned(), percent, at }
}

/// Whether a run is one of this hook, for this occasion.
pub(super) fn of_hook(run: &HookRun, on: Occasion, place: usize, percent: Option<u8>) -> bool {
    run.on == on.as_str() && run.hook == hook_number(place) && run.percent == percent
}

fn hook_number(place: usize) -> u32 {
    u32::try_from(place + 1).unwrap_or(u32::MAX)
}

/// Nobody of us has seen the end of what is said to run.
fn cut_hooks(report: &mut DeploymentReport, why: &str) {
    for run in report.hooks.iter_mut().filter(|run| run.state == HookState::Running) {
        run.state = HookState::Cut;
        run.why = Some(why.to_owned());
    }
}

pub(super) const fn stage_name(name: StepName) -> &'static str {
    match name {
        StepName::Preparing => "preparing",
        StepName::Checking => "checking",
        StepName::Replacing => "replacing",
        StepName::Raising => "raising",
        StepName::Verifying => "verifying",
        StepName::Sharing => "sharing",
        StepName::Warm => "warm",
        StepName::Retiring => "retiring",
        StepName::Back => "back",
    }
}
