//! How long a start takes. Prints its figure; asserts only what no machine under load would miss.

use std::fs::File;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use agentd::process::cgroup::Cgroups;
use agentd::process::spawn::{Company, SpawnFds, spawn};
use agentd::process::tree::Tree;
use agentd::process::usage::of_trees;
use agentd_core::id::{Launch, Pid};
use rustix::process::{WaitId, WaitIdOptions, waitid};

use crate::stage::{identity, launcher, plan, start};

#[tokio::test]
async fn half_of_all_starts_take_less_than_half_a_second() {
    let null = File::options().write(true).open("/dev/null").unwrap();
    let cgroups = Cgroups::open(&format!("test-{}-starts", std::process::id())).ok();
    let cgroup = cgroups.as_ref().map(|cgroups| cgroups.make(Launch(1)).unwrap());
    for cgroup in [None, cgroup.as_ref()] {
        let (mut launcher, mut plan) = (launcher(), plan(&["/bin/true"]));
        plan.cgroup = cgroup.map(|cgroup| cgroup.dir().to_owned());
        let (mut called, mut executed) = (Vec::new(), Vec::new());
        for _ in 0..200 {
            let fds = SpawnFds { stdout: null.as_fd(), stderr: null.as_fd(), stdin: None, listeners: vec![] };
            let begin = Instant::now();
            let child = spawn(&mut launcher, &plan, &fds, Company::Others).unwrap();
            called.push(begin.elapsed());
            child.report.outcome().await.unwrap();
            executed.push(begin.elapsed());
            waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED).unwrap();
        }
        called.sort();
        executed.sort();
        let road = if cgroup.is_some() { "as a copy" } else { "by exec" };
        println!(
            "{road}: spawn() {:?}, to execve {:?} (medians of 200), worst {:?}",
            called[100], executed[100], executed[199]
        );
        assert!(executed[100] < Duration::from_millis(500));
    }
    if let Some(cgroups) = cgroups {
        let _ = cgroups.remove_empty(|_| true);
        cgroups.close();
    }
}

#[tokio::test]
async fn the_usage_of_a_hundred_workers_is_read_in_less_than_half_a_second() {
    let cgroups = Cgroups::open(&format!("test-{}-usage", std::process::id())).ok();
    let mut workers = Vec::new();
    for launch in (0..100).map(Launch) {
        let identity = identity();
        let cgroup = cgroups.as_ref().map(|cgroups| cgroups.make(launch).unwrap());
        let mut plan = plan(&["sleep", "1000"]);
        plan.cgroup = cgroup.as_ref().map(|cgroup| cgroup.dir().to_owned());
        let on_stage = start(&plan).await.unwrap();
        let leader = Pid(on_stage.pid.as_raw_nonzero().get().unsigned_abs());
        let contained = Tree::of_child(identity.clone(), leader, cgroup);
        let free = Tree::of_child(identity, leader, None);
        workers.push((on_stage, contained, free));
    }
    let median = |trees: Vec<&Tree>| {
        let mut times = (0..21)
            .map(|_| {
                let begin = Instant::now();
                assert_eq!(of_trees(&trees).iter().map(|usage| usage.processes).sum::<u32>(), 100);
                begin.elapsed()
            })
            .collect::<Vec<_>>();
        times.sort();
        times[10]
    };
    let contained = median(workers.iter().map(|(_, contained, _)| contained).collect());
    let free = median(workers.iter().map(|(_, _, free)| free).collect());
    println!("usage of 100 workers: by cgroups {contained:?}, by the process table {free:?}");
    let begin = Instant::now();
    for (mut on_stage, contained, _) in workers {
        contained.kill().unwrap();
        assert_eq!(on_stage.ending(), -9);
    }
    println!("ending 100 workers one after the other: {:?}", begin.elapsed());
    if let Some(cgroups) = cgroups {
        cgroups.close();
    }
    assert!(contained.max(free) < Duration::from_millis(500));
}
