//! The examples of each SDK under the real daemon: handed over by a reload, and gone on with after `kill -9` of the worker
//! and of the daemon. Each sends e-mails, a line of a file for each call: the file says how often each was sent.

use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use agentd_protocol::control::{TaskState, TaskView, TasksParams};
use agentd_protocol::events::EventKind;
use agentd_protocol::status::WorkerState;
use agentd_testkit::e2e::Daemon;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::programs::{built, python, source};

/// Longest wait for anything that takes seconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// E-mails that an agent sends, at least one in each [`PAUSE`] seconds.
const STEPS: usize = 30;
const PAUSE: &str = "0.1";

/// An example, and what runs it.
struct Example(Vec<PathBuf>);

impl Example {
    fn react() -> Self {
        Self(vec![python(), source("sdk/python/examples/react.py")])
    }

    fn graph() -> Self {
        Self(vec![python(), source("sdk/python/examples/graph.py")])
    }

    fn plan() -> Self {
        Self(vec!["node".into(), source("sdk/node/examples/plan.js")])
    }

    fn events() -> Self {
        Self(vec![built("sdk-events")])
    }

    fn futures() -> Self {
        Self(vec![built("sdk-tokio")])
    }
}

/// The daemon with one of the examples as its app `agent`.
struct Running {
    daemon: Daemon,
    outbox: PathBuf,
}

impl Running {
    fn start(example: &Example) -> Self {
        Self::start_with(example, "")
    }

    /// The same, with more lines of configuration.
    fn start_with(example: &Example, more: &str) -> Self {
        let daemon = Daemon::start(env!("CARGO_BIN_EXE_agentd"));
        let outbox = daemon.home.path().join("outbox");
        let (command, library) = (&example.0, source("sdk/python"));
        daemon.config(
            "agent.toml",
            &format!(
                "[agent.agent]\ncommand = {command:?}\nready = \"protocol\"\n\
                 env = {{ OUTBOX = {outbox:?}, STEPS = \"{STEPS}\", PAUSE = \"{PAUSE}\", PYTHONPATH = {library:?} }}\n\
                 restart = {{ backoff = \"10ms..100ms\" }}\nreload = {{ settle = \"10ms\" }}\n\
                 tasks.effects = {{ send_email = \"retry\" }}\n{more}\n"
            ),
        );
        daemon.ctl_ok(&["start", "./agent.toml"]);
        Self { daemon, outbox }
    }

    fn sent(&self) -> Vec<String> {
        fs::read_to_string(&self.outbox).unwrap_or_default().lines().map(Into::into).collect()
    }

    fn await_sent(&self, count: usize) {
        let deadline = Instant::now() + PATIENCE;
        while self.sent().len() < count {
            assert!(Instant::now() < deadline, "{} of {count} sent: {}", self.sent().len(), self.daemon.log());
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn await_stopped(&self, worker: Pid) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let stat = fs::read_to_string(format!("/proc/{worker}/stat")).expect("it is there");
            let state = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().next());
            if state == Some("T") {
                return;
            }
            assert!(Instant::now() < deadline, "it does not stop: {stat}: {}", self.daemon.log());
            thread::sleep(Duration::from_millis(2));
        }
    }

    fn tasks(&self) -> Vec<TaskView> {
        self.daemon.request(TasksParams::default()).expect("a list").tasks
    }

    fn await_end(&self) -> TaskView {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut tasks = self.tasks();
            assert_eq!(tasks.len(), 1, "one task, whoever begins it: {tasks:?}");
            let task = tasks.remove(0);
            if task.state == TaskState::Ended {
                return task;
            }
            assert!(Instant::now() < deadline, "it does not end: {task:?}");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// The task ended well under `fence`, and each e-mail was sent once.
    fn assert_done_once(&self, fence: u64) {
        let task = self.await_end();
        assert_eq!((task.why.as_deref(), task.fence), (Some("ok"), fence), "{task:?}");
        let sent = self.sent();
        assert_eq!(sent.len(), STEPS, "{sent:?}");
        assert_eq!(sent.iter().collect::<HashSet<_>>().len(), STEPS, "nothing twice: {sent:?}");
    }

    /// The task ended well under `fence`, and each e-mail was sent once, but for one: the one that was in hand when
    /// the worker died behind `before` others may have been sent again, since its kind retries.
    fn assert_done_but_for_one(&self, fence: u64, before: usize) {
        let task = self.await_end();
        assert_eq!((task.why.as_deref(), task.fence), (Some("ok"), fence), "{task:?}");
        let mut sent = self.sent();
        if sent.len() > STEPS {
            let again = sent.remove(before);
            assert_eq!(sent[before - 1], again, "only what was in hand is sent again: {sent:?}");
        }
        assert_eq!(sent.len(), STEPS, "{sent:?}");
        assert_eq!(sent.iter().collect::<HashSet<_>>().len(), STEPS, "nothing twice: {sent:?}");
    }

    fn worker(&self) -> Pid {
        let ready = |worker: &agentd_protocol::status::WorkerView| worker.pid.and_then(|pid| i32::try_from(pid).ok());
        Pid::from_raw(self.daemon.app("agent").workers.iter().find_map(ready).expect("a worker that runs"))
    }
}

fn a_reload_hands_over(example: &Example) {
    let agent = Running::start(example);
    agent.await_sent(3);
    // It does not get on while the new worker starts, however long that takes: its task is still in hand then.
    let worker = agent.worker();
    kill(worker, Signal::SIGSTOP).expect("it is there");
    let said = thread::scope(|scope| {
        let reload = scope.spawn(|| agent.daemon.ctl_ok(&["reload", "agent", "--json"]));
        agent.daemon.wait_until(PATIENCE, |document| {
            let mut workers = document.apps.iter().flat_map(|app| &app.workers);
            workers.any(|worker| worker.state == WorkerState::Draining)
        });
        kill(worker, Signal::SIGCONT).expect("it is there");
        reload.join().expect("it is reloaded")
    });
    let result: Value = serde_json::from_str(said.stdout.trim()).expect("JSON");
    assert_eq!(result["results"][0]["tasks"], json!({"finished": 0, "handed_over": 1, "lost": 0}), "{result}");
    agent.assert_done_once(2);
}

fn a_death_of_the_daemon_is_survived(example: &Example) {
    let mut agent = Running::start(example);
    agent.await_sent(3);
    agent.daemon.kill();
    agent.daemon.start_again();
    agent.assert_done_once(1);
}

fn a_death_of_the_worker_is_survived(example: &Example) {
    let agent = Running::start(example);
    agent.await_sent(3);
    // Stopped, it sends nothing between being counted and being killed.
    let worker = agent.worker();
    kill(worker, Signal::SIGSTOP).expect("it is there");
    agent.await_stopped(worker);
    let before = agent.sent().len();
    kill(worker, Signal::SIGKILL).expect("it is there");
    agent.assert_done_but_for_one(2, before);
}

/// A worker that is paused beyond its lease, and comes back while another one has its task.
fn a_zombie_writes_nothing(example: &Example) {
    let agent = Running::start_with(example, "workers = 2\ntasks.lease = \"600ms\"");
    agent.await_sent(3);
    let holder = agent.tasks().remove(0).worker.expect("a running task is somebody's");
    let workers = agent.daemon.app("agent").workers;
    let zombie = workers.into_iter().find(|worker| worker.id == holder).and_then(|worker| worker.pid);
    let zombie = Pid::from_raw(i32::try_from(zombie.expect("it runs")).expect("a process id"));
    kill(zombie, Signal::SIGSTOP).expect("it is there");
    agent.await_stopped(zombie);
    let before = agent.sent().len();
    // Another one has it, and gets on.
    agent.await_sent(before + 2);
    let mut watch = agent.daemon.watch();
    kill(zombie, Signal::SIGCONT).expect("it is there");
    let deadline = Instant::now() + PATIENCE;
    let code = loop {
        let event = watch.next(deadline).expect("the zombie ends");
        if let EventKind::WorkerExited { code, .. } = event.event {
            break code;
        }
    };
    assert_eq!(code, Some(75), "it learned that its task is another's");
    let task = agent.await_end();
    assert_eq!((task.why.as_deref(), task.fence), (Some("ok"), 2), "{task:?}");
    let sent = agent.sent();
    assert_eq!(sent.iter().collect::<HashSet<_>>().len(), STEPS, "{sent:?}");
    // Only what it was at when it was paused can come twice, with the same key: it wakes in the middle of the call.
    let mut once = HashSet::new();
    let twice: Vec<&String> = sent.iter().filter(|key| !once.insert(*key)).collect();
    let in_hand = [before, before + 1].map(|step| format!(":{step}:mail"));
    assert!(twice.len() <= 1 && twice.iter().all(|key| in_hand.iter().any(|end| key.ends_with(end))), "{sent:?}");
}

#[test]
fn a_react_agent_of_asyncio_is_handed_over_by_a_reload() {
    a_reload_hands_over(&Example::react());
}

#[test]
fn a_react_agent_of_asyncio_goes_on_after_kill_9_of_its_worker() {
    a_death_of_the_worker_is_survived(&Example::react());
}

#[test]
fn a_react_agent_of_asyncio_goes_on_after_kill_9_of_the_daemon() {
    a_death_of_the_daemon_is_survived(&Example::react());
}

#[test]
fn a_planning_agent_of_node_is_handed_over_by_a_reload() {
    a_reload_hands_over(&Example::plan());
}

#[test]
fn a_planning_agent_of_node_goes_on_after_kill_9_of_its_worker() {
    a_death_of_the_worker_is_survived(&Example::plan());
}

#[test]
fn a_planning_agent_of_node_goes_on_after_kill_9_of_the_daemon() {
    a_death_of_the_daemon_is_survived(&Example::plan());
}

#[test]
fn an_event_sourced_agent_of_rust_is_handed_over_by_a_reload() {
    a_reload_hands_over(&Example::events());
}

#[test]
fn an_event_sourced_agent_of_rust_goes_on_after_kill_9_of_its_worker() {
    a_death_of_the_worker_is_survived(&Example::events());
}

#[test]
fn an_event_sourced_agent_of_rust_goes_on_after_kill_9_of_the_daemon() {
    a_death_of_the_daemon_is_survived(&Example::events());
}

#[test]
fn a_langgraph_agent_is_handed_over_by_a_reload() {
    a_reload_hands_over(&Example::graph());
}

#[test]
fn a_langgraph_agent_goes_on_after_kill_9_of_its_worker() {
    a_death_of_the_worker_is_survived(&Example::graph());
}

#[test]
fn a_langgraph_agent_goes_on_after_kill_9_of_the_daemon() {
    a_death_of_the_daemon_is_survived(&Example::graph());
}

#[test]
fn a_langgraph_agent_that_was_paused_beyond_its_lease_writes_nothing_and_ends() {
    a_zombie_writes_nothing(&Example::graph());
}

#[test]
fn an_agent_of_tokios_futures_is_handed_over_by_a_reload() {
    a_reload_hands_over(&Example::futures());
}

#[test]
fn an_agent_of_tokios_futures_goes_on_after_kill_9_of_its_worker() {
    a_death_of_the_worker_is_survived(&Example::futures());
}

#[test]
fn an_agent_of_tokios_futures_goes_on_after_kill_9_of_the_daemon() {
    a_death_of_the_daemon_is_survived(&Example::futures());
}
