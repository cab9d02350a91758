//! Moving what is towards what is wanted.
//!
//! Called after every event. Looks at levels only: who is there, in which phase, of which generation. Each call does
//! all that is allowed now; what is not allowed yet is done by the call after the event that allows it.

use std::time::Duration;

use crate::effect::{News, OperationKind, OperationResult, StopReason};
use crate::id::{Generation, Lane, Launch, Slot};
use crate::policy::{Lanes, RestartWhen};
use crate::rollout::{BackBy, Direction, Pace, Rollout, Side, Stage};
use crate::worker::state::Worker;
use crate::worker::{Phase, State};

use super::operation::Failure;
use super::{App, Context, Desired, Rise};
use crate::worker::After;

impl App {
    pub(crate) fn reconcile(&mut self, cx: &mut Context<'_>) {
        match self.head.desired {
            _ if cx.winding_down => {
                self.abort_rollout(cx, "the daemon is ending");
                self.drain_all(cx);
            }
            Desired::Stopped | Desired::Deleted => self.drain_all(cx),
            Desired::Running => self.advance(cx),
        }
        if self.head.desired == Desired::Running && self.head.rollout.is_none() && !cx.winding_down {
            self.fill(cx);
        } else {
            self.forget_relief(cx);
        }
        if self.head.refreshes.running.is_some() {
            self.advance_refresh(cx);
        }
        if self.conclude(cx) {
            return self.reconcile(cx);
        }
        self.note_risen(cx);
        self.share_out(cx.out);
        self.forget_policies(cx);
    }

    /// The end of all workers. While somebody who needs them is still on its way out, those that serve go on.
    fn drain_all(&mut self, cx: &mut Context<'_>) {
        let held = cx.held;
        self.drain_where(cx, StopReason::Stop, Duration::ZERO, |worker| {
            !(held && worker.state.phase() == Phase::Ready)
        });
    }

    /// Outside of a deployment: `count` workers of the serving generation.
    fn fill(&mut self, cx: &mut Context<'_>) {
        let relieved = self.judge_relief(cx);
        let side = self.wanted();
        self.drain_where(cx, StopReason::Replaced, Duration::ZERO, |worker| worker.id.generation != side.generation);
        if self.head.rise == Rise::Waiting {
            return;
        }
        let surge = self.policy_now().reload.max_surge;
        self.start_missing(cx, side, surge);
        self.replace_outgrown(cx);
        self.drain_beyond(cx, self.wanted(), relieved);
        self.start_relief(cx);
    }

    /// Too many of a side: first whoever does not serve, then the relief that has come, then the highest slots. Where
    /// connections wait is left to the last.
    pub(super) fn drain_beyond(&mut self, cx: &mut Context<'_>, side: Side, relieved: Option<Slot>) {
        let parked = self.head.parked;
        let mut staying: Vec<Slot> = self
            .workers
            .iter()
            .filter(|(_, worker)| worker.id.generation == side.generation && stays(worker))
            .map(|(&slot, _)| slot)
            .collect();
        staying.sort_by_key(|slot| {
            let worker = &self.workers[slot];
            let ready = worker.state.phase() == Phase::Ready;
            (!ready, relieved == Some(*slot), !(parked.is_some() && worker.lane == parked), *slot)
        });
        let mut most = side.count as usize;
        while staying.len() > most {
            let Some(slot) = staying.pop() else { break };
            if self.head.relief == Some(slot) {
                self.forget_relief(cx);
                most = most.min(self.wanted().count as usize);
            }
            self.drain_slot(cx, slot, StopReason::ScaleDown, Duration::ZERO);
        }
    }

    /// One pass of the deployment that runs.
    pub(super) fn advance(&mut self, cx: &mut Context<'_>) {
        let Some(rollout) = self.head.rollout.clone() else { return };
        if rollout.is_undecided() {
            return self.advance_stage(cx, &rollout);
        }
        if rollout.pace == Pace::Paused && rollout.direction == Direction::Forward {
            return;
        }
        let target = rollout.target_side();
        self.undrain(cx, target.generation);
        self.drop_dead(cx, target.generation);
        if let Some(failure) = self.beyond_help(&rollout) {
            return self.give_up(cx, &rollout, failure);
        }
        let others_run = self
            .workers
            .values()
            .any(|worker| worker.id.generation != target.generation && worker.state.process().is_some());
        if !(rollout.is_exclusive() && others_run) {
            self.start_missing(cx, target, rollout.surge);
        }
        self.drain_surplus(cx, &rollout);
        self.end_if_over(cx, &rollout);
    }

    /// Whoever belongs to the side that is to serve, and can still be taken back into service, is.
    fn undrain(&mut self, cx: &mut Context<'_>, target: Generation) {
        for worker in self.workers.values_mut().filter(|worker| worker.id.generation == target) {
            let policy = self.head.policies.get(&worker.revision).expect("a worker's revision has its policy");
            let for_rollout =
                matches!(worker.state, State::Draining { reason: StopReason::Replaced | StopReason::RolledBack, .. });
            if for_rollout {
                worker.undrain(cx.tick, policy, cx.out);
            }
        }
    }

    /// Workers of the other side that have no process are not worth a slot.
    fn drop_dead(&mut self, cx: &mut Context<'_>, target: Generation) {
        let dead: Vec<Slot> = self
            .workers
            .iter()
            .filter(|(_, worker)| worker.id.generation != target && worker.state.process().is_none())
            .map(|(&slot, _)| slot)
            .collect();
        for slot in dead {
            self.remove(cx, slot);
        }
    }

    /// Starts what is missing of `side`, as far as there is room for processes beside those that are there.
    pub(super) fn start_missing(&mut self, cx: &mut Context<'_>, side: Side, surge: u32) {
        let lanes = self.policy(side.revision).lanes;
        let present = |app: &Self| {
            let counted = |worker: &Worker| worker.id.generation == side.generation && stays(worker);
            u32::try_from(app.workers.values().filter(|worker| counted(worker)).count()).unwrap_or(u32::MAX)
        };
        let mut missing = side.count.saturating_sub(present(self));
        let mut room = side.count.saturating_add(surge).saturating_sub(self.taken());
        if lanes == Lanes::PerGeneration {
            room = missing;
        }
        while missing > 0 && room > 0 {
            let slot = self.free_slot(lanes);
            self.add_worker(cx, slot, side.generation, side.revision);
            missing -= 1;
            room -= 1;
        }
    }

    /// The slot whose lane connections wait in, if it is free, else the lowest free one. Where a worker has a lane of
    /// its own, nobody may be in that lane either: under another policy it may be a whole generation's.
    fn free_slot(&self, lanes: Lanes) -> Slot {
        let own = lanes == Lanes::PerWorker;
        let in_lane = |lane: Lane| self.workers.values().any(|worker| worker.lane == Some(lane));
        let free = |slot: &Slot| !(self.workers.contains_key(slot) || own && in_lane(Lane(slot.0)));
        let waiting = self.head.parked.into_iter().chain(self.abandoned_lane()).filter(|_| own);
        let mut slots = waiting.map(|lane| Slot(lane.0)).chain((0..).map(Slot));
        slots.find(free).expect("an app has fewer workers than there are numbers")
    }

    /// How many processes more there may be now.
    pub(crate) fn room(&self) -> u32 {
        let (count, surge) = match &self.head.rollout {
            Some(rollout) => (rollout.target_side().count, rollout.surge),
            None => (self.wanted().count, self.policy_now().reload.max_surge),
        };
        count.saturating_add(surge).saturating_sub(self.taken())
    }

    /// Workers that have a process or get one by themselves.
    fn taken(&self) -> u32 {
        let takes = |worker: &Worker| worker.state.process().is_some() || worker.state.phase() == Phase::Backoff;
        let count = self.workers.values().filter(|worker| takes(worker)).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// Takes workers of the other side out of service, as far as enough stay ready.
    fn drain_surplus(&mut self, cx: &mut Context<'_>, rollout: &Rollout) {
        let target = rollout.target_side();
        let reason = match rollout.direction {
            Direction::Forward => StopReason::Replaced,
            Direction::Back { .. } => StopReason::RolledBack,
        };
        // A warm worker is worth its while only where a failure of the new one would take the deployment back, and where
        // the new one is there beside it: else all that it does is to keep the new one from starting.
        let beside = rollout.surge > 0 && rollout.reversible();
        let warm = if beside { self.policy(rollout.to.revision).reload.settle } else { Duration::ZERO };
        self.drain_where(cx, reason, Duration::ZERO, |worker| {
            worker.id.generation != target.generation && matches!(worker.state, State::Starting { .. })
        });
        if self.shared(rollout) {
            if self.switched(rollout) {
                self.drain_where(cx, reason, warm, |worker| {
                    worker.id.generation != target.generation && matches!(worker.state, State::Ready { .. })
                });
            }
            return;
        }
        let new = self.fulfilled(target.generation);
        let mut old = self.in_phase(|worker| worker.id.generation != target.generation, Phase::Ready);
        let floor = target.count.saturating_sub(rollout.unavailable);
        while old > 0 && new + old > floor {
            let next = self.workers.iter().find(|(_, worker)| {
                worker.id.generation != target.generation && matches!(worker.state, State::Ready { .. })
            });
            let Some((&slot, _)) = next else { break };
            self.drain_slot(cx, slot, reason, warm);
            old -= 1;
        }
    }

    /// Workers of `generation` that are as ready as they will be: those that serve, and those that ended for good, or
    /// wait for a person, which nothing is gained by waiting for.
    pub(super) fn fulfilled(&self, generation: Generation) -> u32 {
        let of = |worker: &Worker| worker.id.generation == generation;
        [Phase::Ready, Phase::Exited, Phase::Failed].into_iter().map(|phase| self.in_phase(of, phase)).sum()
    }

    /// Whether workers of one of the sides share an accept queue, and so cannot be drained one by one.
    fn shared(&self, rollout: &Rollout) -> bool {
        [rollout.from, rollout.to].iter().any(|side| self.policy(side.revision).lanes == Lanes::PerGeneration)
    }

    /// Under one lane a generation: whether the side that is to serve in the end serves now.
    pub(super) fn switched(&self, rollout: &Rollout) -> bool {
        let target = rollout.target_side();
        self.fulfilled(target.generation) >= target.count.saturating_sub(rollout.unavailable)
    }

    fn end_if_over(&mut self, cx: &mut Context<'_>, rollout: &Rollout) {
        let target = rollout.target_side();
        if self.workers.values().any(|worker| worker.id.generation != target.generation) {
            return;
        }
        // What served before is back where it was, or what is new has proven itself: whether each worker is well is its
        // restart policy's matter then.
        let decided = rollout.direction != Direction::Forward || rollout.stage == Stage::Retiring;
        let settled = |worker: &Worker| {
            let phase = worker.state.phase();
            if decided { phase != Phase::Starting } else { matches!(phase, Phase::Ready | Phase::Exited) }
        };
        let enough = self.workers.values().filter(|worker| stays(worker) && settled(worker)).count();
        if enough < target.count as usize {
            return;
        }
        self.head.rollout = None;
        self.head.generation = target.generation;
        self.head.revision = target.revision;
        self.head.count = target.count;
        let (result, failure) = match &rollout.direction {
            Direction::Forward => (OperationResult::Done, None),
            Direction::Back { why, culprit, by } => {
                let result = match by {
                    BackBy::Failure => OperationResult::RolledBack,
                    BackBy::Person => OperationResult::Aborted,
                };
                (result, Some(Failure { why: why.clone(), culprit: *culprit }))
            }
        };
        self.finish_rollout(cx, rollout, result, failure);
    }

    /// A worker ended, or could not start, and nobody had asked.
    pub(super) fn crashed(&mut self, cx: &mut Context<'_>, slot: Slot, crash: &crate::worker::Crash) {
        let Some(worker) = self.workers.get(&slot) else { return };
        let (id, revision) = (worker.id.clone(), worker.revision);
        let sentence = format!("{id} {}", crash.why);
        let completed = crash.exit.is_success() && self.policy(revision).restart.when != RestartWhen::Always;
        if crash.served.is_none() && !completed {
            self.blame(&sentence, crash.launch);
        }
        if let Some(rollout) = self.head.rollout.clone() {
            let new = id.generation == rollout.to.generation;
            if new && rollout.reversible() && !completed {
                self.reverse(cx, &sentence, Some(crash.launch), BackBy::Failure);
            }
            let going = self.head.rollout.as_ref().is_some_and(|now| now.is_leaving(id.generation));
            if going {
                self.remove(cx, slot);
                return;
            }
            if new && rollout.kind == OperationKind::Restart && crash.served.is_none() && !completed {
                self.give_up(cx, &rollout, Failure { why: sentence, culprit: Some(crash.launch) });
            }
        }
        let policy = self.head.policies.get(&revision).expect("a worker's revision has its policy");
        if self.head.desired != Desired::Running || cx.winding_down {
            return;
        }
        if let Some(worker) = self.workers.get_mut(&slot) {
            worker.follow_policy(cx.tick, policy, crash, cx.out);
            if matches!(worker.state, State::Backoff { until } if until <= cx.tick.now) {
                let launch = cx.launch();
                worker.start(cx.tick, policy, launch, cx.out);
            }
        }
    }

    /// A new worker that is being stopped because it is of no use takes its deployment back at once, before its end.
    pub(super) fn reverse_if_useless(&mut self, cx: &mut Context<'_>, slot: Slot) {
        let Some(worker) = self.workers.get(&slot) else { return };
        let useless = matches!(
            worker.state,
            State::Stopping {
                reason: StopReason::NotReady | StopReason::Unhealthy | StopReason::Watchdog | StopReason::Own,
                ..
            }
        );
        // A one-shot that says STOPPING=1 may be about to end well: its exit tells.
        let own = matches!(worker.state, State::Stopping { reason: StopReason::Own, .. });
        if own && self.policy_of(worker).restart.when != RestartWhen::Always {
            return;
        }
        let Some(launch) = worker.launch().filter(|_| useless) else { return };
        let noted = worker.last_exit.as_ref().filter(|noted| noted.launch == launch);
        let why = noted.map_or_else(|| "ended by itself".to_owned(), |noted| noted.reason.clone());
        let (generation, sentence) = (worker.id.generation, format!("{} {why}", worker.id));
        if worker.state.served_since().is_none() {
            self.blame(&sentence, launch);
        }
        let new = self
            .head
            .rollout
            .as_ref()
            .is_some_and(|rollout| rollout.reversible() && rollout.to.generation == generation);
        if new {
            self.reverse(cx, &sentence, Some(launch), BackBy::Failure);
        }
    }

    pub(super) fn reverse(&mut self, cx: &mut Context<'_>, why: &str, culprit: Option<Launch>, by: BackBy) {
        let Some(rollout) = &mut self.head.rollout else { return };
        rollout.direction = Direction::Back { why: why.to_owned(), culprit, by };
        rollout.note_step(cx.tick.now);
        let id = rollout.id;
        cx.out.save_app(&self.head.name);
        cx.out.tell_app(&self.head.name, News::RolloutReversed { id, why: why.to_owned(), culprit });
    }

    /// A restart whose new worker fell: there is nothing to go back to, so it goes on by its restart policy.
    fn give_up(&mut self, cx: &mut Context<'_>, rollout: &Rollout, failure: Failure) {
        self.head.rollout = None;
        self.head.generation = rollout.to.generation;
        self.head.revision = rollout.to.revision;
        self.head.count = rollout.to.count;
        self.finish_rollout(cx, rollout, OperationResult::Failed, Some(failure));
    }

    /// Why a restart cannot come to its end: one of its workers is not started again, though it had served.
    fn beyond_help(&self, rollout: &Rollout) -> Option<Failure> {
        if rollout.kind != OperationKind::Restart {
            return None;
        }
        self.workers.values().find_map(|worker| match &worker.state {
            State::Failed { why } if worker.id.generation == rollout.to.generation => Some(Failure {
                why: format!("{} {why}", worker.id),
                culprit: worker.last_exit.as_ref().map(|exit| exit.launch),
            }),
            State::Failed { .. }
            | State::Starting { .. }
            | State::Ready { .. }
            | State::Draining { .. }
            | State::Stopping { .. }
            | State::Killed { .. }
            | State::Backoff { .. }
            | State::Exited => None,
        })
    }

    /// Ends the deployment that runs because another request takes its place.
    pub(crate) fn abort_rollout(&mut self, cx: &mut Context<'_>, why: &str) {
        if let Some(rollout) = self.head.rollout.take() {
            let failure = Failure { why: why.to_owned(), culprit: None };
            self.finish_rollout(cx, &rollout, OperationResult::Aborted, Some(failure));
        }
    }

    pub(super) fn drain_where(
        &mut self,
        cx: &mut Context<'_>,
        reason: StopReason,
        warm: Duration,
        of: impl Fn(&Worker) -> bool,
    ) {
        let slots: Vec<Slot> = self.workers.iter().filter(|(_, worker)| of(worker)).map(|(&slot, _)| slot).collect();
        for slot in slots {
            self.drain_slot(cx, slot, reason, warm);
        }
    }

    pub(super) fn drain_slot(&mut self, cx: &mut Context<'_>, slot: Slot, reason: StopReason, warm: Duration) {
        let Some(worker) = self.workers.get_mut(&slot) else { return };
        let already = match &worker.state {
            State::Draining { reason: present, .. }
            | State::Stopping { reason: present, .. }
            | State::Killed { reason: present, .. } => *present == reason,
            State::Exited => reason == StopReason::Stop && worker.id.generation == self.head.generation,
            State::Starting { .. } | State::Ready { .. } | State::Backoff { .. } | State::Failed { .. } => false,
        };
        if already {
            return;
        }
        let policy = self.head.policies.get(&worker.revision).expect("a worker's revision has its policy");
        if let After::Ended { reason, .. } = worker.drain(cx.tick, policy, reason, warm, cx.out) {
            let own = worker.id.generation == self.head.generation;
            let kept = own && self.keeps_stopped(cx, reason);
            if !kept {
                self.remove(cx, slot);
            }
        }
    }

    /// Policies of revisions that nothing names any more.
    fn forget_policies(&mut self, cx: &mut Context<'_>) {
        let before = self.head.policies.len();
        let (now, rollout, workers) = (self.head.revision, &self.head.rollout, &self.workers);
        let pending = &self.head.pending;
        self.head.policies.retain(|&revision, _| {
            revision == now
                || rollout.as_ref().is_some_and(|r| r.from.revision == revision || r.to.revision == revision)
                || pending.iter().any(|pending| pending.undo.is_some_and(|undo| undo.needs(revision)))
                || workers.values().any(|worker| worker.revision == revision)
        });
        if self.head.policies.len() != before {
            cx.out.save_app(&self.head.name);
        }
    }
}

/// Whether a worker fills its place: everyone but those on their way out.
pub(super) fn stays(worker: &Worker) -> bool {
    match worker.state.phase() {
        Phase::Starting | Phase::Ready | Phase::Backoff | Phase::Exited | Phase::Failed => true,
        Phase::Draining => false,
        Phase::Stopping => match &worker.state {
            // It comes back by its restart policy.
            State::Stopping { reason, .. } | State::Killed { reason, .. } => {
                matches!(reason, StopReason::NotReady | StopReason::Unhealthy | StopReason::Watchdog | StopReason::Own)
            }
            State::Starting { .. }
            | State::Ready { .. }
            | State::Draining { .. }
            | State::Backoff { .. }
            | State::Exited
            | State::Failed { .. } => false,
        },
    }
}
