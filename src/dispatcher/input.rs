//! What the loop hears, from whichever source.

use agentd_core::event::{Exit as WorkerExit, RolloutEvent, WorkerEvent};
use agentd_core::id::{AppName, Launch, Operation, Pid};
use agentd_core::time::Moment;
use nix::sys::signal::Signal;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use tokio::sync::{mpsc, oneshot};

use crate::control::ControlCall;
use crate::logs::thread::LogNews;
use crate::notify::Datagram;
use crate::process::plan::StageFailure;
use crate::process::reaper::Exit;
use crate::sockets::{ListenAddr, ProbeConnection, ProbeId};
use crate::status::StatusQuery;
use crate::tasks::Report;

/// One thing to take in. Tasks beside the loop send these; only the loop changes anything.
#[derive(Debug)]
pub enum Input {
    /// Somebody asks for something on the control socket.
    Control(ControlCall),
    /// Somebody asks for the status document or for events.
    Status(StatusQuery),
    /// The daemon received a signal.
    Signal(DaemonSignal),
    /// A fact about a process that needs no work here.
    Worker(Launch, WorkerEvent),
    /// Something was found out about the new generation of a deployment.
    Rollout {
        /// Whose.
        app: AppName,
        /// Which deployment.
        id: Operation,
        /// What.
        event: RolloutEvent,
    },
    /// The `eval` of a deployment's step passed.
    Evaluated {
        /// Whose.
        app: AppName,
        /// Which deployment.
        id: Operation,
        /// Which step.
        step: usize,
    },
    /// A datagram came in on a worker's notify socket.
    Notified(Launch, Datagram),
    /// The exec shim of a launch became its program, or failed at a stage.
    Executed(Launch, Result<(), StageFailure>),
    /// The last words of a launch are in its log.
    LogsDrained(Launch),
    /// A child of ours that was a worker's main process has ended. Sent by the loop itself, to come after whatever the
    /// worker said before.
    Reaped(Launch, Pid, WorkerExit),
    /// A worker that is not our child has ended.
    Gone(Launch),
    /// A file that an app watches was changed.
    FileChanged(AppName, super::tend::Watches, PathBuf),
    /// The binary that is to take our place was asked whether it can.
    SuccessorChecked(super::CheckResult),
    /// Workers that use more memory than their ceiling were found.
    Measured(Vec<super::limits::Beyond>),
    /// The log thread tells something.
    Logs(LogNews),
    /// A hook came to its end.
    HookEnded(u64, super::HookEnd),
    /// Processes with our mark that no worker has, left by an earlier daemon.
    Strays(super::strays::Marked),
    /// A keeper is gone.
    KeeperGone {
        /// Which, counted from the first that was watched.
        nth: u64,
    },
    /// The doors of a socket are closed and its clients answered; these are left, for the program that comes.
    Emptied(Vec<OwnedFd>),
    /// Time to look at what a draining worker still has.
    LookAtDrain(Launch),
    /// Half of the time is over that a worker had from Node's message to being killed at this moment.
    MessageWasNotEnough(Launch, Moment),
    /// A stop signal did not arrive, so often: time to send it again.
    SignalAgain(Launch, Signal, u32),
    /// The ledger thread tells something.
    Tasks(Report),
    /// A probe task needs a connection that reaches one worker.
    OpenProbe(OpenProbe),
    /// A probe task is done with its connection.
    CloseProbe {
        /// Whose.
        app: AppName,
        /// Where.
        addr: ListenAddr,
        /// Which.
        probe: ProbeId,
    },
    /// A probe task needs a command run.
    RunCommand(RunCommand),
    /// A deployment's check is to be run.
    RunCheck(super::check::RunCheck),
    /// It was found out which open checkpoints a new release reads.
    Looked(super::check::Looked),
    /// The cut of this number came to its end; an error is a fragment that follows "failed to".
    Cut(u64, Box<super::cutting::CutEnd>),
}

/// A steered connection, please.
#[derive(Debug)]
pub struct OpenProbe {
    /// To the worker of this launch.
    pub launch: Launch,
    /// At the listener of this name.
    pub listener: String,
    /// Where to send it, with what ends it; an error is a sentence for the reader.
    pub reply: oneshot::Sender<Result<(ProbeConnection, ProbeEnd), String>>,
}

/// Ends a probe when it is dropped: its task may be aborted at any moment, even before it has read the answer.
#[derive(Debug)]
pub struct ProbeEnd {
    /// Whose.
    pub app: AppName,
    /// Where.
    pub addr: ListenAddr,
    /// Which.
    pub probe: ProbeId,
    /// The loop's ear.
    pub inputs: mpsc::UnboundedSender<Input>,
}

impl Drop for ProbeEnd {
    fn drop(&mut self) {
        let (app, addr, probe) = (self.app.clone(), self.addr.clone(), self.probe);
        // The loop is gone only at the very end.
        let _ = self.inputs.send(Input::CloseProbe { app, addr, probe });
    }
}

/// A command, please.
#[derive(Debug)]
pub struct RunCommand {
    /// For the worker of this launch: in its folder, with its environment.
    pub launch: Launch,
    /// What to run; the rest is taken from the launch's own plan.
    pub command: Vec<String>,
    /// What it is told beside the worker's environment.
    pub env: Vec<(String, String)>,
    /// How it ended; an error is a sentence for the reader.
    pub reply: oneshot::Sender<Result<Exit, String>>,
}

/// Signals that mean something to the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DaemonSignal {
    /// A child ended.
    Child,
    /// Leave, and leave the workers be (SIGTERM, SIGINT).
    Leave(Signal),
    /// Read the configuration again (SIGHUP).
    Hangup,
}
