//! The crash of a worker under load, and exactly what it takes along.
//!
//! The requests on connections that a killed worker has accepted are lost with it: nobody else holds these. They are
//! known to the last one: it is stopped, so that it accepts no more; the sockets among its descriptors are looked up in
//! the kernel's table; then it is killed. A request on any other connection is the supervisor's to keep.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::e2e::{Loss, ProcessEnd};

/// Longest wait for all threads of a process to stop.
const STOPPED_WITHIN: Duration = Duration::from_secs(10);

/// A worker that was killed.
#[derive(Debug)]
pub(super) struct Crash {
    pub(super) pid: u32,
    /// The clients' ports of the connections that it had accepted.
    accepted: BTreeSet<u16>,
    /// A moment at which these were open, and after which no others came to be.
    at: Instant,
}

impl Crash {
    /// Kills a worker; none when it is gone.
    pub(super) fn of(pid: u32) -> Option<Self> {
        let process = ProcessEnd::of(pid)?;
        let number = Pid::from_raw(i32::try_from(pid).ok()?);
        kill(number, Signal::SIGSTOP).ok()?;
        let until = Instant::now() + STOPPED_WITHIN;
        while !is_stopped(pid) {
            if process.within(Duration::from_millis(1)) {
                return None;
            }
            assert!(Instant::now() < until, "process {pid} does not stop");
        }
        let at = Instant::now();
        let crash = Self { pid, accepted: accepted_by(pid), at };
        process.kill();
        Some(crash)
    }

    /// Whether this request was lost with the worker: its connection was in the worker's hands, and open when it died. The
    /// time tells it from a later connection with the same port.
    pub(super) fn took(&self, loss: &Loss) -> bool {
        loss.begun <= self.at && self.at <= loss.ended && loss.port.is_some_and(|port| self.accepted.contains(&port))
    }
}

/// Whether every thread has stopped.
fn is_stopped(pid: u32) -> bool {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    tasks.flatten().all(|task| {
        // A thread that is gone does nothing either.
        let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('T'))
    })
}

/// The other ends' ports of a process's TCP connections.
fn accepted_by(pid: u32) -> BTreeSet<u16> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let targets = descriptors.filter_map(|entry| fs::read_link(entry.path()).ok()?.into_os_string().into_string().ok());
    let inodes: BTreeSet<String> =
        targets.filter_map(|target| Some(target.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())).collect();
    let table = fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap_or_default();
    // Columns: number, own address, the other's, state, queues, timer, retransmits, user, timeout, inode.
    let rows = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let others = rows.filter(|row| row.get(9).is_some_and(|inode| inodes.contains(*inode))).filter_map(|row| {
        let (_, port) = row.get(2)?.split_once(':')?;
        u16::from_str_radix(port, 16).ok()
    });
    others.filter(|port| *port != 0).collect()
}
