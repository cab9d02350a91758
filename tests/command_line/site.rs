//! An app that answers with a text of its configuration, and what is asked of it.

use std::time::Duration;

use agentd_testkit::e2e::{Daemon, Output, free_port};

pub(crate) const AGENTD: &str = env!("CARGO_BIN_EXE_agentd");

/// Longest wait for anything that takes milliseconds on an idle machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Answers `ANSWER`, its arguments, or on `/pid` its process; prints a line when it begins, and one for SIGUSR1.
pub(crate) const SERVER: &str = r#"
import os, signal, socket, sys, threading

signal.signal(signal.SIGUSR1, lambda *_: print("got SIGUSR1", flush=True))
body = (os.environ.get("ANSWER") or " ".join(sys.argv[1:]) or "ok").encode()
answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body
print("begun by", os.environ["AGENTD_APP"], flush=True)

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

/// A daemon with the app `web`: two workers on a port.
pub(crate) fn site() -> (Daemon, u16) {
    let daemon = Daemon::start(AGENTD);
    let port = free_port();
    daemon.config("server.py", SERVER);
    daemon.config("web.toml", &server("web", port));
    daemon.ctl_ok(&["start", "./web.toml"]);
    (daemon, port)
}

/// The table of an app that serves on a port with two workers.
pub(crate) fn server(name: &str, port: u16) -> String {
    format!("[agent.{name}]\ncommand = [\"python3\", \"server.py\"]\nworkers = 2\nlisten = \"127.0.0.1:{port}\"\n")
}

/// What the app on this port answers.
pub(crate) fn answer(port: u16) -> String {
    agentd_testkit::e2e::answer(port).expect("it answers in time")
}

/// Asserts how a command ended.
#[track_caller]
pub(crate) fn assert_code(output: &Output, code: i32) {
    assert_eq!(output.code, Some(code), "{output:#?}");
}
