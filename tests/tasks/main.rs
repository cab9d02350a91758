//! Tasks end to end: the real daemon, workers that speak the protocol by their standard library only, and a judge outside.

mod asking;
mod full;
mod handing;
mod keeping;
mod reading;
mod refusing;
mod telling;
mod upgrading;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use agentd_protocol::control::{TaskState, TaskView, TasksParams};
use agentd_testkit::e2e::{Daemon, Home, Speaker};

const AGENTD: &str = env!("CARGO_BIN_EXE_agentd");
/// Longest wait for anything that takes milliseconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// The sample worker.
fn tasker() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/apps/tasker.py")
}

/// A daemon with an app `work` of sample workers; `more` is further lines of its configuration.
fn working(more: &str) -> Daemon {
    working_in(Home::new(), more)
}

fn working_in(home: Home, more: &str) -> Daemon {
    let daemon = Daemon::start_in(AGENTD, home);
    let doors = daemon.home.path().join("t");
    let config = daemon.config(
        "work.toml",
        &format!(
            "[agent.work]\ncommand = [\"python3\", \"{}\"]\nready = \"protocol\"\nenv = {{ TASKER_SOCKET = \"{}\" }}\n\
             restart = {{ backoff = \"10ms..100ms\" }}\nreload = {{ settle = \"10ms\" }}\n{more}\n",
            tasker().display(),
            doors.display()
        ),
    );
    daemon.ctl_ok(&["start", config.to_str().expect("a UTF-8 path")]);
    daemon
}

/// Begins a task at a worker, by the worker's own door; what it was answered.
fn begin(daemon: &Daemon, worker: &str, request: serde_json::Value) -> serde_json::Value {
    use std::io::{BufRead, BufReader, Write};
    let door = daemon.home.path().join(format!("t.{worker}"));
    let stream = std::os::unix::net::UnixStream::connect(&door).unwrap_or_else(|e| panic!("{}: {e}", door.display()));
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout that is not zero");
    writeln!(&stream, "{request}").expect("it reads");
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line).expect("it answers");
    serde_json::from_str(&line).expect("JSON")
}

/// A task as the daemon shows it.
fn task(daemon: &Daemon, id: &str) -> TaskView {
    let params = TasksParams { task: Some(id.to_owned()), ..TasksParams::default() };
    let mut found = daemon.request(params).expect("a list").tasks;
    assert_eq!(found.len(), 1, "{id} is there once: {found:?}");
    found.remove(0)
}

/// Waits until a task is as wanted.
fn await_task(daemon: &Daemon, id: &str, wanted: impl Fn(&TaskView) -> bool) -> TaskView {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let seen = task(daemon, id);
        if wanted(&seen) {
            return seen;
        }
        assert!(Instant::now() < deadline, "not as wanted after {PATIENCE:?}: {seen:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn ended(seen: &TaskView) -> bool {
    seen.state == TaskState::Ended
}

/// A daemon with a worker that says nothing, and its token, for a test to say everything itself.
fn silent(more: &str) -> (Daemon, String) {
    let daemon = Daemon::start(AGENTD);
    let config = daemon.config(
        "silent.toml",
        &format!(
            "[agent.silent]\ncommand = [\"sh\", \"-c\", \"env > env; mv env environment; exec sleep 1000\"]\n{more}\n"
        ),
    );
    daemon.ctl_ok(&["start", config.to_str().expect("a UTF-8 path")]);
    let token = token(&daemon);
    (daemon, token)
}

/// The token of the silent worker, as it found it in its environment.
fn token(daemon: &Daemon) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let environment = std::fs::read_to_string(daemon.home.path().join("environment")).unwrap_or_default();
        if let Some(token) = environment.lines().find_map(|line| line.strip_prefix("AGENTD_WORKER_TOKEN=")) {
            return token.to_owned();
        }
        assert!(Instant::now() < deadline, "the worker did not write its environment");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A connection of the silent worker that was welcomed.
fn speaker(daemon: &Daemon, token: &str) -> Speaker {
    Speaker::hello(&daemon.worker_socket(), token, 0)
}
