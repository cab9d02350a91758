//! Lines cut from bytes: newline-delimited JSON, as both sockets speak it.
//!
//! Owns: the buffer between reads, and its bound. Does no I/O: bytes are fed in, lines come out, so that a blocking
//! client and an asynchronous daemon share it. Empty lines, and the `\r` of a `\r\n`, are dropped. What a line
//! holds is not looked at.

use thiserror::Error;

/// Longest line that the daemon takes from a client, in bytes without its end.
pub const REQUEST_MAX: usize = 1024 * 1024;

/// Longest line that a client needs to take from the daemon, in bytes without its end: a document of many apps.
pub const RESPONSE_MAX: usize = 64 * 1024 * 1024;

/// A line went beyond the bound. Nothing after it can be read from the same connection.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("read a line: it is longer than {max} bytes")]
pub struct LineTooLong {
    /// The bound in bytes.
    pub max: usize,
}

/// Bytes in, lines out. Holds at most the longest line and what was fed last.
#[derive(Debug)]
pub struct LineDecoder {
    buffer: Vec<u8>,
    /// Bytes of `buffer` before this were given out.
    start: usize,
    /// Bytes of `buffer` before this hold no line end that was not given out.
    scanned: usize,
    max: usize,
    /// A line went beyond the bound: nothing is taken any more.
    failed: bool,
}

impl LineDecoder {
    /// A decoder for lines of at most `max` bytes.
    #[must_use]
    pub const fn new(max: usize) -> Self {
        Self { buffer: Vec::new(), start: 0, scanned: 0, max, failed: false }
    }

    /// Adds bytes as they were read. Take every line with [`next_line`](Self::next_line) before feeding again: only
    /// then the bound holds.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.failed {
            return;
        }
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.scanned -= self.start;
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Whether more is here than a line that has not ended. An empty line, which is dropped, counts.
    #[must_use]
    pub fn has_line(&self) -> bool {
        memchr::memchr(b'\n', &self.buffer[self.scanned..]).is_some()
    }

    /// The next whole line, without its end; none when more must be fed.
    ///
    /// # Errors
    /// When a line, whole or not, is longer than the bound. The decoder then gives nothing else.
    pub fn next_line(&mut self) -> Result<Option<&[u8]>, LineTooLong> {
        loop {
            if self.failed {
                return Err(LineTooLong { max: self.max });
            }
            let Some(at) = memchr::memchr(b'\n', &self.buffer[self.scanned..]) else {
                self.scanned = self.buffer.len();
                if self.partial() <= self.max {
                    return Ok(None);
                }
                self.fail();
                continue;
            };
            let (start, end) = (self.start, self.scanned + at);
            if end - start > self.max {
                self.fail();
                continue;
            }
            self.start = end + 1;
            self.scanned = self.start;
            let line = self.buffer[start..end].strip_suffix(b"\r").map_or(end, |l| start + l.len());
            if line > start {
                return Ok(Some(&self.buffer[start..line]));
            }
        }
    }

    fn fail(&mut self) {
        self.failed = true;
        (self.buffer, self.start, self.scanned) = (Vec::new(), 0, 0);
    }

    /// How many bytes of an unfinished line are held.
    #[must_use]
    pub const fn partial(&self) -> usize {
        self.buffer.len() - self.start
    }

    /// At end of file: what came after the last line end, as a line of its own. A client that ends its only line by
    /// closing is understood.
    #[must_use]
    pub fn take_rest(&mut self) -> Option<Vec<u8>> {
        let rest = self.buffer.split_off(self.start);
        (self.buffer, self.start, self.scanned) = (Vec::new(), 0, 0);
        (rest.len() <= self.max && !rest.iter().all(u8::is_ascii_whitespace)).then_some(rest)
    }
}
