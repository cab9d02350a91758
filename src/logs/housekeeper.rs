//! What becomes of logs that were put aside: packed, and removed when their time has come. It also mends what a crash left.
//!
//! Owns a thread of the lowest priority, and every file beside a live one once that has its number. It knows nothing of
//! workers. The log thread never waits for it, nor does the loop.
//!
//! Packing one file, and what a `kill -9` after each step leaves:
//!
//! ```text
//! 7, 7.idx
//!   │ 1  write 7.idx.zst.part, fsync         removed and begun anew
//!   │ 2  rename it to 7.idx.zst              begun anew; readers prefer 7.idx
//!   │ 3  write 7.zst.part, fsync             removed and begun anew
//!   │ 4  rename it to 7.zst                  whole, so 5 and 6 follow; readers prefer 7
//!   │ 5  remove 7                            6 follows
//!   │ 6  remove 7.idx
//!   ▼
//! 7.zst, 7.idx.zst
//! ```
//!
//! Unhappy: a file that somebody still writes (`sink = "file"`, a worker from before the rotation) is left until nobody
//! does. Where there is no space to pack, the file stays as it is and is tried again. A file that cannot be removed is
//! told of in the daemon's log, and the others are gone on with.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use agentd_core::id::AppName;
use camino::{Utf8Path, Utf8PathBuf};
use nix::sys::signal::SigSet;
use thiserror::Error;

use super::body::Identity;
use super::layout::{Number, index_path, packed_path, part_path, rotated_path};
use super::packed::pack;
use super::rotate::{RotateError, remove};
use super::shelf::{Shelf, shelves};
use crate::process::sys;

/// How often everything is looked through, for what only time brings about.
const SWEEP_EVERY: Duration = Duration::from_mins(10);

/// Enough for a frame's buffers, which are on the heap.
const STACK_BYTES: usize = 256 << 10;

/// How much is kept of what an app's streams put aside. Live files count and stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Files of each stream.
    pub keep: u32,
    /// Since their last line.
    pub keep_for: Option<Duration>,
    /// Bytes on the disk, over all streams of the app.
    pub keep_bytes: Option<u64>,
    /// Whether what is put aside is packed.
    pub pack: bool,
}

impl Default for Retention {
    fn default() -> Self {
        Self { keep: 10, keep_for: None, keep_bytes: None, pack: true }
    }
}

/// Bytes on the disk over all apps, unless configured otherwise.
pub const TOTAL_BYTES: u64 = 10 << 30;

/// One file could not be packed. It is as it was.
#[derive(Debug, Error)]
pub enum PackError {
    /// It cannot be opened or looked at.
    #[error("open the log {path}")]
    Open {
        /// The file.
        path: Utf8PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its packed form cannot be written.
    #[error("write the packed log {path}")]
    Write {
        /// The file.
        path: Utf8PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It grew while it was packed.
    #[error("pack the log {path}: it is still being written")]
    Grew {
        /// The file.
        path: Utf8PathBuf,
    },
    /// What is packed cannot be removed.
    #[error(transparent)]
    Remove(#[from] RotateError),
}

/// The thread could not be started.
#[derive(Debug, Error)]
#[error("start the thread that packs logs")]
pub struct HousekeeperError(#[source] io::Error);

#[derive(Debug)]
enum Errand {
    Rotated(Utf8PathBuf),
    Keep(AppName, Retention),
    Total(Option<u64>),
    Sweep,
    Stop,
}

/// Tells the housekeeper that a live file was put aside.
#[derive(Clone, Debug)]
pub struct Doorbell(mpsc::Sender<Errand>);

impl Doorbell {
    /// `live` was put aside.
    pub fn rotated(&self, live: Utf8PathBuf) {
        // Gone only at the daemon's end; the next one looks through everything.
        let _ = self.0.send(Errand::Rotated(live));
    }
}

/// The running thread. Dropping it ends it after the frame in hand; what is half packed is begun anew by the next one.
#[derive(Debug)]
pub struct Housekeeper {
    errands: mpsc::Sender<Errand>,
    thread: Option<JoinHandle<()>>,
}

impl Housekeeper {
    /// Starts the thread over the folder `logs`. It does nothing before it is told.
    ///
    /// # Errors
    /// When threads have run out.
    pub fn start(logs: Utf8PathBuf) -> Result<Self, HousekeeperError> {
        let (errands, inbox) = mpsc::channel();
        let house = House { logs, retentions: BTreeMap::new(), total: Some(TOTAL_BYTES) };
        let thread = std::thread::Builder::new()
            .name("agentd-pack".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || house.run(&inbox))
            .map_err(HousekeeperError)?;
        Ok(Self { errands, thread: Some(thread) })
    }

    /// How others tell of rotations.
    #[must_use]
    pub fn doorbell(&self) -> Doorbell {
        Doorbell(self.errands.clone())
    }

    /// How much of `app`'s logs is kept from now on. An app that nobody told of has the defaults.
    pub fn keep(&self, app: &AppName, retention: Retention) {
        self.send(Errand::Keep(app.clone(), retention));
    }

    /// How much is kept over all apps, in bytes; none is no bound.
    pub fn keep_in_all(&self, bytes: Option<u64>) {
        self.send(Errand::Total(bytes));
    }

    /// Looks through everything: mends what a crash left, packs and removes what is due.
    pub fn sweep(&self) {
        self.send(Errand::Sweep);
    }

    fn send(&self, errand: Errand) {
        // The thread ends only with this handle.
        let _ = self.errands.send(errand);
    }
}

impl Drop for Housekeeper {
    fn drop(&mut self) {
        self.send(Errand::Stop);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that packs logs had panicked");
        }
    }
}

struct House {
    logs: Utf8PathBuf,
    retentions: BTreeMap<AppName, Retention>,
    total: Option<u64>,
}

impl House {
    fn run(mut self, inbox: &mpsc::Receiver<Errand>) {
        let _ = SigSet::all().thread_block();
        // On Linux this is the thread's own.
        if let Err(errno) = rustix::process::nice(19) {
            tracing::debug!(error = %errno, "the thread that packs logs keeps its priority");
        }
        loop {
            let errand = match inbox.recv_timeout(SWEEP_EVERY) {
                Ok(errand) => errand,
                Err(RecvTimeoutError::Timeout) => Errand::Sweep,
                Err(RecvTimeoutError::Disconnected) => Errand::Stop,
            };
            match errand {
                Errand::Keep(app, retention) => drop(self.retentions.insert(app, retention)),
                Errand::Total(bytes) => self.total = bytes,
                Errand::Rotated(live) => self.tidy(live.parent().unwrap_or(&self.logs).file_name()),
                Errand::Sweep => self.tidy(None),
                Errand::Stop => return,
            }
        }
    }

    /// Mends, packs and bounds the logs of one app, or of all.
    fn tidy(&self, only: Option<&str>) {
        let mut all = match shelves(&self.logs) {
            Ok(all) => all,
            Err(error) => {
                tracing::warn!(logs = %self.logs, %error, "logs cannot be looked through");
                return;
            }
        };
        for (app, shelves) in all.iter_mut().filter(|(app, _)| only.is_none_or(|only| app.as_str() == only)) {
            let retention = self.retentions.get(app).copied().unwrap_or_default();
            for shelf in shelves.iter_mut() {
                tidy_shelf(shelf, retention);
            }
            if let Some(bytes) = retention.keep_bytes {
                bound(shelves.iter_mut(), bytes);
            }
        }
        if let Some(bytes) = self.total {
            bound(all.values_mut().flatten(), bytes);
        }
    }
}

fn tidy_shelf(shelf: &mut Shelf, retention: Retention) {
    for leftover in std::mem::take(&mut shelf.leftovers) {
        told(std::fs::remove_file(&leftover).map_err(|source| RotateError::Remove { path: leftover, source }));
    }
    let now = SystemTime::now();
    let surplus = shelf.books.len().saturating_sub(retention.keep as usize);
    let numbers: Vec<Number> = shelf.books.keys().copied().collect();
    for (place, number) in numbers.into_iter().enumerate() {
        let book = &shelf.books[&number];
        let age = now.duration_since(book.written).unwrap_or_default();
        // Looked for again: a folder that changes while it is read may hide one of two files.
        let log = rotated_path(&shelf.live, number);
        let empty = !book.has_log && !log.exists() && !packed_path(&log).exists();
        let over = place < surplus || empty || retention.keep_for.is_some_and(|longest| age > longest);
        if over {
            if told(remove(&shelf.live, number)).is_some() {
                shelf.books.remove(&number);
            }
            continue;
        }
        if !(retention.pack && book.plain) {
            continue;
        }
        match pack_one(&shelf.live, number) {
            Ok(Packing::Done { bytes }) => {
                if let Some(book) = shelf.books.get_mut(&number) {
                    (book.plain, book.bytes) = (false, bytes);
                }
            }
            Ok(Packing::Busy) => {}
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(log = %shelf.live, %number, %error, cause, "log not packed; tried again later");
            }
        }
    }
}

/// Removes what was put aside first until no more than `most` bytes lie there, live files included.
fn bound<'s>(shelves: impl Iterator<Item = &'s mut Shelf>, most: u64) {
    let mut shelves: Vec<_> = shelves.collect();
    let mut bytes: u64 = shelves.iter().map(|shelf| shelf.bytes()).sum();
    let books = shelves
        .iter()
        .enumerate()
        .flat_map(|(at, shelf)| shelf.books.iter().map(move |(&number, book)| (book.written, at, number, book.bytes)));
    let mut oldest: Vec<_> = books.collect();
    oldest.sort_unstable_by_key(|&(written, at, number, _)| (written, at, number));
    for (_, at, number, size) in oldest {
        if bytes <= most {
            return;
        }
        if told(remove(&shelves[at].live, number)).is_some() {
            shelves[at].books.remove(&number);
            bytes -= size;
        }
    }
}

fn told<T>(result: Result<T, RotateError>) -> Option<T> {
    result.map_err(|error| tracing::warn!(%error, cause = %error.source_error(), "an old log stays")).ok()
}

/// What became of a file that was to be packed.
#[derive(Debug, PartialEq, Eq)]
enum Packing {
    /// Log and index are packed, and take this many bytes.
    Done { bytes: u64 },
    /// Somebody still writes it, or that cannot be told.
    Busy,
}

/// Packs what `live` put aside as `number`, or finishes what was begun.
fn pack_one(live: &Utf8Path, number: Number) -> Result<Packing, PackError> {
    let log = rotated_path(live, number);
    let index = index_path(&log);
    let (packed_log, packed_index) = (packed_path(&log), packed_path(&index));
    // Renamed only once it was whole: what is left to do is to remove what it was made from.
    if !packed_log.exists() {
        let plain = File::open(&log).map_err(|source| PackError::Open { path: log.clone(), source })?;
        match sys::has_writer(plain.as_fd()) {
            Ok(false) => {}
            Ok(true) => return Ok(Packing::Busy),
            Err(error) => {
                tracing::debug!(%log, %error, "whether somebody writes it cannot be told: not packed");
                return Ok(Packing::Busy);
            }
        }
        match File::open(&index) {
            Ok(plain) => write_packed(&plain, &index)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(PackError::Open { path: index, source }),
        }
        write_packed(&plain, &log)?;
    }
    for path in [&log, &index] {
        match std::fs::remove_file(path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(RotateError::Remove { path: path.clone(), source }.into());
            }
            Ok(()) | Err(_) => {}
        }
    }
    let size = |path: &Utf8Path| std::fs::metadata(path).map_or(0, |meta| meta.len());
    Ok(Packing::Done { bytes: size(&packed_log) + size(&packed_index) })
}

/// Writes the packed form of `path`, opened as `plain`, and gives it its name once it is on the disk.
fn write_packed(plain: &File, path: &Utf8Path) -> Result<(), PackError> {
    let meta = plain.metadata().map_err(|source| PackError::Open { path: path.to_owned(), source })?;
    let packed = packed_path(path);
    let part = part_path(&packed);
    let write = || {
        let mut options = File::options();
        options.write(true).create(true).truncate(true).mode(meta.mode() & 0o777);
        let mut to = options.open(&part)?;
        let bytes = pack(plain, Identity::of(&meta), &mut to)?;
        // Its age is that of its lines.
        to.set_modified(meta.modified()?)?;
        to.sync_all()?;
        Ok(bytes)
    };
    let written = write().map_err(|source| PackError::Write { path: packed.clone(), source });
    let grew = || plain.metadata().is_ok_and(|now| now.len() != meta.len());
    match written {
        Ok(bytes) if bytes == meta.len() && !grew() => {}
        other => {
            // Its leftovers are removed by the next sweep where that fails now.
            let _ = std::fs::remove_file(&part);
            return Err(other.err().unwrap_or_else(|| PackError::Grew { path: path.to_owned() }));
        }
    }
    std::fs::rename(&part, &packed).map_err(|source| PackError::Write { path: packed.clone(), source })?;
    // The name must be on the disk before what it was made from goes.
    let folder = path.parent().map_or(Ok(()), |folder| File::open(folder).and_then(|folder| folder.sync_all()));
    folder.map_err(|source| PackError::Write { path: packed, source })
}

#[cfg(test)]
#[path = "housekeeper_tests.rs"]
mod tests;
