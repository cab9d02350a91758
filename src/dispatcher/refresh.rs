//! Asking workers to renew what they know, as core says: by a request, a signal, or a word of the worker protocol.
//!
//! Owns the three ways and what their answers mean; core owns whom to ask, how long to wait, and what follows. A request
//! goes through the worker's own lane, as a probe does, so it reaches this worker and no other. A signal is not sent to a
//! program that would die of it. What comes too late is told to core all the same, which knows that it is late.

use agentd_core::admission::{Admitted, Request as CoreRequest};
use agentd_core::app::App;
use agentd_core::effect::OperationResult;
use agentd_core::event::WorkerEvent;
use agentd_core::id::{AppName, Launch, Operation};
use agentd_core::policy::Lanes;
use agentd_core::refresh::{RefreshAnswer, Renewal, RenewalOutcome, Stage};
use agentd_protocol::control::{ALL, OperationKind};
use agentd_protocol::events::EventKind;
use agentd_protocol::status::{RefreshOutcome, RefreshState, RefreshView};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

pub(super) use agentd_protocol::status::RefreshedWorker;

use super::Dispatcher;
use super::input::{Input, OpenProbe};
use super::prepare::Prepared;
use super::view::{milliseconds, wall};
use crate::causes::in_full;
use crate::config::{Ask, Refresh};
use crate::notify::Notice;
use crate::probe;
use crate::process::stat;
use crate::process::tree::Tree;
use crate::tasks::Command;

/// How far a worker is that was sent a signal.
///
/// ```text
/// Signalled ── RELOADING=1 ──► Busy ── READY=1 ──► renewed, forgotten
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reloading {
    /// It was sent the signal.
    Signalled(Operation),
    /// It said that it is at it.
    Busy(Operation),
}

/// A request to one worker.
struct Asking {
    launch: Launch,
    id: Operation,
    listener: String,
    check: probe::ReadyCheck,
    tree: Tree,
    until: Instant,
    inputs: mpsc::UnboundedSender<Input>,
}

impl Dispatcher {
    /// Of `all`, only the apps that can be asked: `all` is not every one by name.
    pub(super) fn that_can_refresh(&self, names: &[String], mut prepared: Vec<Prepared>) -> Vec<Prepared> {
        if names.iter().any(|name| name == ALL) {
            prepared.retain(|part| {
                let app = self.fleet.app(part.request.app());
                app.is_some_and(|app| app.policy_now().refresh.is_some() && app.ready() > 0)
            });
        }
        prepared
    }

    /// Files changed that an app knows things from.
    pub(super) fn refresh_by_itself(&mut self, name: &AppName) {
        let tick = self.tick();
        match self.fleet.request(tick, CoreRequest::Refresh { app: name.clone() }) {
            Ok((admitted, outcome)) => {
                tracing::info!(app = %name, "refreshed without anybody's asking");
                if let Admitted::Begun(operation) = admitted {
                    let kind = OperationKind::Refresh;
                    self.record(Some(name), None, EventKind::OperationStarted { id: operation.0, kind });
                }
                self.carry_out(outcome);
            }
            Err(denied) => tracing::info!(app = %name, %denied, "not refreshed"),
        }
    }

    /// Asks one worker.
    pub(super) fn ask_to_refresh(&mut self, launch: Launch, id: Operation) {
        let Some(process) = self.processes.get(&launch) else { return };
        let app = self.fleet.app(&process.worker.app);
        let record = app.and_then(|app| self.apps.get(&process.worker.app)?.revisions.get(&app.head.revision));
        let Some(refresh) = record.and_then(|record| record.config.refresh.clone()) else { return };
        match refresh.ask {
            Ask::Http { method, path, on } => {
                if app.is_some_and(|app| app.policy_now().lanes == Lanes::PerGeneration && app.workers.len() > 1) {
                    let why =
                        "shares its queue with others, so no request reaches it alone: take `signal` or `protocol`";
                    return self.refreshed(launch, id, Err(why.to_owned()));
                }
                let host = "localhost".to_owned();
                let check = probe::ReadyCheck::Http(probe::HttpCheck { method, path, host, expect: 200..=299 });
                let until = Instant::now() + refresh.timeout;
                let (tree, inputs) = (process.tree.clone(), self.inputs.clone());
                tokio::spawn(Asking { launch, id, listener: on, check, tree, until, inputs }.run());
            }
            Ask::Signal { signal, notify } => {
                let (pid, name) = (process.main.pid, signal.signal());
                if stat::expects(pid, name) == Some(false) {
                    let why = format!("does not handle {name}, which would end it or do nothing; it was not sent");
                    return self.refreshed(launch, id, Err(why));
                }
                let sent = process.tree.signal_leader(name);
                if let Some(process) = self.processes.get_mut(&launch) {
                    process.reloading = notify.then_some(Reloading::Signalled(id));
                }
                match sent {
                    Ok(true) if notify => {}
                    Ok(true) => self.refreshed(launch, id, Ok(RefreshAnswer::Told)),
                    Ok(false) => self.refreshed(launch, id, Err("has ended".to_owned())),
                    Err(error) => {
                        self.refreshed(launch, id, Err(format!("was not told: failed to {}", in_full(&error))));
                    }
                }
            }
            Ask::Protocol { .. } if self.tasks.is_none() => {
                let why = "cannot be told: there is no ledger of tasks, `agentctl daemon status` says why";
                self.refreshed(launch, id, Err(why.to_owned()));
            }
            Ask::Protocol { scope } => self.tell_tasks(Command::Refresh { launch, id, scope }),
        }
    }

    fn refreshed(&mut self, launch: Launch, id: Operation, result: Result<RefreshAnswer, String>) {
        self.fact(launch, WorkerEvent::Refreshed { id, result });
    }

    /// A worker that was sent a signal says that it begins, or that it is done.
    pub(super) fn heed_refresh(&mut self, launch: Launch, notice: &Notice) {
        let Some(process) = self.processes.get_mut(&launch) else { return };
        let Some(reloading) = process.reloading else { return };
        match (notice, reloading) {
            (Notice::Reloading { .. }, Reloading::Signalled(id)) => process.reloading = Some(Reloading::Busy(id)),
            (Notice::Ready, Reloading::Busy(id)) => {
                process.reloading = None;
                self.refreshed(launch, id, Ok(RefreshAnswer::Renewed));
            }
            (_, Reloading::Signalled(_) | Reloading::Busy(_)) => {}
        }
    }

    /// What came of each worker that the refresh `id` was about; nothing of any other operation.
    pub(super) fn renewals_of(&self, app: &AppName, id: Operation) -> Vec<RefreshedWorker> {
        let last = self.fleet.app(app).and_then(|app| app.head.refreshes.last.as_ref()).filter(|last| last.id == id);
        last.into_iter().flat_map(|last| &last.renewals).map(renewed).collect()
    }
}

impl Asking {
    async fn run(self) {
        let result = self.ask().await.map(|()| RefreshAnswer::Renewed);
        // The loop is gone only at the very end.
        let _ = self.inputs.send(Input::Worker(self.launch, WorkerEvent::Refreshed { id: self.id, result }));
    }

    async fn ask(&self) -> Result<(), String> {
        let (reply, answer) = oneshot::channel();
        let request = OpenProbe { launch: self.launch, listener: self.listener.clone(), reply };
        self.inputs.send(Input::OpenProbe(request)).map_err(|_| "the daemon is ending".to_owned())?;
        let (connection, _end) = answer.await.map_err(|_| "the daemon is ending".to_owned())??;
        let asked = probe::steered(connection, &self.check, || self.tree.pids(), self.until).await;
        asked.map(drop).map_err(|error| in_full(&error))
    }
}

/// How a refresh is, or the last one was; none of an app that never had one.
pub(super) fn view(app: &App) -> Option<RefreshView> {
    let refreshes = &app.head.refreshes;
    let mut took: Vec<u64> = refreshes.took_ms.iter().copied().collect();
    took.sort_unstable();
    let figures = |view: RefreshView| RefreshView {
        n: took.len() as u64,
        p50_ms: took.get(took.len().saturating_sub(1) / 2).copied(),
        max_ms: took.last().copied(),
        ..view
    };
    if let Some(running) = &refreshes.running {
        let asking = match &running.stage {
            Stage::Looking => None,
            Stage::Asked { worker, .. } => Some(worker.to_string()),
        };
        return Some(figures(RefreshView {
            id: running.id.0,
            state: RefreshState::Running,
            asking,
            why: None,
            finished_at: None,
            workers: running.renewals.iter().map(renewed).collect(),
            n: 0,
            p50_ms: None,
            max_ms: None,
        }));
    }
    let last = refreshes.last.as_ref()?;
    Some(figures(RefreshView {
        id: last.id.0,
        state: match last.result {
            OperationResult::Done => RefreshState::Done,
            OperationResult::Failed | OperationResult::RolledBack => RefreshState::Failed,
            OperationResult::Aborted => RefreshState::Aborted,
        },
        asking: None,
        why: last.why.clone(),
        finished_at: last.finished_at.map(wall),
        workers: last.renewals.iter().map(renewed).collect(),
        n: 0,
        p50_ms: None,
        max_ms: None,
    }))
}

/// What came of one worker, as others are told.
pub(super) fn renewed(renewal: &Renewal) -> RefreshedWorker {
    let (outcome, why) = match &renewal.outcome {
        RenewalOutcome::Renewed => (RefreshOutcome::Renewed, None),
        RenewalOutcome::Told => (RefreshOutcome::Told, None),
        RenewalOutcome::Gone => (RefreshOutcome::Gone, None),
        RenewalOutcome::Failed { why } => (RefreshOutcome::Failed, Some(why.clone())),
        RenewalOutcome::Spared => (RefreshOutcome::Spared, None),
    };
    RefreshedWorker { worker: renewal.worker.to_string(), outcome, why, took_ms: milliseconds(renewal.took) }
}

/// How an app is refreshed, in the configuration's words.
pub(super) fn words(refresh: &Refresh) -> String {
    let watched = refresh.watch.as_ref().map(|watch| format!(", when {} change", watch.patterns.join(", ")));
    format!("{}, each within {:?}{}", refresh.ask, refresh.timeout, watched.unwrap_or_default())
}
