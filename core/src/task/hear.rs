//! What a worker says, from its hello on: who it is, whether the task is its own, and that it is at it.

use crate::id::Launch;
use crate::time::{Moment, Tick};

use super::input::{Known, Message, Needs, Own};
use super::ledger::{Dial, Ledger, Phase, Voice};
use super::name::{Key, Link, Speaker, TaskId};
use super::outcome::{Answer, Fact, Outcome, Refused, Resume, Word};
use super::state::{Mark, Released, Stage, State, Task};

impl Ledger {
    /// Which names in a message the store is to look up for it.
    #[must_use]
    pub fn needs<'a>(&'a self, from: Launch, message: &'a Message) -> Needs<'a> {
        let unless_open = |own: &'a Own| (!self.tasks.contains_key(&own.task)).then_some(&own.task);
        match message {
            Message::Hello { .. } | Message::Ready => Needs::default(),
            Message::Beat { tasks } => {
                Needs { task: tasks.iter().find_map(|(own, _)| unless_open(own)), ..Needs::default() }
            }
            Message::Begin(begin) => {
                let Some(worker) = self.workers.get(&from) else { return Needs::default() };
                let open = |key: &Key| self.apps.get(&worker.app).is_some_and(|app| app.keys.contains_key(key));
                Needs {
                    task: begin.task.as_ref().filter(|id| !self.tasks.contains_key(*id)),
                    key: begin.key.as_ref().filter(|key| !open(key)).map(|key| (&worker.app, key)),
                    ..Needs::default()
                }
            }
            Message::Checkpoint { own, step, .. } => {
                let behind = |task: &Task| task.checkpoint.is_some_and(|mark| *step < mark.step);
                let behind = self.tasks.get(&own.task).is_some_and(|task| behind(task));
                Needs { task: unless_open(own), checkpoint: behind.then_some((&own.task, *step)), ..Needs::default() }
            }
            Message::EffectBegin { own, key, .. } | Message::EffectEnd { own, key, .. } => {
                Needs { task: unless_open(own), effect: Some((&own.task, key)), ..Needs::default() }
            }
            Message::End { own, .. } | Message::Yield { own } | Message::Guard { own } => {
                Needs { task: unless_open(own), ..Needs::default() }
            }
        }
    }

    /// Takes in what a worker says.
    ///
    /// # Errors
    /// Why it is refused; then no task changed for it, but for a beat: what else it names is prolonged. The mere fact that a silent worker spoke may still have had tasks
    /// sent to it, so the outcome is to be taken either way.
    pub fn message(
        &mut self,
        tick: Tick,
        from: Speaker,
        message: Message,
        known: Known,
        out: &mut Outcome,
    ) -> Result<Answer, Refused> {
        let worker = self.workers.get_mut(&from.launch).filter(|worker| !matches!(worker.phase, Phase::Restored));
        let worker = worker.ok_or(Refused::UnknownWorker(from.launch))?;
        if let Message::Hello { max_tasks } = message {
            let tasks = worker.dials.get(&from.link).map_or(0, |dial| dial.tasks);
            worker.dials.insert(from.link, Dial { pid: from.pid, max_tasks, tasks, voice: Voice::Heard });
            return Ok(self.hello(tick, from, out));
        }
        let dial = worker.dials.get_mut(&from.link).ok_or(Refused::NoHello)?;
        if dial.voice == Voice::Silent {
            dial.voice = Voice::Heard;
            let app = worker.app.clone();
            let answer = self.spoken(tick, from, message, known, out);
            self.place(tick.now, &app, out);
            return answer;
        }
        self.spoken(tick, from, message, known, out)
    }

    fn spoken(
        &mut self,
        tick: Tick,
        from: Speaker,
        message: Message,
        known: Known,
        out: &mut Outcome,
    ) -> Result<Answer, Refused> {
        match message {
            // Answered before it came here.
            Message::Hello { .. } => Ok(Answer::Ok),
            Message::Ready => {
                if matches!(self.workers[&from.launch].phase, Phase::Starting) {
                    out.facts.push(Fact::Ready { launch: from.launch });
                }
                Ok(Answer::Ok)
            }
            Message::Begin(begin) => self.begin(tick, from, begin, known, out),
            Message::Checkpoint { own, step, safe, state_version } => {
                let state_version = state_version.or(self.workers[&from.launch].state_version);
                self.checkpoint(tick.now, from, &own, Mark { step, safe, state_version, at: tick.now }, &known, out)
            }
            Message::EffectBegin { own, key, kind } => self.effect_begin(tick.now, from, &own, key, kind, &known, out),
            Message::EffectEnd { own, key, ok } => self.effect_end(tick.now, from, &own, key, ok, &known, out),
            Message::End { own, outcome } => self.end(tick.now, from, &own, outcome.into(), &known, out),
            Message::Yield { own } => self.give_up(tick.now, from, &own, &known, out),
            Message::Beat { tasks } => self.beat(tick.now, from, tasks, &known, out),
            Message::Guard { own } => self.owned(tick.now, from, &own, &known).map(|_| Answer::Ok),
        }
    }

    pub(super) fn hello(&mut self, tick: Tick, from: Speaker, out: &mut Outcome) -> Answer {
        let worker = &self.workers[&from.launch];
        if let Phase::Draining(draining) = &worker.phase {
            out.say(from.launch, from.link, Word::drain(&draining.drain));
        }
        let app = worker.app.clone();
        let lease = self.lease(&app);
        let ids: Vec<TaskId> = worker.running.iter().cloned().collect();
        let mut resume = Vec::new();
        for id in ids {
            let Some(task) = self.tasks.get_mut(&id) else { continue };
            let checkpoint = task.checkpoint.map(|mark| mark.step);
            let again = match &task.state {
                State::Running(run) if run.link.is_none() && run.pid == from.pid => match &run.stage {
                    Stage::Offered => Some(task.word_run()),
                    Stage::Held => None,
                    Stage::Cancelling { reason } => Some(Word::Cancel { task: id.clone(), reason: reason.clone() }),
                },
                State::Running(_) => None,
                State::Told { .. } | State::Waiting { .. } | State::Parked { .. } => continue,
            };
            resume.push(Resume { task: id.clone(), fence: task.fence, checkpoint });
            if let State::Running(run) = &mut task.state
                && run.pid == from.pid
            {
                run.lease_until = tick.now + lease;
                if run.link.is_none() {
                    run.link = Some(from.link);
                    self.count(from.launch, from.link, 1);
                }
            }
            if let Some(word) = again {
                out.say(from.launch, from.link, word);
            }
        }
        self.place(tick.now, &app, out);
        Answer::Welcome { resume, lease }
    }

    pub(super) fn link_closed(&mut self, launch: Launch, link: Link) {
        let Some(worker) = self.workers.get_mut(&launch) else { return };
        worker.dials.remove(&link);
        for id in &worker.running {
            if let Some(State::Running(run)) = self.tasks.get_mut(id).map(|task| &mut task.state)
                && run.link == Some(link)
            {
                run.link = None;
            }
        }
    }

    /// The open task that the speaker owns under the fence that it names. Its word renews the lease.
    pub(super) fn owned(&mut self, now: Moment, from: Speaker, own: &Own, known: &Known) -> Result<&mut Task, Refused> {
        let lease = self.lease(&self.workers[&from.launch].app);
        let Some(task) = self.tasks.get_mut(&own.task) else { return Err(not_open(own, known)) };
        let fenced = Refused::Fenced { task: own.task.clone(), said: own.fence, now: task.fence };
        if task.fence != own.fence {
            return Err(fenced);
        }
        let State::Running(run) = &mut task.state else { return Err(fenced) };
        if run.launch != from.launch {
            return Err(fenced);
        }
        run.lease_until = now + lease;
        if run.stage == Stage::Offered {
            run.stage = Stage::Held;
        }
        if run.link != Some(from.link) {
            let before = run.link.replace(from.link);
            run.pid = from.pid;
            if let Some(worker) = self.workers.get_mut(&from.launch) {
                if let Some(dial) = before.and_then(|link| worker.dials.get_mut(&link)) {
                    dial.tasks = dial.tasks.saturating_sub(1);
                }
                if let Some(dial) = worker.dials.get_mut(&from.link) {
                    dial.tasks += 1;
                }
            }
        }
        Ok(task)
    }

    pub(super) fn beat(
        &mut self,
        now: Moment,
        from: Speaker,
        tasks: Vec<(Own, Option<u64>)>,
        known: &Known,
        out: &mut Outcome,
    ) -> Result<Answer, Refused> {
        let mut absent = None;
        for (own, progress) in tasks {
            let released = Released { launch: from.launch, fence: own.fence };
            match self.tasks.get(&own.task) {
                None => {
                    absent.get_or_insert(own.task);
                    continue;
                }
                // It crossed its release on the way; what it may still write is refused anyway.
                Some(task) if task.released == Some(released) => continue,
                Some(_) => {}
            }
            match self.owned(now, from, &own, &Known::default()) {
                Ok(task) => {
                    if let State::Running(run) = &mut task.state
                        && progress.is_some()
                        && run.progress != progress
                    {
                        run.progress = progress;
                        run.sign = now;
                    }
                }
                Err(_) => out.say(from.launch, from.link, Word::Fenced { task: own.task }),
            }
        }
        match (absent, &known.task) {
            (Some(task), None) => Err(Refused::UnknownTask(task)),
            // One that the store knows crossed its end on the way.
            (Some(_), Some(_)) | (None, _) => Ok(Answer::Ok),
        }
    }
}

/// Why a word about a task that is not open is refused.
fn not_open(own: &Own, known: &Known) -> Refused {
    match &known.task {
        None => Refused::UnknownTask(own.task.clone()),
        Some(ended) if ended.fence == own.fence => Refused::Ended { task: own.task.clone(), end: ended.end },
        Some(ended) => Refused::Fenced { task: own.task.clone(), said: own.fence, now: ended.fence },
    }
}
