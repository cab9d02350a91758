//! The control protocol: JSON-RPC 2.0, one object a line, on `control.sock`.
//!
//! # The happy path
//! ```text
//! client                                            daemon
//!   {"id":1,"method":"hello",…}              ──►      {"id":1,"result":{"protocol":1,…}}
//!   {"id":2,"method":"reload",… "wait":true} ──►      {"method":"accepted","params":{"call":2,"value":{…}}}
//!                                                     {"method":"event","params":{"call":2,"value":{…}}}   any number
//!                                                     {"method":"progress","params":{"call":2,"value":{…}}}
//!                                                     {"id":2,"result":{"operations":[…],"results":[…]}}
//! ```
//! `hello` is not required, but it is the only way to learn early that the two sides do not understand each other.
//! Calls may be sent before earlier ones are answered; answers come as they are ready, notices name their call.
//!
//! # The unhappy paths
//! - A line that is no call, an unknown method, parameters that do not fit: an error, and the connection stays.
//! - A line longer than [`frame::REQUEST_MAX`], or one that never ends: an error, then end of file.
//! - A client that does not read: dropped. What it asked for goes on.
//! - A client that goes away: the same. Nothing is half done because of it.
//!
//! [`request`] has what is asked, [`reply`] what is answered, [`error`] what is refused, [`message`] the envelopes.
//!
//! # Version history
//! - protocol 1 (0.1.0): the first. Methods and fields may be added: who does not know a field passes over it, and who
//!   does not know a method answers `unknown_method`.
//!
//! [`frame::REQUEST_MAX`]: crate::frame::REQUEST_MAX

pub mod apply;
pub mod deployments;
pub mod error;
pub mod message;
pub mod releases;
pub mod reply;
pub mod request;
pub mod supervisor;
pub mod task;
pub mod tasks;

pub use apply::{AppDifference, Applied, ApplyParams, FieldChange, Work};
pub use deployments::{
    CheckpointsView, DeploymentList, DeploymentParams, DeploymentReport, DeploymentsParams, Durations, HookRun,
    HookState, StageView, UnreadTask, VerdictView,
};
pub use error::{Diagnostic, ErrorData, ErrorKind, ErrorObject};
pub use message::{Call, CallRejected, Notice, RequestId, ServerMessage, ServerMessageError};
pub use releases::{ReleaseState, ReleaseView, Releases, ReleasesParams};
pub use reply::{
    Accepted, AppDetails, Changed, ConnectionCounts, DaemonStop, DaemonView, HelloReply, ListenerView, LogFileView,
    LogLine, LogsEnd, LostTask, OperationKind, OperationResult, OperationState, OperationView, PlannedRun, Progress,
    Reply, Role, Signalled, SignalledWorker, Steered, TaskCounts, UpgradePlan, Upgraded,
};
pub use request::{
    AbortParams, Command, DaemonStatusParams, DaemonStopParams, DaemonUpgradeParams, DeleteParams, DescribeParams,
    HelloParams, LogStream, LogsParams, PauseParams, PromoteParams, RefreshParams, ReloadParams, Request,
    RestartParams, ResumeParams, RollbackParams, ScaleParams, SignalParams, StartParams, StartTarget, StatusParams,
    StopParams, UpgradeParams,
};

pub use supervisor::{DaemonUpgrade, SocketOrigins, SupervisorEnd, SupervisorView};
pub use task::{CheckpointView, PayloadView, RunView, TaskDetails};
pub use tasks::{
    AppUsage, CurveView, EffectJudgement, EffectList, EffectState, EffectView, EffectsParams, GraceParams, GraceView,
    InHandView, SessionList, SessionView, SessionsParams, TaskChange, TaskChangeParams, TaskChanged, TaskList,
    TaskState, TaskView, TasksParams, TasksPruneParams, TasksUsage, TasksUsageParams, WorkerGrace,
};

/// The number in `hello`. It rises only when a method or field goes or changes its meaning.
pub const PROTOCOL: u32 = 1;

/// As the only name of a command: every app.
pub const ALL: &str = "all";
