//! Clients that send garbage, too much, half of it, or nothing at all, by the thousand.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::site::{PATIENCE, Site};

/// How long the daemon may take to answer somebody else meanwhile.
const OTHERS_WITHIN: Duration = Duration::from_secs(5);

fn connect(socket: &Path) -> UnixStream {
    let stream = UnixStream::connect(socket).expect("the daemon listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout that is not zero");
    stream.set_write_timeout(Some(PATIENCE)).expect("a timeout that is not zero");
    stream
}

/// Sends bytes and returns everything that comes back until the daemon closes.
fn send(socket: &Path, bytes: &[u8]) -> String {
    let mut stream = connect(socket);
    // The daemon may close before it has read everything: that is one way of refusing it.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut text = Vec::new();
    match stream.read_to_end(&mut text) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        Err(error) => panic!("the daemon neither answers nor closes: {error}"),
    }
    String::from_utf8_lossy(&text).into_owned()
}

fn assert_others_are_answered(site: &Site) {
    let begun = Instant::now();
    site.ctl_ok(&["ls"]);
    site.ctl_ok(&["daemon", "status"]);
    assert!(begun.elapsed() < OTHERS_WITHIN, "others waited for {:?}", begun.elapsed());
    site.assert_unharmed();
}

#[test]
fn garbage_on_the_control_socket_is_an_error_for_its_sender_alone() {
    let site = Site::new();
    let control = site.run().join("control.sock");
    for (bytes, kind) in [
        (b"GET / HTTP/1.1\r\n\r\n" as &[u8], "parse"),
        (b"\xff\xfe\x00\x01\n", "parse"),
        (b"[]\n", "invalid_request"),
        (b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"explode\"}\n", "unknown_method"),
        (b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"stop\",\"params\":{\"names\":7}}\n", "invalid_params"),
        (b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"stop\",\"params\":{\"names\":[]}}\n", "usage"),
    ] {
        let answer = send(&control, bytes);
        let first: Value = serde_json::from_str(answer.lines().next().unwrap_or_default())
            .unwrap_or_else(|error| panic!("{error}: {answer:?} to {:?}", String::from_utf8_lossy(bytes)));
        assert_eq!(first["error"]["data"]["kind"], kind, "{answer}");
    }
    let nested = [b"[".repeat(200_000), b"\n".to_vec()].concat();
    assert!(send(&control, &nested).contains("error"));
    let oversized = send(&control, &vec![b'x'; 3 << 20]);
    assert!(oversized.is_empty() || oversized.contains("error"), "{oversized}");
    assert_others_are_answered(&site);
}

#[test]
fn garbage_on_the_status_socket_is_an_error_for_its_sender_alone() {
    let site = Site::new();
    let status = site.run().join("status.sock");
    for bytes in [b"GET / HTTP/1.1\r\n\r\n" as &[u8], b"\xff\xfe\x00\n", &[b'x'; 1 << 20], b"{\"watch\":\"yes\"}\n"] {
        let answer = send(&status, bytes);
        let last: Value = serde_json::from_str(answer.lines().last().unwrap_or_default()).unwrap_or_default();
        assert!(answer.is_empty() || last["error"]["kind"] == "malformed", "{answer}");
    }
    assert_others_are_answered(&site);
}

#[test]
fn garbage_on_a_notify_socket_changes_nothing() {
    let site = Site::new();
    let sockets = site.notify_sockets();
    assert!(sockets.len() >= 2, "each worker has one: {sockets:?}");
    let stranger = UnixDatagram::unbound().expect("a socket");
    for socket in &sockets {
        for bytes in [
            b"" as &[u8],
            b"\0\xff\xfe=\n\n==",
            b"READY=1",
            b"STOPPING=1",
            b"MAINPID=1",
            b"MAINPID=99999999999999999999",
            b"WATCHDOG=trigger",
            b"WATCHDOG_USEC=1",
            &[b'x'; 60_000],
        ] {
            // A full queue is the kernel's refusal of what comes next, and as good as being ignored.
            let _ = stranger.send_to(bytes, socket);
        }
    }
    assert_others_are_answered(&site);
}

#[test]
fn a_thousand_connections_that_say_half_a_word_delay_nobody() {
    let site = Site::new();
    for socket in ["control.sock", "status.sock"] {
        let path = site.run().join(socket);
        let mut held = Vec::new();
        for number in 0..1000 {
            let Ok(mut stream) = UnixStream::connect(&path) else { break };
            // Half of a request, and never the other one. Those beyond the bound are closed already.
            let _ = stream.write_all(if number % 2 == 0 { b"{\"jsonrpc\":" } else { b"" });
            held.push(stream);
        }
        assert!(held.len() > 256, "only {} connections were taken", held.len());
        site.assert_serves();
        // The other socket answers at once, and this one too as soon as the crowd has gone.
        let other = if socket == "control.sock" { &["ls"] as &[&str] } else { &["daemon", "status"] };
        let begun = Instant::now();
        site.ctl_ok(other);
        assert!(begun.elapsed() < OTHERS_WITHIN, "others waited for {:?}", begun.elapsed());
        let full = site.ctl(if socket == "control.sock" { &["daemon", "status"] } else { &["ls"] });
        assert!(matches!(full.code, Some(0 | 4)), "either there is room again or it is said: {full:#?}");
        drop(held);
        site.await_answer(if socket == "control.sock" { &["daemon", "status"] } else { &["ls"] });
    }
    assert_others_are_answered(&site);
}

#[test]
fn a_watcher_that_never_reads_costs_only_itself() {
    let site = Site::new();
    let mut deaf = connect(&site.run().join("status.sock"));
    deaf.write_all(b"{\"watch\":true}\n").expect("it is taken");
    for _ in 0..3 {
        site.ctl_ok(&["scale", "web", "3"]);
        site.ctl_ok(&["scale", "web", "2"]);
    }
    assert_others_are_answered(&site);
}
