//! Drains that nobody is to wait for: of the task that asked for it, and of one that does not get on.

use std::process::Stdio;
use std::time::{Duration, Instant};

use agentd_protocol::control::{TaskState, TasksParams};
use agentd_protocol::status::WorkerState;
use agentd_testkit::e2e::{Daemon, Outside};
use serde_json::{Value, json};

use super::{AGENTD, PATIENCE, await_task, begin, ended, task, working};

/// Far less than drains of unknown tasks may take in these tests, far more than what they need.
const SOON: Duration = Duration::from_secs(20);

const LONG_GRACE: &str = "grace = { default = \"60s\", min = \"500ms\", max = \"90s\" }";

/// `agentctl` of this daemon, as a worker's task runs it.
fn agentctl(daemon: &Daemon, arguments: &[&str]) -> Value {
    let program = daemon.agentctl(&[]).get_program().to_string_lossy().into_owned();
    let home = daemon.home.path().to_string_lossy().into_owned();
    let all = [program.as_str(), "--home", &home].into_iter().chain(arguments.iter().copied());
    all.collect::<Vec<_>>().into()
}

/// A command that does something the first time only: a task that is begun anew from its input does not ask again.
fn once(daemon: &Daemon, command: &Value) -> Value {
    let mark = daemon.home.path().join("asked").to_string_lossy().into_owned();
    let mut all = json!(["sh", "-c", "mkdir \"$0\" || exit 0; exec \"$@\"", mark]);
    all.as_array_mut().expect("a list").extend(command.as_array().expect("a command").iter().cloned());
    all
}

fn replaced(daemon: &Daemon) -> Duration {
    let began = Instant::now();
    daemon.wait_until(PATIENCE, |document| {
        document.apps.iter().any(|app| {
            app.name == "work" && app.workers.len() == 1 && app.workers[0].generation == 2 && app.deployment.is_none()
        })
    });
    began.elapsed()
}

/// Tasks from which the daemon learns what is usual: milliseconds.
fn quick_ones(daemon: &Daemon) {
    for n in 0..8 {
        let id = format!("quick-{n}");
        begin(daemon, "0.1", json!({"kind": "steps", "task": id, "input": {"steps": 20, "pause": 0.005}}));
    }
    for n in 0..8 {
        await_task(daemon, &format!("quick-{n}"), ended);
    }
}

#[test]
fn a_task_that_asks_for_the_reload_does_not_hold_it() {
    let daemon = working(LONG_GRACE);
    let command = once(&daemon, &agentctl(&daemon, &["reload", "work"]));
    begin(&daemon, "0.1", json!({"kind": "shell", "task": "a", "input": {"command": command}}));
    let took = replaced(&daemon);
    assert!(took < SOON, "it waited for whoever asked: {took:?}");
    let seen = await_task(&daemon, "a", ended);
    assert_eq!((seen.why.as_deref(), seen.fence), (Some("ok"), 2), "it went on in the new worker: {seen:?}");
}

#[test]
fn the_next_daemon_knows_as_well_which_task_asked() {
    let mut daemon = working(LONG_GRACE);
    let mark = daemon.home.path().join("asked").to_string_lossy().into_owned();
    // Goes on after it has asked, as if it waited for the daemon that died.
    let mut command = json!(["sh", "-c", "mkdir \"$0\" || exit 0; \"$@\"; exec sleep 1000", mark]);
    let asks = agentctl(&daemon, &["reload", "work", "--no-wait"]);
    command.as_array_mut().expect("a list").extend(asks.as_array().expect("a command").iter().cloned());
    begin(&daemon, "0.1", json!({"kind": "shell", "task": "a", "input": {"command": command}}));
    daemon.wait_until(PATIENCE, |document| {
        let mut workers = document.apps.iter().flat_map(|app| &app.workers);
        workers.any(|worker| worker.state == WorkerState::Draining)
    });
    daemon.kill();
    daemon.start_again();
    let took = replaced(&daemon);
    assert!(took < SOON, "it waited for whoever asked: {took:?}");
    let seen = await_task(&daemon, "a", ended);
    assert_eq!((seen.why.as_deref(), seen.fence), (Some("ok"), 2), "it went on in the new worker: {seen:?}");
}

#[test]
fn one_of_several_tasks_says_that_it_asks_and_the_others_are_waited_for() {
    let (daemon, outside) = (working(LONG_GRACE), Outside::start());
    begin(&daemon, "0.1", json!({"kind": "last", "task": "b", "input": {"pause": 1.5, "ledger": outside.url()}}));
    let command = once(&daemon, &agentctl(&daemon, &["reload", "work", "--task", "a"]));
    begin(&daemon, "0.1", json!({"kind": "shell", "task": "a", "input": {"command": command}}));
    let took = replaced(&daemon);
    assert!(took < PATIENCE, "{took:?}");
    let other = task(&daemon, "b");
    assert_eq!((other.why.as_deref(), other.fence), (Some("ok"), 1), "it was let finish: {other:?}");
}

#[test]
fn a_slow_task_without_a_checkpoint_is_waited_for_however_long_it_was_silent() {
    let daemon = working(&format!("{LONG_GRACE}\ntasks = {{ lease = \"600ms\" }}"));
    quick_ones(&daemon);
    begin(&daemon, "0.1", json!({"kind": "last", "task": "a", "input": {"pause": 1.5}}));
    // Older than its lease and than any gap that was seen; the least time of a drain is less than what it needs.
    let seen = await_task(&daemon, "a", |seen| seen.age_ms > 1_500);
    assert!(!seen.stuck, "it is slow: {seen:?}");
    let output = daemon.ctl_ok(&["reload", "work", "--json"]);
    let result: Value = serde_json::from_str(output.stdout.trim()).expect("JSON");
    assert_eq!(result["results"][0]["tasks"], json!({"finished": 1, "handed_over": 0, "lost": 0}), "{result}");
    let seen = task(&daemon, "a");
    assert_eq!((seen.why.as_deref(), seen.fence), (Some("ok"), 1), "it was let finish: {seen:?}");
}

#[test]
fn a_stuck_task_is_shown_as_such_and_does_not_hold_the_drain() {
    let daemon = working(&format!("{LONG_GRACE}\ntasks = {{ lease = \"600ms\" }}"));
    quick_ones(&daemon);
    begin(&daemon, "0.1", json!({"kind": "steps", "task": "a", "input": {"steps": 3, "hang": 2}}));
    await_task(&daemon, "a", |seen| seen.stuck);
    let output = daemon.ctl_ok(&["reload", "work", "--json"]);
    let result: Value = serde_json::from_str(output.stdout.trim()).expect("JSON");
    let result = &result["results"][0];
    assert_eq!(result["tasks"], json!({"finished": 0, "handed_over": 1, "lost": 0}), "{result}");
    assert!(result["duration_ms"].as_u64() < Some(20_000), "it held the drain: {result}");
    let seen = await_task(&daemon, "a", ended);
    assert_eq!((seen.why.as_deref(), seen.fence), (Some("ok"), 2), "it went on from its checkpoint");
}

/// A worker without a library: it tells of one task by datagram, and ends it when it is let.
const TELLER: &str = "import os, signal, socket, time\n\
    def say(text):\n\
    \x20   with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to:\n\
    \x20       to.sendto(text.encode(), os.environ['NOTIFY_SOCKET'])\n\
    if os.environ['AGENTD_GENERATION'] == '1':\n\
    \x20   say('X_AGENTD_TASK_BEGIN=t1 crawl')\n\
    say('READY=1')\n\
    if os.environ['AGENTD_GENERATION'] == '1':\n\
    \x20   while not os.path.exists('go'):\n\
    \x20       time.sleep(0.02)\n\
    \x20   say('X_AGENTD_TASK_END=t1 ok')\n\
    signal.pause()\n";

#[test]
fn a_slow_task_that_was_told_of_by_datagram_outlives_a_reload() {
    let daemon = Daemon::start(AGENTD);
    let home = daemon.home.path();
    std::fs::write(home.join("teller.py"), TELLER).expect("the home is ours");
    let config = format!(
        "[agent.teller]\ncommand = [\"python3\", \"teller.py\"]\nready = \"notify\"\n{LONG_GRACE}\n\
         tasks = {{ lease = \"600ms\" }}\nreload = {{ settle = \"10ms\" }}\n"
    );
    daemon.config("teller.toml", &config);
    daemon.ctl_ok(&["start", "./teller.toml"]);
    let reload = daemon.agentctl(&["reload", "teller", "--json"]).stdout(Stdio::piped()).spawn().expect("it starts");
    // Silent for longer than a lease, and for longer than whatever is not waited for has.
    let deadline = Instant::now() + PATIENCE;
    let told = loop {
        let tasks = daemon.request(TasksParams::default()).expect("a list").tasks;
        let [told] = tasks.as_slice() else { panic!("one task: {tasks:?}") };
        if told.age_ms > 2_500 {
            break told.clone();
        }
        assert!(Instant::now() < deadline, "it does not grow old: {told:?}");
        std::thread::sleep(Duration::from_millis(20));
    };
    assert_eq!((told.state, told.stuck, told.kind.as_deref()), (TaskState::Running, false, Some("crawl")), "{told:?}");
    let old = daemon.app("teller").workers.into_iter().find(|worker| worker.generation == 1).expect("it is waited for");
    assert_eq!(old.state, WorkerState::Draining);
    std::fs::write(home.join("go"), "").expect("the home is ours");
    let output = reload.wait_with_output().expect("it ends");
    let result: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(result["results"][0]["tasks"], json!({"finished": 1, "handed_over": 0, "lost": 0}), "{result}");
}
