//! No descriptors, no processes.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::{Duration, Instant};

use agentd_testkit::e2e::{Daemon, Home};

use crate::site::{AGENTD, PATIENCE, is_root, serves, web};

#[test]
fn without_descriptors_starts_fail_with_the_reason_and_what_serves_goes_on() {
    let home = Home::new();
    let port = web(&home, "restart = { backoff = \"100ms..500ms\", max = \"1000 in 1m\" }");
    let daemon = Daemon::start_by(AGENTD, home, &["prlimit", "--nofile=128:128"]);
    daemon.ctl_ok(&["start", "./web.toml"]);
    let output = daemon.ctl(&["scale", "web", "60", "--timeout", "5s"]);
    assert_ne!(output.code, Some(0), "{output:#?}");
    assert!(serves(port));
    let why: Vec<String> = daemon.app("web").workers.into_iter().filter_map(|worker| worker.why).collect();
    assert!(why.iter().any(|why| why.contains("files that the daemon may open are in use")), "{why:?}");
    // Fewer are wanted: all is well again, without a restart of anything.
    drop(daemon.ctl(&["scale", "web", "2", "--timeout", "30s"]));
    daemon.wait_until(PATIENCE, |document| document.apps[0].ready == 2 && document.apps[0].workers.len() == 2);
    assert!(serves(port));
}

#[test]
fn a_worker_that_could_not_be_told_to_end_for_want_of_descriptors_is_told_when_there_are_some() {
    let home = Home::new();
    web(&home, "grace = { default = \"1s\", min = \"1s\", max = \"1s\" }\nstop = { timeout = \"1m\" }");
    let daemon = Daemon::start_in(AGENTD, home);
    daemon.ctl_ok(&["start", "./web.toml"]);
    let pid = daemon.pid().to_string();
    let limit = |soft: &str| {
        let status = Command::new("prlimit").args(["--pid", &pid, &format!("--nofile={soft}:")]).status();
        assert!(status.expect("prlimit runs").success());
    };
    // A client that is heard already needs no descriptor more.
    let client = UnixStream::connect(daemon.home.socket("control.sock")).expect("the daemon listens");
    let ask = |call: &str| (&client).write_all(format!("{call}\n").as_bytes()).expect("the daemon reads");
    ask(r#"{"jsonrpc":"2.0","id":1,"method":"daemon.status","params":null}"#);
    BufReader::new(&client).read_line(&mut String::new()).expect("the daemon answers");
    limit("3");
    ask(r#"{"jsonrpc":"2.0","id":2,"method":"stop","params":{"names":["web"]}}"#);
    let deadline = Instant::now() + PATIENCE;
    while !daemon.log().contains("it is told again") {
        assert!(Instant::now() < deadline, "{}", daemon.log());
        std::thread::sleep(Duration::from_millis(10));
    }
    limit("1024");
    daemon.wait_until(PATIENCE, |document| document.apps[0].workers.iter().all(|worker| worker.pid.is_none()));
    assert!(daemon.log().contains("exit=killed by SIGTERM"), "{}", daemon.log());
}

#[test]
fn without_processes_a_start_fails_with_the_reason_and_comes_when_there_is_room() {
    if !is_root() {
        return;
    }
    let home = Home::new();
    let port = web(&home, "restart = { backoff = \"100ms..300ms\", max = \"1000 in 1m\" }");
    // A user that nobody else is: all its processes count.
    let user = (2_100_000_000 + std::process::id()).to_string();
    std::os::unix::fs::chown(home.path(), user.parse().ok(), None).expect("root gives");
    let by = ["setpriv", "--reuid", &user, "--regid", &user, "--clear-groups"];
    let daemon = Daemon::start_by(AGENTD, home, &by);
    daemon.ctl_ok(&["start", "./web.toml"]);
    let pid = daemon.pid().to_string();
    let limit = |soft: &str| {
        let mut command = Command::new("setpriv");
        command.args(&by[1..]).args(["prlimit", "--pid", &pid, &format!("--nproc={soft}:")]);
        let status = command.status();
        assert!(status.expect("prlimit runs").success());
    };
    limit("1");
    let output = daemon.ctl(&["scale", "web", "2", "--timeout", "3s"]);
    assert_ne!(output.code, Some(0), "{output:#?}");
    let document = daemon.wait_until(PATIENCE, |document| {
        let mut workers = document.apps[0].workers.iter();
        workers.any(|worker| worker.why.as_ref().is_some_and(|why| why.contains("Resource temporarily unavailable")))
    });
    assert!(serves(port), "{document:#?}");
    limit("1000");
    daemon.wait_until(PATIENCE, |document| document.apps[0].ready == 2);
}
