//! Who gets new connections.
//!
//! Pure function of the workers' states. Whoever is ready shares equally. While nobody is, one lane takes all and
//! they wait there unrefused: the lane of the worker most likely to accept them soon.

use crate::effect::{Effect, Outcome};
use crate::id::Lane;
use crate::policy::Lanes;
use crate::worker::{Phase, Worker};

use super::App;

/// The share of a ready worker.
const FULL: u32 = 100;

impl App {
    /// Recomputes the shares; asks for them, before all else that this step asks of the app, when they changed.
    pub(super) fn share_out(&mut self, out: &mut Outcome) {
        let (weights, parked) = self.shares();
        if parked != self.head.parked {
            self.head.parked = parked;
            out.save_app(&self.head.name);
        }
        if weights == self.weights || weights.is_empty() {
            return;
        }
        self.weights.clone_from(&weights);
        out.act.insert(0, Effect::SetWeights { app: self.head.name.clone(), weights });
    }

    fn shares(&self) -> (Vec<u32>, Option<Lane>) {
        let Some(lanes) = self.lane_count() else { return (Vec::new(), None) };
        let mut weights = vec![0; lanes];
        let mut nobody = true;
        for worker in self.workers.values() {
            if let (Phase::Ready, Some(lane)) = (worker.state.phase(), worker.lane)
                && self.serves(worker)
            {
                weights[lane.0 as usize] = FULL;
                nobody = false;
            }
        }
        if !nobody {
            return (weights, None);
        }
        let lane = self.waiting_lane();
        weights[lane.0 as usize] = FULL;
        (weights, Some(lane))
    }

    /// Under one lane a generation, the new one gets nothing before the switch.
    fn serves(&self, worker: &Worker) -> bool {
        match (self.policy_of(worker).lanes, &self.head.rollout) {
            (Lanes::PerGeneration, Some(rollout)) => worker.id.generation != rollout.target() || self.switched(rollout),
            (Lanes::PerGeneration, None) | (Lanes::None | Lanes::PerWorker, _) => true,
        }
    }

    /// Where connections wait while nobody is ready. It stays where it is while a worker may still come there, since
    /// what waits in one lane cannot move to another.
    fn waiting_lane(&self) -> Lane {
        let occupant = |lane: Lane| self.workers.values().find(|worker| worker.lane == Some(lane));
        let lowest = |phase: Phase| {
            let waits = |worker: &&Worker| worker.state.phase() == phase;
            self.workers.values().filter(waits).filter_map(|worker| worker.lane).min()
        };
        let comes = |lane: &Lane| {
            occupant(*lane).is_none_or(|worker| matches!(worker.state.phase(), Phase::Starting | Phase::Backoff))
        };
        self.head
            .parked
            .filter(comes)
            .or_else(|| lowest(Phase::Starting))
            .or_else(|| lowest(Phase::Backoff))
            .or_else(|| lowest(Phase::Failed))
            .or_else(|| lowest(Phase::Exited))
            .or_else(|| (0..).map(Lane).find(|&lane| occupant(lane).is_none()))
            .unwrap_or(Lane(0))
    }

    /// How many lanes the app needs now; none when it listens on nothing.
    fn lane_count(&self) -> Option<usize> {
        let policy = self.policy_now();
        let used = self.workers.values().filter_map(|worker| worker.lane).max().map_or(0, |lane| lane.0 as usize + 1);
        let planned = match policy.lanes {
            Lanes::None if used == 0 => return None,
            Lanes::None => 0,
            Lanes::PerWorker => self.head.count.saturating_add(policy.reload.max_surge.max(1)) as usize,
            Lanes::PerGeneration => 2,
        };
        // One more than is used: there is always a place to wait. Lanes once made stay.
        Some(planned.max(used + 1).max(self.weights.len()))
    }
}
