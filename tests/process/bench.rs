//! How long a start takes. Prints its figure; asserts only what no machine under load would miss.

use std::fs::File;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use agentd::process::spawn::{SpawnFds, spawn};
use rustix::process::{WaitId, WaitIdOptions, waitid};

use crate::stage::{launcher, plan};

#[tokio::test]
async fn half_of_all_starts_take_less_than_fifty_milliseconds() {
    let null = File::options().write(true).open("/dev/null").unwrap();
    let (launcher, plan) = (launcher(), plan(&["/bin/true"]));
    let (mut called, mut executed) = (Vec::new(), Vec::new());
    for _ in 0..200 {
        let fds = SpawnFds { stdout: null.as_fd(), stderr: null.as_fd(), listeners: vec![] };
        let begin = Instant::now();
        let child = spawn(&launcher, &plan, &fds).unwrap();
        called.push(begin.elapsed());
        child.report.outcome().await.unwrap();
        executed.push(begin.elapsed());
        waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED).unwrap();
    }
    called.sort();
    executed.sort();
    println!("spawn() {:?}, to execve {:?} (medians of 200), worst {:?}", called[100], executed[100], executed[199]);
    assert!(executed[100] < Duration::from_millis(50));
}
