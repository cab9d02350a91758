//! Connections that were left behind in a lane without a worker.
//!
//! What waits in a lane's accept queue cannot move to another lane, so a lane is *owed* a worker from the moment it has a
//! share until it was seen empty by the drain that ended its worker. Whoever starts next is put into such a lane. When
//! all that is wanted is ready and one is still without a worker, a **relief** worker is started there: one worker more than
//! is wanted. Once it is ready it is drained again: it serves what waits there, and whoever served before serves on, with
//! all that it has in mind. Should one of these be missed by then, the relief stays in its place.
//!
//! Only where each worker has its own lane, and where workers may run beside each other at all (`max_surge`). A relief
//! that cannot start, or ends for good, gives its lane up: another one would do no better.

use crate::id::{Lane, Slot};
use crate::policy::Lanes;
use crate::rollout::Side;
use crate::worker::Phase;

use super::{App, Context};

impl App {
    /// The first lane in whose queue connections may wait and that no worker is in.
    pub(super) fn abandoned_lane(&self) -> Option<Lane> {
        let occupied = |lane: &Lane| self.workers.values().any(|worker| worker.lane == Some(*lane));
        self.head.owed.iter().copied().find(|lane| !occupied(lane))
    }

    /// What is to serve outside of a deployment: the wanted number, the relief while it is on its way, and whoever is to
    /// take the place of an outgrown one. Both have room in the surge, or the relief comes first.
    pub(super) fn wanted(&self) -> Side {
        let relief = u32::from(self.head.relief.is_some());
        let room = self.policy_now().reload.max_surge.saturating_sub(relief);
        let count = self.head.count.saturating_add(relief + self.beside_outgrown().min(room));
        Side { generation: self.head.generation, revision: self.head.revision, count }
    }

    /// Whether the relief is one still. Gives it when it has come to serve, and so is the first to go if there is one too
    /// many.
    pub(super) fn judge_relief(&mut self, cx: &mut Context<'_>) -> Option<Slot> {
        let slot = self.head.relief?;
        let worker = self.workers.get(&slot);
        if worker.is_some_and(|worker| self.comes_back(worker)) {
            return None;
        }
        let serves = worker.is_some_and(|worker| worker.state.phase() == Phase::Ready);
        if let Some(worker) = worker
            && matches!(worker.state.phase(), Phase::Exited | Phase::Failed)
            && let Some(lane) = worker.lane
        {
            self.head.owed.remove(&lane);
        }
        self.forget_relief(cx);
        serves.then_some(slot)
    }

    /// Something else is going on.
    pub(super) fn forget_relief(&mut self, cx: &mut Context<'_>) {
        if self.head.relief.take().is_some() {
            cx.out.save_app(&self.head.name);
        }
    }

    /// Starts a relief where one is needed and all else is well.
    pub(super) fn start_relief(&mut self, cx: &mut Context<'_>) {
        let policy = self.policy_now();
        let (surge, own) = (policy.reload.max_surge, policy.lanes == Lanes::PerWorker);
        let settled = self.ready() == self.head.count && self.workers.len() == self.head.count as usize;
        let Some(lane) = self.abandoned_lane().filter(|_| own && surge > 0 && settled && self.head.relief.is_none())
        else {
            return;
        };
        self.head.relief = Some(Slot(lane.0));
        cx.out.save_app(&self.head.name);
        self.start_missing(cx, self.wanted(), surge);
    }
}
