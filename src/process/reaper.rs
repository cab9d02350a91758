//! The one place that reaps: how processes ended.
//!
//! Owns `waitpid(-1)`. Nothing else in the daemon may wait for a process, or an end is lost. Reaps whatever has ended,
//! orphans that became ours included: whose a process was is for the caller to know.

use std::fmt;
use std::io;

use agentd_core::id::Pid;
use nix::sys::signal::Signal;
use rustix::io::Errno;
use rustix::process::{WaitOptions, WaitStatus, wait};

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this status.
    Code(i32),
    /// By a signal.
    Signal {
        /// The signal's number.
        number: i32,
        /// Whether the kernel wrote a core file.
        core_dumped: bool,
    },
}

impl Exit {
    fn of(status: WaitStatus) -> Option<Self> {
        const CORE_DUMPED: i32 = 0x80;
        let core_dumped = status.as_raw() & CORE_DUMPED != 0;
        let by_signal = || status.terminating_signal().map(|number| Self::Signal { number, core_dumped });
        status.exit_status().map(Self::Code).or_else(by_signal)
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Code(code) => write!(f, "exited with status {code}"),
            Self::Signal { number, core_dumped } => {
                match Signal::try_from(number) {
                    Ok(signal) => write!(f, "killed by {signal}")?,
                    // A real-time signal has no name.
                    Err(_) => write!(f, "killed by signal {number}")?,
                }
                f.write_str(if core_dumped { " (core dumped)" } else { "" })
            }
        }
    }
}

/// Makes orphaned descendants of this process its children, instead of the init process's. Once, at start.
///
/// # Errors
/// What `prctl` refused: nothing, on Linux.
pub fn adopt_orphans() -> io::Result<()> {
    Ok(nix::sys::prctl::set_child_subreaper(true)?)
}

/// Reaps every child that has ended, in the order the kernel gives. To be called at each SIGCHLD, and once at start:
/// signals coalesce, ends do not.
#[must_use]
pub fn reap() -> Vec<(Pid, Exit)> {
    let mut ended = Vec::new();
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) => ended.extend(Exit::of(status).map(|exit| (super::our_pid(pid), exit))),
            Err(Errno::INTR) => {}
            // None has ended; there is none (ECHILD).
            Ok(None) | Err(_) => return ended,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_told_in_words() {
        assert_eq!(Exit::Code(3).to_string(), "exited with status 3");
        assert_eq!(Exit::Signal { number: 9, core_dumped: false }.to_string(), "killed by SIGKILL");
        assert_eq!(Exit::Signal { number: 11, core_dumped: true }.to_string(), "killed by SIGSEGV (core dumped)");
        assert_eq!(Exit::Signal { number: 40, core_dumped: false }.to_string(), "killed by signal 40");
    }
}
