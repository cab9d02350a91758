//! Following sources as they grow: `agentctl logs -f`, and `--since` with or without it.
//!
//! A follower is polled: when [`LogThread::grew`](super::thread::LogThread::grew) changed, when its last batch says so, and
//! once after it was made. It goes on across rotations, because it keeps the file it reads open and looks for the
//! successors of that file, not of its name. One that is so slow that files are rotated away unread goes on with the
//! oldest that is left.
//!
//! However far back it begins, it holds a bounded part of each source: a line is given out once no source can still
//! bring an older one out of what lies there.

use std::collections::VecDeque;
use std::time::Instant;

use super::layout::Source;
use super::line::{HOLD, Line, merge};
use super::read::{ReadError, last};
use super::reader::SourceReader;

/// Bytes of one source that are read in one poll.
const BATCH_BYTES: u64 = 64 << 10;

/// From where on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// The last so many lines, over all sources. They are held in memory at once.
    Last(usize),
    /// Everything that came at this time or later. Where a clock went back, approximately.
    Since {
        /// µs since 1970.
        time_us: u64,
    },
}

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

#[derive(Debug)]
struct Followed {
    reader: SourceReader,
    /// Read and not given out, because another source may bring older lines.
    pending: VecDeque<Line>,
    /// Whether the reader has not come to the end yet.
    unread: Unread,
}

/// What lies in a source beyond what was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unread {
    Nothing,
    Perhaps,
}

impl Followed {
    fn new(reader: SourceReader) -> Self {
        Self { reader, pending: VecDeque::new(), unread: Unread::Perhaps }
    }

    fn fill(&mut self, now: Instant) -> Result<(), ReadError> {
        if !self.pending.is_empty() {
            // Another source is being caught up with. What comes here meanwhile stays in the file.
            self.unread = Unread::Perhaps;
            return Ok(());
        }
        let mut lines = Vec::new();
        let more = self.reader.read(BATCH_BYTES, now, &mut lines)?;
        self.unread = if more { Unread::Perhaps } else { Unread::Nothing };
        if let Some(before) = now.checked_sub(HOLD) {
            self.reader.flush(before, &mut lines);
        }
        self.pending.extend(lines);
        Ok(())
    }
}

/// Yields the lines of several sources as they come.
#[derive(Debug)]
pub struct Follower {
    followed: Vec<Followed>,
}

impl Follower {
    /// Starts where `start` says. With [`Start::Last`] those lines are returned and polling gives what comes after them;
    /// with [`Start::Since`] all comes from polling. A last line without its newline is left to polling.
    ///
    /// # Errors
    /// [`ReadError`], the first one met.
    pub fn start(sources: &[Source], start: Start) -> Result<(Vec<Line>, Self), ReadError> {
        let now = Instant::now();
        let (mut followed, mut lists) = (Vec::new(), Vec::new());
        for source in sources {
            followed.push(Followed::new(match start {
                Start::Since { time_us } => SourceReader::since(source, time_us)?,
                Start::Last(count) => {
                    let mut reader = SourceReader::last(source, count)?;
                    let mut lines = Vec::new();
                    reader.read(reader.remaining()?, now, &mut lines)?;
                    lists.push(last(lines, count));
                    reader
                }
            }));
        }
        let lines = merge(lists);
        let lines = match start {
            Start::Last(count) => last(lines, count),
            Start::Since { .. } => lines,
        };
        Ok((lines, Self { followed }))
    }

    /// Follows `source` too, from its beginning: a slot that was added. One that is followed already is left alone.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn add(&mut self, source: &Source) -> Result<(), ReadError> {
        if self.followed.iter().all(|followed| followed.reader.source() != source) {
            self.followed.push(Followed::new(SourceReader::since(source, 0)?));
        }
        Ok(())
    }

    /// The lines that came since the last poll. `now` decides which lines without a newline waited long enough
    /// ([`HOLD`]).
    ///
    /// # Errors
    /// [`ReadError`], the first one met.
    pub fn poll(&mut self, now: Instant) -> Result<Batch, ReadError> {
        for followed in &mut self.followed {
            followed.fill(now)?;
        }
        let mut lines = Vec::new();
        loop {
            let starved = |followed: &Followed| followed.pending.is_empty() && followed.unread == Unread::Perhaps;
            if self.followed.iter().any(starved) {
                return Ok(Batch { lines, again: PollAgain::Now });
            }
            let heads = self.followed.iter_mut().filter(|followed| !followed.pending.is_empty());
            match heads.min_by_key(|followed| followed.pending.front().map(|line| line.time_us)) {
                Some(first) => lines.extend(first.pending.pop_front()),
                None => break,
            }
        }
        let waiting = self.followed.iter().filter_map(|followed| followed.reader.waiting_since()).min();
        Ok(Batch { lines, again: waiting.map_or(PollAgain::OnGrowth, |since| PollAgain::At(since + HOLD)) })
    }

    /// Ends: what was read and not given out yet, and the lines whose newline never came.
    #[must_use]
    pub fn finish(self) -> Vec<Line> {
        let now = Instant::now();
        let rest = |mut followed: Followed| {
            let mut lines = Vec::from(followed.pending);
            followed.reader.flush(now, &mut lines);
            lines
        };
        merge(self.followed.into_iter().map(rest).collect())
    }
}

#[cfg(test)]
#[path = "follow_tests.rs"]
mod tests;
