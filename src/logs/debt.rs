//! What was lost of a stream, and of which its log does not yet tell.
//!
//! Owns the counting and the sentence. When lines are lost, and when that can be told, is up to the place that they go to.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;

/// Bytes that are dropped at once.
const SCRATCH_BYTES: usize = 64 << 10;

/// What is missing in a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Debt {
    pub(super) bytes: u64,
    /// Newlines among them.
    pub(super) lines: u64,
    /// Why the last of them were not taken.
    pub(super) reason: String,
}

impl Debt {
    /// The reason as the line in the log gives it: "no space left on device".
    pub(super) fn reason_of(error: &io::Error) -> String {
        let text = error.to_string();
        text.split(" (os error").next().unwrap_or(&text).to_lowercase()
    }

    /// Drops what waits in `pipe`, at most about `max` bytes, and counts it. How many bytes that were.
    pub(super) fn drop_waiting(&mut self, pipe: &OwnedFd, max: usize, reason: String) -> u64 {
        let mut scratch = [0; SCRATCH_BYTES];
        let mut bytes = 0;
        while bytes < max {
            // The pipe does not block: an error is an empty one.
            let Ok(got) = rustix::io::read(pipe, &mut scratch) else { break };
            if got == 0 {
                break;
            }
            bytes += got;
            self.lines += scratch[..got].iter().filter(|&&byte| byte == b'\n').count() as u64;
        }
        self.bytes += bytes as u64;
        self.reason = reason;
        bytes as u64
    }
}

impl fmt::Display for Debt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bytes, lines, reason } = self;
        write!(f, "[agentd] {lines} lines dropped ({bytes} bytes): {reason}")
    }
}
