//! `agentctl startup`: what it installs, what systemd says of it, and that it goes away again.

use agentd_testkit::e2e::Debian;

use crate::service::Service;
use crate::with_either_systemd;

with_either_systemd! {
    one_command_makes_it_a_service_a_second_one_changes_nothing_and_remove_leaves_none;
    systemd_finds_nothing_to_say_about_the_unit_and_not_too_much_exposed;
    the_daemon_and_its_workers_are_not_root_and_workers_have_none_of_its_privileges;
}

/// `systemd-analyze security` of the system's unit, in tenths: 0 is shut, 100 is wide open. What is left open is what agents
/// need: the network, their files, compilers, browsers with sandboxes of their own.
const EXPOSURE_MAX: &str = "50";

const UNIT: &str = "/etc/systemd/system/agentd.service";

fn one_command_makes_it_a_service_a_second_one_changes_nothing_and_remove_leaves_none(service: Service) {
    let machine = &service.machine;
    let planned = machine.ok(&["agentctl", "startup", "--dry-run"]);
    assert!(
        planned.starts_with("would make the user agentd\nwould write /etc/systemd/system/agentd.service\n"),
        "{planned}"
    );
    assert_ne!(machine.run(&["test", "-e", UNIT]).code, Some(0), "a dry run wrote it");

    let done = machine.ok(&["agentctl", "startup"]);
    for line in ["made the user agentd", "enabled agentd.service: it starts with the machine", "started agentd.service"]
    {
        assert!(done.contains(line), "{done}");
    }
    assert_eq!(service.property("ActiveState"), "active");
    assert_eq!(service.property("UnitFileState"), "enabled");
    assert_eq!(machine.ok(&["agentctl", "startup"]), "agentd is a service already, and runs; nothing to do");

    // Another unit file is not lost, and the running daemon is replaced without its workers.
    service.start("/etc/agentd/agents.toml", crate::service::FLEET);
    let workers = service.ready_workers();
    machine.ok(&["sh", "-c", &format!("echo '# mine' >>{UNIT}")]);
    let again = machine.ok(&["agentctl", "startup"]);
    assert!(again.contains("kept what was there as /etc/systemd/system/agentd.service.old"), "{again}");
    assert_eq!(service.ready_workers(), workers);

    let other = machine.run(&["agentctl", "startup", "--as", "root"]);
    assert_eq!(other.code, Some(4), "{other:#?}");
    assert!(other.stderr.contains("systemctl stop agentd"), "{other:#?}");

    let removed = machine.ok(&["agentctl", "startup", "--remove"]);
    assert!(removed.contains("left as they are: the apps in /var/lib/agentd"), "{removed}");
    assert_ne!(machine.run(&["test", "-e", UNIT]).code, Some(0));
    assert_eq!(service.left_over(), "");
    assert_eq!(machine.ok(&["agentctl", "startup", "--remove"]), "agentd is no service here; nothing to do");

    // What ran runs again when it is made a service once more.
    machine.ok(&["agentctl", "startup"]);
    assert_eq!(service.ready_workers().len(), workers.len());
}

fn systemd_finds_nothing_to_say_about_the_unit_and_not_too_much_exposed(service: Service) {
    let machine = &service.machine;
    machine.ok(&["agentctl", "startup"]);
    let verified = machine.run(&["systemd-analyze", "verify", UNIT]);
    // It ends with 0 on unknown keys: what counts is that it prints nothing.
    assert_eq!((verified.code, verified.stdout.as_str(), verified.stderr.as_str()), (Some(0), "", ""));
    let threshold = format!("--threshold={EXPOSURE_MAX}");
    let judged = machine.run(&["systemd-analyze", "security", "--no-pager", "--offline=true", &threshold, UNIT]);
    assert_eq!(judged.code, Some(0), "{}", judged.stdout);
    assert_eq!(service.property("OOMPolicy"), "continue");
}

fn the_daemon_and_its_workers_are_not_root_and_workers_have_none_of_its_privileges(service: Service) {
    let service = service.with_fleet();
    let workers = service.ready_workers();
    let read = |pid: u32, file: &str| service.machine.ok(&["cat", &format!("/proc/{pid}/{file}")]);
    let user = service.machine.ok(&["id", "-u", "agentd"]);
    let daemon = service.main_pid();
    assert_eq!(service.machine.ok(&["stat", "-c", "%U", &format!("/proc/{daemon}")]), "agentd");
    // Lowering it needs CAP_SYS_RESOURCE, which systemd does without where it has not.
    assert!(["-500", "0"].contains(&read(daemon, "oom_score_adj").as_str()));
    for &pid in workers.values() {
        let status = read(pid, "status");
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim();
        assert!(field("Uid:").split_whitespace().all(|uid| uid == user), "{status}");
        for set in ["CapPrm:", "CapEff:", "CapAmb:"] {
            assert_eq!(field(set), "0000000000000000", "{set} {status}");
        }
        assert_eq!(read(pid, "oom_score_adj"), "0");
    }
}

#[test]
fn startup_says_what_to_do_where_it_can_do_nothing() {
    let Some(service) = Service::fresh(Debian::Thirteen) else { return };
    let machine = &service.machine;
    machine.ok(&["useradd", "--create-home", "ada"]);
    let refused = machine.run(&["runuser", "-u", "ada", "--", "agentctl", "startup", "--system"]);
    assert_eq!(refused.code, Some(4), "{refused:#?}");
    assert!(refused.stderr.contains("sudo /usr/local/bin/agentctl startup --system"), "{refused:#?}");
    // Programs where the service's user cannot go.
    machine.ok(&["sh", "-c", "mkdir -m 700 /root/bin && cp /usr/local/bin/agent* /root/bin/"]);
    let barred = machine.run(&["/root/bin/agentctl", "startup"]);
    assert_eq!(barred.code, Some(4), "{barred:#?}");
    assert!(barred.stderr.contains("/root") && barred.stderr.contains("install -m 755"), "{barred:#?}");
    // A daemon that somebody started by hand.
    machine.ok(&["agentctl", "daemon", "start"]);
    let runs = machine.run(&["agentctl", "startup"]);
    assert_eq!(runs.code, Some(4), "{runs:#?}");
    assert!(runs.stderr.contains("agentctl daemon stop"), "{runs:#?}");
    machine.ok(&["agentctl", "daemon", "stop"]);
    machine.ok(&["agentctl", "startup"]);
    // Nobody's systemd.
    let elsewhere = machine.run(&["unshare", "--mount", "sh", "-c", "mount -t tmpfs none /run && agentctl startup"]);
    assert_eq!(elsewhere.code, Some(1), "{elsewhere:#?}");
    assert!(
        elsewhere.stderr.contains("systemd does not run here") && elsewhere.stderr.contains("agentd run"),
        "{elsewhere:#?}"
    );
}
