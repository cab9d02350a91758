//! New workers that are worse than the old ones: taken back, and nobody notices. And clients that are slow to come.

use std::io::{Read, Write};
use std::net::TcpStream;

use agentd_protocol::control::{OperationResult, OperationState};
use agentd_protocol::status::{AppView, WorkerState};
use agentd_testkit::e2e::{Class, Load, Mix, Outcome, Report};

use crate::fleet::{Fleet, PATIENCE, mix, next_exit, pids};

/// Reloads under load with a configuration that cannot serve: it is taken back, and costs nothing.
fn taken_back(fleet: &Fleet, before: &AppView) -> OperationResult {
    let (result, report) = taken_back_under(mix(), fleet, before);
    report.assert_none_lost_in_service();
    result
}

fn taken_back_under(mix: Mix, fleet: &Fleet, before: &AppView) -> (OperationResult, Report) {
    let mut taken_back = None;
    let report = Load::run(fleet.port, mix, || {
        let (output, result) = fleet.result_of(&["reload", "web"]);
        assert_eq!(output.code, Some(5), "{output:#?}");
        assert_eq!(result.state, OperationState::RolledBack);
        taken_back = Some(result);
    });
    // One more worker may serve what waited in a queue of those taken back, and goes then.
    let after = fleet.until(|app| app.workers.len() == before.workers.len() && app.deployment.is_none());
    assert_eq!(pids(&after), pids(before), "the same processes serve");
    let shares = |app: &AppView| app.workers.iter().map(|worker| worker.weight).collect::<Vec<_>>();
    assert_eq!(shares(&after), shares(before));
    assert!(after.workers.iter().all(|worker| worker.state == WorkerState::Ready), "{after:#?}");
    (taken_back.expect("the load ran to its end"), report)
}

#[test]
fn a_reload_whose_workers_never_get_ready_is_taken_back() {
    let fleet = Fleet::serving(&["serve"], "workers = 2");
    let before = fleet.app();
    fleet.listening(&["print=still loading", "hang"], "workers = 2\nready = { listening = true, timeout = \"4s\" }");
    let result = taken_back(&fleet, &before);
    assert!(result.why.as_ref().is_some_and(|why| why.contains("not ready in time")), "{result:#?}");
    assert_eq!(result.log_tail, ["still loading"]);
}

#[test]
fn a_reload_whose_workers_crash_before_they_are_ready_is_taken_back() {
    let fleet = Fleet::serving(&["serve"], "workers = 2");
    let before = fleet.app();
    fleet.listening(&["print=no model", "exit=3"], "workers = 2");
    let result = taken_back(&fleet, &before);
    assert!(result.why.as_ref().is_some_and(|why| why.contains('3')), "{result:#?}");
    assert_eq!(result.log_tail, ["no model"]);
}

#[test]
fn a_reload_to_a_command_that_is_not_there_is_taken_back() {
    let fleet = Fleet::serving(&["serve"], "");
    let before = fleet.app();
    fleet.commanded(&["no-such-program"], &format!("listen = \"127.0.0.1:{}\"", fleet.port));
    let result = taken_back(&fleet, &before);
    assert!(result.why.as_ref().is_some_and(|why| why.contains("no-such-program")), "{result:#?}");
}

#[test]
fn a_reload_whose_workers_get_ready_and_crash_while_they_are_watched_is_taken_back() {
    let fleet = Fleet::serving(&["serve"], "");
    let before = fleet.app();
    fleet.listening(&["crash-after=1", "serve"], "reload = { settle = \"20s\" }");
    let clients = Mix::fresh(3);
    let (result, report) = taken_back_under(clients, &fleet, &before);
    assert!(result.why.as_ref().is_some_and(|why| why.contains('7')), "{result:#?}");
    // What the crashed process had in its hands is gone with it; everything else was served by the others.
    let gap = report.count(Class::Fresh, Outcome::Refused) + report.count(Class::Fresh, Outcome::Timeout);
    assert!(gap == 0 && report.lost() <= 3, "{report}");
}

#[test]
fn a_worker_that_crashes_after_its_reload_is_restarted_by_policy() {
    let fleet = Fleet::serving(&["serve"], "");
    let file = fleet.file("crash");
    fleet.listening(&[&format!("crash-beside={}", file.display()), "serve"], "restart = { backoff = \"1s..1s\" }");
    fleet.daemon.ctl_ok(&["reload", "web"]);
    let (generation, pid) = (fleet.app().workers[0].generation, fleet.pid());
    let mut watch = fleet.daemon.watch();
    std::fs::write(&file, "").expect("the home can be written");
    assert_eq!(next_exit(&mut watch).code, Some(7));
    std::fs::remove_file(&file).expect("it was just written");
    let worker = fleet.worker_until(|worker| worker.restarts == 1 && worker.state == WorkerState::Ready);
    assert_eq!(worker.generation, generation);
    assert_ne!(worker.pid, Some(pid));
}

#[test]
fn an_app_that_binds_elsewhere_is_told_where_it_did() {
    let fleet = Fleet::serving(&["serve"], "");
    let before = fleet.app();
    let elsewhere = agentd_testkit::e2e::free_port();
    fleet.listening(&[&format!("bind={elsewhere}")], "ready = { listening = true, timeout = \"4s\" }");
    let result = taken_back(&fleet, &before);
    let named = format!("127.0.0.1:{elsewhere}");
    assert!(result.why.as_ref().is_some_and(|why| why.contains(&named)), "{result:#?}");
}

#[test]
fn a_client_whose_connection_is_being_made_when_a_reload_begins_is_served() {
    let fleet = Fleet::serving(&["defer", "serve"], "ready = { http = \"/\" }");
    let mut client = TcpStream::connect(("127.0.0.1", fleet.port)).expect("it listens");
    client.set_read_timeout(Some(PATIENCE)).expect("it is a socket");
    fleet.daemon.ctl_ok(&["reload", "web", "--no-wait"]);
    // It was steered to the old worker, in whose queue it is not yet.
    fleet.until(|app| app.workers.iter().any(|worker| worker.state == WorkerState::Draining));
    client.write_all(b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n").expect("connected");
    let mut answer = String::new();
    client.read_to_string(&mut answer).expect("an answer in time");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    fleet.until(|app| app.workers.len() == 1 && app.deployment.is_none());
}
