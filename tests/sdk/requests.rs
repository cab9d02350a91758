//! The middlewares under the real daemon: each request is a task, and a reload waits for whoever is being answered.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use agentd_protocol::control::{TaskState, TasksParams};
use agentd_testkit::e2e::{Daemon, free_port};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::programs::{node_modules, python, source};

const PATIENCE: Duration = Duration::from_secs(60);

/// A stream under way: its answer, line by line.
fn ask(port: u16, key: &str) -> BufReader<TcpStream> {
    ask_for(port, "/sse?s=3", key)
}

fn ask_for(port: u16, path: &str, key: &str) -> BufReader<TcpStream> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout that is not zero");
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-task-kind: chat\r\nidempotency-key: {key}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).expect("it reads");
    BufReader::new(stream)
}

fn read_until(answer: &mut BufReader<TcpStream>, wanted: &str) {
    let mut line = String::new();
    while !line.contains(wanted) {
        line.clear();
        assert!(answer.read_line(&mut line).expect("it answers") > 0, "the answer ends before {wanted:?}");
    }
}

fn requests_are_tasks(config: &str) {
    let (daemon, port) = served(config);
    let mut answer = ask(port, "one");
    read_until(&mut answer, "data: 2");
    let mut again = String::new();
    ask(port, "one").read_to_string(&mut again).expect("it answers");
    assert!(again.starts_with("HTTP/1.1 409") && again.contains("\"running\""), "{again}");

    let said = daemon.ctl_ok(&["reload", "web", "--json"]);
    let result: Value = serde_json::from_str(said.stdout.trim()).expect("JSON");
    assert_eq!(result["results"][0]["tasks"], json!({"finished": 1, "handed_over": 0, "lost": 0}), "{result}");
    read_until(&mut answer, "data: end");
    let tasks = daemon.request(TasksParams::default()).expect("a list").tasks;
    let [task] = tasks.as_slice() else { panic!("one task: {tasks:?}") };
    assert_eq!((task.state, task.why.as_deref(), task.kind.as_deref()), (TaskState::Ended, Some("ok"), Some("chat")));
}

#[test]
fn whoever_asks_fastapi_through_the_asgi_middleware_has_a_whole_stream_over_a_reload() {
    requests_are_tasks(&under_uvicorn());
}

fn under_uvicorn() -> String {
    let uvicorn = python().with_file_name("uvicorn");
    format!(
        "command = [{uvicorn:?}, \"sdk_asgi:app\", \"--fd\", \"{{fd:http}}\", \"--log-level\", \"warning\"]\n\
         ready = \"protocol\"\nenv = {{ PYTHONPATH = {:?} }}",
        source("sdk/python")
    )
}

#[test]
fn whoever_asks_express_through_the_middleware_has_a_whole_stream_over_a_reload() {
    requests_are_tasks(&under_node());
}

fn under_node() -> String {
    format!(
        "command = [\"node\", \"sdk_express.js\"]\nready = \"protocol\"\nenv = {{ NODE_PATH = {:?} }}",
        node_modules()
    )
}

/// The words that run gunicorn with the WSGI app, in threads of one process.
fn gunicorn(bind: &str) -> Vec<String> {
    let program = python().with_file_name("gunicorn");
    let program = program.to_str().expect("a UTF-8 path");
    [program, "--bind", bind, "--threads", "4", "sdk_wsgi:app"].map(Into::into).to_vec()
}

fn under_gunicorn() -> String {
    let (command, library) = (gunicorn("fd://{fd:http}"), source("sdk/python"));
    format!("command = {command:?}\nenv = {{ PYTHONPATH = {library:?} }}")
}

/// The whole answer to a request.
fn answer_to(port: u16, path: &str, key: &str) -> String {
    let mut answer = Vec::new();
    // An answer that breaks off may end with a reset.
    let _ = ask_for(port, path, key).read_to_end(&mut answer);
    String::from_utf8(answer).expect("text")
}

#[test]
fn whoever_asks_gunicorn_through_the_wsgi_middleware_has_a_whole_stream_over_a_reload() {
    requests_are_tasks(&under_gunicorn());
}

#[test]
fn a_request_through_the_wsgi_middleware_ends_its_task_as_it_went_itself() {
    let (daemon, port) = served(&under_gunicorn());
    for (path, status, why) in [
        ("/task", "200", "ok"),
        ("/raises", "500", "error"),
        ("/breaks", "200", "error"),
        ("/unavailable", "503", "error"),
    ] {
        let answer = answer_to(port, path, path);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{path}: {answer}");
        let ended = await_ended(&daemon, path);
        assert_eq!(ended, Some(why.to_owned()), "{path}");
    }
    // A key is done once.
    let again = answer_to(port, "/task", "/task");
    assert!(again.starts_with("HTTP/1.1 409") && again.contains("\"ok\""), "{again}");
}

/// Begins to read an answer, leaves, and waits for the end of the task.
fn leave(daemon: &Daemon, port: u16, path: &str) -> Option<String> {
    let mut answer = ask_for(port, path, "left");
    read_until(&mut answer, "data: ");
    drop(answer);
    await_ended(daemon, "left")
}

fn served(config: &str) -> (Daemon, u16) {
    let (daemon, port) = (Daemon::start(env!("CARGO_BIN_EXE_agentd")), free_port());
    let cwd = source("tests/apps");
    daemon.config("web.toml", &format!("[agent.web]\ncwd = {cwd:?}\nlisten = \"127.0.0.1:{port}\"\n{config}\n"));
    daemon.ctl_ok(&["start", "./web.toml"]);
    (daemon, port)
}

#[test]
fn whoever_leaves_in_the_middle_of_a_wsgi_answer_cancels_its_task_and_the_answer_is_let_go_of() {
    let (daemon, port) = served(&under_gunicorn());
    assert_eq!(leave(&daemon, port, "/endless").as_deref(), Some("cancelled"));
    let deadline = Instant::now() + PATIENCE;
    while !daemon.ctl_ok(&["logs", "web"]).stdout.contains("let go of") {
        assert!(Instant::now() < deadline, "its generator is not closed");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn whoever_leaves_in_the_middle_of_an_asgi_answer_cancels_its_task() {
    let (daemon, port) = served(&under_uvicorn());
    assert_eq!(leave(&daemon, port, "/sse?s=3").as_deref(), Some("cancelled"));
}

#[test]
fn whoever_leaves_in_the_middle_of_expresss_answer_cancels_its_task() {
    let (daemon, port) = served(&under_node());
    assert_eq!(leave(&daemon, port, "/sse?s=3").as_deref(), Some("cancelled"));
}

/// How the task of a key ended. An answer may be read before its task's end is told.
fn await_ended(daemon: &Daemon, key: &str) -> Option<String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let tasks = daemon.request(TasksParams::default()).expect("a list").tasks;
        let task = tasks.iter().find(|task| task.key.as_deref() == Some(key));
        if let Some(task) = task.filter(|task| task.state == TaskState::Ended) {
            return task.why.clone();
        }
        assert!(Instant::now() < deadline, "the task of {key} does not end: {tasks:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A program that runs without agentd; ended when it goes out of scope.
struct Alone(Child);

impl Drop for Alone {
    fn drop(&mut self) {
        let pid = Pid::from_raw(i32::try_from(self.0.id()).expect("process ids are positive"));
        // It ends its own processes first.
        let _ = kill(pid, Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

#[test]
fn the_wsgi_middleware_without_agentd_stands_in_nobodys_way() {
    let port = free_port();
    let words = gunicorn(&format!("127.0.0.1:{port}"));
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).current_dir(source("tests/apps")).env("PYTHONPATH", source("sdk/python"));
    for name in ["AGENTD_WORKER_SOCKET", "AGENTD_WORKER_TOKEN", "NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID"] {
        command.env_remove(name);
    }
    let mut alone = Alone(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("gunicorn starts"));
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert_eq!(alone.0.try_wait().expect("it is our child"), None, "it ended");
        assert!(Instant::now() < deadline, "it does not listen");
        thread::sleep(Duration::from_millis(10));
    }
    // Nobody keeps what was done: the same key is answered again.
    for _ in 0..2 {
        let answer = answer_to(port, "/task", "one");
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("inside=False"), "{answer}");
    }
    let failed = answer_to(port, "/raises", "two");
    assert!(failed.starts_with("HTTP/1.1 500"), "{failed}");
}
