//! The shell's loop: gather, decide, write, commit, publish; and every way in which that fails.

use agentd_core::id::{Launch, Pid};
use agentd_core::task::{
    Answer, Boot, End, Fact, Fence, Ledger, Link, Message, Order, Outcome, Refused, Speaker, TaskId, Told, Word,
};

use super::super::report::Broken;
use super::process::Reply;
use super::witness::Owner;
use super::world::{Batch, Down, HELLO, Happening, Tasks, stamp};

/// How a commit went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Commit {
    Done,
    Full,
    DiedBefore,
    DiedAfter,
}

impl Tasks {
    /// Takes up some of what arrived, in any order but each connection's own, and settles it as one batch.
    pub(super) fn gather(&mut self) -> Result<(), Broken> {
        self.gathering = false;
        let mut batch = Batch::default();
        let orders = self.random.between(1, 3);
        while let Some(order) = self.fleet.orders.front().cloned() {
            // A new supervisor listens only when it has been told everything.
            let told = self.fleet.orders.iter().any(|order| *order == Order::AllTold);
            if !told && batch.orders.len() as u64 >= orders {
                break;
            }
            self.fleet.orders.pop_front();
            self.order(&mut batch, order)?;
        }
        for _ in 0..self.random.between(1, 6) {
            let ready: Vec<Link> =
                self.up.iter().filter(|(_, up)| up.closed || !up.queue.is_empty()).map(|(&link, _)| link).collect();
            if ready.is_empty() {
                break;
            }
            let link = self.random.pick(&ready);
            self.hear(&mut batch, link)?;
        }
        let more = !self.fleet.orders.is_empty() || self.up.values().any(|up| up.closed || !up.queue.is_empty());
        self.settle(batch)?;
        if more {
            self.gather_soon();
        }
        Ok(())
    }

    pub(super) fn order(&mut self, batch: &mut Batch, order: Order) -> Result<(), Broken> {
        self.log.line(format!("{} {order:?}", stamp(self.now)));
        let tick = self.tick();
        self.ledger.order(tick, order.clone(), &mut batch.out);
        batch.orders.push(order);
        self.write(batch)
    }

    pub(super) fn hear(&mut self, batch: &mut Batch, link: Link) -> Result<(), Broken> {
        let Some(up) = self.up.get_mut(&link) else { return Ok(()) };
        let speaker = up.speaker;
        let Some((number, message)) = up.queue.pop_front() else {
            self.up.remove(&link);
            return self.order(batch, Order::LinkClosed { launch: speaker.launch, link });
        };
        let known = self.store.known(&self.ledger.needs(speaker.launch, &message));
        let tick = self.tick();
        let answer = self.ledger.message(tick, speaker, message.clone(), known, &mut batch.out);
        for task in spoken_of(&message, &answer) {
            self.heard.insert((speaker.pid, task), self.now);
        }
        self.log.line(format!("{} {speaker:?} {number}: {message:?} -> {answer:?}", stamp(self.now)));
        batch.said.push((link, speaker, number, message, Reply::Said(answer)));
        self.write(batch)
    }

    /// Writes the rows of the last step into the open transaction.
    pub(super) fn write(&mut self, batch: &mut Batch) -> Result<(), Broken> {
        for row in batch.out.rows.drain(..) {
            self.store
                .write(&self.ledger, &row)
                .map_err(|detail| Broken::new("every write is under the task's fence", detail))?;
        }
        Ok(())
    }

    pub(super) fn settle(&mut self, batch: Batch) -> Result<(), Broken> {
        self.ledger
            .check_invariants()
            .map_err(|violation| Broken::new("the ledger is sound", violation.to_string()))?;
        // What is due comes alone and only once: its failures are worth more.
        let draw = self.random.between(0, 999) / if batch.said.is_empty() && batch.orders.is_empty() { 5 } else { 1 };
        let commit = match draw {
            _ if self.calm || !self.store.is_dirty() => Commit::Done,
            0..=19 => Commit::Full,
            20..=24 => Commit::DiedBefore,
            25..=29 => Commit::DiedAfter,
            _ => Commit::Done,
        };
        match commit {
            Commit::Done => {
                self.seen.batches += 1;
                self.excuse(&batch.out);
                self.store.commit();
                self.store
                    .verify(&self.ledger)
                    .map_err(|detail| Broken::new("what lasts is written at once", detail))?;
                self.publish(batch)
            }
            Commit::Full => {
                self.log.line(format!("{} COMMIT FAILS", stamp(self.now)));
                self.seen.full += 1;
                self.store.undo();
                self.ledger.roll_back(self.now, self.store.tasks());
                self.ledger
                    .check_invariants()
                    .map_err(|violation| Broken::new("the ledger is sound", violation.to_string()))?;
                for order in batch.orders.into_iter().rev() {
                    self.fleet.orders.push_front(order);
                }
                for (link, speaker, number, _, _) in batch.said {
                    // What it would have been told on its hello is lost: it is to dial again.
                    if number == HELLO {
                        self.disconnect(speaker.pid);
                    }
                    self.send(link, Down::Reply(number, Reply::Store));
                }
                self.gather_soon();
                Ok(())
            }
            Commit::DiedBefore => {
                self.seen.died_before += 1;
                self.store.undo();
                self.restart()
            }
            Commit::DiedAfter => {
                self.seen.died_after += 1;
                self.excuse(&batch.out);
                self.store.commit();
                self.restart()
            }
        }
    }

    /// Whose drain has no more time loses its tasks, whether somebody tells of it or not.
    pub(super) fn excuse(&mut self, out: &Outcome) {
        for fact in &out.facts {
            if let Fact::TimeOver { launch, .. } = fact {
                for process in self.processes.values_mut().filter(|process| process.launch == *launch) {
                    process.excused = true;
                }
            }
        }
    }

    pub(super) fn send(&mut self, link: Link, down: Down) {
        if let Some(queue) = self.down.get_mut(&link) {
            queue.push_back(down);
            self.soon(0, 5, Happening::Read(link));
        }
    }

    /// What was committed is seen: answers first, then words, then facts.
    pub(super) fn publish(&mut self, batch: Batch) -> Result<(), Broken> {
        for (link, speaker, number, message, reply) in batch.said {
            if let Reply::Said(Ok(answer)) = &reply {
                self.see_answer(speaker, &message, answer)?;
            }
            let down = if number == HELLO && matches!(reply, Reply::Said(Ok(_))) {
                Down::Welcome
            } else {
                Down::Reply(number, reply)
            };
            self.send(link, down);
        }
        for told in batch.out.words {
            self.log.line(format!("{}   tell launch {}: {:?}", stamp(self.now), told.launch, told.word));
            if let Word::Run { task, fence, checkpoint, .. } = &told.word {
                self.seen.sent_on += 1;
                let pid = self.up.get(&told.link).map(|up| up.speaker.pid);
                self.see_grant(task, *fence, (told.launch, pid.unwrap_or(Pid(0))), *checkpoint)?;
            }
            self.send(told.link, Down::Word(told.word));
        }
        for fact in batch.out.facts {
            self.fact(fact);
        }
        for order in &batch.orders {
            if let Order::Told { task, word: Told::Began { .. }, .. } = order
                && self.ledger.task(task).is_some()
            {
                self.witness.admitted(task.clone());
            }
        }
        if self.seen.batches.is_multiple_of(64) {
            self.witness.check(&self.store, &self.ledger)?;
        }
        Ok(())
    }

    pub(super) fn see_grant(
        &mut self,
        task: &TaskId,
        fence: Fence,
        to: (Launch, Pid),
        checkpoint: Option<u64>,
    ) -> Result<(), Broken> {
        let last = match self.witness.owner(task) {
            None => Owner::Gone,
            Some((_, pid, before)) => match self.processes.get(&pid) {
                None => Owner::Gone,
                Some(process) if process.held.get(task).is_none_or(|held| held.fence != before) => Owner::Without,
                Some(_) => Owner::AtIt,
            },
        };
        let released = self.ledger.task(task).and_then(|task| task.released);
        self.witness.granted(task, fence, to, checkpoint, last, released)
    }

    pub(super) fn see_answer(&mut self, from: Speaker, message: &Message, answer: &Answer) -> Result<(), Broken> {
        match (message, answer) {
            (_, Answer::Begun { task, fence, checkpoint, .. }) => {
                self.seen.begun += 1;
                self.witness.admitted(task.clone());
                self.see_grant(task, *fence, (from.launch, from.pid), *checkpoint)
            }
            (Message::EffectBegin { own, key, kind }, Answer::Effect(answer)) => {
                self.seen.reused += u64::from(*answer == agentd_core::task::EffectAnswer::Done);
                self.seen.parked += u64::from(*answer == agentd_core::task::EffectAnswer::Parked);
                self.witness.effect(&own.task, key, own.fence, kind.as_str(), *answer)
            }
            (Message::EffectEnd { own, key, .. }, Answer::Ok) => {
                self.witness.done(own.task.clone(), key.clone());
                Ok(())
            }
            (Message::Checkpoint { own, step, .. }, Answer::Ok) => {
                self.witness.acknowledged(own.task.clone(), *step);
                Ok(())
            }
            (Message::End { own, outcome }, Answer::Ok) => {
                self.seen.ended += 1;
                self.witness.ended(own.task.clone(), End::from(*outcome));
                Ok(())
            }
            (Message::Yield { .. }, Answer::Ok) => {
                self.seen.yielded += 1;
                Ok(())
            }
            (
                Message::Hello { .. }
                | Message::Ready
                | Message::Begin(_)
                | Message::Checkpoint { .. }
                | Message::EffectBegin { .. }
                | Message::EffectEnd { .. }
                | Message::End { .. }
                | Message::Yield { .. }
                | Message::Beat { .. }
                | Message::Guard { .. },
                Answer::Welcome { .. } | Answer::Ok | Answer::Duplicate { .. } | Answer::Effect(_),
            ) => Ok(()),
        }
    }

    pub(super) fn fact(&mut self, fact: Fact) {
        self.log.line(format!("{}   {fact:?}", stamp(self.now)));
        match fact {
            Fact::Ready { .. } | Fact::Looked { .. } => {}
            Fact::InHand { launch, tasks, .. } => {
                self.hands.insert(launch, tasks);
                if tasks == 0 {
                    self.soon(0, 100, Happening::Stop(launch));
                }
            }
            Fact::Deadline { launch, at } => self.fleet.moved(launch, at),
            Fact::TimeOver { launch, .. } => {
                self.seen.time_over += 1;
                if self.fleet.stop(launch) {
                    self.soon(0, 1_500, Happening::End(launch));
                }
            }
            Fact::Settled { tally, .. } => self.seen.lost += u64::from(tally.lost),
        }
    }

    /// The supervisor dies, every connection with it, and the next one starts from what was written.
    pub(super) fn restart(&mut self) -> Result<(), Broken> {
        self.log.line(format!("{} SUPERVISOR DIES", stamp(self.now)));
        self.store.undo();
        self.up.clear();
        self.down.clear();
        self.hands.clear();
        let pids: Vec<Pid> = self.processes.keys().copied().collect();
        for pid in pids {
            if let Some(process) = self.processes.get_mut(&pid) {
                process.disconnected();
            }
            self.soon(10, 1_000, Happening::Dial(pid));
        }
        self.now = self.now + self.random.millis(0, 3_000);
        self.ledger = Ledger::restore(self.now, Boot::Same, self.store.tasks());
        self.ledger
            .check_invariants()
            .map_err(|violation| Broken::new("the ledger is sound", violation.to_string()))?;
        self.witness.check(&self.store, &self.ledger)?;
        self.fleet.tell_again();
        self.gather_soon();
        Ok(())
    }
}

/// What a message is about, and what its answer gave: none is all that its process has.
fn spoken_of(message: &Message, answer: &Result<Answer, Refused>) -> Vec<Option<TaskId>> {
    match (message, answer) {
        (_, Ok(Answer::Begun { task, .. })) => vec![Some(task.clone())],
        (Message::Hello { .. }, _) => vec![None],
        (Message::Ready | Message::Begin(_), _) => Vec::new(),
        (Message::Beat { tasks }, _) => tasks.iter().map(|(own, _)| Some(own.task.clone())).collect(),
        (
            Message::Checkpoint { own, .. }
            | Message::EffectBegin { own, .. }
            | Message::EffectEnd { own, .. }
            | Message::End { own, .. }
            | Message::Yield { own }
            | Message::Guard { own },
            _,
        ) => vec![Some(own.task.clone())],
    }
}
