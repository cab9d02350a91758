//! Asking a worker to end: by its stop signal, or by Node's message first where that is wanted.
//!
//! ```text
//!  SendStop ─► message wanted ── no, or it does not get through ──► the signal ── kill_at ──► killed (core)
//!                 │ yes                                                ▲
//!                 ▼                                                    │
//!               said ────────── half of its time is over ──────────────┘
//!                 │                  └── it was given more time: half of that
//!                 └── it ends: nothing more
//! ```
//! A supervisor may die just before it says it, or just after. The next one cannot know, and a program may take a second
//! word for "at once", so it says nothing yet: it comes in at `said`, and waits less where the worker has nothing in hand.
//!
//! A daemon that has no descriptor left can reach nobody: it tries again until the worker has ended or is to be killed.
//!
//! How much time it has, and what comes at its end, is core's.

use std::time::Duration;

use agentd_core::id::Launch;
use agentd_core::policy::DrainBy;
use agentd_core::time::Moment;
use agentd_core::worker::State;
use nix::sys::signal::Signal;

use super::Dispatcher;
use super::input::Input;
use crate::causes::in_full;
use crate::fault;
use crate::process::sys;

/// How long until a signal is sent again that did not arrive, for want of descriptors or memory.
const AGAIN_AFTER: Duration = Duration::from_millis(100);
/// How long a worker with nothing in hand may take to end, should an earlier supervisor have told it.
const PERHAPS_TOLD: Duration = Duration::from_secs(5);

impl Dispatcher {
    /// Asks a worker to end.
    pub(super) fn send_stop(&self, launch: Launch) {
        let Some(process) = self.processes.get(&launch) else { return };
        let stop = process.record.config.stop;
        if stop.message {
            match process.notify.say_shutdown() {
                Ok(()) => {
                    fault::point("told");
                    return self.signal_at_half_time(launch, Duration::MAX);
                }
                Err(error) => {
                    tracing::warn!(worker = %process.worker, error = in_full(&error), "it gets the signal at once");
                }
            }
        }
        self.signal_to_end(launch, stop.signal.signal(), 0);
    }

    /// An earlier supervisor told a worker to end, or died just before. Should it stay, it gets the signal.
    pub(super) fn signal_should_it_stay(&self, launch: Launch) {
        let Some(process) = self.processes.get(&launch) else { return };
        let stop = process.record.config.stop;
        let has_nothing = !stop.message && stop.drain == DrainBy::Connections;
        self.signal_at_half_time(launch, if has_nothing { PERHAPS_TOLD } else { Duration::MAX });
    }

    /// Half of the time is over that a worker had when it heard the message.
    pub(super) fn message_was_not_enough(&self, launch: Launch, kill_at: Moment) {
        let Some(until) = self.stops_until(launch) else { return };
        let Some(process) = self.processes.get(&launch) else { return };
        if until > kill_at {
            return self.signal_at_half_time(launch, Duration::MAX);
        }
        let signal = process.record.config.stop.signal.signal();
        tracing::info!(worker = %process.worker, %signal, "it has not ended by what it was told: it gets the signal");
        self.signal_to_end(launch, signal, 0);
    }

    fn signal_at_half_time(&self, launch: Launch, at_most: Duration) {
        let Some(kill_at) = self.stops_until(launch) else { return };
        let half = (kill_at.since(sys::boottime()) / 2).min(at_most);
        self.hear_later(half, Input::MessageWasNotEnough(launch, kill_at));
    }

    fn hear_later(&self, after: Duration, input: Input) {
        let inputs = self.inputs.clone();
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            // Nobody hears it only when the loop is over; whoever comes next sees to the signal.
            let _ = inputs.send(input);
        });
    }

    /// When a worker that was told to end is killed; none once it has ended.
    fn stops_until(&self, launch: Launch) -> Option<Moment> {
        match &self.fleet.worker(launch)?.state {
            State::Stopping { process, kill_at, .. } => (process.launch == launch).then_some(*kill_at),
            State::Starting { .. }
            | State::Ready { .. }
            | State::Draining { .. }
            | State::Killed { .. }
            | State::Backoff { .. }
            | State::Exited
            | State::Failed { .. } => None,
        }
    }

    /// The stop signal, to all of a worker; again where nobody could be reached.
    fn signal_to_end(&self, launch: Launch, signal: Signal, failed_before: u32) {
        let Some(process) = self.processes.get(&launch) else { return };
        let sent = process.tree.signal(signal);
        fault::point("told");
        match sent {
            Ok(reached) => tracing::debug!(worker = %process.worker, %signal, reached, "told to end"),
            Err(error) => {
                if failed_before == 0 {
                    let (worker, why) = (&process.worker, in_full(&error));
                    tracing::warn!(%worker, %signal, error = why, "it could not be told to end; it is told again");
                }
                self.hear_later(AGAIN_AFTER, Input::SignalAgain(launch, signal, failed_before.saturating_add(1)));
            }
        }
    }

    /// A stop signal did not arrive, so often before.
    pub(super) fn signal_again(&self, launch: Launch, signal: Signal, failed_before: u32) {
        if self.stops_until(launch).is_some() {
            self.signal_to_end(launch, signal, failed_before);
        }
    }
}
