//! Where logs lie and what their files are called.
//!
//! Owns the names only. Nothing here touches the disk but [`sources`], which lists what was printed so far.
//!
//! ```text
//! logs/support/0.out.log                  the live file of slot 0's standard output
//! logs/support/0.out.log.idx              its time index
//! logs/support/0.out.log.000007           put aside; a higher number is newer
//! logs/support/0.out.log.000007.idx       its time index
//! logs/support/0.out.log.000006.zst       put aside and packed: `zstdcat` reads it
//! logs/support/0.out.log.000006.idx.zst   its time index, packed as well
//! run/fifo/support.0.412.out              the FIFO of launch 412
//! ```
//!
//! A file put aside never changes its number, so that whoever packs, removes or reads it can do so while others are put
//! aside. Daemons before that moved files up (`.1` the newest, then `.2`); those names are told by their missing zeros
//! and stand before all others.

use std::collections::BTreeSet;
use std::fmt;
use std::io;

use agentd_core::id::{AppName, Launch, Slot};
use camino::{Utf8Path, Utf8PathBuf};
use thiserror::Error;

/// Which of a worker's two outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StreamKind {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

impl StreamKind {
    /// Both, in the order of their descriptors.
    pub const BOTH: [Self; 2] = [Self::Out, Self::Err];

    /// `out` or `err`, as in file names.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Out => "out",
            Self::Err => "err",
        }
    }
}

/// One output of one slot, over all its launches and rotations.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Source {
    /// The app.
    pub app: AppName,
    /// The slot within the app.
    pub slot: Slot,
    /// Which output.
    pub stream: StreamKind,
    /// The live file. It need not exist yet.
    pub path: Utf8PathBuf,
}

impl Source {
    /// The source of `app`'s `slot` in the logs folder `logs`.
    #[must_use]
    pub fn new(logs: &Utf8Path, app: &AppName, slot: Slot, stream: StreamKind) -> Self {
        Self { app: app.clone(), slot, stream, path: live_path(logs, app, slot, stream) }
    }
}

/// Listing an app's logs failed.
#[derive(Debug, Error)]
pub enum ListError {
    /// The app's folder is there and cannot be read.
    #[error("list the log folder {path}")]
    Folder {
        /// The folder.
        path: Utf8PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The live log file of a slot's stream.
#[must_use]
pub fn live_path(logs: &Utf8Path, app: &AppName, slot: Slot, stream: StreamKind) -> Utf8PathBuf {
    logs.join(app.as_str()).join(format!("{slot}.{}.log", stream.as_str()))
}

/// Where a file that was put aside stands among those of its stream: the smaller, the older.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Number(i64);

impl Number {
    /// Of the first file that a stream puts aside.
    pub const FIRST: Self = Self(1);

    /// Of the one after this.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.max(0) + 1)
    }

    /// The number in a file's name, behind the live file's name and a dot.
    fn parse(text: &str) -> Option<Self> {
        let number: i64 = text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))?;
        let moved_up = text.len() < DIGITS;
        Some(Self(if moved_up { -number } else { number }))
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < 0 { write!(f, "{}", -self.0) } else { write!(f, "{:0DIGITS$}", self.0) }
    }
}

/// Digits that a number is written with, so that names sort as the files came. More are taken where they do not do.
const DIGITS: usize = 6;

/// What a packed file's name ends in.
pub const PACKED: &str = ".zst";

/// What the name of a file that is still being written ends in.
pub const PART: &str = ".part";

/// The file that the live file `live` became when it was put aside as `number`.
#[must_use]
pub fn rotated_path(live: &Utf8Path, number: Number) -> Utf8PathBuf {
    Utf8PathBuf::from(format!("{live}.{number}"))
}

/// The packed form of the log or index at `path`.
#[must_use]
pub fn packed_path(path: &Utf8Path) -> Utf8PathBuf {
    Utf8PathBuf::from(format!("{path}{PACKED}"))
}

/// What is still being written, and becomes `path` once it is whole.
#[must_use]
pub fn part_path(path: &Utf8Path) -> Utf8PathBuf {
    Utf8PathBuf::from(format!("{path}{PART}"))
}

/// What lies beside a live file: one file of one that was put aside, whole or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aside {
    /// The log itself.
    Log,
    /// The log, packed.
    PackedLog,
    /// The time index, packed or not.
    Index,
    /// Packing was cut short here.
    Part,
}

/// What a file called `name` is to the live file called `live`, both without their folder.
#[must_use]
pub fn parse_aside(live: &str, name: &str) -> Option<(Number, Aside)> {
    let rest = name.strip_prefix(live)?.strip_prefix('.')?;
    let (number, kind) = rest.split_once('.').unwrap_or((rest, ""));
    let aside = match kind {
        "" => Aside::Log,
        "zst" => Aside::PackedLog,
        "idx" | "idx.zst" => Aside::Index,
        "zst.part" | "idx.zst.part" => Aside::Part,
        _ => return None,
    };
    Some((Number::parse(number)?, aside))
}

/// The numbers of the logs that `live` put aside and that are still there, oldest first.
///
/// # Errors
/// When the folder is there and cannot be read.
pub fn rotated(live: &Utf8Path) -> io::Result<BTreeSet<Number>> {
    let (Some(folder), Some(own)) = (live.parent(), live.file_name()) else { return Ok(BTreeSet::new()) };
    let entries = match folder.read_dir() {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        Err(error) => return Err(error),
    };
    let mut found = BTreeSet::new();
    for entry in entries {
        if let Some((number, Aside::Log | Aside::PackedLog)) =
            entry?.file_name().to_str().and_then(|name| parse_aside(own, name))
        {
            found.insert(number);
        }
    }
    Ok(found)
}

/// The time index beside the log file `log`.
#[must_use]
pub fn index_path(log: &Utf8Path) -> Utf8PathBuf {
    Utf8PathBuf::from(format!("{log}.idx"))
}

/// The FIFO of one launch's stream. Launches are never numbered twice, so neither is this.
#[must_use]
pub fn fifo_path(run: &Utf8Path, app: &AppName, slot: Slot, launch: Launch, stream: StreamKind) -> Utf8PathBuf {
    run.join("fifo").join(format!("{app}.{slot}.{launch}.{}", stream.as_str()))
}

/// Whose live file lies at `path`: the app, its slot and its stream.
#[must_use]
pub fn whose(path: &Utf8Path) -> Option<(AppName, Slot, StreamKind)> {
    let (slot, stream) = parse_live_name(path.file_name()?)?;
    Some((path.parent()?.file_name()?.parse().ok()?, slot, stream))
}

/// Everything that `app` has printed so far, by slot and stream. An app that never printed has none.
///
/// # Errors
/// [`ListError::Folder`] when the app's folder exists and cannot be read.
pub fn sources(logs: &Utf8Path, app: &AppName) -> Result<Vec<Source>, ListError> {
    let folder = logs.join(app.as_str());
    let failed = |source| ListError::Folder { path: folder.clone(), source };
    let entries = match folder.read_dir() {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let name = entry.map_err(failed)?.file_name();
        if let Some((slot, stream)) = name.to_str().and_then(parse_live_name) {
            found.push(Source::new(logs, app, slot, stream));
        }
    }
    found.sort();
    Ok(found)
}

pub(super) fn parse_live_name(name: &str) -> Option<(Slot, StreamKind)> {
    let (slot, stream) = name.strip_suffix(".log")?.split_once('.')?;
    let stream = StreamKind::BOTH.into_iter().find(|kind| kind.as_str() == stream)?;
    slot.parse().ok().map(|slot| (Slot(slot), stream))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_aside_later_has_a_greater_number_and_names_of_earlier_daemons_come_first() {
        let number = |name: &str| parse_aside("0.out.log", name).map(|(number, _)| number);
        let names = ["0.out.log.12", "0.out.log.1", "0.out.log.000001", "0.out.log.000010.zst", "0.out.log.1234567"];
        let numbers: Vec<_> = names.iter().filter_map(|name| number(name)).collect();
        assert_eq!(numbers.len(), names.len());
        assert!(numbers.is_sorted());
        assert_eq!(numbers[0].next(), Number::FIRST);
        for (name, number) in names.iter().zip(&numbers) {
            let path = rotated_path("0.out.log".into(), *number);
            assert_eq!(path, name.trim_end_matches(".zst"));
        }
        for other in ["0.out.log", "0.out.log.idx", "0.out.log.x", "0.out.log.7.gz", "0.out.log.-7", "10.out.log.7"] {
            assert_eq!(number(other), None, "{other}");
        }
    }

    #[test]
    fn an_apps_sources_are_its_live_files_and_nothing_else_in_the_folder() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let logs = Utf8Path::from_path(dir.path()).expect("a UTF-8 temporary folder");
        let app: AppName = "web".parse().expect("a good name");
        assert_eq!(sources(logs, &app).expect("no folder is no error"), []);
        std::fs::create_dir(logs.join("web")).expect("create the folder");
        for name in ["10.out.log", "2.out.log", "2.err.log", "2.err.log.000001", "2.err.log.idx", "x.out.log", "notes"]
        {
            std::fs::write(logs.join("web").join(name), "").expect("create a file");
        }
        let hostile = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"\xff.out.log");
        std::fs::write(logs.as_std_path().join("web").join(hostile), "").expect("create a file that is no UTF-8");
        let found: Vec<_> = sources(logs, &app).expect("list").iter().map(|s| (s.slot.0, s.stream)).collect();
        assert_eq!(found, [(2, StreamKind::Out), (2, StreamKind::Err), (10, StreamKind::Out)]);
    }
}
