//! A service of one user.

use std::time::Duration;

use crate::service::{FLEET, Service};
use crate::with_either_systemd;

with_either_systemd! {
    a_users_service_survives_a_crash_drains_at_a_stop_and_comes_back_with_the_machine;
}

/// Runs a script as ada, as in a session of hers.
fn as_ada(service: &Service, script: &str) -> String {
    let words = ["runuser", "-u", "ada", "--", "env", "HOME=/home/ada", "XDG_RUNTIME_DIR=/run/user/1000", "sh", "-ec"];
    service.machine.ok(&[&words[..], &[script]].concat())
}

fn a_users_service_survives_a_crash_drains_at_a_stop_and_comes_back_with_the_machine(mut service: Service) {
    service.machine.ok(&["useradd", "--uid", "1000", "--create-home", "ada"]);
    service.machine.ok(&["loginctl", "enable-linger", "ada"]);
    service.until("her systemd", || {
        service.machine.run(&["test", "-S", "/run/user/1000/systemd/private"]).code.filter(|&code| code == 0)
    });
    let done = as_ada(&service, "agentctl startup");
    assert!(done.contains("wrote /home/ada/.config/systemd/user/agentd.service"), "{done}");
    let said = as_ada(&service, "systemd-analyze --user verify ~/.config/systemd/user/agentd.service 2>&1");
    assert_eq!(said, "");
    service.machine.write("/srv/agents.toml", &FLEET.replace("127.0.0.1:80", "127.0.0.1:8080"));
    as_ada(&service, "agentctl start /srv/agents.toml");
    let pids = "agentctl status --json | tr ',' '\\n' | grep '\"pid\"' | tr -dc '0-9\\n' | sort";
    let workers = as_ada(&service, pids);
    assert_eq!(workers.lines().count(), 3, "{workers}");
    let main = || as_ada(&service, "systemctl --user show agentd --value --property MainPID");
    for end in
        ["kill -9 \"$(systemctl --user show agentd --value --property MainPID)\"", "systemctl --user restart agentd"]
    {
        let daemon = main();
        as_ada(&service, end);
        service.until("another daemon", || Some(main()).filter(|pid| *pid != "0" && *pid != daemon));
        service.until("its sockets", || {
            let words = ["runuser", "-u", "ada", "--", "env", "XDG_RUNTIME_DIR=/run/user/1000", "agentctl", "ls"];
            service.machine.run(&words).code.filter(|&code| code == 0)
        });
        assert_eq!(as_ada(&service, pids), workers, "after {end}");
    }
    service.machine.power_off();
    service.machine.power_on();
    let answered = |port: u16| {
        service
            .machine
            .on_its_network(|| service.until("an answer", || std::net::TcpStream::connect(("127.0.0.1", port)).ok()))
    };
    let stream = answered(8080);
    stream.set_read_timeout(Some(Duration::from_secs(1))).expect("a time");
    drop(stream);
    as_ada(&service, "agentctl startup --remove");
    assert_eq!(service.left_over(), "");
}
