//! One source read in order, from the oldest wanted byte in whichever file it lies up to the live file's end, and on.
//!
//! A file is put aside under a number that it keeps, and the writer leaves it for good before it makes the next. So the
//! live file is opened first and the others are listed after that: one that is put aside meanwhile is met twice (and
//! known by its identity), never missed.

use std::collections::VecDeque;
use std::io;
use std::time::Instant;

use super::body::Identity;
use super::layout::{Source, rotated, rotated_path};
use super::line::{Assembler, LINE_BYTES, Line};
use super::part::{Part, Search};
use super::read::ReadError;

/// Reads one source.
#[derive(Debug)]
pub(super) struct SourceReader {
    source: Source,
    /// The file being read, then its successors as far as they are known.
    parts: VecDeque<Part>,
    /// Where in the first of `parts`.
    position: u64,
    assembler: Assembler,
}

impl SourceReader {
    /// Stands where the last `lines` lines of `source` begin, or before.
    pub(super) fn last(source: &Source, lines: usize) -> Result<Self, ReadError> {
        let mut reader = Self::nowhere(source);
        reader.seek_lines(lines as u64)?;
        Ok(reader)
    }

    /// Stands at the first chunk of `source` that came at `time_us` (µs since 1970) or later.
    pub(super) fn since(source: &Source, time_us: u64) -> Result<Self, ReadError> {
        let mut reader = Self::nowhere(source);
        reader.seek(|part| Ok(Some(part.search_time(time_us)?).filter(|&start| start > 0)))?;
        Ok(reader)
    }

    fn nowhere(source: &Source) -> Self {
        Self { source: source.clone(), parts: VecDeque::new(), position: 0, assembler: Assembler::new(source) }
    }

    pub(super) fn source(&self) -> &Source {
        &self.source
    }

    /// Bytes between the present position and the end, over all known files.
    pub(super) fn remaining(&self) -> Result<u64, ReadError> {
        let mut bytes = 0u64;
        for part in &self.parts {
            bytes += part.len()?;
        }
        Ok(bytes.saturating_sub(self.position))
    }

    /// Reads up to `budget` bytes and appends the lines that ended. Returns whether the budget was used up, so that more
    /// may be there.
    pub(super) fn read(&mut self, budget: u64, now: Instant, lines: &mut Vec<Line>) -> Result<bool, ReadError> {
        let mut left = budget;
        while left > 0 {
            if self.parts.is_empty() {
                // Nothing was there before, so all that is there now is new.
                self.seek(|_| Ok(None))?;
            }
            let Some(part) = self.parts.front_mut() else { return Ok(false) };
            let assembler = &mut self.assembler;
            let max = usize::try_from(left).unwrap_or(usize::MAX);
            let got = part.read(&mut self.position, max, |stamp, bytes| assembler.push(stamp, bytes, now, lines))?;
            match got {
                Some(bytes) => left -= bytes as u64,
                None if self.next_part()? => {}
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Shows lines without a newline that wait since `before` or longer.
    pub(super) fn flush(&mut self, before: Instant, lines: &mut Vec<Line>) {
        self.assembler.flush(before, lines);
    }

    /// Since when a line without a newline waits.
    pub(super) fn waiting_since(&self) -> Option<Instant> {
        self.assembler.waiting_since()
    }

    /// Goes from the first part, which was read to its end, to its successor. False when it has none.
    fn next_part(&mut self) -> Result<bool, ReadError> {
        let Some(current) = self.parts.front() else { return Ok(false) };
        if self.parts.len() == 1 {
            let newer = newer_than(&self.source, current.identity())?;
            if newer.is_empty() {
                return Ok(false);
            }
            // Bytes may have come between the last read and the rotation; now none can come any more.
            if current.len()? > self.position {
                self.parts.extend(newer);
                return Ok(true);
            }
            self.parts.extend(newer);
        }
        self.parts.pop_front();
        self.position = 0;
        Ok(true)
    }

    fn seek_lines(&mut self, lines: u64) -> Result<(), ReadError> {
        // One newline more than lines: the one that ends the line before them.
        let newlines = lines.saturating_add(1);
        let mut search = Search { newlines, bytes: newlines.saturating_mul(LINE_BYTES as u64) };
        self.seek(|part| {
            let end = part.len()?;
            if lines == 0 { Ok(Some(end)) } else { part.search_back(end, &mut search) }
        })
    }

    /// Opens parts from the newest back until `found` gives a position in one, else stands at the oldest's beginning.
    fn seek(&mut self, mut found: impl FnMut(&mut Part) -> Result<Option<u64>, ReadError>) -> Result<(), ReadError> {
        let mut position = 0;
        let mut parts = VecDeque::new();
        each_part(&self.source, |mut part| {
            let start = found(&mut part)?;
            parts.push_front(part);
            position = start.unwrap_or(0);
            Ok(start.is_none())
        })?;
        (self.parts, self.position) = (parts, position);
        Ok(())
    }
}

/// The parts that came after the one of this identity, oldest first; all that are left when that one is gone.
fn newer_than(source: &Source, identity: Identity) -> Result<VecDeque<Part>, ReadError> {
    let mut newer = VecDeque::new();
    each_part(source, |part| {
        let go_on = part.identity() != identity;
        if go_on {
            newer.push_front(part);
        }
        Ok(go_on)
    })?;
    Ok(newer)
}

/// Opens part after part, newest first, while `visit` asks for more.
fn each_part(source: &Source, mut visit: impl FnMut(Part) -> Result<bool, ReadError>) -> Result<(), ReadError> {
    let mut last = None;
    if let Some(part) = Part::open(&source.path)? {
        last = Some(part.identity());
        if !visit(part)? {
            return Ok(());
        }
    }
    // Listed once the live file is open: what was put aside before that is in the list, what was meanwhile is met twice.
    let numbers =
        rotated(&source.path).map_err(|error| ReadError::List { path: source.path.clone(), source: error })?;
    for number in numbers.into_iter().rev() {
        let path = rotated_path(&source.path, number);
        let part = match Part::open(&path) {
            Ok(part) => part,
            // A file that is damaged costs its own lines and no others.
            Err(ReadError::Open { source, .. }) if source.kind() == io::ErrorKind::InvalidData => {
                tracing::warn!(log = %path, error = %source, "a packed log cannot be read");
                None
            }
            Err(error) => return Err(error),
        };
        // None: removed meanwhile, as its time had come.
        let Some(part) = part else { continue };
        let identity = part.identity();
        if last.replace(identity) != Some(identity) && !visit(part)? {
            return Ok(());
        }
    }
    Ok(())
}
