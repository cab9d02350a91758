//! Everything else that changes an app under load: its size, its configuration, its address; and a restart.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use agentd_testkit::e2e::{Load, Mix, free_port};

use crate::apps::{Sample, built};

const PATIENCE: Duration = Duration::from_secs(30);

fn axum(port: u16, rest: &str) -> String {
    format!("command = [{:?}]\nlisten = \"127.0.0.1:{port}\"\n{rest}", built("agentd-sample-axum"))
}

#[test]
fn scaling_up_and_down_under_load_loses_nothing() {
    let port = free_port();
    let sample = Sample::start("scale 2, 5, 1, 3", &axum(port, "workers = 2"));
    let report = Load::run(port, Mix::default(), || {
        for workers in [5, 1, 3] {
            sample.daemon.ctl_ok(&["scale", "web", &workers.to_string()]);
            let app = sample.daemon.app("web");
            assert_eq!((app.desired, app.ready), (workers, workers));
        }
    });
    sample.tell("scaled", &report);
    report.assert_none_lost_in_service();
}

#[test]
fn a_restart_lets_connections_wait_and_refuses_none() {
    let port = free_port();
    let sample = Sample::start("restart", &axum(port, "workers = 2"));
    let report = Load::run(port, Mix::default(), || {
        for _ in 0..3 {
            sample.daemon.ctl_ok(&["restart", "web"]);
        }
    });
    sample.tell("restarted 3 times", &report);
    report.assert_none_lost_in_service();
}

#[test]
fn a_reload_takes_up_a_changed_configuration() {
    let port = free_port();
    let with = |version: u32| axum(port, &format!("workers = {version}\nenv = {{ VERSION = \"v{version}\" }}"));
    let sample = Sample::start("changed configuration", &with(1));
    for version in 2..=3 {
        sample.configure(&with(version));
        let report = Load::run(port, Mix::default(), || {
            sample.daemon.ctl_ok(&["reload", "web"]);
        });
        sample.tell("reloaded", &report);
        report.assert_none_lost_in_service();
        let after = Load::run(port, Mix { requests: 5, ..Mix::fresh(2) }, || {
            assert_eq!(sample.daemon.app("web").ready, version);
        });
        assert!(after.answers.keys().all(|answer| answer.starts_with(&format!("v{version} "))), "{:?}", after.answers);
    }
}

#[test]
fn a_reload_moves_an_app_to_another_port() {
    let (before, after) = (free_port(), free_port());
    let sample = Sample::start("changed port", &axum(before, "workers = 2"));
    sample.configure(&axum(after, "workers = 2"));
    let mut streams: Vec<TcpStream> = (0..4).map(|_| begun_stream(before)).collect();
    sample.daemon.ctl_ok(&["reload", "web"]);
    assert_eq!(sample.daemon.app("web").listen["http"], format!("127.0.0.1:{after}"));
    for stream in &mut streams {
        let mut rest = String::new();
        stream.read_to_string(&mut rest).expect("what began at the old port is finished there");
        assert!(rest.contains("data: end"), "{rest}");
    }
    let report = sample.reload_under_load(1, after, Mix::default());
    report.assert_none_lost_in_service();
}

/// A stream of events that has sent its first one.
fn begun_stream(port: u16) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the app listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout that is not zero");
    stream.write_all(b"GET /sse?s=2 HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").expect("is connected");
    stream.read_exact(&mut [0]).expect("the answer begins");
    stream
}
