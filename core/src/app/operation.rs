//! Requests from their admission to their end.

use serde::{Deserialize, Serialize};

use crate::effect::{Finished, News, OperationKind, OperationResult};
use crate::id::{Launch, Operation};
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
    /// Ends what is met, or cannot be met.
    pub(super) fn conclude(&mut self, cx: &mut Context<'_>) {
        let serving = |app: &Self| {
            let generation = app.head.generation;
            let done = |phase| matches!(phase, Phase::Ready | Phase::Exited);
            let count = app
                .workers
                .values()
                .filter(|worker| worker.id.generation == generation && done(worker.state.phase()))
                .count();
            let leaving = app.workers.values().any(|worker| {
                matches!(worker.state.phase(), Phase::Draining | Phase::Stopping) && worker.id.generation == generation
            });
            count >= app.head.count as usize && !leaving
        };
        let mut index = 0;
        while index < self.head.pending.len() {
            let pending = &self.head.pending[index];
            let verdict = match pending.kind {
                OperationKind::Start | OperationKind::Scale => match (&pending.failure, self.parked_why()) {
                    (Some(failure), _) => Some((OperationResult::Failed, Some(failure.clone()))),
                    (None, Some(why)) => Some((OperationResult::Failed, Some(Failure { why, culprit: None }))),
                    (None, None) if serving(self) => Some((OperationResult::Done, None)),
                    (None, None) => None,
                },
                OperationKind::Stop | OperationKind::Delete if !self.has_any_process() => {
                    Some((OperationResult::Done, None))
                }
                OperationKind::Stop | OperationKind::Delete => None,
                // These are rollouts and end there.
                OperationKind::Reload | OperationKind::Restart => None,
            };
            match verdict {
                None => index += 1,
                Some((result, failure)) => {
                    let pending = self.head.pending.remove(index);
                    self.finish(cx, &pending, result, failure);
                }
            }
        }
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
            let waits = matches!(pending.kind, OperationKind::Start | OperationKind::Scale);
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
            deployment: Some(rollout.report.clone()),
        };
        cx.out.save_app(&self.head.name);
        cx.out.tell_app(&self.head.name, News::Finished(finished));
    }

    fn finish(&self, cx: &mut Context<'_>, pending: &Pending, result: OperationResult, failure: Option<Failure>) {
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
        };
        cx.out.save_app(&self.head.name);
        cx.out.tell_app(&self.head.name, News::Finished(finished));
    }

    /// Why a worker of the serving generation waits for a person, while the app is wanted.
    pub(super) fn parked_why(&self) -> Option<String> {
        if self.head.desired != Desired::Running {
            return None;
        }
        let serving = self.workers.values().filter(|worker| worker.id.generation == self.head.generation);
        serving.filter_map(|worker| worker.state.why_failed()).map(str::to_owned).next()
    }
}
