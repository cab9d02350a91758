//! Changes of an app as a whole that core does not tell as news: its state, and how many workers are wanted.
//!
//! Compared after every step with what was told last; the first look at an app tells nothing.

use std::collections::BTreeSet;

use agentd_core::app::Desired;
use agentd_core::effect::Outcome;
use agentd_core::id::AppName;
use agentd_protocol::events::EventKind;
use agentd_protocol::status::AppState;

use super::Dispatcher;
use super::view::app_state;

/// What was told of an app last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Told {
    state: AppState,
    desired: u32,
}

/// The apps that a step may have changed.
pub(super) fn touched(outcome: &Outcome) -> BTreeSet<AppName> {
    let dirty = outcome.persist.apps.iter().chain(outcome.persist.workers.iter().map(|(app, _)| app));
    dirty.chain(outcome.publish.iter().map(|notice| &notice.app)).cloned().collect()
}

impl Dispatcher {
    /// Tells what changed of an app as a whole.
    pub(super) fn tell_changes(&mut self, name: &AppName) {
        let Some(app) = self.fleet.app(name) else { return };
        let desired = if app.head.desired == Desired::Running { app.head.count } else { 0 };
        let now = Told { state: app_state(app.state()), desired };
        let Some(shell) = self.apps.get_mut(name) else { return };
        let Some(before) = shell.changes.replace(now) else { return };
        if before.desired != now.desired {
            let event = EventKind::AppScaled { from: before.desired, to: now.desired };
            self.record(Some(name), None, event);
        }
        if before.state != now.state {
            let why = self.fleet.app(name).and_then(|app| self.why(app));
            self.record(Some(name), None, EventKind::AppState { from: before.state, to: now.state, why });
        }
    }
}
