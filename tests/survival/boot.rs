//! The machine was started anew.

use agentd_testkit::e2e::Daemon;

use crate::{AGENTD, PATIENCE, all_ready, fleet, pids, workers};

#[test]
fn after_a_reboot_nothing_is_adopted_and_nothing_of_the_last_boot_is_left() {
    let (mut daemon, _) = fleet();
    // Its workers are in other slots than those of a fresh start.
    daemon.ctl_ok(&["reload", "web"]);
    let before = pids(&daemon.status());
    daemon.kill();
    before.iter().for_each(|&pid| workers::kill_nine(pid));
    workers::pretend_another_boot(daemon.home.path());
    daemon.start_again();
    let booted = pids(&daemon.wait_until(PATIENCE, |document| all_ready(document) && pids(document).len() == 3));
    assert!(booted.is_disjoint(&before), "none of the last boot's processes can be there");
    daemon.kill();
    assert_eq!(workers::recorded(daemon.home.path()), 3, "no record was left behind");
    daemon.start_again();
    assert_eq!(pids(&daemon.wait_until(PATIENCE, all_ready)), booted, "the same processes serve");
}

/// What became of workers since the last daemon started, as (event, app).
fn since_the_start(daemon: &Daemon) -> Vec<(String, String)> {
    let output = daemon.ctl_ok(&["events", "--json", "--since", "0"]);
    let events: Vec<serde_json::Value> =
        output.stdout.lines().map(|line| serde_json::from_str(line).expect("an event")).collect();
    let is = |event: &serde_json::Value, kind: &str| event["event"]["type"] == kind;
    let start = events.iter().rposition(|event| is(event, "daemon_started")).expect("it was started");
    let told = events[start..].iter().filter(|event| is(event, "worker_starting") || is(event, "worker_ready"));
    let text = |value: &serde_json::Value| value.as_str().expect("a text").to_owned();
    told.map(|event| (text(&event["event"]["type"]), text(&event["app"]))).collect()
}

#[test]
fn after_a_reboot_apps_start_in_the_order_of_their_needs_and_what_was_stopped_stays_so() {
    let mut daemon = Daemon::start(AGENTD);
    // By name and by place in the file the order would be the other one.
    let app = |name: &str, more: &str| format!("[agent.{name}]\ncommand = [\"sleep\", \"1000\"]\n{more}\n");
    let all = [
        app("a-web", "needs = [\"m-search\"]"),
        app("b-report", ""),
        app("m-search", "needs = [\"z-base\"]"),
        app("z-base", ""),
    ];
    daemon.config("chain.toml", &all.concat());
    daemon.ctl_ok(&["start", "./chain.toml"]);
    daemon.ctl_ok(&["stop", "b-report"]);
    let before = pids(&daemon.status());
    daemon.kill();
    before.iter().for_each(|&pid| workers::kill_nine(pid));
    workers::pretend_another_boot(daemon.home.path());
    daemon.start_again();
    daemon.wait_until(PATIENCE, |document| all_ready(document) && pids(document).len() == 3);
    let chain = ["z-base", "m-search", "a-web"];
    let expected = chain.map(|app| ["worker_starting", "worker_ready"].map(|event| (event.to_owned(), app.to_owned())));
    assert_eq!(since_the_start(&daemon), expected.concat());
    // With the workers alive nobody waits for anybody.
    daemon.kill();
    daemon.start_again();
    daemon.wait_until(PATIENCE, all_ready);
    assert_eq!(since_the_start(&daemon), []);
}
