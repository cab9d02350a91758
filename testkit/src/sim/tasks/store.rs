//! What would be in the database: written only by rows, read by a supervisor that starts or whose commit failed.
//!
//! A transaction is the writes since the last [`Store::commit`]; [`Store::undo`] takes them back.

use std::collections::BTreeMap;

use agentd_core::id::AppName;
use agentd_core::task::{
    EffectKey, EffectRecord, EffectState, Ended, Key, Known, Ledger, Mark, Needs, Row, Stage, State, Task, TaskId,
};

/// Everything that survives the supervisor.
#[derive(Debug, Default)]
pub(super) struct Store {
    open: BTreeMap<TaskId, Task>,
    ended: BTreeMap<TaskId, Ended>,
    keys: BTreeMap<(AppName, Key), TaskId>,
    marks: BTreeMap<TaskId, Vec<Mark>>,
    effects: BTreeMap<(TaskId, EffectKey), EffectRecord>,
    undo: Vec<Before>,
}

/// What was there before a write of the open transaction.
#[derive(Debug)]
enum Before {
    Open(TaskId, Box<Option<Task>>),
    Ended(TaskId, Option<Ended>),
    Key((AppName, Key), Option<TaskId>),
    Marks(TaskId, Vec<Mark>),
    Effect((TaskId, EffectKey), Option<EffectRecord>),
}

impl Store {
    /// Writes a row into the open transaction.
    pub(super) fn write(&mut self, ledger: &Ledger, row: &Row) -> Result<(), String> {
        match row {
            Row::Task(id) => {
                // Open and over within one message: its end follows.
                let Some(task) = ledger.task(id) else { return Ok(()) };
                let before = self.open.insert(id.clone(), task.clone());
                self.undo.push(Before::Open(id.clone(), Box::new(before)));
            }
            Row::Checkpoint { task, fence, mark } => {
                self.under(task, *fence)?;
                let marks = self.marks.entry(task.clone()).or_default();
                self.undo.push(Before::Marks(task.clone(), marks.clone()));
                marks.retain(|kept| kept.step != mark.step);
                marks.push(*mark);
            }
            Row::Effect { task, key, fence, state, .. } => {
                self.under(task, *fence)?;
                let key = (task.clone(), key.clone());
                let before = self.effects.insert(key.clone(), EffectRecord { fence: *fence, state: *state });
                self.undo.push(Before::Effect(key, before));
            }
            Row::Ended { ended, .. } => {
                let task = self.open.remove(&ended.task);
                if let Some(key) = task.as_ref().and_then(|task| task.key.clone()) {
                    let key = (ended.app.clone(), key);
                    let before = self.keys.insert(key.clone(), ended.task.clone());
                    self.undo.push(Before::Key(key, before));
                }
                self.undo.push(Before::Open(ended.task.clone(), Box::new(task)));
                let before = self.ended.insert(ended.task.clone(), ended.clone());
                self.undo.push(Before::Ended(ended.task.clone(), before));
            }
        }
        Ok(())
    }

    /// The guard that every write has in SQL: `… WHERE fence = ?`.
    fn under(&self, task: &TaskId, fence: agentd_core::task::Fence) -> Result<(), String> {
        match self.open.get(task) {
            Some(stored) if stored.fence == fence => Ok(()),
            Some(stored) => Err(format!("task {task} has fence {} in the store, written under {fence}", stored.fence)),
            None => Err(format!("task {task} is not open in the store")),
        }
    }

    pub(super) fn commit(&mut self) {
        self.undo.clear();
    }

    /// Whether anything was written since the last commit.
    pub(super) fn is_dirty(&self) -> bool {
        !self.undo.is_empty()
    }

    /// Takes the open transaction back.
    pub(super) fn undo(&mut self) {
        while let Some(before) = self.undo.pop() {
            match before {
                Before::Open(key, value) => put(&mut self.open, key, *value),
                Before::Ended(key, value) => put(&mut self.ended, key, value),
                Before::Key(key, value) => put(&mut self.keys, key, value),
                Before::Marks(key, value) => put(&mut self.marks, key, Some(value)),
                Before::Effect(key, value) => put(&mut self.effects, key, value),
            }
        }
    }

    /// What the store knows about the names in a message.
    pub(super) fn known(&self, needs: &Needs<'_>) -> Known {
        let by_key = |(app, key): (&AppName, &Key)| self.keys.get(&(app.clone(), key.clone()));
        Known {
            task: needs.task.and_then(|id| self.ended.get(id)).cloned(),
            key: needs.key.and_then(by_key).and_then(|id| self.ended.get(id)).cloned(),
            checkpoint: needs.checkpoint.is_some_and(|(id, step)| {
                self.marks.get(id).is_some_and(|marks| marks.iter().any(|mark| mark.step == step))
            }),
            effect: needs.effect.and_then(|(id, key)| self.effects.get(&(id.clone(), key.clone()))).copied(),
        }
    }

    /// The open tasks, as a query finds them.
    pub(super) fn tasks(&self) -> Vec<Task> {
        let open = self.open.values().cloned();
        open.map(|mut task| {
            task.checkpoint = self.marks.get(&task.id).and_then(|marks| marks.last()).copied();
            let mine = |((id, _), record): &(&(TaskId, EffectKey), &EffectRecord)| {
                *id == task.id && record.state == EffectState::Intent && record.fence == task.fence
            };
            task.intents = u32::try_from(self.effects.iter().filter(mine).count()).unwrap_or(u32::MAX);
            task
        })
        .collect()
    }

    pub(super) fn open(&self, id: &TaskId) -> Option<&Task> {
        self.open.get(id)
    }

    pub(super) fn ended(&self, id: &TaskId) -> Option<&Ended> {
        self.ended.get(id)
    }

    pub(super) fn effect(&self, task: &TaskId, key: &EffectKey) -> Option<EffectState> {
        self.effects.get(&(task.clone(), key.clone())).map(|record| record.state)
    }

    /// Whether a supervisor that starts now would find `ledger` in all that lasts.
    pub(super) fn verify(&self, ledger: &Ledger) -> Result<(), String> {
        let stored = self.tasks();
        if stored.len() != ledger.tasks().count() {
            return Err(format!("{} tasks are stored, {} are open", stored.len(), ledger.tasks().count()));
        }
        for task in stored {
            let live = ledger.task(&task.id);
            if live.map(lasting) != Some(lasting(&task)) {
                return Err(format!("stored {task:?}, is {live:?}"));
            }
        }
        Ok(())
    }
}

fn put<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => _ = map.insert(key, value),
        None => _ = map.remove(&key),
    }
}

/// A task without what a new supervisor learns afresh: connection, lease, signs of life, and whether its owner was
/// heard of it yet.
fn lasting(task: &Task) -> Task {
    let mut task = task.clone();
    if let State::Running(run) = &mut task.state {
        run.link = None;
        run.lease_until = run.since;
        run.sign = run.since;
        run.progress = None;
        run.safe_at = None;
        if run.stage == Stage::Offered {
            run.stage = Stage::Held;
        }
        // Its present connection may be another process's of the same worker.
        run.pid = agentd_core::id::Pid(0);
    }
    if let State::Told { since, safe_at, .. } = &mut task.state {
        *safe_at = *since;
    }
    task
}
