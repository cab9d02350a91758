//! Rotation: the live file is put aside under the next number, and what is older than the last `keep` goes.
//!
//! ```text
//! x.log, x.log.idx
//!   │ 1  rename x.log     → x.log.000008        killed here: `repair` lets the index follow
//!   │ 2  rename x.log.idx → x.log.000008.idx    killed here: the next writer makes x.log anew
//!   │ 3  remove numbers beyond `keep`           killed here: the next rotation removes them
//!   ▼
//! x.log.000008, x.log.000008.idx
//! ```
//!
//! Only names change, so there is no moment at which a line is in two files or in none. Packing and the other bounds
//! are [`super::housekeeper`]'s, which has time; the count is kept here, so that a program that prints without end is
//! bounded whatever else the machine does.

use std::io;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use thiserror::Error;

use super::layout::{Number, index_path, packed_path, rotated, rotated_path};

/// When a stream's live file is put aside, and how many are kept. At most about `max_size × (keep + 1)` bytes lie on the
/// disk, and as much again in the indexes of a worker that prints byte by byte; a file may pass `max_size` by the one
/// chunk (1 MiB) that filled it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// A live file of this many bytes is put aside.
    pub max_size: u64,
    /// So is one whose first line is this old when more comes.
    pub max_age: Option<Duration>,
    /// How many files put aside are kept. None means that what is put aside is gone.
    pub keep: u32,
}

impl Default for Rotation {
    fn default() -> Self {
        Self { max_size: 50 << 20, max_age: None, keep: 10 }
    }
}

/// A rotation stopped half way. What was renamed stays renamed; nothing is lost.
#[derive(Debug, Error)]
pub enum RotateError {
    /// What was put aside before cannot be listed.
    #[error("list the logs beside {path}")]
    List {
        /// The live file.
        path: Utf8PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file cannot be removed.
    #[error("remove the old log {path}")]
    Remove {
        /// The file.
        path: Utf8PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file cannot be renamed.
    #[error("rename the log {path}")]
    Rename {
        /// The file.
        path: Utf8PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl RotateError {
    pub(super) fn source_error(&self) -> &io::Error {
        match self {
            Self::List { source, .. } | Self::Remove { source, .. } | Self::Rename { source, .. } => source,
        }
    }
}

/// Puts the live file at `live` aside, keeping `keep` old ones, this one included.
///
/// # Errors
/// [`RotateError`]; the live file may be put aside by then, and nothing is lost.
pub fn rotate(live: &Utf8Path, keep: u32) -> Result<(), RotateError> {
    let numbers = rotated(live).map_err(|source| RotateError::List { path: live.to_owned(), source })?;
    let number = numbers.last().map_or(Number::FIRST, |newest| newest.next());
    let aside = rotated_path(live, number);
    rename(live, &aside)?;
    rename(&index_path(live), &index_path(&aside))?;
    let kept = numbers.into_iter().chain([number]).rev();
    for number in kept.skip(keep as usize) {
        remove(live, number)?;
    }
    Ok(())
}

/// Lets an index follow its log where a crash fell between the two.
pub(super) fn repair(live: &Utf8Path) {
    let index = index_path(live);
    if live.exists() || !index.exists() {
        return;
    }
    if let Some(newest) = rotated(live).ok().and_then(|numbers| numbers.last().copied()) {
        let its = index_path(&rotated_path(live, newest));
        if !its.exists() && !packed_path(&its).exists() {
            // Where it fails the times of one old file stay unknown.
            let _ = std::fs::rename(index, its);
        }
    }
}

/// Removes what `live` put aside as `number`, in every form; the logs first, so that a crash leaves an index without
/// lines and never lines without times.
///
/// # Errors
/// [`RotateError::Remove`], the first one met.
pub(super) fn remove(live: &Utf8Path, number: Number) -> Result<(), RotateError> {
    let log = rotated_path(live, number);
    let index = index_path(&log);
    for path in [&log, &packed_path(&log), &index, &packed_path(&index)] {
        match std::fs::remove_file(path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(RotateError::Remove { path: path.clone(), source });
            }
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

fn rename(from: &Utf8Path, to: &Utf8Path) -> Result<(), RotateError> {
    match std::fs::rename(from, to) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(RotateError::Rename { path: from.to_owned(), source })
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Dir(tempfile::TempDir);

    impl Dir {
        fn new() -> (Self, Utf8PathBuf) {
            let dir = tempfile::tempdir().expect("a temporary folder");
            let live = Utf8PathBuf::from_path_buf(dir.path().join("x.log")).expect("a UTF-8 temporary folder");
            (Self(dir), live)
        }

        fn files(&self) -> Vec<String> {
            let entries = std::fs::read_dir(&self.0).expect("list");
            let mut files: Vec<_> = entries
                .map(|entry| {
                    let path = entry.expect("entry").path();
                    let name = path.file_name().expect("a name").to_string_lossy().into_owned();
                    format!("{name}={}", std::fs::read_to_string(path).expect("read"))
                })
                .collect();
            files.sort();
            files
        }
    }

    fn write(live: &Utf8Path, text: &str) {
        std::fs::write(live, text).expect("write the log");
        std::fs::write(index_path(live), text).expect("write the index");
    }

    #[test]
    fn a_log_is_put_aside_with_its_index_and_the_oldest_goes() {
        let (dir, live) = Dir::new();
        for text in ["a", "b", "c", "d"] {
            write(&live, text);
            rotate(&live, 2).expect("rotate");
        }
        assert_eq!(dir.files(), ["x.log.000003.idx=c", "x.log.000003=c", "x.log.000004.idx=d", "x.log.000004=d"]);
    }

    #[test]
    fn keeping_none_removes_the_live_file() {
        let (dir, live) = Dir::new();
        write(&live, "a");
        rotate(&live, 0).expect("rotate");
        assert!(dir.files().is_empty());
    }

    #[test]
    fn an_index_that_a_crash_left_behind_follows_its_log() {
        let (dir, live) = Dir::new();
        write(&live, "b");
        write(&rotated_path(&live, Number::FIRST), "a");
        std::fs::rename(&live, rotated_path(&live, Number::FIRST.next())).expect("the rename before the crash");
        repair(&live);
        assert_eq!(dir.files(), ["x.log.000001.idx=a", "x.log.000001=a", "x.log.000002.idx=b", "x.log.000002=b"]);
    }

    #[test]
    fn files_that_an_earlier_daemon_moved_up_are_older_than_any_other_and_go_first() {
        let (dir, live) = Dir::new();
        for (name, text) in [("x.log.1", "b"), ("x.log.2", "a")] {
            write(&live.with_file_name(name), text);
        }
        write(&live, "c");
        rotate(&live, 2).expect("rotate");
        assert_eq!(dir.files(), ["x.log.000001.idx=c", "x.log.000001=c", "x.log.1.idx=b", "x.log.1=b"]);
    }

    #[test]
    fn a_packed_log_counts_as_one_and_goes_whole() {
        let (dir, live) = Dir::new();
        let old = rotated_path(&live, Number::FIRST);
        std::fs::write(packed_path(&old), "a").expect("write");
        std::fs::write(packed_path(&index_path(&old)), "a").expect("write");
        write(&live, "b");
        rotate(&live, 1).expect("rotate");
        assert_eq!(dir.files(), ["x.log.000002.idx=b", "x.log.000002=b"]);
    }
}
