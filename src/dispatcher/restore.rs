//! Going on from what an earlier daemon wrote down.

use std::sync::Arc;

use agentd_core::app::Desired;
use agentd_core::fleet::Fleet;

use super::Dispatcher;
use super::commit::in_full;
use crate::process::stat::ProcessTable;
use crate::process::tree::{Identity, Tree};
use crate::revision::RevisionRecord;
use crate::store::{StoreError, Stored};

impl Dispatcher {
    /// Takes up the apps as they were wanted. What an earlier daemon left running is ended first, so that nothing runs
    /// twice.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn restore(&mut self) -> Result<(), StoreError> {
        let Stored { counters, mut heads, revisions, .. } = self.store.load()?;
        self.end_orphans();
        for (app, revision, json) in revisions {
            match serde_json::from_str::<RevisionRecord>(&json) {
                Ok(record) => {
                    self.apps.entry(app).or_default().revisions.insert(revision, Arc::new(record));
                }
                Err(error) => tracing::error!(%app, %revision, %error, "its configuration cannot be understood"),
            }
        }
        heads.retain(|head| {
            let known = self.apps.get(&head.name).is_some_and(|app| app.revisions.contains_key(&head.revision));
            if !known {
                tracing::error!(app = %head.name, "it is not started: its configuration is missing");
            }
            known && head.desired != Desired::Deleted
        });
        for head in &mut heads {
            head.rollout = None;
            head.pending.clear();
            head.parked = None;
            if let Some(app) = self.apps.get_mut(&head.name) {
                app.revisions.retain(|revision, _| *revision == head.revision);
                let names = app.revisions.values().map(|record| record.config.listen.clone()).next();
                if let Err(error) = app.addresses.add(&names.unwrap_or_default(), 1) {
                    tracing::error!(app = %head.name, error = in_full(&error), "it cannot listen; it is left stopped");
                    self.notes.push(format!("{} cannot listen: {}", head.name, in_full(&error)));
                    head.desired = Desired::Stopped;
                }
            }
        }
        self.fleet = Fleet::restore(counters, heads, Vec::new());
        let tick = self.tick();
        let outcome = self.fleet.resume(tick);
        self.carry_out(outcome);
        Ok(())
    }

    /// Ends processes that carry this instance's mark in their environment.
    fn end_orphans(&mut self) {
        let table = match ProcessTable::read() {
            Ok(table) => table,
            Err(error) => {
                tracing::warn!(%error, "processes of an earlier daemon could not be looked for");
                return;
            }
        };
        for process in &table.processes {
            let Some(identity) = Identity::of(process.pid).filter(|found| found.instance == self.instance) else {
                continue;
            };
            tracing::warn!(pid = %process.pid, launch = %identity.launch, "ending what an earlier daemon left running");
            let cgroup = self.cgroups.as_ref().and_then(|all| all.of_process(process.pid, identity.launch));
            let tree = Tree::recorded(identity, process.pid, process.started, cgroup);
            if let Err(error) = tree.kill() {
                tracing::warn!(pid = %process.pid, error = in_full(&error), "it could not be ended");
            }
        }
    }
}
