//! Sharing new connections out, and again where it failed.
//!
//! ```text
//!                 the kernel, or a lane that is missing, refuses
//!   done ────────────────────────────────────────────────────────► owed ◄─┐
//!    ▲                                                              │  │  │ refused again
//!    └────── all addresses took it, or another sharing was decided ─┘  └──┘ each second, and when a lane was made
//! ```
//!
//! What can go wrong: a lane cannot be made (no descriptor is left, another program listens at the address as well). It has no
//! worker then, and whoever serves gets its share of what comes all the same. While a sharing is owed, connections go by
//! the one before: to whoever served then.

use std::collections::BTreeMap;
use std::time::Duration;

use agentd_core::id::AppName;
use agentd_core::time::Moment;

use super::Dispatcher;
use crate::causes::in_full;
use crate::fault;
use crate::process::sys;

/// How long until what was refused is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// What was decided and could not be done.
#[derive(Debug, Default)]
pub(super) struct Owed(BTreeMap<AppName, Debt>);

#[derive(Clone, Debug)]
struct Debt {
    weights: Vec<u32>,
    again_at: Moment,
}

impl Owed {
    pub(super) fn wake(&self) -> Option<Moment> {
        self.0.values().map(|debt| debt.again_at).min()
    }

    /// Lanes of an app were made that it may have been owed for.
    pub(super) fn lanes_made(&mut self, app: &AppName, now: Moment) {
        if let Some(debt) = self.0.get_mut(app) {
            debt.again_at = now;
        }
    }

    /// The app is gone, or its connections are somebody else's.
    pub(super) fn forget(&mut self, app: &AppName) {
        self.0.remove(app);
    }

    /// How an attempt went; whether that is news.
    fn tried(&mut self, app: &AppName, weights: Vec<u32>, done: bool, now: Moment) -> bool {
        let was_owed = self.0.remove(app).is_some();
        if !done {
            self.0.insert(app.clone(), Debt { weights, again_at: now + AGAIN_AFTER });
        }
        was_owed == done
    }

    fn due(&self, now: Moment) -> Vec<(AppName, Vec<u32>)> {
        let due = self.0.iter().filter(|(_, debt)| debt.again_at <= now);
        due.map(|(app, debt)| (app.clone(), debt.weights.clone())).collect()
    }
}

impl Dispatcher {
    /// Shares new connections of an app out by these weights of its lanes.
    pub(super) fn share_out(&mut self, name: &AppName, weights: Vec<u32>) {
        let Shared { missing, refused } = self.set_weights(name, &weights);
        let news = self.owed.tried(name, weights, refused.is_none(), sys::boottime());
        if let Some(error) = missing
            && (news || refused.is_none())
        {
            // Without a share nobody misses it: the start of its worker tries again, and fails with the reason.
            tracing::warn!(app = %name, error, "a lane could not be made");
        }
        match refused {
            Some(error) if news => {
                tracing::error!(app = %name, error, "new connections go where they went; sharing them out is tried again");
            }
            None if news => tracing::info!(app = %name, "new connections are shared out as they should be again"),
            Some(_) | None => {}
        }
    }

    /// Tries again what is owed, when it is time.
    pub(super) fn share_out_owed(&mut self) {
        for (name, weights) in self.owed.due(sys::boottime()) {
            self.share_out(&name, weights);
        }
    }

    /// Each address gets the weights of those lanes whose worker accepts from it: while a deployment changes addresses, not
    /// all do.
    fn set_weights(&mut self, name: &AppName, weights: &[u32]) -> Shared {
        let mut went = Shared::default();
        let starts = self.starts_to_spare();
        let Some(app) = self.apps.get_mut(name) else { return went };
        let wanted = u32::try_from(weights.len()).unwrap_or(u32::MAX);
        let shared = weights.iter().rposition(|&weight| weight > 0).map_or(0, |last| last + 1);
        // A lane whose worker could not be started anyway is made when it can: it has no share.
        let lanes = if wanted.saturating_sub(app.addresses.lanes()) > starts {
            wanted.min(app.addresses.lanes().max(u32::try_from(shared).unwrap_or(u32::MAX)))
        } else {
            wanted
        };
        went.missing = app.addresses.ensure_lanes(lanes).err().map(|error| in_full(&error));
        self.keep_lanes(name);
        let (Some(state), Some(app)) = (self.fleet.app(name), self.apps.get_mut(name)) else { return went };
        for addr in app.addresses.all() {
            let accepts = |lane: usize| {
                let mut occupants = state
                    .workers
                    .values()
                    .filter(|worker| worker.lane.is_some_and(|at| at.0 as usize == lane))
                    .peekable();
                occupants.peek().is_none()
                    || occupants.any(|worker| {
                        let record = app.revisions.get(&worker.revision);
                        record.is_some_and(|record| record.config.listen.values().any(|own| *own == addr))
                    })
            };
            let masked: Vec<u32> =
                weights.iter().enumerate().map(|(lane, &weight)| if accepts(lane) { weight } else { 0 }).collect();
            // Nobody who has weight knows this address: what came to it before still gets there.
            if masked.iter().all(|&weight| weight == 0) {
                continue;
            }
            if let Err(error) = app.addresses.set_weights(&addr, &masked) {
                went.refused = Some(format!("{addr}: {}", in_full(&error)));
            }
            fault::point("weighed");
        }
        self.remember_order(name);
        went
    }
}

/// How sharing out went.
#[derive(Debug, Default)]
struct Shared {
    /// Why a lane is missing.
    missing: Option<String>,
    /// What an address did not take.
    refused: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(millis: u64) -> Moment {
        Moment::from_micros(millis * 1_000)
    }

    #[test]
    fn what_was_refused_is_owed_until_it_is_done_and_told_once() {
        let (web, search): (AppName, AppName) = ("web".parse().expect("a name"), "search".parse().expect("a name"));
        let mut owed = Owed::default();
        assert!(!owed.tried(&web, vec![100], true, at(0)), "it went well, as ever");
        assert_eq!(owed.wake(), None, "nothing wakes");
        assert!(owed.tried(&web, vec![0, 100], false, at(0)), "refused for the first time");
        assert_eq!(owed.wake(), Some(at(1_000)));
        assert!(!owed.tried(&web, vec![0, 100], false, at(1_000)), "refused again");
        assert_eq!(owed.wake(), Some(at(2_000)));
        owed.lanes_made(&search, at(1_100));
        assert!(!owed.tried(&search, vec![100], true, at(1_100)));
        assert_eq!(owed.wake(), Some(at(2_000)), "what becomes of another app is no reason, and takes none away");
        owed.lanes_made(&web, at(1_200));
        assert_eq!(owed.wake(), Some(at(1_200)), "what was missing may be there");
        assert_eq!(owed.due(at(1_200)), [(web.clone(), vec![0, 100])]);
        assert!(owed.tried(&search, vec![100], false, at(1_200)), "another is refused");
        assert!(owed.tried(&web, vec![100, 0], true, at(1_200)), "done, by what was decided since");
        assert_eq!((owed.wake(), owed.due(at(2_199))), (Some(at(2_200)), vec![]));
        owed.forget(&search);
        assert_eq!(owed.wake(), None, "nothing is owed to an app that is gone");
    }
}
