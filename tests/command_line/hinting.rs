//! What a command says about a mistake that many make.

use std::time::{Duration, Instant};

use agentd_testkit::e2e::{Daemon, free_port};

use crate::site::{AGENTD, PATIENCE, site};

/// Runs `agentctl` until what it prints holds `wanted`.
fn await_shown(daemon: &Daemon, arguments: &[&str], wanted: &str) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let shown = daemon.ctl_ok(arguments).stdout;
        if shown.contains(wanted) {
            return shown;
        }
        assert!(Instant::now() < deadline, "{arguments:?} does not show {wanted:?}: {shown}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn two_workers_that_bind_one_port_are_told_of_the_socket_that_they_could_share() {
    let daemon = Daemon::start(AGENTD);
    let port = free_port();
    let own = format!("import socket, time\ns = socket.socket()\ns.bind(('127.0.0.1', {port}))\ntime.sleep(1000)\n");
    daemon.config("own.py", &own);
    daemon.ctl_ok(&["start", "./own.py", "-i", "2"]);
    let shown = await_shown(&daemon, &["ls"], "help: it binds its port itself");
    assert!(shown.contains("--listen 127.0.0.1:PORT") && shown.contains("{fd:http}"), "{shown}");
    let details = daemon.ctl_ok(&["describe", "own"]).stdout;
    assert!(details.contains("help ") && details.contains("Address already in use"), "{details}");
}

#[test]
fn a_stack_is_shown_from_the_line_that_says_what_happened() {
    let daemon = Daemon::start(AGENTD);
    let deep = "function f(n) { if (n) { f(n - 1); } else { throw new Error('the database is gone', { cause: new Error('refused') }); } }\n\
                Error.stackTraceLimit = 15;\nf(30);\n";
    daemon.config("deep.js", deep);
    daemon.config("deep.toml", "[agent.deep]\ncommand = [\"node\", \"deep.js\"]\nready = { log = \"never\" }\n");
    let failed = daemon.ctl(&["start", "./deep.toml"]);
    assert_eq!(failed.code, Some(1), "{failed:#?}");
    assert!(failed.stderr.contains("Error: the database is gone"), "{failed:#?}");
    assert!(failed.stderr.contains("or: agentctl delete deep"), "{failed:#?}");
    let details = await_shown(&daemon, &["describe", "deep"], "│ Node.js v");
    assert!(details.contains("Error: the database is gone"), "{details}");
    let all = daemon.ctl_ok(&["events"]).stdout;
    let few = daemon.ctl_ok(&["events", "-n", "3"]).stdout;
    assert!(all.lines().count() > 3 && few.lines().count() == 3, "{few}");
}

#[test]
fn a_stop_names_the_addresses_that_are_kept() {
    let (daemon, port) = site();
    let stopped = daemon.ctl_ok(&["stop", "web"]);
    let kept = format!("web keeps 127.0.0.1:{port}: connections wait there");
    assert!(stopped.stderr.contains(&kept), "{stopped:#?}");
}
