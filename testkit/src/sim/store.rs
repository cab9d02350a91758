//! What would be on disk: written only by what a step calls dirty, read only by a supervisor that starts.
//!
//! Strict on purpose: a change that core forgets to name stays unwritten here, and [`Store::verify`] finds it.
//! What may differ is what a new supervisor learns afresh: see [`lasting`].

use std::collections::BTreeMap;

use agentd_core::app::Head;
use agentd_core::effect::Dirty;
use agentd_core::fleet::{Counters, Fleet};
use agentd_core::id::{AppName, Slot};
use agentd_core::worker::{State, Worker};

/// Everything that survives the supervisor.
#[derive(Debug, Default)]
pub struct Store {
    counters: Counters,
    heads: BTreeMap<AppName, Head>,
    workers: BTreeMap<(AppName, Slot), Worker>,
}

impl Store {
    /// Writes what is dirty as it is in `fleet` now.
    pub fn write(&mut self, fleet: &Fleet, dirty: &Dirty) {
        if dirty.is_empty() {
            return;
        }
        self.counters = fleet.counters();
        for name in &dirty.apps {
            match fleet.app(name) {
                Some(app) => self.heads.insert(name.clone(), app.head.clone()),
                None => self.heads.remove(name),
            };
        }
        for (name, slot) in &dirty.workers {
            let key = (name.clone(), *slot);
            match fleet.app(name).and_then(|app| app.workers.get(slot)) {
                Some(worker) => self.workers.insert(key, (**worker).clone()),
                None => self.workers.remove(&key),
            };
        }
    }

    /// The fleet as a new supervisor finds it, through the very text that is on disk.
    ///
    /// # Errors
    /// What could not be written as JSON or read back.
    pub fn restore(&self) -> Result<Fleet, serde_json::Error> {
        let heads: Vec<&Head> = self.heads.values().collect();
        let workers: Vec<&Worker> = self.workers.values().collect();
        let text = serde_json::to_string(&(self.counters, heads, workers))?;
        let (counters, heads, workers) = serde_json::from_str(&text)?;
        Ok(Fleet::restore(counters, heads, workers))
    }

    /// Whether a supervisor that starts now would find `fleet` in all that lasts.
    ///
    /// # Errors
    /// What differs.
    pub fn verify(&self, fleet: &Fleet) -> Result<(), String> {
        if self.counters != fleet.counters() {
            return Err(format!("counters: stored {:?}, are {:?}", self.counters, fleet.counters()));
        }
        let (mut heads, mut workers) = (0, 0);
        for app in fleet.apps() {
            heads += 1;
            workers += app.workers.len();
            if self.heads.get(&app.head.name) != Some(&app.head) {
                return Err(format!("head: stored {:?}, is {:?}", self.heads.get(&app.head.name), app.head));
            }
            for (&slot, worker) in &app.workers {
                let stored = self.workers.get(&(app.head.name.clone(), slot));
                if stored != Some(worker) && stored.map(lasting) != Some(lasting(worker)) {
                    return Err(format!("worker: stored {stored:?}, is {worker:?}"));
                }
            }
        }
        if heads != self.heads.len() || workers != self.workers.len() {
            return Err(format!(
                "{} heads and {} workers are stored, {heads} and {workers} are there",
                self.heads.len(),
                self.workers.len()
            ));
        }
        Ok(())
    }
}

/// A worker without what a new supervisor learns afresh: observations, tasks, and where its probes and its watchdog
/// stand.
fn lasting(worker: &Worker) -> Worker {
    let mut worker = worker.clone();
    match &mut worker.state {
        State::Starting { process, refuted, .. } => {
            *refuted = None;
            forget_talk(process);
        }
        State::Ready { process, probe, .. } => {
            *probe = None;
            forget_talk(process);
        }
        State::Draining { process, in_flight, warm_until, .. } => {
            *in_flight = None;
            *warm_until = None;
            forget_talk(process);
        }
        State::Stopping { process, .. } => forget_talk(process),
        State::Killed { process, again_at, .. } => {
            *again_at = process.started_at;
            forget_talk(process);
        }
        State::Backoff { .. } | State::Exited | State::Failed { .. } => {}
    }
    worker
}

fn forget_talk(process: &mut agentd_core::worker::Process) {
    process.tasks.clear();
    if let Some(watchdog) = &mut process.watchdog {
        watchdog.due = process.started_at;
    }
}
