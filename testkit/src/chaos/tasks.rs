//! Tasks over the protocol: one is begun before each death, and takes longer than that.
//!
//! Its worker keeps what was not acknowledged, dials the next supervisor's socket and sends it again. A reload hands it
//! over at a checkpoint. However often that happens, it ends well, and once.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use agentd_protocol::control::{TaskState, TasksParams};
use agentd_protocol::status::WorkerState;
use serde_json::json;

use super::fleet::Fleet;
use crate::e2e::Daemon;

/// The app that does them.
pub(super) const APP: &str = "work";
/// Its part of the configuration: doors in the home, which is where the configuration lies.
pub(super) const CONFIG: &str = "[agent.work]\ncommand = [\"python3\", \"tasker.py\"]\nready = \"protocol\"\n\
     env = { TASKER_SOCKET = \"./door\" }\nreload = { settle = \"10ms\" }\ntasks = { effects = { post = \"retry\" } }\n";
/// The worker of the tests: the protocol by the standard library alone.
const TASKER: &str = include_str!("../../../tests/apps/tasker.py");
/// Longest wait for a worker's word.
const ANSWERED_WITHIN: Duration = Duration::from_secs(30);
/// Longest wait for the last task.
const ENDED_WITHIN: Duration = Duration::from_secs(60);

pub(super) fn lay_out(daemon: &Daemon) {
    daemon.config("tasker.py", TASKER);
}

impl Fleet {
    /// Begins a task of half a second at a worker that is ready; none when it is about to go.
    pub(super) fn begin_task(&mut self) {
        let Some(worker) = self.daemon.app(APP).workers.into_iter().find(|worker| worker.state == WorkerState::Ready)
        else {
            return;
        };
        let place = worker.id.strip_prefix("work.").unwrap_or(&worker.id).to_owned();
        let Ok(door) = UnixStream::connect(self.daemon.home.path().join(format!("door.{place}"))) else { return };
        door.set_read_timeout(Some(ANSWERED_WITHIN)).expect("a timeout that is not zero");
        let task = format!("t{}", self.begun.len());
        let request = json!({"kind": "steps", "task": task, "input": {"steps": 20, "pause": 0.02}});
        let mut line = String::new();
        // A worker that is told to go may take none any more, or be gone.
        let told = writeln!(&door, "{request}").and_then(|()| BufReader::new(&door).read_line(&mut line));
        let answer: serde_json::Value = told.ok().and_then(|_| serde_json::from_str(&line).ok()).unwrap_or_default();
        if answer.get("fence").is_some() {
            self.begun.push(task);
        }
    }

    /// Waits until every task has ended; how many there were.
    pub(super) fn await_tasks(&self) -> u64 {
        let until = Instant::now() + ENDED_WITHIN;
        for id in &self.begun {
            loop {
                let params = TasksParams { task: Some(id.clone()), ..TasksParams::default() };
                let found = self.daemon.request(params).expect("a list").tasks;
                assert_eq!(found.len(), 1, "task {id} is there once: {found:?}");
                if found[0].state == TaskState::Ended {
                    assert_eq!(found[0].why.as_deref(), Some("ok"), "{found:?}");
                    break;
                }
                assert!(Instant::now() < until, "it does not end: {found:?}");
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        self.begun.len() as u64
    }
}
