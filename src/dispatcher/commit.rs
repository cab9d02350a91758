//! Writing down what a step changed, before anything that others can see.

use std::time::Duration;

use agentd_core::effect::Dirty;
use agentd_core::time::Moment;

use super::Dispatcher;
use crate::causes::in_full;
use crate::fault;
use crate::process::boot::Boot;
use crate::process::sys;
use crate::store::{self, Change, Durability, StoreError};

impl Dispatcher {
    /// Commits everything in `dirty` as it is now. A store that fails does not stop the fleet: the failure is told in
    /// `daemon status`, what was decided is done, and everything is written once that works again.
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
                Some(worker) => changes.push(Change::Worker(worker.clone())),
                None => changes.push(Change::WorkerGone(name.clone(), *slot)),
            }
        }
        // A person's wish outlives a power cut; which process fills which slot only has to outlive us.
        let durability = if dirty.apps.is_empty() { Durability::Process } else { Durability::Power };
        fault::point("decided");
        self.write_down(&changes, durability);
        fault::point("committed");
    }

    pub(super) fn write_down(&mut self, changes: &[Change], durability: Durability) {
        // What was missed meanwhile is in none of these; all of it is written when writing works again.
        if matches!(self.saving, Saving::Fails { .. }) {
            return;
        }
        match self.store.commit(changes, durability) {
            Ok(()) => {}
            Err(error) => {
                let why = in_full(&error);
                tracing::error!(why, "state was not saved; the fleet goes on, and saving is tried again");
                self.saving = Saving::Fails { why, again_at: sys::boottime() + AGAIN_AFTER };
            }
        }
    }

    /// Where saving failed and it is time: writes everything there is.
    pub(super) fn save_again(&mut self) {
        let Saving::Fails { again_at, .. } = &self.saving else { return };
        if sys::boottime() < *again_at {
            return;
        }
        let everything = self.everything();
        let written = match self.store.replace(&everything) {
            Err(error) if error.is_damage() => self.mend(&error).and_then(|()| self.store.replace(&everything)),
            other => other,
        };
        match written {
            Ok(()) => {
                tracing::info!("state is being saved again; nothing of what happened meanwhile is missing");
                self.saving = Saving::Works;
                self.reserve_events();
                self.save_supervisors();
            }
            Err(error) => {
                self.saving = Saving::Fails { why: in_full(&error), again_at: sys::boottime() + AGAIN_AFTER };
            }
        }
    }

    /// Puts a new database in the place of one that was damaged while it was in use: what belongs in there is in memory.
    fn mend(&mut self, damage: &StoreError) -> Result<(), StoreError> {
        let (store, aside) = store::begin_anew(&self.home.database())?;
        self.store = store;
        self.store.set_meta("instance", &self.instance)?;
        self.store.set_meta("boot", Boot::current().map_err(StoreError::Boot)?.as_str())?;
        let note = format!(
            "the state was damaged ({}) and is kept as {aside}; all of it was written anew from memory",
            in_full(damage)
        );
        tracing::error!("{note}");
        self.notes.push(note);
        Ok(())
    }

    /// All that is to be kept, as it is now.
    pub(super) fn everything(&self) -> Vec<Change> {
        let mut changes = vec![Change::Counters(self.fleet.counters())];
        for app in self.fleet.apps() {
            changes.push(Change::App(Box::new(app.head.clone())));
            changes.extend(app.workers.values().map(|worker| Change::Worker(worker.clone())));
        }
        changes.push(self.postponed_as_kept());
        changes.push(self.orders.as_kept());
        changes.extend(self.open_reports());
        for (app, shell) in &self.apps {
            for (&revision, record) in &shell.revisions {
                match serde_json::to_string(&**record) {
                    Ok(json) => changes.push(Change::Revision { app: app.clone(), revision, json }),
                    Err(error) => tracing::error!(%app, %error, "a configuration could not be written down"),
                }
            }
        }
        changes
    }
}

/// How long after a failure saving is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Whether what is decided gets written down.
///
/// ```text
/// Works ── a commit fails ──► Fails ── everything could be written ──► Works
///                             │   ▲
///                             └───┘ every second
/// ```
#[derive(Debug)]
pub(super) enum Saving {
    /// It does.
    Works,
    /// The disk is full, or fails. The fleet goes on from what is in memory.
    Fails {
        /// What was said last.
        why: String,
        /// When it is tried again.
        again_at: Moment,
    },
}

impl Saving {
    /// For the operator.
    pub(super) fn trouble(&self) -> Option<String> {
        match self {
            Self::Works => None,
            Self::Fails { why, .. } => Some(format!("state is not being saved: {why}; tried again every second")),
        }
    }

    pub(super) fn wake(&self) -> Option<Moment> {
        match self {
            Self::Works => None,
            Self::Fails { again_at, .. } => Some(*again_at),
        }
    }
}
