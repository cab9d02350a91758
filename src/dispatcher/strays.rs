//! Processes with our mark that belong to no worker.
//!
//! ```text
//!            a start is not recorded, the state is damaged, another boot          everything is recorded
//!                     │                                                                  │
//!   at a start:  look at every process, then adopt ── end the rest      adopt, serve ── look beside the loop ── end the rest
//! ```
//!
//! Owns looking for them, which means to read the environment of every process of the machine, and ending them. Where
//! every worker's process is recorded nobody waits for that: only what is [`Past`] is ended then, and the folders in which it cut
//! releases go with it.
//!
//! A worker that ended while nobody watched may have left descendants. They are looked for before its end is told, for
//! it may be started again at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use agentd_core::fleet::Fleet;
use agentd_core::id::Launch;
use agentd_core::time::Moment;
use agentd_core::worker::Worker;

use super::Dispatcher;
use super::input::Input;
use super::restore::Takeover;
use crate::causes::in_full;
use crate::process::cgroup::Cgroups;
use crate::process::stat::{ProcessTable, Stat};
use crate::process::tree::{Identity, Tree};
use crate::releases::store::remove;

/// How long what was killed may take to be gone.
const ENDED_WITHIN: Duration = Duration::from_secs(5);

/// Pause between two looks whether it is.
const AGAIN: Duration = Duration::from_millis(20);

/// Living processes with our mark, by launch: the first that was started of each.
#[derive(Clone, Debug, Default)]
pub struct Marked(BTreeMap<Launch, Stat>);

impl Marked {
    /// Looks at every process of the machine.
    fn look(instance: &Arc<str>, cgroups: Option<&Cgroups>) -> Self {
        let mut marked = Self::default();
        match ProcessTable::read() {
            Ok(table) => {
                for process in table.processes {
                    if let Some(mark) = Identity::of(process.pid).filter(|mark| mark.instance == *instance) {
                        marked.note(mark.launch, process);
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "processes of an earlier daemon could not be looked for"),
        }
        // One that was just born has no environment of its own yet.
        for (launch, pids) in cgroups.into_iter().flat_map(Cgroups::by_launch) {
            pids.into_iter().filter_map(Stat::of).for_each(|process| marked.note(launch, process));
        }
        marked
    }

    /// Notes a living process of `launch`; the first that was started of each counts.
    fn note(&mut self, launch: Launch, process: Stat) {
        if !process.is_zombie && self.0.get(&launch).is_none_or(|first| process.started < first.started) {
            self.0.insert(launch, process);
        }
    }

    pub(super) fn get(&self, launch: Launch) -> Option<&Stat> {
        self.0.get(&launch)
    }

    pub(super) fn remove(&mut self, launch: Launch) {
        self.0.remove(&launch);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Launch, &Stat)> {
        self.0.iter()
    }
}

/// More than any worker's launch: those are counted from 1 upwards.
const NO_WORKERS: u64 = u64::MAX / 2;

/// The marks that one daemon gives to processes that are no workers': hooks, checks of releases, cuts.
#[derive(Debug)]
pub(super) struct Marks {
    first: u64,
    next: u64,
}

impl Marks {
    /// Those of a daemon that begins now. Earlier ones gave lower marks: none gave as many as one a microsecond.
    pub(super) fn of_who_begins(now: Moment) -> Self {
        let first = NO_WORKERS.saturating_add(now.as_micros());
        Self { first, next: first }
    }

    /// One that nobody had before.
    pub(super) fn draw(&mut self) -> Launch {
        self.next += 1;
        Launch(self.next)
    }

    const fn is_of_the_past(first: u64, launch: Launch) -> bool {
        launch.0 > NO_WORKERS && launch.0 <= first
    }
}

/// Launches that were over when we took over: before the first that we give out, and no worker's.
#[derive(Clone, Debug)]
pub(super) struct Past {
    next: Launch,
    present: BTreeSet<Launch>,
    first_mark: u64,
}

impl Past {
    /// As seen from `fleet`, before it has decided anything.
    pub(super) fn of(fleet: &Fleet, marks: &Marks) -> Self {
        let workers = fleet.apps().flat_map(|app| app.workers.values());
        let present = workers.filter_map(|worker| worker.launch()).collect();
        Self { next: fleet.counters().launch, present, first_mark: marks.first }
    }

    fn has(&self, launch: Launch) -> bool {
        let was_a_worker = launch < self.next && !self.present.contains(&launch);
        was_a_worker || Marks::is_of_the_past(self.first_mark, launch)
    }
}

/// Whether a worker may have a process that is not recorded.
pub(super) fn may_be_unrecorded(worker: &Worker) -> bool {
    worker.state.process().is_some_and(|process| process.kernel.is_none())
}

impl Dispatcher {
    /// Looks at every process of the machine now.
    pub(super) fn look_for_marked(&self) -> Marked {
        Marked::look(&self.instance, self.cgroups.as_ref())
    }

    /// Ends what is left of workers that ended while nobody watched, and where all were looked at, every stray.
    pub(super) fn end_remains(&self, ended: &[Launch], taken: &Takeover) {
        match (&taken.marked, &self.cgroups) {
            (Some(marked), _) => self.end_strays(marked),
            (None, Some(cgroups)) => {
                let mut remains = Marked::default();
                for &launch in ended {
                    let pids = cgroups.processes_of(launch);
                    pids.into_iter().filter_map(Stat::of).for_each(|process| remains.note(launch, process));
                }
                self.end_strays(&remains);
            }
            (None, None) if ended.is_empty() => {}
            (None, None) => {
                let mut remains = self.look_for_marked();
                remains.0.retain(|launch, _| ended.contains(launch));
                self.end_strays(&remains);
            }
        }
    }

    /// Ends them, once they are found beside the loop, and removes the cgroups of the past.
    pub(super) fn end_strays_later(&self, past: Past) {
        let (instance, cgroups, inputs) = (Arc::clone(&self.instance), self.cgroups.clone(), self.inputs.clone());
        tokio::task::spawn_blocking(move || {
            let mut marked = Marked::look(&instance, cgroups.as_ref());
            marked.0.retain(|&launch, _| past.has(launch));
            if let Some(cgroups) = &cgroups {
                let removed = cgroups.remove_empty(|launch| past.has(launch));
                tracing::debug!(removed, "empty cgroups of earlier workers were removed");
            }
            // The loop is gone only at the very end.
            let _ = inputs.send(Input::Strays(marked));
        });
    }

    /// Removes folders in which earlier daemons cut releases, once nobody who cuts there is left: one of them may have made
    /// its folder after `restore_releases` looked.
    pub(super) fn remove_past_cuts(&self, ending: &Marked) {
        let (instance, cgroups, first) = (Arc::clone(&self.instance), self.cgroups.clone(), self.marks.first);
        let (folders, mut ending) = (self.releases.folders.clone(), !ending.0.is_empty());
        tokio::task::spawn_blocking(move || {
            let deadline = Instant::now() + ENDED_WITHIN;
            let is_past = |launch: &Launch| Marks::is_of_the_past(first, *launch);
            // What cannot be ended was told of, and what it leaves is removed by the next daemon.
            while ending && Instant::now() < deadline {
                ending = Marked::look(&instance, cgroups.as_ref()).0.keys().any(is_past);
                if ending {
                    std::thread::sleep(AGAIN);
                }
            }
            remove(folders.cut_by(|mark| is_past(&Launch(mark))));
        });
    }

    /// Ends hooks that an earlier daemon ran, now: before one of them is run once more.
    pub(super) fn end_left_hooks(&self) {
        let mut marked = self.look_for_marked();
        marked.0.retain(|&launch, _| Marks::is_of_the_past(self.marks.first, launch));
        self.end_strays(&marked);
    }

    /// Ends processes with our mark that belong to no worker.
    pub(super) fn end_strays(&self, marked: &Marked) {
        for (&launch, process) in &marked.0 {
            tracing::warn!(pid = %process.pid, %launch, "ending a process that an earlier daemon left and nobody recorded");
            let identity = Identity { instance: Arc::clone(&self.instance), launch };
            let cgroup = self.cgroups.as_ref().and_then(|all| all.of_process(process.pid, launch));
            let tree = Tree::recorded(identity, process.pid, process.started, cgroup);
            if let Err(error) = tree.kill() {
                tracing::warn!(pid = %process.pid, error = in_full(&error), "it could not be ended");
            }
        }
    }
}
