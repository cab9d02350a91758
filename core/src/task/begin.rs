//! How a task comes to be, or turns out to be there already.

use std::time::Duration;

use crate::time::{Moment, Tick};

use super::input::{Begin, Known, Own, Told};
use super::ledger::Ledger;
use super::name::{Speaker, TaskId};
use super::outcome::{Answer, Duplicate, Fate, Outcome, Refused, Row};
use super::state::{End, Paused, Run, Stage, State, Task};
use crate::id::Launch;

impl Ledger {
    /// Admits a task: it is durable before its worker starts.
    pub(super) fn begin(
        &mut self,
        tick: Tick,
        from: Speaker,
        begin: Begin,
        known: Known,
        out: &mut Outcome,
    ) -> Result<Answer, Refused> {
        let app = self.workers[&from.launch].app.clone();
        if let Some(id) = &begin.task {
            if let Some(task) = self.tasks.get(id) {
                let told = matches!(task.state, State::Told { .. });
                if task.app != app || told {
                    return Err(Refused::Taken(id.clone()));
                }
                return Ok(self.begin_again(tick.now, from, id.clone(), Named::ById, out));
            }
            if let Some(ended) = known.task {
                return match ended.end {
                    _ if ended.app != app => Err(Refused::Taken(id.clone())),
                    End::Ok => Ok(Answer::Duplicate { task: ended.task, of: Duplicate::Done }),
                    End::Error | End::Cancelled | End::Lost(_) | End::Discarded => {
                        Err(Refused::Ended { task: ended.task, end: ended.end })
                    }
                };
            }
        }
        let tasks = self.apps.entry(app.clone()).or_default();
        if let Some(key) = &begin.key {
            if let Some(id) = tasks.keys.get(key).cloned() {
                return Ok(self.begin_again(tick.now, from, id, Named::ByKey, out));
            }
            // What ended otherwise may be tried anew under the same key.
            if let Some(ended) = known.key.filter(|ended| ended.end == End::Ok) {
                return Ok(Answer::Duplicate { task: ended.task, of: Duplicate::Done });
            }
        }
        if tasks.open >= tasks.policy.max_open {
            return Err(Refused::TooMany { app, open: tasks.open });
        }
        let id = begin.task.unwrap_or_else(|| self.fresh_id(tick.entropy));
        let lease = self.lease(&app);
        let state = State::Running(Run::held(from, tick.now, lease));
        let task = Task {
            kind: begin.kind,
            session: begin.session,
            key: begin.key,
            input: begin.input,
            ..Task::new(id.clone(), app, state)
        };
        let answer = Answer::Begun { task: id.clone(), fence: task.fence, attempt: task.attempt, checkpoint: None };
        self.admit(tick.now, task);
        out.rows.push(Row::Task(id));
        self.tell_in_hand(from.launch, out);
        Ok(answer)
    }

    fn fresh_id(&self, mut entropy: u64) -> TaskId {
        loop {
            let id = TaskId::drawn(entropy);
            if !self.tasks.contains_key(&id) {
                return id;
            }
            entropy = entropy.wrapping_add(1);
        }
    }

    /// The id or the key belongs to an open task. One that waits for a worker has found one.
    fn begin_again(&mut self, now: Moment, from: Speaker, id: TaskId, named: Named, out: &mut Outcome) -> Answer {
        let readable = self.readable(&id, from.launch);
        let task = &self.tasks[&id];
        let of = match &task.state {
            // Its answer was lost on the way. Another process of its worker may have been sent it since.
            State::Running(run) if run.launch == from.launch && run.pid == from.pid && named == Named::ById => {
                let own = Own { task: id.clone(), fence: task.fence };
                if let Ok(task) = self.owned(now, from, &own, &Known::default()) {
                    return task.begun();
                }
                Duplicate::Running
            }
            State::Running(_) | State::Told { .. } => Duplicate::Running,
            // After a crash it waits for nobody's sake but its own.
            State::Waiting { after: None, not_before, why }
                if readable && (*not_before <= now || *why == Paused::Crashed) =>
            {
                let lease = self.lease(&task.app);
                self.change(now, &id, |task| task.state = State::Running(Run::held(from, now, lease)));
                out.rows.push(Row::Task(id.clone()));
                self.tell_in_hand(from.launch, out);
                return self.tasks[&id].begun();
            }
            State::Waiting { .. } => Duplicate::Waiting,
            State::Parked { .. } => Duplicate::Parked,
        };
        Answer::Duplicate { task: id, of }
    }

    /// A worker told of a task by datagram. What comes twice, or after its end, changes nothing.
    pub(super) fn told(&mut self, now: Moment, launch: Launch, id: TaskId, word: Told, out: &mut Outcome) {
        let Some(worker) = self.workers.get(&launch) else { return };
        let app = worker.app.clone();
        match (word, self.tasks.get_mut(&id).map(AsMut::as_mut)) {
            (Told::Began { kind }, None) => {
                let tasks = self.apps.entry(app.clone()).or_default();
                if tasks.open >= tasks.policy.max_open {
                    return;
                }
                let state = State::Told { launch, since: now, safe_at: now };
                self.admit(now, Task { kind, ..Task::new(id.clone(), app, state) });
                out.rows.push(Row::Task(id));
                self.tell_in_hand(launch, out);
            }
            (Told::Safe, Some(task)) => {
                if let State::Told { safe_at, .. } = &mut task.state {
                    let length = now.since(std::mem::replace(safe_at, now));
                    out.spans.push(task.gap(length, Fate::Done));
                }
            }
            (Told::Ended(outcome), Some(Task { state: State::Told { .. }, .. })) => {
                self.finish(now, &id, outcome.into(), out);
                self.place(now, &app, out);
            }
            // Doubled, late, or about a task that has an owner of its own.
            (Told::Began { .. } | Told::Ended(_), Some(_)) | (Told::Safe | Told::Ended(_), None) => {}
        }
    }
}

/// What a `begin` and an open task have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Named {
    ById,
    ByKey,
}

impl Run {
    pub(super) fn held(from: Speaker, now: Moment, lease: Duration) -> Self {
        Self {
            launch: from.launch,
            pid: from.pid,
            link: Some(from.link),
            since: now,
            lease_until: now + lease,
            sign: now,
            progress: None,
            safe_at: Some(now),
            stage: Stage::Held,
        }
    }
}

impl Task {
    fn begun(&self) -> Answer {
        Answer::Begun {
            task: self.id.clone(),
            fence: self.fence,
            attempt: self.attempt,
            checkpoint: self.checkpoint.map(|mark| mark.step),
        }
    }
}
