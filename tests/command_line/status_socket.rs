//! `status.sock` as a script of anybody's would read it: Python and its standard library.

use std::process::{Command, Stdio};

use serde_json::Value;

use crate::site::site;

/// Connects, sends nothing, and prints whatever comes before the end of the file.
const READ: &str = r#"
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.settimeout(30)
s.connect(sys.argv[1])
while chunk := s.recv(65536):
    sys.stdout.write(chunk.decode())
"#;

/// Watches: prints the document and every event until a `scale` is done, then leaves.
const WATCH: &str = r#"
import json, socket, sys
s = socket.socket(socket.AF_UNIX)
s.settimeout(30)
s.connect(sys.argv[1])
s.sendall(b'{"watch":true}\n')
lines = s.makefile()
document = next(lines)
assert json.loads(document)["schema"] == 1, document
print("watching", flush=True)
print(document, end="")
for line in lines:
    print(line, end="")
    event = json.loads(line)["event"]
    if event["type"] == "operation_finished" and event["kind"] == "scale":
        break
"#;

fn script(text: &str, socket: &std::path::Path) -> Command {
    let mut command = Command::new("python3");
    command.arg("-c").arg(text).arg(socket).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[test]
fn one_who_sends_nothing_gets_one_whole_document_and_the_end() {
    let (daemon, _) = site();
    let output = script(READ, &daemon.home.path().join("run/status.sock")).output().expect("python3 runs");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert_eq!(text.lines().count(), 1, "one line");
    let document: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(document["schema"], 1);
    has(&document, &["schema", "instance", "pid", "version", "started_at", "now", "apps"]);
    let app = &document["apps"][0];
    has(
        app,
        &["name", "kind", "state", "release", "desired", "ready", "in_flight", "grace_ms", "deployment", "workers"],
    );
    assert_eq!((&app["name"], &app["kind"], &app["state"]), (&"web".into(), &"agent".into(), &"running".into()));
    let worker = &app["workers"][0];
    #[rustfmt::skip]
    has(worker, &[
        "id", "slot", "generation", "release", "pid", "state", "weight", "restarts", "started_at", "in_flight",
        "oldest_task_ms", "drain_deadline", "memory_bytes", "cpu_percent", "last_exit",
    ]);
    assert_eq!(worker["state"], "ready");
}

#[track_caller]
fn has(object: &Value, fields: &[&str]) {
    let object = object.as_object().expect("an object");
    for field in fields {
        assert!(object.contains_key(*field), "no {field} in {object:?}");
    }
}

#[test]
fn one_who_watches_gets_the_document_and_then_every_event_in_order() {
    use std::io::{BufRead, BufReader, Read};

    let (daemon, _) = site();
    let mut child = script(WATCH, &daemon.home.path().join("run/status.sock")).spawn().expect("python3 runs");
    let mut out = BufReader::new(child.stdout.take().expect("it was asked for"));
    let mut line = String::new();
    out.read_line(&mut line).expect("the script prints");
    assert_eq!(line, "watching\n");
    daemon.ctl_ok(&["reload", "web"]);
    daemon.ctl_ok(&["scale", "web", "3"]);
    let mut rest = String::new();
    out.read_to_string(&mut rest).expect("the script ends");
    assert!(child.wait().expect("it is our child").success());
    let lines: Vec<Value> = rest.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let mut next = lines[0]["seq"].as_u64().expect("the document has a number");
    for event in &lines[1..] {
        next += 1;
        assert_eq!(event["seq"].as_u64(), Some(next), "{event}");
    }
    let types: Vec<&str> = lines[1..].iter().filter_map(|event| event["event"]["type"].as_str()).collect();
    for wanted in ["worker_starting", "worker_ready", "worker_draining", "worker_exited", "operation_finished"] {
        assert!(types.contains(&wanted), "no {wanted} in {types:?}");
    }
}
