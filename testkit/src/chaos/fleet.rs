//! What is supervised: real servers, a program that prints without end, and one with children and grandchildren.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use agentd_protocol::status::StatusDocument;

use super::Action;
use super::crash::Crash;
use crate::e2e::{Daemon, ProcessEnd, free_port};
use crate::sim::Random;

/// Prints numbers, each on a line, as fast as a busy agent would.
const PRINTER: &str = "
import sys, time
n = 0
while True:
    sys.stdout.write(''.join('%d\\n' % i for i in range(n, n + BURST)))
    sys.stdout.flush()
    n += BURST
    time.sleep(PAUSE)
";
/// A threaded server of the standard library. As uvicorn does, it finishes at SIGTERM what it has begun.
const PYTHON: &str = r#"
import os, signal, socket, threading, time
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import ThreadingMixIn
from urllib.parse import urlparse, parse_qs

leaving = threading.Event()
busy = threading.Condition()
count = 0

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *_):
        pass
    def do_GET(self):
        global count
        with busy:
            count += 1
        try:
            self.answer()
        finally:
            with busy:
                count -= 1
                busy.notify_all()
    def answer(self):
        url = urlparse(self.path)
        if url.path == "/long":
            time.sleep(float(parse_qs(url.query).get("s", ["1"])[0]))
        self.send_response(200)
        self.send_header("Content-Length", "3")
        self.end_headers()
        self.wfile.write(b"ok\n")

class Server(ThreadingMixIn, HTTPServer):
    daemon_threads = True

server = Server(("127.0.0.1", 0), Handler, bind_and_activate=False)
server.socket.close()
server.socket = socket.socket(fileno=3)
server.socket.setblocking(True)

def leave():
    leaving.wait()
    with busy:
        busy.wait_for(lambda: count == 0)
        os._exit(0)

threading.Thread(target=leave, daemon=True).start()
signal.signal(signal.SIGTERM, lambda *_: leaving.set())
server.serve_forever()
"#;
const UVICORN: &str = r#"
async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"3")]})
    await send({"type": "http.response.body", "body": b"ok\n"})
"#;
const NODE: &str = r"
require('http').createServer((_, answer) => answer.end('ok\n')).listen({ fd: Number(process.argv[2]) })
";
/// Children and grandchildren, all of which must live as long as it does, and no longer.
const FAMILY: &str = "sh -c 'sleep 100000 & sleep 100000 & wait' &\nsleep 100000 &\nwait\n";

/// Longest wait for a keeper.
const KEPT_WITHIN: Duration = Duration::from_secs(10);

/// The most workers that a server is scaled to.
const WORKERS_MAX: u32 = 5;

/// Which servers take part.
#[derive(Clone, Debug, Default)]
pub struct Servers {
    /// A `uvicorn` program; a server of Python's standard library takes its place when there is none.
    pub uvicorn: Option<String>,
    /// A `node` program; none takes part when there is none.
    pub node: Option<String>,
    /// A program that serves what it is asked on its standard input at little cost (`chaos serve`); none takes part when
    /// there is none.
    pub quick: Option<String>,
    /// Lines that the printer writes at a time, every 10 ms.
    pub burst: u32,
}

/// Where the servers listen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ports {
    pub(super) web: u16,
    pub(super) node: u16,
    pub(super) quick: u16,
}

/// The fleet under test.
#[derive(Debug)]
pub struct Fleet {
    /// Its daemon.
    pub daemon: Daemon,
    servers: Servers,
    ports: Ports,
    /// How many workers each server is to have, where it takes part.
    counts: BTreeMap<&'static str, u32>,
    edition: u32,
    /// Processes of the workers of each app as they were when everything was settled.
    pub(super) before: BTreeMap<String, BTreeSet<u32>>,
    /// The servers to which something was done since.
    pub(super) touched: BTreeSet<&'static str>,
    /// A worker that was killed since.
    pub(super) crashed: Option<u32>,
    /// All that were killed, with what each took along.
    pub(super) crashes: Vec<Crash>,
}

impl Fleet {
    /// Starts everything and waits until it serves.
    pub(super) fn start(daemon: Daemon, servers: Servers) -> Self {
        let pause = "0.01";
        let burst = servers.burst.max(1).to_string();
        daemon.config("printer.py", &PRINTER.replace("BURST", &burst).replace("PAUSE", pause));
        daemon.config("server.py", PYTHON);
        daemon.config("app.py", UVICORN);
        daemon.config("server.js", NODE);
        daemon.config("family.sh", FAMILY);
        let taking_part = [("web", true), ("node", servers.node.is_some()), ("quick", servers.quick.is_some())];
        // A lone worker's crash leaves nobody ready: who connects then waits in its queue.
        let counts = taking_part.into_iter().filter(|(_, takes_part)| *takes_part);
        let counts = counts.map(|(app, _)| (app, if app == "node" { 1 } else { 2 })).collect();
        let mut fleet = Self {
            daemon,
            servers,
            ports: Ports { web: free_port(), node: free_port(), quick: free_port() },
            counts,
            edition: 0,
            before: BTreeMap::new(),
            touched: BTreeSet::new(),
            crashed: None,
            crashes: Vec::new(),
        };
        fleet.write_config();
        fleet.daemon.ctl_ok(&["start", "fleet.toml"]);
        fleet.before = pids(&fleet.daemon.status());
        fleet
    }

    /// Where the servers listen.
    pub(super) fn ports(&self) -> Ports {
        self.ports
    }

    fn write_config(&self) {
        let web = self.servers.uvicorn.as_ref().map_or_else(
            || "[\"python3\", \"server.py\"]".to_owned(),
            |uvicorn| format!("[{uvicorn:?}, \"app:app\", \"--fd\", \"{{fd:http}}\", \"--log-level\", \"warning\"]"),
        );
        let mut config = self.server("agent.web", &web, 2, self.ports.web);
        if let Some(node) = &self.servers.node {
            let command = format!("[{node:?}, \"server.js\", \"{{fd:http}}\"]");
            config += &self.server("skill.node", &command, 1, self.ports.node);
        }
        if let Some(quick) = &self.servers.quick {
            let command = format!("[\"sh\", \"-c\", \"exec {quick} serve <&{{fd:http}}\"]");
            config += &self.server("skill.quick", &command, 2, self.ports.quick);
        }
        config += "[agent.printer]\ncommand = [\"python3\", \"-u\", \"printer.py\"]\nlog = { max_size = \"1G\" }\n\
                   [agent.family]\ncommand = [\"sh\", \"family.sh\"]\n";
        self.daemon.config("fleet.toml", &config);
    }

    fn server(&self, name: &str, command: &str, workers: u32, port: u16) -> String {
        format!(
            "[{name}]\ncommand = {command}\nworkers = {workers}\nlisten.http = \"127.0.0.1:{port}\"\n\
             env = {{ EDITION = \"{}\" }}\nrestart = {{ backoff = \"50ms..200ms\", max = \"1000 in 1m\" }}\n",
            self.edition
        )
    }

    /// What is done next.
    pub(super) fn draw(&self, random: &mut Random) -> Action {
        match random.between(0, 10) {
            0..=2 => Action::Nothing,
            3..=5 => Action::Reload,
            6 => Action::Reconfigure,
            7 | 8 => Action::Scale,
            _ => Action::Crash,
        }
    }

    /// Begins it. A refusal is no fault: something of the last time may still be under way.
    pub(super) fn begin(&mut self, action: Action, random: &mut Random) {
        let app = self.draw_server(random, action == Action::Scale);
        if action != Action::Nothing {
            self.touched.insert(app);
        }
        match action {
            Action::Nothing => {}
            Action::Reload => drop(self.daemon.ctl(&["reload", app, "--no-wait"])),
            Action::Reconfigure => {
                self.edition += 1;
                self.write_config();
                drop(self.daemon.ctl(&["reload", app, "--no-wait"]));
            }
            Action::Scale => {
                let count = random.count(2, WORKERS_MAX);
                if self.daemon.ctl(&["scale", app, &count.to_string(), "--no-wait"]).code == Some(0) {
                    self.counts.insert(app, count);
                }
            }
            Action::Crash => {
                let victims = self.before.get(app).cloned().unwrap_or_default();
                let crash = (!victims.is_empty()).then(|| random.pick(&Vec::from_iter(victims))).and_then(Crash::of);
                self.crashed = crash.as_ref().map(|crash| crash.pid);
                self.crashes.extend(crash);
            }
        }
    }

    /// One of the servers; of those that are to have several workers, where that is wanted. There is always one.
    fn draw_server(&self, random: &mut Random, of_several: bool) -> &'static str {
        let servers = self.counts.iter().filter(|(_, count)| !of_several || **count > 1);
        let servers: Vec<&'static str> = servers.map(|(app, _)| *app).collect();
        random.pick(&servers)
    }

    /// How many workers an app is to have; none where it is not scaled.
    pub(super) fn count(&self, app: &str) -> Option<u32> {
        self.counts.get(app).copied()
    }

    /// Kills the keeper, and waits until there is another.
    pub(super) fn kill_keeper(&self) {
        let keeper = self.await_keeper(None);
        if let Some(process) = ProcessEnd::of(keeper) {
            process.kill();
        }
        self.await_keeper(Some(keeper));
    }

    fn await_keeper(&self, but: Option<u32>) -> u32 {
        let until = Instant::now() + KEPT_WITHIN;
        loop {
            if let Some(keeper) = self.keeper().filter(|&pid| Some(pid) != but) {
                return keeper;
            }
            assert!(Instant::now() < until, "there is no keeper but {but:?}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// The keeper of this home, whoever's child it is: among its descriptors is the socket in the runtime folder.
    fn keeper(&self) -> Option<u32> {
        let path = self.daemon.home.socket("keeper.sock");
        let sockets = std::fs::read_to_string("/proc/net/unix").ok()?;
        // Columns: address, references, protocol, flags, type, state, inode, path.
        let sockets: Vec<String> = sockets
            .lines()
            .map(|line| line.split_whitespace().skip(6).collect::<Vec<_>>())
            .filter(|fields| fields.len() == 2 && path.as_os_str() == fields[1])
            .map(|fields| format!("socket:[{}]", fields[0]))
            .collect();
        let holds_one = |pid: u32| {
            let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
            let targets = descriptors.filter_map(|entry| std::fs::read_link(entry.path()).ok());
            targets.filter_map(|target| target.into_os_string().into_string().ok()).any(|name| sockets.contains(&name))
        };
        let processes = std::fs::read_dir("/proc").ok()?.flatten();
        processes
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .find(|&pid| is_keeper(pid) && holds_one(pid))
    }

    /// Stops the printer; how many lines it wrote, none of them lost, doubled, garbled or out of order.
    pub(super) fn stop_and_count_lines(&self) -> u64 {
        self.daemon.ctl_ok(&["stop", "printer"]);
        let logs = self.daemon.home.path().join("logs");
        let files = find(&logs, "printer");
        let mut expected = 0;
        for file in files {
            let text =
                std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("reading {}: {error}", file.display()));
            for line in text.lines() {
                assert_eq!(line.parse(), Ok(expected), "a line was lost, doubled or garbled in {}", file.display());
                expected += 1;
            }
        }
        assert!(expected > 0, "nothing was printed below {}", logs.display());
        expected
    }
}

/// Files of an app's standard output that are not empty.
fn find(logs: &std::path::Path, app: &str) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![logs.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = path.to_string_lossy().into_owned();
            if path.is_dir() {
                folders.push(path);
            } else if name.contains(app) && name.contains("out") && name.ends_with(".log") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn is_keeper(pid: u32) -> bool {
    let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    command.split(|&byte| byte == 0).nth(1) == Some(b"keep")
}

/// The processes of each app's workers.
pub(super) fn pids(document: &StatusDocument) -> BTreeMap<String, BTreeSet<u32>> {
    let of = |app: &agentd_protocol::status::AppView| app.workers.iter().filter_map(|worker| worker.pid).collect();
    document.apps.iter().map(|app| (app.name.clone(), of(app))).collect()
}
