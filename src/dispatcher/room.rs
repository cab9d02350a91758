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

/// About as many a start takes.
const PER_START: u64 = 10;

impl Dispatcher {
    /// Whether there are descriptors for another worker, or can be.
    pub(super) fn has_room(&mut self) -> Result<(), Obstacle> {
        if self.lacks_room().is_some() {
            self.clear_away();
        }
        let Some((used, limit)) = self.lacks_room() else { return Ok(()) };
        let why = format!(
            "could not be started: {used} of the {limit} files that the daemon may open are in use, and the rest is kept for \
             those who want to talk to it; raise LimitNOFILE= of the unit, or ulimit -Hn"
        );
        Err(Obstacle { why, permanent: false })
    }

    /// How many are in use and may be, where that leaves none for another worker.
    fn lacks_room(&self) -> Option<(u64, u64)> {
        self.files_in_use().filter(|(used, limit)| used + PER_START + KEPT_BACK > *limit)
    }

    /// How many workers more could be started.
    pub(super) fn starts_to_spare(&self) -> u32 {
        let files = self.files_in_use().map_or(u64::MAX, |(used, limit)| limit.saturating_sub(used + KEPT_BACK));
        u32::try_from(files / PER_START).unwrap_or(u32::MAX)
    }

    /// How many are in use, and how many may be.
    fn files_in_use(&self) -> Option<(u64, u64)> {
        let (limit, _) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
        // The kernel gives out the lowest free number: all below it are in use.
        match fcntl_dupfd_cloexec(&self.launcher, 0) {
            Ok(lowest) => Some((u64::try_from(lowest.as_raw_fd()).ok()?, limit)),
            Err(Errno::MFILE) => Some((limit, limit)),
            Err(_) => None,
        }
    }
}
