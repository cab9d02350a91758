//! docs/guides/workers.md, typed as it stands: its files are written, its commands run, and its agents end their tasks.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use agentd_protocol::control::{TaskState, TasksParams};
use agentd_testkit::e2e::{Daemon, free_port};

use serde_json::Value;

use crate::blocks::blocks;
use crate::programs::{node_modules, python, source};
use crate::readmes::install_for_node;

const GUIDE: &str = include_str!("../../docs/guides/workers.md");
const PATIENCE: Duration = Duration::from_secs(60);

/// Apps of the page with the kind of their tasks.
const TOLD: [(&str, &str); 5] =
    [("counter", "count"), ("support", "chat"), ("search", "search"), ("report", "report"), ("graph", "graph")];

#[test]
fn the_guide_for_workers_holds_as_it_stands() {
    let daemon = Daemon::start(env!("CARGO_BIN_EXE_agentd"));
    let folder = daemon.home.path().to_owned();
    install_for_node(&folder);
    let ports =
        ["8080", "8081", "8083"].map(|port| (format!("127.0.0.1:{port}"), format!("127.0.0.1:{}", free_port())));
    let ours = |text: &str| ports.iter().fold(text.to_owned(), |text, (written, free)| text.replace(written, free));
    let beside = |program: &std::path::Path| program.parent().expect("a folder").display().to_string();
    let path = std::env::var("PATH").expect("a PATH");
    let path = format!("{}:{}:{path}", beside(std::path::Path::new(env!("CARGO_BIN_EXE_agentd"))), beside(&python()));
    let mut typed = 0;
    for block in blocks(GUIDE) {
        match block.info.split_once(' ') {
            None if block.info == "sh" => {
                let output = Command::new("sh")
                    .args(["-exc", &ours(&block.text)])
                    .current_dir(&folder)
                    .env("AGENTD_HOME", &folder)
                    .env("PATH", &path)
                    .env("PYTHONPATH", source("sdk/python"))
                    .env("NODE_PATH", node_modules())
                    .stdin(Stdio::null())
                    .output()
                    .expect("sh runs");
                let log = daemon.log();
                assert!(output.status.success(), "line {}: {output:?}\n{log}", block.line);
                typed += 1;
            }
            Some(("sh", "prepared")) => {}
            Some((_, file)) => std::fs::write(folder.join(file), ours(&block.text)).expect("it can be written"),
            None => panic!("line {}: what is {:?}?", block.line, block.info),
        }
    }
    assert!(typed >= 6, "{typed} blocks typed");
    for (app, kind) in TOLD {
        await_done(&daemon, app, kind);
    }
    let events = daemon.ctl_ok(&["events", "--since", "0", "--json"]).stdout;
    let events: Vec<Value> = events.lines().map(|line| serde_json::from_str(line).expect("an event")).collect();
    let told = events.iter().filter(|event| event["app"] == "legacy").map(|event| &event["event"]);
    let of = |name: &str| told.clone().find(|event| event["type"] == name);
    assert_eq!(of("worker_ready").expect("it was ready")["how"], "notify");
    assert_eq!(of("worker_stopping").expect("it was told to end")["signal"], "shutdown");
    assert_eq!(of("worker_exited").expect("it ended")["code"], 0, "by itself");
}

/// Waits until a task of this app has ended well.
fn await_done(daemon: &Daemon, app: &str, kind: &str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let params = TasksParams { names: vec![app.to_owned()], ..TasksParams::default() };
        let tasks = daemon.request(params).expect("a list").tasks;
        let done = |task: &agentd_protocol::control::TaskView| {
            task.state == TaskState::Ended && (task.why.as_deref(), task.kind.as_deref()) == (Some("ok"), Some(kind))
        };
        if tasks.iter().any(done) {
            return;
        }
        assert!(Instant::now() < deadline, "no task of {app} ends well: {tasks:?}: {}", daemon.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}
