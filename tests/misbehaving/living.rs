//! Workers that hang: found by their liveness probes, and replaced.

use agentd_protocol::events::EventKind;
use agentd_protocol::status::{ExitReason, WorkerState};
use agentd_testkit::e2e::Watch;
use nix::sys::signal::Signal;

use crate::fleet::{Fleet, next, next_exit, signal};

/// Asserts that the worker is found to hang, and that another takes its place.
fn replaced(fleet: &Fleet, hung: u32, watch: &mut Watch) {
    let failed = next(watch, |event| matches!(event.event, EventKind::ProbeFailed { .. }));
    let EventKind::ProbeFailed { failures, allowed, .. } = failed.event else { panic!("it was just looked at") };
    assert_eq!((failures, allowed), (1, 2));
    let exit = next_exit(watch);
    assert_eq!((exit.reason, exit.signal.as_deref()), (ExitReason::Unhealthy, Some("SIGKILL")));
    let worker = fleet.worker_until(|worker| worker.state == WorkerState::Ready && worker.restarts == 1);
    assert_ne!(worker.pid, Some(hung));
}

fn a_stopped_server_is_replaced(proof: &str) {
    let keys = format!("live = {{ {proof}, every = \"200ms\", timeout = \"1s\", failures = 2 }}");
    let fleet = Fleet::serving(&["serve"], &keys);
    let (pid, mut watch) = (fleet.pid(), fleet.daemon.watch());
    signal(pid, Signal::SIGSTOP);
    replaced(&fleet, pid, &mut watch);
}

#[test]
fn a_server_that_does_not_answer_is_replaced() {
    a_stopped_server_is_replaced("http = \"/\"");
}

#[test]
fn a_server_that_does_not_accept_is_replaced() {
    a_stopped_server_is_replaced("tcp = true");
}

#[test]
fn a_worker_whose_probe_command_fails_is_replaced() {
    let fleet = Fleet::new();
    let alive = fleet.file("alive");
    std::fs::write(&alive, "").expect("the home can be written");
    fleet.plain(
        &["ignore=SIGTERM", "print=up", "hang"],
        "ready = { log = \"up\" }\nstop = { timeout = \"500ms\" }\n\
         live = { command = [\"test\", \"-e\", \"alive\"], every = \"200ms\", timeout = \"5s\", failures = 2 }",
    );
    fleet.daemon.ctl_ok(&["start", "./web.toml"]);
    let (pid, mut watch) = (fleet.pid(), fleet.daemon.watch());
    std::fs::remove_file(&alive).expect("it was just written");
    next(&mut watch, |event| matches!(event.event, EventKind::WorkerStopping { .. }));
    std::fs::write(&alive, "").expect("the home can be written");
    assert_eq!(next_exit(&mut watch).reason, ExitReason::Unhealthy);
    let worker = fleet.worker_until(|worker| worker.state == WorkerState::Ready && worker.restarts == 1);
    assert_ne!(worker.pid, Some(pid));
}

#[test]
fn a_worker_whose_watchdog_falls_silent_is_aborted_and_started_again() {
    let fleet = Fleet::new();
    let path = fleet.file("beats");
    let words = ["notify=READY=1;WATCHDOG=1".to_owned(), format!("await={}", path.display()), "heart=0.1".to_owned()];
    let mut words: Vec<&str> = words.iter().map(String::as_str).collect();
    words.push("hang");
    fleet.plain(&words, "ready = \"notify\"\nlive = { watchdog = \"1s\" }\nrestart = { backoff = \"50ms..50ms\" }");
    fleet.daemon.ctl_ok(&["start", "./web.toml"]);
    let mut watch = fleet.daemon.watch();
    let exit = next_exit(&mut watch);
    assert_eq!((exit.reason, exit.signal.as_deref()), (ExitReason::Watchdog, Some("SIGABRT")));
    // Who says that it lives is left alone for longer than the interval.
    std::fs::write(&path, "").expect("the home can be written");
    let ready = fleet.worker_until(|worker| worker.state == WorkerState::Ready);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(3);
    while let Some(event) = watch.next(deadline) {
        let ended = matches!(event.event, EventKind::WorkerExited { .. });
        assert!(!ended, "{event:?}");
    }
    assert_eq!(fleet.app().workers[0].pid, ready.pid);
}
