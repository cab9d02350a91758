//! The machine goes down, in order or not, and what ran before runs again.

use std::time::Duration;

use crate::service::Service;
use crate::with_either_systemd;

with_either_systemd! {
    what_ran_before_a_shutdown_runs_after_the_boot_and_nothing_is_adopted_by_mistake;
    a_power_cut_forgets_neither_what_ran_nor_what_was_stopped;
}

/// From systemd's start of the unit to the first answer of a worker. The figure to reach is one second; a debug build beside
/// other tests is given more.
const SERVES_WITHIN: Duration = Duration::from_secs(5);

fn what_ran_before_a_shutdown_runs_after_the_boot_and_nothing_is_adopted_by_mistake(service: Service) {
    let mut service = service.with_fleet();
    let before = service.ready_workers();
    let boot = service.machine.ok(&["cat", "/proc/sys/kernel/random/boot_id"]);
    service.machine.power_off();
    service.machine.power_on();
    let serves = service.machine.on_its_network(|| {
        service.until("an answer on port 80", || std::net::TcpStream::connect("127.0.0.1:80").ok());
        monotonic()
    });
    assert_ne!(service.machine.ok(&["cat", "/proc/sys/kernel/random/boot_id"]), boot, "it is another boot");
    let began: u64 = service.property("InactiveExitTimestampMonotonic").parse().expect("microseconds");
    let took = serves.saturating_sub(Duration::from_micros(began));
    println!("from systemd's start of the unit to the first answer: {took:?}");
    assert!(took < SERVES_WITHIN, "{took:?}");
    assert_eq!(service.ready_workers().len(), before.len());
    let journal = service.machine.journal();
    assert!(!journal.contains("took over workers"), "{journal}");
    service.under_load(|| drop(service.status())).assert_none_lost();
}

fn a_power_cut_forgets_neither_what_ran_nor_what_was_stopped(service: Service) {
    let mut service = service.with_fleet();
    service.ready_workers();
    service.machine.ok(&["agentctl", "stop", "printer"]);
    service.machine.cut_power();
    service.machine.power_on();
    service.until("agentd", || (service.machine.run(&["agentctl", "ls"]).code == Some(0)).then_some(()));
    let workers = service.ready_workers();
    assert!(workers.len() == 2 && workers.keys().all(|id| id.starts_with("web.")), "{workers:?}");
    let known: Vec<String> = service.status().apps.into_iter().map(|app| app.name).collect();
    assert_eq!(known, ["printer", "web"], "what was stopped is known still");
    // Only who deletes the last app has an empty fleet.
    service.machine.ok(&["agentctl", "delete", "all"]);
    service.machine.cut_power();
    service.machine.power_on();
    service.until("agentd", || (service.machine.run(&["agentctl", "ls"]).code == Some(0)).then_some(()));
    assert!(service.status().apps.is_empty());
}

/// The clock that systemd's time stamps are of, which containers share.
fn monotonic() -> Duration {
    let now = sd_notify::NotifyState::monotonic_usec_now().expect("the clock").to_string();
    let us = now.trim().strip_prefix("MONOTONIC_USEC=").and_then(|us| us.parse().ok()).expect("microseconds");
    Duration::from_micros(us)
}
