//! Speaking the task protocol and asking the daemon of tasks, by hand: what a test needs to say anything at all.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use agentd_protocol::control::{Call, Command, RequestId};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Value, json};

use super::daemon::Daemon;

/// Longest wait for an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// A connection to `worker.sock` that says what it is told to.
#[derive(Debug)]
pub struct Speaker {
    lines: BufReader<UnixStream>,
    n: u64,
}

impl Speaker {
    /// Connects; says nothing.
    ///
    /// # Panics
    /// When nobody listens.
    #[must_use]
    pub fn dial(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).unwrap_or_else(|error| panic!("{}: {error}", socket.display()));
        stream.set_read_timeout(Some(ANSWER_WITHIN)).expect("a timeout that is not zero");
        Self { lines: BufReader::new(stream), n: 0 }
    }

    /// Connects and says hello with this token.
    ///
    /// # Panics
    /// When it is not welcome.
    #[must_use]
    pub fn hello(socket: &Path, token: &str, max_tasks: u32) -> Self {
        let mut speaker = Self::dial(socket);
        let welcome = speaker.ask(json!({"t":"hello","proto":"agentd/1","token":token,"max_tasks":max_tasks}));
        assert_eq!(welcome["ok"], true, "{welcome}");
        speaker
    }

    /// Sends bytes as they are.
    ///
    /// # Panics
    /// When the other side is gone.
    pub fn send(&mut self, bytes: &[u8]) {
        self.lines.get_mut().write_all(bytes).unwrap_or_else(|error| panic!("failed to send: {error}"));
    }

    /// Sends a request under a number and waits for its answer; what comes before is dropped.
    ///
    /// # Panics
    /// When it is not answered.
    pub fn ask(&mut self, request: Value) -> Value {
        self.n += 1;
        let mut request = request;
        request["n"] = self.n.into();
        self.send(format!("{request}\n").as_bytes());
        loop {
            let line = self.next().expect("an answer, not the end");
            if line["re"] == self.n {
                return line;
            }
        }
    }

    /// Waits as a worker's event loop does. Who waits in `read` itself is woken by Linux as well when the daemon has taken
    /// what it was sent, long before there is an answer.
    fn await_bytes(&self) {
        let patience = Timespec::try_from(ANSWER_WITHIN).expect("some seconds");
        // What goes wrong here goes wrong with the read behind it, and is told there.
        let _ = poll(&mut [PollFd::new(self.lines.get_ref(), PollFlags::IN)], Some(&patience));
    }

    /// Waits for a message of this type.
    ///
    /// # Panics
    /// When it does not come.
    pub fn await_message(&mut self, t: &str) -> Value {
        loop {
            let line = self.next().expect("a message, not the end");
            if line["t"] == t {
                return line;
            }
        }
    }
}

/// The lines that come; none when the connection is closed. Panics when none comes in time, or it is no JSON.
impl Iterator for Speaker {
    type Item = Value;

    fn next(&mut self) -> Option<Value> {
        let mut line = String::new();
        if self.lines.buffer().is_empty() {
            self.await_bytes();
        }
        match self.lines.read_line(&mut line) {
            Ok(0) => None,
            Ok(_) => Some(serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in {line}"))),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => None,
            Err(error) => panic!("no line came: {error}"),
        }
    }
}

impl Daemon {
    /// Asks for something on the control socket.
    ///
    /// # Errors
    /// The error's message, when it is refused.
    ///
    /// # Panics
    /// When the daemon does not answer.
    pub fn request<C: Command>(&self, command: C) -> Result<C::Reply, String> {
        let stream = UnixStream::connect(self.home.path().join("run/control.sock")).expect("the daemon listens");
        stream.set_read_timeout(Some(ANSWER_WITHIN)).expect("a timeout that is not zero");
        let call = Call { id: RequestId::Number(1), request: command.into() };
        (&stream).write_all(format!("{}\n", call.encode()).as_bytes()).expect("the daemon reads");
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).expect("the daemon answers");
        let mut answer: Value = serde_json::from_str(&line).expect("an answer is JSON");
        match answer.get("error") {
            Some(error) => Err(error["message"].as_str().unwrap_or_default().to_owned()),
            None => Ok(serde_json::from_value(answer["result"].take()).expect("the reply that belongs to the request")),
        }
    }

    /// Where workers tell of their tasks.
    #[must_use]
    pub fn worker_socket(&self) -> std::path::PathBuf {
        self.home.path().join("run/worker.sock")
    }
}
