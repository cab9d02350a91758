//! A configuration of small servers, written anew by each test.

use std::fmt::Write as _;
use std::time::Duration;

use agentd_testkit::e2e::{Daemon, Output, free_port};
use serde_json::Value;

pub(crate) const AGENTD: &str = env!("CARGO_BIN_EXE_agentd");

/// Longest wait for anything that takes milliseconds on an idle machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Answers `ANSWER`. Ends at once with `FAIL`; with `GATE` not before that file is there.
const SERVER: &str = r#"
import os, socket, sys, time
if os.environ.get("FAIL"):
    print("cannot go on", flush=True)
    sys.exit(3)
while os.environ.get("GATE") and not os.path.exists(os.environ["GATE"]):
    time.sleep(0.01)
body = (os.environ.get("ANSWER") or "ok").encode()
answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body
listener = socket.socket(fileno=3)
listener.setblocking(True)
while True:
    connection, _ = listener.accept()
    with connection:
        if connection.recv(65536):
            connection.sendall(answer)
"#;

/// An app of the configuration: its name, port and further keys.
#[derive(Clone, Debug)]
pub(crate) struct App {
    pub(crate) name: &'static str,
    pub(crate) port: u16,
    pub(crate) keys: String,
}

impl App {
    pub(crate) fn new(name: &'static str) -> Self {
        Self { name, port: free_port(), keys: String::new() }
    }

    pub(crate) fn with(&self, keys: &str) -> Self {
        Self { keys: format!("{}{keys}\n", self.keys), ..self.clone() }
    }
}

pub(crate) struct Site {
    pub(crate) daemon: Daemon,
}

impl Site {
    pub(crate) fn new() -> Self {
        let daemon = Daemon::start(AGENTD);
        daemon.config("server.py", SERVER);
        Self { daemon }
    }

    /// Writes the configuration.
    pub(crate) fn write(&self, apps: &[App]) {
        let mut text = String::new();
        for App { name, port, keys } in apps {
            writeln!(
                text,
                "[agent.{name}]\ncommand = [\"python3\", \"server.py\"]\nlisten = \"127.0.0.1:{port}\"\n{keys}"
            )
            .expect("a String takes all text");
        }
        self.daemon.config("site.toml", &text);
    }

    /// Writes and applies it.
    pub(crate) fn apply(&self, apps: &[App]) -> Output {
        self.write(apps);
        self.daemon.ctl(&["apply", "./site.toml"])
    }

    /// Process ids of an app's workers, by slot.
    pub(crate) fn pids(&self, app: &str) -> Vec<u32> {
        self.daemon.app(app).workers.iter().filter_map(|worker| worker.pid).collect()
    }

    /// What an apply would do, by app.
    pub(crate) fn plan(&self) -> Vec<(String, String)> {
        let output = self.daemon.ctl_ok(&["apply", "--dry-run", "--json", "./site.toml"]);
        let applied: Value = output.json();
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        applied["apps"].as_array().expect("apps").iter().map(|app| (text(&app["app"]), text(&app["work"]))).collect()
    }
}

/// What the app on this port answers.
pub(crate) fn answer(port: u16) -> String {
    agentd_testkit::e2e::answer(port).expect("it answers in time")
}

/// Asserts how a command ended.
#[track_caller]
pub(crate) fn assert_code(output: &Output, code: i32) {
    assert_eq!(output.code, Some(code), "{output:#?}");
}
