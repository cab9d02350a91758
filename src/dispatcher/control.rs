//! Requests of the control socket: looked up, checked, admitted, answered.
//!
//! A request about several apps is all or nothing up to its admission: every configuration is read, every address is
//! taken and every app asked for before the first of them begins. What went wrong is then told in full, and nothing
//! has changed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use agentd_core::admission::{Admitted, Denied, Request as CoreRequest};
use agentd_core::app::Desired;
use agentd_core::effect::{OperationKind as CoreKind, Outcome};
use agentd_core::id::{AppName, Launch, Operation, Revision};
use agentd_core::policy::AppPolicy;
use agentd_protocol::control::{
    ALL, Accepted, AppDetails, Changed, DaemonView, ErrorKind, ErrorObject, ListenerView, LogFileView, LogStream,
    Notice, OperationView, PROTOCOL, Reply, Request, ScaleParams, SignalParams, Signalled, SignalledWorker,
    StartParams, StartTarget,
};
use camino::{Utf8Path, Utf8PathBuf};

use super::commit::in_full;
use super::lines::wire_line;
use super::tell::{Waiter, operation_kind};
use super::{Dispatcher, End};
use crate::config::{self, AdhocStart, AppConfig, Diagnostic, StopSignal};
use crate::control::{ControlCall, ReplySink};
use crate::logs::layout::StreamKind;
use crate::logs::layout::sources;
use crate::logs::read::tail;
use crate::process::usage;
use crate::revision::{Origin, RevisionRecord};
use crate::store::{Change, Durability};

/// Lines of its log that `describe` shows.
const DESCRIBED_LINES: usize = 10;

/// One app's part of a request, checked and ready to begin.
struct Prepared {
    request: CoreRequest,
    /// The configuration that the request names, when it is new.
    record: Option<(Revision, Arc<RevisionRecord>)>,
    /// What the user should know, though nothing is wrong.
    advice: Vec<String>,
}

type Answer<T> = Result<T, ErrorObject>;

impl Dispatcher {
    pub(super) fn control(&mut self, call: ControlCall) {
        let ControlCall { request, peer, reply } = call;
        tracing::debug!(method = request.method(), uid = peer.uid, pid = peer.pid, "asked");
        if !matches!(self.end, End::Open) && request.operates() {
            reply.finish(Err(ErrorObject::new(ErrorKind::ShuttingDown, "the daemon is ending")));
            return;
        }
        match request {
            // The server answers it; a version without it is still polite.
            Request::Hello(_) => reply.finish(Err(ErrorObject::new(ErrorKind::Internal, "hello was not answered"))),
            Request::Start(params) => {
                let prepared = self.prepare_start(&params);
                self.begin(prepared, params.wait, reply);
            }
            Request::Stop(params) => {
                let prepared = self.plain(&params.names, |app| CoreRequest::Stop { app });
                self.begin(prepared, params.wait, reply);
            }
            Request::Delete(params) => {
                let prepared = self.plain(&params.names, |app| CoreRequest::Delete { app });
                self.begin(prepared, params.wait, reply);
            }
            Request::Restart(params) => {
                let prepared = self.named(&params.names).and_then(|apps| self.prepare_anew(&apps, CoreKind::Restart));
                self.begin(prepared, params.wait, reply);
            }
            Request::Reload(params) => {
                let prepared =
                    self.to_reload(&params.names).and_then(|apps| self.prepare_anew(&apps, CoreKind::Reload));
                self.begin(prepared, params.wait, reply);
            }
            Request::Scale(ScaleParams { name, workers, wait }) => {
                let prepared = self.plain(std::slice::from_ref(&name), |app| CoreRequest::Scale { app, workers });
                self.begin(prepared, wait, reply);
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
            Request::DaemonStatus(_) => reply.finish(Ok(Reply::Daemon(Box::new(self.daemon_view())))),
            Request::DaemonStop(_) => self.stop_daemon(reply),
        }
    }

    /// Begins what was prepared, or says why not.
    fn begin(&mut self, prepared: Answer<Vec<Prepared>>, wait: bool, reply: ReplySink) {
        let prepared = match prepared.and_then(|prepared| self.make_room(prepared)) {
            Ok(prepared) => prepared,
            Err(error) => return reply.finish(Err(error)),
        };
        let (mut views, mut open, mut apps) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
        let mut outcome = Outcome::default();
        for Prepared { request, record, advice } in prepared {
            let name = request.app().clone();
            if let Some((revision, record)) = record {
                self.keep_revision(&name, revision, record);
            }
            let kind = kind_of(&request);
            let tick = self.tick();
            match self.fleet.request(tick, request) {
                Ok((admitted, part)) => {
                    outcome.merge(part);
                    let (id, already) = match admitted {
                        Admitted::Begun(operation) => {
                            open.insert(operation);
                            (operation, false)
                        }
                        Admitted::AlreadySo => (Operation(0), true),
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
        if wait && !open.is_empty() {
            let _ = reply.notify(Notice::Accepted(Accepted { operations: views.clone() }));
            let (results, stale) = (Vec::new(), BTreeSet::new());
            self.waiters.push(Waiter { reply, views, open, apps, results, stale });
            self.carry_out(outcome);
        } else {
            self.carry_out(outcome);
            reply.finish(Ok(Reply::Changed(Changed { operations: views, results: Vec::new() })));
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
                for name in grown {
                    self.release_addresses(&name);
                }
                let error = ErrorObject::new(ErrorKind::Refused, format!("{name} cannot listen: {}", in_full(&error)));
                return Err(error.with_help("nothing was started or changed"));
            }
        }
        Ok(prepared)
    }

    fn keep_revision(&mut self, name: &AppName, revision: Revision, record: Arc<RevisionRecord>) {
        match serde_json::to_string(&*record) {
            Ok(json) => {
                let change = Change::Revision { app: name.clone(), revision, json };
                self.write_down(&[change], Durability::Power);
            }
            Err(error) => tracing::error!(app = %name, %error, "a configuration could not be written down"),
        }
        self.apps.entry(name.clone()).or_default().revisions.insert(revision, record);
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
        self.keep_lanes(name);
        let Some(app) = self.apps.get(name) else { return };
        if app.revisions.is_empty() && self.fleet.app(name).is_none() {
            self.apps.remove(name);
        }
    }

    // ---- preparing ----

    fn prepare_start(&mut self, params: &StartParams) -> Answer<Vec<Prepared>> {
        let (configs, origin) = match &params.target {
            StartTarget::File { path } => {
                let path = Utf8PathBuf::from(path);
                (config::load(&path).map_err(invalid)?, Origin::File { path })
            }
            StartTarget::Script { script, name, workers, listen, args } => {
                if listen.len() > 1 {
                    let why = "one --listen is possible without a file; name several listeners in a file";
                    return Err(ErrorObject::new(ErrorKind::Usage, why));
                }
                let start = AdhocStart {
                    script: script.clone(),
                    name: name.clone(),
                    workers: *workers,
                    listen: listen.first().cloned(),
                    args: args.clone(),
                    cwd: params.cwd.clone().into(),
                    path_env: params.env.get("PATH").cloned().unwrap_or_default(),
                    virtual_env: params.env.get("VIRTUAL_ENV").map(Into::into),
                };
                (vec![config::adhoc(start).map_err(invalid)?], Origin::CommandLine)
            }
            StartTarget::Names { names } => {
                let apps = self.named(names)?;
                return self.prepare_anew(&apps, CoreKind::Start);
            }
        };
        if configs.is_empty() {
            let help = "an app is a table [agent.NAME] or [skill.NAME]";
            return Err(ErrorObject::new(ErrorKind::Usage, "the configuration names no app").with_help(help));
        }
        Ok(configs
            .into_iter()
            .map(|config| {
                let record = RevisionRecord { config, origin: origin.clone(), environment: params.env.clone() };
                self.prepared(CoreKind::Start, record)
            })
            .collect())
    }

    /// A request for known apps with their configuration as it is now: read again where it came from a file.
    fn prepare_anew(&self, apps: &[AppName], kind: CoreKind) -> Answer<Vec<Prepared>> {
        let mut files: BTreeMap<Utf8PathBuf, Vec<AppConfig>> = BTreeMap::new();
        let mut prepared = Vec::new();
        for name in apps {
            let current = self.current_record(name)?;
            let config = match &current.origin {
                Origin::CommandLine => current.config.clone(),
                Origin::File { path } => {
                    if !files.contains_key(path) {
                        files.insert(path.clone(), config::load(path).map_err(invalid)?);
                    }
                    let found = files.get(path).into_iter().flatten().find(|config| config.name == *name);
                    found.cloned().ok_or_else(|| gone_from(name, path))?
                }
            };
            let record = RevisionRecord { config, ..(*current).clone() };
            prepared.push(self.prepared(kind, record));
        }
        Ok(prepared)
    }

    fn prepared(&self, kind: CoreKind, record: RevisionRecord) -> Prepared {
        let name = record.config.name.clone();
        let (app, policy): (AppName, AppPolicy) = (name.clone(), record.config.policy());
        let revision = self.apps.get(&name).map_or(Revision(1), |shell| shell.revision_of(&record));
        let mut advice: Vec<String> = config::advise(&record.config).into_iter().map(|advice| advice.text).collect();
        let runs = self.fleet.app(&name).filter(|app| app.head.desired == Desired::Running);
        let changed = runs.is_some_and(|app| app.head.revision != revision);
        if kind == CoreKind::Start && changed {
            advice.push(format!("its configuration has changed: `agentctl reload {name}` applies it"));
        }
        // A running app is not changed by a start.
        let record = (kind != CoreKind::Start || runs.is_none()).then(|| (revision, Arc::new(record)));
        let request = match kind {
            CoreKind::Reload => CoreRequest::Reload { app, revision, policy },
            CoreKind::Restart => CoreRequest::Restart { app, revision, policy },
            CoreKind::Start | CoreKind::Stop | CoreKind::Delete | CoreKind::Scale => {
                CoreRequest::Start { app, revision, policy }
            }
        };
        Prepared { request, record, advice }
    }

    fn plain(&self, names: &[String], make: impl Fn(AppName) -> CoreRequest) -> Answer<Vec<Prepared>> {
        let apps = self.named(names)?;
        Ok(apps.into_iter().map(|app| Prepared { request: make(app), record: None, advice: Vec::new() }).collect())
    }

    /// The apps that `names` mean; `all` means every one.
    pub(super) fn named(&self, names: &[String]) -> Answer<Vec<AppName>> {
        if names.is_empty() {
            return Err(ErrorObject::new(ErrorKind::Usage, "name an app, or `all`"));
        }
        if names.iter().any(|name| name == ALL) {
            return Ok(self.fleet.apps().map(|app| app.head.name.clone()).collect());
        }
        names
            .iter()
            .map(|text| {
                let name = text.parse::<AppName>().ok().filter(|name| self.fleet.app(name).is_some());
                name.ok_or_else(|| self.no_such_app(text))
            })
            .collect()
    }

    /// As [`Self::named`], where `all` leaves out what is stopped: there is nothing to reload.
    fn to_reload(&self, names: &[String]) -> Answer<Vec<AppName>> {
        let mut apps = self.named(names)?;
        if names.iter().any(|name| name == ALL) {
            apps.retain(|name| self.fleet.app(name).is_some_and(|app| app.head.desired == Desired::Running));
        }
        Ok(apps)
    }

    fn no_such_app(&self, name: &str) -> ErrorObject {
        let known: Vec<&str> = self.fleet.apps().map(|app| app.head.name.as_str()).collect();
        let near = known.iter().max_by(|a, b| strsim::jaro_winkler(a, name).total_cmp(&strsim::jaro_winkler(b, name)));
        let help = match near.filter(|near| strsim::jaro_winkler(near, name) > 0.8) {
            Some(near) => format!("did you mean {near}?"),
            None if known.is_empty() => "no app is known; `agentctl start FILE` adds those of a file".to_owned(),
            None => "`agentctl ls` lists the apps that are known".to_owned(),
        };
        ErrorObject::new(ErrorKind::NoSuchApp, format!("no app is named {name:?}")).with_help(help)
    }

    fn current_record(&self, name: &AppName) -> Answer<Arc<RevisionRecord>> {
        let app = self.fleet.app(name).ok_or_else(|| self.no_such_app(name.as_str()))?;
        let record = self.apps.get(name).and_then(|shell| shell.revisions.get(&app.head.revision));
        record.cloned().ok_or_else(|| {
            ErrorObject::new(ErrorKind::Internal, format!("the configuration of {name} is not known any more"))
                .with_help(format!("`agentctl delete {name}`, then start it from its file"))
        })
    }

    // ---- the other requests ----

    fn signal(&self, params: &SignalParams) -> Answer<Signalled> {
        let signal = params.signal.parse::<StopSignal>().map_err(|error| {
            ErrorObject::new(ErrorKind::Usage, format!("{}: {error}", params.signal))
                .with_help("such as SIGHUP or USR1")
        })?;
        let apps = self.named(&params.names)?;
        let mut workers = Vec::new();
        for process in self.processes.values().filter(|process| apps.contains(&process.worker.app)) {
            if process.tree.signal_leader(signal.signal()) {
                workers.push(SignalledWorker { id: process.worker.to_string(), pid: process.main.0 });
            }
        }
        workers.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(Signalled { signal: signal.signal().to_string(), workers })
    }

    fn describe(&mut self, text: &str) -> Answer<AppDetails> {
        let names = self.named(&[text.to_owned()])?;
        let Some(name) = names.first().cloned() else { return Err(self.no_such_app(text)) };
        let record = self.current_record(&name)?;
        let document = self.document(|app| app.head.name == name);
        let view = document.apps.into_iter().next().ok_or_else(|| self.no_such_app(text))?;
        let app = self.fleet.app(&name).ok_or_else(|| self.no_such_app(text))?;
        let config = &record.config;
        let listeners = config.listen.iter().map(|(listener, addr)| ListenerView {
            name: listener.clone(),
            configured: addr.to_string(),
            address: self.apps.get(&name).and_then(|shell| shell.addresses.local(addr)).map(|addr| addr.to_string()),
        });
        let printed = sources(&self.home.logs, &name).unwrap_or_default();
        let log_files = printed.iter().map(|source| LogFileView {
            stream: Some(match source.stream {
                StreamKind::Out => LogStream::Stdout,
                StreamKind::Err => LogStream::Stderr,
            }),
            path: source.path.to_string(),
            bytes: std::fs::metadata(&source.path).ok().map(|meta| meta.len()),
        });
        let workers: BTreeMap<Launch, _> =
            app.workers.values().filter_map(|worker| Some((worker.launch()?, worker.id.clone()))).collect();
        let last = tail(&printed, DESCRIBED_LINES).unwrap_or_default();
        let env: BTreeSet<String> = record.environment.keys().chain(config.env.keys()).cloned().collect();
        Ok(AppDetails {
            command: config.command.clone(),
            cwd: config.cwd.to_string(),
            env: env.into_iter().collect(),
            listeners: listeners.collect(),
            config_file: match &record.origin {
                Origin::File { path } => Some(path.to_string()),
                Origin::CommandLine => None,
            },
            revision: app.head.revision.0,
            policy: policy_words(app.policy_now()),
            log_files: log_files.collect(),
            last_lines: last.into_iter().map(|line| wire_line(line, &workers)).collect(),
            app: view,
        })
    }

    fn daemon_view(&self) -> DaemonView {
        let workers = u32::try_from(self.processes.len()).unwrap_or(u32::MAX);
        let mut notes = self.notes.clone();
        if self.logs.dropped() > 0 {
            notes.push(format!("{} bytes of worker output were dropped since the start", self.logs.dropped()));
        }
        DaemonView {
            instance: self.instance.to_string(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            protocol: PROTOCOL,
            started_at: self.started_at,
            state_dir: self.home.state.to_string(),
            runtime_dir: self.home.run.to_string(),
            log_dir: self.home.logs.to_string(),
            apps: u32::try_from(self.fleet.apps().count()).unwrap_or(u32::MAX),
            workers,
            memory_bytes: usage::of_process(agentd_core::id::Pid(std::process::id())),
            seq: self.journal.seq(),
            notes,
        }
    }

    /// Ends every worker as a stop does, then the daemon. What is wanted of the apps stays: the next daemon starts what
    /// ran.
    fn stop_daemon(&mut self, reply: ReplySink) {
        let tick = self.tick();
        let outcome = self.fleet.wind_down(tick);
        self.record(None, None, agentd_protocol::events::EventKind::DaemonStopping { why: "asked to".to_owned() });
        self.end = End::WhenEmpty(vec![reply]);
        self.carry_out(outcome);
    }

    /// SIGHUP: read the configuration files again and say what is wrong with them; nothing changes by itself.
    pub(super) fn hang_up(&mut self) {
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
            if let Err(diagnostics) = config::load(&path) {
                let why = diagnostics.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
                tracing::warn!(%path, why, "the configuration is not valid; what runs goes on");
                let file = path.to_string();
                self.record(None, None, agentd_protocol::events::EventKind::ConfigRejected { file, why });
            }
        }
        tracing::info!("SIGHUP: configuration files were checked; `agentctl reload` applies changes");
    }

    /// The loop is over. Workers that stay keep their sockets, files and all; the keeper stays with them.
    pub(super) fn leave(mut self) {
        let left = self.processes.len();
        tracing::info!(left, "the daemon ends");
        if let Err(error) = self.store.set_meta("events", &self.journal.seq().to_string()) {
            tracing::debug!(%error, "event numbers go on after a gap");
        }
        match self.end {
            End::Now => {
                // Dropping the sockets would remove their names from the file system under the workers' feet.
                let _stay = std::mem::ManuallyDrop::new(std::mem::take(&mut self.apps));
            }
            End::Open | End::WhenEmpty(_) => self.dismiss_keeper(),
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
    }
}

fn refusal(denied: &Denied) -> ErrorObject {
    let error = |kind| ErrorObject::new(kind, denied.to_string());
    match denied {
        Denied::NoSuchApp(_) => error(ErrorKind::NoSuchApp),
        Denied::DeploymentRunning { app, .. } => {
            error(ErrorKind::Refused).with_help(format!("`agentctl status {app} --watch` shows it"))
        }
        Denied::Stopped(app) => error(ErrorKind::Refused).with_help(format!("`agentctl start {app}` starts it")),
        Denied::BeingDeleted(_) => error(ErrorKind::Refused).with_help("wait until it is gone, then start it again"),
        Denied::WorkerCount(_) => error(ErrorKind::Usage),
    }
}

fn invalid(diagnostics: Vec<Diagnostic>) -> ErrorObject {
    let count = diagnostics.len();
    let text = if count == 1 { "the configuration has an error" } else { "the configuration has errors" };
    let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    let diagnostics = diagnostics
        .into_iter()
        .map(|found| agentd_protocol::control::Diagnostic {
            file: found.file.to_string(),
            line: number(found.line),
            column: number(found.column),
            end_column: number(found.end_column),
            source_line: found.source_line,
            message: found.message,
            expected: found.expected,
            help: found.help,
        })
        .collect();
    ErrorObject::new(ErrorKind::Usage, text).with_help("nothing was started or changed").with_diagnostics(diagnostics)
}

fn gone_from(name: &AppName, path: &Utf8Path) -> ErrorObject {
    ErrorObject::new(ErrorKind::Usage, format!("{path} does not name {name} any more"))
        .with_help(format!("put it back, or `agentctl delete {name}`"))
}

/// The policy in words, for `describe`.
fn policy_words(policy: &AppPolicy) -> BTreeMap<String, String> {
    use config::quantity::format_duration as duration;
    let restart = policy.restart;
    let mut words = BTreeMap::from([
        ("grace".to_owned(), duration(agentd_core::grace::bound(&policy.grace))),
        ("ready".to_owned(), format!("within {}", duration(policy.ready.timeout))),
        (
            "reload".to_owned(),
            format!(
                "at most {} more and {} fewer than {} workers; watched for {}",
                policy.reload.max_surge,
                policy.reload.max_unavailable,
                policy.workers,
                duration(policy.reload.settle)
            ),
        ),
        (
            "restart".to_owned(),
            format!(
                "{:?}, after {} to {}, at most {} in {}",
                restart.when,
                duration(restart.backoff_min),
                duration(restart.backoff_max),
                restart.max,
                duration(restart.period)
            ),
        ),
        ("stop".to_owned(), format!("{:?}", policy.stop.drain).to_lowercase()),
    ]);
    if let Some(live) = policy.live {
        words.insert("live".to_owned(), format!("every {}, {} failures", duration(live.every), live.failures));
    }
    words
}
