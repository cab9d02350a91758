//! Workers that end by themselves: started again or left so, and parked when it is of no use.

use agentd_protocol::control::AppDetails;
use agentd_protocol::status::{AppState, BreakerState, ExitReason, ExitView, WorkerState};

use crate::fleet::Fleet;

/// An app that may be started twice more.
fn app(policy: &str, words: &[&str]) -> Fleet {
    let fleet = Fleet::new();
    let keys = format!("restart = {{ policy = \"{policy}\", max = \"2 in 5m\", backoff = \"50ms..50ms\" }}");
    fleet.plain(words, &keys);
    // Whether it ends before or after the start is told as done is a matter of milliseconds.
    drop(fleet.daemon.ctl(&["start", "./web.toml"]));
    fleet
}

fn exited(code: i32, reason: ExitReason) -> Option<ExitView> {
    Some(ExitView { code: Some(code), signal: None, reason, why: None })
}

#[test]
fn always_starts_again_what_ended_with_success_until_it_is_parked() {
    let fleet = app("always", &["exit=0"]);
    let worker = fleet.worker_until(|worker| worker.state == WorkerState::Failed);
    assert_eq!(worker.restarts, 2);
    assert_eq!(worker.last_exit, exited(0, ExitReason::Finished));
}

#[test]
fn on_failure_leaves_what_ended_with_success() {
    let fleet = app("on-failure", &["exit=0"]);
    let worker = fleet.worker_until(|worker| worker.state == WorkerState::Exited);
    assert_eq!(worker.restarts, 0);
    assert_eq!(worker.last_exit, exited(0, ExitReason::Finished));
}

#[test]
fn never_leaves_what_ended_with_failure() {
    let fleet = app("never", &["exit=9"]);
    let worker = fleet.worker_until(|worker| worker.last_exit.is_some());
    assert_eq!(worker.restarts, 0);
    assert_eq!(worker.last_exit, exited(9, ExitReason::Crashed));
    assert!(matches!(worker.state, WorkerState::Exited | WorkerState::Failed), "{worker:#?}");
}

#[test]
fn what_fails_too_often_is_parked_with_its_last_exit_and_its_last_words() {
    let fleet = app("on-failure", &["print=out of tokens", "exit=9"]);
    let failed = fleet.until(|app| app.state == AppState::Failed);
    let worker = &failed.workers[0];
    assert_eq!((worker.state, worker.restarts), (WorkerState::Failed, 2));
    assert_eq!(worker.last_exit, exited(9, ExitReason::Crashed));
    let why = failed.why.clone().expect("a failed app says why");
    assert!(why.contains("code 9"), "{why}");

    let list = fleet.daemon.ctl_ok(&["ls"]).stdout;
    assert!(list.contains("failed") && list.contains("code 9"), "{list}");
    let status = fleet.daemon.ctl_ok(&["status", "--json"]).stdout;
    assert!(status.contains("code 9"), "{status}");
    let details: AppDetails = fleet.daemon.ctl_ok(&["describe", "web", "--json"]).json();
    assert!(details.last_lines.iter().any(|line| line.text == "out of tokens"), "{details:#?}");
    let described = fleet.daemon.ctl_ok(&["describe", "web"]).stdout;
    assert!(described.contains("out of tokens") && described.contains("code 9"), "{described}");
}

#[test]
fn what_was_parked_is_tried_again_by_a_start() {
    let fleet = Fleet::new();
    let file = fleet.file("tokens");
    let words = [format!("crash-without={}", file.display()), "hang".to_owned()];
    fleet.plain(&words.each_ref().map(String::as_str), "restart = { max = \"1 in 5m\", backoff = \"50ms..50ms\" }");
    drop(fleet.daemon.ctl(&["start", "./web.toml"]));
    fleet.until(|app| app.state == AppState::Failed);
    std::fs::write(&file, "").expect("the home can be written");
    fleet.daemon.ctl_ok(&["start", "web"]);
    fleet.until(|app| app.state == AppState::Running);
}

#[test]
fn between_two_tries_it_is_shown_when_the_next_one_is() {
    let fleet = Fleet::new();
    fleet.plain(&["exit=9"], "restart = { backoff = \"20s..20s\" }");
    drop(fleet.daemon.ctl(&["start", "./web.toml", "--no-wait"]));
    let worker = fleet.worker_until(|worker| worker.state == WorkerState::Backoff);
    assert!(worker.restart_at.is_some() && worker.why.is_some(), "{worker:#?}");
    let app = fleet.app();
    assert!(app.why.as_ref().is_some_and(|why| why.contains("code 9")), "{app:#?}");
    for breaker in [worker.breaker, app.breaker] {
        assert_eq!((breaker.state, breaker.crashes), (BreakerState::Open, 1));
        assert!(breaker.until.is_some());
    }
    let listed = fleet.daemon.ctl_ok(&["ls"]).stdout;
    assert!(listed.contains("breaker open after 1 crash: tried again in "), "{listed}");
}

#[test]
fn what_fell_and_runs_again_is_on_trial_until_it_served_for_the_longest_wait() {
    for (longest, after) in [("1h", BreakerState::HalfOpen), ("20ms", BreakerState::Closed)] {
        let fleet = Fleet::new();
        let file = fleet.file("tokens");
        let words = [format!("crash-without={}", file.display()), "hang".to_owned()];
        let restart = format!("restart = {{ backoff = \"20ms..{longest}\", max = \"1000 in 1h\" }}");
        fleet.plain(&words.each_ref().map(String::as_str), &restart);
        drop(fleet.daemon.ctl(&["start", "./web.toml"]));
        fleet.worker_until(|worker| worker.restarts > 0);
        std::fs::write(&file, "").expect("the home can be written");
        let app = fleet.until(|app| app.state == AppState::Running && app.breaker.state == after);
        let closes = app.breaker.until.is_some();
        assert_eq!(closes, after == BreakerState::HalfOpen, "{app:#?}");
    }
}
