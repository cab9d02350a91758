//! Events across daemons that are killed.

use agentd_testkit::e2e::Daemon;
use serde_json::Value;

use crate::site::{AGENTD, printer};

fn events(daemon: &Daemon, since: u64) -> Vec<(u64, String)> {
    let output = daemon.ctl_ok(&["events", "--json", "--since", &since.to_string()]);
    let read = |line| {
        let event: Value = serde_json::from_str(line).expect("nothing but JSON");
        let kind = event["event"]["type"].as_str().expect("an event has a type").to_owned();
        (event["seq"].as_u64().expect("an event has a number"), kind)
    };
    output.stdout.lines().map(read).collect()
}

#[test]
fn who_resumes_after_the_daemon_was_killed_gets_every_event_once_and_no_number_means_two_things() {
    let mut daemon = Daemon::start(AGENTD);
    printer(&daemon, 50, "");
    daemon.ctl_ok(&["start", "./web.toml"]);
    let before = events(&daemon, 0);
    let (middle, last) = (before[before.len() / 2].0, before[before.len() - 1].0);
    daemon.kill();
    daemon.start_again();
    daemon.ctl_ok(&["scale", "web", "2"]);
    let after = events(&daemon, middle);
    assert!(after.iter().map(|(seq, _)| *seq).eq(middle + 1..=daemon.status().seq), "{after:?}");
    assert_eq!(after[..before.len() - before.len() / 2 - 1], before[before.len() / 2 + 1..]);
    let new: Vec<&str> = after.iter().filter(|(seq, _)| *seq > last).map(|(_, kind)| kind.as_str()).collect();
    assert!(new.contains(&"daemon_started") && new.contains(&"app_scaled"), "{new:?}");
}

#[test]
fn a_tail_that_is_lost_is_a_gap_that_is_said() {
    let mut daemon = Daemon::start(AGENTD);
    let last = daemon.status().seq;
    daemon.kill();
    std::fs::remove_file(daemon.home.path().join("state/events")).expect("it was written");
    daemon.start_again();
    let after = events(&daemon, last);
    assert_eq!(after[0].1, "events_lost");
    assert_eq!(after[1].1, "daemon_started");
    assert!(after[1].0 > last);
}

#[test]
fn the_state_of_an_app_is_told_when_it_changes() {
    let daemon = Daemon::start(AGENTD);
    daemon.config("app.toml", "[agent.web]\ncommand = [\"sh\", \"-c\", \"exit 3\"]\nrestart = { policy = \"never\" }\nready = { log = \"x\" }\n");
    assert_ne!(daemon.ctl(&["start", "./app.toml"]).code, Some(0));
    let kinds: Vec<String> = events(&daemon, 0).into_iter().map(|(_, kind)| kind).collect();
    assert!(kinds.iter().any(|kind| kind == "app_state"), "{kinds:?}");
}
