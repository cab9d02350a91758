//! What the user asked for, as far as a decision needs it.
//!
//! Commands, environments and addresses stay in the shell's configuration; core sees a [`Revision`] and these
//! numbers. Every duration is a [`Duration`]; every count is a plain number.
//!
//! [`Revision`]: crate::id::Revision

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::AppName;

/// Everything core must know of one app's configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AppPolicy {
    /// How many workers serve.
    pub workers: u32,
    /// How listening sockets are shared out; [`Lanes::None`] for an app that listens on nothing.
    pub lanes: Lanes,
    /// When a started worker counts as ready.
    pub ready: ReadyPolicy,
    /// How a ready worker proves that it still lives; none when it need not.
    pub live: Option<LivePolicy>,
    /// Longest silence on `WATCHDOG=1` once it is ready; none when no watchdog is wanted.
    pub watchdog: Option<Duration>,
    /// What follows an exit that nobody asked for.
    pub restart: RestartPolicy,
    /// How a worker is asked to end.
    pub stop: StopPolicy,
    /// How long a drain may take.
    pub grace: GracePolicy,
    /// How many workers may be above and under `workers` while a rollout runs.
    pub reload: ReloadPolicy,
    /// Apps that must have been ready once before this one starts, and that end after it (see `needs`).
    #[serde(default)]
    pub needs: BTreeSet<AppName>,
    /// How long a worker may take to renew what it knows; none where it cannot be asked to.
    #[serde(default)]
    pub refresh: Option<RefreshPolicy>,
    /// Whether something has to succeed before a deployment of something new begins (a hook before deployments).
    #[serde(default)]
    pub prepares: bool,
}

/// Renewing what workers know without another process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefreshPolicy {
    /// Longest wait for one worker.
    pub timeout: Duration,
}

/// How an app's listening sockets are shared among its workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lanes {
    /// The app owns no listening socket.
    None,
    /// One socket a worker (`balance = "spread"`); weights are between workers.
    PerWorker,
    /// One socket a generation (`balance = "shared"`, and every Unix socket); weights are between generations.
    PerGeneration,
}

/// When a started worker counts as ready. How it is proven is the shell's; core only waits for the proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadyPolicy {
    /// Longest wait from the start to the proof. The worker may prolong it (`EXTEND_TIMEOUT_USEC`).
    pub timeout: Duration,
}

/// Repeated proof of life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LivePolicy {
    /// Pause between the end of one probe and the start of the next.
    pub every: Duration,
    /// How many in a row must fail before the worker is replaced.
    pub failures: u32,
}

/// When a worker that ended by itself is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartWhen {
    /// After every exit.
    Always,
    /// After an exit with a code other than 0 or by a signal.
    OnFailure,
    /// Never; the worker stays `exited`.
    Never,
}

/// What follows an exit that nobody asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartPolicy {
    /// Which exits are followed by a start.
    pub when: RestartWhen,
    /// Wait before the first restart.
    pub backoff_min: Duration,
    /// Longest wait; each crash doubles the wait up to it. A worker that had served this long is forgiven: its
    /// restart is immediate, and the doubling starts anew.
    pub backoff_max: Duration,
    /// More than this many restarts within `period` park the worker as failed.
    pub max: u32,
    /// The window that `max` counts in.
    pub period: Duration,
}

/// How a worker is asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopPolicy {
    /// When the stop signal is sent.
    pub drain: DrainBy,
    /// Longest wait from the stop signal to the exit, where shorter than what is left of the grace.
    pub timeout: Option<Duration>,
}

/// When the stop signal of a draining worker is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DrainBy {
    /// When its accept queue and its connections are empty: right for every worker.
    Connections,
    /// As soon as its accept queue is empty: for workers that finish what they have after the signal.
    Signal,
}

/// How long a drain may take. Static here; the observed estimate (grace.md) takes `target`'s place later.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct GracePolicy {
    /// Wanted probability that nothing is cut.
    pub target: f64,
    /// Used while nothing has been observed.
    pub default: Duration,
    /// Never less.
    pub min: Duration,
    /// Never more.
    pub max: Duration,
}

/// Room for a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadPolicy {
    /// How many workers may run beyond `workers`.
    pub max_surge: u32,
    /// How many of `workers` may be missing.
    pub max_unavailable: u32,
    /// How long a new worker is watched before the one it replaces is told to end. A death in this time takes
    /// the rollout back without a gap, because the old worker is still there.
    pub settle: Duration,
}

impl Default for AppPolicy {
    fn default() -> Self {
        Self {
            workers: 1,
            lanes: Lanes::None,
            ready: ReadyPolicy { timeout: Duration::from_secs(60) },
            live: None,
            watchdog: None,
            restart: RestartPolicy {
                when: RestartWhen::Always,
                backoff_min: Duration::from_millis(100),
                backoff_max: Duration::from_secs(30),
                max: 10,
                period: Duration::from_secs(300),
            },
            stop: StopPolicy { drain: DrainBy::Connections, timeout: None },
            grace: GracePolicy {
                target: 0.99,
                default: Duration::from_secs(300),
                min: Duration::from_secs(1),
                max: Duration::from_secs(1800),
            },
            reload: ReloadPolicy { max_surge: 1, max_unavailable: 0, settle: Duration::from_millis(250) },
            needs: BTreeSet::new(),
            refresh: None,
            prepares: false,
        }
    }
}
