//! Whatever else the daemon does with an app, its tasks go on: by every road of an upgrade, in place, in the next daemon,
//! and in the order of `needs`.

use agentd_testkit::e2e::{Daemon, Outside};
use serde_json::{Value, json};

use super::{AGENTD, PATIENCE, await_task, begin, ended, task, working};

const QUICK: &str = "upgrade = { steps = [50, 100], dwell = \"100ms\", stability = \"100ms\", min_uptime = \"10ms\", \
                     judged_by = \"time\" }";

/// Tasks of both sorts. The one of many steps goes on behind this one only once its worker is told to drain.
fn begin_both(daemon: &Daemon, outside: &Outside, await_drain: Option<u64>) {
    let input = json!({"steps": 12, "pause": 0.1, "ledger": outside.url(), "await_drain": await_drain});
    begin(daemon, "0.1", json!({"kind": "steps", "task": "steps", "input": input}));
    let input = json!({"pause": 0.3, "ledger": outside.url()});
    begin(daemon, "0.1", json!({"kind": "last", "task": "last", "input": input}));
    await_task(daemon, "steps", |seen| seen.step >= Some(2));
}

/// Both are done: one went on in another worker, the other was waited for, and nothing was done twice.
fn both_are_done(daemon: &Daemon, outside: &Outside) {
    let steps = await_task(daemon, "steps", ended);
    assert_eq!((steps.why.as_deref(), steps.fence), (Some("ok"), 2), "{steps:?}");
    let last = task(daemon, "last");
    assert_eq!((last.why.as_deref(), last.fence), (Some("ok"), 1), "{last:?}");
    let posted = outside.posted();
    assert_eq!(posted.len(), 14, "every step and both ends: {posted:?}");
    assert!(posted.values().all(|&count| count == 1), "nothing twice: {posted:?}");
}

fn upgraded_by(strategy: &str) {
    let (daemon, outside) = (working(QUICK), Outside::start());
    begin_both(&daemon, &outside, Some(3));
    let output = daemon.ctl_ok(&["upgrade", "work", "--strategy", strategy, "--json"]);
    let result: Value = serde_json::from_str(output.stdout.trim()).expect("JSON");
    let tasks = &result["results"][0]["tasks"];
    assert_eq!(tasks, &json!({"finished": 1, "handed_over": 1, "lost": 0}), "{result}");
    both_are_done(&daemon, &outside);
    assert_eq!(task(&daemon, "steps").worker.as_deref().and_then(|name| name.rsplit('.').next()), Some("2"));
}

#[test]
fn a_rolling_upgrade_hands_tasks_over_to_the_new_release() {
    upgraded_by("rolling");
}

#[test]
fn a_blue_green_upgrade_hands_tasks_over_to_the_new_release() {
    upgraded_by("blue-green");
}

#[test]
fn an_upgrade_by_recreation_keeps_tasks_for_the_new_release() {
    upgraded_by("recreate");
}

#[test]
fn apply_changes_what_governs_tasks_without_touching_their_worker() {
    let (daemon, outside) = (working("grace = { default = \"60s\", min = \"300ms\" }"), Outside::start());
    begin_both(&daemon, &outside, None);
    let before = daemon.app("work").workers[0].pid;
    let file = daemon.home.path().join("work.toml");
    let text = std::fs::read_to_string(&file).expect("it was written");
    let changed = text.replace(
        "grace = { default = \"60s\", min = \"300ms\" }",
        "grace = { default = \"400ms\", min = \"300ms\", max = \"1s\", on_deadline = \"kill\" }\ntasks = { max_open = 5000 }",
    );
    daemon.config("work.toml", &changed);
    daemon.ctl_ok(&["apply", "./work.toml"]);
    assert_eq!(daemon.app("work").workers[0].pid, before, "in place");
    await_task(&daemon, "steps", ended);
    begin(&daemon, "0.1", json!({"kind": "sleep", "task": "endless", "input": {"pause": 3600}}));
    let output = daemon.ctl_ok(&["reload", "work", "--json"]);
    let result: Value = serde_json::from_str(output.stdout.trim()).expect("JSON");
    assert_eq!(result["results"][0]["lost_tasks"][0]["task"], "endless", "killed, as it is now configured: {result}");
}

#[test]
fn another_daemon_in_place_costs_no_task_and_applies_nothing_twice() {
    let (daemon, outside) = (working(""), Outside::start());
    let input = json!({"steps": 40, "pause": 0.05, "ledger": outside.url()});
    begin(&daemon, "0.1", json!({"kind": "steps", "task": "a", "input": input}));
    begin(&daemon, "0.1", json!({"kind": "sleep", "task": "b", "input": {"pause": 1.5}}));
    for _ in 0..3 {
        let step = task(&daemon, "a").step;
        daemon.ctl_ok(&["daemon", "upgrade", "--binary", AGENTD]);
        await_task(&daemon, "a", |seen| seen.step > step || ended(seen));
    }
    let (a, b) = (await_task(&daemon, "a", ended), await_task(&daemon, "b", ended));
    assert_eq!((a.why.as_deref(), a.fence), (Some("ok"), 1), "it never changed hands");
    assert_eq!((b.why.as_deref(), b.fence), (Some("ok"), 1));
    assert!(outside.posted().values().all(|&count| count == 1), "{:?}", outside.posted());
}

#[test]
fn what_an_app_needs_stays_until_its_tasks_are_done() {
    let daemon = working("needs = [\"base\"]\n[agent.base]\ncommand = [\"sleep\", \"1000\"]");
    begin(&daemon, "0.1", json!({"kind": "last", "task": "a", "input": {"pause": 1.0}}));
    daemon.ctl_ok(&["stop", "all"]);
    assert_eq!(task(&daemon, "a").why.as_deref(), Some("ok"), "it was waited for");
    let events = daemon.ctl_ok(&["events", "--json"]).stdout;
    let events = events.lines().map(|line| serde_json::from_str::<Value>(line).expect("an event"));
    let exits: Vec<Value> =
        events.filter(|event| event["event"]["type"] == "worker_exited").map(|event| event["app"].clone()).collect();
    assert_eq!(exits, ["work", "base"]);
    daemon.wait_until(PATIENCE, |document| document.apps.iter().all(|app| app.workers.is_empty() || app.ready == 0));
}
