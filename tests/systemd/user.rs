//! A service of one user.

use std::collections::BTreeSet;

use agentd_protocol::status::StatusDocument;
use agentd_testkit::e2e::Output;

use crate::service::{FLEET, Service};
use crate::with_either_systemd;

with_either_systemd! {
    a_users_service_survives_a_crash_drains_at_a_stop_and_comes_back_with_the_machine;
}

/// Runs a script as ada, as in a session of hers.
fn as_ada(service: &Service, script: &str) -> Output {
    let words = ["runuser", "-u", "ada", "--", "env", "HOME=/home/ada", "XDG_RUNTIME_DIR=/run/user/1000", "sh", "-ec"];
    service.machine.run(&[&words[..], &[script]].concat())
}

fn ok(service: &Service, script: &str) -> String {
    let output = as_ada(service, script);
    assert_eq!(output.code, Some(0), "{output:#?}");
    output.stdout.trim_end().to_owned()
}

fn workers(service: &Service) -> BTreeSet<u32> {
    let document: StatusDocument = serde_json::from_str(&ok(service, "agentctl status --json")).expect("a document");
    document.apps.into_iter().flat_map(|app| app.workers).filter_map(|worker| worker.pid).collect()
}

fn main_pid(service: &Service) -> String {
    ok(service, "systemctl --user show agentd --value --property MainPID")
}

fn a_users_service_survives_a_crash_drains_at_a_stop_and_comes_back_with_the_machine(mut service: Service) {
    service.machine.ok(&["useradd", "--uid", "1000", "--create-home", "ada"]);
    // She may not do it herself where no polkit asks who she is; startup says so and goes on.
    service.machine.ok(&["loginctl", "enable-linger", "ada"]);
    service
        .until("her systemd", || as_ada(&service, "systemctl --user is-system-running").code.filter(|&code| code == 0));
    let done = ok(&service, "agentctl startup");
    assert!(done.contains("wrote /home/ada/.config/systemd/user/agentd.service"), "{done}");
    assert_eq!(ok(&service, "agentctl startup"), "agentd is a service already, and runs; nothing to do");
    assert_eq!(ok(&service, "systemd-analyze --user verify ~/.config/systemd/user/agentd.service 2>&1"), "");

    service.machine.write("/srv/agents.toml", &FLEET.replace("127.0.0.1:80", "127.0.0.1:8080"));
    ok(&service, "agentctl start /srv/agents.toml");
    let before = workers(&service);
    assert_eq!(before.len(), 3);
    for end in ["kill -9 $(systemctl --user show agentd --value -p MainPID)", "systemctl --user restart agentd"] {
        let daemon = main_pid(&service);
        ok(&service, end);
        service.until("another daemon", || Some(main_pid(&service)).filter(|pid| *pid != "0" && *pid != daemon));
        service.until("its sockets", || as_ada(&service, "agentctl ls").code.filter(|&code| code == 0));
        assert_eq!(workers(&service), before, "after {end}");
    }

    service.machine.power_off();
    service.machine.power_on();
    service.machine.on_its_network(|| {
        service.until("an answer", || std::net::TcpStream::connect("127.0.0.1:8080").ok());
    });
    ok(&service, "agentctl startup --remove");
    assert_eq!(service.left_over(), "");
}
