//! The systemd units, as far as `systemd-analyze` can judge them here.

use std::io::ErrorKind;
use std::process::Command;

use crate::text;

/// `systemd-analyze verify` ends with 0 on unknown keys: it must print nothing.
fn verified(unit: &str, arguments: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    // Programs that are not installed would be told; that is not what is asked.
    let installed =
        ["/usr/local/bin/agentd", "/usr/local/bin/agentctl", "%h/.local/bin/agentd", "%h/.local/bin/agentctl"];
    let there = installed
        .iter()
        .fold(text(&format!("systemd/{unit}")), |text, path| text.replace(&format!("{path} "), "/bin/true "));
    let path = folder.path().join("agentd.service");
    std::fs::write(&path, there).unwrap();
    let mut command = Command::new("systemd-analyze");
    command.args(arguments).arg("verify").arg(&path);
    // A user's manager looks for its session there.
    let output = command.env("XDG_RUNTIME_DIR", folder.path()).output();
    let output = match output {
        Ok(output) => output,
        Err(error) if error.kind() == ErrorKind::NotFound => return println!("not tested: no systemd-analyze here"),
        Err(error) => panic!("systemd-analyze: {error}"),
    };
    let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
    assert_eq!(said, "", "systemd-analyze verify {unit}");
}

#[test]
fn systemd_finds_nothing_to_say_about_the_system_unit() {
    verified("agentd.service", &[]);
}

#[test]
fn systemd_finds_nothing_to_say_about_the_user_unit() {
    verified("agentd-user.service", &["--user"]);
}

#[test]
fn a_stop_of_the_daemon_does_not_kill_its_workers() {
    for unit in ["agentd.service", "agentd-user.service"] {
        let unit = text(&format!("systemd/{unit}"));
        assert!(unit.lines().any(|line| line == "KillMode=process"));
        assert!(!unit.contains("PrivateTmp=") && !unit.contains("MemoryDenyWriteExecute="));
    }
}
