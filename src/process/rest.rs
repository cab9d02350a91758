//! What a process of ours holds in memory while nothing happens: no more of its own code than waiting takes.
//!
//! A supervisor is at rest most of its life, beside workers that could use the memory. Of its code a start needs ten times what
//! waiting does. The kernel keeps what is mapped for those who mapped it, and lets go first of what nobody has mapped; what is
//! used again is mapped again, from the page cache.
//!
//! The keeper takes no part: it is there for when everything else goes wrong, a disk that cannot be read any more among it.
//!
//! What can go wrong: the kernel refuses. The code stays where it is, then. A debugger's breakpoints go with the code.

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

/// Waits for one of `polled`, and lets go of this program's code when none comes for a while.
///
/// # Errors
/// As of `poll`.
pub fn await_and_let_go(polled: &mut [PollFd<'_>]) -> Result<usize, Errno> {
    const WHILE: Timespec = Timespec { tv_sec: AFTER.as_secs().cast_signed(), tv_nsec: 0 };
    match poll(polled, Some(&WHILE)) {
        Ok(0) => {
            let_go();
            poll(polled, None)
        }
        other => other,
    }
}
