//! Descriptors that are kept back from starts.
//!
//! Each worker takes about ten of the daemon's. A start that took the last ones would leave a daemon that nobody can reach:
//! a client's connection takes one, and so does looking at what a draining worker has. So a start is put off before that,
//! with the reason, and whoever asks for fewer workers is heard.

use std::os::fd::AsRawFd;

use nix::sys::resource::{Resource, getrlimit};
use rustix::io::{Errno, fcntl_dupfd_cloexec};

use super::Dispatcher;
use super::launch::Obstacle;

/// Descriptors that are left to clients, drains and probes.
const KEPT_BACK: u64 = 32;

impl Dispatcher {
    /// Whether there are descriptors for another worker.
    pub(super) fn has_room(&self) -> Result<(), Obstacle> {
        let Ok((limit, _)) = getrlimit(Resource::RLIMIT_NOFILE) else { return Ok(()) };
        // The kernel gives out the lowest free number: all below it are in use.
        let used = match fcntl_dupfd_cloexec(&self.launcher, 0) {
            Ok(lowest) => u64::try_from(lowest.as_raw_fd()).unwrap_or(0),
            Err(Errno::MFILE) => limit,
            Err(_) => return Ok(()),
        };
        if used + KEPT_BACK <= limit {
            return Ok(());
        }
        let why = format!(
            "could not be started: {used} of the {limit} files that the daemon may open are in use, and the rest is kept for \
             those who want to talk to it; raise LimitNOFILE= of the unit, or ulimit -Hn"
        );
        Err(Obstacle { why, permanent: false })
    }
}
