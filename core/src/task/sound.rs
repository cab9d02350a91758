//! What must hold after every step, whatever happened.

use std::collections::BTreeSet;

use thiserror::Error;

use crate::id::{AppName, Launch};

use super::ledger::Ledger;
use super::name::{Link, TaskId};
use super::state::State;

/// A named invariant that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Violation {
    /// A task that is filed elsewhere than its state says, or nowhere: it would be forgotten.
    #[error("task {0} is not filed where its state says")]
    Misfiled(TaskId),
    /// Something is filed that is no open task.
    #[error("{task} is filed under launch {launch} and is not its task")]
    Ghost {
        /// What.
        task: TaskId,
        /// Where.
        launch: Launch,
    },
    /// A key that leads to no open task, or a task whose key does not lead to it.
    #[error("{0}: keys and tasks do not match")]
    Keys(AppName),
    /// The count of open tasks is wrong: the limit would be, too.
    #[error("{app}: {counted} tasks counted, {open} are open")]
    Miscounted {
        /// Whose.
        app: AppName,
        /// As counted.
        counted: usize,
        /// As they are.
        open: usize,
    },
    /// The load of a connection is wrong: tasks would be sent to a full worker, or to none.
    #[error("link {}: {counted} tasks counted, {there} are there", .link.0)]
    Load {
        /// Which.
        link: Link,
        /// As counted.
        counted: u32,
        /// As they are.
        there: usize,
    },
    /// A worker has tasks and nobody looks at its leases.
    #[error("launch {0} has tasks whose leases nobody watches")]
    Unwatched(Launch),
}

impl Ledger {
    /// What must hold after every step.
    ///
    /// # Errors
    /// The name of the invariant that does not hold, and where.
    pub fn check_invariants(&self) -> Result<(), Violation> {
        for task in self.tasks.values() {
            let filed = match &task.state {
                State::Running(run) => self.workers.get(&run.launch).is_some_and(|w| w.running.contains(&task.id)),
                State::Told { launch, .. } => self.workers.get(launch).is_some_and(|w| w.running.contains(&task.id)),
                State::Waiting { after: Some(launch), .. } => {
                    self.workers.get(launch).is_some_and(|worker| worker.awaited.contains(&task.id))
                }
                State::Waiting { not_before, after: None, .. } => {
                    let app = self.apps.get(&task.app);
                    app.is_some_and(|app| app.waiting.contains(&(*not_before, task.id.clone())))
                }
                State::Parked { .. } => true,
            };
            if !filed {
                return Err(Violation::Misfiled(task.id.clone()));
            }
        }
        self.check_workers()?;
        self.check_apps()
    }

    fn check_workers(&self) -> Result<(), Violation> {
        for (&launch, worker) in &self.workers {
            let mut owned = false;
            for id in worker.running.iter().chain(&worker.awaited) {
                let here = self.tasks.get(id).is_some_and(|task| match &task.state {
                    State::Running(run) => run.launch == launch,
                    State::Told { launch: teller, .. } => *teller == launch,
                    State::Waiting { after, .. } => *after == Some(launch),
                    State::Parked { .. } => false,
                });
                if !here {
                    return Err(Violation::Ghost { task: id.clone(), launch });
                }
                owned |= self.tasks.get(id).is_some_and(|task| task.run().is_some());
            }
            if owned && !self.watches(launch) {
                return Err(Violation::Unwatched(launch));
            }
            for (&link, dial) in &worker.dials {
                let on = |id: &&TaskId| {
                    self.tasks.get(*id).and_then(|task| task.run()).is_some_and(|run| run.link == Some(link))
                };
                let there = worker.running.iter().filter(on).count();
                if there != dial.tasks as usize {
                    return Err(Violation::Load { link, counted: dial.tasks, there });
                }
            }
        }
        Ok(())
    }

    fn check_apps(&self) -> Result<(), Violation> {
        for (name, app) in &self.apps {
            let open: Vec<_> = self.tasks.values().filter(|task| task.app == *name).collect();
            if open.len() != app.open {
                return Err(Violation::Miscounted { app: name.clone(), counted: app.open, open: open.len() });
            }
            let keyed: BTreeSet<_> =
                open.iter().filter_map(|task| Some((task.key.clone()?, task.id.clone()))).collect();
            let keys: BTreeSet<_> = app.keys.iter().map(|(key, id)| (key.clone(), id.clone())).collect();
            if keyed != keys {
                return Err(Violation::Keys(name.clone()));
            }
            for (at, id) in &app.waiting {
                let waits = self.tasks.get(id).is_some_and(
                    |task| matches!(&task.state, State::Waiting { not_before, after: None, .. } if not_before == at),
                );
                if !waits {
                    return Err(Violation::Misfiled(id.clone()));
                }
            }
        }
        Ok(())
    }
}
