//! A site that serves: one app of two workers on a port, which nothing that a test does may stop.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use agentd_protocol::status::WorkerState;
use agentd_testkit::e2e::{Daemon, Output, free_port};

pub(crate) const AGENTD: &str = env!("CARGO_BIN_EXE_agentd");

/// Longest wait for anything that takes milliseconds on an idle machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Answers `ANSWER` on descriptor 3; begins only when the file `GATE` exists, if there is such a variable.
const SERVER: &str = r#"
import os, socket, threading, time

gate = os.environ.get("GATE")
while gate and not os.path.exists(gate):
    time.sleep(0.01)

body = os.environ.get("ANSWER", "ok").encode()
answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body

def serve(connection):
    with connection:
        if connection.recv(65536):
            connection.sendall(answer)

listener = socket.socket(fileno=3)
listener.setblocking(True)
while True:
    connection, _ = listener.accept()
    threading.Thread(target=serve, args=(connection,), daemon=True).start()
"#;

/// The daemon, its app `web`, and who served when the test began.
pub(crate) struct Site {
    pub(crate) daemon: Daemon,
    pub(crate) port: u16,
    first: BTreeSet<u32>,
}

impl Site {
    pub(crate) fn new() -> Self {
        Self::of(Daemon::start(AGENTD))
    }

    pub(crate) fn of(daemon: Daemon) -> Self {
        daemon.config("server.py", SERVER);
        let mut site = Self { daemon, port: free_port(), first: BTreeSet::new() };
        site.configure("");
        site.daemon.ctl_ok(&["start", "./web.toml"]);
        site.first = site.pids();
        assert_eq!(site.first.len(), 2);
        site
    }

    /// Writes the configuration of `web`, with more lines.
    pub(crate) fn configure(&self, more: &str) -> PathBuf {
        self.daemon.config("web.toml", &format!("{}{more}", server("web", self.port)))
    }

    /// Begins a reload whose new workers wait until [`Site::open_gate`]; returns its number.
    pub(crate) fn begin_gated_reload(&self) -> u64 {
        self.configure("env = { GATE = \"gate\" }\n");
        let accepted: serde_json::Value = self.ctl_ok(&["reload", "web", "--no-wait", "--json"]).json();
        accepted["operations"][0]["id"].as_u64().expect("an operation has a number")
    }

    pub(crate) fn open_gate(&self) {
        self.daemon.config("gate", "");
    }

    pub(crate) fn ctl(&self, arguments: &[&str]) -> Output {
        self.daemon.ctl(arguments)
    }

    pub(crate) fn ctl_ok(&self, arguments: &[&str]) -> Output {
        self.daemon.ctl_ok(arguments)
    }

    /// The workers of `web`.
    pub(crate) fn pids(&self) -> BTreeSet<u32> {
        self.daemon.app("web").workers.iter().filter_map(|worker| worker.pid).collect()
    }

    /// Asserts that the workers of the beginning serve, and nobody else does.
    pub(crate) fn assert_unharmed(&self) {
        let web = self.daemon.app("web");
        assert_eq!(self.pids(), self.first, "the workers are others: {web:#?}");
        assert!(
            web.workers.iter().all(|worker| worker.state == WorkerState::Ready && worker.restarts == 0),
            "a worker was disturbed: {web:#?}"
        );
        assert_eq!(answer(self.port), "ok");
    }

    /// Asserts that the workers of the beginning serve, whoever else is starting beside them.
    pub(crate) fn assert_unharmed_at_its_side(&self) {
        assert!(self.pids().is_superset(&self.first), "a worker was stopped: {:#?}", self.daemon.app("web"));
        self.assert_serves();
    }

    pub(crate) fn assert_serves(&self) {
        assert_eq!(answer(self.port), "ok");
    }

    /// Waits until this command succeeds: what was dropped is seen by the daemon in its own time.
    pub(crate) fn await_answer(&self, arguments: &[&str]) {
        let deadline = Instant::now() + PATIENCE;
        while self.ctl(arguments).code != Some(0) {
            assert!(Instant::now() < deadline, "{arguments:?} is still refused");
        }
    }

    /// Waits until the app has nothing under way and `ready` workers.
    pub(crate) fn await_calm(&self, ready: u32) {
        self.daemon.wait_until(PATIENCE, |document| {
            let app = document.apps.iter().find(|app| app.name == "web");
            app.is_some_and(|app| app.ready == ready && app.workers.len() == ready as usize && app.deployment.is_none())
        });
    }

    /// Where the daemon's sockets are.
    pub(crate) fn run(&self) -> PathBuf {
        self.daemon.home.path().join("run")
    }

    /// The notify sockets of the workers.
    pub(crate) fn notify_sockets(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.run().join("notify")).expect("the daemon made it");
        entries.map(|entry| entry.expect("an entry").path()).collect()
    }
}

/// The table of an app that serves on a port with two workers.
pub(crate) fn server(name: &str, port: u16) -> String {
    format!("[agent.{name}]\ncommand = [\"python3\", \"server.py\"]\nworkers = 2\nlisten = \"127.0.0.1:{port}\"\n")
}

/// What the app on this port answers.
pub(crate) fn answer(port: u16) -> String {
    agentd_testkit::e2e::answer(port).expect("it answers in time")
}

/// Asserts how a command ended and that it said all this on stderr.
#[track_caller]
pub(crate) fn assert_said(output: &Output, code: i32, words: &[&str]) {
    assert_eq!(output.code, Some(code), "{output:#?}");
    for word in words {
        assert!(output.stderr.contains(word), "nothing of {word:?} was said: {output:#?}");
    }
}
