//! Reading back what workers printed: the last lines. Lines since a time come from a [`super::follow::Follower`], in
//! batches, because there may be more of them than memory.
//!
//! These functions block on the disk for as long as their answer is big: the daemon calls them off its loop
//! (`spawn_blocking`). They need no log thread and work while it writes.
//!
//! Sources are merged by the time of each line's first byte; within one source the file's order is kept. Two sources'
//! lines that came within one pause of the log thread (8 ms) may change places. Where two launches shared a file and one
//! was in the middle of a line at the place where reading begins, that line lacks its head.

use std::io;
use std::time::Instant;

use agentd_core::id::{AppName, Launch, Slot};
use camino::{Utf8Path, Utf8PathBuf};
use thiserror::Error;

use super::layout::{Source, StreamKind};
use super::line::{Line, merge};
use super::reader::SourceReader;

/// A log cannot be read back. One that does not exist is an empty one, not an error.
#[derive(Debug, Error)]
pub enum ReadError {
    /// It is there and cannot be opened.
    #[error("open the log {path}")]
    Open {
        /// The file.
        path: Utf8PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What was put aside of it cannot be listed.
    #[error("list what was put aside of the log {path}")]
    List {
        /// The live file.
        path: Utf8PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It cannot be read.
    #[error("read the log {path}")]
    Read {
        /// The file, by the name it was opened by.
        path: Utf8PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Longest pause between two lines of one burst, in microseconds.
const PAUSE: u64 = 500_000;

/// The last `count` lines of `sources` together, by time. A last line without its newline is included.
///
/// # Errors
/// [`ReadError`], the first one met.
pub fn tail(sources: &[Source], count: usize) -> Result<Vec<Line>, ReadError> {
    let mut lists = Vec::with_capacity(sources.len());
    for source in sources {
        let mut reader = SourceReader::last(source, count)?;
        let mut lines = Vec::new();
        let now = Instant::now();
        // No further than what is there now, however fast the worker prints.
        reader.read(reader.remaining()?, now, &mut lines)?;
        reader.flush(now, &mut lines);
        lists.push(lines);
    }
    Ok(last(merge(lists), count))
}

/// The last `count` lines that one launch printed on either stream: what a failure message shows.
///
/// Other launches' lines may lie in between and after; up to 64 times `count` lines are looked through.
///
/// # Errors
/// [`ReadError`], the first one met.
pub fn last_lines(
    logs: &Utf8Path,
    app: &AppName,
    slot: Slot,
    launch: Launch,
    count: usize,
) -> Result<Vec<Line>, ReadError> {
    let mut lists = Vec::new();
    for stream in StreamKind::BOTH {
        let source = [Source::new(logs, app, slot, stream)];
        let mut found = Vec::new();
        for factor in [1, 8, 64] {
            let wanted = count.saturating_mul(factor);
            let lines = tail(&source, wanted)?;
            let all = lines.len() < wanted;
            found = lines.into_iter().filter(|line| line.launch == Some(launch)).collect();
            if all || found.len() >= count {
                break;
            }
        }
        lists.push(found);
    }
    Ok(last(merge(lists), count))
}

/// The end of `lines` that tells of one thing: the last `least`, and those before that came with them, each within
/// [`PAUSE`] of the next. A stack whose first line says what happened is not cut in its middle.
#[must_use]
pub fn burst(lines: Vec<Line>, least: usize) -> Vec<Line> {
    let together = |pair: &[Line]| matches!(pair, [one, next] if next.time_us.saturating_sub(one.time_us) <= PAUSE);
    let came_together = lines.windows(2).rev().take_while(|pair| together(pair)).count() + 1;
    last(lines, came_together.max(least))
}

/// The last `count` of `lines`.
pub(super) fn last(mut lines: Vec<Line>, count: usize) -> Vec<Line> {
    lines.split_off(lines.len().saturating_sub(count))
}

#[cfg(test)]
#[path = "read_tests.rs"]
pub(super) mod tests;
