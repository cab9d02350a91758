//! What trees of processes use: memory and processor time.
//!
//! Owns the sums. Read when a status is asked for, never on a timer of its own. With cgroups it visits the members
//! only, without it reads the process table once for all trees.

use std::time::Duration;

use agentd_core::id::Pid;

use super::cgroup::Cgroup;
use super::stat::{ProcessTable, Stat};
use super::sys::{page_size, ticks_per_second};
use super::tree::{Orphans, Tree, assign};

/// What one tree uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Living processes.
    pub processes: u32,
    /// Resident memory, in bytes, summed over the processes: pages that they share count for each.
    pub memory_bytes: u64,
    /// Processor time since the start. Without a cgroup, that of processes which ended unseen is missing, so it may
    /// fall; with one it never does.
    pub cpu: Duration,
}

/// What each of `trees` uses, in their order. A tree that is gone uses nothing.
#[must_use]
pub fn of_trees(trees: &[&Tree]) -> Vec<Usage> {
    let contained: Vec<Option<Usage>> = trees.iter().map(|tree| tree.cgroup().and_then(of_cgroup)).collect();
    if contained.iter().all(Option::is_some) {
        return contained.into_iter().flatten().collect();
    }
    let table = ProcessTable::read().unwrap_or_default();
    let members = assign(&table, trees, Orphans::Reparented);
    contained.into_iter().zip(members).map(|(known, processes)| known.unwrap_or_else(|| sum(processes))).collect()
}

/// Resident memory of one process, in bytes; none when it is gone.
#[must_use]
pub fn of_process(pid: Pid) -> Option<u64> {
    Stat::of(pid).map(|process| process.resident_pages * page_size())
}

fn of_cgroup(cgroup: &Cgroup) -> Option<Usage> {
    let processes: Vec<Stat> = cgroup.processes().ok()?.into_iter().filter_map(Stat::of).collect();
    let usage = sum(&processes);
    Some(Usage { cpu: cgroup.cpu_us().map_or(usage.cpu, Duration::from_micros), ..usage })
}

fn sum<'p>(processes: impl IntoIterator<Item = &'p Stat>) -> Usage {
    let (page, ticks_per_second) = (page_size(), ticks_per_second());
    processes.into_iter().fold(Usage::default(), |so_far, process| Usage {
        processes: so_far.processes + 1,
        memory_bytes: so_far.memory_bytes + process.resident_pages * page,
        cpu: so_far.cpu + Duration::from_micros(process.cpu_ticks * 1_000_000 / ticks_per_second),
    })
}
