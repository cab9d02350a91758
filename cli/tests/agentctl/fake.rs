//! A daemon played by threads over real Unix sockets, and `agentctl` run against it with a deadline.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use agentd_protocol::control::{
    Accepted, Call, ErrorObject, HelloReply, Notice, OperationKind, OperationView, PROTOCOL, Request, RequestId, Role,
    ServerMessage,
};
use agentd_protocol::events::Event;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// No command may take longer; a test that waits this long has failed.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// Answers one call; gets the request and where to say what.
pub(crate) type Script = fn(Request, &mut Answering);

/// What a played daemon has to say.
#[derive(Clone)]
pub(crate) struct Play {
    /// Its status document.
    pub(crate) document: Value,
    /// What happened, for those who watch.
    pub(crate) watch: Vec<Value>,
    /// The control protocol that it speaks.
    pub(crate) protocol: u32,
    /// How it answers.
    pub(crate) script: Script,
}

impl Play {
    /// Two apps, and these answers.
    pub(crate) fn answering(script: Script) -> Self {
        Self { document: document(), watch: Vec::new(), protocol: PROTOCOL, script }
    }
}

/// A played daemon. Its threads end with the test program.
pub(crate) struct Daemon {
    /// Holds the home.
    _dir: tempfile::TempDir,
    /// The home.
    pub(crate) home: PathBuf,
}

/// A call that is being answered.
pub(crate) struct Answering {
    id: RequestId,
    stream: UnixStream,
}

impl Answering {
    /// Tells something on the way to the answer.
    pub(crate) fn notice(&mut self, notice: Notice) {
        self.say(&ServerMessage::Notice { call: self.id.clone(), notice });
    }

    /// Tells which operation was admitted.
    pub(crate) fn accept(&mut self, operation: OperationView) {
        self.notice(Notice::Accepted(Accepted { operations: vec![operation] }));
    }

    /// Answers.
    pub(crate) fn done(&mut self, result: Value) {
        self.say(&ServerMessage::Answer { id: Some(self.id.clone()), result: Ok(result) });
    }

    /// Refuses.
    pub(crate) fn refuse(&mut self, error: ErrorObject) {
        self.say(&ServerMessage::Answer { id: Some(self.id.clone()), result: Err(Box::new(error)) });
    }

    /// Tells something and refuses in one breath, so that a client reads both at once.
    pub(crate) fn notice_and_refuse(&mut self, notice: Notice, error: ErrorObject) {
        let notice = ServerMessage::Notice { call: self.id.clone(), notice };
        let refusal = ServerMessage::Answer { id: Some(self.id.clone()), result: Err(Box::new(error)) };
        // A client that went away is part of some tests.
        let _ = self.stream.write_all(format!("{}\n{}\n", notice.encode(), refusal.encode()).as_bytes());
    }

    /// Ends the connection within a line.
    pub(crate) fn end_within_a_line(&mut self) {
        self.stream.write_all(br#"{"jsonrpc":"2.0","method":"lo"#).unwrap();
        self.hang_up();
    }

    /// Closes the connection.
    pub(crate) fn hang_up(&mut self) {
        self.stream.shutdown(Shutdown::Both).unwrap();
    }

    fn say(&mut self, message: &ServerMessage) {
        // A client that went away is part of some tests.
        let _ = writeln!(self.stream, "{}", message.encode());
    }
}

impl Daemon {
    /// A home without a daemon.
    pub(crate) fn absent() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("home");
        fs::create_dir_all(home.join("run")).unwrap();
        Self { _dir: dir, home }
    }

    /// A daemon that plays this.
    pub(crate) fn playing(play: &Play) -> Self {
        let daemon = Self::absent();
        serve(&daemon.home, play);
        daemon
    }

    /// A daemon that answers calls and has two apps.
    pub(crate) fn answering(script: Script) -> Self {
        Self::playing(&Play::answering(script))
    }

    /// `agentctl` with these arguments, in this home, with nothing from the tester's environment but `PATH`.
    pub(crate) fn agentctl(&self, line: &str) -> Command {
        self.program(Path::new(env!("CARGO_BIN_EXE_agentctl")), line)
    }

    /// The same with another copy of the program.
    pub(crate) fn program(&self, program: &Path, line: &str) -> Command {
        let mut command = Command::new(program);
        command.args(line.split_whitespace()).env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        command.env("AGENTD_HOME", &self.home).current_dir(&self.home);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs `agentctl` to its end.
    pub(crate) fn run(&self, line: &str) -> Ended {
        end(self.agentctl(line).spawn().unwrap())
    }
}

/// Binds both sockets of `home` and answers on them.
pub(crate) fn serve(home: &Path, play: &Play) {
    // Through the folder, as a home may be too deep for an address.
    let run = fs::File::open(home.join("run")).unwrap();
    let bind = |name: &str| UnixListener::bind(format!("/proc/self/fd/{}/{name}", run.as_raw_fd())).unwrap();
    // In the order in which a client looks: who finds the last can use the first.
    let (status, control) = (bind("status.sock"), bind("control.sock"));
    let told = play.clone();
    thread::spawn(move || {
        for stream in status.incoming() {
            let told = told.clone();
            thread::spawn(move || tell_status(stream.unwrap(), &told));
        }
    });
    let (script, protocol) = (play.script, play.protocol);
    thread::spawn(move || {
        for stream in control.incoming() {
            thread::spawn(move || answer_calls(stream.unwrap(), script, protocol));
        }
    });
}

fn tell_status(mut stream: UnixStream, play: &Play) {
    let mut asked = String::new();
    BufReader::new(stream.try_clone().unwrap()).read_line(&mut asked).unwrap();
    // Here and below: a client that went away is part of some tests.
    let _ = writeln!(stream, "{}", play.document);
    let asked: Value = serde_json::from_str(&asked).unwrap_or_default();
    if asked["watch"] != json!(true) {
        return;
    }
    let since = asked["since"].as_u64().unwrap_or(0);
    for event in play.watch.iter().filter(|event| event["seq"].as_u64().unwrap() > since) {
        let _ = writeln!(stream, "{event}");
    }
    // A watch goes on until the client closes it.
    let _ = stream.read(&mut [0]);
}

fn answer_calls(stream: UnixStream, script: Script, protocol: u32) {
    for line in BufReader::new(stream.try_clone().unwrap()).lines() {
        let Ok(line) = line else { return };
        let call = Call::decode(line.as_bytes()).unwrap();
        let mut answering = Answering { id: call.id, stream: stream.try_clone().unwrap() };
        match call.request {
            Request::Hello(_) => answering.done(json!(hello(protocol))),
            request => script(request, &mut answering),
        }
    }
}

/// The greeting of a daemon that speaks `protocol`.
fn hello(protocol: u32) -> HelloReply {
    HelloReply { protocol, version: "0.1.0".into(), instance: "one".into(), pid: 812, role: Role::Operate }
}

/// What a command left.
pub(crate) struct Ended {
    /// Its exit code.
    pub(crate) code: i32,
    /// What it printed.
    pub(crate) stdout: String,
    /// What it complained of.
    pub(crate) stderr: String,
}

impl Ended {
    /// Its only line of output as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error} in {:?}", self.stdout))
    }

    /// Its exit code, with all it said when it is another than wanted.
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }
}

/// Waits for the end of `child`, and ends it itself when it takes too long.
pub(crate) fn end(child: Child) -> Ended {
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    let (ended, end) = mpsc::channel();
    thread::spawn(move || ended.send(child.wait_with_output()));
    let Ok(output) = end.recv_timeout(DEADLINE) else {
        let _ = kill(pid, Signal::SIGKILL);
        panic!("agentctl did not end within {DEADLINE:?}");
    };
    let Output { status, stdout, stderr } = output.unwrap();
    Ended {
        code: status.code().unwrap_or_else(|| panic!("agentctl ended by {status}")),
        stdout: String::from_utf8(stdout).unwrap(),
        stderr: String::from_utf8(stderr).unwrap(),
    }
}

/// A document with `support` running and `triage` failed.
pub(crate) fn document() -> Value {
    json!({
        "schema": 1, "instance": "one", "pid": 812, "version": "0.1.0", "started_at": "2026-01-01T00:00:00Z",
        "now": "2026-01-02T12:00:00Z", "seq": 3, "apps": [
            { "name": "support", "kind": "agent", "state": "running", "release": "r1", "desired": 1, "ready": 1,
              "in_flight": 3, "grace_ms": 1000, "deployment": null, "listen": { "http": "0.0.0.0:8080" }, "workers": [
                { "id": "support.0.17", "slot": 0, "generation": 17, "release": "r1", "pid": 4242, "state": "ready",
                  "weight": 100, "restarts": 0, "started_at": "2026-01-02T11:00:00Z", "in_flight": 3,
                  "oldest_task_ms": null, "drain_deadline": null, "memory_bytes": 1000, "cpu_percent": 0.5,
                  "last_exit": null }] },
            { "name": "triage", "kind": "agent", "state": "failed", "release": "r1", "desired": 1, "ready": 0,
              "in_flight": 0, "grace_ms": 1000, "deployment": null, "workers": [],
              "why": "exited with code 1, 10 times within 5m" }],
        "of_a_later_version": true
    })
}

/// An event about `support`.
pub(crate) fn event(seq: u64, what: &Value) -> Value {
    json!({ "seq": seq, "at": "2026-01-02T12:00:00Z", "app": "support", "worker": "support.0.18", "event": what })
}

/// The same as the type.
pub(crate) fn typed_event(seq: u64, what: &Value) -> Event {
    serde_json::from_value(event(seq, what)).unwrap()
}

/// A reload of `support` that was admitted as 17.
pub(crate) fn reload() -> OperationView {
    OperationView { id: 17, app: "support".into(), kind: OperationKind::Reload, already: false, note: None }
}

/// A script for tests in which nothing is asked.
pub(crate) fn silent(request: Request, _: &mut Answering) {
    panic!("nothing was to be asked, and {} was", request.method());
}
