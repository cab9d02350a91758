//! How much is kept of what is over, and the commands that look at it and let go of it.

use agentd_protocol::control::{TasksParams, TasksUsageParams};
use agentd_testkit::e2e::{Daemon, Speaker};
use serde_json::{Value, json};

use super::{silent, speaker};

/// Does so many tasks, each with a result of this many bytes.
fn do_tasks(worker: &mut Speaker, from: usize, count: usize, bytes: usize) {
    for n in from..from + count {
        let task = format!("t{n:05}");
        assert_eq!(worker.ask(json!({"t":"task.begin","task":task}))["ok"], true);
        let result = format!("{n:05}{}", "x".repeat(bytes));
        let end = json!({"t":"task.end","task":task,"fence":1,"outcome":"ok","result":result});
        assert_eq!(worker.ask(end)["ok"], true);
    }
}

fn kept(daemon: &Daemon) -> Vec<String> {
    let params = TasksParams { limit: 10_000, ..TasksParams::default() };
    daemon.request(params).expect("a list").tasks.into_iter().map(|task| task.id).collect()
}

#[test]
fn of_many_ended_tasks_the_youngest_are_kept() {
    let (daemon, token) = silent("tasks = { keep = 50 }");
    let mut worker = speaker(&daemon, &token);
    do_tasks(&mut worker, 0, 300, 1);
    // A hundred more than asked for may be there, so that letting go of them pays.
    let kept = kept(&daemon);
    assert!((50..=150).contains(&kept.len()), "{} are kept", kept.len());
    assert!(kept.contains(&"t00299".to_owned()) && !kept.contains(&"t00000".to_owned()), "{kept:?}");
}

#[test]
fn what_is_kept_is_shown_and_let_go_of_with_its_files() {
    let (daemon, token) = silent("");
    let mut worker = speaker(&daemon, &token);
    do_tasks(&mut worker, 0, 3, 100_000);
    assert_eq!(worker.ask(json!({"t":"task.begin","task":"open","input":{}}))["ok"], true);
    assert_eq!(worker.ask(json!({"t":"ckpt","task":"open","fence":1,"step":1,"json":"y".repeat(100_000)}))["ok"], true);
    let usage = daemon.request(TasksUsageParams {}).expect("what is kept");
    assert_eq!((usage.apps[0].open, usage.apps[0].ended, usage.blobs), (1, 3, 4), "{usage:?}");
    let nothing = daemon.ctl_ok(&["tasks", "prune", "silent", "--older-than", "1h"]).stdout;
    assert!(nothing.starts_with("let go of 0 ended tasks"), "{nothing}");
    let pruned: Value = daemon.ctl_ok(&["tasks", "prune", "silent", "--json"]).json();
    assert_eq!((&pruned["pruned"], &pruned["blobs"]), (&json!(3), &json!(1)), "{pruned}");
    assert!(pruned["freed_bytes"].as_u64() >= Some(300_000), "{pruned}");
    assert_eq!(kept(&daemon), ["open"], "what is open is not touched");
}

#[test]
fn of_many_checkpoints_the_last_20_are_kept_and_a_step_that_comes_again_replaces_its_own() {
    let (daemon, token) = silent("");
    let mut worker = speaker(&daemon, &token);
    assert_eq!(worker.ask(json!({"t":"task.begin","task":"long"}))["ok"], true);
    let mut save = |step: usize, bytes: usize| {
        let ckpt = json!({"t":"ckpt","task":"long","fence":1,"step":step,"json":"y".repeat(bytes)});
        assert_eq!(worker.ask(ckpt)["ok"], true);
    };
    // Of every length: over the oldest row come longer, shorter and equal ones, and files of their own.
    let bytes = |step: usize| if step.is_multiple_of(7) { 70_000 } else { step % 3 * 5_000 };
    (1..=45).for_each(|step| save(step, bytes(step)));
    save(45, 9);
    let whole: Value = daemon.ctl_ok(&["tasks", "--task", "long", "--json"]).json();
    let kept = whole["tasks"][0]["details"]["checkpoints"].as_array().expect("a list").iter();
    let kept: Vec<_> = kept.map(|kept| (kept["step"].as_u64(), kept["bytes"].as_u64())).collect();
    let expected = (26..45).map(|step| (step, bytes(step))).chain([(45, 9)]).rev();
    let expected: Vec<_> = expected.map(|(step, bytes)| (Some(step as u64), Some(bytes as u64 + 2))).collect();
    assert_eq!(kept, expected, "with the quotes around it");
}
