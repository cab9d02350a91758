//! Node servers.

use std::thread;
use std::time::{Duration, Instant};

use agentd_testkit::e2e::{Daemon, Mix, free_port};
use serde_json::{Value, json};

use crate::apps::{Sample, node_modules};

/// Longest wait for anything that takes milliseconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn node_that_dies_at_sigterm_loses_nothing() {
    let port = free_port();
    let config = format!("command = [\"node\", \"node_http.js\"]\nlisten = \"0.0.0.0:{port}\"\nworkers = 2");
    let sample = Sample::start("node:http", &config);
    sample.reload_under_load(3, port, Mix::default()).assert_none_lost_in_service();
}

#[test]
fn express_with_a_graceful_shutdown_loses_nothing() {
    let port = free_port();
    let config = format!(
        "command = [\"node\", \"express_app.js\"]\nlisten = \"127.0.0.1:{port}\"\nworkers = 2\n\
         env = {{ NODE_PATH = {:?} }}\nready = {{ http = \"/\" }}",
        node_modules()
    );
    let sample = Sample::start("express", &config);
    sample.reload_under_load(3, port, Mix::default()).assert_none_lost_in_service();
}

/// Hears the message and goes on; ends with 7 by the signal.
const DEAF: &str = "process.on('message', (said) => console.log(`heard ${said}`));\n\
    process.on('SIGTERM', () => { console.log('heard SIGTERM'); process.exit(7); });\n\
    process.send('ready');\n";

/// A daemon with Node programs that are told to end by the message first.
fn told_by_message(programs: &[(&str, &str)]) -> Daemon {
    let daemon = Daemon::start(env!("CARGO_BIN_EXE_agentd"));
    let mut config = String::new();
    for (name, program) in programs {
        std::fs::write(daemon.home.path().join(format!("{name}.js")), program).expect("the home is ours");
        config += &format!(
            "[agent.{name}]\ncommand = [\"node\", \"{name}.js\"]\nipc = \"node\"\nready = \"notify\"\n\
             stop = {{ message = true, timeout = \"6s\" }}\n"
        );
    }
    daemon.config("told.toml", &config);
    daemon.ctl_ok(&["start", "./told.toml"]);
    daemon
}

/// What the first process of an app exited with; none before it did.
fn exit_code(daemon: &Daemon, app: &str) -> Option<Value> {
    let events = daemon.ctl_ok(&["events", "--since", "0", "--json"]).stdout;
    let mut events = events.lines().map(|line| serde_json::from_str::<Value>(line).expect("an event"));
    let exit = events.find(|event| event["app"] == app && event["event"]["type"] == "worker_exited");
    exit.map(|exit| exit["event"]["code"].clone())
}

#[test]
fn a_node_worker_ends_by_the_message_and_gets_the_signal_as_well_where_it_does_not() {
    const POLITE: &str = "process.on('SIGTERM', () => process.exit(7));\n\
        process.on('message', (said) => said === 'shutdown' && process.exit(3));\n\
        process.send('ready');\n";
    let daemon = told_by_message(&[("polite", POLITE), ("deaf", DEAF)]);
    daemon.ctl_ok(&["stop", "polite", "deaf"]);
    for (name, code) in [("polite", 3), ("deaf", 7)] {
        assert_eq!(exit_code(&daemon, name), Some(json!(code)), "{name}");
    }
    let said = daemon.ctl_ok(&["logs", "deaf"]).stdout;
    let (message, signal) = (said.find("heard shutdown"), said.find("heard SIGTERM"));
    assert!(message.is_some() && message < signal, "the message came first: {said}");
}

#[test]
fn the_next_daemon_sends_the_signal_to_whoever_did_not_end_by_the_message_and_does_not_say_it_again() {
    let mut daemon = told_by_message(&[("deaf", DEAF)]);
    daemon.ctl_ok(&["stop", "deaf", "--no-wait"]);
    let deadline = Instant::now() + PATIENCE;
    while !daemon.ctl_ok(&["logs", "deaf"]).stdout.contains("heard shutdown") {
        assert!(Instant::now() < deadline, "it does not hear the message");
        thread::sleep(Duration::from_millis(10));
    }
    daemon.kill();
    daemon.start_again();
    while exit_code(&daemon, "deaf").is_none() {
        assert!(Instant::now() < deadline, "it does not end");
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(exit_code(&daemon, "deaf"), Some(json!(7)), "by the signal: it was not killed");
    assert_eq!(daemon.ctl_ok(&["logs", "deaf"]).stdout.matches("heard shutdown").count(), 1);
}
