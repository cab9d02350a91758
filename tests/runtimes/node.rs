//! Node servers.

use agentd_testkit::e2e::{Daemon, Mix, free_port};
use serde_json::Value;

use crate::apps::{Sample, node_modules};

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

#[test]
fn a_node_worker_ends_by_the_message_and_gets_the_signal_as_well_where_it_does_not() {
    const POLITE: &str = "process.on('SIGTERM', () => process.exit(7));\n\
        process.on('message', (said) => said === 'shutdown' && process.exit(3));\n\
        process.send('ready');\n";
    const DEAF: &str = "process.on('message', (said) => console.log(`heard ${said}`));\n\
        process.on('SIGTERM', () => { console.log('heard SIGTERM'); process.exit(7); });\n\
        process.send('ready');\n";
    let daemon = Daemon::start(env!("CARGO_BIN_EXE_agentd"));
    let mut config = String::new();
    for (name, program) in [("polite", POLITE), ("deaf", DEAF)] {
        std::fs::write(daemon.home.path().join(format!("{name}.js")), program).expect("the home is ours");
        config += &format!(
            "[agent.{name}]\ncommand = [\"node\", \"{name}.js\"]\nipc = \"node\"\nready = \"notify\"\n\
             stop = {{ message = true, timeout = \"4s\" }}\n"
        );
    }
    daemon.config("both.toml", &config);
    daemon.ctl_ok(&["start", "./both.toml"]);
    daemon.ctl_ok(&["stop", "polite", "deaf"]);
    let events = daemon.ctl_ok(&["events", "--since", "0", "--json"]).stdout;
    let events: Vec<Value> = events.lines().map(|line| serde_json::from_str(line).expect("an event")).collect();
    for (name, code) in [("polite", 3), ("deaf", 7)] {
        let mut exits = events.iter().filter(|event| event["app"] == name && event["event"]["type"] == "worker_exited");
        assert_eq!(exits.next().expect("it ended")["event"]["code"], code, "{name}: {events:?}");
    }
    let said = daemon.ctl_ok(&["logs", "deaf"]).stdout;
    let (message, signal) = (said.find("heard shutdown"), said.find("heard SIGTERM"));
    assert!(message.is_some() && message < signal, "the message came first: {said}");
}
