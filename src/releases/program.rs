//! Running one foreign program to its end or its deadline, with everything that it starts.
//!
//! What it prints goes to a log, of which a bounded part is kept, and its last lines are remembered. When its first
//! process has ended, or its time is up, all that it started is ended too: nothing of a build goes on after it.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use camino::Utf8Path;
use nix::sys::signal::Signal;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{PidfdFlags, pidfd_open};

use super::error::CutError;
use crate::process::descendants;

/// Bytes of what a program prints that are kept.
const LOG_MAX: u64 = 8 << 20;
/// Last lines that are remembered.
const TAIL: usize = 20;
/// Longest line that is remembered, in bytes.
const LINE_MAX: u64 = 1 << 10;

/// What to run, and how.
#[derive(Debug)]
pub(super) struct Program<'a> {
    /// Program and arguments; at least the program.
    pub(super) argv: &'a [String],
    /// Where.
    pub(super) cwd: &'a Utf8Path,
    /// With which environment, and no other.
    pub(super) env: &'a BTreeMap<String, String>,
    /// For how long at most.
    pub(super) timeout: Duration,
}

/// How it ended.
#[derive(Debug)]
pub(super) struct Ran {
    /// In words, unless it succeeded: "exited with status 1", "did not end within 5s".
    pub(super) failure: Option<String>,
    /// Its last lines.
    pub(super) tail: Vec<String>,
}

impl Program<'_> {
    /// Runs it. Nothing of it is left alive afterwards.
    ///
    /// # Errors
    /// It could not be started or not be ended.
    pub(super) fn run(&self, log: Option<&mut File>) -> Result<Ran, CutError> {
        let name = self.argv.first().cloned().unwrap_or_default();
        let failed = |source| CutError::Run { program: name.clone(), source };
        let (output, input) = io::pipe().map_err(failed)?;
        let mut command = Command::new(&name);
        command.args(&self.argv[1..]).current_dir(self.cwd).env_clear().envs(self.env);
        command.stdin(Stdio::null()).stdout(input.try_clone().map_err(failed)?).stderr(input).process_group(0);
        let mut child = command.spawn().map_err(failed)?;
        // It holds the writing ends: without them gone, the output would never end.
        drop(command);
        let (in_time, tail) = std::thread::scope(|scope| {
            let reader = scope.spawn(move || keep(output, log));
            let in_time = ended_within(&child, self.timeout);
            let ended = descendants::end_all();
            let tail = reader.join().expect("reading a pipe does not panic");
            ended.map(|()| (in_time, tail))
        })
        .map_err(failed)?;
        let status = child.wait().map_err(failed)?;
        let failure = if in_time { in_words(status) } else { Some(format!("did not end within {:?}", self.timeout)) };
        Ok(Ran { failure, tail })
    }
}

/// Whether a child ends within this time.
fn ended_within(child: &Child, timeout: Duration) -> bool {
    let pid = rustix::process::Pid::from_child(child);
    let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { return false };
    let deadline = Instant::now() + timeout;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = rustix::event::Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&left)) {
            Ok(0) => return false,
            Ok(_) => return true,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

fn in_words(status: ExitStatus) -> Option<String> {
    match (status.code(), status.signal()) {
        (Some(0), _) => None,
        (Some(code), _) => Some(format!("exited with status {code}")),
        (None, Some(number)) => Some(match Signal::try_from(number) {
            Ok(signal) => format!("was ended by {signal}"),
            Err(_) => format!("was ended by signal {number}"),
        }),
        (None, None) => Some("ended in a way that nobody knows".to_owned()),
    }
}

/// Reads to the end, keeps the beginning in the log and the last lines in memory.
fn keep(output: io::PipeReader, mut log: Option<&mut File>) -> Vec<String> {
    let mut output = BufReader::new(output);
    let (mut tail, mut written, mut line) = (VecDeque::new(), 0_u64, Vec::new());
    loop {
        line.clear();
        match (&mut output).take(LINE_MAX).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
        if let Some(file) = log.as_mut().filter(|_| written < LOG_MAX) {
            written += line.len() as u64;
            // A log that cannot be written must not stop what it is about; the last lines are there all the same.
            if file.write_all(&line).is_err() {
                log = None;
            } else if written >= LOG_MAX {
                let _ = file.write_all(b"\n(the rest is not kept)\n");
            }
        }
        if tail.len() == TAIL {
            tail.pop_front();
        }
        tail.push_back(String::from_utf8_lossy(&line).trim_end().to_owned());
    }
    tail.into()
}
