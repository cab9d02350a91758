//! No room, and no right to write.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use agentd_testkit::e2e::{Daemon, Home};

use crate::site::{AGENTD, is_root, notes, serves, until, web};

/// Mounts a small file system of its own at a folder of the home, for the daemon alone, then becomes the daemon.
const SMALL: &str = r#"
mkdir -p "$AGENTD_HOME/state" "$AGENTD_HOME/logs"
mount -t tmpfs -o size=3m,mode=700 small "$AGENTD_HOME/state" || exit 99
mount -t tmpfs -o size=3m,mode=700 small "$AGENTD_HOME/logs" || exit 99
exec "$0" "$@"
"#;

fn on_a_small_disk(home: Home) -> Daemon {
    Daemon::start_by(AGENTD, home, &["unshare", "-m", "--propagation", "private", "sh", "-c", SMALL])
}

/// A folder of the home as the daemon sees it.
fn seen(daemon: &Daemon, folder: &str) -> PathBuf {
    let home = daemon.home.path().strip_prefix("/").expect("it is absolute").to_owned();
    PathBuf::from(format!("/proc/{}/root", daemon.pid())).join(home).join(folder)
}

#[test]
fn on_a_full_disk_lines_are_dropped_and_counted_and_nobody_stops() {
    if !is_root() {
        return;
    }
    let home = Home::new();
    let port = web(&home, "env = { FLOOD = 20 }\nlog = { max_size = \"50M\" }");
    let daemon = on_a_small_disk(home);
    daemon.ctl_ok(&["start", "./web.toml"]);
    until("dropped lines are told", || notes(&daemon).contains("dropped"));
    let worker = daemon.app("web").workers.remove(0);
    assert!(serves(port) && worker.restarts == 0, "{worker:?}");
    daemon.ctl_ok(&["logs", "web", "-n", "3"]);
    daemon.ctl_ok(&["reload", "web"]);
    assert!(serves(port));
}

#[test]
fn state_that_cannot_be_saved_is_told_the_fleet_goes_on_and_is_saved_when_there_is_room() {
    if !is_root() {
        return;
    }
    let home = Home::new();
    let port = web(&home, "");
    let daemon = on_a_small_disk(home);
    daemon.ctl_ok(&["start", "./web.toml"]);
    let filler = seen(&daemon, "state/filler");
    // As much as goes in, to the last block.
    let of = format!("of={}", filler.display());
    let status = Command::new("dd").args(["if=/dev/zero", &of, "bs=4k", "status=none"]).status().expect("dd runs");
    assert!(!status.success(), "the disk is full");
    for workers in 2..6 {
        daemon.ctl_ok(&["scale", "web", &workers.to_string()]);
    }
    assert!(serves(port));
    assert_eq!(daemon.app("web").ready, 5);
    fs::remove_file(&filler).expect("it is there");
    until("it is saved again", || !notes(&daemon).contains("saved"));
    // The next daemon knows of it: it shares the small disk only as long as somebody has it, so the program is replaced.
    daemon.ctl_ok(&["daemon", "upgrade"]);
    until("the next program answers", || daemon.ctl(&["daemon", "status"]).code == Some(0));
    assert_eq!(daemon.app("web").ready, 5);
    assert!(serves(port));
}

#[test]
fn a_hook_that_nobody_could_remember_is_not_run_and_its_deployment_does_not_begin() {
    if !is_root() {
        return;
    }
    let home = Home::new();
    let ran = home.path().join("ran");
    let hook = format!("on = \"before_deployment\"\ncommand = [\"touch\", {ran:?}]");
    let port = web(&home, &format!("[[agent.web.hooks]]\n{hook}"));
    let daemon = on_a_small_disk(home);
    daemon.ctl_ok(&["start", "./web.toml"]);
    let filler = seen(&daemon, "state/filler");
    let of = format!("of={}", filler.display());
    let status = Command::new("dd").args(["if=/dev/zero", &of, "bs=4k", "status=none"]).status().expect("dd runs");
    assert!(!status.success(), "the disk is full");
    let mut workers = 1;
    until("what cannot be saved is told", || {
        workers += 1;
        daemon.ctl_ok(&["scale", "web", &workers.to_string()]);
        notes(&daemon).contains("saved")
    });
    let refused = daemon.ctl(&["reload", "web"]);
    assert_eq!(refused.code, Some(5), "{refused:?}");
    assert!(refused.stderr.contains("was not run, because nobody after us would know"), "{refused:?}");
    assert!(!ran.exists() && serves(port));
    fs::remove_file(&filler).expect("it is there");
    until("it is saved again", || !notes(&daemon).contains("saved"));
    daemon.ctl_ok(&["reload", "web"]);
    assert!(ran.exists());
}

/// A real file system at `state`, in a file of the home, for the daemon alone; its device is named beside it.
const FAILING: &str = r#"
mkdir -p "$AGENTD_HOME/state"
truncate -s 24M "$AGENTD_HOME/disk"
mkfs.ext4 -q -F "$AGENTD_HOME/disk" || exit 99
mount -o loop,errors=remount-ro "$AGENTD_HOME/disk" "$AGENTD_HOME/state" || exit 99
chmod 700 "$AGENTD_HOME/state"
basename "$(findmnt -n -o SOURCE "$AGENTD_HOME/state")" >"$AGENTD_HOME/device"
exec "$0" "$@"
"#;

#[test]
fn a_file_system_that_turns_read_only_costs_the_fleet_nothing_and_is_told() {
    if !is_root() {
        return;
    }
    if !std::path::Path::new("/dev/loop-control").exists() {
        eprintln!("not run: this machine has no loop devices");
        return;
    }
    let home = Home::new();
    let port = web(&home, "");
    let daemon = Daemon::start_by(AGENTD, home, &["unshare", "-m", "--propagation", "private", "sh", "-c", FAILING]);
    daemon.ctl_ok(&["start", "./web.toml"]);
    let device = fs::read_to_string(daemon.home.path().join("device")).expect("it was named");
    // As after an error of the disk: the kernel lets nobody write any more, those who have files open neither.
    fs::write(format!("/sys/fs/ext4/{}/trigger_fs_error", device.trim()), "1")
        .expect("the file system is told to fail");
    daemon.ctl_ok(&["scale", "web", "2"]);
    until("what cannot be saved is told", || notes(&daemon).contains("saved"));
    assert!(serves(port));
    assert_eq!(daemon.app("web").ready, 2);
    daemon.ctl_ok(&["reload", "web"]);
    assert!(serves(port));
}

#[test]
fn a_daemon_whose_state_cannot_be_written_refuses_to_start_and_names_the_folder() {
    if !is_root() {
        return;
    }
    let home = Home::new();
    let script =
        r#"mkdir -p "$AGENTD_HOME/state"; mount -t tmpfs -o ro,mode=700 fixed "$AGENTD_HOME/state" && exec "$0" run"#;
    let output = Command::new("unshare")
        .args(["-m", "--propagation", "private", "sh", "-c", script, AGENTD])
        .env("AGENTD_HOME", home.path())
        .output()
        .expect("unshare runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("state/agentd.db"), "{said}");
}
