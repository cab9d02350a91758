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
//! Nothing here is awaited by the loop; what a deployment waits for is `before`'s. A daemon that is killed runs no hook a
//! second time: what it ran then goes on to its own end, unless a deployment waits for it.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use agentd_core::id::{AppName, Operation};
use agentd_core::rate::{Limiter, Pace};
use agentd_protocol::control::HookState;
use agentd_protocol::events::{Event, EventKind};
use agentd_protocol::status::{AppState, DeploymentState, ExitReason, RefreshOutcome};
use rustix::fs::{MemfdFlags, SeekFrom, memfd_create, seek};
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::net::unix::pipe;
use tokio::sync::oneshot;

use super::before::Awaited;
use super::hook_end::{HookEnd, Watch};
use super::launch::{OF_THE_USER, UMASK};
use super::{Child, Dispatcher, Input};
use crate::causes::in_full;
use crate::config::{Hook, Occasion};
use crate::process::plan::{ExecPlan, Secrets};
use crate::process::spawn::{Company, SpawnFds, spawn};
use crate::process::sys;
use crate::process::tree::{Identity, Tree};
use crate::revision::RevisionRecord;

/// Hooks that run at once; more are held back. A machine in trouble must not be given hundreds of processes to start.
const RUNNING_MAX: usize = 8;

/// What the loop keeps of hooks.
#[derive(Debug, Default)]
pub(super) struct Hooks {
    /// Hooks started so far.
    started: u64,
    running: BTreeMap<u64, Held>,
    /// By app and place among its hooks.
    paces: BTreeMap<(AppName, usize), Limiter>,
    /// The last failure of each, until it succeeds.
    failures: BTreeMap<(AppName, usize), String>,
}

/// A hook that runs, or is about to.
#[derive(Clone, Debug)]
pub(super) struct Running {
    pub(super) app: AppName,
    /// Which of the app's hooks, from 0.
    pub(super) place: usize,
    pub(super) on: Occasion,
    pub(super) command: Vec<String>,
    /// The deployment that it is about.
    pub(super) part: Option<Part>,
}

/// What a hook is to a deployment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub(super) id: Operation,
    /// What waits for it; none where it is only told.
    pub(super) awaited: Option<Awaited>,
    pub(super) percent: Option<u8>,
}

/// One that runs, and what ends it before its time: it is dropped.
#[derive(Debug)]
struct Held {
    running: Running,
    /// Never sent.
    called_off: Option<oneshot::Sender<Infallible>>,
}

impl Dispatcher {
    /// Runs the hooks of an app that wait for what happened.
    pub(super) fn run_hooks(&mut self, app: &AppName, event: &Event) {
        let mut occasions = occasions(&event.event);
        if self.is_warm_after_steps(app, &event.event) {
            occasions.clear();
        }
        if occasions.is_empty() {
            return;
        }
        let Some(record) = self.record_of_hooks(app, &event.event) else { return };
        for (place, hook) in record.config.hooks.iter().enumerate() {
            let Some(&on) = occasions.iter().find(|on| hook.on.contains(on)) else { continue };
            let full = self.hooks.running.len() >= RUNNING_MAX;
            let pace = self.hooks.paces.entry((app.clone(), place)).or_default();
            let decided = if full { pace.hold_back() } else { pace.admit(sys::boottime(), hook.rate) };
            match decided {
                Pace::Pass { held_back } => self.tell_hook(app, place, on, event, held_back, &record),
                // Told once here, and how many it became with the next that runs.
                Pace::HeldBack { held_back: 1 } => {
                    tracing::warn!(%app, on = on.as_str(), program = hook.command.first(), "hook held back: too often");
                }
                Pace::HeldBack { .. } => {}
            }
        }
    }

    /// Whether a canary is warm: its shares are those of its last step, of which it was told.
    fn is_warm_after_steps(&self, app: &AppName, event: &EventKind) -> bool {
        let warm = matches!(event, EventKind::DeploymentStep { stage: Some(stage), .. } if stage == "warm");
        let rollout = self.fleet.app(app).and_then(|app| app.head.rollout.as_ref());
        warm && rollout.is_some_and(|rollout| !rollout.plan.steps.is_empty())
    }

    /// The configuration whose hooks are run: that of a deployment while one tells of its steps, else the one that serves.
    fn record_of_hooks(&self, app: &AppName, event: &EventKind) -> Option<Arc<RevisionRecord>> {
        let head = &self.fleet.app(app)?.head;
        let step = matches!(event, EventKind::DeploymentStep { .. });
        let brought = head.rollout.as_ref().filter(|_| step).map(|rollout| rollout.to.revision);
        self.apps.get(app)?.revisions.get(&brought.unwrap_or(head.revision)).cloned()
    }

    /// Tells a hook of an event; nobody waits for it.
    fn tell_hook(
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
        let part = part_of(&event.event);
        let running = Running { app: app.clone(), place, on, command: hook.command.clone(), part };
        self.remember_hook(&running);
        let json = serde_json::to_string(event).expect("an event is plain data");
        let mut variables = variables(event, &json, on, held_back);
        if let Some(part) = part {
            let percent = part.percent.map_or_else(String::new, |percent| percent.to_string());
            variables.push(("AGENTD_DEPLOYMENT".to_owned(), part.id.to_string()));
            variables.push(("AGENTD_DEPLOYMENT_PERCENT".to_owned(), percent));
        }
        self.run_hook(running, hook, &json, variables, record);
    }

    /// Runs a hook: `line` on its standard input, `variables` beside the app's environment.
    pub(super) fn run_hook(
        &mut self,
        running: Running,
        hook: &Hook,
        line: &str,
        variables: Vec<(String, String)>,
        record: &RevisionRecord,
    ) {
        let number = self.hooks.started;
        self.hooks.started += 1;
        let (app, on) = (running.app.clone(), running.on);
        let started = self.start_hook(&running, hook.timeout, line, variables, record);
        let (called_off, watched) = match started {
            Ok((watch, called_off)) => (Some(called_off), Ok(watch)),
            Err(why) => (None, Err(why)),
        };
        self.hooks.running.insert(number, Held { running, called_off });
        match watched {
            Ok(watch) => {
                tracing::info!(%app, on = on.as_str(), program = hook.command.first(), "hook started");
                let inputs = self.inputs.clone();
                tokio::spawn(async move {
                    let end = watch.run().await;
                    // The loop is gone only at the very end.
                    let _ = inputs.send(Input::HookEnded(number, end));
                });
            }
            Err(why) => {
                // As an input: an event is being recorded just now.
                let end = HookEnd { state: HookState::Failed, why: Some(why), output: Vec::new() };
                let _ = self.inputs.send(Input::HookEnded(number, end));
            }
        }
    }

    fn start_hook(
        &mut self,
        running: &Running,
        within: Duration,
        line: &str,
        variables: Vec<(String, String)>,
        record: &RevisionRecord,
    ) -> Result<(Watch, oneshot::Sender<Infallible>), String> {
        let failed = |step: &str, error: &dyn std::error::Error| format!("{step}: {}", in_full(error));
        let stdin = written(line).map_err(|error| failed("writing down the event", &error))?;
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)
            .map_err(|errno| failed("making a pipe", &io::Error::from(errno)))?;
        // The program's end blocks, as programs expect; ours does not.
        rustix::io::ioctl_fionbio(&write, false).map_err(|errno| failed("making a pipe", &io::Error::from(errno)))?;
        let output = pipe::Receiver::from_owned_fd(read).map_err(|error| failed("reading a pipe", &error))?;
        let launch = self.marks.draw();
        let identity = Identity { instance: Arc::clone(&self.instance), launch };
        let mut env = record.environment.clone();
        if record.config.account.user.is_some() {
            OF_THE_USER.iter().for_each(|name| drop(env.remove(*name)));
        }
        env.extend(identity.variables());
        env.extend(variables);
        let plan = ExecPlan {
            argv: running.command.clone(),
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
        let child = spawn(&mut self.launcher, &plan, &fds, Company::Others)
            .map_err(|error| failed("making its process", &error))?;
        let tree = Tree::of_child(identity, child.pid, None);
        let (reply, ended) = oneshot::channel();
        self.children.insert(child.pid, Child::Command(reply));
        let (sender, called_off) = oneshot::channel();
        Ok((Watch { output, ended, called_off, report: child.report, tree, within }, sender))
    }

    /// A hook came to its end.
    pub(super) fn hook_ended(&mut self, number: u64, end: HookEnd) {
        let Some(Held { running, .. }) = self.hooks.running.remove(&number) else { return };
        let HookEnd { state, why, output } = end;
        self.remember_hook_end(&running, state, why.clone(), output.clone());
        let (app, on, program) = (&running.app, running.on, running.command.first().cloned().unwrap_or_default());
        let awaited = running.part.and_then(|part| Some((part.id, part.awaited?)));
        if let Some((id, awaited)) = awaited {
            self.awaited_hook_ended(&running, id, awaited, why.as_deref(), &output);
        }
        let key = (app.clone(), running.place);
        let Some(why) = why else {
            tracing::info!(%app, on = on.as_str(), program, "hook done");
            self.hooks.failures.remove(&key);
            return;
        };
        let last = output.last().map(|line| format!(": {line}")).unwrap_or_default();
        tracing::warn!(%app, on = on.as_str(), program, why, output = output.join("\n"), "hook failed");
        if awaited.is_none() {
            let note = format!("the hook of {app} for {} failed: {program} {why}{last}", on.as_str());
            self.hooks.failures.insert(key, note);
        }
        let (app, command, on) = (running.app, running.command, on.as_str().to_owned());
        self.record(Some(&app), None, EventKind::HookFailed { on, command, why, output });
    }

    /// A deployment waits no more: what it waited for is ended.
    pub(super) fn call_off_hooks(&mut self, id: Operation) {
        for held in self.hooks.running.values_mut().filter(|held| held.running.is_awaited_by(id)) {
            held.called_off = None;
        }
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

impl Hooks {
    /// Whether this deployment waits for one that runs.
    pub(super) fn is_awaited(&self, id: Operation) -> bool {
        self.running.values().any(|held| held.running.is_awaited_by(id))
    }

    /// Whether one runs for this deployment.
    pub(super) fn runs_for(&self, id: Operation) -> bool {
        self.running.values().any(|held| held.running.part.is_some_and(|part| part.id == id))
    }
}

impl Running {
    fn is_awaited(&self) -> bool {
        self.part.is_some_and(|part| part.awaited.is_some())
    }

    fn is_awaited_by(&self, id: Operation) -> bool {
        self.is_awaited() && self.part.is_some_and(|part| part.id == id)
    }
}

/// The deployment that an event tells of, to a hook that is run for its occasion.
#[expect(clippy::wildcard_enum_match_arm, reason = "the other events are no deployment's")]
fn part_of(event: &EventKind) -> Option<Part> {
    match event {
        EventKind::DeploymentStep { id, percent, .. } => {
            Some(Part { id: Operation(*id), awaited: None, percent: *percent })
        }
        EventKind::DeploymentFinished { id, .. } => Some(Part { id: Operation(*id), awaited: None, percent: None }),
        _ => None,
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
        // Only these give it more of the new connections.
        EventKind::DeploymentStep { stage: Some(stage), .. } if stage == "sharing" || stage == "warm" => {
            vec![Occasion::AfterStage]
        }
        EventKind::WorkerRefreshed { outcome: RefreshOutcome::Failed, .. } => vec![Occasion::RefreshFailed],
        EventKind::DeploymentFinished { state: DeploymentState::Done, .. } => {
            vec![Occasion::Deployed, Occasion::Reload]
        }
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
