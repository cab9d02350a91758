//! Processes of a test: found by what stands in their environment, awaited and ended by their descriptor.

use std::fs;
use std::io;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// Longest wait for a stopped process to stand still.
const STILL_WITHIN: Duration = Duration::from_secs(20);

/// A process that is held on to, so that its number cannot come to mean another one.
#[derive(Debug)]
pub struct ProcessEnd {
    pid: u32,
    fd: OwnedFd,
}

impl ProcessEnd {
    /// Takes hold of a process; none when it is gone.
    ///
    /// # Panics
    /// When the kernel refuses for another reason.
    #[must_use]
    pub fn of(pid: u32) -> Option<Self> {
        let number = i32::try_from(pid).ok().and_then(Pid::from_raw)?;
        match pidfd_open(number, PidfdFlags::empty()) {
            Ok(fd) => Some(Self { pid, fd }),
            Err(rustix::io::Errno::SRCH) => None,
            Err(error) => panic!("failed to take hold of process {pid}: {error}"),
        }
    }

    /// Its number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether it has ended within this time. A zombie has ended.
    #[must_use]
    pub fn within(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = Timespec::try_from(left).expect("a patience of less than an age");
            match poll(&mut [PollFd::new(&self.fd, PollFlags::IN)], Some(&timeout)) {
                Ok(0) => return false,
                Ok(_) => return true,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => panic!("failed to wait for process {}: {error}", self.pid),
            }
        }
    }

    /// Stops it where it is, and waits until all of its threads stand still: a signal that was sent is not yet one that
    /// was obeyed. Fine when it is gone.
    ///
    /// # Panics
    /// When a thread goes on for as long as 20 s.
    pub fn freeze(&self) {
        let _ = pidfd_send_signal(&self.fd, Signal::STOP);
        let deadline = Instant::now() + STILL_WITHIN;
        while !self.stands_still() {
            assert!(Instant::now() < deadline, "process {} goes on after SIGSTOP", self.pid);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Whether none of its threads runs: all are stopped or gone.
    fn stands_still(&self) -> bool {
        let Ok(threads) = fs::read_dir(format!("/proc/{}/task", self.pid)) else { return true };
        // What has no status any more has ended.
        let mut statuses = threads.filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("stat")).ok());
        statuses.all(|status| {
            let state = status.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
            matches!(state, Some('T' | 't' | 'Z' | 'X'))
        })
    }

    /// Ends it by SIGKILL; fine when it is gone.
    pub fn kill(&self) {
        // Gone already, or a zombie: both are what is wanted.
        let _ = pidfd_send_signal(&self.fd, Signal::KILL);
    }
}

/// The processes that have `NAME=VALUE` in their environment, zombies and this one left out.
///
/// # Panics
/// When `/proc` cannot be listed.
#[must_use]
pub fn processes_with(name: &str, value: &str) -> Vec<u32> {
    let wanted = format!("{name}={value}").into_bytes();
    let entries = fs::read_dir("/proc").unwrap_or_else(|error| panic!("failed to list /proc: {error}"));
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|&pid| pid != std::process::id() && environment(pid).is_ok_and(|environ| holds(&environ, &wanted)))
        .collect()
}

/// A zombie's is empty, a foreign user's cannot be read.
fn environment(pid: u32) -> io::Result<Vec<u8>> {
    fs::read(format!("/proc/{pid}/environ"))
}

fn holds(environ: &[u8], wanted: &[u8]) -> bool {
    environ.split(|byte| *byte == 0).any(|variable| variable == wanted)
}

/// What a process is, for a message.
pub(super) fn command_line(pid: u32) -> String {
    let text = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    format!("{pid} ({})", String::from_utf8_lossy(&text).replace('\0', " ").trim_end())
}
