//! Commands that change an app while others use it.

use std::net::TcpStream;
use std::time::Instant;

use agentd_testkit::e2e::{Load, Mix, free_port};

use crate::site::{PATIENCE, answer, server, site};

#[test]
fn scaling_up_and_down_under_load_loses_nothing() {
    let (daemon, port) = site();
    let report = Load::run(port, Mix::fresh(3), || {
        for workers in ["5", "1", "3", "2"] {
            daemon.ctl_ok(&["scale", "web", workers]);
            assert_eq!(daemon.app("web").ready.to_string(), workers);
        }
    });
    report.assert_none_lost();
}

#[test]
fn a_restart_under_load_lets_connections_wait_and_refuses_none() {
    let (daemon, port) = site();
    let report = Load::run(port, Mix::fresh(3), || {
        for _ in 0..3 {
            daemon.ctl_ok(&["restart", "web"]);
        }
    });
    report.assert_none_lost();
}

#[test]
fn a_changed_configuration_is_applied_by_reload_and_not_before() {
    let (daemon, port) = site();
    daemon.config("web.toml", &(server("web", port) + "env = { ANSWER = \"new\" }\n"));
    assert_eq!(answer(port), "ok");
    let report = Load::run(port, Mix::fresh(2), || {
        daemon.ctl_ok(&["reload", "web"]);
    });
    report.assert_none_lost();
    assert_eq!(report.answers.keys().map(|body| body.trim()).collect::<Vec<_>>(), ["new", "ok"]);
    assert_eq!(answer(port), "new");
    let moved = free_port();
    daemon.config("web.toml", &server("web", moved));
    daemon.ctl_ok(&["reload", "web"]);
    assert_eq!(answer(moved), "ok");
    // The keeper lets go of its copies of the sockets a moment after the daemon.
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect(("127.0.0.1", port)).is_ok() {
        assert!(Instant::now() < deadline, "the old port is not given back");
    }
}
