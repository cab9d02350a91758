//! The middlewares under the real daemon: each request is a task, and a reload waits for whoever is being answered.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use agentd_protocol::control::{TaskState, TasksParams};
use agentd_testkit::e2e::{Daemon, free_port};
use serde_json::{Value, json};

use crate::programs::{node_modules, python, source};

const PATIENCE: Duration = Duration::from_secs(60);

/// A request under way: its answer, line by line.
fn ask(port: u16, key: &str) -> BufReader<TcpStream> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout that is not zero");
    let request = format!(
        "GET /sse?s=3 HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-task-kind: chat\r\nidempotency-key: {key}\r\n\r\n"
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
    let (daemon, port) = (Daemon::start(env!("CARGO_BIN_EXE_agentd")), free_port());
    let cwd = source("tests/apps");
    daemon.config("web.toml", &format!("[agent.web]\ncwd = {cwd:?}\nlisten = \"127.0.0.1:{port}\"\n{config}\n"));
    daemon.ctl_ok(&["start", "./web.toml"]);
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
    let uvicorn = python().with_file_name("uvicorn");
    requests_are_tasks(&format!(
        "command = [{uvicorn:?}, \"sdk_asgi:app\", \"--fd\", \"{{fd:http}}\", \"--log-level\", \"warning\"]\n\
         ready = \"protocol\"\nenv = {{ PYTHONPATH = {:?} }}",
        source("sdk/python")
    ));
}

#[test]
fn whoever_asks_express_through_the_middleware_has_a_whole_stream_over_a_reload() {
    requests_are_tasks(&format!(
        "command = [\"node\", \"sdk_express.js\"]\nready = \"protocol\"\nenv = {{ NODE_PATH = {:?} }}",
        node_modules()
    ));
}
