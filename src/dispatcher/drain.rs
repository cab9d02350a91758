//! Looking at what draining workers still have in hand.
//!
//! One look reads the accept queue of the worker's lane and the kernel's table of its connections, about 0.1 ms. Looks
//! are 2 ms apart at first and up to 50 ms later, and only while something drains. "Nothing left" is only
//! believed when the queue was empty at the look before as well: a connection that is just being accepted is in neither
//! table for a moment. Nor while somebody is on the way to it who was steered there before ([`Handshakes`]). And not before
//! the ledger has told what tasks the worker has, which takes it a commit.

use std::time::Duration;

use agentd_core::drain::{Connections, Sample};
use agentd_core::event::{InFlight, WorkerEvent};
use agentd_core::id::Launch;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::Dispatcher;
use super::handshakes::Handshakes;
use super::input::Input;
use super::shell::{DrainWatch, TasksTold};
use crate::causes::in_full;
use crate::process::{stat, sys};
use crate::sockets::{Connection, SockDiag};

/// Pause after the first looks.
const LOOK_FIRST: Duration = Duration::from_millis(2);
/// Longest pause.
const LOOK_LAST: Duration = Duration::from_millis(50);

impl Dispatcher {
    pub(super) fn watch_drain(&mut self, launch: Launch) {
        let tasks = if self.tasks.is_some() { TasksTold::Awaited } else { TasksTold::Known };
        let Some(process) = self.processes.get_mut(&launch) else { return };
        if let Some(prober) = process.prober.take() {
            prober.abort();
        }
        let ticker = look_often(launch, self.inputs.clone());
        let (connections, handshakes) = (Connections::default(), Handshakes::default());
        process.drain = Some(DrainWatch { connections, handshakes, reported: None, empty: 0, blind: 0, tasks, ticker });
    }

    /// The ledger told how many tasks it has in hand. Once it has none, what else it has is looked at now, and often.
    pub(super) fn drain_has_tasks(&mut self, launch: Launch, tasks: u32) {
        let inputs = self.inputs.clone();
        let Some(watch) = self.processes.get_mut(&launch).and_then(|process| process.drain.as_mut()) else { return };
        watch.tasks = TasksTold::Known;
        if tasks == 0 {
            watch.ticker.abort();
            watch.ticker = look_often(launch, inputs);
            self.look_at_drain(launch);
        }
    }

    pub(super) fn unwatch_drain(&mut self, launch: Launch) {
        if let Some(process) = self.processes.get_mut(&launch)
            && let Some(watch) = process.drain.take()
        {
            watch.ticker.abort();
        }
    }

    pub(super) fn look_at_drain(&mut self, launch: Launch) {
        let Some(seen) = self.in_hand(launch) else { return };
        let Some(watch) = self.processes.get_mut(&launch).and_then(|process| process.drain.as_mut()) else { return };
        // What was taken from the queue just before the first look is among the connections at the second.
        watch.empty = if seen.queued == 0 { watch.empty + 1 } else { 0 };
        let nothing = seen.queued == 0 && seen.busy == 0;
        let believed = watch.empty >= 2 && watch.tasks == TasksTold::Known;
        if (nothing && !believed) || watch.reported == Some(seen) {
            return;
        }
        watch.reported = Some(seen);
        self.fact(launch, WorkerEvent::DrainObserved(seen));
    }

    /// What the worker has, or none when it cannot be told just now.
    fn in_hand(&mut self, launch: Launch) -> Option<InFlight> {
        let process = self.processes.get_mut(&launch)?;
        let app = self.apps.get(&process.worker.app)?;
        let watch = process.drain.as_mut()?;
        let Some(lane) = process.lane else { return Some(InFlight::default()) };
        let listen = &process.record.config.listen;
        let accepting = app.addresses.accepting(listen);
        let look = |diag: &mut SockDiag| {
            // In the order of a connection's way: who leaves one place before the look is at the next when it is looked at.
            let coming = watch.handshakes.look(sys::boottime(), || diag.handshakes(&accepting))?;
            let queued = app.addresses.queued(listen, lane.0)?.saturating_add(coming);
            let pids = process.tree.pids();
            Ok((queued, diag.connections(&pids, &accepting)?, pids))
        };
        let diag = match &mut self.sock_diag {
            Some(diag) => Ok(diag),
            closed @ None => SockDiag::open().map(|diag| closed.insert(diag)),
        };
        match diag.and_then(look) {
            Ok((queued, connections, pids)) => {
                watch.blind = 0;
                let samples: Vec<Sample> = connections.iter().map(sample).collect();
                let mut seen = watch.connections.look(&samples, queued);
                // Silence of a connection that never rests may be a worker that was interrupted in its answer.
                if seen.busy == 0 && seen.reused > 0 && stat::is_at_work(&pids) {
                    (seen.busy, seen.idle, seen.reused) = (seen.reused, seen.idle - seen.reused, 0);
                }
                Some(seen)
            }
            Err(error) => {
                if watch.blind == 0 {
                    let (worker, why) = (&process.worker, in_full(&error));
                    tracing::warn!(%worker, error = why, "cannot see what a draining worker still has; it is looked at again");
                }
                watch.blind = watch.blind.saturating_add(1);
                self.sock_diag = None;
                None
            }
        }
    }
}

/// Asks for looks until it is aborted: often at first, then less so.
fn look_often(launch: Launch, inputs: mpsc::UnboundedSender<Input>) -> AbortHandle {
    tokio::spawn(async move {
        let mut pause = LOOK_FIRST;
        while inputs.send(Input::LookAtDrain(launch)).is_ok() {
            tokio::time::sleep(pause).await;
            pause = (pause * 5 / 4).min(LOOK_LAST);
        }
    })
    .abort_handle()
}

/// A connection as core judges it. Of a Unix connection the kernel tells no bytes and no times: it counts as busy until
/// it is closed.
fn sample(connection: &Connection) -> Sample {
    let milliseconds = |duration: Duration| u32::try_from(duration.as_millis()).unwrap_or(u32::MAX);
    // What was sent and is not acknowledged does not count: the kernel sees to it even when the worker is gone, and a
    // client that reuses its connection acknowledges with its next request only.
    let unsent = connection.traffic.map_or(connection.unsent, |traffic| traffic.bytes_not_sent);
    let pending = connection.unread.saturating_add(unsent);
    match connection.traffic {
        Some(traffic) => Sample {
            id: connection.inode,
            received: traffic.bytes_received,
            sent: traffic.bytes_sent,
            pending,
            since_received_ms: milliseconds(traffic.since_received),
            since_sent_ms: milliseconds(traffic.since_sent),
            since_ack_ms: milliseconds(traffic.since_acknowledged),
        },
        None => Sample {
            id: connection.inode,
            received: 1,
            sent: 0,
            pending,
            since_received_ms: 0,
            since_sent_ms: 0,
            since_ack_ms: 0,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sockets::{ConnectionState, Traffic};

    #[test]
    fn an_answer_that_waits_for_its_acknowledgement_is_the_kernels_matter() {
        let traffic = Traffic {
            since_received: Duration::from_millis(8),
            since_sent: Duration::from_millis(4),
            since_acknowledged: Duration::from_millis(8),
            bytes_received: 60,
            bytes_sent: 90,
            bytes_not_sent: 0,
        };
        let connection = Connection {
            inode: 1,
            remote: None,
            state: ConnectionState::Open,
            unread: 0,
            unsent: 90,
            traffic: Some(traffic),
        };
        assert_eq!(sample(&connection).pending, 0);
        let blocked = Connection { traffic: Some(Traffic { bytes_not_sent: 30, ..traffic }), ..connection.clone() };
        assert_eq!(sample(&blocked).pending, 30);
        assert_eq!(sample(&Connection { unread: 7, ..connection.clone() }).pending, 7);
        assert_eq!(sample(&Connection { traffic: None, ..connection }).pending, 90, "of Unix nothing else is known");
    }
}
