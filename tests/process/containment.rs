//! Trees of real processes: who is found, and that none is left.

use std::io::Read;
use std::os::fd::AsFd;
use std::time::Instant;

use agentd::process::cgroup::{Cgroup, Cgroups};
use agentd::process::spawn::{Company, SpawnFds, spawn};
use agentd::process::stat;
use agentd::process::tree::{Identity, Tree};
use agentd::process::usage::of_trees;
use agentd_core::id::{Launch, Pid};
use nix::sys::signal::Signal;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};

use crate::stage::{DEADLINE, OnStage, identity, launcher, plan, python, start, start_with};

/// Forks a child, a child in a session of its own, and a daemon that forked twice; tells their ids on descriptor 3.
const FAMILY: &str = "
import os, signal
tell = lambda: os.write(3, b'%d\\n' % os.getpid())
def fork(then):
    if os.fork() == 0:
        then(); tell(); signal.pause()
def session(): os.setsid()
def daemon():
    os.setsid()
    if os.fork(): os._exit(0)
signal.signal(signal.SIGUSR1, lambda *_: None)
fork(lambda: None); fork(session); fork(daemon)
os.wait()   # for the one between us and the daemon, so that none but those that tell are left
tell()
while True: signal.pause()
";

/// A daemon that also forgets who started it. Only a cgroup holds that.
const STRANGER: &str = "
import os, sys, signal
if os.fork():
    os.wait()
    os.write(3, b'%d\\n' % os.getpid())
    signal.pause()
os.setsid()
if os.fork(): os._exit(0)
os.execve('/bin/sh', ['sh', '-c', 'echo $$ >&3; exec sleep 1000'], {'PATH': '/usr/bin:/bin'})
";

/// A program with what it has forked, none of which outlives the test.
struct Family {
    tree: Tree,
    on_stage: OnStage,
    /// The ids that were told.
    pids: Vec<Pid>,
}

impl Drop for Family {
    fn drop(&mut self) {
        self.tree.kill().expect("a tree of the test's own can be killed");
    }
}

/// Starts `program` and waits until it has told `count` ids.
async fn family(program: &str, count: usize, identity: Identity, cgroup: Option<&Cgroup>) -> Family {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    let mut plan = python(program);
    plan.env.extend(identity.variables());
    plan.cgroup = cgroup.map(|cgroup| cgroup.dir().to_owned());
    plan.listen_names = vec!["ids".into()];
    let on_stage = start_with(&plan, vec![writer.as_fd()]).await.unwrap();
    drop(writer);
    let tree = Tree::of_child(identity, leader(&on_stage), cgroup.cloned());
    let mut family = Family { tree, on_stage, pids: Vec::new() };
    let mut reader = std::fs::File::from(reader);
    let mut told = String::new();
    while told.lines().count() < count || !told.ends_with('\n') {
        assert!(is_readable(&reader), "only these told their ids in time: {told}");
        let mut chunk = [0; 256];
        let length = reader.read(&mut chunk).unwrap();
        assert!(length > 0, "all ended after these had told their ids: {told}");
        told.push_str(std::str::from_utf8(&chunk[..length]).unwrap());
    }
    family.pids.extend(told.lines().map(|line| Pid(line.parse().unwrap())));
    family
}

fn is_readable(fd: impl AsFd) -> bool {
    let limit = Timespec::try_from(DEADLINE).unwrap();
    poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&limit)).unwrap() == 1
}

fn holds(pids: &[Pid]) -> Vec<OwnedFd> {
    let raw = |pid: &Pid| rustix::process::Pid::from_raw(i32::try_from(pid.0).unwrap()).unwrap();
    pids.iter().map(|pid| pidfd_open(raw(pid), PidfdFlags::empty()).unwrap()).collect()
}

fn sorted(mut pids: Vec<Pid>) -> Vec<Pid> {
    pids.sort();
    pids
}

fn leader(on_stage: &OnStage) -> Pid {
    Pid(on_stage.pid.as_raw_nonzero().get().unsigned_abs())
}

#[tokio::test]
async fn without_a_cgroup_daemons_are_found_by_their_identity_and_none_survives() {
    let mut family = family(FAMILY, 4, identity(), None).await;
    let tree = family.tree.clone();
    assert_eq!(sorted(tree.pids()), sorted(family.pids.clone()));
    assert!(family.pids.iter().all(|&pid| tree.contains(pid)));
    assert!(!tree.contains(Pid(std::process::id())));
    assert!(of_trees(&[&tree])[0].processes >= 3, "the daemon counts when no other subreaper took it");

    let holds = holds(&family.pids);
    tree.kill().unwrap();
    assert!(holds.iter().all(is_readable), "all have ended");
    assert_eq!(family.on_stage.ending(), -9);
    assert_eq!(tree.pids(), []);
    assert!(!tree.signal_leader(Signal::SIGTERM).unwrap(), "nobody is left to be signalled");
}

#[tokio::test]
async fn two_instances_with_launches_of_one_number_leave_each_other_alone() {
    let mine = identity();
    let theirs = Identity { instance: format!("{}-another", mine.instance).into(), ..mine.clone() };
    let mine = family(FAMILY, 4, mine, None).await;
    let theirs = family(FAMILY, 4, theirs, None).await;
    assert_eq!(sorted(mine.tree.pids()), sorted(mine.pids.clone()));
    mine.tree.kill().unwrap();
    assert_eq!(sorted(theirs.tree.pids()), sorted(theirs.pids.clone()));
    let holds = holds(&theirs.pids);
    theirs.tree.kill().unwrap();
    assert!(holds.iter().all(is_readable));
}

#[tokio::test]
async fn a_signal_reaches_the_leader_alone_or_the_whole_tree() {
    let mut family = family(FAMILY, 4, identity(), None).await;
    let tree = family.tree.clone();
    assert_eq!(stat::catches(tree.leader(), Signal::SIGUSR1), Some(true));
    assert_eq!(stat::catches(tree.leader(), Signal::SIGTERM), Some(false));
    assert!(tree.signal_leader(Signal::SIGTERM).unwrap());
    assert_eq!(family.on_stage.ending(), -15);
    let left = family.pids.iter().copied().filter(|&pid| pid != tree.leader()).collect::<Vec<_>>();
    assert_eq!(sorted(tree.pids()), sorted(left.clone()), "the session and the daemon outlive their leader");
    let holds = holds(&left);
    assert_eq!(tree.signal(Signal::SIGTERM).unwrap(), 3);
    assert!(holds.iter().all(is_readable));
}

#[tokio::test]
async fn with_a_cgroup_even_a_daemon_that_forgot_who_started_it_is_killed() {
    let identity = identity();
    let launch = identity.launch;
    let cgroups = match Cgroups::open(&format!("test-{}-strangers", std::process::id())) {
        Ok(cgroups) => cgroups,
        Err(reason) => return println!("not tested: {reason}"),
    };
    let cgroup = cgroups.make(launch).unwrap();
    let mut family = family(STRANGER, 2, identity, Some(&cgroup)).await;
    let tree = family.tree.clone();
    let stranger = *family.pids.iter().find(|&&pid| pid != tree.leader()).unwrap();
    assert_eq!(cgroups.of_process(stranger, launch), Some(cgroup.clone()));
    assert_eq!(cgroups.of_process(stranger, launch.next()), None);
    assert_eq!(cgroups.of_process(Pid(std::process::id()), launch), None);

    assert_eq!(sorted(tree.pids()), sorted(vec![tree.leader(), stranger]));
    assert!(tree.contains(stranger));
    assert_eq!(of_trees(&[&tree])[0].processes, 2);
    assert!(cgroup.remove().is_err(), "it is in use");
    assert_eq!(cgroups.remove_empty(|_| true), 0);

    let holds = holds(&family.pids);
    tree.kill().unwrap();
    assert!(holds.iter().all(is_readable));
    assert_eq!(family.on_stage.ending(), -9);
    // The kernel takes a process out of its cgroup a moment after it lets its end be seen.
    let begin = Instant::now();
    while cgroup.remove().is_err() {
        assert!(begin.elapsed() < DEADLINE, "the cgroup is still in use");
    }
    cgroup.remove().unwrap();
    assert_eq!(cgroups.remove_empty(|_| true), 0);
    cgroups.close();
}

#[tokio::test]
async fn a_leader_that_has_not_entered_its_cgroup_yet_is_reached_all_the_same() {
    for (name, signal) in [("early-term", Some(Signal::SIGTERM)), ("early-kill", None)] {
        let cgroups = match Cgroups::open(&format!("test-{}-{name}", std::process::id())) {
            Ok(cgroups) => cgroups,
            Err(reason) => return println!("not tested: {reason}"),
        };
        let identity = identity();
        let cgroup = cgroups.make(identity.launch).unwrap();
        let mut family = family(FAMILY, 4, identity.clone(), None).await;
        let tree = Tree::of_child(identity, family.tree.leader(), Some(cgroup.clone()));
        match signal {
            Some(signal) => assert_eq!(tree.signal(signal).unwrap(), 1),
            None => tree.kill().unwrap(),
        }
        assert_eq!(family.on_stage.ending(), signal.map_or(-9, |signal| -(signal as i32)));
        cgroup.remove().unwrap();
        cgroups.close();
    }
}

#[test]
fn empty_cgroups_that_a_predecessor_left_are_removed_with_what_is_below_them() {
    let instance = format!("test-{}-leftovers", std::process::id());
    let Ok(cgroups) = Cgroups::open(&instance) else { return };
    let cgroup = cgroups.make(Launch(1)).unwrap();
    assert_eq!(cgroups.make(Launch(1)).unwrap(), cgroup, "making it again finds it");
    std::fs::create_dir(cgroup.dir().join("inner")).unwrap();
    drop(cgroups.make(Launch(2)).unwrap());
    let successor = Cgroups::open(&instance).unwrap();
    assert_eq!(successor.remove_empty(|_| true), 2);
    cgroup.remove().unwrap();
    assert!(cgroup.processes().is_err());
    successor.close();
}

#[tokio::test]
async fn a_process_is_in_its_cgroup_from_its_first_moment_on() {
    let Ok(cgroups) = Cgroups::open(&format!("test-{}-born", std::process::id())) else { return };
    let cgroup = cgroups.make(Launch(1)).unwrap();
    let mut plan = plan(&["sleep", "1000"]);
    plan.cgroup = Some(cgroup.dir().to_owned());
    let null = std::fs::File::options().write(true).open("/dev/null").unwrap();
    let fds = SpawnFds { stdout: null.as_fd(), stderr: null.as_fd(), stdin: None, listeners: vec![] };
    let child = spawn(&mut launcher(), &plan, &fds, Company::Others).unwrap();
    assert_eq!(cgroup.processes().unwrap(), [child.pid], "before anything of it has run");
    child.report.outcome().await.unwrap();
    Tree::of_child(identity(), child.pid, Some(cgroup.clone())).kill().unwrap();
    waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED).unwrap();
    cgroup.remove().unwrap();
    cgroups.close();
}

#[tokio::test]
async fn a_tree_uses_memory_and_time() {
    let mut plan =
        python("import os\nb=bytearray(64<<20)\nwhile sum(os.times()[:2]) < 0.1: pass\nos.write(1,b'x'); os.read(3,1)");
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    plan.listen_names = vec!["wait".into()];
    let (output, told) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    // Its first word goes to the second descriptor, so that we wait for it and not for some time.
    plan.argv[4] = plan.argv[4].replace("os.write(1,", "os.write(4,");
    plan.listen_names.push("told".into());
    let on_stage = start_with(&plan, vec![reader.as_fd(), told.as_fd()]).await.unwrap();
    assert!(is_readable(&output));
    let usage = of_trees(&[&Tree::of_child(identity(), leader(&on_stage), None)])[0];
    assert_eq!(usage.processes, 1);
    assert!(usage.memory_bytes > 64 << 20, "{usage:?}");
    assert!(usage.cpu.as_millis() >= 90, "{usage:?}");
    drop(writer);
}

#[tokio::test]
async fn a_tree_that_has_ended_has_no_processes_and_uses_nothing() {
    let mut on_stage = start(&plan(&["true"])).await.unwrap();
    let tree = Tree::of_child(identity(), leader(&on_stage), None);
    on_stage.ending();
    assert_eq!(tree.pids(), []);
    assert_eq!(of_trees(&[&tree])[0].processes, 0);
    tree.kill().unwrap();
}

#[tokio::test]
async fn a_leader_that_has_yet_to_enter_its_cgroup_is_signalled_and_killed() {
    let cgroups = match Cgroups::open(&format!("test-{}-early", std::process::id())) {
        Ok(cgroups) => cgroups,
        Err(reason) => return println!("not tested: {reason}"),
    };
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let identity = identity();
        let cgroup = cgroups.make(identity.launch).unwrap();
        // It never enters its cgroup: as early as can be.
        let mut on_stage = start(&plan(&["sleep", "1000"])).await.unwrap();
        let tree = Tree::of_child(identity, leader(&on_stage), Some(cgroup));
        if signal == Signal::SIGKILL {
            tree.kill().unwrap();
        } else {
            assert_eq!(tree.signal(signal).unwrap(), 1);
        }
        assert_eq!(on_stage.ending(), -(signal as i32));
    }
    assert_eq!(cgroups.remove_empty(|_| true), 2);
    cgroups.close();
}
