//! Where each open task is filed, so that nobody has to search: under its owner, under the process that it awaits, or
//! among those that wait for nothing but a worker.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::id::{AppName, Generation, Launch};
use crate::time::Moment;

use super::ledger::{Due, Ledger, Phase, Worker};
use super::name::{Fence, Link, TaskId};
use super::outcome::Word;
use super::state::{Input, State, Task};

/// Kinds that are kept once for all their tasks, per app.
const KINDS_SHARED: usize = 256;

impl Ledger {
    /// Counts a task to a connection, or away from it.
    pub(super) fn count(&mut self, launch: Launch, link: Link, by: i32) {
        if let Some(dial) = self.workers.get_mut(&launch).and_then(|worker| worker.dials.get_mut(&link)) {
            dial.tasks = dial.tasks.saturating_add_signed(by);
        }
    }

    pub(super) fn worker_of(&mut self, launch: Launch, app: &AppName) -> &mut Worker {
        self.apps.entry(app.clone()).or_default().workers.insert(launch);
        self.workers.entry(launch).or_insert_with(|| Worker {
            app: app.clone(),
            generation: Generation::default(),
            state_version: None,
            phase: Phase::Restored,
            tally: None,
            dials: BTreeMap::new(),
            running: BTreeSet::new(),
            awaited: BTreeSet::new(),
            leases_at: None,
        })
    }

    /// Puts a task among the open ones.
    pub(super) fn admit(&mut self, now: Moment, mut task: Task) {
        let app = self.apps.entry(task.app.clone()).or_default();
        app.open += 1;
        if let Some(kind) = &task.kind {
            match app.kinds.get(kind) {
                Some(shared) => task.kind = Some(shared.clone()),
                None if app.kinds.len() < KINDS_SHARED => _ = app.kinds.insert(kind.clone()),
                None => {}
            }
        }
        if let Some(key) = &task.key {
            app.keys.insert(key.clone(), task.id.clone());
        }
        self.file(now, &task);
        self.tasks.insert(task.id.clone(), Box::new(task));
    }

    /// Notes a task where its state belongs.
    pub(super) fn file(&mut self, now: Moment, task: &Task) {
        match &task.state {
            State::Running(run) => {
                let (launch, link, until) = (run.launch, run.link, run.lease_until);
                self.worker_of(launch, &task.app).running.insert(task.id.clone());
                if let Some(link) = link {
                    self.count(launch, link, 1);
                }
                self.watch_leases(launch, until);
            }
            State::Told { launch, .. } => _ = self.worker_of(*launch, &task.app).running.insert(task.id.clone()),
            State::Waiting { after: Some(launch), .. } => {
                self.worker_of(*launch, &task.app).awaited.insert(task.id.clone());
            }
            State::Waiting { not_before, after: None, .. } => {
                let app = self.apps.entry(task.app.clone()).or_default();
                app.waiting.insert((*not_before, task.id.clone()));
                if *not_before > now {
                    self.due.insert((*not_before, Due::Place(task.app.clone())));
                }
            }
            State::Parked { .. } => {}
        }
    }

    /// Takes a task out of where its state belongs.
    pub(super) fn unfile(&mut self, task: &Task) {
        match &task.state {
            State::Running(run) => {
                if let Some(worker) = self.workers.get_mut(&run.launch) {
                    worker.running.remove(&task.id);
                }
                if let Some(link) = run.link {
                    self.count(run.launch, link, -1);
                }
            }
            State::Told { launch, .. } => {
                if let Some(worker) = self.workers.get_mut(launch) {
                    worker.running.remove(&task.id);
                }
            }
            State::Waiting { after: Some(launch), .. } => {
                if let Some(worker) = self.workers.get_mut(launch) {
                    worker.awaited.remove(&task.id);
                }
            }
            State::Waiting { not_before, after: None, .. } => {
                if let Some(app) = self.apps.get_mut(&task.app) {
                    app.waiting.remove(&(*not_before, task.id.clone()));
                }
            }
            State::Parked { .. } => {}
        }
    }
}

impl Task {
    /// What sends it to its owner.
    pub(super) fn word_run(&self) -> Word {
        Word::Run {
            task: self.id.clone(),
            fence: self.fence,
            kind: self.kind.clone(),
            session: self.session.clone(),
            attempt: self.attempt,
            checkpoint: self.checkpoint.map(|mark| mark.step),
        }
    }

    /// A new one.
    pub(super) fn new(id: TaskId, app: AppName, state: State) -> Self {
        Self {
            id,
            app,
            kind: None,
            session: None,
            key: None,
            input: Input::Absent,
            fence: Fence::FIRST,
            attempt: 1,
            crashes: 0,
            ran: Duration::ZERO,
            checkpoint: None,
            intents: 0,
            released: None,
            unread_by: None,
            state,
        }
    }
}
