//! The guides that need a machine which boots, typed as they stand.

use std::time::Instant;

use agentd_testkit::e2e::{Debian, Machine};

use crate::blocks::Block;
use crate::page::{Place, follow};

impl Place for Machine {
    fn write(&mut self, path: &str, text: &str) {
        Self::write(self, path, text);
    }

    fn type_in(&mut self, commands: &str) -> (bool, String) {
        let output = self.run(&["sh", "-exc", commands]);
        (output.code == Some(0), format!("{}{}", output.stdout, output.stderr))
    }

    fn has_package(&self, name: &str) -> String {
        format!("dpkg -s {name}")
    }
}

fn machine() -> Option<Machine> {
    let machine = Machine::boot(Debian::Twelve, env!("CARGO_BIN_EXE_agentd"))?;
    machine.write("/usr/local/bin/sudo", "#!/bin/sh\nexec \"$@\"\n");
    machine.ok(&["chmod", "755", "/usr/local/bin/sudo"]);
    Some(machine)
}

#[test]
fn a_fresh_machine_has_a_fastapi_agent_and_a_node_skill_as_a_service_by_the_guide_alone() {
    let Some(mut machine) = machine() else { return };
    let began = Instant::now();
    let page = include_str!("../../docs/guides/systemd.md");
    let followed = follow(&mut machine, "systemd.md", page, |machine, block: &Block| match block.info.as_str() {
        // The promise of the page, before its last block takes all away.
        "sh" => assert_serves_after_a_reboot(machine),
        // Has a test of its own, with a user and her session.
        "sh user" => {}
        other => panic!("line {}: what is {other:?}?", block.line),
    });
    assert!(followed.typed >= 7 && followed.written == 3, "{followed:?}");
    println!("the whole guide took {:?}", began.elapsed());
}

fn assert_serves_after_a_reboot(machine: &mut Machine) {
    machine.power_off();
    machine.power_on();
    let asked = "curl --retry 30 --retry-delay 0 --retry-all-errors --retry-max-time 30 -sf http://127.0.0.1";
    assert_eq!(machine.ok(&["sh", "-c", &format!("{asked}/")]), r#"{"from":"support"}"#);
    assert_eq!(machine.ok(&["sh", "-c", &format!("{asked}:8081/")]), r#"{"from":"search"}"#);
}

#[test]
fn a_service_of_plain_systemd_becomes_an_app_by_the_guide_alone() {
    let Some(mut machine) = machine() else { return };
    let page = include_str!("../../docs/guides/from-systemd.md");
    let followed = follow(&mut machine, "from-systemd.md", page, |_, block| {
        assert_eq!(block.info, "sh", "line {}", block.line);
    });
    assert!(followed.typed >= 3 && followed.written == 4, "{followed:?}");
}
