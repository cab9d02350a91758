//! A daemon that is not root: no cgroup holds its workers, and the kernel may refuse it what it may do as root. Run as
//! root these tests start theirs as another user; run by anybody else every test of this binary is one of these.

use std::os::unix::fs::{MetadataExt, chown};
use std::time::Duration;

use agentd_testkit::e2e::{Daemon, Home, Load, Mix};
use nix::unistd::geteuid;

use crate::{AGENTD, PATIENCE, all_ready, fleet_of, pids, workers};

/// The user that owns nothing.
const NOBODY: u32 = 65534;

fn daemon_of_nobody() -> Daemon {
    if !geteuid().is_root() {
        return Daemon::start(AGENTD);
    }
    let home = Home::new();
    chown(home.path(), Some(NOBODY), Some(NOBODY)).expect("root gives");
    let id = NOBODY.to_string();
    let daemon = Daemon::start_by(AGENTD, home, &["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups"]);
    let owner = std::fs::metadata(format!("/proc/{}", daemon.pid())).expect("it runs").uid();
    assert_eq!(owner, NOBODY);
    daemon
}

#[test]
fn kill_nine_of_a_daemon_without_privileges_costs_no_request_no_worker_and_no_line() {
    let (mut daemon, port) = fleet_of(daemon_of_nobody());
    let before = pids(&daemon.status());
    let report = Load::run(port, Mix { long: 0, sse: 0, ..Mix::default() }, || {
        for _ in 0..3 {
            daemon.kill();
            daemon.start_again();
            assert_eq!(pids(&daemon.wait_until(PATIENCE, all_ready)), before, "the same processes serve");
            daemon.ctl_ok(&["daemon", "upgrade"]);
        }
    });
    report.assert_none_lost_in_service();
    assert!(daemon.log().contains("contained by process group, not by cgroup") || !geteuid().is_root());
    workers::kill_nine(daemon.app("web").workers[0].pid.expect("it runs"));
    let document = daemon.wait_until(PATIENCE, |document| {
        all_ready(document) && document.apps.iter().any(|app| app.workers.iter().any(|worker| worker.restarts == 1))
    });
    let exit = document.apps.iter().flat_map(|app| &app.workers).find_map(|worker| worker.last_exit.clone());
    assert_eq!(exit.expect("an end was seen").signal.as_deref(), Some("SIGKILL"), "it is no child of this daemon");
    daemon.ctl_ok(&["stop", "printer"]);
    workers::numbers_without_gap(&daemon.ctl_ok(&["logs", "printer", "-n", "100000", "--json"]).stdout);
}

#[test]
fn with_the_keeper_alive_nothing_is_asked_that_yama_could_refuse() {
    let (mut daemon, port) = fleet_of(daemon_of_nobody());
    let before = pids(&daemon.status());
    let report = Load::run(port, Mix { long: 0, sse: 0, ..Mix::default() }, || {
        daemon.kill();
        // As Yama's ptrace_scope 1 does for who is not root.
        assert!(!daemon.start_doomed("getfd:denied", Duration::from_millis(200)), "it lives");
        daemon.wait_until(PATIENCE, |document| all_ready(document) && pids(document) == before);
        daemon.ctl_ok(&["reload", "web"]);
    });
    report.assert_none_lost_in_service();
    let web = daemon.app("web").workers;
    assert!(web.iter().all(|worker| worker.pid.is_some_and(|pid| !before.contains(&pid))), "it could be reloaded");
}

#[test]
fn what_it_left_running_is_found_without_cgroups() {
    let (mut daemon, _) = fleet_of(daemon_of_nobody());
    let config = daemon.config(
        "parent.toml",
        "[agent.parent]\ncommand = [\"sh\", \"-c\", \"setsid sleep 4321 & sleep 1000\"]\nrestart = { policy = \"never\" }\n",
    );
    daemon.ctl_ok(&["start", config.to_str().expect("a UTF-8 path")]);
    let escaped = |daemon: &Daemon| {
        let marked = agentd_testkit::e2e::processes_with("AGENTD_INSTANCE", daemon.instance());
        let is_it = |pid: &u32| {
            std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|command| command == b"sleep\x004321\x00")
        };
        marked.into_iter().find(is_it)
    };
    workers::until(PATIENCE, || escaped(&daemon).is_some());
    let parent = daemon.app("parent").workers[0].pid.expect("it runs");
    daemon.kill();
    workers::kill_nine(parent);
    assert!(escaped(&daemon).is_some(), "it has its own session, and lives");
    daemon.start_again();
    workers::until(PATIENCE, || escaped(&daemon).is_none());
}
