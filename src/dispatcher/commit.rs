//! Writing down what a step changed, before anything that others can see.

use agentd_core::effect::Dirty;

use super::Dispatcher;
use crate::store::{Change, Durability};

impl Dispatcher {
    /// Commits everything in `dirty` as it is now. A store that fails does not stop the fleet: the failure is told,
    /// once per kind, and what was decided is done.
    pub(super) fn commit(&mut self, dirty: &Dirty) {
        if dirty.is_empty() {
            return;
        }
        let mut changes = vec![Change::Counters(self.fleet.counters())];
        for name in &dirty.apps {
            match self.fleet.app(name) {
                Some(app) => changes.push(Change::App(Box::new(app.head.clone()))),
                None => changes.push(Change::AppGone(name.clone())),
            }
        }
        for (name, slot) in &dirty.workers {
            match self.fleet.app(name).and_then(|app| app.workers.get(slot)) {
                Some(worker) => changes.push(Change::Worker(Box::new(worker.clone()))),
                None => changes.push(Change::WorkerGone(name.clone(), *slot)),
            }
        }
        // A person's wish outlives a power cut; which process fills which slot only has to outlive us.
        let durability = if dirty.apps.is_empty() { Durability::Process } else { Durability::Power };
        self.write_down(&changes, durability);
    }

    pub(super) fn write_down(&mut self, changes: &[Change], durability: Durability) {
        if let Err(error) = self.store.commit(changes, durability) {
            let note = format!("state is not being saved: {}", in_full(&error));
            if !self.notes.contains(&note) {
                tracing::error!(error = in_full(&error), "state was not saved; the fleet goes on without");
                self.notes.push(note);
            }
        }
    }
}

/// An error with all its causes, in one line.
pub(super) fn in_full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.ends_with(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        cause = error.source();
    }
    text
}
