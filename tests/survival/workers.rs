//! Workers that survive, and what is asked of them.

use std::time::{Duration, Instant};

use agentd_testkit::e2e::Daemon;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A threaded HTTP server on descriptor 3 that answers `/`, `/long?s=` and `/sse?s=`; it prints nothing, and dies of
/// SIGTERM like any program without a handler.
pub(crate) const SERVER: &str = r#"
import socket, threading, time
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import ThreadingMixIn
from urllib.parse import urlparse, parse_qs

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *_):
        pass
    def do_GET(self):
        url = urlparse(self.path)
        seconds = float(parse_qs(url.query).get("s", ["1"])[0])
        if url.path == "/sse":
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Connection", "close")
            self.end_headers()
            for n in range(int(seconds / 0.2)):
                self.wfile.write(b"data: %d\n\n" % n)
                self.wfile.flush()
                time.sleep(0.2)
            self.wfile.write(b"data: end\n\n")
            self.close_connection = True
            return
        if url.path == "/long":
            time.sleep(seconds)
        body = b"ok\n"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

class Server(ThreadingMixIn, HTTPServer):
    daemon_threads = True

server = Server(("127.0.0.1", 0), Handler, bind_and_activate=False)
server.socket.close()
server.socket = socket.socket(fileno=3)
server.socket.setblocking(True)
server.serve_forever()
"#;

/// Prints 0, 1, 2, … as fast as a busy agent would.
pub(crate) const PRINTER: &str = "
import time
n = 0
while True:
    print(n)
    n += 1
    time.sleep(0.001)
";

/// Asserts that the printer's numbers are all there, each once, in order.
pub(crate) fn numbers_without_gap(json_lines: &str) {
    let mut expected = 0;
    for line in json_lines.lines() {
        let line: serde_json::Value = serde_json::from_str(line).expect("nothing but JSON on stdout");
        let number: u64 = line["text"].as_str().expect("a text").parse().expect("a number");
        assert_eq!(number, expected, "a line was lost, doubled or out of order");
        expected += 1;
    }
    assert!(expected > 100, "only {expected} lines were printed");
}

pub(crate) fn kill_nine(pid: u32) {
    let pid = Pid::from_raw(i32::try_from(pid).expect("process ids are positive"));
    kill(pid, Signal::SIGKILL).expect("it was there to be killed");
}

/// The keeper that this daemon started. The daemon does not wait until the shim has become it.
pub(crate) fn keeper_of(daemon: u32) -> u32 {
    await_keeper(daemon, None, crate::PATIENCE)
}

pub(crate) fn await_another_keeper(daemon: u32, but: u32, patience: Duration) {
    await_keeper(daemon, Some(but), patience);
}

fn await_keeper(daemon: u32, but: Option<u32>, patience: Duration) -> u32 {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(keeper) = find_keeper(daemon).filter(|&pid| Some(pid) != but) {
            return keeper;
        }
        assert!(Instant::now() < deadline, "no keeper was started but {but:?}");
        std::thread::yield_now();
    }
}

fn find_keeper(daemon: u32) -> Option<u32> {
    let children = std::fs::read_to_string(format!("/proc/{daemon}/task/{daemon}/children")).ok()?;
    children.split_whitespace().filter_map(|pid| pid.parse().ok()).find(|pid: &u32| {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        command.split(|&byte| byte == 0).nth(1) == Some(b"keep")
    })
}

/// What `daemon status` tells of the supervisor that runs: where its sockets came from, how long nobody watched.
pub(crate) fn present_supervisor(daemon: &Daemon) -> serde_json::Value {
    let page: serde_json::Value = daemon.ctl_ok(&["daemon", "status", "--json"]).json();
    page["supervisors"].as_array().expect("a history").last().expect("the present one").clone()
}

/// Makes the state that this home keeps look as if it had been written before a reboot.
pub(crate) fn pretend_another_boot(home: &std::path::Path) {
    let database = rusqlite::Connection::open(home.join("state/agentd.db")).expect("the state is there");
    let changed =
        database.execute("UPDATE meta SET value = 'another boot' WHERE key = 'boot'", []).expect("it is writable");
    assert_eq!(changed, 1, "the boot was written down");
}

/// Looks until it is so.
pub(crate) fn until(patience: Duration, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + patience;
    while !is_so() {
        assert!(Instant::now() < deadline, "not so in time");
        std::thread::yield_now();
    }
}

/// How many workers the state that this home keeps knows of.
pub(crate) fn recorded(home: &std::path::Path) -> u32 {
    let database = rusqlite::Connection::open(home.join("state/agentd.db")).expect("the state is there");
    database.query_row("SELECT count(*) FROM worker", [], |row| row.get(0)).expect("it is readable")
}
