//! What moves a simulation: what is due in the world, and what of it reaches the fleet.

use std::time::Duration;

use agentd_core::admission::{Denied, Request};
use agentd_core::effect::Effect;
use agentd_core::event::{Exit, RolloutEvent, WorkerEvent};
use agentd_core::id::{AppName, Launch, Operation};
use agentd_core::time::Moment;

use super::process::Saying;

/// Something that is due in the world.
#[derive(Clone, Debug)]
pub enum Happening {
    /// A fact reaches the supervisor, maybe late, maybe again.
    Fact(Launch, WorkerEvent),
    /// What was found out about a deployment reaches the supervisor.
    Finding(AppName, Operation, RolloutEvent),
    /// A process does something of its own.
    Act(Launch, Act),
    /// Somebody asks for something.
    Ask,
    /// A connection arrives.
    Connect,
    /// The shell looks at what a draining process has.
    Look(Launch),
    /// The supervisor was not scheduled for a while, or the machine slept.
    Jump(Duration),
    /// The supervisor dies and the next one starts.
    Die,
    /// The supervisor dies at its next step.
    Doom(Doom),
    /// Faults and requests are over.
    Calm,
}

/// What a process does of its own.
#[derive(Clone, Copy, Debug)]
pub enum Act {
    /// It comes to be, or does not.
    Spawn,
    /// It accepts connections from now on.
    Open,
    /// It ends. Of its own accord, or because it was made to.
    Exit {
        /// How.
        exit: Exit,
        /// Nobody asked: left out once faults are over.
        fault: bool,
    },
    /// A request on one of its connections is answered.
    Answer {
        /// The connection stays open.
        kept: bool,
    },
    /// A kept-alive connection is closed by its client.
    Close,
    /// It sends `WATCHDOG=1`.
    Beat,
    /// It says something.
    Say(Saying),
}

/// What made the fleet take a step.
#[derive(Clone, Debug)]
pub enum Cause {
    /// A deadline of its own.
    Woke,
    /// A fact.
    Fact(Launch, WorkerEvent),
    /// Something about a deployment.
    Finding(AppName, Operation, RolloutEvent),
    /// A request that was admitted.
    Request(Box<Request>),
    /// A request that was denied.
    Denied(Box<Request>, Denied),
    /// A new supervisor took over.
    Restarted,
}

/// One step as it is shown when something fails.
#[derive(Clone, Debug)]
pub struct Record {
    /// Which.
    pub step: u64,
    /// When.
    pub at: Moment,
    /// Why.
    pub cause: Cause,
    /// What came of it.
    pub effects: Vec<Effect>,
    /// The supervisor died before it did any of that.
    pub lost: bool,
}

impl std::fmt::Display for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let micros = self.at.as_micros();
        write!(f, "{:>6} {:>5}.{:06} s  ", self.step, micros / 1_000_000, micros % 1_000_000)?;
        match &self.cause {
            Cause::Woke => f.write_str("woke")?,
            Cause::Fact(launch, event) => write!(f, "launch {launch}: {event:?}")?,
            Cause::Finding(app, id, event) => write!(f, "deployment {id} of {app}: {event:?}")?,
            Cause::Request(request) => brief(f, request)?,
            Cause::Denied(request, denied) => {
                brief(f, request)?;
                write!(f, " DENIED: {denied}")?;
            }
            Cause::Restarted => f.write_str("SUPERVISOR RESTARTED")?,
        }
        for effect in &self.effects {
            write!(f, "\n                        -> {}{effect:?}", if self.lost { "(lost) " } else { "" })?;
        }
        Ok(())
    }
}

fn brief(f: &mut std::fmt::Formatter<'_>, request: &Request) -> std::fmt::Result {
    match request {
        Request::Start { app, revision, policy } => configured(f, "START", app, *revision, policy),
        Request::Reload { app, revision, policy } => configured(f, "RELOAD", app, *revision, policy),
        Request::Restart { app, revision, policy } => configured(f, "RESTART", app, *revision, policy),
        Request::Upgrade { app, revision, policy, plan, .. } => {
            configured(f, "UPGRADE", app, *revision, policy)?;
            write!(f, ", {:?} {:?} dwell {:?} stable {:?}", plan.strategy, plan.steps, plan.dwell, plan.stability)
        }
        Request::Steer { app, steer } => write!(f, "{steer:?} {app}"),
        Request::Create { app, revision, policy } => configured(f, "CREATE", app, *revision, policy),
        Request::Adopt { app, revision, policy } => configured(f, "ADOPT", app, *revision, policy),
        Request::Refresh { app } => write!(f, "REFRESH {app}"),
        Request::Stop { app } => write!(f, "STOP {app}"),
        Request::Delete { app } => write!(f, "DELETE {app}"),
        Request::Scale { app, workers } => write!(f, "SCALE {app} to {workers}"),
    }
}

fn configured(
    f: &mut std::fmt::Formatter<'_>,
    verb: &str,
    app: &AppName,
    revision: agentd_core::id::Revision,
    policy: &agentd_core::policy::AppPolicy,
) -> std::fmt::Result {
    write!(
        f,
        "{verb} {app} revision {revision}: {} workers, {:?}, surge {}, unavailable {}, restart {:?} max {}, needs {:?}",
        policy.workers,
        policy.lanes,
        policy.reload.max_surge,
        policy.reload.max_unavailable,
        policy.restart.when,
        policy.restart.max,
        policy.needs
    )
}

/// Where in a step the supervisor dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doom {
    /// Its last transaction is torn: nothing of the step is written, as if what led to it had not been heard.
    BeforeWriting,
    /// It is written, and nothing of it done.
    BeforeActing,
    /// It is written, and half of it done.
    AmidActing,
}

impl Doom {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::BeforeWriting, Self::BeforeActing, Self::AmidActing];
}
