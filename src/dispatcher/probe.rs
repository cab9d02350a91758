//! Proving that workers are ready and that they live; and what they say of it themselves.
//!
//! Every proof is a task of its own that asks the loop for what only the loop has (a steered connection, a process) and
//! sends back facts. It is aborted when it is not needed any more.

use std::time::Duration;

use agentd_core::event::{Proof as CoreProof, WorkerEvent};
use agentd_core::id::{AppName, Launch};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::input::{Input, OpenProbe, ProbeEnd, RunCommand};
use super::shell::Start;
use super::{Child, Dispatcher};
use crate::causes::in_full;
use crate::config::{HttpCheck, LiveCheck, ReadyCheck};
use crate::logs::follow::{Follower, PollAgain, Start as From};
use crate::logs::layout::{Source, StreamKind};
use crate::notify::{Datagram, Notice, judge};
use crate::probe::{self, NotReady, Proof};
use crate::process::plan::ExecPlan;
use crate::process::reaper::Exit;
use crate::process::spawn::{Company, SpawnFds, spawn};
use crate::process::tree::Tree;
use crate::sockets::{ListenAddr, ProbeId};

/// Longest wait for one try of a readiness proof, at first: what stands in the way is known soon. The whole is bounded
/// by core.
const TRY_FIRST: Duration = Duration::from_millis(500);
/// The same after several tries: a worker may be slow to answer.
const TRY_WITHIN: Duration = Duration::from_secs(5);
/// How long before the worker's time is up a try ends, so that what it found out is known by then.
const TRY_BEFORE_END: Duration = Duration::from_millis(100);
/// A try that would be shorter finds out nothing and is given its usual time.
const TRY_LEAST: Duration = Duration::from_millis(50);
/// Pause after the first failed try.
const PAUSE_FIRST: Duration = Duration::from_millis(5);
/// Longest pause between tries.
const PAUSE_LAST: Duration = Duration::from_millis(250);

impl Dispatcher {
    pub(super) fn prove_ready(&mut self, launch: Launch) {
        let Some(process) = self.processes.get_mut(&launch) else { return };
        let inputs = self.inputs.clone();
        let time_up = Instant::now() + process.record.config.ready.timeout;
        let task = match process.record.config.ready.check.clone() {
            ReadyCheck::Running if process.start == Start::Running => {
                self.fact(launch, WorkerEvent::ReadyProven { proof: CoreProof::Running });
                return;
            }
            ReadyCheck::Running => {
                process.start = Start::ReadyWhenRunning;
                return;
            }
            // Heard on its notify socket.
            ReadyCheck::Notify | ReadyCheck::Protocol => return,
            ReadyCheck::Listening => {
                let Some(listener) = process.record.config.first_stream_listener() else {
                    self.fact(launch, WorkerEvent::ReadyProven { proof: CoreProof::Running });
                    return;
                };
                let knock = Knock { launch, listener, http: None, tree: process.tree.clone(), inputs };
                tokio::spawn(knock.until_ready(time_up))
            }
            ReadyCheck::Http(check) => {
                let (listener, http) = (check.on.clone(), Some(check));
                let knock = Knock { launch, listener, http, tree: process.tree.clone(), inputs };
                tokio::spawn(knock.until_ready(time_up))
            }
            ReadyCheck::Log(words) => {
                let sources = StreamKind::BOTH
                    .map(|kind| Source::new(&self.home.logs, &process.worker.app, process.worker.slot, kind));
                let grew = self.logs.grew();
                tokio::spawn(await_line(launch, words, sources, grew, inputs))
            }
            ReadyCheck::Command(command) => {
                let command = process.record.config.expand(&command, &std::collections::BTreeMap::new());
                tokio::spawn(await_command(launch, command, inputs))
            }
        };
        if let Some(before) = process.prober.replace(task.abort_handle()) {
            before.abort();
        }
    }

    pub(super) fn probe_live(&mut self, launch: Launch) {
        let Some(process) = self.processes.get_mut(&launch) else { return };
        let Some(live) = process.record.config.live.clone() else { return };
        let inputs = self.inputs.clone();
        let within = live.timeout;
        let tree = process.tree.clone();
        let task = match live.check {
            LiveCheck::Http(check) => {
                let (listener, http) = (check.on.clone(), Some(check));
                tokio::spawn(Knock { launch, listener, http, tree, inputs }.once(within))
            }
            LiveCheck::Tcp { on } => {
                tokio::spawn(Knock { launch, listener: on, http: None, tree, inputs }.once(within))
            }
            LiveCheck::Command(command) => {
                let command = process.record.config.expand(&command, &std::collections::BTreeMap::new());
                tokio::spawn(async move {
                    let result = run(launch, &command, within, &inputs).await;
                    let _ = inputs.send(Input::Worker(launch, WorkerEvent::ProbeAnswered { result }));
                })
            }
            // Heard on its notify socket.
            LiveCheck::Watchdog => return,
        };
        process.prober = Some(task.abort_handle());
    }

    /// A task needs a connection that reaches one worker, whatever the weights.
    pub(super) fn open_probe(&mut self, request: OpenProbe) {
        let connection = (|| {
            let process = self.processes.get(&request.launch).ok_or("the worker has ended")?;
            let lane = process.lane.ok_or("the worker has no socket")?;
            let addr = process.record.config.listen.get(&request.listener).ok_or("it has no such listener")?.clone();
            let app = self.apps.get_mut(&process.worker.app).ok_or("the app is gone")?;
            let name = process.worker.app.clone();
            let started = app.addresses.start_probe(&addr, lane.0);
            self.remember_order(&name);
            let connection = started.map_err(|error| in_full(&error))?;
            let end = ProbeEnd { app: name, addr, probe: connection.id, inputs: self.inputs.clone() };
            Ok((connection, end))
        })();
        // A task that was aborted meanwhile needs none; the probe ends with the reply.
        drop(request.reply.send(connection));
    }

    pub(super) fn close_probe(&mut self, app: &AppName, addr: &ListenAddr, probe: ProbeId) {
        if let Some(shell) = self.apps.get_mut(app) {
            shell.addresses.finish_probe(addr, probe);
            self.remember_order(app);
        }
    }

    /// A task needs a command run as the worker itself runs: its folder, its environment, its cgroup.
    pub(super) fn run_command(&mut self, request: RunCommand) {
        let RunCommand { launch, command, env: more, reply } = request;
        let child = (|| {
            let own = self.plan_of(launch)?;
            let null = std::fs::File::options()
                .write(true)
                .open("/dev/null")
                .map_err(|error| format!("opening /dev/null: {error}"))?;
            // It does not speak for the worker.
            let its = ["NOTIFY_SOCKET", crate::process::LAUNCH_VARIABLE];
            let inherited = own.env.iter().filter(|(name, _)| !its.contains(&name.as_str())).cloned();
            let (secrets, files) = own.secrets.beside();
            let env = inherited.chain(more).chain(files).collect();
            let plan = ExecPlan { argv: command, env, listen_names: Vec::new(), node_channel: false, secrets, ..own };
            let fds = SpawnFds {
                stdin: None,
                stdout: std::os::fd::AsFd::as_fd(&null),
                stderr: std::os::fd::AsFd::as_fd(&null),
                listeners: Vec::new(),
            };
            spawn(&mut self.launcher, &plan, &fds, Company::Others).map_err(|error| in_full(&error))
        })();
        match child {
            Ok(child) => {
                self.children.insert(child.pid, Child::Command(reply));
            }
            Err(why) => drop(reply.send(Err(why))),
        }
    }

    /// A worker, or somebody in its name, said something.
    pub(super) fn notified(&mut self, launch: Launch, datagram: Datagram) {
        let Some(process) = self.processes.get_mut(&launch) else { return };
        if let Err(why) = judge(datagram.sender, &process.tree, process.notify.owner()) {
            tracing::warn!(worker = %process.worker, %why, "a message on its notify socket is not believed");
            return;
        }
        let mut fds = datagram.fds;
        for notice in datagram.messages {
            self.heed(launch, notice, &mut fds);
        }
    }

    fn heed(&mut self, launch: Launch, notice: Notice, fds: &mut Vec<std::os::fd::OwnedFd>) {
        self.heed_refresh(launch, &notice);
        let Some(process) = self.processes.get_mut(&launch) else { return };
        let event = match notice {
            Notice::Ready if process.record.config.ready.check == ReadyCheck::Notify => {
                WorkerEvent::ReadyProven { proof: CoreProof::Notified }
            }
            // Its readiness is proven otherwise, or it is ready again after a reload of its own.
            Notice::Ready | Notice::Reloading { .. } => return,
            Notice::TaskSafe(id) => {
                self.tell_safe(launch, id.as_str());
                return;
            }
            Notice::Stopping => WorkerEvent::StoppingSaid,
            Notice::Drain => WorkerEvent::DrainsItselfSaid,
            Notice::Watchdog => WorkerEvent::WatchdogBeat,
            Notice::WatchdogTrigger => WorkerEvent::WatchdogTriggered,
            Notice::WatchdogPeriod(interval) => WorkerEvent::WatchdogSet { interval },
            Notice::ExtendTimeout(by) => WorkerEvent::TimeoutExtended { by },
            Notice::TaskBegin { id, kind } => {
                let kind = kind.map(|kind| kind.as_str().to_owned());
                self.tell_task_begun(launch, id.as_str(), kind.clone());
                if self.ledger_hears_begin(launch, id.as_str(), kind.as_deref()) {
                    return;
                }
                WorkerEvent::TaskBegan { id: id.as_str().to_owned(), kind }
            }
            Notice::TaskEnd { id, outcome } => {
                self.tell_task_ended(launch, id.as_str(), outcome);
                if self.ledger_hears_end(launch, id.as_str(), outcome) {
                    return;
                }
                WorkerEvent::TaskEnded { id: id.as_str().to_owned() }
            }
            Notice::Status(text) => {
                process.status_text = (!text.is_empty()).then(|| text.clone());
                self.tell_status(launch, text);
                return;
            }
            Notice::MainPid(pid) => {
                self.main_changed(launch, pid);
                return;
            }
            Notice::StoreFds { name, poll } => {
                let (app, slot) = (process.worker.app.clone(), process.worker.slot);
                let store = self.apps.entry(app).or_default().stored.entry(slot).or_default();
                for fd in fds.drain(..) {
                    let admission = store.add(name.clone(), fd, poll);
                    tracing::debug!(%launch, name = name.as_str(), ?admission, "a descriptor to keep");
                }
                return;
            }
            Notice::RemoveFds(name) => {
                let (app, slot) = (process.worker.app.clone(), process.worker.slot);
                if let Some(store) = self.apps.get_mut(&app).and_then(|app| app.stored.get_mut(&slot)) {
                    store.remove(&name);
                }
                return;
            }
            // Everything before is done by now: this is one task, in order.
            Notice::Barrier => {
                fds.clear();
                return;
            }
            Notice::Errno(errno) => {
                process.status_text = Some(format!("failed: {}", nix::errno::Errno::from_raw(errno).desc()));
                return;
            }
            Notice::ExitStatus(status) => {
                process.status_text = Some(format!("what it ran ended with status {status}"));
                return;
            }
        };
        self.fact(launch, event);
    }
}

/// Knocking at one worker's own socket.
struct Knock {
    launch: Launch,
    listener: String,
    http: Option<HttpCheck>,
    tree: Tree,
    inputs: mpsc::UnboundedSender<Input>,
}

impl Knock {
    /// Tries until it is ready, and tells each new reason why it is not: the last one shortly before `time_up`, which
    /// core may have moved.
    async fn until_ready(self, time_up: Instant) {
        let (mut pause, mut within) = (PAUSE_FIRST, TRY_FIRST);
        let mut told = String::new();
        loop {
            let left = time_up.saturating_duration_since(Instant::now() + TRY_BEFORE_END);
            let this = if left < TRY_LEAST { within } else { within.min(left) };
            match self.knock(this).await {
                Ok(proof) => {
                    self.tell(WorkerEvent::ReadyProven { proof });
                    return;
                }
                Err(why) if why != told => {
                    told.clone_from(&why);
                    self.tell(WorkerEvent::ReadyRefuted { why });
                }
                Err(_) => {}
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_LAST);
            within = (within * 2).min(TRY_WITHIN);
        }
    }

    /// Tries once.
    async fn once(self, within: Duration) {
        let result = self.knock(within).await.map(drop);
        self.tell(WorkerEvent::ProbeAnswered { result });
    }

    async fn knock(&self, within: Duration) -> Result<CoreProof, String> {
        let (reply, answer) = oneshot::channel();
        let request = OpenProbe { launch: self.launch, listener: self.listener.clone(), reply };
        self.inputs.send(Input::OpenProbe(request)).map_err(|_| "the daemon is ending".to_owned())?;
        let (connection, _end) = answer.await.map_err(|_| "the daemon is ending".to_owned())??;
        let check = match &self.http {
            None => probe::ReadyCheck::Accepts,
            Some(http) => probe::ReadyCheck::Http(probe::HttpCheck {
                method: "GET".to_owned(),
                path: http.path.clone(),
                host: "localhost".to_owned(),
                expect: http.status_min..=http.status_max,
            }),
        };
        let tree = &self.tree;
        let proof: Result<Proof, NotReady> =
            probe::steered(connection, &check, || tree.pids(), Instant::now() + within).await;
        match proof {
            Ok(Proof::Accepted) => Ok(CoreProof::Accepted),
            Ok(Proof::Answered(_)) => Ok(CoreProof::Http),
            Err(error) => Err(in_full(&error)),
        }
    }

    fn tell(&self, event: WorkerEvent) {
        // The loop is gone only at the very end.
        let _ = self.inputs.send(Input::Worker(self.launch, event));
    }
}

/// Waits until the launch has printed `words`.
async fn await_line(
    launch: Launch,
    words: String,
    sources: [Source; 2],
    mut grew: watch::Receiver<u64>,
    inputs: mpsc::UnboundedSender<Input>,
) {
    // What was printed before this launch carries another launch's number.
    let mut follower = match Follower::start(&sources, From::Last(64)) {
        Ok((lines, follower)) => {
            if lines.iter().any(|line| line.launch == Some(launch) && line.text.contains(&words)) {
                let _ = inputs.send(Input::Worker(launch, WorkerEvent::ReadyProven { proof: CoreProof::LogLine }));
                return;
            }
            follower
        }
        Err(error) => {
            let why = in_full(&error);
            let _ = inputs.send(Input::Worker(launch, WorkerEvent::ReadyRefuted { why }));
            return;
        }
    };
    let why = format!("its log does not show {words:?} yet");
    let _ = inputs.send(Input::Worker(launch, WorkerEvent::ReadyRefuted { why }));
    loop {
        match follower.poll(std::time::Instant::now()) {
            Ok(batch) => {
                if batch.lines.iter().any(|line| line.launch == Some(launch) && line.text.contains(&words)) {
                    let _ = inputs.send(Input::Worker(launch, WorkerEvent::ReadyProven { proof: CoreProof::LogLine }));
                    return;
                }
                match batch.again {
                    PollAgain::Now => tokio::task::yield_now().await,
                    PollAgain::At(at) => drop(tokio::time::timeout_at(at.into(), grew.changed()).await),
                    PollAgain::OnGrowth => drop(grew.changed().await),
                }
            }
            Err(error) => {
                let why = in_full(&error);
                let _ = inputs.send(Input::Worker(launch, WorkerEvent::ReadyRefuted { why }));
                return;
            }
        }
    }
}

/// Runs a command until it succeeds.
async fn await_command(launch: Launch, command: Vec<String>, inputs: mpsc::UnboundedSender<Input>) {
    let mut pause = PAUSE_FIRST;
    loop {
        match run(launch, &command, TRY_WITHIN, &inputs).await {
            Ok(()) => {
                let _ = inputs.send(Input::Worker(launch, WorkerEvent::ReadyProven { proof: CoreProof::Command }));
                return;
            }
            Err(why) => {
                let _ = inputs.send(Input::Worker(launch, WorkerEvent::ReadyRefuted { why }));
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_LAST);
    }
}

async fn run(
    launch: Launch,
    command: &[String],
    within: Duration,
    inputs: &mpsc::UnboundedSender<Input>,
) -> Result<(), String> {
    let (reply, answer) = oneshot::channel();
    let name = command.first().cloned().unwrap_or_default();
    let request = RunCommand { launch, command: command.to_vec(), env: Vec::new(), reply };
    inputs.send(Input::RunCommand(request)).map_err(|_| "the daemon is ending".to_owned())?;
    match tokio::time::timeout(within, answer).await {
        Ok(Ok(Ok(Exit::Code(0)))) => Ok(()),
        Ok(Ok(Ok(exit))) => Err(format!("{name} {exit}")),
        Ok(Ok(Err(why))) => Err(format!("{name}: {why}")),
        Ok(Err(_)) => Err("the daemon is ending".to_owned()),
        Err(_) => Err(format!("{name} did not end within {within:?}")),
    }
}
