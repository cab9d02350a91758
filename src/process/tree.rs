//! All processes of one worker: who they are, signals to them, the end of them.
//!
//! Owns the question which processes belong to a launch. With a [cgroup](super::cgroup) the kernel answers it, and
//! nothing escapes. Without, a process belongs to a launch when it started no earlier than the launch's leader, and
//!
//! 1. is the leader, or in the leader's session, or a descendant of such a one; or
//! 2. has lost its parent, and was started with the launch's [identity](Identity) in its environment (a daemon that
//!    forked twice and made its own session).
//!
//! What escapes the second way *and* clears its environment is found by nobody without a cgroup.
//!
//! Ids are reused: a process is signalled through a pidfd, after its start time was compared.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;

use agentd_core::id::{Launch, Pid};
use nix::sys::signal::Signal;
use rustix::io::Errno;
use rustix::process::{PidfdFlags, pidfd_open, pidfd_send_signal};
use thiserror::Error;

use super::cgroup::{Cgroup, CgroupError};
use super::stat::{self, ProcessTable, StartTime, Stat};
use super::{INSTANCE_VARIABLE, LAUNCH_VARIABLE};

/// Sweeps after which a tree that still shows new processes is given up. Two are usual.
const SWEEPS_MAX: usize = 32;
/// Generations that a process is looked for upwards; more than any real tree has.
const DEPTH_MAX: usize = 128;

/// Which launch a process was started for, as its environment says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The instance; unlike that of every other supervisor of this user on this machine.
    pub instance: Arc<str>,
    /// The launch.
    pub launch: Launch,
}

impl Identity {
    /// The environment variables that carry it.
    #[must_use]
    pub fn variables(&self) -> [(String, String); 2] {
        [
            (INSTANCE_VARIABLE.to_owned(), self.instance.to_string()),
            (LAUNCH_VARIABLE.to_owned(), self.launch.to_string()),
        ]
    }

    /// The identity that `pid` was started with.
    #[must_use]
    pub fn of(pid: Pid) -> Option<Self> {
        let environment = stat::environment(pid)?;
        let instance = stat::value(&environment, INSTANCE_VARIABLE)?.into();
        let launch = Launch(stat::value(&environment, LAUNCH_VARIABLE)?.parse().ok()?);
        Some(Self { instance, launch })
    }
}

/// Why a signal has reached nobody of a tree. A later attempt may succeed.
#[derive(Debug, Error)]
pub enum SignalError {
    /// The processes of the machine could not be listed.
    #[error("list processes")]
    List(#[source] io::Error),
    /// One could not be reached, for want of descriptors or memory.
    #[error("signal process {pid}")]
    Send {
        /// The process.
        pid: Pid,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Why a tree could not be ended.
#[derive(Debug, Error)]
pub enum KillError {
    /// The processes of the machine could not be listed.
    #[error("list processes")]
    List(#[source] io::Error),
    /// The kernel refuses that we signal one, which has changed its user mostly.
    #[error("kill process {pid}")]
    Refused {
        /// The process.
        pid: Pid,
        /// What the kernel said.
        source: io::Error,
    },
    /// New processes appeared faster than they were killed.
    #[error("kill a tree of processes that kept forking for {SWEEPS_MAX} sweeps")]
    KeptForking,
}

/// The processes of one launch.
#[derive(Clone, Debug)]
pub struct Tree {
    identity: Identity,
    leader: Pid,
    started: StartTime,
    cgroup: Option<Cgroup>,
}

impl Tree {
    /// The tree of a process that was just started, before it can have been reaped.
    #[must_use]
    pub fn of_child(identity: Identity, leader: Pid, cgroup: Option<Cgroup>) -> Self {
        // A child that was not reaped is always there. Should /proc not be, then the highest start time keeps us from
        // taking anyone else's process for its.
        let started = stat::start_time(leader).unwrap_or(StartTime(u64::MAX));
        Self { identity, leader, started, cgroup }
    }

    /// The tree of a process that was recorded with its start time.
    #[must_use]
    pub const fn recorded(identity: Identity, leader: Pid, started: StartTime, cgroup: Option<Cgroup>) -> Self {
        Self { identity, leader, started, cgroup }
    }

    /// The process that was started first.
    #[must_use]
    pub const fn leader(&self) -> Pid {
        self.leader
    }

    /// When the leader started; to be recorded with its id.
    #[must_use]
    pub const fn started(&self) -> StartTime {
        self.started
    }

    /// The cgroup that holds it, where there is one.
    #[must_use]
    pub const fn cgroup(&self) -> Option<&Cgroup> {
        self.cgroup.as_ref()
    }

    /// Its living processes. A cheap question with a cgroup; without, it visits all processes of the machine.
    #[must_use]
    pub fn pids(&self) -> Vec<Pid> {
        self.listed().unwrap_or_default()
    }

    fn listed(&self) -> io::Result<Vec<Pid>> {
        if let Some(Ok(pids)) = self.cgroup.as_ref().map(Cgroup::processes) {
            return Ok(pids);
        }
        let table = ProcessTable::read()?;
        let mut members = assign(&table, &[self], Orphans::Everywhere);
        Ok(members.remove(0).into_iter().map(|process| process.pid).collect())
    }

    /// Whether `pid` belongs to it. Visits the ancestors of `pid` only.
    #[must_use]
    pub fn contains(&self, pid: Pid) -> bool {
        if let Some(Ok(pids)) = self.cgroup.as_ref().map(Cgroup::processes)
            && pids.contains(&pid)
        {
            return true;
        }
        let mut next = pid;
        for _ in 0..DEPTH_MAX {
            let Some(process) = Stat::of(next).filter(|process| process.started >= self.started) else { break };
            if process.pid == self.leader {
                return process.started == self.started;
            }
            if process.session == self.leader && self.may_own_session(Stat::of(self.leader).as_ref()) {
                return true;
            }
            next = process.parent;
        }
        Stat::of(pid).is_some_and(|process| process.started >= self.started)
            && Identity::of(pid).as_ref() == Some(&self.identity)
    }

    /// Whether the session named by the leader's id is the leader's, given who has that id now. As long as anyone is in
    /// the session its id is given to no other process.
    fn may_own_session(&self, holder: Option<&Stat>) -> bool {
        holder.is_none_or(|process| process.started == self.started)
    }

    /// Sends `signal` to each of its processes and says how many received it.
    ///
    /// The leader comes first, and is among them even when its cgroup does not show it: one that was started a moment ago has
    /// yet to enter it.
    ///
    /// # Errors
    /// [`SignalError`]: nobody received it, for want of something that comes back.
    pub fn signal(&self, signal: Signal) -> Result<usize, SignalError> {
        let pids = self.listed().map_err(SignalError::List)?;
        // First, so that nobody has heard it when it fails and is tried again: some programs take a second word for "at once".
        let led = self.signal_leader(signal)?;
        let others = pids.iter().filter(|&&pid| pid != self.leader);
        Ok(usize::from(led) + others.filter(|&&pid| send(pid, None, signal).is_ok()).count())
    }

    /// Sends `signal` to the leader alone. False when it has ended, or is not ours to signal.
    ///
    /// # Errors
    /// [`SignalError::Send`]: it did not receive it, for want of something that comes back.
    pub fn signal_leader(&self, signal: Signal) -> Result<bool, SignalError> {
        match send(self.leader, Some(self.started), signal) {
            Ok(()) => Ok(true),
            Err(errno) if stat::is_want(errno) => Err(SignalError::Send { pid: self.leader, source: errno.into() }),
            Err(_) => Ok(false),
        }
    }

    /// Sends SIGKILL to all of it, so that none is left that was not sent it. Returns before they have ended; they are
    /// reaped as ours, or by their parents.
    ///
    /// # Errors
    /// [`KillError`]: some may live on.
    pub fn kill(&self) -> Result<(), KillError> {
        match self.cgroup.as_ref().map(Cgroup::kill) {
            Some(Ok(())) => {
                // A moment after it was started the leader has not entered its cgroup yet.
                let _early = self.signal_leader(Signal::SIGKILL);
                Ok(())
            }
            // Removed meanwhile, or a file system that was remounted: the other way is always there.
            Some(Err(
                CgroupError::Kill { .. }
                | CgroupError::Make { .. }
                | CgroupError::List { .. }
                | CgroupError::Remove { .. },
            ))
            | None => self.sweep(),
        }
    }

    /// Kills whatever the table shows until it shows nothing new. A process with SIGKILL pending cannot fork, so what
    /// it had forked before is in the next table.
    fn sweep(&self) -> Result<(), KillError> {
        let mut killed = HashSet::new();
        let mut refused = None;
        for _ in 0..SWEEPS_MAX {
            let table = ProcessTable::read().map_err(KillError::List)?;
            let before = killed.len();
            for process in assign(&table, &[self], Orphans::Everywhere).remove(0) {
                if !killed.insert((process.pid, process.started)) {
                    continue;
                }
                match send(process.pid, Some(process.started), Signal::SIGKILL) {
                    Ok(()) | Err(Errno::SRCH) => {}
                    Err(errno) => refused = Some(KillError::Refused { pid: process.pid, source: errno.into() }),
                }
            }
            if killed.len() == before {
                return refused.map_or(Ok(()), Err);
            }
        }
        Err(KillError::KeptForking)
    }
}

/// Signals exactly the process that started at `started`, where that is known.
pub(super) fn send(pid: Pid, started: Option<StartTime>, signal: Signal) -> Result<(), Errno> {
    let number = i32::try_from(pid.0).ok().and_then(rustix::process::Pid::from_raw).ok_or(Errno::SRCH)?;
    let signal = rustix::process::Signal::from_named_raw(signal as i32).ok_or(Errno::INVAL)?;
    let pidfd = pidfd_open(number, PidfdFlags::empty())?;
    // With the pidfd open, what /proc says is about this process, or the signal goes to nobody.
    if let Some(started) = started
        && Stat::seen(pid)?.is_none_or(|seen| seen.started != started)
    {
        return Err(Errno::SRCH);
    }
    pidfd_send_signal(pidfd, signal)
}

/// Among whom processes are looked for that left their session and lost their parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Orphans {
    /// Our own children and those of the init process: cheap, and right as long as no third process adopts.
    Reparented,
    /// Everyone that is no earlier than the trees: for when none may be missed.
    Everywhere,
}

/// Sorts the living processes of `table` into `trees`, answered in their order.
pub(super) fn assign<'t>(table: &'t ProcessTable, trees: &[&Tree], orphans: Orphans) -> Vec<Vec<&'t Stat>> {
    let by_pid: HashMap<Pid, &Stat> = table.processes.iter().map(|process| (process.pid, process)).collect();
    let by_leader: HashMap<Pid, usize> = trees
        .iter()
        .enumerate()
        .filter(|(_, tree)| tree.may_own_session(by_pid.get(&tree.leader).copied()))
        .map(|(index, tree)| (tree.leader, index))
        .collect();
    let mut sorter = Sorter { trees, by_pid, by_leader, orphans, owners: HashMap::new() };
    let mut members = vec![Vec::new(); trees.len()];
    for process in &table.processes {
        if let Some(owner) = sorter.owner(process, DEPTH_MAX)
            && !process.is_zombie
        {
            members[owner].push(process);
        }
    }
    members
}

struct Sorter<'t, 'r> {
    trees: &'r [&'r Tree],
    by_pid: HashMap<Pid, &'t Stat>,
    by_leader: HashMap<Pid, usize>,
    orphans: Orphans,
    /// What was found out already.
    owners: HashMap<Pid, Option<usize>>,
}

impl Sorter<'_, '_> {
    /// The index of the tree that `process` belongs to.
    fn owner(&mut self, process: &Stat, depth: usize) -> Option<usize> {
        if let Some(&known) = self.owners.get(&process.pid) {
            return known;
        }
        let owner =
            self.by_session(process).or_else(|| self.by_parent(process, depth)).or_else(|| self.by_identity(process));
        self.owners.insert(process.pid, owner);
        owner
    }

    fn by_session(&self, process: &Stat) -> Option<usize> {
        let index = *self.by_leader.get(&process.pid).or_else(|| self.by_leader.get(&process.session))?;
        (process.started >= self.trees[index].started).then_some(index)
    }

    fn by_parent(&mut self, process: &Stat, depth: usize) -> Option<usize> {
        let parent = *self.by_pid.get(&process.parent)?;
        // A table is read over some time: a parent that is younger is another process of that number.
        if depth == 0 || parent.started > process.started {
            return None;
        }
        self.owner(parent, depth - 1)
    }

    fn by_identity(&self, process: &Stat) -> Option<usize> {
        let me = std::process::id();
        let reparented = process.parent.0 == me || process.parent.0 == 1;
        if process.pid.0 == me || process.is_zombie || (self.orphans == Orphans::Reparented && !reparented) {
            return None;
        }
        if !self.trees.iter().any(|tree| process.started >= tree.started) {
            return None;
        }
        let identity = Identity::of(process.pid)?;
        self.trees.iter().position(|tree| tree.identity == identity && process.started >= tree.started)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: u32, parent: u32, session: u32, started: u64) -> Stat {
        Stat {
            pid: Pid(pid),
            is_zombie: false,
            parent: Pid(parent),
            group: Pid(session),
            session: Pid(session),
            cpu_ticks: 0,
            started: StartTime(started),
            wait_status: 0,
            resident_pages: 0,
        }
    }

    fn tree(launch: u64, leader: u32, started: u64) -> Tree {
        let identity = Identity { instance: "a-test-of-trees".into(), launch: Launch(launch) };
        Tree::recorded(identity, Pid(leader), StartTime(started), None)
    }

    fn members(processes: Vec<Stat>, trees: &[&Tree]) -> Vec<Vec<u32>> {
        let table = ProcessTable { processes };
        let found = assign(&table, trees, Orphans::Reparented);
        found.into_iter().map(|processes| processes.into_iter().map(|process| process.pid.0).collect()).collect()
    }

    // Numbers above the kernel's highest pid, so that no /proc of a real process is read.
    const P: u32 = 5_000_000;

    #[test]
    fn a_tree_is_its_leaders_session_and_all_that_descends_from_it() {
        let (one, two) = (tree(1, P + 10, 100), tree(2, P + 20, 100));
        let processes = vec![
            process(P + 13, P + 12, P + 13, 120),
            process(P + 10, P, P + 10, 100),
            process(P + 11, P + 10, P + 10, 101),
            process(P + 12, P + 11, P + 12, 110),
            process(P + 14, 7, P + 10, 130),
            process(P + 20, P, P + 20, 100),
            process(P + 30, P, P + 30, 140),
        ];
        let expected = vec![vec![P + 13, P + 10, P + 11, P + 12, P + 14], vec![P + 20]];
        assert_eq!(members(processes, &[&one, &two]), expected);
    }

    #[test]
    fn a_session_outlives_its_leader_and_a_later_process_of_the_leaders_number_is_not_ours() {
        let tree = tree(1, P + 10, 100);
        assert_eq!(members(vec![process(P + 11, 7, P + 10, 105)], &[&tree]), [[P + 11]]);
        let reused = vec![process(P + 10, 7, P + 10, 500), process(P + 12, P + 10, P + 10, 501)];
        assert_eq!(members(reused, &[&tree]), [[0_u32; 0]]);
    }

    #[test]
    fn processes_older_than_the_leader_and_ended_ones_are_not_members() {
        let tree = tree(1, P + 10, 100);
        let ended = Stat { is_zombie: true, ..process(P + 10, P, P + 10, 100) };
        let child_of_ended = process(P + 11, P + 10, P + 11, 110);
        let older = process(P + 12, 7, P + 10, 99);
        assert_eq!(members(vec![child_of_ended, older, ended], &[&tree]), [[P + 11]]);
    }

    #[test]
    fn a_circle_of_parents_in_a_table_that_changed_while_it_was_read_ends() {
        let tree = tree(1, P + 10, 100);
        let circle = vec![process(P + 1, P + 2, P + 1, 100), process(P + 2, P + 1, P + 2, 100)];
        assert_eq!(members(circle, &[&tree]), [[0_u32; 0]]);
    }
}
