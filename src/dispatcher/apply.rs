//! Doing what core asks for. What comes of it returns as an event.

use std::sync::Arc;

use agentd_core::effect::Effect;
use agentd_core::id::{Launch, Revision};
use nix::sys::signal::Signal;

use super::{Dispatcher, SPAWNS_AT_ONCE};
use crate::causes::in_full;
use crate::process::tree::Tree;
use crate::tasks::Command;

impl Dispatcher {
    /// Does what is to be done, in order, up to [`SPAWNS_AT_ONCE`] starts.
    pub(super) fn apply_todo(&mut self) {
        let mut spawns = 0;
        while let Some(effect) = self.todo.pop_front() {
            if matches!(effect, Effect::Spawn { .. }) {
                spawns += 1;
            }
            self.apply(effect);
            if spawns == SPAWNS_AT_ONCE {
                return;
            }
        }
    }

    fn apply(&mut self, effect: Effect) {
        match effect {
            Effect::Spawn { launch, worker, revision, lane } => self.spawn(launch, &worker, revision, lane),
            Effect::ProveReady { launch } => self.prove_ready(launch),
            Effect::ProbeLive { launch } => self.probe_live(launch),
            Effect::WatchDrain { launch } => {
                self.watch_drain(launch);
                self.tell_drain(launch);
            }
            Effect::UnwatchDrain { launch } => {
                self.unwatch_drain(launch);
                self.tell_ready(launch);
            }
            Effect::SendStop { launch } => self.send_stop(launch),
            Effect::SendAbort { launch } => {
                if let Some(process) = self.processes.get(&launch) {
                    match process.tree.signal_leader(Signal::SIGABRT) {
                        Ok(true) => {}
                        Ok(false) => tracing::debug!(worker = %process.worker, "it had ended before it was aborted"),
                        Err(error) => {
                            let (worker, why) = (&process.worker, in_full(&error));
                            tracing::warn!(%worker, error = why, "it could not be aborted: it is killed without a dump");
                        }
                    }
                }
            }
            Effect::Kill { launch } => self.with_tree(launch, |tree| {
                if let Err(error) = tree.kill() {
                    tracing::warn!(leader = %tree.leader(), error = in_full(&error), "not all of a worker was killed");
                }
            }),
            Effect::Govern { launch, revision } => self.govern(launch, revision),
            Effect::SetWeights { app, weights } => self.share_out(&app, weights),
            Effect::Prepare { app, id } => self.ask_hooks(&app, id, super::before::Awaited::Deployment),
            Effect::Check { app, id } => self.check(&app, id),
            Effect::Verify { app, id, step } => self.verify(&app, id, step),
            Effect::Judge { app, id } => self.judge(&app, id),
            Effect::Refresh { launch, id } => self.ask_to_refresh(launch, id),
            Effect::Forget { app } => self.forget(&app),
        }
    }

    /// Another configuration stands for a process from now on.
    fn govern(&mut self, launch: Launch, revision: Revision) {
        let Some(process) = self.processes.get_mut(&launch) else { return };
        let record = self.apps.get(&process.worker.app).and_then(|app| app.revisions.get(&revision));
        match record {
            Some(record) => {
                process.record = Arc::clone(record);
                let app = process.worker.app.clone();
                let governed = Box::new(record.config.governed());
                self.tell_tasks(Command::Govern(app, governed));
                self.govern_logs(launch);
            }
            None => tracing::error!(%launch, %revision, "the configuration that is to govern it is not known"),
        }
    }

    pub(super) fn with_tree(&self, launch: Launch, act: impl FnOnce(&Tree)) {
        if let Some(process) = self.processes.get(&launch) {
            act(&process.tree);
        }
    }
}
