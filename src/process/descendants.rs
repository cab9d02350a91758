//! The end of everything that this process has started, whatever it did to get away.
//!
//! For helpers of the daemon that run foreign programs and have no cgroup. A process that [adopts
//! orphans](super::reaper::adopt_orphans) is the ancestor of all that its children start: a new session, a second fork
//! or a cleared environment change nothing about it.

use std::collections::{HashMap, HashSet};
use std::io;
use std::time::{Duration, Instant};

use agentd_core::id::Pid;
use nix::sys::signal::Signal;

use super::stat::{ProcessTable, StartTime, Stat};
use super::tree::send;

/// Longest wait for what was killed to be gone: a process in the middle of writing to a slow disk takes its time.
const GONE_WITHIN: Duration = Duration::from_secs(10);
/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Kills every descendant of this process until none is left alive. Those that ended stay to be reaped.
///
/// # Errors
/// Processes could not be listed, or one does not end.
pub fn end_all() -> io::Result<()> {
    let deadline = Instant::now() + GONE_WITHIN;
    let mut told: HashSet<(Pid, StartTime)> = HashSet::new();
    loop {
        let table = ProcessTable::read()?;
        let living = of(Pid(std::process::id()), &table);
        if living.is_empty() {
            return Ok(());
        }
        for process in living {
            if told.insert((process.pid, process.started)) {
                // Gone meanwhile is as good.
                let _ = send(process.pid, Some(process.started), Signal::SIGKILL);
            }
        }
        if Instant::now() >= deadline {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "processes of it do not end"));
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// The living descendants of `root`.
fn of(root: Pid, table: &ProcessTable) -> Vec<&Stat> {
    let mut children: HashMap<Pid, Vec<&Stat>> = HashMap::new();
    for process in &table.processes {
        children.entry(process.parent).or_default().push(process);
    }
    let (mut found, mut left) = (Vec::new(), vec![root]);
    let mut seen = HashSet::from([root]);
    while let Some(parent) = left.pop() {
        for child in children.get(&parent).into_iter().flatten() {
            if seen.insert(child.pid) {
                left.push(child.pid);
                if !child.is_zombie {
                    found.push(*child);
                }
            }
        }
    }
    found
}
