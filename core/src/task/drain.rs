//! A worker's way out, as far as its tasks go: told, asked once more, out of time.
//!
//! ```text
//!  drain began ─► Finishing ── last call ──► LastCall ── deadline ──► Over ── its process ends ─► settled
//!                     ▲ └──────── deadline moved ◄────────┘ (extend: something gets on)
//!                     │
//!                     └── a new deadline, or what was cut could not be written
//! ```

use std::collections::BTreeSet;
use std::time::Duration;

use crate::id::{AppName, Generation, Launch};
use crate::time::Moment;

use super::input::{Drain, OnDeadline};
use super::ledger::{Due, Ledger, Phase};
use super::name::TaskId;
use super::outcome::{Fact, Outcome, Row, Tally, Word};
use super::state::{Loss, Stage, State, Task};

/// The longest time before the deadline at which tasks are asked for one more checkpoint; a quarter of the drain, when
/// that is less.
const LAST_CALL: Duration = Duration::from_secs(10);

/// The least time by which a deadline moves.
const EXTENSION: Duration = Duration::from_secs(1);

/// By how much it moves for tasks that nobody else can go on with.
const STAY: Duration = Duration::from_secs(60);

/// A worker's drain.
#[derive(Clone, Debug)]
pub(super) struct Draining {
    pub(super) drain: Drain,
    began: Moment,
    stage: Step,
    /// What was last told of what it has in hand.
    told: Option<(u32, u32, u32)>,
}

/// How far a drain is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// It was told.
    Finishing {
        /// When it is asked for checkpoints.
        last_call: Moment,
    },
    /// It was asked for checkpoints.
    LastCall,
    /// What could go on elsewhere was taken from it.
    Over,
}

impl Draining {
    /// Whether its time is over.
    pub(super) fn is_over(&self) -> bool {
        self.stage == Step::Over
    }

    /// What was done at the deadline was not written.
    pub(super) fn reopen(&mut self) {
        if self.stage == Step::Over {
            self.stage = Step::LastCall;
        }
        self.told = None;
    }
}

impl Ledger {
    /// A drain is over, or another takes its place: what was to be done in it is not due any more. At a thousand reloads
    /// an hour with an hour's deadline it would be thousands of entries that nobody looks at.
    pub(super) fn forget_drain(&mut self, launch: Launch) {
        let Some(Phase::Draining(draining)) = self.workers.get(&launch).map(|worker| &worker.phase) else { return };
        let last_call = match draining.stage {
            Step::Finishing { last_call } => Some(last_call),
            Step::LastCall | Step::Over => None,
        };
        for at in [draining.drain.least, draining.drain.deadline].into_iter().chain(last_call) {
            self.due.remove(&(at, Due::Drain(launch)));
        }
    }

    pub(super) fn drain_began(&mut self, now: Moment, launch: Launch, drain: Drain, out: &mut Outcome) {
        self.forget_drain(launch);
        let Some(worker) = self.workers.get_mut(&launch) else { return };
        for &link in worker.dials.keys() {
            out.say(launch, link, Word::drain(&drain));
        }
        let (least, deadline) = (drain.least, drain.deadline);
        let lead = (deadline.since(now) / 4).min(LAST_CALL);
        let last_call = now + deadline.since(now).saturating_sub(lead);
        worker.tally.get_or_insert_default();
        let stage = Step::Finishing { last_call };
        worker.phase = Phase::Draining(Box::new(Draining { drain, began: now, stage, told: None }));
        self.wake_at(last_call, Due::Drain(launch));
        self.wake_at(deadline, Due::Drain(launch));
        self.wake_at(least, Due::Drain(launch));
        out.facts.push(Fact::Deadline { launch, at: deadline });
        self.tell_in_hand(launch, out);
    }

    pub(super) fn launch_ready(&mut self, now: Moment, launch: Launch, out: &mut Outcome) {
        self.forget_drain(launch);
        let Some(worker) = self.workers.get_mut(&launch) else { return };
        match worker.phase {
            Phase::Ready => return,
            Phase::Draining(_) => {
                for &link in worker.dials.keys() {
                    out.say(launch, link, Word::DrainEnded);
                }
            }
            Phase::Restored | Phase::Starting => {}
        }
        (worker.phase, worker.tally) = (Phase::Ready, None);
        let app = worker.app.clone();
        self.do_not_await(now, launch, out);
        self.place(now, &app, out);
    }

    /// A drain was taken back, and the exit that tasks wait for does not come. Its worker may still be at them: it is
    /// told, and has a lease's time to let go.
    fn do_not_await(&mut self, now: Moment, launch: Launch, out: &mut Outcome) {
        let Some(worker) = self.workers.get(&launch) else { return };
        let (links, awaited): (Vec<_>, _) = (worker.dials.keys().copied().collect(), worker.awaited.clone());
        let from = now + self.lease(&worker.app);
        for id in awaited {
            for &link in &links {
                out.say(launch, link, Word::Fenced { task: id.clone() });
            }
            self.change(now, &id, |task| {
                if let State::Waiting { not_before, after, .. } = &mut task.state {
                    (*not_before, *after) = (from.max(*not_before), None);
                }
            });
            out.rows.push(Row::Task(id));
        }
    }

    /// Tells how much a draining worker has in hand, when that is something new.
    pub(super) fn tell_in_hand(&mut self, launch: Launch, out: &mut Outcome) {
        let stay = self.staying(launch);
        let Some(worker) = self.workers.get_mut(&launch) else { return };
        let Phase::Draining(draining) = &mut worker.phase else { return };
        let tasks = u32::try_from(worker.running.len()).unwrap_or(u32::MAX);
        let asker = draining.drain.asked_by.as_ref().is_some_and(|id| worker.running.contains(id));
        let now = (tasks, u32::from(asker), stay);
        if draining.told.replace(now) != Some(now) {
            let least = draining.drain.least;
            out.facts.push(Fact::InHand { launch, tasks, asker: now.1, stay });
            // What is left may be nothing that is waited for.
            self.wake_at(least, Due::Drain(launch));
        }
    }

    /// Whether a task of a draining worker is left to it because whoever takes its place does not read its checkpoint.
    pub(super) fn stays(&self, id: &TaskId, launch: Launch) -> bool {
        let Some(Phase::Draining(draining)) = self.workers.get(&launch).map(|worker| &worker.phase) else {
            return false;
        };
        let (Some(next), Some(task)) = (draining.drain.successor, self.tasks.get(id)) else { return false };
        !task.is_read_by(next.generation, next.state_version)
    }

    /// Whether a running task is left to its draining worker until it ends.
    #[must_use]
    pub fn is_left_to_its_worker(&self, id: &TaskId) -> bool {
        let launch = self.tasks.get(id).and_then(|task| task.run()).map(|run| run.launch);
        launch.is_some_and(|launch| self.stays(id, launch))
    }

    /// Notes which tasks of an app its next generation does not read.
    pub(super) fn looked(
        &mut self,
        now: Moment,
        app: &AppName,
        generation: Generation,
        unread: &BTreeSet<TaskId>,
        out: &mut Outcome,
    ) {
        let verdict = |task: &Task| unread.contains(&task.id).then_some(generation);
        let judged = |task: &&Task| task.app == *app && task.checkpoint.is_some() && task.unread_by != verdict(task);
        let anew: Vec<TaskId> = self.tasks().filter(judged).map(|task| task.id.clone()).collect();
        for id in anew {
            self.change(now, &id, |task| task.unread_by = verdict(task));
            out.rows.push(Row::Task(id));
        }
        let launches: Vec<Launch> = self.apps.get(app).into_iter().flat_map(|app| app.workers.clone()).collect();
        for launch in launches {
            self.tell_in_hand(launch, out);
        }
        self.place(now, app, out);
    }

    /// How many of a draining worker's tasks are waited for, however long they take.
    fn staying(&self, launch: Launch) -> u32 {
        let Some(worker) = self.workers.get(&launch) else { return 0 };
        let Phase::Draining(draining) = &worker.phase else { return 0 };
        if draining.drain.successor.is_none_or(|next| !next.waits) {
            return 0;
        }
        u32::try_from(worker.running.iter().filter(|id| self.stays(id, launch)).count()).unwrap_or(u32::MAX)
    }

    /// Whether all that is left asked for this, or was stuck before it began and did not get on since: the deadline was
    /// not made for them. Without a checkpoint a task is slow, not stuck: it is waited for, since it cannot go on
    /// elsewhere.
    fn only_unawaited(&self, launch: Launch) -> bool {
        let Some(worker) = self.workers.get(&launch) else { return false };
        let Phase::Draining(draining) = &worker.phase else { return false };
        let (drain, began) = (&draining.drain, draining.began);
        let unawaited = |id: &TaskId| {
            drain.asked_by.as_ref() == Some(id)
                || self.tasks.get(id).is_some_and(|task| task.stuck(began, drain.usual.of(task.kind.as_ref())))
        };
        !worker.running.is_empty() && worker.running.iter().all(unawaited)
    }

    pub(super) fn tally(&mut self, launch: Launch) -> Option<&mut Tally> {
        self.workers.get_mut(&launch)?.tally.as_mut()
    }

    /// A drain's last call or deadline may have come.
    pub(super) fn drain_due(&mut self, now: Moment, launch: Launch, out: &mut Outcome) {
        let unawaited = self.only_unawaited(launch);
        // The worker is gone, or serves again, or the deadline was moved.
        let Some(worker) = self.workers.get_mut(&launch) else { return };
        let Phase::Draining(draining) = &mut worker.phase else { return };
        let until = if unawaited { draining.drain.least } else { draining.drain.deadline };
        match draining.stage {
            Step::Over => {}
            Step::Finishing { .. } | Step::LastCall if now >= until => self.time_over(now, launch, out),
            Step::Finishing { last_call } if now >= last_call => {
                draining.stage = Step::LastCall;
                let ids: Vec<TaskId> = worker.running.iter().cloned().collect();
                self.call(launch, &ids, out);
            }
            Step::Finishing { .. } | Step::LastCall => {}
        }
    }

    /// Asks for one more checkpoint of each task.
    fn call(&self, launch: Launch, ids: &[TaskId], out: &mut Outcome) {
        for id in ids {
            if let Some(run) = self.tasks.get(id).and_then(|task| task.run())
                && let (Some(link), Stage::Held) = (run.link, &run.stage)
            {
                out.say(launch, link, Word::CheckpointNow { task: id.clone() });
            }
        }
    }

    fn time_over(&mut self, now: Moment, launch: Launch, out: &mut Outcome) {
        let Some(worker) = self.workers.get(&launch) else { return };
        let on_deadline = self.apps.get(&worker.app).map_or(OnDeadline::Checkpoint, |app| app.policy.on_deadline);
        let ids: Vec<TaskId> = worker.running.iter().cloned().collect();
        let tasks = u32::try_from(ids.len() + worker.awaited.len()).unwrap_or(u32::MAX);
        let stay = self.staying(launch) > 0;
        if on_deadline == OnDeadline::Extend
            && let Some(at) = self.extension(now, launch, &ids)
        {
            return self.extend(launch, at, out);
        }
        if on_deadline != OnDeadline::Kill {
            for id in &ids {
                // The others may still end before their process does.
                let stays = stay && self.stays(id, launch);
                if !stays && self.tasks.get(id).is_some_and(|task| task.resumable() && !task.cancelling()) {
                    self.cut(now, id, Some(launch), false, out);
                }
            }
        }
        if stay {
            return self.extend(launch, now + STAY, out);
        }
        if let Some(Phase::Draining(draining)) = self.workers.get_mut(&launch).map(|worker| &mut worker.phase) {
            draining.stage = Step::Over;
        }
        out.facts.push(Fact::TimeOver { launch, tasks });
    }

    /// Until when the tasks of a draining worker may go on because one of them gets on; none when none does, or when
    /// it is as late as it may be.
    fn extension(&self, now: Moment, launch: Launch, ids: &[TaskId]) -> Option<Moment> {
        let Phase::Draining(draining) = &self.workers.get(&launch)?.phase else { return None };
        let drain = &draining.drain;
        if now >= drain.latest {
            return None;
        }
        let until = |id: &TaskId| {
            let task = self.tasks.get(id).filter(|task| drain.asked_by.as_ref() != Some(&task.id))?;
            let until = task.sign()? + drain.usual.of(task.kind.as_ref());
            (until >= now).then_some(until)
        };
        let until = ids.iter().filter_map(until).max()?;
        Some(until.max(now + EXTENSION).min(drain.latest))
    }

    fn extend(&mut self, launch: Launch, at: Moment, out: &mut Outcome) {
        let Some(worker) = self.workers.get_mut(&launch) else { return };
        let Phase::Draining(draining) = &mut worker.phase else { return };
        draining.drain.deadline = at;
        for &link in worker.dials.keys() {
            out.say(launch, link, Word::drain(&draining.drain));
        }
        self.wake_at(at, Due::Drain(launch));
        out.facts.push(Fact::Deadline { launch, at });
    }
}

impl Tally {
    pub(super) fn lose(&mut self, id: &TaskId, loss: Loss) {
        self.lost += 1;
        if self.named.len() < Self::NAMED {
            self.named.push((id.clone(), loss));
        }
    }
}
