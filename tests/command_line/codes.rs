//! Exit codes, and JSON that nothing else is mixed into.

use std::fs::File;
use std::io::Read;
use std::process::{Command, Stdio};

use agentd_testkit::e2e::{Daemon, free_port};
use nix::pty::{OpenptyResult, Winsize, openpty};
use serde_json::Value;

use crate::site::{AGENTD, assert_code, server, site};

/// Every line of it is JSON, and there is one at least.
#[track_caller]
fn assert_json_alone(daemon: &Daemon, arguments: &[&str], code: i32) {
    let output = daemon.ctl(&[arguments, &["--json"]].concat());
    assert_code(&output, code);
    let values: Result<Vec<Value>, _> = serde_json::Deserializer::from_str(&output.stdout).into_iter().collect();
    let values = values.unwrap_or_else(|error| panic!("{error}: {output:#?}"));
    assert!(!values.is_empty(), "{output:#?}");
    assert_eq!(values[0].get("error").is_some(), code != 0, "{output:#?}");
}

#[test]
fn under_json_every_command_prints_json_alone_whatever_its_end() {
    let (daemon, port) = site();
    for arguments in [
        &["ls"] as &[&str],
        &["status"],
        &["status", "web"],
        &["describe", "web"],
        &["events"],
        &["logs", "web"],
        &["daemon", "status"],
        &["daemon", "start"],
        &["start", "./web.toml"],
        &["scale", "web", "3"],
        &["scale", "web", "2", "--no-wait"],
        &["signal", "web", "USR1"],
        &["restart", "web"],
        &["reload", "web"],
        &["reload", "all"],
        &["stop", "web"],
        &["start", "web"],
    ] {
        assert_json_alone(&daemon, arguments, 0);
    }
    daemon.config("wrong.toml", "[agent.x]\ncomand = 1\n");
    for command in ["stop", "start", "restart", "reload", "delete", "describe", "logs", "status"] {
        let code = if command == "start" { 2 } else { 3 };
        assert_json_alone(&daemon, &[command, "nobody"], code);
    }
    assert_json_alone(&daemon, &["start", "./wrong.toml"], 2);
    daemon.config("thief.toml", &server("thief", port));
    assert_json_alone(&daemon, &["start", "./thief.toml"], 4);
    assert_json_alone(&daemon, &["delete", "web"], 0);
}

#[test]
fn each_exit_code_comes_with_what_it_stands_for() {
    let (daemon, port) = site();
    assert_code(&daemon.ctl(&["ls"]), 0);
    daemon.config("falls.toml", "[agent.falls]\ncommand = [\"no-such-program-at-all\"]\n");
    assert_code(&daemon.ctl(&["start", "./falls.toml"]), 1);
    assert_code(&daemon.ctl(&["ls", "--nonsense"]), 2);
    assert_code(&daemon.ctl(&["stop", "nobody"]), 3);
    daemon.ctl_ok(&["stop", "falls"]);
    assert_code(&daemon.ctl(&["reload", "falls"]), 4);
    daemon.config("web.toml", &server("web", port).replace("server.py", "no-such-file.py"));
    assert_code(&daemon.ctl(&["reload", "web"]), 5);
    let elsewhere = daemon.home.path().join("elsewhere");
    let elsewhere = elsewhere.to_str().expect("a UTF-8 path");
    for command in [&["ls"] as &[&str], &["stop", "web"], &["daemon", "status"], &["logs"], &["events"]] {
        assert_code(&daemon.ctl(&[&["--home", elsewhere], command].concat()), 6);
    }
    assert_code(&daemon.ctl(&["--home", elsewhere, "daemon", "stop"]), 0);
    // Its worker is never ready: the log never says this.
    let never = "[agent.never]\ncommand = [\"sleep\", \"99\"]\nready = { log = \"never said\", timeout = \"5m\" }\n";
    daemon.config("never.toml", never);
    assert_code(&daemon.ctl(&["start", "./never.toml", "--timeout", "50ms"]), 7);
}

#[test]
fn a_user_who_has_no_daemon_gets_one_by_starting_an_app() {
    let (daemon, _) = site();
    let own = daemon.home.path().join("own");
    let own = own.to_str().expect("a UTF-8 path");
    let port = free_port();
    let address = format!("127.0.0.1:{port}");
    let started = daemon.ctl(&[
        "--home",
        own,
        "start",
        "server.py",
        "--name",
        "mine",
        "-i",
        "2",
        "--listen",
        &address,
        "--",
        "hello",
        "there",
    ]);
    let listed = daemon.ctl(&["--home", own, "ls", "--json"]);
    let answered = (started.code == Some(0)).then(|| crate::site::answer(port));
    let stopped = daemon.ctl(&["--home", own, "daemon", "stop"]);
    assert_code(&started, 0);
    assert_eq!(answered.as_deref(), Some("hello there"), "the arguments behind -- are the script's");
    let document: Value = listed.json();
    assert_eq!(document["apps"][0]["name"], "mine");
    assert_eq!(document["apps"][0]["ready"], 2);
    assert_code(&stopped, 0);
    assert_code(&daemon.ctl(&["--home", own, "ls"]), 6);
}

/// What a command prints on a terminal of 80 columns.
fn on_a_terminal(mut command: Command) -> String {
    let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
    let OpenptyResult { master, slave } = openpty(Some(&size), None).expect("a terminal");
    let mut child = command.stdin(Stdio::null()).stdout(slave).spawn().expect("agentctl starts");
    // Our copy of the terminal's other side, without which reading would not end.
    drop(command);
    let mut text = Vec::new();
    // The end of a terminal is an error.
    let _ = File::from(master).read_to_end(&mut text);
    assert!(child.wait().expect("it is our child").success());
    String::from_utf8(text).expect("UTF-8")
}

#[test]
fn tables_stay_within_eighty_columns() {
    let daemon = Daemon::start(AGENTD);
    let long = "a-name-that-is-rather-long-for-an-app-but-quite-allowed";
    daemon.config(
        "long.toml",
        &format!(
            "[agent.{long}]\ncommand = [\"sleep\", \"99\"]\nworkers = 3\n[agent.web]\ncommand = [\"sleep\", \"99\"]\n"
        ),
    );
    daemon.ctl_ok(&["start", "./long.toml"]);
    for command in [&["ls"] as &[&str], &["status", "web"]] {
        let text = on_a_terminal(daemon.agentctl(&[command, &["--color", "never"]].concat()));
        assert!(text.contains("web"), "{text}");
        for line in text.lines().map(str::trim_end) {
            assert!(line.chars().count() <= 80, "{} columns: {line}", line.chars().count());
        }
    }
}
