//! Supervisor and keeper die at once: what the workers hold is all there is.

use agentd_testkit::e2e::{Daemon, Load, Mix};

use crate::{PATIENCE, all_ready, fleet, pids, workers};

#[test]
fn when_both_die_at_once_the_sockets_are_taken_back_out_of_the_workers() {
    let (mut daemon, port) = fleet();
    let before = pids(&daemon.status());
    let report = Load::run(port, Mix { long: 0, sse: 0, ..Mix::default() }, || {
        for _ in 0..3 {
            let keeper = workers::keeper_of(daemon.pid());
            daemon.kill();
            workers::kill_nine(keeper);
            daemon.start_again();
            assert_eq!(pids(&daemon.wait_until(PATIENCE, all_ready)), before, "the same processes serve");
        }
        daemon.ctl_ok(&["reload", "web"]);
    });
    report.assert_none_lost_in_service();
    let last = workers::present_supervisor(&daemon);
    assert_eq!((&last["sockets"]["workers"], &last["sockets"]["keeper"]), (&2.into(), &0.into()), "{last:#}");
    assert_eq!(last["unwatched_us"], serde_json::Value::Null, "nobody was left who noticed the moment");
}

#[test]
fn what_was_made_anew_after_both_died_keeps_its_place_under_every_supervisor_that_follows() {
    let (mut daemon, port) = fleet();
    // From here on its workers have lanes 0 and 2, and nobody but supervisor and keeper holds the one between them.
    daemon.ctl_ok(&["reload", "web"]);
    let before = pids(&daemon.status());
    let keeper = workers::keeper_of(daemon.pid());
    daemon.kill();
    workers::kill_nine(keeper);
    daemon.start_again();
    all_are_served(&daemon, port);
    daemon.ctl_ok(&["daemon", "upgrade"]);
    all_are_served(&daemon, port);
    for _ in 0..2 {
        daemon.kill();
        daemon.start_again();
        assert_eq!(pids(&daemon.wait_until(PATIENCE, all_ready)), before, "the same processes serve");
        all_are_served(&daemon, port);
    }
    daemon.ctl_ok(&["reload", "web"]);
    all_are_served(&daemon, port);
}

/// Nobody comes to where nobody serves, for as long as some commands take.
fn all_are_served(daemon: &Daemon, port: u16) {
    let report = Load::run(port, Mix::fresh(4), || {
        for _ in 0..20 {
            daemon.ctl_ok(&["ls"]);
        }
    });
    report.assert_none_lost();
}

#[test]
fn where_the_kernel_refuses_that_the_workers_serve_on_and_the_operator_is_told() {
    let (mut daemon, port) = fleet();
    let before = pids(&daemon.status());
    let keeper = workers::keeper_of(daemon.pid());
    let report = Load::run(port, Mix::fresh(1), || {
        daemon.kill();
        workers::kill_nine(keeper);
        // As Yama's ptrace_scope 1 does for who is not root.
        assert!(!daemon.start_doomed("getfd:denied", std::time::Duration::from_millis(200)), "it lives");
        daemon.wait_until(PATIENCE, |document| pids(document) == before);
    });
    report.assert_none_lost();
    let page = daemon.ctl_ok(&["daemon", "status"]).stdout;
    assert!(page.contains("web serves on and cannot be reloaded until its workers have ended"), "{page}");
}
