//! Hooks that a deployment waits for: `before_deployment`, and `before_stage` where connections are shared out by stages.
//!
//! ```text
//!  Effect::Prepare ──┐
//!  its eval passed ──┴─► the next hook that its report does not call done ── none left ──► Prepared | Verified: on
//!                           │                                      ▲
//!                           └─► written into the report ─► runs ───┤ ended with code 0
//!                                                                  └─ otherwise, or late ─► Unprepared | Refused: back
//! ```
//!
//! The report is the journal: what it calls done is never run again, and what it calls running under a supervisor that is
//! no more is ended, called `cut`, and run once more with `AGENTD_HOOK_AGAIN` saying so. Hooks of the new configuration are
//! run, in their order, one at a time; neither their rate nor the others that run hold them back. Owns what they are told
//! and what follows from their end; their processes are `hooks`'.

use std::sync::Arc;

use agentd_core::event::{Event, RolloutEvent};
use agentd_core::id::{AppName, Operation};
use agentd_core::rollout::{Direction, Rollout, Stage};
use agentd_protocol::control::{DeploymentReport, HookRun, HookState};

use super::Dispatcher;
use super::history::of_hook;
use super::hooks::{Part, Running};
use crate::causes::in_full;
use crate::config::Occasion;
use crate::revision::RevisionRecord;

/// What a deployment waits with, until hooks have succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Awaited {
    /// With its beginning.
    Deployment,
    /// With a greater part of the new connections for the new version.
    Stage {
        /// At which step.
        step: usize,
    },
}

impl Awaited {
    const fn occasion(self) -> Occasion {
        match self {
            Self::Deployment => Occasion::BeforeDeployment,
            Self::Stage { .. } => Occasion::BeforeStage,
        }
    }

    fn is_now(self, rollout: &Rollout) -> bool {
        let stage = match self {
            Self::Deployment => Stage::Preparing,
            Self::Stage { step } => Stage::Verifying { step },
        };
        rollout.direction == Direction::Forward && rollout.stage == stage
    }

    /// Percent of the new connections that what it waits with is about.
    fn percent(self, rollout: &Rollout) -> Option<u8> {
        match self {
            Self::Deployment => None,
            Self::Stage { step } => Some(rollout.plan.percent(step)),
        }
    }
}

impl Dispatcher {
    /// Runs the next hook that a deployment waits for, or lets it go on.
    pub(super) fn ask_hooks(&mut self, app: &AppName, id: Operation, awaited: Awaited) {
        let Some((rollout, record)) = self.awaiting(app, id, awaited) else { return };
        if self.hooks.is_awaited(id) {
            return;
        }
        let (on, percent) = (awaited.occasion(), awaited.percent(&rollout));
        // A rolling deployment that was verified shares no connections out by stages.
        let waits = awaited == Awaited::Deployment || rollout.plan.is_staged();
        let hooks = || record.config.hooks.iter().enumerate().filter(|(_, hook)| waits && hook.on.contains(&on));
        if hooks().next().is_none() {
            return self.answer(app, id, awaited, Ok(()));
        }
        let runs = self.open_report(app, id).map(|report| report.hooks.clone()).unwrap_or_default();
        let of = |place: usize| runs.iter().filter(move |run| of_hook(run, on, place, percent));
        let Some((place, hook)) = hooks().find(|&(place, _)| of(place).all(|run| run.state != HookState::Done)) else {
            return self.answer(app, id, awaited, Ok(()));
        };
        let again = of(place).count();
        let running = Running {
            app: app.clone(),
            place,
            on,
            command: hook.command.iter().map(|word| record.in_release(word)).collect(),
            part: Some(Part { id, awaited: Some(awaited), percent }),
        };
        self.remember_hook(&running);
        if let Some(trouble) = self.saving.trouble() {
            let why = format!("it was not run, because nobody after us would know of it: {trouble}");
            self.remember_hook_end(&running, HookState::Failed, Some(why.clone()), Vec::new());
            return self.answer(app, id, awaited, Err(sentence(&running, &why, &[])));
        }
        let report = self.reports.get(&id).map(serde_json::to_string);
        let line = match report {
            Some(Ok(line)) => line,
            Some(Err(error)) => in_full(&error),
            None => String::new(),
        };
        let variables = self.variables_before(&rollout, &running, again, &record);
        self.run_hook(running, hook, &line, variables, &record);
    }

    /// The deployment that waits, and the configuration that it brings.
    fn awaiting(&self, app: &AppName, id: Operation, awaited: Awaited) -> Option<(Rollout, Arc<RevisionRecord>)> {
        let rollout = self.fleet.app(app)?.head.rollout.as_ref().filter(|rollout| rollout.id == id)?;
        let record = self.apps.get(app)?.revisions.get(&rollout.to.revision)?;
        awaited.is_now(rollout).then(|| (rollout.clone(), Arc::clone(record)))
    }

    fn answer(&mut self, app: &AppName, id: Operation, awaited: Awaited, result: Result<(), String>) {
        let event = match (awaited, result) {
            (Awaited::Deployment, Ok(())) => RolloutEvent::Prepared,
            (Awaited::Deployment, Err(why)) => RolloutEvent::Unprepared { why },
            (Awaited::Stage { step }, Ok(())) => RolloutEvent::Verified { step },
            (Awaited::Stage { step }, Err(why)) => RolloutEvent::Refused { step, why },
        };
        self.events.push_back(Event::Rollout { app: app.clone(), id, event });
    }

    /// An awaited hook ended, and its report knows it.
    pub(super) fn awaited_hook_ended(
        &mut self,
        running: &Running,
        id: Operation,
        awaited: Awaited,
        failure: Option<&str>,
        output: &[String],
    ) {
        match failure {
            None => self.ask_hooks(&running.app, id, awaited),
            Some(why) => self.answer(&running.app, id, awaited, Err(sentence(running, why, output))),
        }
    }

    fn variables_before(
        &self,
        rollout: &Rollout,
        running: &Running,
        again: usize,
        record: &RevisionRecord,
    ) -> Vec<(String, String)> {
        let text = |value: Result<serde_json::Value, serde_json::Error>| match value {
            Ok(serde_json::Value::String(text)) => text,
            Ok(_) | Err(_) => String::new(),
        };
        let label = |side: agentd_core::rollout::Side| self.label_of(&running.app, side.generation.0);
        let percent = running.part.as_ref().and_then(|part| part.percent);
        let release = record.release.as_ref();
        [
            ("AGENTD_EVENT_ON", running.on.as_str().to_owned()),
            ("AGENTD_EVENT_APP", running.app.to_string()),
            ("AGENTD_DEPLOYMENT", rollout.id.to_string()),
            ("AGENTD_DEPLOYMENT_KIND", text(serde_json::to_value(super::tell::operation_kind(rollout.kind)))),
            ("AGENTD_DEPLOYMENT_STRATEGY", text(serde_json::to_value(super::tell::strategy(rollout.plan.strategy)))),
            ("AGENTD_DEPLOYMENT_FROM", label(rollout.from)),
            ("AGENTD_DEPLOYMENT_TO", label(rollout.to)),
            ("AGENTD_DEPLOYMENT_PERCENT", percent.map_or_else(String::new, |percent| percent.to_string())),
            ("AGENTD_HOOK_AGAIN", again.to_string()),
            ("AGENTD_RELEASE", release.map_or_else(String::new, |release| release.id.to_string())),
            ("AGENTD_RELEASE_DIR", release.map_or_else(String::new, |release| release.folder.to_string())),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }

    /// The report of a deployment that runs, begun anew where it could not be read.
    fn open_report(&mut self, app: &AppName, id: Operation) -> Option<&DeploymentReport> {
        if !self.reports.contains_key(&id) {
            let report = self.new_report(app, id)?;
            self.reports.insert(id, report);
        }
        self.reports.get(&id)
    }

    /// What a deployment waits for that a hook holds, in a sentence.
    pub(super) fn hook_waited_for(&self, id: Operation) -> Option<String> {
        let run = self.reports.get(&id)?.hooks.last().filter(|run| run.state == HookState::Running)?;
        run.on.starts_with("before").then(|| waits(run))
    }
}

fn waits(run: &HookRun) -> String {
    format!("waits for its {} hook {}", run.on, run.command.join(" "))
}

/// Why a deployment does not go on, with what the hook said last.
fn sentence(running: &Running, why: &str, output: &[String]) -> String {
    let last = output.last().map(|line| format!(": {line}")).unwrap_or_default();
    format!("its {} hook {} {why}{last}", running.on.as_str(), running.command.join(" "))
}
