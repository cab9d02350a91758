//! Commands that come in the middle of a reload, and command lines that end there.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::time::Instant;

use agentd_protocol::events::EventKind;
use agentd_testkit::e2e::{ProcessEnd, Watch};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::site::{PATIENCE, Site, answer, assert_said};

/// An `agentctl reload web` under way, whose new workers wait at the gate.
fn reloading(site: &Site) -> Child {
    let mut watch = site.daemon.watch();
    site.configure("env = { GATE = \"gate\", ANSWER = \"new\" }\n");
    let mut command = site.daemon.agentctl(&["reload", "web"]);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    await_worker(&mut watch);
    child.expect("agentctl starts")
}

fn await_worker(watch: &mut Watch) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let event = watch.next(deadline).expect("a worker of the new generation starts");
        if matches!(event.event, EventKind::WorkerStarting { .. }) {
            return;
        }
    }
}

fn signal(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id()).expect("process ids are positive");
    kill(Pid::from_raw(pid), signal).expect("it is our child and not waited for");
}

fn ended(child: Child) -> std::process::Output {
    let end = ProcessEnd::of(child.id()).expect("it is our child and not waited for");
    assert!(end.within(PATIENCE), "agentctl does not end");
    child.wait_with_output().expect("it is our child")
}

#[test]
fn a_killed_agentctl_leaves_its_reload_to_go_on_to_the_end() {
    let site = Site::new();
    let child = reloading(&site);
    signal(&child, Signal::SIGKILL);
    ended(child);
    site.assert_unharmed_at_its_side();
    site.open_gate();
    site.await_calm(2);
    assert_eq!(answer(site.port), "new");
}

#[test]
fn ctrl_c_detaches_from_a_reload_and_names_it() {
    let site = Site::new();
    let mut child = reloading(&site);
    let id = site.daemon.app("web").deployment.expect("one runs").id;
    // It follows what it was told of, and so knows the number.
    let mut stderr = BufReader::new(child.stderr.take().expect("it is a pipe"));
    let mut said = String::new();
    stderr.read_line(&mut said).expect("it tells what happens");
    signal(&child, Signal::SIGINT);
    stderr.read_to_string(&mut said).expect("it says that it goes");
    let output = ended(child);
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert!(said.contains(&format!("reload of web goes on as operation {id}")), "{said}");
    site.assert_unharmed_at_its_side();
    site.open_gate();
    site.await_calm(2);
    assert_eq!(answer(site.port), "new");
}

#[test]
fn a_timeout_is_seven_and_what_was_begun_goes_on() {
    let site = Site::new();
    site.configure("env = { GATE = \"gate\", ANSWER = \"new\" }\n");
    assert_said(&site.ctl(&["reload", "web", "--timeout", "1s"]), 7, &["reload of web goes on"]);
    site.open_gate();
    site.await_calm(2);
    assert_eq!(answer(site.port), "new");
}

#[test]
fn a_second_reload_is_refused_with_the_number_of_the_first() {
    let site = Site::new();
    let id = site.begin_gated_reload();
    for command in ["reload", "restart"] {
        assert_said(&site.ctl(&[command, "web"]), 4, &[&format!("deployment {id} of web is running")]);
    }
    assert_said(&site.ctl(&["scale", "web", "3"]), 4, &[&id.to_string()]);
    site.assert_unharmed_at_its_side();
    site.open_gate();
    site.await_calm(2);
    site.configure("env = { ANSWER = \"third\" }\n");
    site.ctl_ok(&["reload", "web"]);
    assert_eq!(answer(site.port), "third");
}

#[test]
fn a_stop_in_the_middle_of_a_reload_aborts_it_and_says_so_to_who_waits() {
    let site = Site::new();
    let child = reloading(&site);
    site.ctl_ok(&["stop", "web"]);
    let output = ended(child);
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("aborted"), "{output:?}");
    assert!(site.pids().is_empty(), "a stop ends both generations");
    site.open_gate();
    site.ctl_ok(&["start", "web"]);
    assert_eq!(answer(site.port), "new", "the next start takes the configuration of its day");
}

#[test]
fn a_delete_in_the_middle_of_a_reload_aborts_it_and_leaves_nothing() {
    let site = Site::new();
    let child = reloading(&site);
    site.ctl_ok(&["delete", "web"]);
    assert_eq!(ended(child).status.code(), Some(4));
    assert!(site.daemon.status().apps.is_empty());
    // The keeper lets go of its copies of the sockets a moment after the daemon.
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect(("127.0.0.1", site.port)).is_ok() {
        assert!(Instant::now() < deadline, "its port is not given back");
    }
    site.open_gate();
    site.ctl_ok(&["start", "./web.toml"]);
    assert_eq!(answer(site.port), "new");
}
