//! Requests from their admission to their end.

use serde::{Deserialize, Serialize};

use crate::effect::{Finished, News, OperationKind, OperationResult, StopReason, Toll};
use crate::id::{Launch, Operation, Revision};
use crate::rollout::Rollout;
use crate::time::Moment;
use crate::worker::Phase;

use super::{App, Context, Desired};

/// A request that is not over. Deployments are kept as [`Rollout`]s instead.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pending {
    /// Its number.
    pub id: Operation,
    /// What was asked for.
    pub kind: OperationKind,
    /// When.
    pub started_at: Moment,
    /// The first crash of a worker on the way, which makes it a failure.
    pub failure: Option<Failure>,
    /// What takes it back when it fails; none where there is nothing to go back to.
    #[serde(default)]
    pub undo: Option<Undo>,
    /// What it did to the work in flight so far.
    #[serde(default)]
    pub toll: Toll,
}

impl Pending {
    /// Whether it is what a worker goes for that goes for `reason`.
    fn ends(&self, reason: StopReason) -> bool {
        match reason {
            StopReason::Stop => matches!(self.kind, OperationKind::Stop | OperationKind::Delete),
            StopReason::ScaleDown => matches!(self.kind, OperationKind::Scale | OperationKind::Adopt),
            StopReason::Replaced
            | StopReason::RolledBack
            | StopReason::NotReady
            | StopReason::Unhealthy
            | StopReason::Watchdog
            | StopReason::Own => false,
        }
    }
}

/// What takes a request back that could not be met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Undo {
    /// The app was not there before.
    Forget,
    /// The app had another configuration and another number of workers.
    Adopt {
        /// The configuration.
        revision: Revision,
        /// The number.
        count: u32,
    },
}

impl Undo {
    /// Whether it cannot be done without this configuration.
    pub(super) fn needs(self, of: Revision) -> bool {
        match self {
            Self::Forget => false,
            Self::Adopt { revision, .. } => revision == of,
        }
    }
}

/// Why a request cannot be met.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// In one sentence.
    pub why: String,
    /// The process start to blame.
    pub culprit: Option<Launch>,
}

impl App {
    /// Whether all that is wanted of the serving generation is there, and nothing of it is leaving.
    pub(crate) fn serving(&self) -> bool {
        let generation = self.head.generation;
        let of = || self.workers.values().filter(|worker| worker.id.generation == generation);
        let done = of().filter(|worker| matches!(worker.state.phase(), Phase::Ready | Phase::Exited)).count();
        let leaving = of().any(|worker| matches!(worker.state.phase(), Phase::Draining | Phase::Stopping));
        done >= self.head.count as usize && !leaving
    }

    /// Ends what is met, or cannot be met. True when something was taken back, and so is to be looked at anew.
    pub(super) fn conclude(&mut self, cx: &mut Context<'_>) -> bool {
        let (mut index, mut undone) = (0, false);
        while index < self.head.pending.len() {
            let pending = &self.head.pending[index];
            let verdict = match pending.kind {
                OperationKind::Start if pending.undo == Some(Undo::Forget) && self.head.desired == Desired::Deleted => {
                    let gone = !self.has_any_process();
                    gone.then(|| (OperationResult::RolledBack, pending.failure.clone()))
                }
                OperationKind::Scale | OperationKind::Adopt if self.head.desired == Desired::Deleted => {
                    let why = "the app could not be started".to_owned();
                    Some((OperationResult::Aborted, Some(Failure { why, culprit: None })))
                }
                OperationKind::Start | OperationKind::Scale | OperationKind::Adopt => {
                    match (&pending.failure, self.parked_why()) {
                        (Some(failure), _) => Some((OperationResult::Failed, Some(failure.clone()))),
                        (None, Some(why)) => Some((OperationResult::Failed, Some(Failure { why, culprit: None }))),
                        (None, None) if self.serving() => Some((OperationResult::Done, None)),
                        (None, None) => None,
                    }
                }
                OperationKind::Stop | OperationKind::Delete if !self.has_any_process() => {
                    Some((OperationResult::Done, None))
                }
                OperationKind::Stop | OperationKind::Delete => None,
                // These are rollouts, or a refresh, and end there.
                OperationKind::Reload
                | OperationKind::Restart
                | OperationKind::Upgrade
                | OperationKind::Rollback
                | OperationKind::Refresh => None,
            };
            match verdict {
                None => index += 1,
                Some((OperationResult::Failed, failure)) if pending.undo.is_some() => {
                    index += usize::from(self.take_back(cx, index, failure));
                    undone = true;
                }
                Some((result, failure)) => {
                    let pending = self.head.pending.remove(index);
                    self.finish(cx, &pending, result, failure);
                }
            }
        }
        // An app is at rest most of its life.
        self.head.pending.shrink_to_fit();
        undone
    }

    /// Takes a request back that failed. True when it is not over yet: the end of a new app is awaited.
    fn take_back(&mut self, cx: &mut Context<'_>, index: usize, failure: Option<Failure>) -> bool {
        let pending = &mut self.head.pending[index];
        cx.out.save_app(&self.head.name);
        match pending.undo {
            Some(Undo::Forget) => {
                pending.failure = failure;
                self.head.desired = Desired::Deleted;
                self.abort_rollout(cx, "the app could not be started");
                true
            }
            Some(Undo::Adopt { revision, count }) => {
                let pending = self.head.pending.remove(index);
                self.govern(cx, revision);
                self.head.count = count;
                self.finish(cx, &pending, OperationResult::RolledBack, failure);
                false
            }
            None => false,
        }
    }

    /// Adds to what is told of the work in flight: by the deployment that runs, else by all that a worker goes for which
    /// goes for `reason`.
    pub(super) fn count(&mut self, cx: &mut Context<'_>, reason: Option<StopReason>, add: impl Fn(&mut Toll)) {
        if let Some(rollout) = &mut self.head.rollout {
            add(&mut rollout.toll);
        } else {
            let of = |pending: &&mut Pending| reason.is_some_and(|reason| pending.ends(reason));
            self.head.pending.iter_mut().filter(of).for_each(|pending| add(&mut pending.toll));
        }
        cx.out.save_app(&self.head.name);
    }

    /// Another request took the place of those that are not over and whose kind is in `kinds`.
    pub(crate) fn abort_pending(&mut self, cx: &mut Context<'_>, kinds: &[OperationKind], why: &str) {
        let (aborted, kept) = self.head.pending.drain(..).partition(|pending: &Pending| kinds.contains(&pending.kind));
        self.head.pending = kept;
        let aborted: Vec<Pending> = aborted;
        for pending in aborted {
            let failure = Failure { why: why.to_owned(), culprit: None };
            self.finish(cx, &pending, OperationResult::Aborted, Some(failure));
        }
    }

    /// Notes that a worker fell while requests wait for it to rise.
    pub(super) fn blame(&mut self, why: &str, culprit: Launch) {
        for pending in &mut self.head.pending {
            let waits = matches!(pending.kind, OperationKind::Start | OperationKind::Scale | OperationKind::Adopt);
            if waits && pending.failure.is_none() {
                pending.failure = Some(Failure { why: why.to_owned(), culprit: Some(culprit) });
            }
        }
    }

    pub(super) fn finish_rollout(
        &mut self,
        cx: &mut Context<'_>,
        rollout: &Rollout,
        result: OperationResult,
        failure: Option<Failure>,
    ) {
        let (why, culprit) = failure.map_or((None, None), |failure| (Some(failure.why), failure.culprit));
        let finished = Finished {
            id: rollout.id,
            kind: rollout.kind,
            result,
            why,
            culprit,
            started_at: rollout.started_at,
            finished_at: cx.tick.now,
            deployment: Some((rollout.from.generation, rollout.to.generation)),
            toll: rollout.toll.clone(),
            steps: rollout.steps.clone(),
        };
        cx.out.save_app(&self.head.name);
        cx.out.tell_app(&self.head.name, News::Finished(finished));
    }

    pub(crate) fn finish(
        &self,
        cx: &mut Context<'_>,
        pending: &Pending,
        result: OperationResult,
        failure: Option<Failure>,
    ) {
        let (why, culprit) = failure.map_or((None, None), |failure| (Some(failure.why), failure.culprit));
        let finished = Finished {
            id: pending.id,
            kind: pending.kind,
            result,
            why,
            culprit,
            started_at: pending.started_at,
            finished_at: cx.tick.now,
            deployment: None,
            toll: pending.toll.clone(),
            steps: Vec::new(),
        };
        cx.out.save_app(&self.head.name);
        cx.out.tell_app(&self.head.name, News::Finished(finished));
    }

    /// Whether somebody waits for its start.
    pub(crate) fn is_awaited(&self) -> bool {
        self.head.pending.iter().any(|pending| pending.kind == OperationKind::Start && pending.failure.is_none())
    }

    /// Ends what waits for its start: something that it needs will not come by itself. It goes on waiting for that.
    pub(crate) fn waits_in_vain(&mut self, cx: &mut Context<'_>, why: &str) {
        for pending in self.head.pending.iter_mut().filter(|pending| pending.kind == OperationKind::Start) {
            pending.failure.get_or_insert_with(|| Failure { why: format!("it {why}"), culprit: None });
        }
        self.reconcile(cx);
    }

    /// Whether it has workers that serve, though nobody asks for them any more.
    pub(crate) fn is_serving_on(&self) -> bool {
        self.workers.values().any(|worker| worker.state.phase() == Phase::Ready)
    }

    /// Why a worker of the serving generation waits for a person, while the app is wanted.
    pub(crate) fn parked_why(&self) -> Option<String> {
        if self.head.desired != Desired::Running {
            return None;
        }
        let serving = self.workers.values().filter(|worker| worker.id.generation == self.head.generation);
        serving.filter_map(|worker| worker.state.why_failed()).map(str::to_owned).next()
    }
}
