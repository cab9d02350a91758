//! Running a command to its end, within a deadline.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::process::ProcessEnd;

/// What a command printed, and how it ended.
#[derive(Clone, Debug)]
pub struct Output {
    /// The command, for messages.
    pub command: String,
    /// Exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Output {
    /// Standard output read as one JSON value.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn json<T: DeserializeOwned>(&self) -> T {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("failed to read JSON ({error}) of {self:?}"))
    }
}

/// Runs a command that must end by itself within `patience`.
///
/// # Panics
/// When it cannot be started, or does not end in time: it is killed then.
pub(super) fn run(command: &mut Command, patience: Duration) -> Output {
    let text = format!("{command:?}");
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("failed to start {text}: {error}"));
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    let in_time = ended_within(&child, patience);
    if !in_time {
        // It is our own child and not waited for, so the number is still its own.
        let _ = child.kill();
    }
    let status = child.wait().unwrap_or_else(|error| panic!("failed to wait for {text}: {error}"));
    let [stdout, stderr] = [stdout, stderr].map(|reader| reader.join().expect("reading a pipe does not panic"));
    let output = Output { command: text, code: status.code(), stdout, stderr };
    assert!(in_time, "did not end within {patience:?}: {output:#?}");
    output
}

/// Whether a child that nobody has waited for ended within this time.
pub(super) fn ended_within(child: &Child, patience: Duration) -> bool {
    ProcessEnd::of(child.id()).is_none_or(|process| process.within(patience))
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // What was read before a failure is worth showing.
            let _ = pipe.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
