//! The daemon's own log.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use agentd_testkit::e2e::{Daemon, Home};

use crate::site::{AGENTD, until};

/// As `agentctl` starts it: what it says goes to the end of its own log. That is full already.
const WITH_ITS_LOG: &str = r#"
mkdir -p "$AGENTD_HOME/state" && chmod 700 "$AGENTD_HOME/state"
truncate -s 10M "$AGENTD_HOME/state/daemon.log"
exec "$0" "$@" >>"$AGENTD_HOME/state/daemon.log" 2>&1
"#;

#[test]
fn its_own_log_is_put_aside_when_it_is_long_and_so_is_bounded() {
    let mut daemon = Daemon::start_by(AGENTD, Home::new(), &["sh", "-c", WITH_ITS_LOG]);
    for _ in 0..5 {
        daemon.kill();
        daemon.start_again();
    }
    let state = daemon.home.path().join("state");
    let mut names: Vec<_> = fs::read_dir(&state)
        .expect("it is there")
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with("daemon.log"))
        .collect();
    names.sort();
    // The first daemon found nothing worth a line.
    assert_eq!(names, ["daemon.log", "daemon.log.000003", "daemon.log.000004", "daemon.log.000005"]);
    let log = state.join("daemon.log");
    let meta = fs::metadata(&log).expect("it is there");
    assert!(meta.len() < 1 << 20 && meta.permissions().mode() & 0o777 == 0o600, "{meta:?}");
    // What follows goes to the new one; also where somebody removes it.
    let hang_up = || {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(daemon.pid()).expect("a pid"));
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGHUP).expect("it lives");
    };
    hang_up();
    until("it says so", || fs::read_to_string(&log).is_ok_and(|text| text.contains("SIGHUP")));
    fs::remove_file(&log).expect("it is there");
    until("it says so in a new one", || {
        hang_up();
        fs::read_to_string(&log).is_ok_and(|text| text.contains("SIGHUP"))
    });
}
