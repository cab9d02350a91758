//! One live log file as its only writer sees it: taking bytes in, rotating, and living with a disk that refuses.
//!
//! ```text
//!   Closed ──open──► Open ──splice fails──► Open, owing an announcement ──splice works──► Open
//!     ▲                │
//!     └────rotate──────┘
//! ```
//!
//! - The bytes go from pipe to file inside the kernel (`splice`), so a `kill -9` falls before or after a byte, never on
//!   one that was read and not yet written.
//! - When the file cannot be opened or refuses the bytes, their lines are counted and dropped: a worker must not stand
//!   still because of its log. Once writing works again a line in the file says how many are missing.
//! - A file that somebody truncates (`> x.log`) is gone on with from its new end, one that somebody removes is made anew.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::time::{Duration, SystemTime};

use agentd_core::id::Launch;
use camino::{Utf8Path, Utf8PathBuf};
use rustix::io::Errno;
use rustix::pipe::{SpliceFlags, splice};
use thiserror::Error;

use super::debt::Debt;
use super::index::{IndexReader, IndexWriter, Record};
use super::layout::index_path;
use super::rotate::{RotateError, Rotation, repair, rotate};

/// Why a log file does not take bytes.
#[derive(Debug, Error)]
pub(super) enum FileError {
    #[error("create the folder {path}")]
    Folder { path: Utf8PathBuf, source: io::Error },
    #[error("open the log {path}")]
    Open { path: Utf8PathBuf, source: io::Error },
    #[error("look at the log {path}")]
    Stat { path: Utf8PathBuf, source: io::Error },
    #[error("write the log {path}")]
    Write { path: Utf8PathBuf, source: io::Error },
    #[error(transparent)]
    Rotate(#[from] RotateError),
}

impl FileError {
    /// The reason as the line in the log gives it: "no space left on device".
    fn reason(&self) -> String {
        let source = match self {
            Self::Folder { source, .. }
            | Self::Open { source, .. }
            | Self::Stat { source, .. }
            | Self::Write { source, .. } => source,
            Self::Rotate(error) => error.source_error(),
        };
        Debt::reason_of(source)
    }
}

/// What became of the bytes that waited in a pipe, whatever takes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// There were none.
    Nothing,
    /// They stay in the pipe for now: half a line, or the journal has its hands full.
    Waiting,
    /// This many are where they belong.
    Written(u64),
    /// This many are lost, and counted.
    Dropped(u64),
}

#[derive(Debug)]
struct Open {
    file: File,
    identity: (u64, u64),
    /// None while it cannot be opened: the log matters more than its times.
    index: Option<IndexWriter>,
    /// Where the next byte goes.
    end: u64,
    /// When its first byte came, in µs since 1970; none while it is empty.
    born_us: Option<u64>,
}

/// A live log file and its index.
#[derive(Debug)]
pub(super) struct LogFile {
    path: Utf8PathBuf,
    rotation: Rotation,
    open: Option<Open>,
    debt: Option<Debt>,
    /// A rotation failed; it is not tried again before the file has this many bytes.
    put_off: Option<u64>,
    /// It was put aside, and nobody was told yet.
    rotated: bool,
}

impl LogFile {
    /// The log file at `path`. Nothing is opened before bytes come.
    pub(super) fn new(path: Utf8PathBuf, rotation: Rotation) -> Self {
        Self { path, rotation, open: None, debt: None, put_off: None, rotated: false }
    }

    /// Other limits from now on.
    pub(super) fn set_rotation(&mut self, rotation: Rotation) {
        self.put_off = None;
        self.rotation = rotation;
    }

    /// Moves what waits in `pipe`, at most `max` bytes, into the file. Where that fails it is counted and dropped.
    pub(super) fn take(&mut self, pipe: &OwnedFd, launch: Launch, max: usize) -> Taken {
        // Asked first, because most wake-ups of a stream that just fell silent find nothing.
        if rustix::io::ioctl_fionread(pipe).is_ok_and(|waiting| waiting == 0) {
            return Taken::Nothing;
        }
        match self.write(pipe, launch, max) {
            Ok(0) => Taken::Nothing,
            Ok(bytes) => Taken::Written(bytes),
            Err(error) => self.discard(pipe, max, &error),
        }
    }

    /// What is lost of which the file does not yet tell.
    pub(super) fn owed(&self) -> Option<&Debt> {
        self.debt.as_ref()
    }

    /// Whether the file was put aside since it was last asked.
    pub(super) fn take_rotated(&mut self) -> bool {
        std::mem::take(&mut self.rotated)
    }

    /// Tells in the file what was lost, if anything was and the file takes it.
    pub(super) fn settle_debt(&mut self) {
        if self.debt.is_some() && self.make_writable().is_ok() {
            // Still full: the debt stays, and the next bytes or the end of the file's last stream try again.
            let _ = self.announce_debt();
        }
    }

    fn write(&mut self, pipe: &OwnedFd, launch: Launch, max: usize) -> Result<u64, FileError> {
        self.make_writable()?;
        self.announce_debt()?;
        let Self { path, open, .. } = self;
        let open = open.as_mut().expect("make_writable leaves the file open or fails");
        open.announce(open.end, Some(launch));
        let moved = splice_some(pipe, &open.file, &mut open.end, max)
            .map_err(|errno| FileError::Write { path: path.clone(), source: errno.into() })?;
        if moved > 0 {
            open.settle();
        }
        Ok(moved)
    }

    /// Opens, rotates and follows what others did to the file, so that the next byte may go to its end.
    fn make_writable(&mut self) -> Result<(), FileError> {
        let path = &self.path;
        if self.open.as_ref().is_some_and(|open| open.length_at(path).is_none()) {
            // Removed, renamed or replaced by somebody: what is printed belongs under the name.
            self.open = None;
        }
        let open = match &mut self.open {
            Some(open) => open,
            closed => closed.insert(Open::at(path)?),
        };
        open.follow_length(path);
        if !open.is_due(self.rotation) || self.put_off.is_some_and(|at| open.end < at) {
            return Ok(());
        }
        match rotate(path, self.rotation.keep) {
            Ok(()) => {
                self.open = None;
                self.put_off = None;
                self.rotated = true;
                self.open = Some(Open::at(path)?);
            }
            Err(error) => {
                // Better a file that is too long than lost lines; tried again after as much more.
                tracing::warn!(log = %path, error = %error, source = %error.source_error(), "log not rotated");
                self.put_off = Some(open.end.saturating_add(self.rotation.max_size));
            }
        }
        Ok(())
    }

    fn discard(&mut self, pipe: &OwnedFd, max: usize, error: &FileError) -> Taken {
        let reason = error.reason();
        if self.debt.is_none() {
            tracing::warn!(log = %self.path, error = %error, reason, "log lines are being dropped");
        }
        match self.debt.get_or_insert_default().drop_waiting(pipe, max, reason) {
            0 => Taken::Nothing,
            bytes => Taken::Dropped(bytes),
        }
    }

    fn announce_debt(&mut self) -> Result<(), FileError> {
        let (Some(debt), Some(open)) = (&self.debt, &mut self.open) else { return Ok(()) };
        let mut last = [b'\n'];
        if open.end > 0 {
            // Unreadable last byte: an empty line too many does no harm.
            let _ = open.file.read_exact_at(&mut last, open.end - 1);
        }
        // What ends the worker's broken line is still the worker's, what follows is ours.
        let newline = if last == [b'\n'] { "" } else { "\n" };
        let text = format!("{newline}{debt}\n");
        let start = open.end + newline.len() as u64;
        open.announce(start, None);
        if let Err(source) = open.file.write_all_at(text.as_bytes(), open.end) {
            // Half an announcement helps nobody. Shrinking a file needs no space.
            let _ = open.file.set_len(open.end);
            return Err(FileError::Write { path: self.path.clone(), source });
        }
        open.settle();
        open.end += text.len() as u64;
        tracing::info!(log = %self.path, bytes = debt.bytes, lines = debt.lines, "log lines are written again");
        self.debt = None;
        Ok(())
    }
}

impl Open {
    fn at(path: &Utf8Path) -> Result<Self, FileError> {
        if let Some(folder) = path.parent() {
            make_folder(folder).map_err(|source| FileError::Folder { path: folder.to_owned(), source })?;
        }
        repair(path);
        // Index first: a reader that sees the log then finds the index that belongs to it.
        let known = std::fs::metadata(path).map_or(0, |meta| meta.len());
        let index = IndexWriter::open(&index_path(path), known);
        if let Err(error) = &index {
            tracing::warn!(log = %path, error = %error, "log lines have no times");
        }
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false).mode(0o640);
        let file = options.open(path).map_err(|source| FileError::Open { path: path.to_owned(), source })?;
        let meta = file.metadata().map_err(|source| FileError::Stat { path: path.to_owned(), source })?;
        let born_us = (meta.len() > 0).then(|| {
            let first = IndexReader::open(&index_path(path)).get(0, meta.len());
            let created = || meta.created().or_else(|_| meta.modified()).unwrap_or_else(|_| SystemTime::now());
            first.map_or_else(|| unix_us(created()), |record| record.time_us)
        });
        Ok(Self { file, identity: (meta.dev(), meta.ino()), index: index.ok(), end: meta.len(), born_us })
    }

    /// Whether the file is to be put aside before more bytes come.
    fn is_due(&self, rotation: Rotation) -> bool {
        let longest = self.end.max(self.index.as_ref().map_or(0, IndexWriter::bytes));
        // A clock that went back makes a file young, never old.
        let age = self.born_us.map_or(Duration::ZERO, |born| Duration::from_micros(now_us().saturating_sub(born)));
        longest >= rotation.max_size || rotation.max_age.is_some_and(|max_age| self.end > 0 && age >= max_age)
    }

    /// The file's length, if it still is the one called `path`.
    fn length_at(&self, path: &Utf8Path) -> Option<u64> {
        let meta = std::fs::metadata(path).ok()?;
        ((meta.dev(), meta.ino()) == self.identity).then_some(meta.len())
    }

    /// Goes to the file's end where somebody else changed its length, and tries again for an index where there is none.
    fn follow_length(&mut self, path: &Utf8Path) {
        let length = self.length_at(path).unwrap_or(self.end);
        if length != self.end {
            if length == 0 {
                self.born_us = None;
            }
            self.end = length;
            self.index = None;
        }
        if self.index.is_none() {
            self.index = IndexWriter::open(&index_path(path), self.end).ok();
        }
    }

    fn announce(&mut self, offset: u64, launch: Option<Launch>) {
        let record = Record { offset, time_us: now_us(), launch };
        self.born_us.get_or_insert(record.time_us);
        // One that cannot be written is let go; the next take opens it again.
        self.index = self.index.take().filter(|index| index.announce(record).is_ok());
    }

    fn settle(&mut self) {
        if let Some(index) = &mut self.index {
            index.settle();
        }
    }
}

/// Makes a log folder, readable by the group, with its parents.
pub(super) fn make_folder(folder: &Utf8Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o750).create(folder)
}

/// Moves up to `max` bytes from `pipe` to `to` at `offset`, which moves along. An empty pipe moves none.
fn splice_some(pipe: &OwnedFd, to: &File, offset: &mut u64, max: usize) -> Result<u64, Errno> {
    loop {
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        match splice(pipe, None, to.as_fd(), Some(offset), max, flags) {
            Ok(moved) => return Ok(moved as u64),
            Err(Errno::AGAIN) => return Ok(0),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Unix time in µs; 0 before 1970.
pub(super) fn now_us() -> u64 {
    unix_us(SystemTime::now())
}

fn unix_us(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
