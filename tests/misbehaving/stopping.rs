//! Workers that do not end as asked, or leave something behind.

use std::time::Duration;

use agentd_protocol::control::{DaemonView, OperationState};
use agentd_protocol::status::{ExitReason, ExitView};
use agentd_testkit::e2e::{Load, ProcessEnd};

use crate::fleet::{Fleet, PATIENCE, mix, next_exit, pids};

#[test]
fn workers_that_die_of_sigterm_lose_nothing_in_several_reloads() {
    let fleet = Fleet::serving(&["serve"], "workers = 2");
    let before = pids(&fleet.app());
    let report = Load::run(fleet.port, mix(), || {
        for _ in 0..3 {
            fleet.daemon.ctl_ok(&["reload", "web"]);
        }
    });
    // Each of two kept connections, once for each worker that ends: it may be in the middle of an answer by then.
    report.assert_only_kept_cut(3 * 2 * 2);
    assert!(pids(&fleet.app()).is_disjoint(&before));
}

#[test]
fn a_worker_that_ignores_sigterm_is_killed_at_its_deadline_and_the_reload_is_done() {
    let keys = "grace = { default = \"2s\", min = \"1s\" }";
    let fleet = Fleet::serving(&["ignore=SIGTERM", "serve"], keys);
    let mut watch = fleet.daemon.watch();
    let (output, result) = fleet.result_of(&["reload", "web"]);
    assert_eq!(output.code, Some(0), "{output:#?}");
    assert_eq!(result.state, OperationState::Done);
    let killed = ExitView { code: None, signal: Some("SIGKILL".to_owned()), reason: ExitReason::Reload, why: None };
    assert_eq!(next_exit(&mut watch), killed);
    assert!(result.duration_ms < 10_000, "{result:#?}");
}

#[test]
fn a_stop_has_its_own_deadline() {
    let keys = "stop = { timeout = \"500ms\" }";
    let fleet = Fleet::serving(&["ignore=SIGTERM", "serve"], keys);
    let mut watch = fleet.daemon.watch();
    fleet.daemon.ctl_ok(&["stop", "web"]);
    let killed = ExitView { code: None, signal: Some("SIGKILL".to_owned()), reason: ExitReason::Stop, why: None };
    assert_eq!(next_exit(&mut watch), killed);
}

/// Starts a worker that leaves a grandchild, stops it, and looks for the grandchild.
fn escapee_is_gone_after_a_stop(how: &str) {
    let fleet = Fleet::new();
    let path = fleet.file("escapee");
    let word = format!("escape={}{how}", path.display());
    fleet.listening(&[&word, "serve"], "");
    fleet.daemon.ctl_ok(&["start", "./web.toml"]);
    let pid = std::fs::read_to_string(fleet.file("escapee.pid")).expect("the grandchild said who it is");
    let escapee = ProcessEnd::of(pid.parse().expect("a process id")).expect("the grandchild runs");
    assert!(!escapee.within(Duration::ZERO), "it runs until the stop");
    fleet.daemon.ctl_ok(&["stop", "web"]);
    assert!(escapee.within(PATIENCE), "the grandchild {pid} outlived the stop");
}

#[test]
fn a_grandchild_that_keeps_the_socket_open_costs_no_request_in_a_reload() {
    let fleet = Fleet::new();
    let word = format!("escape={}", fleet.file("escapee").display());
    fleet.listening(&[&word, "serve"], "");
    fleet.daemon.ctl_ok(&["start", "./web.toml"]);
    let report = Load::run(fleet.port, mix(), || {
        fleet.daemon.ctl_ok(&["reload", "web"]);
    });
    // Of the two kept connections: the worker dies of its signal.
    report.assert_only_kept_cut(2);
}

#[test]
fn a_grandchild_that_left_its_session_and_parent_ends_with_its_worker() {
    escapee_is_gone_after_a_stop("");
}

#[test]
fn a_grandchild_that_forgot_its_environment_too_ends_with_its_worker_where_cgroups_are() {
    let fleet = Fleet::new();
    let daemon: DaemonView = fleet.daemon.ctl_ok(&["daemon", "status", "--json"]).json();
    drop(fleet);
    if let Some(note) = daemon.notes.iter().find(|note| note.contains("cgroup")) {
        eprintln!("nothing to be seen here: {note}");
        return;
    }
    escapee_is_gone_after_a_stop(":cleared");
}
