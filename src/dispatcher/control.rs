//! Requests of the control socket: looked up, checked, admitted, answered.
//!
//! A request about several apps is all or nothing up to its admission: every configuration is read, every address is
//! taken and every app asked for before the first of them begins. What went wrong is then told in full, and nothing
//! has changed.

use std::collections::BTreeSet;
use std::sync::Arc;

use agentd_core::admission::{Admitted, Denied, Request as CoreRequest};
use agentd_core::app::Steer;
use agentd_core::effect::{OperationKind as CoreKind, Outcome};
use agentd_core::id::{AppName, Operation, Revision};
use agentd_protocol::control::{
    Accepted, AppDifference, Changed, ErrorKind, ErrorObject, Notice, OperationView, Reply, Request, ScaleParams,
    SignalParams, Signalled, SignalledWorker, SupervisorEnd,
};
use agentd_protocol::events::EventKind;
use camino::Utf8PathBuf;
use jiff::Timestamp;

use super::prepare::Prepared;
use super::tell::{Waiter, answer, operation_kind};
use super::wish::Wish;
use super::{Departure, Dispatcher, End};
use crate::causes::in_full;
use crate::config::{self, StopSignal};
use crate::control::{ControlCall, ReplySink};
use crate::process::sys;
use crate::revision::Origin;
use crate::sockets::{BindError, ListenAddr};
use crate::store::{Change, Durability};
use crate::tasks::{AskedBy, Command, Question};

/// An answer, or why there is none.
pub(super) type Answer<T> = Result<T, ErrorObject>;

impl Dispatcher {
    pub(super) fn control(&mut self, call: ControlCall) {
        let ControlCall { request, peer, reply } = call;
        tracing::debug!(method = request.method(), uid = peer.uid, pid = peer.pid, "asked");
        if !matches!(self.end, End::Open) && request.operates() {
            let why = match self.end {
                End::Upgrade(_) => "the daemon is being upgraded; ask again in a moment",
                End::Open | End::WhenEmpty { .. } | End::Now(_) => "the daemon is ending",
            };
            reply.finish(Err(ErrorObject::new(ErrorKind::ShuttingDown, why)));
            return;
        }
        self.asking = self.who_asks(&request, peer.pid);
        match request {
            // The server answers it; a version without it is still polite.
            Request::Hello(_) => reply.finish(Err(ErrorObject::new(ErrorKind::Internal, "hello was not answered"))),
            Request::Start(params) => self.control_with_releases(Wish::Start(params), reply),
            Request::Upgrade(params) => self.control_with_releases(Wish::Upgrade(params), reply),
            Request::Apply(params) => self.control_with_releases(Wish::Apply(params), reply),
            Request::Stop(params) => {
                let prepared = self.plain(&params.names, |app| CoreRequest::Stop { app });
                self.begin(prepared, params.wait, reply, None);
            }
            Request::Delete(params) => {
                let prepared = self.plain(&params.names, |app| CoreRequest::Delete { app });
                self.begin(prepared, params.wait, reply, None);
            }
            Request::Restart(params) => {
                let prepared = self.named(&params.names).and_then(|apps| self.prepare_anew(&apps, CoreKind::Restart));
                self.begin(prepared, params.wait, reply, None);
            }
            Request::Reload(params) => {
                let prepared =
                    self.to_reload(&params.names).and_then(|apps| self.prepare_anew(&apps, CoreKind::Reload));
                let prepared = prepared.map(|all| if params.changed { self.only_changed(all) } else { all });
                self.begin(prepared, params.wait, reply, None);
            }
            Request::Refresh(params) => {
                let prepared = self.plain(&params.names, |app| CoreRequest::Refresh { app });
                self.begin(prepared.map(|all| self.that_can_refresh(&params.names, all)), params.wait, reply, None);
            }
            Request::Rollback(params) => {
                let prepared = self.prepare_rollback(&params);
                self.begin(prepared, params.wait, reply, None);
            }
            Request::Releases(params) => reply.finish(self.list_releases(&params.name).map(Reply::Releases)),
            Request::Deployments(params) => reply.finish(self.list_deployments(params.name.as_deref())),
            Request::Deployment(params) => reply.finish(self.show_deployment(params.id)),
            Request::Promote(params) => reply.finish(self.steer(&params.name, Steer::Promote)),
            Request::Pause(params) => reply.finish(self.steer(&params.name, Steer::Pause)),
            Request::Resume(params) => reply.finish(self.steer(&params.name, Steer::Resume)),
            Request::Abort(params) => reply.finish(self.steer(&params.name, Steer::Abort)),
            Request::Scale(ScaleParams { name, workers, wait }) => {
                let prepared = self.plain(std::slice::from_ref(&name), |app| CoreRequest::Scale { app, workers });
                self.begin(prepared, wait, reply, None);
            }
            Request::Signal(params) => reply.finish(self.signal(&params).map(Reply::Signalled)),
            Request::Status(params) => {
                let names = if params.names.is_empty() { Ok(None) } else { self.named(&params.names).map(Some) };
                let answer = names.map(|names| {
                    self.document(|app| names.as_ref().is_none_or(|names| names.contains(&app.head.name)))
                });
                reply.finish(answer.map(|document| Reply::Status(Box::new(document))));
            }
            Request::Describe(params) => {
                let answer = self.describe(&params.name);
                reply.finish(answer.map(|details| Reply::Details(Box::new(details))));
            }
            Request::Logs(params) => self.logs(&params, reply),
            Request::Tasks(params) => self.ask_tasks(Question::Tasks(params), reply),
            Request::TaskChange(params) => self.ask_tasks(Question::Change(params), reply),
            Request::Effects(params) => self.ask_tasks(Question::Effects(params), reply),
            Request::Sessions(params) => self.ask_tasks(Question::Sessions(params), reply),
            Request::Grace(params) => self.ask_tasks(Question::Grace(params), reply),
            Request::TasksUsage(_) => self.ask_tasks(Question::Usage, reply),
            Request::TasksPrune(params) => self.ask_tasks(Question::Prune(params), reply),
            Request::DaemonStatus(_) => reply.finish(Ok(Reply::Daemon(Box::new(self.daemon_view())))),
            Request::DaemonStop(_) => self.stop_daemon(reply),
            Request::DaemonUpgrade(params) => self.begin_succession(&params, reply),
        }
        self.asking = AskedBy::Others;
    }

    /// Begins what was prepared, or says why not.
    pub(super) fn begin(
        &mut self,
        prepared: Answer<Vec<Prepared>>,
        wait: bool,
        reply: ReplySink,
        plan: Option<Vec<AppDifference>>,
    ) {
        let prepared = prepared.map(|prepared| self.in_order(prepared));
        let prepared = match prepared.and_then(|prepared| self.make_room(prepared)) {
            Ok(prepared) => prepared,
            Err(error) => return reply.finish(Err(error)),
        };
        let (mut views, mut open, mut apps) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
        let (mut outcome, mut begun) = (Outcome::default(), Vec::new());
        self.keep_revisions(&prepared);
        for Prepared { request, record: _, advice } in prepared {
            let name = request.app().clone();
            let kind = kind_of(&request);
            let tick = self.tick();
            let reserved =
                self.releases.fresh.get(&name).map(|fresh| fresh.operation).filter(|_| kind == CoreKind::Upgrade);
            match self.fleet.request_as(tick, request, reserved) {
                Ok((admitted, part)) => {
                    outcome.merge(part);
                    let (id, already) = match admitted {
                        Admitted::Begun(operation) => {
                            self.tell_tasks(Command::Asked(name.clone(), self.asking.clone()));
                            begun.push((name.clone(), operation, kind));
                            open.insert(operation);
                            (operation, false)
                        }
                        Admitted::Steered(_) | Admitted::AlreadySo => (Operation(0), true),
                    };
                    apps.insert(name.clone());
                    let note = (!advice.is_empty()).then(|| advice.join("\n"));
                    views.push(OperationView {
                        id: id.0,
                        app: name.to_string(),
                        kind: operation_kind(kind),
                        already,
                        note,
                    });
                }
                // Checked a moment ago, and nothing happened in between but the apps before it in this request.
                Err(denied) => {
                    self.carry_out(outcome);
                    return reply.finish(Err(refusal(&denied)));
                }
            }
        }
        for (name, operation, kind) in begun {
            let started = EventKind::OperationStarted { id: operation.0, kind: operation_kind(kind) };
            self.record(Some(&name), None, started);
        }
        if wait && !open.is_empty() {
            let _ = reply.notify(Notice::Accepted(Accepted { operations: views.clone() }));
            let (results, stale) = (Vec::new(), BTreeSet::new());
            self.waiters.push(Waiter { reply, views, open, apps, results, plan, stale, show_at: sys::boottime() });
            self.carry_out(outcome);
        } else {
            self.carry_out(outcome);
            reply.finish(Ok(answer(plan, Changed { operations: views, results: Vec::new() })));
        }
    }

    /// Takes the addresses that prepared requests need. All or none.
    fn make_room(&mut self, prepared: Vec<Prepared>) -> Answer<Vec<Prepared>> {
        for part in &prepared {
            self.fleet.check(&part.request).map_err(|denied| refusal(&denied))?;
        }
        let mut grown: Vec<AppName> = Vec::new();
        for part in &prepared {
            let Some((_, record)) = &part.record else { continue };
            let name = part.request.app();
            let app = self.apps.entry(name.clone()).or_default();
            grown.push(name.clone());
            if let Err(error) = app.addresses.add(&record.config.listen, 1) {
                // The kernel's answer would name this daemon or its keeper, who hold the sockets of all apps.
                let why = match self.has_address(&error) {
                    Some((app, addr)) => format!("{addr} is the app {app}'s"),
                    None => in_full(&error),
                };
                let error =
                    ErrorObject::new(ErrorKind::Refused, format!("{} cannot listen: {why}", part.request.app()));
                for name in grown {
                    self.release_addresses(&name);
                }
                return Err(error.with_help("nothing was started or changed"));
            }
        }
        Ok(prepared)
    }

    /// Which app of ours has the address that could not be taken.
    fn has_address(&self, error: &BindError) -> Option<(&AppName, ListenAddr)> {
        let BindError::InUse { addr, .. } = error else { return None };
        let mut all =
            self.apps.iter().flat_map(|(name, app)| app.addresses.all().into_iter().map(move |own| (name, own)));
        all.find(|(_, own)| own.meets(addr))
    }

    /// Keeps the configurations that requests bring. Written down at once for all of them: a file may have a hundred
    /// apps, and each commit waits for the disk.
    fn keep_revisions(&mut self, prepared: &[Prepared]) {
        let mut changes = Vec::new();
        for part in prepared {
            let Some((revision, record)) = &part.record else { continue };
            let app = part.request.app();
            match serde_json::to_string(&**record) {
                Ok(json) => changes.push(Change::Revision { app: app.clone(), revision: *revision, json }),
                Err(error) => tracing::error!(%app, %error, "a configuration could not be written down"),
            }
            self.apps.entry(app.clone()).or_default().revisions.insert(*revision, Arc::clone(record));
        }
        self.write_down(&changes, Durability::Power);
    }

    /// Revisions that nothing runs any more, and addresses that none of the others has.
    pub(super) fn retire_revisions(&mut self, name: &AppName) {
        let Some(state) = self.fleet.app(name) else { return };
        let Some(app) = self.apps.get_mut(name) else { return };
        let gone: Vec<Revision> =
            app.revisions.keys().filter(|revision| !state.head.policies.contains_key(revision)).copied().collect();
        for revision in &gone {
            app.revisions.remove(revision);
        }
        let changes: Vec<Change> =
            gone.into_iter().map(|revision| Change::RevisionGone(name.clone(), revision)).collect();
        self.write_down(&changes, Durability::Process);
        self.release_addresses(name);
    }

    fn release_addresses(&mut self, name: &AppName) {
        let Some(app) = self.apps.get_mut(name) else { return };
        let wanted: BTreeSet<_> =
            app.revisions.values().flat_map(|record| record.config.listen.values().cloned()).collect();
        app.addresses.retain(|addr| wanted.contains(addr));
        self.remember_order(name);
        self.keep_lanes(name);
        let Some(app) = self.apps.get(name) else { return };
        if app.revisions.is_empty() && self.fleet.app(name).is_none() {
            self.apps.remove(name);
        }
    }

    fn signal(&self, params: &SignalParams) -> Answer<Signalled> {
        let signal = params.signal.parse::<StopSignal>().map_err(|error| {
            ErrorObject::new(ErrorKind::Usage, format!("{}: {error}", params.signal))
                .with_help("such as SIGHUP or USR1")
        })?;
        let apps = self.named(&params.names)?;
        let mut workers = Vec::new();
        for process in self.processes.values().filter(|process| apps.contains(&process.worker.app)) {
            let sent = process.tree.signal_leader(signal.signal());
            if sent.map_err(|error| ErrorObject::new(ErrorKind::Internal, format!("failed to {}", in_full(&error))))? {
                workers.push(SignalledWorker { id: process.worker.to_string(), pid: process.main.pid.0 });
            }
        }
        workers.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(Signalled { signal: signal.signal().to_string(), workers })
    }

    /// Ends every worker as a stop does, then the daemon. What is wanted of the apps stays: the next daemon starts what
    /// ran.
    fn stop_daemon(&mut self, reply: ReplySink) {
        let tick = self.tick();
        self.abort_cuts("the daemon is ending");
        let outcome = self.fleet.wind_down(tick);
        self.record(None, None, EventKind::DaemonStopping { why: "asked to".to_owned() });
        let workers = u32::try_from(self.processes.len()).unwrap_or(u32::MAX);
        self.end = End::WhenEmpty { workers, waiting: vec![reply] };
        let graces = self.processes.values().map(|process| process.record.config.grace.max);
        self.systemd.draining(self.processes.len(), graces.max().unwrap_or_default());
        self.carry_out(outcome);
    }

    /// SIGHUP: read the configuration files again and say what is wrong with them; nothing changes by itself.
    pub(super) fn hang_up(&mut self) {
        self.systemd.reloading();
        let files: BTreeSet<Utf8PathBuf> = self
            .apps
            .values()
            .flat_map(|app| app.revisions.values())
            .filter_map(|record| match &record.origin {
                Origin::File { path } => Some(path.clone()),
                Origin::CommandLine => None,
            })
            .collect();
        for path in files {
            if let Err(diagnostics) = config::load_among(&path, &self.known()) {
                let why = diagnostics.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
                tracing::warn!(%path, why, "the configuration is not valid; what runs goes on");
                let file = path.to_string();
                self.record(None, None, EventKind::ConfigRejected { file, why });
            }
        }
        if self.standing.read_again(&self.home) {
            self.bound_all_logs();
        } else {
            let (file, why) = (self.home.settings.to_string(), self.standing.notes().join("\n"));
            self.record(None, None, EventKind::ConfigRejected { file, why });
        }
        tracing::info!("SIGHUP: settings were read, configuration files checked; `agentctl reload` applies changes");
        self.systemd.ready();
    }

    /// The loop is over. Workers that stay keep their sockets, files and all; the keeper stays with them.
    pub(super) fn leave(mut self) -> Departure {
        let departure = self.take_leave();
        if matches!(departure, Departure::Upgrade(..)) {
            // Nothing is closed in order, as by a death: the next program begins sooner, and all of it is tried anyway.
            let _gone_with_the_program = std::mem::ManuallyDrop::new(self);
        }
        departure
    }

    fn take_leave(&mut self) -> Departure {
        let left = self.processes.len();
        tracing::info!(left, "the daemon ends");
        let numbers = Change::Meta { key: "events", value: self.journal.seq().to_string() };
        self.write_down(&[numbers], Durability::Process);
        let how = match &self.end {
            End::Now(_) => SupervisorEnd::Signalled,
            End::Upgrade(_) => SupervisorEnd::Upgraded,
            End::Open | End::WhenEmpty { .. } => SupervisorEnd::Stopped,
        };
        self.supervisors.leave(how, Timestamp::now(), sys::boottime());
        self.save_supervisors();
        if matches!(self.end, End::Now(_)) {
            // Dropping the sockets would remove their names from the file system under the workers' feet.
            let _stay = std::mem::ManuallyDrop::new(std::mem::take(&mut self.apps));
        }
        match std::mem::replace(&mut self.end, End::Open) {
            End::Now(signal) => {
                self.systemd.leaving();
                Departure::Left(signal)
            }
            End::Open | End::WhenEmpty { .. } => {
                self.dismiss_keeper();
                Departure::Stopped
            }
            End::Upgrade(settling) => settling.depart(),
        }
    }
}

fn kind_of(request: &CoreRequest) -> CoreKind {
    match request {
        CoreRequest::Start { .. } => CoreKind::Start,
        CoreRequest::Stop { .. } => CoreKind::Stop,
        CoreRequest::Delete { .. } => CoreKind::Delete,
        CoreRequest::Reload { .. } => CoreKind::Reload,
        CoreRequest::Restart { .. } => CoreKind::Restart,
        CoreRequest::Scale { .. } => CoreKind::Scale,
        CoreRequest::Upgrade { kind, .. } => *kind,
        CoreRequest::Steer { .. } => CoreKind::Upgrade,
        CoreRequest::Create { .. } => CoreKind::Start,
        CoreRequest::Adopt { .. } => CoreKind::Adopt,
        CoreRequest::Refresh { .. } => CoreKind::Refresh,
    }
}

pub(super) fn refusal(denied: &Denied) -> ErrorObject {
    let error = |kind| ErrorObject::new(kind, denied.to_string());
    match denied {
        Denied::NoSuchApp(_) => error(ErrorKind::NoSuchApp),
        Denied::DeploymentRunning { app, .. } => error(ErrorKind::Refused)
            .with_help(format!("`agentctl status {app} --watch` shows it, `agentctl abort {app}` takes it back")),
        Denied::RefreshRunning { app, .. } => {
            error(ErrorKind::Refused).with_help(format!("it is soon over: `agentctl describe {app}` shows it"))
        }
        Denied::NoRefresh(app) => error(ErrorKind::Refused).with_help(format!(
            "`refresh` in its configuration says how; `agentctl reload {app}` replaces its workers instead"
        )),
        Denied::NobodyRuns(app) => error(ErrorKind::Refused).with_help(format!("`agentctl start {app}` starts them")),
        Denied::Stopped(app) => error(ErrorKind::Refused).with_help(format!("`agentctl start {app}` starts it")),
        Denied::NothingDeploys(_) => {
            error(ErrorKind::Refused).with_help("`agentctl upgrade` or `agentctl reload` begins one")
        }
        Denied::GoingBack { app, .. } => {
            error(ErrorKind::Refused).with_help(format!("`agentctl status {app}` tells why"))
        }
        Denied::NoWayBack { app, .. } => error(ErrorKind::Refused).with_help(format!("`agentctl stop {app}` ends it")),
        Denied::NothingToPromote { app, .. } => {
            error(ErrorKind::Refused).with_help(format!("`agentctl status {app}` tells where it is"))
        }
        Denied::BeingDeleted(_) => error(ErrorKind::Refused).with_help("wait until it is gone, then start it again"),
        Denied::WorkerCount(_) => error(ErrorKind::Usage),
    }
}
