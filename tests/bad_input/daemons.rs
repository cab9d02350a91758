//! The daemon itself: another one, what a dead one left behind, homes that do not fit, signals.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Instant;

use agentd_protocol::events::EventKind;
use agentd_testkit::e2e::{Daemon, Home, ProcessEnd};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::site::{AGENTD, PATIENCE, Site, answer};

/// Runs an `agentd` that must end by itself.
fn agentd(home: &Path) -> Output {
    let mut command = Command::new(AGENTD);
    command.env("AGENTD_HOME", home).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("agentd starts");
    let end = ProcessEnd::of(child.id()).expect("it is our child and not waited for");
    if !end.within(PATIENCE) {
        let _ = child.kill();
        panic!("agentd goes on where it should have refused");
    }
    child.wait_with_output().expect("it is our child")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_second_daemon_in_a_home_is_refused_and_names_the_first() {
    let site = Site::new();
    let output = agentd(site.daemon.home.path());
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(said(&output).contains(&format!("another agentd (pid {}) runs", site.daemon.pid())), "{output:?}");
    let again = site.ctl_ok(&["daemon", "start"]);
    assert!(again.stdout.contains(&format!("runs already, as {}", site.daemon.pid())), "{again:#?}");
    site.assert_unharmed();
}

#[test]
fn sockets_and_a_lock_that_a_dead_daemon_left_are_taken_over() {
    let home = Home::new();
    let run = home.path().join("run");
    fs::create_dir_all(&run).expect("the folder is made");
    fs::write(run.join("agentd.lock"), "1\n").expect("it is written");
    for socket in ["control.sock", "status.sock"] {
        drop(UnixListener::bind(run.join(socket)).expect("a name that nobody has"));
        assert!(run.join(socket).exists(), "nobody listens, and the name is there");
    }
    let site = Site::of(Daemon::start_in(AGENTD, home));
    site.assert_unharmed();
}

#[test]
fn a_file_in_a_sockets_place_is_not_removed_and_refuses_the_start() {
    let home = Home::new();
    fs::create_dir_all(home.path().join("run")).expect("the folder is made");
    let path = home.path().join("run/control.sock");
    fs::write(&path, "precious").expect("it is written");
    let output = agentd(home.path());
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(said(&output).contains("control.sock"), "{output:?}");
    assert_eq!(fs::read_to_string(&path).expect("it is still there"), "precious");
}

#[test]
fn a_home_that_cannot_be_written_is_refused_with_its_path() {
    let home = Home::new();
    // A file where a folder should be: root can write everywhere else.
    fs::write(home.path().join("state"), "").expect("it is written");
    let output = agentd(home.path());
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(said(&output).contains(&home.path().join("state").display().to_string()), "{output:?}");
    let output = agentd(Path::new("/proc/no-home-here"));
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(said(&output).contains("/proc/no-home-here"), "{output:?}");
    let agentctl = Path::new(AGENTD).with_file_name("agentctl");
    let output = Command::new(agentctl).args(["--home", "/proc/no-home-here", "daemon", "start"]).output();
    let output = output.expect("agentctl runs");
    assert_eq!(output.status.code(), Some(6), "{output:?}");
    assert!(said(&output).contains("/proc/no-home-here"), "{output:?}");
}

#[test]
fn a_home_too_deep_for_a_sockets_name_serves_like_any_other() {
    let top = Home::new();
    let deep = top.path().join("d".repeat(90)).join("e".repeat(90));
    let agentctl = Path::new(AGENTD).with_file_name("agentctl");
    let ctl = |arguments: &[&str]| {
        let output = Command::new(&agentctl).arg("--home").arg(&deep).args(arguments).stdin(Stdio::null()).output();
        output.expect("agentctl runs")
    };
    let started = ctl(&["start", "sleep", "--name", "sleeper", "--", "99"]);
    let listed = ctl(&["ls"]);
    let run = fs::canonicalize(deep.join("run"));
    let stopped = ctl(&["daemon", "stop"]);
    assert_eq!(started.status.code(), Some(0), "{started:?}");
    assert!(String::from_utf8_lossy(&listed.stdout).contains("sleeper"), "{listed:?}");
    assert_eq!(stopped.status.code(), Some(0), "{stopped:?}");
    // The short folder for its sockets lies outside of the home.
    fs::remove_dir_all(run.expect("the daemon made it")).expect("it is ours to remove");
}

#[test]
fn a_hang_up_stops_nothing_and_tells_of_a_broken_file() {
    let site = Site::new();
    let path = site.configure("worker = 3\n");
    let mut watch = site.daemon.watch();
    let daemon = Pid::from_raw(i32::try_from(site.daemon.pid()).expect("process ids are positive"));
    kill(daemon, Signal::SIGHUP).expect("it runs");
    let deadline = Instant::now() + PATIENCE;
    let (file, why) = loop {
        let event = watch.next(deadline).expect("the broken file is told of").event;
        assert!(!matches!(event, EventKind::WorkerExited { .. }), "a worker was ended");
        if let EventKind::ConfigRejected { file, why } = event {
            break (file, why);
        }
    };
    assert!(file.ends_with("web.toml") && why.contains("worker"), "{file}: {why}");
    site.assert_unharmed();
    assert!(path.exists());
    // A file that is right again changes nothing by itself, and is applied by the next reload.
    site.configure("env = { ANSWER = \"new\" }\n");
    kill(daemon, Signal::SIGHUP).expect("it runs");
    site.assert_unharmed();
    site.ctl_ok(&["reload", "web"]);
    assert_eq!(answer(site.port), "new");
}
