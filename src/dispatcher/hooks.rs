//! Hooks: commands that are run when something happens to an app.
//!
//! Owns which event is which occasion, the pace of each hook, and the processes of those that run. A hook is started
//! through the exec shim as a worker is, in the app's folder and as its user, and reaped by the one reaper; it gets the
//! event as JSON on its standard input, which is a memfd, so that nobody waits for it to read. What it prints goes
//! through a pipe, of which the last lines are kept.
//!
//! ```text
//!  event ──occasion──► hook ──pace──► Running ──ends with 0──────────► forgotten; an earlier failure too
//!                       │               ├── ends otherwise ──────────► hook_failed, kept for status
//!                       │               └── is late: its tree is killed ► hook_failed
//!                       └── too often, or too many run: held back, counted, told with the next
//! ```
//!
//! Nothing here is awaited by the loop. A daemon that is killed runs no hook a second time: one that ran then is ended
//! by its successor, as every process of ours that nobody recorded.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use agentd_core::id::{AppName, Launch};
use agentd_core::rate::{Limiter, Pace};
use agentd_protocol::events::{Event, EventKind};
use agentd_protocol::status::{AppState, DeploymentState, ExitReason};
use rustix::fs::{MemfdFlags, SeekFrom, memfd_create, seek};
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::oneshot;

use super::commit::in_full;
use super::launch::{OF_THE_USER, UMASK};
use super::{Child, Dispatcher, Input};
use crate::config::{Hook, Occasion};
use crate::process::plan::{ExecPlan, Secrets};
use crate::process::reaper::Exit;
use crate::process::spawn::{SpawnFds, spawn};
use crate::process::sys;
use crate::process::tree::{Identity, Tree};
use crate::revision::RevisionRecord;

/// Hooks that run at once; more are held back. A machine in trouble must not be given hundreds of processes to start.
const RUNNING_MAX: usize = 8;

/// Bytes of a hook's output that are kept, the last ones.
const OUTPUT_MAX: usize = 4096;

/// Lines of them.
const OUTPUT_LINES: usize = 20;

/// How long what a hook printed is read after its end.
const OUTPUT_WITHIN: Duration = Duration::from_millis(200);

/// The marks of hooks' processes: launches of workers are counted from 1 upwards, cuts from the other end downwards.
const FIRST_LAUNCH: u64 = u64::MAX / 2;

/// What the loop keeps of hooks.
#[derive(Debug, Default)]
pub(super) struct Hooks {
    /// Hooks started so far.
    started: u64,
    running: BTreeMap<u64, Running>,
    /// By app and place among its hooks.
    paces: BTreeMap<(AppName, usize), Limiter>,
    /// The last failure of each, until it succeeds.
    failures: BTreeMap<(AppName, usize), String>,
}

#[derive(Debug)]
struct Running {
    app: AppName,
    place: usize,
    on: Occasion,
    command: Vec<String>,
}

/// How a hook ended.
#[derive(Debug)]
pub struct HookEnd {
    /// Why it counts as failed, if it does.
    why: Option<String>,
    /// Its last lines.
    output: Vec<String>,
}

impl Dispatcher {
    /// Runs the hooks of an app that wait for what happened.
    pub(super) fn run_hooks(&mut self, app: &AppName, event: &Event) {
        let occasions = occasions(&event.event);
        if occasions.is_empty() {
            return;
        }
        let head = self.fleet.app(app).map(|app| app.head.revision);
        let record = head.and_then(|revision| self.apps.get(app)?.revisions.get(&revision)).cloned();
        let Some(record) = record else { return };
        for (place, hook) in record.config.hooks.iter().enumerate() {
            let Some(&on) = occasions.iter().find(|on| hook.on.contains(on)) else { continue };
            let full = self.hooks.running.len() >= RUNNING_MAX;
            let pace = self.hooks.paces.entry((app.clone(), place)).or_default();
            let decided = if full { pace.hold_back() } else { pace.admit(sys::boottime(), hook.rate) };
            match decided {
                Pace::Pass { held_back } => self.run_hook(app, place, on, event, held_back, &record),
                // Told once here, and how many it became with the next that runs.
                Pace::HeldBack { held_back: 1 } => {
                    tracing::warn!(%app, on = on.as_str(), program = hook.command.first(), "hook held back: too often");
                }
                Pace::HeldBack { .. } => {}
            }
        }
    }

    fn run_hook(
        &mut self,
        app: &AppName,
        place: usize,
        on: Occasion,
        event: &Event,
        held_back: u64,
        record: &RevisionRecord,
    ) {
        let Some(hook) = record.config.hooks.get(place) else { return };
        let program = hook.command.first().map_or("", String::as_str);
        if held_back > 0 {
            tracing::warn!(%app, on = on.as_str(), program, held_back, "hook runs again; others were suppressed");
        }
        let number = self.hooks.started;
        self.hooks.started += 1;
        let running = Running { app: app.clone(), place, on, command: hook.command.clone() };
        self.hooks.running.insert(number, running);
        match self.start_hook(number, on, hook, event, held_back, record) {
            Ok(watch) => {
                tracing::info!(%app, on = on.as_str(), program, "hook started");
                let inputs = self.inputs.clone();
                tokio::spawn(async move {
                    let end = watch.run().await;
                    // The loop is gone only at the very end.
                    let _ = inputs.send(Input::HookEnded(number, end));
                });
            }
            Err(why) => {
                // As an input: an event is being recorded just now.
                let _ = self.inputs.send(Input::HookEnded(number, HookEnd { why: Some(why), output: Vec::new() }));
            }
        }
    }

    fn start_hook(
        &mut self,
        number: u64,
        on: Occasion,
        hook: &Hook,
        event: &Event,
        held_back: u64,
        record: &RevisionRecord,
    ) -> Result<Watch, String> {
        let failed = |step: &str, error: &dyn std::error::Error| format!("{step}: {}", in_full(error));
        let json = serde_json::to_string(event).map_err(|error| failed("writing down the event", &error))?;
        let stdin = written(&json).map_err(|error| failed("writing down the event", &error))?;
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)
            .map_err(|errno| failed("making a pipe", &io::Error::from(errno)))?;
        // The program's end blocks, as programs expect; ours does not.
        rustix::io::ioctl_fionbio(&write, false).map_err(|errno| failed("making a pipe", &io::Error::from(errno)))?;
        let output = pipe::Receiver::from_owned_fd(read).map_err(|error| failed("reading a pipe", &error))?;
        let launch = Launch(FIRST_LAUNCH + number);
        let identity = Identity { instance: Arc::clone(&self.instance), launch };
        let mut env = record.environment.clone();
        if record.config.account.user.is_some() {
            OF_THE_USER.iter().for_each(|name| drop(env.remove(*name)));
        }
        env.extend(identity.variables());
        env.extend(variables(event, &json, on, held_back));
        let plan = ExecPlan {
            argv: hook.command.clone(),
            cwd: record.config.cwd.clone(),
            env: env.into_iter().collect(),
            umask: record.config.umask.unwrap_or(UMASK),
            limits: Vec::new(),
            soft_files: self.files,
            cgroup: None,
            listen_names: Vec::new(),
            listen_pid: false,
            node_channel: false,
            account: record.config.account.clone(),
            secrets: Secrets::default(),
            stdin: true,
        };
        let fds = SpawnFds {
            stdout: write.as_fd(),
            stderr: write.as_fd(),
            listeners: Vec::new(),
            stdin: Some(stdin.as_fd()),
        };
        let child = spawn(&mut self.launcher, &plan, &fds).map_err(|error| failed("making its process", &error))?;
        let tree = Tree::of_child(identity, child.pid, None);
        let (reply, ended) = oneshot::channel();
        self.children.insert(child.pid, Child::Command(reply));
        Ok(Watch { output, ended, report: child.report, tree, within: hook.timeout })
    }

    /// A hook came to its end.
    pub(super) fn hook_ended(&mut self, number: u64, end: HookEnd) {
        let Some(Running { app, place, on, command }) = self.hooks.running.remove(&number) else { return };
        let HookEnd { why, output } = end;
        let key = (app.clone(), place);
        let Some(why) = why else {
            tracing::info!(%app, on = on.as_str(), program = command.first(), "hook done");
            self.hooks.failures.remove(&key);
            return;
        };
        let last = output.last().map(|line| format!(": {line}")).unwrap_or_default();
        let program = command.first().cloned().unwrap_or_default();
        tracing::warn!(%app, on = on.as_str(), program, why, output = output.join("\n"), "hook failed");
        let note = format!("the hook of {app} for {} failed: {program} {why}{last}", on.as_str());
        self.hooks.failures.insert(key, note);
        self.record(Some(&app), None, EventKind::HookFailed { on: on.as_str().to_owned(), command, why, output });
    }

    /// What the operator should know of hooks.
    pub(super) fn hook_notes(&self) -> Vec<String> {
        let held = self.hooks.paces.iter().filter(|(_, pace)| pace.held_back() > 0);
        let held = held.map(|((app, place), pace)| {
            format!("hook {} of {app} was suppressed {} times, beyond its rate", place + 1, pace.held_back())
        });
        self.hooks.failures.values().cloned().chain(held).collect()
    }

    /// An app is gone, and its hooks with it.
    pub(super) fn forget_hooks(&mut self, app: &AppName) {
        self.hooks.paces.retain(|(of, _), _| of != app);
        self.hooks.failures.retain(|(of, _), _| of != app);
    }
}

/// What an event is to hooks.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "most events are no occasion; each that is stands above the last line"
)]
fn occasions(event: &EventKind) -> Vec<Occasion> {
    match event {
        EventKind::WorkerExited { reason, .. } if is_crash(*reason) => vec![Occasion::Crash],
        EventKind::WorkerFailed { .. } => vec![Occasion::Park],
        EventKind::ProbeFailed { .. } => vec![Occasion::Unhealthy],
        EventKind::WorkerOutgrown { .. } => vec![Occasion::Memory],
        EventKind::DeploymentFinished { state: DeploymentState::Done, .. } => vec![Occasion::Reload],
        EventKind::DeploymentFinished { .. } => vec![Occasion::Rollback, Occasion::Reload],
        EventKind::AppState { to: AppState::Degraded | AppState::Failed, .. } => vec![Occasion::Degraded],
        EventKind::AppState { from: AppState::Degraded | AppState::Failed, to: AppState::Running, .. } => {
            vec![Occasion::Recovered]
        }
        EventKind::LogsDropping { .. } => vec![Occasion::Logs],
        // Hooks wait for what somebody may have to do something about.
        _ => Vec::new(),
    }
}

const fn is_crash(reason: ExitReason) -> bool {
    match reason {
        ExitReason::Crashed
        | ExitReason::OutOfMemory
        | ExitReason::PidsLimit
        | ExitReason::CpuTimeLimit
        | ExitReason::FileSizeLimit
        | ExitReason::ReadyTimeout
        | ExitReason::Unhealthy
        | ExitReason::Watchdog
        | ExitReason::StartFailed => true,
        ExitReason::Finished
        | ExitReason::MemoryCeiling
        | ExitReason::Stop
        | ExitReason::Restart
        | ExitReason::Delete
        | ExitReason::Scale
        | ExitReason::Reload
        | ExitReason::Rollback
        | ExitReason::Shutdown
        | ExitReason::Unknown => false,
    }
}

/// The event in variables, for hooks that are one line of shell.
fn variables(event: &Event, json: &str, on: Occasion, held_back: u64) -> Vec<(String, String)> {
    let value: serde_json::Value = serde_json::from_str(json).unwrap_or_default();
    let word = |name: &str| value["event"][name].as_str().unwrap_or_default().to_owned();
    let why = match word("why") {
        why if why.is_empty() => word("reason"),
        why => why,
    };
    [
        ("AGENTD_EVENT_ON", on.as_str().to_owned()),
        ("AGENTD_EVENT_TYPE", word("type")),
        ("AGENTD_EVENT_SEQ", event.seq.to_string()),
        ("AGENTD_EVENT_AT", event.at.to_string()),
        ("AGENTD_EVENT_APP", event.app.clone().unwrap_or_default()),
        ("AGENTD_EVENT_WORKER", event.worker.clone().unwrap_or_default()),
        ("AGENTD_EVENT_WHY", why.replace('\0', "")),
        ("AGENTD_EVENT_SUPPRESSED", held_back.to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec()
}

/// A line in a file of its own in memory, to be read from its beginning.
fn written(line: &str) -> io::Result<OwnedFd> {
    let mut file = std::fs::File::from(memfd_create("agentd-event", MemfdFlags::CLOEXEC)?);
    writeln!(file, "{line}")?;
    seek(&file, SeekFrom::Start(0))?;
    Ok(file.into())
}

/// A hook that runs.
struct Watch {
    output: pipe::Receiver,
    ended: oneshot::Receiver<Result<Exit, String>>,
    report: crate::process::spawn::Report,
    tree: Tree,
    within: Duration,
}

impl Watch {
    async fn run(self) -> HookEnd {
        let Self { mut output, ended, report, tree, within } = self;
        let mut last = VecDeque::new();
        let by = tokio::time::Instant::now() + within;
        let outcome = {
            let whole = async {
                report.outcome().await.map_err(|failure| failure.to_string())?;
                ended.await.map_err(|_| "the daemon is ending".to_owned())?
            };
            tokio::pin!(whole);
            tokio::select! {
                outcome = tokio::time::timeout_at(by, &mut whole) => outcome,
                // A pipe that ended, or failed: what is left is to wait.
                () = listen(&mut output, &mut last) => tokio::time::timeout_at(by, whole).await,
            }
        };
        // What it started is of no use to anybody after its end, and must not hold the pipe.
        if let Err(error) = tree.kill() {
            tracing::warn!(error = in_full(&error), "what a hook left behind may live on");
        }
        let _ = tokio::time::timeout(OUTPUT_WITHIN, listen(&mut output, &mut last)).await;
        let why = match outcome {
            Ok(Ok(Exit::Code(0))) => None,
            Ok(Ok(exit)) => Some(format!("ended with {exit}")),
            Ok(Err(why)) => Some(format!("could not be run: {why}")),
            Err(_) => Some(format!("did not end within {within:?} and was killed")),
        };
        HookEnd { why, output: lines(last) }
    }
}

/// Reads until the end, keeping the last bytes.
async fn listen(output: &mut pipe::Receiver, last: &mut VecDeque<u8>) {
    let mut block = [0; 1024];
    while let Ok(got @ 1..) = output.read(&mut block).await {
        last.extend(&block[..got]);
        last.drain(..last.len().saturating_sub(OUTPUT_MAX));
    }
}

fn lines(bytes: VecDeque<u8>) -> Vec<String> {
    let bytes = Vec::from(bytes);
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(OUTPUT_LINES)..].iter().map(|line| (*line).to_owned()).collect()
}
