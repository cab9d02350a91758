//! One app as the user configured it, resolved: every default filled in, every path absolute, every amount a number.
//!
//! Owns the shape and what core must know of it ([`AppConfig::policy`]). Kept as JSON with each revision, so a field
//! added later needs `#[serde(default)]`; two values that are equal mean a reload with nothing changed. What an
//! `env_file` holds is not part of it, because that is read at each start.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use agentd_core::gate::panel::Rules;
use agentd_core::id::AppName;
use agentd_core::policy::{
    AppPolicy, DrainBy, GracePolicy, Lanes, LivePolicy, ReadyPolicy, RefreshPolicy, ReloadPolicy, RestartPolicy,
    StopPolicy,
};
use agentd_core::task::TaskPolicy;
use camino::Utf8PathBuf;
use serde::{Deserialize, Serialize};

use super::hooks::{Hook, Occasion};
use super::limits::Limits;
use super::logs::LogConfig;
use super::placeholder;
use super::refresh::Refresh;
use super::releases::Releases;
use super::secrets::SecretSource;
use super::signal::StopSignal;
use super::upgrade::Upgrade;
use crate::process::account::Account;
use crate::schedule::Schedule;
use crate::sockets::ListenAddr;
use crate::tasks::{Governed, Retention};

/// One app.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AppConfig {
    /// Its name, unique within an instance whatever its kind.
    pub name: AppName,
    /// Agent or skill.
    pub kind: AppKind,
    /// Program and arguments, at least the program; empty where the releases bring it. Placeholders are still in it: [`AppConfig::expand_command`].
    pub command: Vec<String>,
    /// Working directory of the workers, absolute.
    pub cwd: Utf8PathBuf,
    /// Environment variables; they win over `env_file`. Placeholders are still in the values.
    pub env: BTreeMap<String, String>,
    /// Files of environment variables, absolute; a later one wins over an earlier one.
    pub env_file: Vec<Utf8PathBuf>,
    /// How many workers serve; at least 1.
    pub workers: u32,
    /// Where the app listens, by listener name.
    pub listen: BTreeMap<String, ListenAddr>,
    /// Whether workers are told `LISTEN_PID`. Off for wrappers that fork, whose child would take it for another's.
    pub listen_pid: bool,
    /// The channel to its supervisor that it is given beside the notify socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipc: Option<Ipc>,
    /// How the sockets are shared out. [`Balance::Shared`] whenever a Unix socket is listened to.
    pub balance: Balance,
    /// What proves that a worker is ready.
    pub ready: Ready,
    /// What proves that it still lives.
    pub live: Option<Live>,
    /// What follows an exit that nobody asked for.
    pub restart: RestartPolicy,
    /// How a worker is asked to end.
    pub stop: Stop,
    /// How long a drain may take.
    pub grace: GracePolicy,
    /// What is done about its tasks, and how much is kept of them.
    #[serde(default)]
    pub tasks: Tasks,
    /// Room for a rollout.
    pub reload: ReloadPolicy,
    /// How a new release takes the place of the old one.
    #[serde(default)]
    pub upgrade: Upgrade,
    /// What a new release must hold to.
    #[serde(default)]
    pub gates: Rules,
    /// Where its releases are cut from; none for an app that runs in place.
    #[serde(default)]
    pub releases: Option<Releases>,
    /// What one worker may use.
    pub limits: Limits,
    /// Where its output goes.
    pub log: LogConfig,
    /// What is run when something happens to it.
    #[serde(default)]
    pub hooks: Vec<Hook>,
    /// When the clock reloads it.
    #[serde(default)]
    pub cron_reload: Option<Schedule>,
    /// Patterns of files below `cwd` whose change reloads it; with `!` of those whose change does not.
    #[serde(default)]
    pub watch: Vec<String>,
    /// How its workers renew what they know.
    #[serde(default)]
    pub refresh: Option<Refresh>,
    /// Apps that must have been ready once before this one starts.
    #[serde(default)]
    pub needs: BTreeSet<AppName>,
    /// File mode mask, at most 0o777; none leaves the daemon's.
    pub umask: Option<u32>,
    /// Who its workers run as.
    #[serde(default)]
    pub account: Account,
    /// Where its secrets are, by name. What they are is read by each worker's start and known to nobody else.
    #[serde(default)]
    pub secret: BTreeMap<String, SecretSource>,
}

/// What an app is to its users.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AppKind {
    /// Long-lived, talks to users.
    Agent,
    /// A tool that agents call.
    Skill(SkillKind),
}

impl AppKind {
    /// `agent` or `skill`, as in the status document.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Skill(_) => "skill",
        }
    }
}

/// How a skill is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SkillKind {
    /// It owns a socket.
    Service,
    /// It takes tasks and owns no socket.
    Worker,
}

/// How listening sockets are shared out among workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Balance {
    /// A queue a worker.
    Spread,
    /// One queue, from which all workers accept.
    Shared,
}

/// When a started worker counts as ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// The proof.
    pub check: ReadyCheck,
    /// Longest wait for it.
    pub timeout: Duration,
}

/// What proves that a worker is ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReadyCheck {
    /// Its program was executed.
    Running,
    /// It holds its listening sockets and waits on them.
    Listening,
    /// It says `READY=1` over `NOTIFY_SOCKET`.
    Notify,
    /// It says `ready` over `AGENTD_WORKER_SOCKET`.
    Protocol,
    /// It answers a request through its own socket.
    Http(HttpCheck),
    /// A line that it prints contains this text.
    Log(String),
    /// This command, run in `cwd` with the worker's environment, ends with code 0.
    Command(Vec<String>),
}

/// Proof of life, again and again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Live {
    /// The proof.
    pub check: LiveCheck,
    /// Pause between the end of one probe and the start of the next. For a watchdog: the longest silence.
    pub every: Duration,
    /// Longest wait for one probe's answer.
    pub timeout: Duration,
    /// How many in a row must fail before the worker is replaced; 1 for a watchdog.
    pub failures: u32,
}

/// What proves that a worker lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LiveCheck {
    /// It answers a request through its own socket.
    Http(HttpCheck),
    /// It accepts a connection on this listener.
    Tcp {
        /// The listener's name.
        on: String,
    },
    /// This command ends with code 0.
    Command(Vec<String>),
    /// It says `WATCHDOG=1` at least once in [`Live::every`]; it is told so by `WATCHDOG_USEC`.
    Watchdog,
}

/// One HTTP request and the answers that count as good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpCheck {
    /// Path and query; starts with `/`.
    pub path: String,
    /// Name of the stream listener to ask on.
    pub on: String,
    /// Lowest good status.
    pub status_min: u16,
    /// Highest good status.
    pub status_max: u16,
}

/// A runtime's own channel to its supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ipc {
    /// Node's: `NODE_CHANNEL_FD`, JSON by the line.
    Node,
}

/// How a worker is asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    /// The signal that asks.
    pub signal: StopSignal,
    /// Whether Node's message `shutdown` is sent first, and the signal at half of the time only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub message: bool,
    /// When it is sent.
    pub drain: DrainBy,
    /// Longest wait from the signal to the exit, where shorter than what is left of the grace.
    pub timeout: Option<Duration>,
}

/// What is done about an app's tasks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tasks {
    /// What core must know.
    pub policy: TaskPolicy,
    /// How much is kept of those that are over.
    pub retention: Retention,
    /// The version of the checkpoints that it writes; it reads older ones. None reads all.
    #[serde(default)]
    pub state_version: Option<u32>,
}

impl AppConfig {
    /// An app with every default: an agent with one worker that listens on nothing.
    #[must_use]
    pub fn new(name: AppName, command: Vec<String>, cwd: Utf8PathBuf) -> Self {
        let policy = AppPolicy::default();
        Self {
            name,
            kind: AppKind::Agent,
            command,
            cwd,
            env: BTreeMap::new(),
            env_file: Vec::new(),
            workers: policy.workers,
            listen: BTreeMap::new(),
            listen_pid: true,
            ipc: None,
            balance: Balance::Spread,
            ready: Ready { check: ReadyCheck::Running, timeout: policy.ready.timeout },
            live: None,
            restart: policy.restart,
            stop: Stop {
                signal: StopSignal::TERM,
                message: false,
                drain: policy.stop.drain,
                timeout: policy.stop.timeout,
            },
            grace: policy.grace,
            tasks: Tasks::default(),
            reload: policy.reload,
            upgrade: Upgrade::default(),
            gates: Rules::default(),
            releases: None,
            limits: Limits::default(),
            log: LogConfig::default(),
            hooks: Vec::new(),
            cron_reload: None,
            watch: Vec::new(),
            refresh: None,
            needs: BTreeSet::new(),
            umask: None,
            account: Account::default(),
            secret: BTreeMap::new(),
        }
    }

    /// What core must know to decide about this app.
    #[must_use]
    pub fn policy(&self) -> AppPolicy {
        AppPolicy {
            workers: self.workers,
            lanes: self.lanes(),
            ready: ReadyPolicy { timeout: self.ready.timeout },
            live: self
                .live
                .as_ref()
                .filter(|live| live.check != LiveCheck::Watchdog)
                .map(|live| LivePolicy { every: live.every, failures: live.failures }),
            watchdog: self.live.as_ref().filter(|live| live.check == LiveCheck::Watchdog).map(|live| live.every),
            restart: self.restart,
            stop: StopPolicy { drain: self.stop.drain, timeout: self.stop.timeout },
            grace: self.grace,
            reload: self.reload,
            needs: self.needs.clone(),
            refresh: self.refresh.as_ref().map(|refresh| RefreshPolicy { timeout: refresh.timeout }),
            prepares: self.hooks.iter().any(|hook| hook.on.contains(&Occasion::BeforeDeployment)),
        }
    }

    /// What governs its tasks.
    #[must_use]
    pub fn governed(&self) -> Governed {
        Governed { tasks: self.tasks.policy.clone(), grace: self.grace, retention: self.tasks.retention }
    }

    /// How the app's sockets are shared out, the kernel's limits considered.
    #[must_use]
    pub fn lanes(&self) -> Lanes {
        if self.listen.is_empty() {
            return Lanes::None;
        }
        match self.balance {
            Balance::Spread if self.listen.values().any(ListenAddr::is_unix) => Lanes::PerGeneration,
            Balance::Spread => Lanes::PerWorker,
            Balance::Shared => Lanes::PerGeneration,
        }
    }

    /// How sockets are shared out where the user said nothing: a Unix socket has one accept queue.
    #[must_use]
    pub fn default_balance(listen: &BTreeMap<String, ListenAddr>) -> Balance {
        if listen.values().any(ListenAddr::is_unix) { Balance::Shared } else { Balance::Spread }
    }

    /// Whether the command names the descriptor of every listener by `{fd:NAME}`, so that nobody has to look for them
    /// in the environment.
    #[must_use]
    pub fn names_every_listener(&self) -> bool {
        let named = |name: &String| self.command.iter().any(|word| placeholder::names_fd(word, name));
        !self.listen.is_empty() && self.listen.keys().all(named)
    }

    /// The stream listener that a readiness proof knocks at where none is named: `http` when there is one of that name,
    /// else the first by name. None when the app listens on nothing, or on datagrams only.
    #[must_use]
    pub fn first_stream_listener(&self) -> Option<String> {
        let streams = || self.listen.iter().filter(|(_, addr)| addr.is_stream()).map(|(name, _)| name);
        streams().find(|name| *name == "http").or_else(|| streams().next()).cloned()
    }

    /// What proves readiness where the user named nothing.
    #[must_use]
    pub fn default_ready(listen: &BTreeMap<String, ListenAddr>) -> ReadyCheck {
        if listen.is_empty() { ReadyCheck::Running } else { ReadyCheck::Listening }
    }
}
