//! What a client may ask for: one type a method.
//!
//! [`Request`] is what a server matches on; [`Command`] ties each type to its reply, for clients.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::apply::{Applied, ApplyParams};
use super::deployments::{DeploymentList, DeploymentParams, DeploymentReport, DeploymentsParams};
use super::releases::{Releases, ReleasesParams};
use super::reply::{AppDetails, Changed, DaemonStop, DaemonView, HelloReply, LogsEnd, Signalled, Steered, Upgraded};
use super::supervisor::DaemonUpgrade;
use super::tasks::{
    EffectList, EffectsParams, GraceParams, GraceView, SessionList, SessionsParams, TaskChangeParams, TaskChanged,
    TaskList, TasksParams, TasksPruneParams, TasksUsage, TasksUsageParams,
};
use crate::status::{StatusDocument, Strategy};

/// A method and its parameters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "method", content = "params", rename_all = "snake_case")]
pub enum Request {
    /// Who are you? Answered with [`HelloReply`].
    Hello(HelloParams),
    /// Start apps. Answered with [`Changed`].
    Start(StartParams),
    /// Drain and end the workers of apps, and keep the apps. Answered with [`Changed`].
    Stop(StopParams),
    /// Stop, then start: with a gap. Answered with [`Changed`].
    Restart(RestartParams),
    /// Stop apps and forget them. Answered with [`Changed`].
    Delete(DeleteParams),
    /// Want another number of workers. Answered with [`Changed`].
    Scale(ScaleParams),
    /// Send a signal to the main process of every worker. Answered with [`Signalled`].
    Signal(SignalParams),
    /// Replace workers by a new generation, without a gap. Answered with [`Changed`].
    Reload(ReloadParams),
    /// Let workers renew what they know, one after the other, without another process. Answered with [`Changed`].
    Refresh(RefreshParams),
    /// Put another release in an app's place. Answered with [`Changed`], or with [`UpgradePlan`](super::UpgradePlan) when it is only asked
    /// what would happen.
    Upgrade(UpgradeParams),
    /// Put a release that served before in an app's place. Answered with [`Changed`].
    Rollback(RollbackParams),
    /// The releases of an app. Answered with [`Releases`].
    Releases(ReleasesParams),
    /// What was deployed. Answered with [`DeploymentList`].
    Deployments(DeploymentsParams),
    /// One deployment from its beginning on. Answered with [`DeploymentReport`].
    Deployment(DeploymentParams),
    /// Let a deployment take its next step. Answered with [`Steered`].
    Promote(PromoteParams),
    /// Let a deployment stand where it is. Answered with [`Steered`].
    Pause(PauseParams),
    /// Let it go on. Answered with [`Steered`].
    Resume(ResumeParams),
    /// Take it back. Answered with [`Steered`].
    Abort(AbortParams),
    /// Make the apps as a configuration says, with the least that it takes. Answered with [`Applied`].
    Apply(ApplyParams),
    /// Answered with [`StatusDocument`].
    Status(StatusParams),
    /// Everything about one app. Answered with [`AppDetails`].
    Describe(DescribeParams),
    /// What workers printed: one `log` notice a line, then [`LogsEnd`].
    Logs(LogsParams),
    /// Tasks of apps. Answered with [`TaskList`].
    #[serde(rename = "tasks.list")]
    Tasks(TasksParams),
    /// Retry, discard or cancel a task. Answered with [`TaskChanged`].
    #[serde(rename = "tasks.change")]
    TaskChange(TaskChangeParams),
    /// Effects of tasks. Answered with [`EffectList`].
    #[serde(rename = "effects.list")]
    Effects(EffectsParams),
    /// Sessions of an app. Answered with [`SessionList`].
    #[serde(rename = "sessions.list")]
    Sessions(SessionsParams),
    /// What an app's tasks take. Answered with [`GraceView`].
    #[serde(rename = "grace")]
    Grace(GraceParams),
    /// What is kept of tasks. Answered with [`TasksUsage`].
    #[serde(rename = "tasks.usage")]
    TasksUsage(TasksUsageParams),
    /// Let go of tasks that are over. Answered with [`TasksUsage`].
    #[serde(rename = "tasks.prune")]
    TasksPrune(TasksPruneParams),
    /// About the daemon itself. Answered with [`DaemonView`].
    #[serde(rename = "daemon.status")]
    DaemonStatus(DaemonStatusParams),
    /// Drain and end every worker, then the daemon. Answered with [`DaemonStop`].
    #[serde(rename = "daemon.stop")]
    DaemonStop(DaemonStopParams),
    /// Put another binary in the daemon's place; every worker goes on. A refusal is an answer; otherwise the connection
    /// ends, and the new daemon tells of itself in `daemon.status`. See [`DaemonUpgrade`].
    #[serde(rename = "daemon.upgrade")]
    DaemonUpgrade(DaemonUpgradeParams),
}

impl Request {
    /// Every method of this version.
    pub const METHODS: [&str; 32] = [
        "hello",
        "start",
        "stop",
        "restart",
        "delete",
        "scale",
        "signal",
        "reload",
        "refresh",
        "upgrade",
        "rollback",
        "releases",
        "deployments",
        "deployment",
        "promote",
        "pause",
        "resume",
        "abort",
        "apply",
        "status",
        "describe",
        "logs",
        "tasks.list",
        "tasks.change",
        "effects.list",
        "sessions.list",
        "grace",
        "tasks.usage",
        "tasks.prune",
        "daemon.status",
        "daemon.stop",
        "daemon.upgrade",
    ];

    /// The method's name on the wire.
    #[must_use]
    pub const fn method(&self) -> &'static str {
        match self {
            Self::Hello(_) => "hello",
            Self::Start(_) => "start",
            Self::Stop(_) => "stop",
            Self::Restart(_) => "restart",
            Self::Delete(_) => "delete",
            Self::Scale(_) => "scale",
            Self::Signal(_) => "signal",
            Self::Reload(_) => "reload",
            Self::Refresh(_) => "refresh",
            Self::Upgrade(_) => "upgrade",
            Self::Rollback(_) => "rollback",
            Self::Releases(_) => "releases",
            Self::Deployments(_) => "deployments",
            Self::Deployment(_) => "deployment",
            Self::Promote(_) => "promote",
            Self::Pause(_) => "pause",
            Self::Resume(_) => "resume",
            Self::Abort(_) => "abort",
            Self::Apply(_) => "apply",
            Self::Status(_) => "status",
            Self::Describe(_) => "describe",
            Self::Logs(_) => "logs",
            Self::Tasks(_) => "tasks.list",
            Self::TaskChange(_) => "tasks.change",
            Self::Effects(_) => "effects.list",
            Self::Sessions(_) => "sessions.list",
            Self::Grace(_) => "grace",
            Self::TasksUsage(_) => "tasks.usage",
            Self::TasksPrune(_) => "tasks.prune",
            Self::DaemonStatus(_) => "daemon.status",
            Self::DaemonStop(_) => "daemon.stop",
            Self::DaemonUpgrade(_) => "daemon.upgrade",
        }
    }

    /// Whether it changes or touches anything. What does not may be asked by the role `view`.
    #[must_use]
    pub const fn operates(&self) -> bool {
        match self {
            Self::Hello(_)
            | Self::Releases(_)
            | Self::Deployments(_)
            | Self::Deployment(_)
            | Self::Status(_)
            | Self::Describe(_)
            | Self::Logs(_)
            | Self::Tasks(_)
            | Self::Effects(_)
            | Self::Sessions(_)
            | Self::Grace(_)
            | Self::TasksUsage(_)
            | Self::DaemonStatus(_) => false,
            Self::Start(_)
            | Self::Stop(_)
            | Self::Restart(_)
            | Self::Delete(_)
            | Self::Scale(_)
            | Self::Signal(_)
            | Self::Reload(_)
            | Self::Refresh(_)
            | Self::Upgrade(_)
            | Self::Rollback(_)
            | Self::Promote(_)
            | Self::Pause(_)
            | Self::Resume(_)
            | Self::Abort(_)
            | Self::Apply(_)
            | Self::TaskChange(_)
            | Self::TasksPrune(_)
            | Self::DaemonStop(_)
            | Self::DaemonUpgrade(_) => true,
        }
    }
}

/// Parameters that know their reply, so that a client's call has one type.
pub trait Command: Into<Request> {
    /// What the daemon answers.
    type Reply: DeserializeOwned;
}

macro_rules! commands {
    ($($params:ident => $variant:ident -> $reply:ty;)*) => {$(
        impl From<$params> for Request {
            fn from(params: $params) -> Self {
                Self::$variant(params)
            }
        }

        impl Command for $params {
            type Reply = $reply;
        }
    )*};
}

commands! {
    HelloParams => Hello -> HelloReply;
    StartParams => Start -> Changed;
    StopParams => Stop -> Changed;
    RestartParams => Restart -> Changed;
    DeleteParams => Delete -> Changed;
    ScaleParams => Scale -> Changed;
    SignalParams => Signal -> Signalled;
    ReloadParams => Reload -> Changed;
    RefreshParams => Refresh -> Changed;
    UpgradeParams => Upgrade -> Upgraded;
    RollbackParams => Rollback -> Changed;
    ReleasesParams => Releases -> Releases;
    DeploymentsParams => Deployments -> DeploymentList;
    DeploymentParams => Deployment -> DeploymentReport;
    PromoteParams => Promote -> Steered;
    PauseParams => Pause -> Steered;
    ResumeParams => Resume -> Steered;
    AbortParams => Abort -> Steered;
    ApplyParams => Apply -> Applied;
    StatusParams => Status -> StatusDocument;
    DescribeParams => Describe -> AppDetails;
    LogsParams => Logs -> LogsEnd;
    TasksParams => Tasks -> TaskList;
    TaskChangeParams => TaskChange -> TaskChanged;
    EffectsParams => Effects -> EffectList;
    SessionsParams => Sessions -> SessionList;
    GraceParams => Grace -> GraceView;
    TasksUsageParams => TasksUsage -> TasksUsage;
    TasksPruneParams => TasksPrune -> TasksUsage;
    DaemonStatusParams => DaemonStatus -> DaemonView;
    DaemonStopParams => DaemonStop -> DaemonStop;
    DaemonUpgradeParams => DaemonUpgrade -> DaemonUpgrade;
}

/// Parameters of `hello`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HelloParams {
    /// The newest control protocol that the client speaks.
    pub protocol: u32,
    /// The client's version, for the daemon's log.
    pub version: String,
}

/// What to start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum StartTarget {
    /// Every app of a configuration file, or of a folder of them.
    File {
        /// Where it is; relative to the client's directory.
        path: String,
    },
    /// One program, with no configuration file.
    Script {
        /// The program: a path relative to the client's directory, or a name to be found in the client's `PATH`.
        script: String,
        /// The app's name; derived from the program's when none is given.
        #[serde(default)]
        name: Option<String>,
        /// How many workers; 1 when not given.
        #[serde(default)]
        workers: Option<u32>,
        /// Addresses to listen on, each `[name=]address`.
        #[serde(default)]
        listen: Vec<String>,
        /// Arguments of the program.
        #[serde(default)]
        args: Vec<String>,
    },
    /// Apps that the daemon knows and that are stopped.
    Names {
        /// Their names, or `all`.
        names: Vec<String>,
    },
}

/// Parameters of `start`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StartParams {
    /// What to start.
    pub target: StartTarget,
    /// The client's working directory, absolute.
    pub cwd: String,
    /// What an app started by hand inherits from the client: `PATH`, `VIRTUAL_ENV`, `HOME`, `LANG` and the like.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Answer when all of it is ready, or failed, instead of when it is accepted.
    #[serde(default)]
    pub wait: bool,
}

macro_rules! by_names {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        pub struct $name {
            /// Apps by name, or `all`.
            pub names: Vec<String>,
            /// Answer when it has ended, instead of when it is accepted.
            #[serde(default)]
            pub wait: bool,
        }
    )*};
}

by_names! {
    /// Parameters of `stop`.
    StopParams;
    /// Parameters of `restart`.
    RestartParams;
    /// Parameters of `delete`.
    DeleteParams;
    /// Parameters of `refresh`.
    RefreshParams;
}

/// Parameters of `reload`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReloadParams {
    /// Apps by name, or `all`.
    pub names: Vec<String>,
    /// Only those whose configuration is another than the one that runs.
    #[serde(default)]
    pub changed: bool,
    /// The task that asks for it, when one does: nobody waits for it longer than the policy's least. A worker with one
    /// task in hand need not name it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// Answer when it has ended, instead of when it is accepted.
    #[serde(default)]
    pub wait: bool,
}

/// Parameters of `upgrade`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UpgradeParams {
    /// The app.
    pub name: String,
    /// Where the new release is cut from: a folder, an archive, `git:REPOSITORY[#REFERENCE]`, absolute. The
    /// configuration's `source` when none is given; without either, today's configuration is the new release.
    #[serde(default)]
    pub from: Option<String>,
    /// What an archive must hash to, in hexadecimal.
    #[serde(default)]
    pub sha256: Option<String>,
    /// By which road; the configuration's when none is given.
    #[serde(default)]
    pub strategy: Option<Strategy>,
    /// Only say what would happen.
    #[serde(default)]
    pub dry_run: bool,
    /// Deploy it though the same release was taken back before.
    #[serde(default)]
    pub force: bool,
    /// Answer when it has ended, instead of when it is accepted.
    #[serde(default)]
    pub wait: bool,
}

/// Parameters of `rollback`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RollbackParams {
    /// The app.
    pub name: String,
    /// To which release; to the one before the present one when none is given.
    #[serde(default)]
    pub to: Option<String>,
    /// Answer when it has ended, instead of when it is accepted.
    #[serde(default)]
    pub wait: bool,
}

macro_rules! steering {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        pub struct $name {
            /// The app whose deployment runs.
            pub name: String,
        }
    )*};
}

steering! {
    /// Parameters of `promote`.
    PromoteParams;
    /// Parameters of `pause`.
    PauseParams;
    /// Parameters of `resume`.
    ResumeParams;
    /// Parameters of `abort`.
    AbortParams;
}

/// Parameters of `scale`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ScaleParams {
    /// The app.
    pub name: String,
    /// How many workers are wanted.
    pub workers: u32,
    /// Answer when it has ended, instead of when it is accepted.
    #[serde(default)]
    pub wait: bool,
}

/// Parameters of `signal`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SignalParams {
    /// Apps by name, or `all`.
    pub names: Vec<String>,
    /// By name, with or without `SIG`, or by number: `HUP`, `SIGHUP`, `1`.
    pub signal: String,
}

/// Parameters of `status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StatusParams {
    /// Only these apps; every app when empty. A name that nobody has is an error.
    #[serde(default)]
    pub names: Vec<String>,
}

/// Parameters of `describe`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DescribeParams {
    /// The app.
    pub name: String,
}

/// Where a worker printed a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogStream {
    /// Its standard output.
    Stdout,
    /// Its standard error.
    Stderr,
    /// A stream newer than this reader.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

/// Parameters of `logs`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogsParams {
    /// Apps by name; every app when empty or `all`.
    #[serde(default)]
    pub names: Vec<String>,
    /// Go on with new lines until the client closes.
    #[serde(default)]
    pub follow: bool,
    /// How many of the last lines to begin with, for each app.
    #[serde(default = "LogsParams::default_lines")]
    pub lines: u32,
    /// Only this stream; both when none.
    #[serde(default)]
    pub stream: Option<LogStream>,
    /// Only lines printed at this time or later; all of them, unless [`Self::last`] says otherwise.
    #[serde(default)]
    pub since: Option<Timestamp>,
    /// Only lines printed before this time.
    #[serde(default)]
    pub until: Option<Timestamp>,
    /// Only lines that this regular expression is found in (Rust's `regex` syntax).
    #[serde(default)]
    pub grep: Option<String>,
    /// Only the last `lines` of them, though `since` or `grep` are given.
    #[serde(default)]
    pub last: bool,
}

impl LogsParams {
    /// Lines shown when the client does not say how many.
    pub const DEFAULT_LINES: u32 = 20;

    const fn default_lines() -> u32 {
        Self::DEFAULT_LINES
    }
}

impl Default for LogsParams {
    fn default() -> Self {
        Self {
            names: Vec::new(),
            follow: false,
            lines: Self::DEFAULT_LINES,
            stream: None,
            since: None,
            until: None,
            grep: None,
            last: false,
        }
    }
}

/// Parameters of `daemon.status`: none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DaemonStatusParams {}

/// Parameters of `daemon.stop`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DaemonStopParams {
    /// Answer when every worker has ended, instead of when it is accepted.
    #[serde(default)]
    pub wait: bool,
}

/// Parameters of `daemon.upgrade`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DaemonUpgradeParams {
    /// The new program, by its full path; the file that the daemon was started from when none is given.
    #[serde(default)]
    pub binary: Option<String>,
}
