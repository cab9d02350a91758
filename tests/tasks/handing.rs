//! Work goes on: over reloads, crashes, zombies, and the daemon's own death.

use agentd_protocol::control::TaskState;
use agentd_testkit::e2e::Outside;
use agentd_testkit::exactly_once::{Plan, run};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::{AGENTD, PATIENCE, await_task, begin, ended, task, tasker, working};

fn steps(outside: &Outside, steps: u64, pause: f64) -> Value {
    json!({"steps": steps, "pause": pause, "ledger": outside.url(), "pad": 100})
}

fn signal(daemon: &agentd_testkit::e2e::Daemon, with: Signal) -> Pid {
    let pid = daemon.app("work").workers[0].pid.expect("it runs");
    let pid = Pid::from_raw(i32::try_from(pid).expect("a process id"));
    kill(pid, with).expect("it is there");
    pid
}

#[test]
fn a_reload_hands_a_task_over_at_a_checkpoint_and_its_effects_are_done_once() {
    let (daemon, outside) = (working(""), Outside::start());
    let mut input = steps(&outside, 12, 0.1);
    input["await_drain"] = 4.into();
    begin(&daemon, "0.1", json!({"kind": "steps", "task": "a", "input": input}));
    await_task(&daemon, "a", |seen| seen.step >= Some(3));
    let output = daemon.ctl_ok(&["reload", "work", "--json"]);
    let result: Value = serde_json::from_str(output.stdout.trim()).expect("JSON");
    assert_eq!(result["results"][0]["tasks"], json!({"finished": 0, "handed_over": 1, "lost": 0}), "{result}");
    let seen = await_task(&daemon, "a", ended);
    assert_eq!((seen.why.as_deref(), seen.worker.as_deref(), seen.fence), (Some("ok"), Some("work.1.2"), 2));
    let posted = outside.posted();
    assert_eq!(posted.len(), 13, "every step and the end: {posted:?}");
    assert!(posted.values().all(|&count| count == 1), "nothing twice: {posted:?}");
}

#[test]
fn a_drain_waits_for_a_task_that_ends_by_itself_and_no_longer() {
    let (daemon, outside) = (working(""), Outside::start());
    begin(&daemon, "0.1", json!({"kind": "last", "task": "a", "input": {"pause": 0.5, "ledger": outside.url()}}));
    let output = daemon.ctl_ok(&["reload", "work", "--json"]);
    let result: Value = serde_json::from_str(output.stdout.trim()).expect("JSON");
    assert_eq!(result["results"][0]["tasks"], json!({"finished": 1, "handed_over": 0, "lost": 0}), "{result}");
    assert!(result["results"][0]["duration_ms"].as_u64() < Some(10_000), "grace is a bound: {result}");
    assert_eq!(task(&daemon, "a").why.as_deref(), Some("ok"));
}

#[test]
fn at_the_deadline_what_cannot_go_on_elsewhere_is_lost_and_named() {
    let daemon = working("grace = { default = \"1s\", min = \"500ms\", max = \"1s\", on_deadline = \"kill\" }");
    begin(&daemon, "0.1", json!({"kind": "sleep", "task": "a", "input": {"pause": 600}}));
    let output = daemon.ctl_ok(&["reload", "work", "--json"]);
    let result: Value = serde_json::from_str(output.stdout.trim()).expect("JSON");
    assert_eq!(result["results"][0]["tasks"]["lost"], 1, "{result}");
    assert_eq!(result["results"][0]["lost_tasks"][0]["task"], "a", "{result}");
    let seen = task(&daemon, "a");
    assert_eq!(seen.state, TaskState::Ended);
    assert!(seen.why.is_some_and(|why| why.starts_with("lost: ")));
}

#[test]
fn fewer_workers_hand_their_tasks_over_and_the_scale_says_so() {
    let (daemon, outside) = (working("workers = 2"), Outside::start());
    let mut input = steps(&outside, 6, 0.01);
    input["await_drain"] = 3.into();
    begin(&daemon, "1.1", json!({"kind": "steps", "task": "a", "input": input}));
    await_task(&daemon, "a", |seen| seen.step >= Some(3));
    let output = daemon.ctl_ok(&["scale", "work", "1", "--json"]);
    let result: Value = serde_json::from_str(output.stdout.trim()).expect("JSON");
    assert_eq!(result["results"][0]["tasks"], json!({"finished": 0, "handed_over": 1, "lost": 0}), "{result}");
    let seen = await_task(&daemon, "a", ended);
    assert_eq!((seen.why.as_deref(), seen.worker.as_deref()), (Some("ok"), Some("work.0.1")));
    assert!(outside.posted().values().all(|&count| count == 1), "nothing twice: {:?}", outside.posted());
}

#[test]
fn a_stop_says_what_became_of_tasks_and_the_next_start_goes_on_with_them() {
    let (daemon, outside) = (working(""), Outside::start());
    let mut input = steps(&outside, 6, 0.01);
    input["await_drain"] = 3.into();
    begin(&daemon, "0.1", json!({"kind": "steps", "task": "a", "input": input}));
    begin(&daemon, "0.1", json!({"kind": "last", "task": "b", "input": {"pause": 0.2}}));
    await_task(&daemon, "a", |seen| seen.step >= Some(3));
    let output = daemon.ctl_ok(&["stop", "work"]);
    assert!(output.stdout.contains(", 1 task finished, 1 task handed over\n"), "{output:?}");
    assert_eq!(task(&daemon, "a").state, TaskState::Waiting);
    daemon.ctl_ok(&["start", "work"]);
    let seen = await_task(&daemon, "a", ended);
    assert_eq!((seen.why.as_deref(), seen.worker.as_deref()), (Some("ok"), Some("work.0.2")));
}

#[test]
fn a_stop_names_the_tasks_that_it_cost() {
    let daemon = working("grace = { default = \"1s\", min = \"500ms\", max = \"1s\", on_deadline = \"kill\" }");
    begin(&daemon, "0.1", json!({"kind": "sleep", "task": "a", "input": {"pause": 600}}));
    let output = daemon.ctl_ok(&["stop", "work"]);
    assert!(output.stdout.contains(", 1 task lost\n  lost a: its worker was ended before it was done\n"), "{output:?}");
}

#[test]
fn a_crashed_workers_task_goes_on_from_its_last_checkpoint() {
    let (daemon, outside) = (working("tasks = { effects = { post = \"retry\" } }"), Outside::start());
    begin(&daemon, "0.1", json!({"kind": "steps", "task": "a", "input": steps(&outside, 8, 0.1)}));
    await_task(&daemon, "a", |seen| seen.step >= Some(3));
    signal(&daemon, Signal::SIGKILL);
    let seen = await_task(&daemon, "a", ended);
    assert_eq!((seen.why.as_deref(), seen.fence), (Some("ok"), 2), "it went on once");
    let twice = outside.posted().values().filter(|&&count| count > 1).count();
    assert!(twice <= 1, "at most the step that was cut: {:?}", outside.posted());
}

#[test]
fn a_task_that_crashed_three_workers_is_parked_with_all_that_is_needed_to_look_at_it() {
    let (daemon, outside) = (working("tasks = { effects = { post = \"retry\" } }"), Outside::start());
    begin(&daemon, "0.1", json!({"kind": "steps", "task": "a", "input": steps(&outside, 1000, 0.05)}));
    for fence in 1..=3 {
        await_task(&daemon, "a", |seen| seen.fence == fence && seen.state == TaskState::Running && seen.step.is_some());
        signal(&daemon, Signal::SIGKILL);
    }
    let seen = await_task(&daemon, "a", |seen| {
        seen.state == TaskState::Parked && seen.details.as_ref().is_some_and(|kept| kept.runs[0].exit.is_some())
    });
    assert_eq!((seen.attempt, seen.fence, seen.generation), (4, 4, Some(1)));
    let kept = seen.details.expect("it was asked for by its id");
    assert_eq!(kept.input.and_then(|input| input.json).expect("JSON")["steps"], 1000);
    let run = |fence, how: &str| (fence, "work.0.1".to_owned(), how.to_owned(), Some("killed by SIGKILL".to_owned()));
    let runs: Vec<_> = kept.runs.into_iter().map(|run| (run.fence, run.worker, run.how, run.exit)).collect();
    assert_eq!(runs, [run(3, "parked"), run(2, "crashed"), run(1, "crashed")]);
    assert_eq!(Some(kept.checkpoints[0].step), seen.step);
    assert!(kept.checkpoints[0].bytes > 100, "{:?}", kept.checkpoints);
    assert!(!kept.effects.is_empty());
    let page = daemon.ctl_ok(&["tasks", "--task", "a"]).stdout;
    assert!(page.contains("agentctl tasks retry a, or: agentctl tasks discard a"), "{page}");
}

#[test]
fn a_worker_that_slept_over_its_lease_cannot_write_and_ends_itself() {
    let (daemon, outside) = (working("workers = 2\ntasks = { lease = \"600ms\" }"), Outside::start());
    begin(&daemon, "0.1", json!({"kind": "steps", "task": "a", "input": steps(&outside, 30, 0.1)}));
    await_task(&daemon, "a", |seen| seen.step >= Some(2));
    let zombie = signal(&daemon, Signal::SIGSTOP);
    let taken = await_task(&daemon, "a", |seen| seen.fence >= 2 && seen.state == TaskState::Running);
    assert_eq!(taken.worker.as_deref(), Some("work.1.1"), "another has it while the first is asleep");
    let mut watch = daemon.watch();
    kill(zombie, Signal::SIGCONT).expect("it is there");
    let deadline = std::time::Instant::now() + PATIENCE;
    let code = loop {
        let event = watch.next(deadline).expect("the zombie ends");
        if let agentd_protocol::events::EventKind::WorkerExited { code, .. } = event.event {
            break code;
        }
    };
    assert_eq!(code, Some(75), "it learned that it was fenced");
    let seen = await_task(&daemon, "a", ended);
    assert_eq!((seen.why.as_deref(), seen.fence), (Some("ok"), 2));
}

#[test]
fn the_daemons_death_costs_no_task_and_applies_nothing_twice() {
    let (mut daemon, outside) = (working(""), Outside::start());
    begin(&daemon, "0.1", json!({"kind": "steps", "task": "a", "input": steps(&outside, 30, 0.05)}));
    begin(&daemon, "0.1", json!({"kind": "sleep", "task": "b", "input": {"pause": 1.5}}));
    for _ in 0..4 {
        let step = task(&daemon, "a").step;
        daemon.kill();
        daemon.start_again();
        await_task(&daemon, "a", |seen| seen.step > step || ended(seen));
    }
    let (a, b) = (await_task(&daemon, "a", ended), await_task(&daemon, "b", ended));
    assert_eq!((a.why.as_deref(), a.fence), (Some("ok"), 1), "it never changed hands");
    assert_eq!((b.why.as_deref(), b.fence), (Some("ok"), 1));
    assert!(outside.posted().values().all(|&count| count == 1), "{:?}", outside.posted());
    assert!(daemon.request(agentd_protocol::control::GraceParams { name: "work".to_owned() }).is_ok());
}

#[test]
fn every_admitted_task_completes_exactly_once_over_reloads_and_kills() {
    let plan = Plan { agentd: AGENTD.into(), tasker: tasker(), reloads: 3, kills: 2, daemon_kills: 1, clients: 3 };
    let report = run(&plan);
    assert!(report.admitted > 20, "{report}");
    assert_eq!((report.admitted, report.lost, report.wrong.len()), (report.completed, 0, 0), "{report}");
}
