//! Leases: how long an owner may keep silent, and when somebody looks.
//!
//! A worker has one entry among what is due, at the earliest moment at which a lease of its tasks may be over; leases
//! only grow, so it is never late. When it comes up, all its tasks are looked at.

use std::time::Duration;

use crate::id::{AppName, Launch};
use crate::time::{Moment, Tick};

use super::input::LEASE;
use super::ledger::{Due, Ledger};
use super::name::TaskId;
use super::outcome::Outcome;
use super::state::State;

/// A lease found this long after it was over says nothing: the machine slept, or the supervisor did not run, and what
/// its owner said meanwhile is not read yet. A whole lease, where that is less.
const NOT_WATCHING: Duration = Duration::from_secs(3);

impl Ledger {
    pub(super) fn look_at_leases(&mut self, tick: Tick, launch: Launch, at: Moment, out: &mut Outcome) {
        let Self { workers, apps, .. } = self;
        let Some(worker) = workers.get_mut(&launch).filter(|worker| worker.leases_at == Some(at)) else {
            // The worker is gone.
            return;
        };
        worker.leases_at = None;
        let ids: Vec<TaskId> = worker.running.iter().cloned().collect();
        let mut first: Option<Moment> = None;
        let lease = apps.get(&worker.app).map_or(LEASE, |app| app.policy.lease);
        let watched = tick.now.since(at) < NOT_WATCHING.min(lease);
        for (index, id) in ids.iter().enumerate() {
            let Some(State::Running(run)) = self.tasks.get_mut(id).map(|task| &mut task.state) else { continue };
            if !watched {
                run.lease_until = run.lease_until.max(tick.now + lease);
            }
            let until = run.lease_until;
            if until <= tick.now {
                let entropy = tick.entropy.rotate_left(u32::try_from(index % 64).unwrap_or(0));
                self.silent(Tick { entropy, ..tick }, id, out);
            } else {
                first = Some(first.map_or(until, |first| first.min(until)));
            }
        }
        if let Some(first) = first {
            self.watch_leases(launch, first);
        }
    }

    /// Looks at a worker's leases at `at`, unless it does so earlier.
    pub(super) fn watch_leases(&mut self, launch: Launch, at: Moment) {
        if let Some(worker) = self.workers.get_mut(&launch)
            && worker.leases_at.is_none()
        {
            worker.leases_at = Some(at);
            self.due.insert((at, Due::Leases(launch)));
        }
    }

    /// Whether a worker's leases are looked at again.
    pub(super) fn watches(&self, launch: Launch) -> bool {
        let at = self.workers.get(&launch).and_then(|worker| worker.leases_at);
        at.is_some_and(|at| self.due.contains(&(at, Due::Leases(launch))))
    }

    /// How long an owner may keep silent.
    pub(super) fn lease(&self, app: &AppName) -> Duration {
        self.apps.get(app).map_or(LEASE, |app| app.policy.lease)
    }
}
