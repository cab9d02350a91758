//! No descriptors, no processes.

use std::process::Command;

use agentd_testkit::e2e::{Daemon, Home};

use crate::site::{AGENTD, is_root, serves, web};

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
    daemon.wait_until(crate::site::PATIENCE, |document| {
        document.apps[0].ready == 2 && document.apps[0].workers.len() == 2
    });
    assert!(serves(port));
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
    let document = daemon.wait_until(crate::site::PATIENCE, |document| {
        let mut workers = document.apps[0].workers.iter();
        workers.any(|worker| worker.why.as_ref().is_some_and(|why| why.contains("Resource temporarily unavailable")))
    });
    assert!(serves(port), "{document:#?}");
    limit("1000");
    daemon.wait_until(crate::site::PATIENCE, |document| document.apps[0].ready == 2);
}
