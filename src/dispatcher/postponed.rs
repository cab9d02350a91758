//! Upgrades that wait for their releases, as the next supervisor would find them.
//!
//! ```text
//!  asked for ─► written down ─► its release is cut ─► it is a deployment, or over ─► struck out
//!                    │
//!                    └─ the supervisor ends ─► the next one: begun already? ── no ─► cut anew, under the same number
//!                                                  │ yes: it goes on by itself      └─ refused, a reboot, the third
//!                                                  ▼                                   supervisor: told as failed
//!                                              struck out
//! ```
//!
//! Owns the list and nothing else; [`cutting`](super::cutting) cuts. A daemon that is told to end (`daemon stop`) aborts what
//! it cuts, so that nothing is left here.

use agentd_core::id::{AppName, Operation};
use agentd_protocol::control::{ErrorKind, ErrorObject, UpgradeParams};
use serde::{Deserialize, Serialize};

use super::Dispatcher;
use super::wish::Wish;
use crate::causes::in_full;
use crate::control::ReplySink;
use crate::process::sys;
use crate::store::{Change, Durability};

/// Under which name the store keeps them.
const KEY: &str = "cuts";
/// So many supervisors begin one: that each of them ended may be its doing.
const BEGUN_MOST: u32 = 3;

/// One of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Postponed {
    operation: Operation,
    params: UpgradeParams,
    /// How many supervisors have begun it.
    begun: u32,
}

impl Dispatcher {
    /// Writes an upgrade down before anything is done for it.
    pub(super) fn postpone(&mut self, operation: Operation, params: &UpgradeParams) {
        if self.releases.postponed.iter().any(|known| known.operation == operation) {
            return;
        }
        self.releases.postponed.push(Postponed { operation, params: params.clone(), begun: 1 });
        self.write_postponed();
    }

    /// It is a deployment by now, or over.
    pub(super) fn no_longer_postponed(&mut self, operation: Operation) {
        let before = self.releases.postponed.len();
        self.releases.postponed.retain(|known| known.operation != operation);
        if self.releases.postponed.len() < before {
            self.write_postponed();
        }
    }

    fn write_postponed(&mut self) {
        let changes = [Change::Counters(self.fleet.counters()), self.postponed_as_kept()];
        self.write_down(&changes, Durability::Power);
    }

    /// The list as it is stored.
    pub(super) fn postponed_as_kept(&self) -> Change {
        let value = serde_json::to_string(&self.releases.postponed).expect("numbers and texts become JSON");
        Change::Meta { key: KEY, value }
    }

    /// Goes on with what an earlier daemon was cutting releases for when it ended.
    pub(super) fn resume_postponed(&mut self, rebooted: bool) {
        let kept = match self.store.meta(KEY) {
            Ok(text) => text.map_or_else(|| Ok(Vec::new()), |text| serde_json::from_str::<Vec<Postponed>>(&text)),
            Err(error) => return tracing::error!(error = in_full(&error), "what was being cut could not be read"),
        };
        let kept = match kept {
            Ok(kept) => kept,
            Err(error) => return tracing::error!(%error, "what was being cut cannot be understood"),
        };
        if kept.is_empty() {
            return;
        }
        // Counted before anything is done for the first of them.
        self.releases.postponed = kept.iter().map(|one| Postponed { begun: one.begun + 1, ..one.clone() }).collect();
        self.write_postponed();
        for one in kept {
            let operation = one.operation;
            if !self.resume_one(one, rebooted) {
                self.no_longer_postponed(operation);
            }
        }
    }

    /// Whether it is being cut again.
    fn resume_one(&mut self, one: Postponed, rebooted: bool) -> bool {
        let Postponed { operation, params, begun } = one;
        let wish = Wish::Upgrade(UpgradeParams { wait: false, ..params.clone() });
        let Ok(app) = self.one(&params.name) else {
            tracing::info!(app = params.name, %operation, "what was to be upgraded is gone");
            return false;
        };
        if self.has_begun(&app, operation) {
            return false;
        }
        let needs = match begun {
            _ if rebooted => Err(not_resumed(&app, "the machine was started anew meanwhile")),
            BEGUN_MOST.. => Err(not_resumed(&app, &format!("{begun} supervisors ended over it"))),
            _ => self.needs_again(&app, &params),
        };
        match needs {
            Ok(needs) if needs.is_empty() => {
                let error = not_resumed(&app, "its configuration has no `source` any more");
                self.tell_not_cut(&app, operation, sys::boottime(), wish.kind(), &error);
                false
            }
            Ok(needs) => {
                tracing::info!(%app, %operation, "goes on with an upgrade whose release was being cut");
                self.cut_under(operation, needs, wish, ReplySink::nobody());
                true
            }
            Err(error) => {
                self.tell_not_cut(&app, operation, sys::boottime(), wish.kind(), &error);
                false
            }
        }
    }

    /// Whether an upgrade has become a deployment, which goes on, or is over, by itself.
    pub(super) fn has_begun(&self, app: &AppName, operation: Operation) -> bool {
        let head = self.fleet.app(app).map(|app| &app.head);
        let runs = head.and_then(|head| head.rollout.as_ref()).is_some_and(|rollout| rollout.id == operation);
        // One that has yet to rise takes it for a start.
        let starts = head.is_some_and(|head| head.pending.iter().any(|pending| pending.id == operation));
        runs || starts || self.show_deployment(operation.0).is_ok()
    }
}

fn not_resumed(app: &AppName, why: &str) -> ErrorObject {
    ErrorObject::new(ErrorKind::Refused, format!("no release of {app} was cut: {why}"))
        .with_help(format!("`agentctl upgrade {app}` cuts it anew"))
}
