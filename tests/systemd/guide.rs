//! docs/guides/systemd.md, typed as it stands.

#[path = "../docs/blocks.rs"]
mod blocks;

use std::time::Instant;

use agentd_testkit::e2e::{Debian, Machine};

use blocks::blocks;

const GUIDE: &str = include_str!("../../docs/guides/systemd.md");

/// What a command of the "prepared" blocks would have done is there.
fn assert_prepared(machine: &Machine, command: &str) {
    let words: Vec<&str> = command.split_whitespace().skip_while(|word| *word == "sudo").collect();
    match words.as_slice() {
        ["apt-get", "install", "-y", packages @ ..] => {
            drop(machine.ok(&[&["dpkg", "-s"][..], packages].concat()));
        }
        ["install", "-m", "755", programs @ .., folder] => {
            for program in programs {
                let name = program.rsplit('/').next().unwrap_or(program);
                machine.ok(&["test", "-x", &format!("{folder}{name}")]);
            }
        }
        other => panic!("how is {other:?} prepared?"),
    }
}

#[test]
fn a_fresh_machine_has_a_fastapi_agent_and_a_node_skill_as_a_service_by_the_guide_alone() {
    let Some(mut machine) = Machine::boot(Debian::Twelve, env!("CARGO_BIN_EXE_agentd")) else { return };
    machine.write("/usr/local/bin/sudo", "#!/bin/sh\nexec \"$@\"\n");
    machine.ok(&["chmod", "755", "/usr/local/bin/sudo"]);
    let began = Instant::now();
    let (mut typed, mut written) = (0, 0);
    let found = blocks(GUIDE);
    let last = found.iter().rposition(|block| block.info == "sh").expect("it ends with a command");
    for (number, block) in found.iter().enumerate() {
        match block.info.split_once(' ') {
            None if block.info == "sh" => {
                if number == last {
                    // The promise of the page, before it takes all away.
                    assert_serves_after_a_reboot(&mut machine);
                }
                machine.ok(&["sh", "-exc", &block.text]);
                typed += 1;
            }
            Some(("sh", "prepared")) => block.text.lines().for_each(|line| assert_prepared(&machine, line)),
            // Has a test of its own, with a user and her session.
            Some(("sh", "user")) => {}
            Some((_, path)) => {
                machine.write(path, &block.text);
                written += 1;
            }
            None => panic!("line {}: what is {:?}?", block.line, block.info),
        }
    }
    assert!(typed >= 7 && written == 3, "{typed} blocks typed, {written} written");
    println!("the whole guide took {:?}", began.elapsed());
}

fn assert_serves_after_a_reboot(machine: &mut Machine) {
    machine.power_off();
    machine.power_on();
    let asked = "curl --retry 30 --retry-delay 0 --retry-all-errors --retry-max-time 30 -sf http://127.0.0.1";
    assert_eq!(machine.ok(&["sh", "-c", &format!("{asked}/")]), r#"{"from":"support"}"#);
    assert_eq!(machine.ok(&["sh", "-c", &format!("{asked}:8081/")]), r#"{"from":"search"}"#);
}
