//! What happened: facts that the shell reports, in the past tense.
//!
//! Every fact about a process names its [`Launch`], so a late or doubled word about a process that is gone meets
//! no worker and changes nothing.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::{AppName, Launch, Operation, Pid};
use crate::limit::LimitMet;
use crate::refresh::RefreshAnswer;
use crate::rollout::Judgement;
use crate::task::Tally;
use crate::time::Moment;

/// Something happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The earliest deadline passed (see `Fleet::next_wake`), or time went on for any other reason.
    Woke,
    /// Something about one process.
    Worker {
        /// Which process start this is about.
        launch: Launch,
        /// What happened to it.
        event: WorkerEvent,
    },
    /// Something about a deployment.
    Rollout {
        /// Whose.
        app: AppName,
        /// Which; about another than the one that runs it says nothing.
        id: Operation,
        /// What.
        event: RolloutEvent,
    },
}

/// Something was found out about the new generation of a deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RolloutEvent {
    /// It may take this step.
    Verified {
        /// Which.
        step: usize,
    },
    /// It must not take this step.
    Refused {
        /// Which.
        step: usize,
        /// Why, in one sentence.
        why: String,
    },
    /// What has to succeed before it begins did.
    Prepared,
    /// What has to succeed before it begins did not.
    Unprepared {
        /// Why, in one sentence.
        why: String,
    },
    /// It was found out, and written down, which open checkpoints the new release reads.
    Checked {
        /// Whether this was the last look.
        last: bool,
    },
    /// What was to find that out did not.
    Unfit {
        /// Why, in one sentence.
        why: String,
    },
    /// The gates changed their mind.
    Judged(Judgement),
    /// A gate is sure that it is worse.
    Condemned {
        /// Why, in one sentence with figures.
        why: String,
    },
}

/// Something happened to one process, or it said something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WorkerEvent {
    /// The process exists; its program may not run yet.
    Spawned {
        /// Its process id.
        pid: Pid,
        /// Its start time in kernel clock ticks since boot: with the pid it names the process for ever.
        start_time: u64,
    },
    /// The process could not be made, or died in the exec shim before its program ran.
    SpawnFailed {
        /// Stage and reason, for the reader.
        why: String,
        /// Trying again without a change cannot help (no such program, no such directory).
        permanent: bool,
    },
    /// It was proven ready.
    ReadyProven {
        /// By which proof.
        proof: Proof,
    },
    /// A proof was tried and did not hold; shown when time runs out.
    ReadyRefuted {
        /// What was seen instead.
        why: String,
    },
    /// A liveness probe was answered, well or not.
    ProbeAnswered {
        /// The reason when it was not well.
        result: Result<(), String>,
    },
    /// What a draining worker still has. Sent when it changes.
    DrainObserved(InFlight),
    /// Its process ended, and what it printed is in its log.
    Exited {
        /// How.
        exit: Exit,
    },
    /// It asked for more time (`EXTEND_TIMEOUT_USEC`), counted from now.
    TimeoutExtended {
        /// How much.
        by: Duration,
    },
    /// It said that it is ending (`STOPPING=1`).
    StoppingSaid,
    /// It said that it finishes what it has after the stop signal, so connections need not be awaited.
    DrainsItselfSaid,
    /// Sign of life (`WATCHDOG=1`).
    WatchdogBeat,
    /// It asked to be treated as hung (`WATCHDOG=trigger`).
    WatchdogTriggered,
    /// It set its watchdog's interval; zero turns it off.
    WatchdogSet {
        /// The longest silence allowed.
        interval: Duration,
    },
    /// It took up a task.
    TaskBegan {
        /// Its id, unique within the worker.
        id: String,
        /// Its kind, if told.
        kind: Option<String>,
    },
    /// A task of its ended.
    TaskEnded {
        /// Its id.
        id: String,
    },
    /// While it drains: how many tasks the ledger knows it to have in hand.
    TasksInHand {
        /// How many.
        tasks: u32,
    },
    /// While it drains: when the ledger takes from it what it still has.
    TasksDeadline {
        /// When.
        at: Moment,
    },
    /// The ledger took from it what can go on elsewhere, and there is nothing to wait for any more.
    TasksTaken {
        /// So many it had in hand until now, or had given up before and go on at its end.
        tasks: u32,
    },
    /// It met one of its limits. Of a process that ended by it, told right before its end.
    LimitMet(LimitMet),
    /// What it says to the refresh that asked it.
    Refreshed {
        /// Which.
        id: Operation,
        /// The reason when it cannot.
        result: Result<RefreshAnswer, String>,
    },
    /// What became of its tasks in its drain and at its end. Told right before its end.
    TasksSettled(Tally),
}

/// What a draining worker still has in hand, as the shell sees it from outside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InFlight {
    /// Connections that wait in its accept queue.
    pub queued: u32,
    /// Connections on which work may be going on.
    pub busy: u32,
    /// Kept-alive connections between two requests: a stop closes them, and no request is lost with them.
    pub idle: u32,
    /// Those of the idle ones that count as idle only because their client never stops reusing them.
    #[serde(default)]
    pub reused: u32,
}

/// Why a worker is believed to be ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Proof {
    /// It said `READY=1`.
    Notified,
    /// It answered HTTP through its own socket.
    Http,
    /// It accepted a connection from its own socket.
    Accepted,
    /// The words asked for appeared in its log.
    LogLine,
    /// The command asked for succeeded.
    Command,
    /// Its program runs, and nothing more was asked for.
    Running,
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Notified => "it said READY=1",
            Self::Http => "it answered HTTP on its own socket",
            Self::Accepted => "it accepted a connection from its own socket",
            Self::LogLine => "it printed its ready line",
            Self::Command => "the ready command succeeded",
            Self::Running => "its program runs",
        })
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// Nobody could tell: it was no child of this supervisor and was gone before it was looked at.
    Unknown,
}

impl Exit {
    /// Exit code 0.
    #[must_use]
    pub fn is_success(self) -> bool {
        matches!(self, Self::Code(0))
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "killed by {}", SignalName(*signal)),
            Self::Unknown => f.write_str("unknown exit"),
        }
    }
}

/// A signal's usual name, or `signal N`.
#[derive(Clone, Copy, Debug)]
pub struct SignalName(pub i32);

impl fmt::Display for SignalName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.0 {
            1 => "SIGHUP",
            2 => "SIGINT",
            3 => "SIGQUIT",
            4 => "SIGILL",
            5 => "SIGTRAP",
            6 => "SIGABRT",
            7 => "SIGBUS",
            8 => "SIGFPE",
            9 => "SIGKILL",
            10 => "SIGUSR1",
            11 => "SIGSEGV",
            12 => "SIGUSR2",
            13 => "SIGPIPE",
            14 => "SIGALRM",
            15 => "SIGTERM",
            24 => "SIGXCPU",
            25 => "SIGXFSZ",
            31 => "SIGSYS",
            n => return write!(f, "signal {n}"),
        };
        f.write_str(name)
    }
}
