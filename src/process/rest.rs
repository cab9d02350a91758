//! What a process of ours holds in memory while nothing happens: no more of its own code than waiting takes.
//!
//! A supervisor is at rest most of its life, beside workers that could use the memory. Of its code a start needs ten times what
//! waiting does. The kernel keeps what is mapped for those who mapped it, and lets go first of what nobody has mapped; what is
//! used again is mapped again, from the page cache.
//!
//! What can go wrong: the kernel refuses. The code stays where it is, then.

use std::time::Duration;

use rustix::event::{PollFd, Timespec, poll};
use rustix::io::Errno;

use super::sys;

/// How long nothing has to happen. What happens more often finds all code in place.
pub const AFTER: Duration = Duration::from_secs(2);

/// Lets go of this program's code.
pub fn let_go() {
    if let Err(error) = sys::let_go_of_program() {
        tracing::debug!(%error, "its code stays in memory");
    }
}

/// As `poll`, but lets go of this program's code when nothing comes for a while. Waits longer than `patience` by that while.
///
/// # Errors
/// As of `poll`.
pub fn poll_and_let_go(polled: &mut [PollFd<'_>], patience: Option<&Timespec>) -> Result<usize, Errno> {
    const FIRST: Timespec = Timespec { tv_sec: AFTER.as_secs().cast_signed(), tv_nsec: 0 };
    match poll(polled, Some(&FIRST)) {
        Ok(0) => {
            let_go();
            poll(polled, patience)
        }
        other => other,
    }
}
