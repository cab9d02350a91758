//! Judging the new generation of a deployment by the tasks that its workers end.
//!
//! The evidence is the ledger thread's, beside the tasks themselves (`tasks::panels`). Here: what it is to judge, and what
//! core is to know of what it says. Decides nothing.

use agentd_core::event::{Event, RolloutEvent};
use agentd_core::gate::Verdict;
use agentd_core::gate::panel::{Said, Shown};
use agentd_core::id::{AppName, Operation};
use agentd_core::rollout::{Judgement, Stage};
use agentd_protocol::events::EventKind;
use agentd_protocol::status::{GateVerdict, GateView};

use super::Dispatcher;
use crate::tasks::Command;
use crate::tasks::panels::{Judge, Judged};

impl Dispatcher {
    /// Judges the present stage of a deployment, or goes on with it.
    pub(super) fn judge(&mut self, app: &AppName, id: Operation) {
        let Some(rollout) = self.fleet.app(app).and_then(|app| app.head.rollout.as_ref()) else { return };
        let stages = rollout.plan.steps.len();
        let stage = match rollout.stage {
            Stage::Sharing { step, .. } => step,
            Stage::Replacing => 0,
            Stage::Warm { .. } => stages,
            Stage::Preparing
            | Stage::Checking { .. }
            | Stage::Raising { .. }
            | Stage::Verifying { .. }
            | Stage::Retiring => return,
        };
        let record = self.apps.get(app).and_then(|shell| shell.revisions.get(&rollout.to.revision));
        let Some(record) = record else { return };
        let judge = Judge {
            app: app.clone(),
            deployment: id,
            generation: rollout.to.generation,
            stage: u32::try_from(stage).unwrap_or(u32::MAX),
            rules: record.config.gates.clone(),
            distrusted: self.distrusted(app),
        };
        self.tell_tasks(Command::Judge(Box::new(judge)));
    }

    /// The gates said something.
    pub(super) fn judged(&mut self, judged: Judged) {
        let app = judged.app.clone();
        let present = self.fleet.app(&app).and_then(|app| app.head.rollout.as_ref());
        let Some(present) = present.filter(|rollout| rollout.id == judged.deployment) else { return };
        // Where nothing waits for a word, only one that speaks against the new version is news.
        let awaited = present.stage != Stage::Replacing;
        let Some(shell) = self.apps.get_mut(&app) else { return };
        let before = shell.judged.replace(judged.clone()).filter(|before| before.deployment == judged.deployment);
        let changed =
            before.is_none_or(|before| std::mem::discriminant(&before.said) != std::mem::discriminant(&judged.said));
        let Judged { deployment: id, said, gates, .. } = judged;
        self.mark_stale(&app);
        if changed && (awaited || matches!(said, Said::Hold(_) | Said::Worse(_))) {
            let (verdict, why) = match &said {
                Said::Worse(why) => (GateVerdict::Rollback, Some(why.clone())),
                Said::Hold(why) => (GateVerdict::Hold, Some(why.clone())),
                Said::TooFew(why) => (GateVerdict::TooFew, Some(why.clone())),
                Said::Pass => (GateVerdict::Promote, None),
            };
            let gates: Vec<GateView> = gates.iter().map(gate_view).collect();
            self.remember_verdict(id, verdict, why.clone(), gates.clone());
            self.record(Some(&app), None, EventKind::DeploymentJudged { id: id.0, verdict, why, gates });
        }
        let event = match said {
            Said::Worse(why) => RolloutEvent::Condemned { why },
            Said::Hold(why) => RolloutEvent::Judged(Judgement::Hold { why }),
            Said::TooFew(_) => RolloutEvent::Judged(Judgement::TooFew),
            Said::Pass => RolloutEvent::Judged(Judgement::Promote),
        };
        self.events.push_back(Event::Rollout { app, id, event });
    }

    /// The gates of the deployment that runs, and what is missing before they say anything.
    pub(super) fn gates_of(&self, app: &AppName, id: Operation) -> (Vec<GateView>, Option<String>) {
        let judged = self.apps.get(app).and_then(|shell| shell.judged.as_ref());
        let Some(judged) = judged.filter(|judged| judged.deployment == id) else { return (Vec::new(), None) };
        let lacking = match &judged.said {
            Said::TooFew(why) => Some(why.clone()),
            Said::Worse(_) | Said::Hold(_) | Said::Pass => None,
        };
        (judged.gates.iter().map(gate_view).collect(), lacking)
    }
}

fn gate_view(shown: &Shown) -> GateView {
    let gate = shown.metric.word().to_owned();
    let Some(reading) = shown.reading else {
        return GateView { gate, n: 0, observed: None, baseline: None, log_e: 0.0, verdict: GateVerdict::Off };
    };
    let verdict = match reading.verdict {
        Verdict::TooFew if reading.n == 0 || reading.baseline.is_none() => GateVerdict::NotEvaluated,
        Verdict::TooFew => GateVerdict::TooFew,
        Verdict::Rollback => GateVerdict::Rollback,
        Verdict::Hold => GateVerdict::Hold,
        Verdict::Promote => GateVerdict::Promote,
    };
    let (n, observed, baseline, log_e) = (reading.n, reading.observed, reading.baseline, reading.log_e);
    GateView { gate, n, observed, baseline, log_e, verdict }
}
