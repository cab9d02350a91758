//! A refresh of an app: whom it asks next, by who is there (`refresh` has the diagram).
//!
//! Levels, as everywhere in an app: each pass looks at who serves, and asks one at a time. A deployment and a refresh
//! never run together; admission sees to that.

use crate::admission::{Admitted, Denied};
use crate::effect::{Effect, Finished, News, OperationKind, OperationResult, StopReason, Toll};
use crate::id::{Launch, Operation};
use crate::refresh::{Ended, Refresh, RefreshAnswer, Renewal, RenewalOutcome, Stage};
use crate::worker::{State, Worker};

use super::{App, Context, Desired};

/// How a process start stands, as far as a refresh goes.
enum Standing {
    Starting,
    Serving,
    Leaving,
    Fell { why: String },
}

impl App {
    /// Whether there is a way to ask, and somebody.
    pub(crate) fn may_refresh(&self) -> Result<(), Denied> {
        let app = || self.head.name.clone();
        match self.policy_now().refresh {
            None => Err(Denied::NoRefresh(app())),
            Some(_) if !self.has_any_process() => Err(Denied::NobodyRuns(app())),
            Some(_) => Ok(()),
        }
    }

    pub(crate) fn begin_refresh(&mut self, cx: &mut Context<'_>, id: Operation) -> Admitted {
        let there = self.workers.values().filter(|worker| !matches!(standing(worker), Standing::Leaving));
        let left = there.filter_map(|worker| worker.launch()).collect();
        self.head.refreshes.running = Some(Refresh::begin(id, cx.tick.now, left));
        Admitted::Begun(id)
    }

    /// What the one that was asked says; a word about another refresh, or of another worker, is late and changes nothing.
    pub(super) fn on_refreshed(
        &mut self,
        cx: &mut Context<'_>,
        from: Launch,
        about: Operation,
        said: Result<RefreshAnswer, String>,
    ) {
        let Some(Refresh { id, stage: Stage::Asked { launch, .. }, .. }) = self.head.refreshes.running else { return };
        if (id, launch) != (about, from) {
            return;
        }
        let outcome = match said {
            Ok(RefreshAnswer::Renewed) => RenewalOutcome::Renewed,
            Ok(RefreshAnswer::Told) => RenewalOutcome::Told,
            Err(why) => RenewalOutcome::Failed { why },
        };
        self.note_renewal(cx, outcome);
        self.reconcile(cx);
    }

    /// One pass of the refresh that runs.
    pub(super) fn advance_refresh(&mut self, cx: &mut Context<'_>) {
        if self.head.desired != Desired::Running || cx.winding_down {
            return self.end_refresh(cx, OperationResult::Aborted, Some("the app is ending".to_owned()));
        }
        while let Some(refresh) = &self.head.refreshes.running {
            match refresh.stage.clone() {
                Stage::Asked { launch, until, .. } => {
                    let outcome = match self.standing_of(launch) {
                        Standing::Fell { why } => RenewalOutcome::Failed { why },
                        Standing::Leaving => RenewalOutcome::Gone,
                        Standing::Starting | Standing::Serving if until <= cx.tick.now => {
                            RenewalOutcome::Failed { why: format!("did not answer within {:?}", self.refresh_within()) }
                        }
                        Standing::Starting | Standing::Serving => return,
                    };
                    self.note_renewal(cx, outcome);
                }
                Stage::Looking => {
                    if let Some(why) = refresh.failure() {
                        return self.end_refresh(cx, OperationResult::Failed, Some(why));
                    }
                    if !self.ask_next(cx) {
                        return;
                    }
                }
            }
        }
    }

    /// Asks whoever serves next, or ends what has nobody left. False while those that are left are starting.
    fn ask_next(&mut self, cx: &mut Context<'_>) -> bool {
        let within = self.refresh_within();
        let Some(refresh) = &self.head.refreshes.running else { return false };
        let mut left = refresh.left.clone();
        let next = self.workers.values().find_map(|worker| {
            let launch = worker.launch().filter(|launch| left.contains(launch))?;
            matches!(standing(worker), Standing::Serving).then(|| (worker.id.clone(), launch))
        });
        left.retain(|&launch| matches!(self.standing_of(launch), Standing::Starting | Standing::Serving));
        let Some(refresh) = &mut self.head.refreshes.running else { return false };
        if refresh.left != left {
            refresh.left = left;
            cx.out.save_app(&self.head.name);
        }
        match next {
            Some((worker, launch)) => {
                refresh.ask(worker, launch, cx.tick.now, within);
                let id = refresh.id;
                cx.out.save_app(&self.head.name);
                cx.out.act.push(Effect::Refresh { launch, id });
                true
            }
            None if refresh.left.is_empty() => {
                self.end_refresh(cx, OperationResult::Done, None);
                true
            }
            None => false,
        }
    }

    fn note_renewal(&mut self, cx: &mut Context<'_>, outcome: RenewalOutcome) {
        let refreshes = &mut self.head.refreshes;
        let Some(renewal) = refreshes.running.as_mut().and_then(|refresh| refresh.answered(cx.tick.now, outcome))
        else {
            return;
        };
        let renewal = renewal.clone();
        if renewal.outcome == RenewalOutcome::Renewed {
            refreshes.learn(renewal.took);
        }
        cx.out.save_app(&self.head.name);
        cx.out.tell(&renewal.worker.clone(), News::Refreshed(renewal));
    }

    /// Ends the refresh that runs, if one does.
    pub(crate) fn end_refresh(&mut self, cx: &mut Context<'_>, result: OperationResult, why: Option<String>) {
        let Some(refresh) = self.head.refreshes.running.take() else { return };
        let (now, culprit) = (cx.tick.now, self.culprit_of(&refresh));
        let mut renewals = refresh.renewals;
        let spared =
            self.workers.values().filter(|worker| worker.launch().is_some_and(|at| refresh.left.contains(&at)));
        renewals.extend(spared.map(|worker| Renewal {
            worker: worker.id.clone(),
            outcome: RenewalOutcome::Spared,
            took: std::time::Duration::ZERO,
        }));
        self.head.refreshes.last =
            Some(Ended { id: refresh.id, result, why: why.clone(), finished_at: Some(now), renewals });
        cx.out.save_app(&self.head.name);
        let finished = Finished {
            id: refresh.id,
            kind: OperationKind::Refresh,
            result,
            why,
            culprit,
            started_at: refresh.started_at,
            finished_at: now,
            deployment: None,
            toll: Toll::default(),
            steps: Vec::new(),
        };
        cx.out.tell_app(&self.head.name, News::Finished(finished));
    }

    /// The process start whose log is worth showing: of whoever failed.
    fn culprit_of(&self, refresh: &Refresh) -> Option<Launch> {
        let failed = refresh.renewals.iter().find(|it| matches!(it.outcome, RenewalOutcome::Failed { .. }))?;
        let worker = self.workers.values().find(|worker| worker.id == failed.worker)?;
        worker.launch().or_else(|| Some(worker.last_exit.as_ref()?.launch))
    }

    fn refresh_within(&self) -> std::time::Duration {
        self.policy_now().refresh.map(|refresh| refresh.timeout).unwrap_or_default()
    }

    fn standing_of(&self, launch: Launch) -> Standing {
        if let Some(worker) = self.workers.values().find(|worker| worker.launch() == Some(launch)) {
            return standing(worker);
        }
        let mut last = self.workers.values().filter_map(|worker| worker.last_exit.as_ref());
        match last.find(|last| last.launch == launch) {
            Some(last) => Standing::Fell { why: format!("ended before it answered: {}", last.reason) },
            None => Standing::Leaving,
        }
    }
}

fn standing(worker: &Worker) -> Standing {
    match &worker.state {
        State::Starting { .. } => Standing::Starting,
        State::Ready { .. } => Standing::Serving,
        State::Draining { reason, .. } | State::Stopping { reason, .. } | State::Killed { reason, .. } => {
            match reason {
                StopReason::Stop | StopReason::ScaleDown | StopReason::Replaced | StopReason::RolledBack => {
                    Standing::Leaving
                }
                StopReason::NotReady | StopReason::Unhealthy | StopReason::Watchdog | StopReason::Own => {
                    Standing::Fell { why: format!("is ended before it answered: {}", reason.word()) }
                }
            }
        }
        State::Backoff { .. } | State::Exited | State::Failed { .. } => Standing::Leaving,
    }
}
