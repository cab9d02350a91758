//! An app that serves, and asking it whether it does.

use std::time::{Duration, Instant};

use agentd_testkit::e2e::{Daemon, Home, answer, free_port};

pub(crate) const AGENTD: &str = env!("CARGO_BIN_EXE_agentd");

/// Longest wait for anything that takes milliseconds on an idle machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Answers on descriptor 3. `FLOOD` megabytes are printed first, in lines of `LINE` bytes; with `LINE=0` in one.
pub(crate) const SERVER: &str = r#"
import os, socket, sys, threading
flood, line = int(os.environ.get("FLOOD", "0")), int(os.environ.get("LINE", "100"))
def print_it():
    chunk = b"x" * (1 << 20) if line == 0 else (b"x" * (line - 1) + b"\n") * ((1 << 20) // line)
    out = sys.stdout.buffer
    for _ in range(flood):
        out.write(chunk)
    out.write(b"\nprinted all\n")
    out.flush()
threading.Thread(target=print_it, daemon=True).start()
answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"
def serve(connection):
    with connection:
        if connection.recv(65536):
            connection.sendall(answer)
listener = socket.socket(fileno=3)
listener.setblocking(True)
while True:
    connection, _ = listener.accept()
    threading.Thread(target=serve, args=(connection,), daemon=True).start()
"#;

/// Writes the configuration of the app `web` with these keys; returns its port.
pub(crate) fn web(home: &Home, keys: &str) -> u16 {
    let port = free_port();
    home.write("server.py", SERVER);
    let command = "command = [\"python3\", \"server.py\"]";
    home.write("web.toml", &format!("[agent.web]\n{command}\nlisten = \"127.0.0.1:{port}\"\n{keys}\n"));
    port
}

/// Whether the app on this port answers.
pub(crate) fn serves(port: u16) -> bool {
    answer(port).is_ok_and(|body| body == "ok")
}

/// Looks again and again, until it is so.
pub(crate) fn until(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < deadline, "not so after {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What the daemon says is wrong with its surroundings.
pub(crate) fn notes(daemon: &Daemon) -> String {
    daemon.ctl_ok(&["daemon", "status"]).stdout
}

/// Resident memory of a process, in KiB.
pub(crate) fn memory_kib(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has memory");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Whether the tests may mount and become others; says so where they may not.
pub(crate) fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("skipped: it takes root");
    }
    root
}
