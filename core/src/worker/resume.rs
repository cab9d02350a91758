//! One worker under a new supervisor.
//!
//! Its state is as it was written; what its last supervisor had begun and not written, or written and not done, is
//! made good here. Everything may have been done already, so all that is asked for may be done twice.

use std::time::Duration;

use crate::effect::{Effect, Outcome, StopReason};
use crate::event::Exit;
use crate::policy::AppPolicy;
use crate::time::Tick;

use super::state::{State, Worker};
use super::step::{After, first_probe};

/// Least time that a worker has to prove itself to a supervisor that just came: what it said meanwhile waits in its
/// socket, and a proof by probe must be tried anew.
const SECOND_LOOK: Duration = Duration::from_secs(5);

impl Worker {
    /// Forgets what was seen and not written: it may have changed since, and a drain must not end by it.
    pub(crate) fn forget_observations(&mut self) {
        match &mut self.state {
            State::Draining { in_flight, tasks_until, deadline, warm_until, .. } => {
                *in_flight = None;
                // The ledger says anew when it takes its tasks; that its time was over, and it is kept warm, nobody else says.
                if *warm_until != Some(*deadline) {
                    *tasks_until = None;
                }
            }
            State::Starting { .. }
            | State::Ready { .. }
            | State::Stopping { .. }
            | State::Killed { .. }
            | State::Backoff { .. }
            | State::Exited
            | State::Failed { .. } => {}
        }
    }

    /// Takes up its process where the last supervisor left it. A process that is still without kernel names was not
    /// found by the shell: its spawn was written and never done.
    pub(crate) fn resume(&mut self, tick: Tick, policy: &AppPolicy, out: &mut Outcome) -> After {
        let (id, revision, lane) = (self.id.clone(), self.revision, self.lane);
        let Some(process) = self.state.process_mut() else { return After::Same };
        // The silence was the supervisor's.
        if let Some(watchdog) = &mut process.watchdog {
            watchdog.due = tick.now + watchdog.interval;
        }
        let (launch, exists) = (process.launch, process.kernel.is_some());
        if let State::Stopping { kill_at, .. } = &mut self.state {
            // The signal may reach it only now.
            let time = policy.stop.timeout.map_or(SECOND_LOOK, |timeout| timeout.min(SECOND_LOOK));
            *kill_at = (*kill_at).max(tick.now + time);
        }
        match &mut self.state {
            State::Starting { ready_by, .. } if exists => {
                *ready_by = (*ready_by).max(tick.now + SECOND_LOOK);
                out.act.push(Effect::ProveReady { launch });
            }
            State::Starting { ready_by, .. } => {
                *ready_by = tick.now + policy.ready.timeout;
                out.act.push(Effect::Spawn { launch, worker: id, revision, lane });
            }
            State::Ready { .. } | State::Draining { .. } | State::Stopping { .. } | State::Killed { .. } if !exists => {
                return self.exited(tick, Exit::Unknown, out);
            }
            State::Ready { probe, .. } => *probe = first_probe(tick.now, policy),
            State::Draining { .. } => out.act.push(Effect::WatchDrain { launch }),
            State::Stopping { reason: StopReason::Watchdog, .. } => out.act.push(Effect::SendAbort { launch }),
            // It is ending by itself; nobody sent it a signal.
            State::Stopping { reason: StopReason::Own, .. } => {}
            State::Stopping { .. } => out.act.push(Effect::SendStop { launch }),
            // Its next kill is due soon.
            State::Killed { .. } | State::Backoff { .. } | State::Exited | State::Failed { .. } => {}
        }
        out.save_worker(&self.id);
        After::Same
    }
}
