//! Following sources as they grow: `agentctl logs -f`.
//!
//! A follower is polled: when [`LogThread::grew`](super::thread::LogThread::grew) changed, when its last batch says so, and
//! once after it was made. It goes on across rotations, because it keeps the file it reads open and looks for the
//! successors of that file, not of its name. One that is so slow that files are rotated away unread goes on with the
//! oldest that is left.

use std::time::Instant;

use super::layout::Source;
use super::line::{HOLD, Line, merge};
use super::read::{ReadError, Start, from_start};
use super::reader::SourceReader;

/// Bytes of one source in one batch, so that one that prints much delays the others little.
const BATCH_BYTES: u64 = 256 << 10;

/// When a follower wants to be polled again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PollAgain {
    /// At once: there is more.
    Now,
    /// When something grew, and at this moment at the latest: a line without its newline waits to be shown.
    At(Instant),
    /// When something grew.
    OnGrowth,
}

/// What a poll brought.
#[derive(Debug, PartialEq, Eq)]
pub struct Batch {
    /// New lines, by time.
    pub lines: Vec<Line>,
    /// What to wait for before the next poll.
    pub again: PollAgain,
}

/// Yields the lines of several sources as they come.
#[derive(Debug)]
pub struct Follower {
    readers: Vec<SourceReader>,
}

impl Follower {
    /// Starts where `start` says: the lines from there on, and the follower of what comes after them. A last line
    /// without its newline is left to the follower.
    ///
    /// # Errors
    /// [`ReadError`], the first one met.
    pub fn start(sources: &[Source], start: Start) -> Result<(Vec<Line>, Self), ReadError> {
        let now = Instant::now();
        let (mut readers, mut lists) = (Vec::new(), Vec::new());
        for source in sources {
            let mut reader = SourceReader::open(source, start)?;
            let mut lines = Vec::new();
            reader.read(reader.remaining()?, now, &mut lines)?;
            readers.push(reader);
            lists.push(lines);
        }
        Ok((from_start(merge(lists), start), Self { readers }))
    }

    /// Follows `source` too, from its beginning: a slot that was added. One that is followed already is left alone.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn add(&mut self, source: &Source) -> Result<(), ReadError> {
        if self.readers.iter().all(|reader| reader.source() != source) {
            self.readers.push(SourceReader::open(source, Start::Since { time_us: 0 })?);
        }
        Ok(())
    }

    /// The lines that came since the last poll. `now` decides which lines without a newline waited long enough
    /// ([`HOLD`]).
    ///
    /// # Errors
    /// [`ReadError`], the first one met; what was read before is lost, so the follower should be given up.
    pub fn poll(&mut self, now: Instant) -> Result<Batch, ReadError> {
        let mut lists = Vec::with_capacity(self.readers.len());
        let mut more = false;
        for reader in &mut self.readers {
            let mut lines = Vec::new();
            more |= reader.read(BATCH_BYTES, now, &mut lines)?;
            if let Some(before) = now.checked_sub(HOLD) {
                reader.flush(before, &mut lines);
            }
            lists.push(lines);
        }
        let waiting = self.readers.iter().filter_map(SourceReader::waiting_since).min();
        let again = match waiting {
            _ if more => PollAgain::Now,
            Some(since) => PollAgain::At(since + HOLD),
            None => PollAgain::OnGrowth,
        };
        Ok(Batch { lines: merge(lists), again })
    }

    /// Ends: the lines whose newline never came.
    #[must_use]
    pub fn finish(mut self) -> Vec<Line> {
        let now = Instant::now();
        let flush = |reader: &mut SourceReader| {
            let mut lines = Vec::new();
            reader.flush(now, &mut lines);
            lines
        };
        merge(self.readers.iter_mut().map(flush).collect())
    }
}

#[cfg(test)]
#[path = "follow_tests.rs"]
mod tests;
