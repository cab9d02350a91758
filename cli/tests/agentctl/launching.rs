//! Starting the daemon: `agentctl` and a program called `agentd` beside it, which is a shell script here.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::thread;

use agentd_protocol::control::Request;
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, mkfifo};
use serde_json::json;

use crate::fake::{Answering, DEADLINE, Daemon, Play, end, serve};

/// Puts `agentctl` and an `agentd` that runs `script` into one folder; returns the path of the first.
fn beside(home: &Path, script: &str) -> PathBuf {
    let programs = home.join("bin");
    fs::create_dir(&programs).unwrap();
    let source = home.join("script");
    fs::write(&source, format!("#!/bin/sh\n{script}\n")).unwrap();
    let (agentctl, agentd) = (programs.join("agentctl"), programs.join("agentd"));
    for (from, to) in [(Path::new(env!("CARGO_BIN_EXE_agentctl")), &agentctl), (&source, &agentd)] {
        // By another process: a program that this one has open for writing, if only in a fork of another test, cannot
        // be run.
        let installed = Command::new("install").args(["-m", "755"]).args([from, to]).status().unwrap();
        assert!(installed.success());
    }
    agentctl
}

#[test]
fn a_daemon_that_ends_at_once_is_shown_with_its_own_words() {
    let daemon = Daemon::absent();
    let agentctl = beside(&daemon.home, "echo 'no room in /var/lib' >&2; exit 3");
    let ended = end(daemon.program(&agentctl, "daemon start").spawn().unwrap()).expect(6);
    assert!(
        ended.stderr.contains("the daemon ended at once (exit status: 3)\nno room in /var/lib"),
        "{}",
        ended.stderr
    );
    assert_eq!(fs::read_to_string(daemon.home.join("state/daemon.log")).unwrap(), "no room in /var/lib\n");
}

#[test]
fn without_the_daemon_s_program_nothing_is_started() {
    let daemon = Daemon::absent();
    let agentctl = beside(&daemon.home, "");
    fs::remove_file(daemon.home.join("bin/agentd")).unwrap();
    let ended = end(daemon.program(&agentctl, "start x").env("PATH", "/nowhere").spawn().unwrap()).expect(6);
    assert!(ended.stderr.contains("no agentd beside agentctl or on PATH"), "{}", ended.stderr);
    assert!(!daemon.home.join("state").exists());
}

/// What the played daemon writes into the FIFO `told`.
fn hear(told: PathBuf) -> String {
    let (heard, hearing) = mpsc::channel();
    thread::spawn(move || heard.send(fs::read_to_string(told)));
    hearing.recv_timeout(DEADLINE).expect("the daemon's script was not run").unwrap()
}

fn accepts(request: Request, answering: &mut Answering) {
    match request {
        Request::DaemonStop(_) => answering.done(json!({ "workers": 2, "cut": 0 })),
        _ => answering.done(json!({ "operations": [], "results": [] })),
    }
}

#[test]
fn start_begins_the_daemon_in_a_session_of_its_own_with_nothing_inherited() {
    // The daemon outlives the agentctl that started it: whoever kills it must be the one to bury it.
    set_child_subreaper(true).unwrap();
    let daemon = Daemon::absent();
    let told = daemon.home.join("told");
    mkfifo(&told, Mode::S_IRWXU).unwrap();
    let script = "echo $$ > \"$AGENTD_HOME/told\"\nexec sleep 60";
    let agentctl = beside(&daemon.home, script);
    // A pipe that the caller forgot to close: its reader must see its end while the daemon lives.
    let (mut reader, writer) = std::io::pipe().unwrap();
    let leaked = nix::unistd::dup(&writer).unwrap();
    let child = daemon.program(&agentctl, "start uvicorn").spawn().unwrap();
    drop((leaked, writer));
    let pid = Pid::from_raw(hear(told).trim().parse().unwrap());
    assert_eq!(nix::unistd::getsid(Some(pid)).unwrap(), pid);
    serve(&daemon.home, &Play::answering(accepts));
    let ended = end(child);
    assert_eq!(reader.read(&mut [0]).unwrap(), 0, "the daemon holds a descriptor of its caller");
    assert_eq!(fs::read_link(format!("/proc/{pid}/cwd")).unwrap(), Path::new("/"));
    kill(pid, Signal::SIGKILL).unwrap();
    waitpid(pid, None).unwrap();
    assert_eq!(ended.expect(0).stdout, "nothing to do\n");
}

#[test]
fn a_daemon_that_runs_is_not_started_again() {
    let daemon = Daemon::answering(accepts);
    let agentctl = beside(&daemon.home, "exit 1");
    end(daemon.program(&agentctl, "start uvicorn").spawn().unwrap()).expect(0);
    assert!(!daemon.home.join("state").exists());
}

#[test]
fn stopping_a_daemon_that_does_not_run_is_done_already() {
    assert_eq!(Daemon::absent().run("daemon stop").expect(0).stdout, "no daemon runs\n");
    let ended = Daemon::answering(accepts).run("daemon stop").expect(0);
    assert_eq!(ended.stdout, "daemon stopped, and 2 workers with it\n");
}

#[test]
fn the_daemon_s_log_is_private_to_its_user() {
    let daemon = Daemon::absent();
    let agentctl = beside(&daemon.home, "exit 1");
    end(daemon.program(&agentctl, "daemon start").spawn().unwrap()).expect(6);
    let log = File::open(daemon.home.join("state/daemon.log")).unwrap();
    assert_eq!(log.metadata().unwrap().permissions().mode() & 0o777, 0o600, "fd {}", log.as_raw_fd());
}

#[test]
fn a_daemon_that_lost_the_race_to_another_start_is_no_failure() {
    let daemon = Daemon::absent();
    let told = daemon.home.join("told");
    mkfifo(&told, Mode::S_IRWXU).unwrap();
    let agentctl = beside(&daemon.home, "echo > \"$AGENTD_HOME/told\"\necho 'another agentd runs' >&2\nexit 1");
    let child = daemon.program(&agentctl, "start uvicorn").spawn().unwrap();
    hear(told);
    serve(&daemon.home, &Play::answering(accepts));
    end(child).expect(0);
}
