//! `agentctl` and a daemon of another version. A go-between makes of today's daemon a later one or an earlier one, in what
//! it says; the other direction, a client of another version before today's daemon, is in `upgrade.rs`.

use std::io::{BufRead, BufReader, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use agentd_testkit::e2e::{Daemon, Home, Output};
use serde_json::{Value, json};

use crate::fleet;

/// What a daemon of another version says to `asked`, where it is not what today's says.
type Instead = fn(asked: &Value) -> Option<Value>;
/// What it makes of one of today's lines.
type Told = fn(line: Value) -> Vec<Value>;

/// A daemon of another version, as its clients see it.
struct Other<'d> {
    daemon: &'d Daemon,
    home: Home,
}

impl<'d> Other<'d> {
    fn new(daemon: &'d Daemon, instead: Instead, told: Told) -> Self {
        let home = Home::new();
        std::fs::create_dir(home.path().join("run")).expect("the home is ours");
        for socket in ["control.sock", "status.sock"] {
            let (door, real) = (UnixListener::bind(home.socket(socket)).expect("bound"), daemon.home.socket(socket));
            // Ends with the test's process.
            std::thread::spawn(move || {
                door.incoming().flatten().for_each(|client| go_between(client, &real, instead, told))
            });
        }
        Self { daemon, home }
    }

    fn ctl(&self, arguments: &[&str]) -> Output {
        let home = self.home.path().to_str().expect("a UTF-8 path");
        self.daemon.ctl(&[arguments, &["--home", home]].concat())
    }

    fn ctl_ok(&self, arguments: &[&str]) -> Output {
        let output = self.ctl(arguments);
        assert_eq!(output.code, Some(0), "{arguments:?}: {output:#?}");
        output
    }
}

fn go_between(client: UnixStream, real: &PathBuf, instead: Instead, told: Told) {
    let daemon = UnixStream::connect(real).expect("the daemon listens");
    let (mut to_client, mut to_daemon) = (client.try_clone().expect("a copy"), daemon.try_clone().expect("a copy"));
    let mut back = client.try_clone().expect("a copy");
    std::thread::spawn(move || {
        for line in BufReader::new(daemon).lines().map_while(Result::ok) {
            for line in told(serde_json::from_str(&line).expect("JSON")) {
                // A client that has heard enough.
                if writeln!(to_client, "{line}").is_err() {
                    return;
                }
            }
        }
        let _ = to_client.shutdown(Shutdown::Both);
    });
    std::thread::spawn(move || {
        for line in BufReader::new(client).lines().map_while(Result::ok) {
            let asked: Value = serde_json::from_str(&line).expect("JSON");
            let answered = match instead(&asked) {
                Some(answer) => writeln!(back, "{answer}"),
                None => writeln!(to_daemon, "{line}"),
            };
            if answered.is_err() {
                return;
            }
        }
        let _ = to_daemon.shutdown(Shutdown::Write);
    });
}

/// A later daemon: fields, states, events and notices that nobody knows today.
fn later(mut line: Value) -> Vec<Value> {
    let future = || json!({ "of": ["the", "future"] });
    line["later"] = future();
    for part in ["result", "params", "event", "error"] {
        if line[part].is_object() {
            line[part]["later"] = future();
        }
    }
    if line["result"]["protocol"].is_number() {
        line["result"]["version"] = json!("9.9.9");
    }
    for holder in ["/apps", "/result/apps"] {
        for app in line.pointer_mut(holder).and_then(Value::as_array_mut).into_iter().flatten() {
            app["later"] = future();
            let levitates = app["name"] == "printer";
            for worker in app["workers"].as_array_mut().into_iter().flatten() {
                worker["later"] = future();
                if levitates {
                    worker["state"] = json!("levitating");
                }
            }
        }
    }
    let mut all = Vec::new();
    if line["id"].is_number() {
        all.push(json!({ "jsonrpc": "2.0", "method": "levitated", "params": { "call": line["id"] } }));
    }
    if line["event"].is_object() {
        let mut unknown = line.clone();
        unknown["event"] = json!({ "type": "worker_levitated", "height": 3 });
        all.push(unknown);
    }
    all.push(line);
    all
}

/// An earlier daemon knows no greeting, and none of what came later.
fn earlier(asked: &Value) -> Option<Value> {
    let method = asked["method"].as_str()?;
    ["hello", "refresh", "grace"].contains(&method).then(|| {
        let message = format!("no method is called {method:?}");
        let data = json!({ "kind": "unknown_method", "exit": 2 });
        json!({ "jsonrpc": "2.0", "id": asked["id"], "error": { "code": -32601, "message": message, "data": data } })
    })
}

/// It does not tell what nobody had to tell at first.
fn bare(mut line: Value) -> Vec<Value> {
    for holder in ["/apps", "/result/apps"] {
        for app in line.pointer_mut(holder).and_then(Value::as_array_mut).into_iter().flatten() {
            for gone in ["listen", "refresh", "why"] {
                app.as_object_mut().expect("an app").remove(gone);
            }
            for worker in app["workers"].as_array_mut().into_iter().flatten() {
                for gone in ["status_text", "why", "restart_at", "log_tail"] {
                    worker.as_object_mut().expect("a worker").remove(gone);
                }
            }
        }
    }
    vec![line]
}

fn everyday(other: &Other<'_>) {
    let listed = other.ctl_ok(&["ls"]).stdout;
    assert!(listed.contains("web") && listed.contains("printer"), "{listed}");
    let shown = other.ctl_ok(&["status", "web"]).stdout;
    assert!(shown.contains("web") && shown.matches("ready").count() >= 2, "{shown}");
    assert!(other.ctl_ok(&["describe", "web"]).stdout.contains("server.py"));
    other.ctl_ok(&["scale", "web", "3"]);
    other.ctl_ok(&["reload", "web"]);
    assert!(!other.ctl_ok(&["logs", "printer", "-n", "3"]).stdout.is_empty());
    assert!(other.ctl_ok(&["events", "-n", "20"]).stdout.contains("web"));
    assert!(other.ctl_ok(&["daemon", "status"]).stdout.contains(&other.daemon.pid().to_string()));
    assert_eq!(other.daemon.app("web").ready, 3, "what was asked for was done");
}

#[test]
fn agentctl_works_with_a_later_daemon_and_passes_over_what_it_does_not_know() {
    let (daemon, _) = fleet();
    let other = Other::new(&daemon, |_| None, later);
    everyday(&other);
    // What it does not know it says so, and does not hide.
    let shown = other.ctl_ok(&["status", "printer"]).stdout;
    assert!(shown.contains("unknown"), "{shown}");
}

#[test]
fn agentctl_works_with_an_earlier_daemon_and_says_what_that_does_not_know() {
    let (daemon, _) = fleet();
    let other = Other::new(&daemon, earlier, bare);
    everyday(&other);
    let refused = other.ctl(&["refresh", "web"]);
    assert_eq!(refused.code, Some(2), "{refused:#?}");
    assert!(refused.stderr.contains("no method is called \"refresh\""), "{refused:#?}");
}
