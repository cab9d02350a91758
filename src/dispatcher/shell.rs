//! What the shell keeps of apps and processes beside core's state: descriptors, tasks, texts.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use agentd_core::drain::Connections;
use agentd_core::event::{Exit, InFlight};
use agentd_core::id::{Lane, Revision, Slot, WorkerId};
use agentd_core::time::Moment;
use agentd_core::worker::KernelProcess;
use jiff::Timestamp;
use tokio::task::AbortHandle;

use super::addresses::Addresses;
use super::handshakes::Handshakes;
use crate::logs::thread::{Inlet, StreamId};
use crate::notify::{FdStore, NotifySocket};
use crate::process::tree::Tree;
use crate::revision::RevisionRecord;
use crate::sockets::ListenAddr;
use crate::tasks::Gauge;
use crate::tasks::panels::Judged;

/// One app.
#[derive(Debug, Default)]
pub(super) struct AppShell {
    /// All its listening sockets, those of every revision that still runs.
    pub(super) addresses: Addresses,
    /// What its revisions stand for.
    pub(super) revisions: BTreeMap<Revision, Arc<RevisionRecord>>,
    /// What the releases of the generations are called that a deployment is about.
    pub(super) labels: BTreeMap<u64, String>,
    /// Which of its sockets the keeper has, by address and lane.
    pub(super) kept: BTreeSet<(ListenAddr, u32)>,
    /// What the gates of its deployment said last.
    pub(super) judged: Option<Judged>,
    /// The last lines of workers that are parked or wait for another restart, by slot.
    pub(super) last_lines: BTreeMap<Slot, Vec<String>>,
    /// What was told last of the app as a whole.
    pub(super) changes: Option<super::changes::Told>,
    /// Descriptors that workers gave for the next worker of their slot.
    pub(super) stored: BTreeMap<Slot, FdStore>,
}

impl AppShell {
    /// The number for a configuration: the one it has, or the next.
    pub(super) fn revision_of(&self, record: &RevisionRecord) -> Revision {
        let known = self.revisions.iter().find(|(_, known)| ***known == *record).map(|(&revision, _)| revision);
        known.unwrap_or_else(|| self.revisions.keys().next_back().map_or(Revision(1), |newest| newest.next()))
    }
}

/// One process of a worker.
#[derive(Debug)]
pub(super) struct ProcessShell {
    pub(super) worker: WorkerId,
    pub(super) lane: Option<Lane>,
    pub(super) record: Arc<RevisionRecord>,
    pub(super) tree: Tree,
    /// Of its main process: keeps the kernel from giving its number to another as long as we may signal it.
    pub(super) pidfd: OwnedFd,
    /// Whose end is the worker's end: the process started, or the one it named by `MAINPID`.
    pub(super) main: KernelProcess,
    pub(super) start: Start,
    /// Its end, once it is known.
    pub(super) exit: Option<Exit>,
    /// Where it is heard; kept for its last words and for the keeper.
    pub(super) notify: Arc<NotifySocket>,
    pub(super) started_at: Timestamp,
    /// Listens on its notify socket, and where the main process is no child of ours also for its end.
    pub(super) listeners: Vec<AbortHandle>,
    /// Tries to prove that it is ready, or that it lives.
    pub(super) prober: Option<AbortHandle>,
    pub(super) drain: Option<DrainWatch>,
    pub(super) streams: Vec<Printed>,
    /// What it has in hand, by the ledger's figures.
    pub(super) gauge: Arc<Gauge>,
    /// While it drains: tasks that are left to it until they end, because what takes its place does not read their
    /// checkpoints.
    pub(super) stay: u32,
    /// Tasks that it told of by datagram, and when.
    pub(super) told: HashMap<String, Moment>,
    /// How far it is, where a signal asked it to renew what it knows.
    pub(super) reloading: Option<super::refresh::Reloading>,
    /// Its last `STATUS=`.
    pub(super) status_text: Option<String>,
}

/// What a process prints, as long as the log thread moves it.
#[derive(Debug)]
pub(super) struct Printed {
    pub(super) id: StreamId,
    pub(super) fifo: Arc<Inlet>,
}

/// How far a start has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// The shim is at work.
    Underway,
    /// Its readiness is to be reported as soon as its program runs.
    ReadyWhenRunning,
    /// Its program runs.
    Running,
}

/// How a draining worker is watched.
#[derive(Debug)]
pub(super) struct DrainWatch {
    pub(super) connections: Connections,
    /// Who was on the way when its share was taken.
    pub(super) handshakes: Handshakes,
    /// What was last reported.
    pub(super) reported: Option<InFlight>,
    /// Looks in a row that found the accept queue empty.
    pub(super) empty: u32,
    /// How many looks in a row saw nothing at all, for want of descriptors mostly: the first of them is told.
    pub(super) blind: u32,
    /// Whether it is known what tasks it has.
    pub(super) tasks: TasksTold,
    /// Pauses between looks.
    pub(super) ticker: AbortHandle,
}

/// Whether the ledger has told of what a draining worker has in hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TasksTold {
    /// Not yet: a worker without connections may be in the middle of a task.
    Awaited,
    /// Yes, or there is no ledger.
    Known,
}

impl Drop for ProcessShell {
    fn drop(&mut self) {
        self.listeners.iter().for_each(AbortHandle::abort);
        if let Some(prober) = &self.prober {
            prober.abort();
        }
        if let Some(drain) = &self.drain {
            drain.ticker.abort();
        }
    }
}
