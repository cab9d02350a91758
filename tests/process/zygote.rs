//! Programs that are copies of a zygote, and what becomes of it.

use std::fs;
use std::time::Instant;

use agentd::process::cgroup::{Cgroup, Cgroups};
use agentd_core::id::Launch;
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid};

use crate::stage::{DEADLINE, launcher, shell, start_by};

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

/// Children of this process that are zygotes.
fn zygotes() -> Vec<Pid> {
    let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
    let children = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok()).collect::<String>();
    let pids = children.split_whitespace().map(|pid| pid.parse::<i32>().unwrap());
    let is_one = |pid: &i32| {
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        words.split(|&byte| byte == 0).nth(1) == Some(b"zygote")
    };
    pids.filter(is_one).filter_map(Pid::from_raw).collect()
}

fn parent_of(pid: Pid) -> u32 {
    let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap();
    line.trim().parse().unwrap()
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
    let first = zygotes();
    assert!(!first.is_empty(), "the launcher has one");
    for pid in &first {
        let pidfd = pidfd_open(*pid, PidfdFlags::empty()).unwrap();
        pidfd_send_signal(&pidfd, Signal::KILL).unwrap();
        waitid(WaitId::Pid(*pid), WaitIdOptions::EXITED).unwrap();
    }
    assert_eq!(start_by(&mut launcher, &plan, vec![]).await.unwrap().ending(), 7);
    assert!(zygotes().iter().any(|pid| !first.contains(pid)), "there is another");
}

#[tokio::test]
async fn a_zygote_ends_with_its_launcher() {
    let Some(groups) = Groups::open("ended") else { return };
    let cgroup = groups.make(1);
    let mut plan = shell("exit 0");
    plan.cgroup = Some(cgroup.dir().to_owned());
    let before = zygotes();
    let mut launcher = launcher();
    start_by(&mut launcher, &plan, vec![]).await.unwrap().ending();
    let ours: Vec<Pid> = zygotes().into_iter().filter(|pid| !before.contains(pid)).collect();
    drop(launcher);
    let begin = Instant::now();
    for pid in ours {
        while waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG).unwrap().is_none() {
            assert!(begin.elapsed() < DEADLINE, "the zygote outlives its launcher");
            std::thread::yield_now();
        }
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
