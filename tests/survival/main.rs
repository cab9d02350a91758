//! The supervisor dies in every way there is, and nobody who uses what it supervises can tell.
//!
//! Real workers: Python programs of the standard library alone, so that this runs wherever python3 is.

mod boot;
mod born;
mod both;
mod chaos;
mod keeper;
mod skew;
mod store;
mod strays;
mod told;
mod unprivileged;
mod upgrade;
mod workers;
mod yama;

use std::collections::BTreeSet;
use std::time::Duration;

use agentd_protocol::status::{StatusDocument, WorkerState};
use agentd_testkit::e2e::{Daemon, Load, Mix, free_port};

use workers::{PRINTER, SERVER, numbers_without_gap};

const AGENTD: &str = env!("CARGO_BIN_EXE_agentd");
/// Longest wait for anything that takes milliseconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A daemon that runs two servers on a port and a program that prints numbers.
fn fleet() -> (Daemon, u16) {
    fleet_of(Daemon::start(AGENTD))
}

/// The same under this daemon.
fn fleet_of(daemon: Daemon) -> (Daemon, u16) {
    let port = free_port();
    daemon.config("server.py", SERVER);
    daemon.config("printer.py", PRINTER);
    let config = daemon.config(
        "fleet.toml",
        &format!(
            "[agent.web]\ncommand = [\"python3\", \"server.py\"]\nworkers = 2\nlisten = \"127.0.0.1:{port}\"\n\
             [agent.printer]\ncommand = [\"python3\", \"-u\", \"printer.py\"]\n"
        ),
    );
    daemon.ctl_ok(&["start", config.to_str().expect("a UTF-8 path")]);
    (daemon, port)
}

fn pids(document: &StatusDocument) -> BTreeSet<u32> {
    document.apps.iter().flat_map(|app| &app.workers).filter_map(|worker| worker.pid).collect()
}

fn all_ready(document: &StatusDocument) -> bool {
    document.apps.iter().all(|app| app.ready == app.desired && app.deployment.is_none())
}

#[test]
fn kill_nine_in_a_loop_under_load_costs_no_request_no_worker_and_no_line() {
    let (mut daemon, port) = fleet();
    let before = pids(&daemon.status());
    assert_eq!(before.len(), 3);
    let report = Load::run(port, Mix::default(), || {
        for _ in 0..8 {
            daemon.kill();
            daemon.start_again();
            let document = daemon.wait_until(PATIENCE, all_ready);
            assert_eq!(pids(&document), before, "the same processes serve");
        }
    });
    report.assert_none_lost_in_service();
    daemon.ctl_ok(&["stop", "printer"]);
    let printed = daemon.ctl_ok(&["logs", "printer", "-n", "100000", "--json"]);
    numbers_without_gap(&printed.stdout);
}

#[test]
fn a_reload_goes_on_under_the_next_supervisor() {
    let (mut daemon, port) = fleet();
    let old = pids(&daemon.status());
    // Connections that are kept alive are another matter: these servers do not cooperate.
    let report = Load::run(port, Mix { keepalive: 0, long: 0, sse: 0, fresh: 4, ..Mix::default() }, || {
        for _ in 0..4 {
            daemon.ctl_ok(&["reload", "web", "--no-wait"]);
            daemon.kill();
            daemon.start_again();
            daemon.wait_until(PATIENCE, all_ready);
        }
    });
    report.assert_none_lost_in_service();
    let document = daemon.status();
    let web = document.apps.iter().find(|app| app.name == "web").expect("it is there");
    assert_eq!(web.workers.len(), 2, "nothing of the deployment is left over");
    assert!(web.workers.iter().all(|worker| worker.generation == 5 && worker.state == WorkerState::Ready));
    assert!(web.workers.iter().all(|worker| !old.contains(&worker.pid.unwrap_or(0))));
}

#[test]
fn sigterm_leaves_the_workers_to_the_next_daemon() {
    let (mut daemon, port) = fleet();
    let before = pids(&daemon.status());
    let report = Load::run(port, Mix { long: 0, sse: 0, ..Mix::default() }, || {
        for _ in 0..3 {
            daemon.terminate();
            assert_eq!(daemon.await_end(PATIENCE), None, "it ends by the signal");
            daemon.start_again();
            assert_eq!(pids(&daemon.wait_until(PATIENCE, all_ready)), before);
        }
    });
    report.assert_none_lost_in_service();
}

#[test]
fn a_worker_that_died_meanwhile_is_replaced_and_its_last_words_are_in_its_log() {
    let (mut daemon, _) = fleet();
    let printer = daemon.app("printer").workers[0].pid.expect("it runs");
    daemon.kill();
    workers::kill_nine(printer);
    daemon.start_again();
    let document = daemon.wait_until(PATIENCE, |document| {
        all_ready(document) && document.apps.iter().any(|app| app.workers.iter().any(|worker| worker.restarts == 1))
    });
    let now = document.apps.iter().find(|app| app.name == "printer").expect("it is there").workers[0].pid;
    assert_ne!(now, Some(printer));
}

#[test]
fn an_adopted_worker_that_crashes_is_restarted_with_its_true_exit() {
    let (mut daemon, _) = fleet();
    daemon.kill();
    daemon.start_again();
    let worker = daemon.wait_until(PATIENCE, all_ready);
    let web = worker.apps.iter().find(|app| app.name == "web").expect("it is there");
    workers::kill_nine(web.workers[0].pid.expect("it runs"));
    let document = daemon.wait_until(PATIENCE, |document| {
        all_ready(document) && document.apps.iter().any(|app| app.workers.iter().any(|worker| worker.restarts == 1))
    });
    let exit = document.apps.iter().flat_map(|app| &app.workers).find_map(|worker| worker.last_exit.clone());
    assert_eq!(exit.expect("an end was seen").signal.as_deref(), Some("SIGKILL"));
}

#[test]
fn stopping_the_daemon_leaves_nothing_and_the_next_start_brings_back_what_ran() {
    let (mut daemon, port) = fleet();
    daemon.ctl_ok(&["stop", "printer"]);
    daemon.ctl_ok(&["daemon", "stop"]);
    assert_eq!(daemon.await_end(PATIENCE), Some(0));
    assert!(daemon.processes().is_empty(), "workers outlived a stop");
    daemon.start_again();
    let document =
        daemon.wait_until(PATIENCE, |document| document.apps.iter().any(|app| app.name == "web" && app.ready == 2));
    let printer = document.apps.iter().find(|app| app.name == "printer").expect("it is known");
    assert_eq!(printer.desired, 0, "what was stopped stays stopped");
    Load::run(port, Mix::fresh(1), || {}).assert_none_lost();
}
