//! How a task leaves its owner: ended by it, taken from it, or lost with it.

use std::time::Duration;

use crate::id::Launch;
use crate::restart;
use crate::time::{Moment, Tick};

use super::input::{Ended, Gone, OnDeadline};
use super::ledger::{Ledger, Phase, Voice};
use super::name::TaskId;
use super::outcome::{Fact, Fate, Outcome, Row, Span, Stretch, Word};
use super::state::{End, Loss, ParkedFor, Paused, Released, Stage, State, Task};

/// Crashes after which a task waits for a person.
pub const CRASHES: u32 = 3;

/// The wait after a task's first crash; each further one doubles it.
const BACKOFF: Duration = Duration::from_secs(1);

/// What follows when a task is taken from its owner.
pub(super) struct Taken {
    pub(super) next: Next,
    pub(super) fate: Fate,
    /// Its owner knows, and may ask again.
    pub(super) released: Option<Released>,
}

/// What a task does next.
pub(super) enum Next {
    /// See [`State::Waiting`].
    Wait { not_before: Moment, after: Option<Launch>, why: Paused },
    /// See [`State::Parked`].
    Park(ParkedFor),
}

impl Ledger {
    /// Changes a task and files it anew.
    pub(super) fn change(&mut self, now: Moment, id: &TaskId, change: impl FnOnce(&mut Task)) {
        let Some(mut task) = self.tasks.remove(id) else { return };
        self.unfile(&task);
        change(&mut task);
        self.file(now, &task);
        self.tasks.insert(id.clone(), task);
    }

    /// Takes a task from its owner: its fence is raised in the same write.
    pub(super) fn take(&mut self, now: Moment, id: &TaskId, taken: Taken, out: &mut Outcome) {
        let Some(task) = self.tasks.get(id) else { return };
        let Some(owner) = task.owner() else { return };
        let safe = matches!(taken.next, Next::Wait { why: Paused::Yielded, .. });
        spans(task, now, taken.fate, if safe { Fate::Done } else { taken.fate }, out);
        let parked = matches!(taken.next, Next::Park(_));
        self.change(now, id, |task| {
            task.ran = task.age(now);
            task.fence = task.fence.next();
            task.attempt = task.attempt.saturating_add(1);
            task.intents = 0;
            task.released = taken.released.or(task.released);
            task.state = match taken.next {
                Next::Wait { not_before, after, why } => State::Waiting { not_before, after, why },
                Next::Park(why) => State::Parked { since: now, why },
            };
        });
        out.rows.push(Row::Task(id.clone()));
        if let Some(tally) = self.tally(owner) {
            *(if parked { &mut tally.parked } else { &mut tally.handed_over }) += 1;
        }
        self.tell_in_hand(owner, out);
    }

    /// A task is over in the absence of its owner, who is not to write to it any more.
    fn abandon(&mut self, now: Moment, id: &TaskId, end: End, out: &mut Outcome) {
        if let Some(task) = self.tasks.get_mut(id) {
            task.fence = task.fence.next();
        }
        self.finish(now, id, end, out);
    }

    /// A task is over, by its owner's word or while it has none.
    pub(super) fn finish(&mut self, now: Moment, id: &TaskId, end: End, out: &mut Outcome) {
        let Some(task) = self.tasks.remove(id) else { return };
        self.unfile(&task);
        if let Some(app) = self.apps.get_mut(&task.app) {
            app.open -= 1;
            if let Some(key) = &task.key {
                app.keys.remove(key);
            }
        }
        let fate = match end {
            End::Ok | End::Error => Fate::Done,
            // It would have gone on.
            End::Cancelled | End::Lost(Loss::Cut) | End::Discarded => Fate::Killed,
            End::Lost(Loss::Crashed | Loss::Silent) => Fate::Crashed,
        };
        spans(&task, now, fate, fate, out);
        let ran = task.age(now);
        let owner = task.owner();
        if let Some(tally) = owner.and_then(|owner| self.tally(owner)) {
            match end {
                End::Lost(loss) => tally.lose(&task.id, loss),
                End::Ok | End::Error | End::Cancelled | End::Discarded => tally.finished += 1,
            }
        }
        let Task { id, app, fence, released, .. } = *task;
        out.rows.push(Row::Ended { ended: Ended { task: id, app, fence, end, released }, ran });
        if let Some(owner) = owner {
            self.tell_in_hand(owner, out);
        }
    }

    /// A task's worker crashed, or kept silent for a whole lease.
    fn crashed(&mut self, tick: Tick, id: &TaskId, how: Loss, out: &mut Outcome) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        if task.cancelling() {
            return self.abandon(tick.now, id, End::Cancelled, out);
        }
        if !task.resumable() {
            return self.abandon(tick.now, id, End::Lost(how), out);
        }
        task.crashes += 1;
        let crashes = task.crashes;
        let next = if crashes >= CRASHES {
            Next::Park(ParkedFor::Crashes)
        } else {
            match how {
                // Its owner may be alive and idle; whoever is awake goes on at once.
                Loss::Silent => Next::Wait { not_before: tick.now, after: None, why: Paused::Silent },
                Loss::Crashed | Loss::Cut => {
                    let full = BACKOFF.saturating_mul(2_u32.saturating_pow(crashes - 1));
                    let not_before = tick.now + restart::upper_half(full, tick.entropy);
                    Next::Wait { not_before, after: None, why: Paused::Crashed }
                }
            }
        };
        self.take(tick.now, id, Taken { next, fate: Fate::Crashed, released: None }, out);
    }

    /// A lease is over.
    pub(super) fn silent(&mut self, tick: Tick, id: &TaskId, out: &mut Outcome) {
        let Some(run) = self.tasks.get(id).and_then(|task| task.run()) else { return };
        let (launch, pid, link) = (run.launch, run.pid, run.link);
        let Some(worker) = self.workers.get_mut(&launch) else { return };
        let app = worker.app.clone();
        for dial in worker.dials.values_mut().filter(|dial| dial.pid == pid) {
            dial.voice = Voice::Silent;
        }
        if let Some(link) = link {
            out.say(launch, link, Word::Fenced { task: id.clone() });
        }
        self.crashed(tick, id, Loss::Silent, out);
        self.place(tick.now, &app, out);
    }

    /// A process ended. One that is not known, or was gone before, changes nothing.
    pub(super) fn launch_gone(&mut self, tick: Tick, launch: Launch, gone: Gone, out: &mut Outcome) {
        let Some(worker) = self.workers.get_mut(&launch) else { return };
        worker.tally.get_or_insert_default();
        let app = worker.app.clone();
        let over = matches!(&worker.phase, Phase::Draining(draining) if draining.is_over());
        let on_deadline = self.apps.get(&app).map(|app| app.policy.on_deadline);
        let kill = over && on_deadline == Some(OnDeadline::Kill);
        let (running, awaited) = (worker.running.clone(), worker.awaited.clone());
        for (index, id) in running.iter().enumerate() {
            let entropy = tick.entropy.rotate_left(u32::try_from(index % 64).unwrap_or(0));
            match gone {
                Gone::Crashed => self.crashed(Tick { entropy, ..tick }, id, Loss::Crashed, out),
                Gone::Asked => self.cut(tick.now, id, None, kill, out),
            }
        }
        for id in &awaited {
            self.change(tick.now, id, |task| {
                if let State::Waiting { after, .. } = &mut task.state {
                    *after = None;
                }
            });
            out.rows.push(Row::Task(id.clone()));
        }
        self.forget_drain(launch);
        if let Some(tally) = self.workers.remove(&launch).and_then(|worker| worker.tally) {
            out.facts.push(Fact::Settled { launch, tally });
        }
        if let Some(app) = self.apps.get_mut(&app) {
            app.workers.remove(&launch);
        }
        self.place(tick.now, &app, out);
    }

    /// A task's worker is ended, or will be at once: then `after` names it.
    pub(super) fn cut(&mut self, now: Moment, id: &TaskId, after: Option<Launch>, kill: bool, out: &mut Outcome) {
        let Some(task) = self.tasks.get(id) else { return };
        if task.cancelling() {
            return self.abandon(now, id, End::Cancelled, out);
        }
        if kill || !task.resumable() {
            return self.abandon(now, id, End::Lost(Loss::Cut), out);
        }
        let next = Next::Wait { not_before: now, after, why: Paused::Cut };
        self.take(now, id, Taken { next, fate: Fate::HandedOver, released: None }, out);
    }
}

impl Task {
    /// From one safe point to the next.
    pub(super) fn gap(&self, length: Duration, fate: Fate) -> Span {
        Span {
            task: self.id.clone(),
            app: self.app.clone(),
            kind: self.kind.clone(),
            of: Stretch::Gap,
            age0: Duration::ZERO,
            age: length,
            fate,
        }
    }

    /// Whether somebody wants it to end.
    pub(super) fn cancelling(&self) -> bool {
        self.run().is_some_and(|run| matches!(run.stage, Stage::Cancelling { .. }))
    }
}

/// What the estimator learns when a task leaves its owner.
fn spans(task: &Task, now: Moment, run: Fate, since_safe: Fate, out: &mut Outcome) {
    if task.owner().is_none() {
        return;
    }
    out.spans.push(Span {
        task: task.id.clone(),
        app: task.app.clone(),
        kind: task.kind.clone(),
        of: Stretch::Task,
        age0: task.ran,
        age: task.age(now),
        fate: run,
    });
    if let Some(length) = task.since_safe(now) {
        out.spans.push(task.gap(length, since_safe));
    }
}
