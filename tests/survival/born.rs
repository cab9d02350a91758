//! The supervisor dies while a worker is being born.

use std::io::Read;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use agentd_testkit::e2e::{Daemon, processes_with};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{PATIENCE, all_ready, fleet, pids, workers};

fn zygote_of(daemon: u32) -> Option<Pid> {
    let children = std::fs::read_to_string(format!("/proc/{daemon}/task/{daemon}/children")).ok()?;
    let is_it = |pid: &i32| {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        command.split(|&byte| byte == 0).nth(1) == Some(b"zygote")
    };
    children.split_whitespace().filter_map(|pid| pid.parse().ok()).find(is_it).map(Pid::from_raw)
}

fn answers(daemon: &Daemon) -> bool {
    let Ok(mut status) = UnixStream::connect(daemon.home.socket("status.sock")) else { return false };
    let asked = status.shutdown(Shutdown::Write).and(status.set_read_timeout(Some(Duration::from_millis(300))));
    asked.is_ok() && status.read(&mut [0]).is_ok_and(|read| read > 0)
}

#[test]
fn a_worker_that_is_ordered_and_not_born_when_the_supervisor_dies_runs_once() {
    let (mut daemon, _) = fleet();
    // Where workers have no cgroups, nobody makes copies.
    let Some(zygote) = zygote_of(daemon.pid()) else { return };
    kill(zygote, Signal::SIGSTOP).expect("it is there");
    workers::kill_nine(daemon.app("web").workers[0].pid.expect("it runs"));
    let deadline = Instant::now() + PATIENCE;
    while answers(&daemon) {
        assert!(Instant::now() < deadline, "it does not wait for its zygote");
    }
    daemon.kill();
    assert!(daemon.start_doomed("none:0", PATIENCE), "nobody begins while a worker may still be born");
    assert!(daemon.log().contains("still holds"), "{}", daemon.log());
    kill(zygote, Signal::SIGCONT).expect("it is there");
    daemon.start_again();
    let document = daemon.wait_until(PATIENCE, |document| all_ready(document) && pids(document).len() == 3);
    let marked = processes_with("AGENTD_INSTANCE", daemon.instance()).into_iter().collect();
    assert_eq!(pids(&document), marked, "a process that nobody knows runs beside the workers");
}
