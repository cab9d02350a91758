//! Programs that are copies of a zygote, and what becomes of it.

use std::fs;
use std::os::fd::AsFd;
use std::time::Instant;

use agentd::process::cgroup::{Cgroup, Cgroups};
use agentd::process::plan::Stage;
use agentd::process::spawn::Company;
use agentd_core::id::Launch;
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid};

use crate::stage::{DEADLINE, begin, launcher, shell, start_by, start_in};

/// The cgroups of one test, gone with it.
struct Groups(Option<Cgroups>);

impl Groups {
    /// None where the machine or the user has none.
    fn open(name: &str) -> Option<Self> {
        match Cgroups::open(&format!("test-{}-{name}", std::process::id())) {
            Ok(cgroups) => Some(Self(Some(cgroups))),
            Err(reason) => {
                println!("not tested: {reason}");
                None
            }
        }
    }

    fn make(&self, launch: u64) -> Cgroup {
        self.0.as_ref().expect("there until the end").make(Launch(launch)).unwrap()
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        let cgroups = self.0.take().expect("there until the end");
        let _ = cgroups.remove_empty(|_| true);
        cgroups.close();
    }
}

fn parent_of(pid: Pid) -> u32 {
    let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap();
    line.trim().parse().unwrap()
}

/// KiB of memory that are `pid`'s alone.
fn memory_of(pid: Pid) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test]
async fn one_that_is_started_alone_becomes_its_program_and_leaves_nothing_in_the_zygote() {
    let Some(groups) = Groups::open("alone") else { return };
    let cgroup = groups.make(1);
    // Long enough to be seen, if a tenth of it stayed.
    let long = "x".repeat(8192);
    let mut plan = shell(
        "[ \"$LISTEN_PID\" = $$ ] || exit 1
         while read line; do case $line in *-alone*) exit 41;; esac; done < /proc/self/cgroup",
    );
    plan.env.push(("LONG".to_owned(), long));
    plan.listen_pid = true;
    plan.listen_names = vec!["http".to_owned()];
    plan.cgroup = Some(cgroup.dir().to_owned());
    let mut launcher = launcher();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (mut zygote, mut copies, mut then) = (None, 0, 0);
    // One that a busy machine has made wait is replaced, and the next is looked at.
    for _ in 0..5000 {
        let mut on_stage = start_in(&mut launcher, &plan, vec![listener.as_fd()], Company::Alone).await.unwrap();
        assert_eq!(parent_of(on_stage.pid), std::process::id());
        assert_eq!(on_stage.ending(), 41);
        copies = if launcher.zygote() == zygote { copies + 1 } else { 1 };
        zygote = launcher.zygote();
        if copies == 50 {
            then = memory_of(zygote.unwrap());
        }
        if copies == 300 {
            let now = memory_of(zygote.unwrap());
            assert!(now < then + 100, "{then} KiB after 50 copies, {now} after 300");
            return;
        }
    }
    panic!("no zygote lasts for 300 copies");
}

#[tokio::test]
async fn one_that_is_started_alone_and_fails_says_so_and_the_next_is_started_by_another_zygote() {
    let Some(groups) = Groups::open("failing") else { return };
    let cgroup = groups.make(1);
    let mut failing = shell("");
    failing.argv = vec!["/nowhere/at-all".to_owned()];
    failing.cgroup = Some(cgroup.dir().to_owned());
    let mut good = shell("exit 7");
    good.cgroup = Some(cgroup.dir().to_owned());
    let mut launcher = launcher();
    for _ in 0..3 {
        let failure = start_in(&mut launcher, &failing, vec![], Company::Alone).await.unwrap_err();
        assert_eq!(failure.exit_code(), 127, "{failure}");
        assert!(matches!(failure.stage, Stage::FindingProgram(_)), "{failure}");
        let ended = launcher.zygote();
        assert_eq!(start_in(&mut launcher, &good, vec![], Company::Alone).await.unwrap().ending(), 7);
        // Where they do not share their memory, it need not.
        assert_eq!(launcher.zygote() != ended, cfg!(target_arch = "x86_64"));
        assert_eq!(start_by(&mut launcher, &good, vec![]).await.unwrap().ending(), 7);
    }
}

/// Stops all that is in `cgroup`, or has it go on.
fn freeze(cgroup: &Cgroup, word: &str) {
    fs::write(cgroup.dir().join("cgroup.freeze"), word).unwrap();
}

#[tokio::test]
async fn one_that_hangs_on_its_way_holds_up_nobody_else_and_becomes_its_program_when_it_can() {
    let Some(groups) = Groups::open("hanging") else { return };
    let (frozen, other) = (groups.make(1), groups.make(2));
    let mut hanging = shell("exit 41");
    hanging.cgroup = Some(frozen.dir().to_owned());
    let mut good = shell("exit 7");
    good.cgroup = Some(other.dir().to_owned());
    let mut launcher = launcher();
    freeze(&frozen, "1");
    let (mut hangs, report) = begin(&mut launcher, &hanging, vec![], Company::Alone);
    for company in [Company::Alone, Company::Others] {
        assert_eq!(start_in(&mut launcher, &good, vec![], company).await.unwrap().ending(), 7);
    }
    freeze(&frozen, "0");
    hangs.has_begun(report).await.unwrap();
    assert_eq!(hangs.ending(), 41);
}

#[tokio::test]
async fn one_that_is_killed_on_its_way_takes_its_zygote_along_and_another_is_made_ready() {
    let Some(groups) = Groups::open("killed-early") else { return };
    // Linux 6.18 ends at birth whoever is born in a cgroup that was killed before.
    let (cgroup, other) = (groups.make(1), groups.make(2));
    let mut plan = shell("exit 7");
    plan.cgroup = Some(cgroup.dir().to_owned());
    let mut launcher = launcher();
    freeze(&cgroup, "1");
    let (mut killed, report) = begin(&mut launcher, &plan, vec![], Company::Alone);
    let shared = launcher.zygote();
    cgroup.kill().unwrap();
    assert_eq!(killed.ending(), -9);
    let failure = report.outcome().await.unwrap_err();
    assert_eq!(failure.stage, Stage::ReadingPlan, "{failure}");
    launcher.make_ready();
    assert_eq!(launcher.zygote() != shared, cfg!(target_arch = "x86_64"));
    plan.cgroup = Some(other.dir().to_owned());
    assert_eq!(start_in(&mut launcher, &plan, vec![], Company::Alone).await.unwrap().ending(), 7);
}

#[tokio::test]
async fn a_copy_is_born_in_its_cgroup_as_our_own_child_and_its_exit_code_is_ours_to_hear() {
    let Some(groups) = Groups::open("copy") else { return };
    let cgroup = groups.make(1);
    let mut plan = shell("read line < /proc/self/cgroup; echo $line; exec sleep 1000");
    plan.cgroup = Some(cgroup.dir().to_owned());
    let mut launcher = launcher();
    let on_stage = start_by(&mut launcher, &plan, vec![]).await.unwrap();
    assert_eq!(parent_of(on_stage.pid), std::process::id());
    let pids: Vec<_> = cgroup.processes().unwrap();
    assert_eq!(pids, [agentd_core::id::Pid(on_stage.pid.as_raw_nonzero().get().unsigned_abs())]);
    drop(on_stage);

    plan.argv = shell("exit 41").argv;
    assert_eq!(start_by(&mut launcher, &plan, vec![]).await.unwrap().ending(), 41);
}

#[tokio::test]
async fn a_zygote_that_was_killed_is_replaced_at_the_next_start() {
    let Some(groups) = Groups::open("killed") else { return };
    let cgroup = groups.make(1);
    let mut plan = shell("exit 7");
    plan.cgroup = Some(cgroup.dir().to_owned());
    let mut launcher = launcher();
    assert_eq!(start_by(&mut launcher, &plan, vec![]).await.unwrap().ending(), 7);
    let first = launcher.zygote().unwrap();
    let pidfd = pidfd_open(first, PidfdFlags::empty()).unwrap();
    pidfd_send_signal(&pidfd, Signal::KILL).unwrap();
    waitid(WaitId::Pid(first), WaitIdOptions::EXITED).unwrap();
    assert_eq!(start_by(&mut launcher, &plan, vec![]).await.unwrap().ending(), 7);
    assert_ne!(launcher.zygote(), Some(first), "there is another");
}

#[tokio::test]
async fn a_zygote_ends_with_its_launcher() {
    let Some(groups) = Groups::open("ended") else { return };
    let cgroup = groups.make(1);
    let mut plan = shell("exit 0");
    plan.cgroup = Some(cgroup.dir().to_owned());
    let mut launcher = launcher();
    start_by(&mut launcher, &plan, vec![]).await.unwrap().ending();
    let zygote = launcher.zygote().unwrap();
    drop(launcher);
    let begun = Instant::now();
    while waitid(WaitId::Pid(zygote), WaitIdOptions::EXITED | WaitIdOptions::NOHANG).unwrap().is_none() {
        assert!(begun.elapsed() < DEADLINE, "the zygote outlives its launcher");
        std::thread::yield_now();
    }
}

#[tokio::test]
async fn where_the_kernel_makes_no_copy_the_plan_that_the_zygote_has_read_is_carried_out_all_the_same() {
    let no_cgroup = tempfile::tempdir().unwrap();
    let folder = no_cgroup.path().to_str().unwrap();
    let mut plan = shell("exit 11");
    plan.cgroup = Some(folder.into());
    let mut launcher = launcher();
    launcher.make_ready();
    assert_eq!(start_by(&mut launcher, &plan, vec![]).await.unwrap().ending(), 11);
    // What the shim says where it enters a cgroup by itself.
    assert_eq!(fs::read_to_string(no_cgroup.path().join("cgroup.procs")).unwrap(), "0");
}
