//! Who gets new connections.
//!
//! Pure function of the workers' states. Whoever is ready shares equally. While nobody is, one lane takes all and
//! they wait there unrefused: the lane of the worker most likely to accept them soon.

use std::collections::BTreeSet;

use crate::effect::{Effect, Outcome};
use crate::id::Lane;
use crate::policy::Lanes;
use crate::rollout::Direction;
use crate::worker::{Phase, Worker};

use super::App;
use super::reconcile::stays;

/// The share of a ready worker.
const FULL: u32 = 100;

impl App {
    /// Recomputes the shares; asks for them, before all else that this step asks of the app, when they changed.
    pub(super) fn share_out(&mut self, out: &mut Outcome) {
        let (weights, parked) = self.shares();
        let shared_out = (0..).map(Lane).zip(&weights).filter(|&(_, &share)| share > 0).map(|(lane, _)| lane);
        let owed = self.head.owed.iter().copied().chain(shared_out).collect();
        if parked != self.head.parked || owed != self.head.owed {
            self.head.parked = parked;
            self.head.owed = owed;
            out.save_app(&self.head.name);
        }
        if weights == self.weights || weights.is_empty() {
            return;
        }
        self.weights.clone_from(&weights);
        // A step may get here several times; only its last word counts, and it comes first.
        out.act.retain(|effect| !matches!(effect, Effect::SetWeights { app, .. } if *app == self.head.name));
        out.act.insert(0, Effect::SetWeights { app: self.head.name.clone(), weights });
    }

    fn shares(&self) -> (Vec<u32>, Option<Lane>) {
        let waiting = self.waiting_lane();
        let Some(lanes) = self.lane_count(waiting) else { return (Vec::new(), None) };
        let mut weights = vec![0; lanes];
        let ready = |worker: &Worker| worker.state.phase() == Phase::Ready;
        let serving: Vec<Lane> = self
            .workers
            .values()
            .filter(|worker| ready(worker))
            .filter(|worker| self.serves(worker))
            .filter_map(|w| w.lane)
            .collect();
        if let Some(shared) = self.split_shares(lanes) {
            return (shared, None);
        }
        // Better whoever is there than nobody.
        let serving = if serving.is_empty() {
            self.workers.values().filter(|worker| ready(worker)).filter_map(|worker| worker.lane).collect()
        } else {
            serving
        };
        for lane in &serving {
            weights[lane.0 as usize] = FULL;
        }
        if !serving.is_empty() {
            return (weights, None);
        }
        weights[waiting.0 as usize] = FULL;
        (weights, Some(waiting))
    }

    /// The shares of a deployment that gives the new generation a part of the new connections, as long as both have
    /// somebody to serve their part.
    fn split_shares(&self, lanes: usize) -> Option<Vec<u32>> {
        let rollout = self.head.rollout.as_ref()?;
        let percent = u32::from(rollout.percent()?);
        let of = |new: bool| -> BTreeSet<Lane> {
            let ready = self.workers.values().filter(|worker| worker.state.phase() == Phase::Ready);
            let side = ready.filter(|worker| (worker.id.generation == rollout.to.generation) == new);
            side.filter_map(|worker| worker.lane).collect()
        };
        let (new, old) = (of(true), of(false));
        if new.is_empty() || old.is_empty() {
            return None;
        }
        // A part of a percent is lost to no rounding: each side's lanes count the other side's number.
        let count = |side: &BTreeSet<Lane>| u32::try_from(side.len()).unwrap_or(u32::MAX);
        let mut weights = vec![0; lanes];
        for (side, share) in [(&new, percent * count(&old)), (&old, (100 - percent) * count(&new))] {
            for lane in side {
                weights[lane.0 as usize] = share;
            }
        }
        Some(weights)
    }

    /// Under one lane a generation, the new one gets nothing before the switch; on the way back, what served before
    /// serves as soon as it can.
    fn serves(&self, worker: &Worker) -> bool {
        match (self.policy_of(worker).lanes, &self.head.rollout) {
            (Lanes::PerGeneration, Some(rollout)) => {
                worker.id.generation != rollout.to.generation
                    || (rollout.direction == Direction::Forward && self.switched(rollout))
            }
            (Lanes::PerGeneration, None) | (Lanes::None | Lanes::PerWorker, _) => true,
        }
    }

    /// Whether a worker that is not ready will accept from its lane without anybody's asking.
    pub(crate) fn comes_back(&self, worker: &Worker) -> bool {
        let leaves = match &self.head.rollout {
            Some(rollout) => rollout.is_leaving(worker.id.generation),
            None => worker.id.generation != self.head.generation,
        };
        let comes = match worker.state.phase() {
            Phase::Starting | Phase::Backoff => true,
            Phase::Stopping => stays(worker),
            Phase::Ready | Phase::Draining | Phase::Exited | Phase::Failed => false,
        };
        comes && !leaves
    }

    /// Where connections wait while nobody is ready. It stays where it is while a worker may still come there, since
    /// what waits in one lane cannot move to another. A worker that is being ended because it is of no use comes back in
    /// its lane, so its lane is still better than one where nobody comes.
    fn waiting_lane(&self) -> Lane {
        let lanes = |is: &dyn Fn(&Worker) -> bool| -> BTreeSet<Lane> {
            self.workers.values().filter(|worker| is(worker)).filter_map(|worker| worker.lane).collect()
        };
        let lowest = |is: &dyn Fn(&Worker) -> bool| lanes(is).first().copied();
        let comes = |worker: &Worker| self.comes_back(worker);
        let occupied = lanes(&|_| true);
        let stands = |lane: &Lane| !occupied.contains(lane) || lanes(&comes).contains(lane);
        // Nobody who is on its way out may share the lane: it would take what is to wait.
        let in_phase = |phase: Phase| {
            let running = lanes(&|worker| worker.state.process().is_some());
            lanes(&|worker| worker.state.phase() == phase).difference(&running).next().copied()
        };
        self.head
            .parked
            .filter(stands)
            .or_else(|| lowest(&|worker| worker.state.phase() == Phase::Starting && comes(worker)))
            .or_else(|| lowest(&|worker| worker.state.phase() == Phase::Backoff && comes(worker)))
            .or_else(|| lowest(&comes))
            .or_else(|| in_phase(Phase::Failed))
            .or_else(|| in_phase(Phase::Exited))
            .or_else(|| (0..).map(Lane).find(|lane| !occupied.contains(lane)))
            .unwrap_or(Lane(0))
    }

    /// How many lanes the app needs now; none when it listens on nothing.
    fn lane_count(&self, waiting: Lane) -> Option<usize> {
        let policy = self.policy_now();
        let used = self.workers.values().filter_map(|worker| worker.lane).max().map_or(0, |lane| lane.0 as usize + 1);
        let planned = match policy.lanes {
            Lanes::None if used == 0 => return None,
            Lanes::None => 0,
            Lanes::PerWorker => self.head.count.saturating_add(policy.reload.max_surge.max(1)) as usize,
            Lanes::PerGeneration => 2,
        };
        // One more than is used: there is always a place to wait. Lanes once made stay.
        Some(planned.max(used + 1).max(waiting.0 as usize + 1).max(self.weights.len()))
    }
}
