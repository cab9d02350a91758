//! Between the loop and the ledger of tasks: which processes there are and how they stand, told there; what the fleet
//! must know of their tasks, heard here. Decides nothing.

use std::sync::Arc;

use agentd_core::effect::StopReason;
use agentd_core::event::{Exit, Proof, WorkerEvent};
use agentd_core::id::{Launch, Pid, WorkerId};
use agentd_core::refresh::RefreshAnswer;
use agentd_core::rollout::Direction;
use agentd_core::task::{Ending, Fact, Gone, Kind, Successor, TaskId, Told};
use agentd_core::worker::{State, Worker};
use agentd_protocol::control::{ALL, ErrorKind, ErrorObject, Request};
use nix::unistd::Uid;

use super::Dispatcher;
use crate::causes::in_full;
use crate::config::ReadyCheck;
use crate::control::ReplySink;
use crate::notify::TaskOutcome;
use crate::process::account::uid_of;
use crate::process::sys;
use crate::revision::RevisionRecord;
use crate::tasks::{AskedBy, Asker, Born, Command, Drain, Gauge, LedgerOpened, Question, Report};

impl Dispatcher {
    pub(super) fn tell_tasks(&self, command: Command) {
        if let Some(tasks) = &self.tasks {
            tasks.tell(command);
        }
    }

    /// Waits until the ledger is open, which had as long for it as everything else took until now. Without it the fleet
    /// runs all the same, by connections alone.
    pub(super) fn await_ledger(&mut self) {
        let Some(begun) = self.ledger.take() else { return };
        if let Err(error) = begun.and_then(LedgerOpened::outcome) {
            let why = in_full(&error);
            tracing::error!(why, "workers cannot tell of their tasks");
            self.notes.push(format!("workers cannot tell of their tasks: failed to {why}"));
            self.tasks = None;
        }
    }

    /// A process is about to be, or was found; before any of its words can come.
    pub(super) fn tell_born(&self, launch: Launch, worker: &WorkerId, record: &RevisionRecord) -> Arc<Gauge> {
        let gauge = Arc::new(Gauge::default());
        self.tell_tasks(Command::Born(Box::new(Born {
            launch,
            worker: worker.clone(),
            release: record.label(worker.generation.0),
            state_version: record.state_version(),
            // One that cannot be looked up any more speaks as nobody that is let in; its start said so.
            uid: record.config.account.user.as_deref().map(|user| uid_of(user).map_or(u32::MAX, Uid::as_raw)),
            gauge: Arc::clone(&gauge),
            governed: record.config.governed(),
        })));
        gauge
    }

    /// How an adopted process stands. A drain is told when core asks for its watch.
    pub(super) fn tell_standing(&self, launch: Launch, worker: &Worker) {
        match worker.state {
            State::Ready { .. } | State::Draining { .. } => self.tell_ready(launch),
            State::Starting { .. }
            | State::Stopping { .. }
            | State::Killed { .. }
            | State::Backoff { .. }
            | State::Exited
            | State::Failed { .. } => {}
        }
    }

    pub(super) fn tell_all_told(&self) {
        self.tell_tasks(Command::AllTold);
    }

    pub(super) fn tell_ready(&self, launch: Launch) {
        self.tell_tasks(Command::Ready(launch));
    }

    /// A drain begins: the ledger decides how long its tasks have.
    pub(super) fn tell_drain(&self, launch: Launch) {
        let Some(worker) = self.fleet.worker(launch) else { return };
        let State::Draining { reason, deadline, .. } = &worker.state else { return };
        let Some(app) = self.fleet.app(&worker.id.app) else { return };
        let successor = app.head.rollout.as_ref().map(|rollout| self.label_of(&worker.id.app, rollout.target().0));
        let longest = sys::boottime() + app.policy_of(worker).grace.max;
        let next = app.head.rollout.as_ref().filter(|rollout| rollout.target() != worker.id.generation);
        let next = next.map(|rollout| Successor {
            generation: rollout.target(),
            state_version: self
                .apps
                .get(&worker.id.app)
                .and_then(|shell| shell.revisions.get(&rollout.target_side().revision)?.state_version()),
            waits: rollout.direction == Direction::Forward,
        });
        self.tell_tasks(Command::Drain(Box::new(Drain {
            launch,
            reason: match reason {
                StopReason::Replaced => "reload",
                StopReason::RolledBack => "rollback",
                StopReason::ScaleDown => "scale down",
                StopReason::Stop
                | StopReason::NotReady
                | StopReason::Unhealthy
                | StopReason::Watchdog
                | StopReason::Own => "stop",
            },
            to_release: successor,
            successor: next,
            latest: longest.max(*deadline),
        })));
    }

    /// A process has ended. True when the ledger will say that it saw to its tasks.
    pub(super) fn tell_gone(&mut self, launch: Launch, gone: Gone, exit: Exit) -> bool {
        let heard = self.tasks.as_ref().is_some_and(|tasks| tasks.tell(Command::Gone(launch, gone, exit)));
        if heard {
            self.seen_to.insert(launch);
        }
        heard
    }

    /// Whether a process that ended was asked to.
    pub(super) fn how_it_went(&self, launch: Launch, exit: Exit) -> Gone {
        let Some(worker) = self.fleet.worker(launch) else { return Gone::Crashed };
        let asked = match &worker.state {
            State::Stopping { reason, .. } | State::Killed { reason, .. } => Some(*reason),
            // It had yielded what it had, and went by itself.
            State::Draining { reason, .. } if exit.is_success() => Some(*reason),
            State::Draining { .. }
            | State::Starting { .. }
            | State::Ready { .. }
            | State::Backoff { .. }
            | State::Exited
            | State::Failed { .. } => None,
        };
        match asked {
            Some(StopReason::Stop | StopReason::ScaleDown | StopReason::Replaced | StopReason::RolledBack) => {
                Gone::Asked
            }
            Some(StopReason::NotReady | StopReason::Unhealthy | StopReason::Watchdog | StopReason::Own) | None => {
                Gone::Crashed
            }
        }
    }

    /// The ledger tells something.
    pub(super) fn heard_of_tasks(&mut self, report: Report) {
        match report {
            Report::Fact(Fact::Ready { launch }) => {
                let awaited = self.processes.get(&launch).is_some_and(|process| {
                    matches!(process.record.config.ready.check, ReadyCheck::Notify | ReadyCheck::Protocol)
                });
                if awaited {
                    self.fact(launch, WorkerEvent::ReadyProven { proof: Proof::Notified });
                }
            }
            Report::Fact(Fact::InHand { launch, tasks, asker: _, stay }) => {
                self.note_staying(launch, stay);
                self.fact(launch, WorkerEvent::TasksInHand { tasks });
                self.drain_has_tasks(launch, tasks);
            }
            Report::Fact(Fact::Looked { app, deployment }) => self.look_is_kept(&app, deployment),
            Report::Fact(Fact::Deadline { launch, at }) => self.fact(launch, WorkerEvent::TasksDeadline { at }),
            Report::Fact(Fact::TimeOver { launch, tasks }) => self.fact(launch, WorkerEvent::TasksTaken { tasks }),
            Report::Fact(Fact::Settled { launch, tally }) => self.fact(launch, WorkerEvent::TasksSettled(tally)),
            Report::Refreshed { launch, id, result } => {
                let result = result.map(|()| RefreshAnswer::Renewed);
                self.fact(launch, WorkerEvent::Refreshed { id, result });
            }
            Report::Judged(judged) => self.judged(*judged),
            Report::Measured(measured) => self.measured(*measured),
            Report::Gone(launch) => {
                self.seen_to.remove(&launch);
                self.tell_exit(launch);
            }
            Report::Trouble(why) => {
                let note = format!("{TROUBLE}{why}");
                self.notes.retain(|note| !note.starts_with(TROUBLE));
                self.notes.push(note);
            }
            Report::Mended => self.notes.retain(|note| !note.starts_with(TROUBLE)),
        }
    }

    /// So many tasks of a draining worker are left to it until they end.
    fn note_staying(&mut self, launch: Launch, stay: u32) {
        let Some(process) = self.processes.get_mut(&launch).filter(|process| process.stay != stay) else { return };
        process.stay = stay;
        let (app, worker) = (process.worker.app.clone(), process.worker.to_string());
        if stay > 0 {
            tracing::info!(worker, tasks = stay, "they stay until they end: what takes its place does not read them");
        }
        self.mark_stale(&app);
    }

    /// A worker told by datagram that it took up a task. False when there is no ledger to hear of it.
    pub(super) fn ledger_hears_begin(&mut self, launch: Launch, id: &str, kind: Option<&str>) -> bool {
        if self.tasks.is_none() {
            return false;
        }
        if let Some(process) = self.processes.get_mut(&launch)
            && process.told.len() < TOLD_MAX
        {
            process.told.entry(id.to_owned()).or_insert_with(sys::boottime);
        }
        // A kind that is none is still a task.
        let kind = kind.and_then(|kind| Kind::new(kind).ok());
        self.tell_tasks(Command::Told(launch, TaskId::told(launch, id), Told::Began { kind }));
        true
    }

    /// And that it ended.
    pub(super) fn ledger_hears_end(&mut self, launch: Launch, id: &str, outcome: TaskOutcome) -> bool {
        if let Some(process) = self.processes.get_mut(&launch) {
            process.told.remove(id);
        }
        let ending = match outcome {
            TaskOutcome::Ok => Ending::Ok,
            TaskOutcome::Error => Ending::Error,
            TaskOutcome::Cancelled => Ending::Cancelled,
        };
        self.tell_tasks(Command::Told(launch, TaskId::told(launch, id), Told::Ended(ending)));
        self.tasks.is_some()
    }

    /// And that it is at a safe point.
    pub(super) fn tell_safe(&self, launch: Launch, id: &str) {
        self.tell_tasks(Command::Told(launch, TaskId::told(launch, id), Told::Safe));
    }

    /// Somebody asks of tasks: the ledger answers, when its round is committed.
    pub(super) fn ask_tasks(&self, question: Question, reply: ReplySink) {
        let unknown = question
            .names()
            .iter()
            .find(|name| name.as_str() != ALL && !self.fleet.apps().any(|app| app.head.name.as_str() == name.as_str()));
        if let Some(name) = unknown {
            let error = ErrorObject::new(ErrorKind::NoSuchApp, format!("no app is called {name:?}"));
            return reply.finish(Err(error.with_help("`agentctl ls` lists the apps")));
        }
        match &self.tasks {
            Some(tasks) => {
                tasks.tell(Command::Ask(Box::new(question), Asker::new(move |answer| reply.finish(answer))));
            }
            None => {
                let why = "there is no ledger of tasks: `agentctl daemon status` says why";
                reply.finish(Err(ErrorObject::new(ErrorKind::Internal, why)));
            }
        }
    }

    /// Who asks for an operation.
    pub(super) fn who_asks(&self, request: &Request, pid: Option<u32>) -> AskedBy {
        if !request.operates() {
            return AskedBy::Others;
        }
        let named = if let Request::Reload(params) = request { params.task.as_deref() } else { None };
        if let Some(task) = named.and_then(|task| TaskId::new(task).ok()) {
            return AskedBy::Task(task);
        }
        let Some(pid) = pid.map(Pid) else { return AskedBy::Others };
        let asks = self.processes.iter().find(|(_, process)| process.tree.contains(pid));
        asks.map_or(AskedBy::Others, |(&launch, _)| AskedBy::Worker(launch))
    }

    /// The present process start of a worker.
    pub(super) fn launch_of(&self, worker: &WorkerId) -> Option<Launch> {
        self.fleet.app(&worker.app)?.workers.get(&worker.slot)?.launch()
    }
}

/// Tasks of one worker, told of by datagram, whose beginning is remembered for their events.
const TOLD_MAX: usize = 10_000;

/// How a note begins that tells of tasks that cannot be written.
const TROUBLE: &str = "tasks are not being saved: ";
