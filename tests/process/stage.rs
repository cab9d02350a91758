//! What the tests share: a program on stage, with its output caught, which does not outlive the test.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use agentd::process::plan::{ExecPlan, StageFailure};
use agentd::process::spawn::{Child, Company, Launcher, Report, SpawnFds, spawn};
use agentd::process::tree::Identity;
use agentd_core::id::Launch;
use camino::Utf8Path;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

/// Longer than anything here takes on the slowest machine, shorter than patience.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// A launcher of the binary that cargo built for this test.
pub(crate) fn launcher() -> Launcher {
    Launcher::of_binary_at(Utf8Path::new(env!("CARGO_BIN_EXE_agentd"))).unwrap()
}

/// A plan for `argv` in `/` with the test's own `PATH`, and nothing else.
pub(crate) fn plan(argv: &[&str]) -> ExecPlan {
    ExecPlan {
        argv: argv.iter().map(|&text| text.to_owned()).collect(),
        cwd: "/".into(),
        env: vec![("PATH".to_owned(), std::env::var("PATH").unwrap())],
        umask: 0o022,
        limits: Vec::new(),
        soft_files: None,
        cgroup: None,
        listen_names: Vec::new(),
        listen_pid: true,
        node_channel: false,
        stdin: false,
        account: agentd::process::account::Account::default(),
        secrets: agentd::process::plan::Secrets::default(),
    }
}

/// A plan for a Python program.
pub(crate) fn python(program: &str) -> ExecPlan {
    plan(&["python3", "-S", "-E", "-c", program])
}

/// A plan for a line of shell.
pub(crate) fn shell(line: &str) -> ExecPlan {
    plan(&["/bin/sh", "-c", line])
}

/// An identity that no other test has, nor a run of the tests beside this one.
pub(crate) fn identity() -> Identity {
    static LAUNCHES: AtomicU64 = AtomicU64::new(1);
    let launch = Launch(LAUNCHES.fetch_add(1, Ordering::Relaxed));
    Identity { instance: format!("test-{}", std::process::id()).into(), launch }
}

/// A started program; its process group is killed and its leader reaped when it goes out of scope.
#[derive(Debug)]
pub(crate) struct OnStage {
    pub(crate) pid: Pid,
    pidfd: rustix::fd::OwnedFd,
    output: File,
    reaped: bool,
}

/// How a program ended: its exit code, or the negative number of the signal.
pub(crate) type Ending = i32;

pub(crate) async fn start(plan: &ExecPlan) -> Result<OnStage, StageFailure> {
    start_with(plan, Vec::new()).await
}

pub(crate) async fn start_with(plan: &ExecPlan, listeners: Vec<BorrowedFd<'_>>) -> Result<OnStage, StageFailure> {
    start_by(&mut launcher(), plan, listeners).await
}

pub(crate) async fn start_by(
    launcher: &mut Launcher,
    plan: &ExecPlan,
    listeners: Vec<BorrowedFd<'_>>,
) -> Result<OnStage, StageFailure> {
    start_in(launcher, plan, listeners, Company::Others).await
}

/// The same, alone or not.
pub(crate) async fn start_in(
    launcher: &mut Launcher,
    plan: &ExecPlan,
    listeners: Vec<BorrowedFd<'_>>,
    company: Company,
) -> Result<OnStage, StageFailure> {
    let (mut on_stage, report) = begin(launcher, plan, listeners, company);
    on_stage.has_begun(report).await.map(|()| on_stage)
}

/// A process that is on its way to its program, and what will tell how that went.
pub(crate) fn begin(
    launcher: &mut Launcher,
    plan: &ExecPlan,
    listeners: Vec<BorrowedFd<'_>>,
    company: Company,
) -> (OnStage, Report) {
    let output = tempfile::tempfile().unwrap();
    let fds = SpawnFds { stdout: output.as_fd(), stderr: output.as_fd(), stdin: None, listeners };
    let Child { pid, pidfd, report } = spawn(launcher, plan, &fds, company).unwrap();
    let pid = Pid::from_raw(i32::try_from(pid.0).unwrap()).unwrap();
    (OnStage { pid, pidfd, output, reaped: false }, report)
}

impl OnStage {
    /// Waits until it is its program, or could not become it and has ended.
    pub(crate) async fn has_begun(&mut self, report: Report) -> Result<(), StageFailure> {
        let outcome = tokio::time::timeout(DEADLINE, report.outcome()).await.expect("the shim did not report in time");
        if let Err(failure) = &outcome {
            let ending = self.ending();
            assert_eq!(ending, i32::from(failure.exit_code()), "the shim's status tells the same as its report");
        }
        outcome
    }

    /// Waits for the program's end.
    pub(crate) fn ending(&mut self) -> Ending {
        assert!(self.ends_within(DEADLINE), "process {:?} did not end in time", self.pid);
        self.reap()
    }

    fn ends_within(&self, limit: Duration) -> bool {
        let limit = Timespec::try_from(limit).unwrap();
        poll(&mut [PollFd::new(&self.pidfd, PollFlags::IN)], Some(&limit)).unwrap() == 1
    }

    fn reap(&mut self) -> Ending {
        self.reaped = true;
        let status = waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED).unwrap().unwrap();
        status.exit_status().or(status.terminating_signal().map(|signal| -signal)).unwrap()
    }

    /// What it has printed up to now, on both streams.
    pub(crate) fn output(&mut self) -> String {
        let mut text = String::new();
        self.output.rewind().unwrap();
        self.output.read_to_string(&mut text).unwrap();
        text
    }
}

impl Drop for OnStage {
    fn drop(&mut self) {
        if !self.reaped {
            let _ = kill_process_group(self.pid, Signal::KILL);
            assert!(self.ends_within(DEADLINE), "a killed process ends");
            self.reap();
        }
    }
}

/// Runs a program to its end: how it ended, and what it printed.
pub(crate) async fn run(plan: &ExecPlan) -> Result<(Ending, String), StageFailure> {
    let mut on_stage = start(plan).await?;
    Ok((on_stage.ending(), on_stage.output()))
}
