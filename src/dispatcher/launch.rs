//! Starting a worker's process, hearing how that went, and its end.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use agentd_core::effect::Effect;
use agentd_core::event::{Exit as CoreExit, Proof, WorkerEvent};
use agentd_core::id::{Lane, Launch, Pid, Revision, WorkerId};
use agentd_core::task::Gone;
use agentd_core::worker::KernelProcess;
use jiff::Timestamp;
use tokio::sync::oneshot;

use super::input::Input;
use super::limits::amounts;
use super::rights::with_rights;
use super::shell::{Printed, ProcessShell, Start};
use super::{Child, Dispatcher};
use crate::causes::in_full;
use crate::config::{Ipc, Limits, LogSink};
use crate::fault;
use crate::logs::layout::{StreamKind, fifo_path, live_path};
use crate::logs::sink::{Opened, Sink, open_sink};
use crate::logs::thread::{Finished, Inlet, Stream, StreamId};
use crate::notify::{NotifyError, NotifySocket};
use crate::process::cgroup::Cgroup;
use crate::process::plan::{ExecPlan, Secrets, Stage, StageFailure, fd_variable};
use crate::process::reaper::{self, Exit};
use crate::process::shim::channel_beside;
use crate::process::spawn::{Company, SpawnFds, spawn};
use crate::process::sys;
use crate::process::tree::{Identity, Tree};
use crate::revision::RevisionRecord;

/// Files of its own that a worker may make others read and write: nothing unless it says so.
pub(super) const UMASK: u32 = 0o022;

/// Variables of a shell that are its user's.
pub(super) const OF_THE_USER: [&str; 10] = [
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "XDG_RUNTIME_DIR",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "XDG_STATE_HOME",
    "XDG_CACHE_HOME",
    "TMPDIR",
];

/// What stood in the way of a start.
pub(super) struct Obstacle {
    pub(super) why: String,
    /// Trying again without a change cannot help.
    pub(super) permanent: bool,
}

impl Obstacle {
    fn passing(step: &str, error: &dyn std::error::Error) -> Self {
        Self { why: format!("could not be started: {step}: {}", in_full(error)), permanent: false }
    }
}

/// The outputs of a launch: what it gets, and what the log thread moves.
struct Outputs {
    stdout: OwnedFd,
    stderr: OwnedFd,
    streams: Vec<Stream>,
}

impl Dispatcher {
    /// Starts the process of a launch; what comes of it is the next event.
    pub(super) fn spawn(&mut self, launch: Launch, worker: &WorkerId, revision: Revision, lane: Option<Lane>) {
        let event = match self.try_spawn(launch, worker, revision, lane) {
            Ok(event) => event,
            Err(Obstacle { why, permanent }) => {
                self.tell_gone(launch, Gone::Asked, CoreExit::Unknown);
                self.remove_cgroup(launch);
                WorkerEvent::SpawnFailed { why, permanent }
            }
        };
        self.fact(launch, event);
    }

    /// Of a start that came to no process: its cgroup may have been made.
    fn remove_cgroup(&self, launch: Launch) {
        if let Some(cgroups) = &self.cgroups
            && let Err(error) = cgroups.of_launch(launch).remove()
        {
            tracing::debug!(%launch, error = in_full(&error), "its cgroup is removed by the next daemon");
        }
    }

    fn try_spawn(
        &mut self,
        launch: Launch,
        worker: &WorkerId,
        revision: Revision,
        lane: Option<Lane>,
    ) -> Result<WorkerEvent, Obstacle> {
        let Some(record) = self.apps.get(&worker.app).and_then(|app| app.revisions.get(&revision)).cloned() else {
            let why = format!("could not be started: revision {revision} of {} is not known", worker.app);
            return Err(Obstacle { why, permanent: true });
        };
        self.has_room()?;
        if let Some(Lane(lane)) = lane
            && let Some(app) = self.apps.get_mut(&worker.app)
        {
            // Nothing new, unless an address was lost and is free again.
            let listen = &record.config.listen;
            app.addresses.add(listen, lane + 1).map_err(|error| Obstacle::passing("taking its address", &error))?;
            app.addresses.ensure_lanes(lane + 1).map_err(|error| Obstacle::passing("making its socket", &error))?;
            self.owed.lanes_made(&worker.app, sys::boottime());
        }
        let socket = NotifySocket::bind(&self.home.run.join("notify").join(launch.to_string()), None)
            .map_err(|error| Obstacle::passing("making its notify socket", &error))?;
        let gauge = self.tell_born(launch, worker, &record);
        let cgroup = self.cgroup_for(launch, worker, &record.config.limits)?;
        let outputs = self.outputs(launch, worker, &record)?;
        let skills = self.skill_addresses(&worker.app);
        let (secrets, controllers) = (self.secrets_of(launch), self.controllers());
        let app = self.apps.entry(worker.app.clone()).or_default();
        let mut fds: Vec<(&str, BorrowedFd<'_>)> =
            lane.map_or_else(Vec::new, |lane| app.addresses.lane(&record.config.listen, lane.0));
        if let Some(stored) = app.stored.get(&worker.slot) {
            fds.extend(stored.list().map(|(name, fd)| (name.as_str(), fd)));
        }
        let notify = Arc::new(socket);
        let identity = Identity { instance: Arc::clone(&self.instance), launch };
        let tasks = self.tasks.as_ref().map(|tasks| tasks.variables(launch));
        let seen = Seen { worker, identity: &identity, socket: &notify, cgroup: cgroup.as_ref(), tasks, skills };
        let plan = with_rights(plan(&record, &seen, &fds, self.files)?, &record.config, secrets, controllers)?;
        let spawn_fds = SpawnFds {
            stdin: None,
            stdout: outputs.stdout.as_fd(),
            stderr: outputs.stderr.as_fd(),
            listeners: fds.iter().map(|(_, fd)| *fd).collect(),
        };
        let more = self.todo.iter().any(|effect| matches!(effect, Effect::Spawn { .. }));
        let company = if more { Company::Others } else { Company::Alone };
        let child = spawn(&mut self.launcher, &plan, &spawn_fds, company)
            .map_err(|error| Obstacle::passing("making its process", &error))?;
        let tree = Tree::of_child(identity, child.pid, cgroup);
        let start_time = tree.started().0;
        fault::point("spawned");
        self.keep_process(launch, &notify, &outputs.streams);
        fault::point("kept");
        if company == Company::Alone {
            // Nobody waits for what else we do about it, and somebody for the worker.
            child.report.let_it_begin();
        }
        let streams = self.attach(outputs.streams);
        let inputs = self.inputs.clone();
        tokio::spawn(async move {
            let result = child.report.outcome().await;
            // The loop is gone only at the very end.
            let _ = inputs.send(Input::Executed(launch, result));
        });
        let shell = ProcessShell {
            worker: worker.clone(),
            lane,
            record,
            tree,
            pidfd: child.pidfd,
            main: KernelProcess { pid: child.pid, start_time },
            start: Start::Underway,
            exit: None,
            started_at: Timestamp::now(),
            listeners: vec![listen(Arc::clone(&notify), launch, self.inputs.clone())],
            notify,
            prober: None,
            drain: None,
            streams,
            gauge,
            stay: 0,
            told: std::collections::HashMap::new(),
            reloading: None,
            status_text: None,
        };
        self.processes.insert(launch, shell);
        self.children.insert(child.pid, Child::Worker(launch));
        self.begin_measuring();
        Ok(WorkerEvent::Spawned { pid: child.pid, start_time })
    }

    /// What the process of a launch was started with, for commands that are to run alike.
    pub(super) fn plan_of(&self, launch: Launch) -> Result<ExecPlan, String> {
        let process = self.processes.get(&launch).ok_or("the worker has ended")?;
        let app = self.apps.get(&process.worker.app).ok_or("the app is gone")?;
        let listen = &process.record.config.listen;
        let fds = process.lane.map_or_else(Vec::new, |lane| app.addresses.lane(listen, lane.0));
        let identity = Identity { instance: Arc::clone(&self.instance), launch };
        let cgroup = process.tree.cgroup();
        let tasks = self.tasks.as_ref().map(|tasks| tasks.variables(launch));
        let skills = self.skill_addresses(&process.worker.app);
        let seen =
            Seen { worker: &process.worker, identity: &identity, socket: &process.notify, cgroup, tasks, skills };
        plan(&process.record, &seen, &fds, self.files)
            .and_then(|plan| {
                let (config, folder) = (&process.record.config, self.secrets_of(launch));
                with_rights(plan, config, folder, self.controllers())
            })
            .map_err(|obstacle| obstacle.why)
    }

    fn cgroup_for(&self, launch: Launch, worker: &WorkerId, limits: &Limits) -> Result<Option<Cgroup>, Obstacle> {
        let Some(cgroups) = &self.cgroups else { return Ok(None) };
        match cgroups.make(launch) {
            Ok(cgroup) => {
                let limited = cgroups.limit(&cgroup, &amounts(limits));
                limited.map_err(|error| Obstacle::passing("setting its limits", &error))?;
                Ok(Some(cgroup))
            }
            Err(error) => {
                tracing::warn!(%worker, error = in_full(&error), "no cgroup; contained by its process group instead");
                Ok(None)
            }
        }
    }

    fn outputs(&mut self, launch: Launch, worker: &WorkerId, record: &RevisionRecord) -> Result<Outputs, Obstacle> {
        let log = record.config.log;
        let rotation = log.rotation();
        let sink = match log.sink {
            LogSink::Fifo | LogSink::Journald => Sink::Fifo,
            LogSink::File => Sink::File,
            LogSink::None => Sink::None,
        };
        let mut streams = Vec::new();
        let mut open = |kind: StreamKind| {
            let fifo = fifo_path(&self.home.run, &worker.app, worker.slot, launch, kind);
            let path = live_path(&self.home.logs, &worker.app, worker.slot, kind);
            let opened = open_sink(sink, &fifo, &path, launch, rotation)
                .map_err(|error| Obstacle::passing("opening its log", &error))?;
            match opened {
                Opened::Direct(fd) => Ok(fd),
                Opened::Fifo(pipe) => {
                    let id = StreamId(self.next_stream);
                    self.next_stream += 1;
                    let to = self.log_target(worker, launch, record, kind);
                    let end = Inlet::new(pipe.supervisor);
                    streams.push(Stream { id, fifo: end, fifo_path: Some(fifo), launch, to });
                    Ok(pipe.worker)
                }
            }
        };
        let (stdout, stderr) = (open(StreamKind::Out)?, open(StreamKind::Err)?);
        Ok(Outputs { stdout, stderr, streams })
    }

    pub(super) fn attach(&self, streams: Vec<Stream>) -> Vec<Printed> {
        let printed: Vec<Printed> =
            streams.iter().map(|stream| Printed { id: stream.id, fifo: Arc::clone(&stream.fifo) }).collect();
        if !printed.is_empty()
            && let Err(error) = self.logs.attach(streams)
        {
            tracing::error!(error = in_full(&error), "a worker's output is not being read");
        }
        printed
    }

    /// Has the log thread move the rest and let go; the answer tells when. None where the thread is gone: it has nothing more
    /// to write.
    pub(super) fn finish(&self, printed: &[Printed]) -> Option<oneshot::Receiver<Finished>> {
        self.logs.finish(printed.iter().map(|stream| stream.id).collect()).ok()
    }

    /// The shim became the program, or failed.
    pub(super) fn executed(&mut self, launch: Launch, result: Result<(), StageFailure>) {
        let Some(process) = self.processes.get_mut(&launch) else { return };
        match result {
            Ok(()) => {
                let awaited = process.start == Start::ReadyWhenRunning;
                process.start = Start::Running;
                let ended = process.exit.is_some();
                if awaited {
                    self.fact(launch, WorkerEvent::ReadyProven { proof: Proof::Running });
                }
                if ended {
                    self.process_ended(launch);
                }
            }
            Err(failure) => {
                let permanent = is_permanent(&failure);
                let why = format!("could not be started: {failure}");
                self.tell_gone(launch, Gone::Asked, CoreExit::Unknown);
                self.bury(launch);
                self.fact(launch, WorkerEvent::SpawnFailed { why, permanent });
            }
        }
    }

    /// Children ended: workers, probe commands, and orphans that became ours.
    pub(super) fn reap(&mut self) {
        for (pid, exit) in reaper::reap() {
            match self.children.remove(&pid) {
                Some(Child::Worker(launch)) => {
                    // What it said before its end is heeded before its end: it lies in the socket or in the queue.
                    self.last_words(launch);
                    let _ = self.inputs.send(Input::Reaped(launch, pid, core_exit(exit)));
                }
                // Whoever asked may have given up waiting.
                Some(Child::Command(reply)) => drop(reply.send(Ok(exit))),
                None => tracing::debug!(%pid, %exit, "reaped an orphan"),
            }
        }
    }

    /// A process that was the main one of a launch has ended; meanwhile it may have named another (`MAINPID=`).
    pub(super) fn reaped(&mut self, launch: Launch, pid: Pid, exit: CoreExit) {
        let Some(process) = self.processes.get_mut(&launch) else { return };
        if process.main.pid != pid || process.exit.is_some() {
            return;
        }
        process.exit = Some(exit);
        // Whether it ever was the program is not known before the shim's report.
        if process.start == Start::Running {
            self.process_ended(launch);
        }
    }

    /// The main process of a launch is gone: end what it left behind, then wait for its last words.
    pub(super) fn process_ended(&mut self, launch: Launch) {
        let Some(process) = self.processes.get_mut(&launch) else { return };
        if let Some(prober) = process.prober.take() {
            prober.abort();
        }
        if let Some(drain) = process.drain.take() {
            drain.ticker.abort();
        }
        end_leftovers(&process.tree);
        self.last_words(launch);
        let Some(process) = self.processes.get_mut(&launch) else { return };
        if process.streams.iter().all(|stream| stream.fifo.is_moved()) {
            // The log thread lets go of them once what follows was done. Behind what was heard of it already.
            let _ = self.inputs.send(Input::LogsDrained(launch));
            return;
        }
        let streams = std::mem::take(&mut process.streams);
        let Some(written) = self.finish(&streams) else { return self.logs_drained(launch) };
        let inputs = self.inputs.clone();
        tokio::spawn(async move {
            let _ = written.await;
            let _ = inputs.send(Input::LogsDrained(launch));
        });
    }

    /// What it said before it ended is heard before its end is told.
    fn last_words(&mut self, launch: Launch) {
        let Some(process) = self.processes.get(&launch) else { return };
        let notify = Arc::clone(&process.notify);
        while let Ok(Some(datagram)) = notify.try_recv() {
            self.notified(launch, datagram);
        }
    }

    /// What a launch printed is in its log: now its tasks can be seen to.
    pub(super) fn logs_drained(&mut self, launch: Launch) {
        let Some(exit) = self.processes.get(&launch).and_then(|process| process.exit) else { return };
        let gone = self.how_it_went(launch, exit);
        let tallied = self.tell_gone(launch, gone, exit);
        // What became of its tasks is part of how an operation went. Of no operation, its end waits for nobody.
        if !(tallied && self.is_of_an_operation(launch)) {
            self.tell_exit(launch);
        }
    }

    fn is_of_an_operation(&self, launch: Launch) -> bool {
        let Some(worker) = self.fleet.worker(launch) else { return false };
        self.fleet.app(&worker.id.app).is_some_and(|app| app.answers_for(worker.id.slot))
    }

    /// What became of its tasks is known as well: now its end can be told.
    pub(super) fn tell_exit(&mut self, launch: Launch) {
        let Some(exit) = self.processes.get(&launch).and_then(|process| process.exit) else { return };
        if let Some(limit) = self.limit_met(launch, exit) {
            self.fact(launch, WorkerEvent::LimitMet(limit));
        }
        self.bury(launch);
        self.fact(launch, WorkerEvent::Exited { exit });
    }

    /// A launch is no more. What it had is [cleared away](Self::clear_away) when what follows was done: that cannot wait.
    fn bury(&mut self, launch: Launch) {
        let Some(process) = self.processes.remove(&launch) else { return };
        self.children.retain(|_, child| !matches!(child, Child::Worker(of) if *of == launch));
        self.usage.forget(launch);
        self.remains.push((launch, process));
    }

    /// Lets go of everything that ended launches had.
    pub(super) fn clear_away(&mut self) {
        for (launch, process) in std::mem::take(&mut self.remains) {
            self.clear_away_one(launch, process);
        }
    }

    fn clear_away_one(&mut self, launch: Launch, mut process: ProcessShell) {
        let streams = std::mem::take(&mut process.streams);
        if !streams.is_empty() {
            // Its answer is nobody's: all that was said is where it belongs, or nothing ever was.
            drop(self.finish(&streams));
        }
        if let Err(error) = std::fs::remove_file(self.home.run.join("notify").join(launch.to_string())) {
            tracing::debug!(%launch, %error, "its notify socket was gone already");
        }
        // Only Node programs have one.
        let _ = std::fs::remove_file(channel_beside(process.notify.path()));
        if let Some(cgroup) = process.tree.cgroup()
            && let Err(error) = cgroup.remove()
        {
            tracing::debug!(%launch, error = in_full(&error), "its cgroup is removed later");
        }
        self.forget_secrets(launch);
        self.release_process(launch);
    }
}

pub(super) fn core_exit(exit: Exit) -> CoreExit {
    match exit {
        Exit::Code(code) => CoreExit::Code(code),
        Exit::Signal { number, .. } => CoreExit::Signal(number),
    }
}

/// What a worker's main process left behind is of no use to anybody. Cheap where a cgroup tells that there is nothing.
fn end_leftovers(tree: &Tree) {
    let empty = tree.cgroup().is_some_and(|cgroup| cgroup.processes().is_ok_and(|pids| pids.is_empty()));
    if !empty && let Err(error) = tree.kill() {
        tracing::warn!(leader = %tree.leader(), error = in_full(&error), "processes of an ended worker may live on");
    }
}

/// Receives what the worker says until it is aborted.
pub(super) fn listen(
    socket: Arc<NotifySocket>,
    launch: Launch,
    inputs: tokio::sync::mpsc::UnboundedSender<Input>,
) -> tokio::task::AbortHandle {
    tokio::spawn(async move {
        loop {
            match socket.recv().await {
                Ok(datagram) => {
                    if inputs.send(Input::Notified(launch, datagram)).is_err() {
                        return;
                    }
                }
                Err(error) => {
                    let error: NotifyError = error;
                    tracing::warn!(%launch, error = in_full(&error), "its notify socket failed; it is not heard any more");
                    return;
                }
            }
        }
    })
    .abort_handle()
}

/// What a plan is made from beside the configuration.
pub(super) struct Seen<'a> {
    pub(super) worker: &'a WorkerId,
    pub(super) identity: &'a Identity,
    pub(super) socket: &'a NotifySocket,
    pub(super) cgroup: Option<&'a Cgroup>,
    /// Where its tasks are told of.
    pub(super) tasks: Option<[(String, String); 2]>,
    /// Where skills are found: variables with their values.
    pub(super) skills: Vec<(String, String)>,
}

pub(super) fn plan(
    record: &RevisionRecord,
    seen: &Seen<'_>,
    fds: &[(&str, BorrowedFd<'_>)],
    files: Option<u64>,
) -> Result<ExecPlan, Obstacle> {
    let config = &record.config;
    let numbers: BTreeMap<String, i32> =
        (3..).zip(fds).map(|(number, (name, _))| ((*name).to_owned(), number)).collect();
    let mut base = record.environment.clone();
    if config.account.user.is_some() {
        // Whose shell it was that started the app is of no interest to another user.
        OF_THE_USER.iter().for_each(|name| drop(base.remove(*name)));
    }
    let mut environment = config
        .environment(&base, &numbers)
        .map_err(|error| Obstacle { why: format!("could not be started: {}", in_full(&error)), permanent: true })?;
    let worker = seen.worker;
    environment.extend(seen.skills.iter().cloned());
    if let Some(release) = &record.release {
        environment.insert("AGENTD_RELEASE_DIR".to_owned(), release.folder.to_string());
    }
    environment.extend(seen.identity.variables());
    environment.extend([
        ("AGENTD_APP".to_owned(), worker.app.to_string()),
        ("AGENTD_RELEASE".to_owned(), record.label(worker.generation.0)),
        ("AGENTD_GENERATION".to_owned(), worker.generation.to_string()),
        ("AGENTD_SLOT".to_owned(), worker.slot.to_string()),
        ("AGENTD_WORKER".to_owned(), worker.to_string()),
        ("NOTIFY_SOCKET".to_owned(), seen.socket.path().to_string()),
    ]);
    environment.extend(seen.tasks.iter().flatten().cloned());
    if let Some(interval) = config.policy().watchdog {
        environment.insert("WATCHDOG_USEC".to_owned(), interval.as_micros().to_string());
    }
    for name in config.env.keys() {
        if let Some(value) = environment.get_mut(name) {
            *value = record.in_release(value);
        }
    }
    let release = record.label(worker.generation.0);
    let telemetry = telemetry(environment.get("OTEL_RESOURCE_ATTRIBUTES"), worker, &release);
    environment.insert("OTEL_RESOURCE_ATTRIBUTES".to_owned(), telemetry);
    for (name, _) in fds {
        environment.remove(&fd_variable(name));
    }
    Ok(ExecPlan {
        argv: config.expand_command(&numbers).iter().map(|word| record.in_release(word)).collect(),
        cwd: config.cwd.clone(),
        env: environment.into_iter().collect(),
        umask: config.umask.unwrap_or(UMASK),
        limits: Vec::new(),
        soft_files: files,
        cgroup: seen.cgroup.map(|cgroup| cgroup.dir().to_owned()),
        listen_names: fds.iter().map(|(name, _)| (*name).to_owned()).collect(),
        // gunicorn takes what both its command and its environment name twice, and fails at the second. What a worker
        // stored with us only the environment tells of.
        listen_pid: config.listen_pid && (fds.len() > config.listen.len() || !config.names_every_listener()),
        node_channel: config.ipc == Some(Ipc::Node),
        stdin: false,
        account: config.account.clone(),
        secrets: Secrets::default(),
    })
}

/// What stands for a release as long as apps run in place: the generation.
pub(super) fn release_name(generation: u64) -> String {
    format!("g{generation}")
}

/// OpenTelemetry's resource attributes, extended so that every span tells its version. What the user set wins.
fn telemetry(given: Option<&String>, worker: &WorkerId, release: &str) -> String {
    let ours = [
        ("service.name", worker.app.to_string()),
        ("service.version", release.to_owned()),
        ("service.instance.id", worker.to_string()),
        ("deployment.id", worker.generation.to_string()),
    ];
    let mut attributes = given.cloned().unwrap_or_default();
    for (key, value) in ours {
        if !attributes.split(',').any(|pair| pair.split('=').next().map(str::trim) == Some(key)) {
            if !attributes.is_empty() {
                attributes.push(',');
            }
            attributes.push_str(key);
            attributes.push('=');
            attributes.push_str(&value);
        }
    }
    attributes
}

/// Whether another try without a change would fail alike. What the machine lacks now it may have later.
fn is_permanent(failure: &StageFailure) -> bool {
    use nix::errno::Errno;
    let passing = [
        Errno::EAGAIN,
        Errno::ENOMEM,
        Errno::EMFILE,
        Errno::ENFILE,
        Errno::ETXTBSY,
        Errno::EINTR,
        Errno::EIO,
        Errno::ESTALE,
    ];
    match (failure.errno, &failure.stage) {
        (Some(errno), _) => !passing.contains(&Errno::from_raw(errno)),
        // Somebody has to make the account, or mend the secret.
        (None, Stage::LookingUpAccount(_) | Stage::DeliveringSecret(_)) => true,
        (
            None,
            Stage::ReadingPlan
            | Stage::MakingSession
            | Stage::EnteringCgroup(_)
            | Stage::MakingChannel(_)
            | Stage::GivingOver(_)
            | Stage::TakingAccount(_)
            | Stage::ChangingDirectory(_)
            | Stage::PlacingDescriptors
            | Stage::FindingProgram(_)
            | Stage::SettingLimit(_)
            | Stage::Executing(_),
        ) => false,
    }
}

#[cfg(test)]
mod tests {
    use agentd_core::id::{AppName, Generation, Slot};

    use super::*;

    /// What is told of a worker after its `service.name`.
    const REST: &str = "service.version=v7,service.instance.id=shop.2.3,deployment.id=3";

    fn told(given: Option<&str>) -> String {
        let app: AppName = "shop".parse().expect("a valid name");
        let worker = WorkerId { app, slot: Slot(2), generation: Generation(3) };
        telemetry(given.map(str::to_owned).as_ref(), &worker, "v7")
    }

    #[test]
    fn spans_tell_their_app_release_worker_and_deployment() {
        assert_eq!(told(None), format!("service.name=shop,{REST}"));
        assert_eq!(told(Some("")), format!("service.name=shop,{REST}"));
    }

    #[test]
    fn an_operators_own_attributes_are_kept_and_come_first() {
        assert_eq!(told(Some("region=eu,tier=1")), format!("region=eu,tier=1,service.name=shop,{REST}"));
    }

    #[test]
    fn what_an_operator_calls_the_service_wins() {
        assert_eq!(told(Some("service.name=till")), format!("service.name=till,{REST}"));
        assert_eq!(told(Some("region=eu, service.name=till")), format!("region=eu, service.name=till,{REST}"));
        let all = "deployment.id=d,service.version=v,service.instance.id=i,service.name=n";
        assert_eq!(told(Some(all)), all);
    }

    #[test]
    fn a_longer_key_or_a_value_is_not_taken_for_one_of_ours() {
        let given = "service.namespace=eu,alias=service.name";
        assert_eq!(told(Some(given)), format!("{given},service.name=shop,{REST}"));
    }
}
