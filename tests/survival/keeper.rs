//! The keeper dies, is stopped or hangs, and so does the supervisor after it.

use agentd_testkit::e2e::{Load, Mix, ProcessEnd};

use crate::{PATIENCE, all_ready, fleet, pids, workers};

#[test]
fn a_keeper_that_dies_is_replaced_and_the_next_death_of_the_daemon_costs_nothing() {
    let (mut daemon, port) = fleet();
    let before = pids(&daemon.status());
    let report = Load::run(port, Mix { long: 0, sse: 0, ..Mix::default() }, || {
        let keeper = workers::keeper_of(daemon.pid());
        let death = daemon.watch();
        workers::kill_nine(keeper);
        workers::await_another_keeper(daemon.pid(), keeper, PATIENCE);
        drop(death);
        daemon.kill();
        daemon.start_again();
        assert_eq!(pids(&daemon.wait_until(PATIENCE, all_ready)), before);
    });
    report.assert_none_lost_in_service();
}

#[test]
fn a_keeper_that_was_stopped_is_woken_by_the_next_supervisor_and_gives_all_of_it_back() {
    let (mut daemon, port) = fleet();
    let before = pids(&daemon.status());
    let report = Load::run(port, Mix { long: 0, sse: 0, ..Mix::default() }, || {
        let keeper = workers::keeper_of(daemon.pid());
        ProcessEnd::of(keeper).expect("it lives").freeze();
        daemon.kill();
        daemon.start_again();
        assert_eq!(pids(&daemon.wait_until(PATIENCE, all_ready)), before, "the same processes serve");
        // A lane more is made, which one that kept sockets to itself would be in the way of.
        daemon.ctl_ok(&["reload", "web"]);
    });
    report.assert_none_lost_in_service();
    let last = workers::present_supervisor(&daemon);
    let keeper = last["sockets"]["keeper"].as_u64().expect("a number");
    assert!(keeper > 0 && last["sockets"]["workers"] == 0 && last["sockets"]["fresh"] == 0, "{last:#}");
}

#[test]
fn a_keeper_that_hangs_is_ended_and_another_has_all_that_it_had() {
    let (mut daemon, port) = fleet();
    let many = daemon.config("many.toml", "[agent.many]\ncommand = [\"sleep\", \"1000\"]\n");
    daemon.ctl_ok(&["start", many.to_str().expect("a UTF-8 path")]);
    let before: Vec<u32> = pids(&daemon.status()).into_iter().collect();
    let report = Load::run(port, Mix { long: 0, sse: 0, ..Mix::default() }, || {
        let hung = ProcessEnd::of(workers::keeper_of(daemon.pid())).expect("it lives");
        hung.freeze();
        // Words wait for it until there is room for no more.
        for _ in 0..30 {
            daemon.ctl_ok(&["scale", "many", "40"]);
            daemon.ctl_ok(&["scale", "many", "1"]);
            if hung.within(std::time::Duration::ZERO) {
                break;
            }
        }
        assert!(hung.within(PATIENCE), "it was left with what it holds");
        workers::await_another_keeper(daemon.pid(), hung.pid(), PATIENCE);
        daemon.ctl_ok(&["reload", "web"]);
        daemon.kill();
        daemon.start_again();
        daemon.wait_until(PATIENCE, all_ready);
    });
    report.assert_none_lost_in_service();
    let last = workers::present_supervisor(&daemon);
    assert!(last["sockets"]["keeper"].as_u64() > Some(0) && last["sockets"]["fresh"] == 0, "{last:#}");
    let printer = daemon.app("printer").workers[0].pid.expect("it runs");
    assert!(before.contains(&printer), "it was never touched");
}
