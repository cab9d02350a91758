//! One log file opened for reading, live or put aside, packed or not, with its index.
//!
//! It keeps its descriptors, so a rename, packing or removal changes nothing for it; that a newer file took its name is
//! the [`super::reader`]'s to find out.

use std::io;
use std::time::SystemTime;

use camino::{Utf8Path, Utf8PathBuf};

use super::body::{Body, Identity};
use super::index::IndexReader;
use super::layout::{index_path, packed_path};
use super::line::Stamp;
use super::read::ReadError;

/// Bytes that are read at once.
const BLOCK: usize = 64 << 10;
/// How often opening is tried while rotations fall between log and index.
const TRIES: usize = 4;

/// How far back a search for line starts may go.
#[derive(Debug)]
pub(super) struct Search {
    /// Newlines still to be passed.
    pub(super) newlines: u64,
    /// Bytes still to be looked at: a file without newlines is not read to its beginning.
    pub(super) bytes: u64,
}

/// A log file, opened.
#[derive(Debug)]
pub(super) struct Part {
    path: Utf8PathBuf,
    body: Body,
    identity: Identity,
    index: IndexReader,
    /// Longest length seen: less than this means that somebody emptied the file.
    seen: u64,
}

impl Part {
    /// Opens the log at `path`; none when there is none.
    pub(super) fn open(path: &Utf8Path) -> Result<Option<Self>, ReadError> {
        let failed = |source| ReadError::Open { path: path.to_owned(), source };
        let mut tries = TRIES;
        loop {
            let Some(body) = Body::open(path).map_err(failed)? else { return Ok(None) };
            let identity = body.identity().map_err(failed)?;
            let index = IndexReader::open(&index_path(path));
            tries -= 1;
            // A rotation in between would pair the log with its successor's index; packing leaves it what it is.
            let same = match body {
                Body::Plain(_) => std::fs::metadata(path).map_or_else(
                    |error| error.kind() == io::ErrorKind::NotFound && packed_path(path).exists(),
                    |meta| Identity::of(&meta) == identity,
                ),
                Body::Packed(_) => true,
            };
            if same || tries == 0 {
                return Ok(Some(Self { path: path.to_owned(), body, identity, index, seen: 0 }));
            }
        }
    }

    pub(super) fn identity(&self) -> Identity {
        self.identity
    }

    /// Its length now, in bytes.
    pub(super) fn len(&self) -> Result<u64, ReadError> {
        self.body.len().map_err(|source| self.failed(source))
    }

    /// Goes back from `end` until `search` is satisfied and returns where the line after starts; none when the whole
    /// part was passed without that.
    pub(super) fn search_back(&self, end: u64, search: &mut Search) -> Result<Option<u64>, ReadError> {
        let mut block = vec![0; BLOCK];
        let mut end = end;
        while end > 0 {
            let start = end.saturating_sub(BLOCK as u64);
            let bytes = &mut block[..(end - start) as usize];
            self.body.read_exact_at(bytes, start).map_err(|source| self.failed(source))?;
            for (at, _) in bytes.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
                search.newlines -= 1;
                if search.newlines == 0 {
                    return Ok(Some(start + at as u64 + 1));
                }
            }
            search.bytes = search.bytes.saturating_sub(end - start);
            if search.bytes == 0 {
                return Ok(Some(start));
            }
            end = start;
        }
        Ok(None)
    }

    /// Where the first chunk that came at `time_us` or later starts. Zero means that older parts may hold such chunks
    /// too.
    pub(super) fn search_time(&mut self, time_us: u64) -> Result<u64, ReadError> {
        let len = self.len()?;
        let number = self.index.partition(len, |record| record.time_us < time_us);
        if let Some(record) = self.index.get(number, len) {
            return Ok(record.offset);
        }
        let known = self.index.get(0, len).is_some();
        Ok(if known || self.written_us()? < time_us { len } else { 0 })
    }

    /// Reads from `position`, which moves along, at most `max` bytes of one chunk into `sink`. None at the end.
    pub(super) fn read(
        &mut self,
        position: &mut u64,
        max: usize,
        sink: impl FnOnce(Stamp, &[u8]),
    ) -> Result<Option<usize>, ReadError> {
        let len = self.len()?;
        if len < self.seen.max(*position) {
            self.index.forget();
            *position = 0;
        }
        self.seen = len;
        if *position >= len {
            return Ok(None);
        }
        let (stamp, chunk_end) = self.chunk_at(*position, len)?;
        let wanted = max.min(BLOCK).min(usize::try_from(chunk_end - *position).unwrap_or(BLOCK));
        let mut block = vec![0; wanted];
        let got = self.body.read_at(&mut block, *position).map_err(|source| self.failed(source))?;
        *position += got as u64;
        sink(stamp, &block[..got]);
        Ok((got > 0).then_some(got))
    }

    /// The stamp of the byte at `position`, and up to where it holds.
    fn chunk_at(&mut self, position: u64, len: u64) -> Result<(Stamp, u64), ReadError> {
        let found = self.index.find(position, len);
        let (stamp, mut next) = match found.and_then(|number| Some((number, self.index.get(number, len)?))) {
            Some((number, record)) => (Stamp { time_us: record.time_us, launch: record.launch }, number + 1),
            None => (Stamp { time_us: self.written_us()?, launch: None }, 0),
        };
        // A damaged index may say the same offset again; a chunk never ends before it begins.
        while let Some(record) = self.index.get(next, len) {
            if record.offset > position {
                return Ok((stamp, record.offset));
            }
            next += 1;
        }
        Ok((stamp, len))
    }

    fn written_us(&self) -> Result<u64, ReadError> {
        let written = self.body.written().map_err(|source| self.failed(source))?;
        let since = written.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Ok(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
    }

    fn failed(&self, source: io::Error) -> ReadError {
        ReadError::Read { path: self.path.clone(), source }
    }
}
