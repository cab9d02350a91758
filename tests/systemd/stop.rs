//! A stop drains every worker, takes as long as that takes, and leaves nothing; a start brings back what ran.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use agentd_testkit::e2e::{Load, Mix};

use crate::service::Service;
use crate::with_either_systemd;

with_either_systemd! {
    a_stop_finishes_what_is_in_hand_though_it_takes_longer_than_systemd_would_wait_and_leaves_nothing;
    a_start_after_a_stop_does_not_collide_with_its_own_past;
    a_daemon_that_was_asked_to_stop_everything_is_not_started_again;
    what_a_stop_in_the_middle_of_a_start_leaves_serves_on_until_a_start_and_a_stop;
}

fn a_stop_finishes_what_is_in_hand_though_it_takes_longer_than_systemd_would_wait_and_leaves_nothing(service: Service) {
    let service = service.with_fleet();
    service.drop_in("TimeoutStopSec=1\n");
    service.ready_workers();
    // One client, whose one task is under way when the stop comes.
    let mix =
        Mix { fresh: 0, keepalive: 0, long: 1, sse: 0, task: Duration::from_secs(6), requests: 1, ..Mix::default() };
    let (tell, took) = mpsc::channel();
    let report = service.machine.on_its_network(|| {
        Load::run(80, mix, || {
            service.until("a connection to port 80", || connected_to(80).then_some(()));
            let began = Instant::now();
            service.machine.ok(&["systemctl", "stop", "agentd"]);
            tell.send(began.elapsed()).expect("somebody waits");
        })
    });
    report.assert_none_lost();
    let took = took.recv().expect("it was sent");
    assert!(took > Duration::from_secs(3), "a stop of {took:?} awaited no task");
    assert_eq!(service.property("Result"), "success", "{}", service.machine.journal());
    assert_eq!(service.property("ActiveState"), "inactive");
    assert_eq!(service.property("NFileDescriptorStore"), "0");
    assert_eq!(service.left_over(), "");
}

/// Whether somebody is connected to the port, on this thread's network.
fn connected_to(port: u16) -> bool {
    const ESTABLISHED: &str = "01";
    let table = std::fs::read_to_string("/proc/thread-self/net/tcp").expect("/proc is there");
    table.lines().any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let local = fields.next().is_some_and(|local| local.ends_with(&format!(":{port:04X}")));
        local && fields.nth(1) == Some(ESTABLISHED)
    })
}

fn a_start_after_a_stop_does_not_collide_with_its_own_past(service: Service) {
    let service = service.with_fleet();
    for round in 0..3 {
        let before = service.ready_workers();
        service.machine.ok(&["systemctl", "stop", "agentd"]);
        assert_eq!(service.left_over(), "", "round {round}");
        service.machine.ok(&["systemctl", "start", "agentd"]);
        let after = service.ready_workers();
        assert_eq!(after.len(), before.len());
        assert!(after.values().all(|pid| !before.values().any(|old| old == pid)));
        service.under_load(|| drop(service.status())).assert_none_lost();
    }
    let journal = service.machine.journal();
    assert!(!journal.contains("in use") && !journal.contains("ERROR"), "{journal}");
}

/// systemd runs `ExecStop=` only of what had started: there is nobody whom it could ask to drain.
fn what_a_stop_in_the_middle_of_a_start_leaves_serves_on_until_a_start_and_a_stop(service: Service) {
    let service = service.with_fleet();
    let before = service.ready_workers();
    service.drop_in("ExecStart=\nExecStart=/bin/sh -c 'sleep 20; exec /usr/local/bin/agentd run'\n");
    service.machine.ok(&["systemctl", "restart", "--no-block", "agentd"]);
    service.until("a start", || (service.property("SubState") == "start").then_some(()));
    service.machine.ok(&["systemctl", "stop", "agentd"]);
    assert_eq!(service.property("ActiveState"), "inactive");
    service.under_load(|| ()).assert_none_lost();
    service.drop_in("");
    service.machine.ok(&["systemctl", "start", "agentd"]);
    assert_eq!(service.ready_workers(), before, "they are taken over");
    service.machine.ok(&["systemctl", "stop", "agentd"]);
    assert_eq!(service.left_over(), "");
}

fn a_daemon_that_was_asked_to_stop_everything_is_not_started_again(service: Service) {
    let service = service.with_fleet();
    service.ready_workers();
    service.machine.ok(&["agentctl", "daemon", "stop"]);
    let state = service.until("the unit's end", || {
        Some(service.property("ActiveState")).filter(|state| !matches!(state.as_str(), "active" | "deactivating"))
    });
    assert_eq!(state, "inactive", "{}", service.machine.journal());
    assert_eq!(service.left_over(), "");
    assert_eq!(service.property("NRestarts"), "0");
    // Whoever needs the daemon next has the service, not a daemon beside it.
    service.machine.ok(&["agentctl", "start", "web"]);
    assert_eq!(service.property("ActiveState"), "active");
}
