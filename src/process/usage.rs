//! What trees of processes use: memory and processor time.
//!
//! Owns the sums. Read when a status is asked for, and of trees with a ceiling every few seconds. With cgroups it visits the members
//! only, without it reads the process table once for all trees.

use std::time::Duration;

use agentd_core::id::Pid;

use super::cgroup::Cgroup;
use super::controllers;
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

/// Memory of a tree where it is more than `ceiling`, in bytes. The kernel's own count for its cgroup where there is one;
/// else the resident memory of its processes, and only when that is beyond the ceiling the share of each in what they
/// have in common, which costs a walk through their memory.
#[must_use]
pub fn memory_beyond(tree: &Tree, ceiling: u64) -> Option<u64> {
    if let Some(used) = tree.cgroup().and_then(|cgroup| controllers::memory_in_use(cgroup.dir())) {
        return Some(used).filter(|used| *used >= ceiling);
    }
    let pids = tree.pids();
    let resident: u64 = pids.iter().filter_map(|&pid| of_process(pid)).sum();
    if resident <= ceiling {
        return None;
    }
    let used = pids.iter().filter_map(|&pid| proportional(pid).or_else(|| of_process(pid))).sum();
    Some(used).filter(|used| *used > ceiling)
}

/// Memory of one process, what it shares counted by its share; none where the kernel does not tell us.
fn proportional(pid: Pid) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let kilobytes = text.lines().find_map(|line| line.strip_prefix("Pss:"))?.trim().strip_suffix("kB")?;
    Some(kilobytes.trim().parse::<u64>().ok()? * 1024)
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
