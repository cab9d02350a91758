//! The daemon ends in every way there is, systemd starts another, and nobody who uses the fleet can tell.

use crate::service::Service;
use crate::with_either_systemd;

with_either_systemd! {
    a_crash_a_restart_and_the_end_of_both_holders_cost_no_request_no_worker_and_no_line;
    a_daemon_that_hangs_is_ended_by_the_watchdog_and_another_takes_over;
    a_daemon_that_crashes_again_and_again_is_started_again_every_time;
    an_upgrade_in_place_is_the_same_service_and_both_holders_still_hold;
}

fn a_crash_a_restart_and_the_end_of_both_holders_cost_no_request_no_worker_and_no_line(service: Service) {
    let service = service.with_fleet();
    let workers = service.ready_workers();
    assert_eq!(workers.len(), 3);
    let machine = &service.machine;
    let report = service.under_load(|| {
        let first = service.main_pid();
        machine.ok(&["kill", "-9", &first.to_string()]);
        service.await_another_daemon(first);
        assert_eq!(service.ready_workers(), workers, "after a crash");

        let second = service.main_pid();
        machine.ok(&["systemctl", "restart", "agentd"]);
        service.await_another_daemon(second);
        assert_eq!(service.ready_workers(), workers, "after systemctl restart");

        let (third, keeper) = (service.main_pid(), service.keeper_pid());
        // In this order: a daemon that sees its keeper die starts another.
        machine.ok(&["kill", "-9", &third.to_string(), &keeper]);
        service.await_another_daemon(third);
        assert_eq!(service.ready_workers(), workers, "after the daemon and its keeper died together");

        let fourth = service.main_pid();
        machine.ok(&["kill", "-TERM", &fourth.to_string()]);
        service.await_another_daemon(fourth);
        assert_eq!(service.ready_workers(), workers, "after a signal that somebody sent by hand");
    });
    report.assert_none_lost();
    service.assert_no_line_lost();
    let journal = machine.journal();
    assert!(journal.contains("took over what systemd held and no keeper"), "{journal}");
    // The sockets are the same ones: a reload moves connections over as ever.
    let report = service.under_load(|| drop(machine.ok(&["agentctl", "reload", "web"])));
    report.assert_none_lost();
    assert_ne!(service.ready_workers(), workers);
}

fn a_daemon_that_hangs_is_ended_by_the_watchdog_and_another_takes_over(service: Service) {
    let service = service.with_fleet();
    service.drop_in("WatchdogSec=2\n");
    service.machine.ok(&["systemctl", "restart", "agentd"]);
    let workers = service.ready_workers();
    let hung = service.main_pid();
    let heard = || service.property("WatchdogTimestampMonotonic");
    for _ in 0..3 {
        let last = heard();
        service.until("another beat", || (heard() != last).then_some(()));
    }
    assert_eq!(service.main_pid(), hung, "a daemon that beats is left alone");
    let report = service.under_load(|| {
        service.machine.ok(&["kill", "-STOP", &hung.to_string()]);
        service.await_another_daemon(hung);
    });
    report.assert_none_lost();
    assert_eq!(service.ready_workers(), workers);
    let journal = service.machine.journal();
    let timeouts = journal.matches("Watchdog timeout (limit 2s)").count();
    assert_eq!(timeouts, 1, "the others were heard in time: {journal}");
}

fn a_daemon_that_crashes_again_and_again_is_started_again_every_time(service: Service) {
    let service = service.with_fleet();
    let workers = service.ready_workers();
    // systemd gives up after five starts in ten seconds, unless it is told not to.
    for _ in 0..8 {
        let daemon = service.main_pid();
        service.machine.ok(&["kill", "-9", &daemon.to_string()]);
        service.await_another_daemon(daemon);
    }
    assert_eq!(service.ready_workers(), workers);
    assert_eq!(service.property("ActiveState"), "active");
}

fn an_upgrade_in_place_is_the_same_service_and_both_holders_still_hold(service: Service) {
    let service = service.with_fleet();
    let workers = service.ready_workers();
    let machine = &service.machine;
    // One that has taken descriptors of systemd's: the numbers are others after the upgrade.
    let first = service.main_pid();
    machine.ok(&["kill", "-9", &first.to_string()]);
    service.await_another_daemon(first);
    let report = service.under_load(|| {
        let daemon = service.main_pid();
        let stored = service.property("NFileDescriptorStore");
        machine.ok(&["agentctl", "daemon", "upgrade"]);
        service.until("its sockets", || (machine.run(&["agentctl", "ls"]).code == Some(0)).then_some(()));
        assert_eq!(service.main_pid(), daemon, "the same process");
        assert_eq!(service.ready_workers(), workers);
        assert_eq!(service.property("NFileDescriptorStore"), stored);
        machine.ok(&["kill", "-9", &daemon.to_string(), &service.keeper_pid()]);
        service.await_another_daemon(daemon);
    });
    report.assert_none_lost();
    assert_eq!(service.ready_workers(), workers);
}
