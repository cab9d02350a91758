//! `systemctl reload`: configuration files are read again, what changed is reloaded, and a mistake changes nothing.

use agentd_testkit::e2e::Debian;

use crate::service::{FLEET, Service};
use crate::with_either_systemd;

with_either_systemd! {
    a_reload_replaces_the_workers_of_changed_apps_only;
    a_reload_with_a_mistake_fails_names_its_line_and_changes_nothing;
}

fn a_reload_replaces_the_workers_of_changed_apps_only(service: Service) {
    let service = service.with_fleet();
    let before = service.ready_workers();
    service.machine.ok(&["systemctl", "reload", "agentd"]);
    assert_eq!(service.ready_workers(), before, "nothing had changed");
    service.machine.write("/etc/agentd/agents.toml", &FLEET.replace("workers = 2", "workers = 3"));
    let report = service.under_load(|| {
        service.machine.ok(&["systemctl", "reload", "agentd"]);
        service.until("a third worker of the new configuration", || {
            let web = service.status().apps.into_iter().find(|app| app.name == "web")?;
            let all = web.workers.len() == 3 && web.workers.iter().all(|worker| worker.generation == 2);
            all.then_some(())
        });
    });
    report.assert_none_lost();
    let after = service.ready_workers();
    assert_eq!(after.len(), 4);
    assert_eq!(after["printer.0.1"], before["printer.0.1"], "its configuration is the same");
}

fn a_reload_with_a_mistake_fails_names_its_line_and_changes_nothing(service: Service) {
    let service = service.with_fleet();
    let before = service.ready_workers();
    service.machine.write("/etc/agentd/agents.toml", &FLEET.replace("workers = 2", "workers = -2"));
    let reload = service.machine.run(&["systemctl", "reload", "agentd"]);
    assert_ne!(reload.code, Some(0));
    assert_eq!(service.property("ActiveState"), "active");
    assert_eq!(service.ready_workers(), before);
    let journal = service.machine.journal();
    assert!(journal.contains("/etc/agentd/agents.toml:5"), "{journal}");
}

/// `RELOADING=1` with systemd's clock, as `Type=notify-reload` wants it, which 252 does not know.
#[test]
fn a_unit_of_type_notify_reload_is_told_when_the_files_were_read() {
    let Some(service) = Service::fresh(Debian::Thirteen) else { return };
    let service = service.with_fleet();
    service.drop_in("Type=notify-reload\nExecReload=\n");
    service.machine.ok(&["systemctl", "restart", "agentd"]);
    service.machine.ok(&["systemctl", "reload", "agentd"]);
    assert_eq!(service.property("ActiveState"), "active");
    let journal = service.machine.journal();
    assert!(journal.contains("Reloaded agentd.service") && journal.contains("SIGHUP"), "{journal}");
}
