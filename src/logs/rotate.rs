//! Rotation: the live file becomes number 1, number 1 becomes 2, and the one above `keep` goes.
//!
//! Only renames, oldest first, each log before its index. So a `kill -9` in between leaves at most one number without a
//! log, whose index has not followed yet; `repair` lets it follow. Nothing is ever truncated. Today's rule is size
//! alone; another one (age) is another reason to call `rotate`, and what becomes of number 1 (compression) starts
//! where it returns.

use std::io;

use camino::{Utf8Path, Utf8PathBuf};
use thiserror::Error;

use super::layout::{index_path, rotated_path};

/// How much of a stream is kept. At most about `max_size × (keep + 1)` bytes lie on the disk, and as much again in the
/// indexes of a worker that prints byte by byte; a file may pass `max_size` by the one chunk (1 MiB) that filled it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// A live file of this many bytes is rotated.
    pub max_size: u64,
    /// How many rotated files are kept. None means that what is rotated is gone.
    pub keep: u32,
}

impl Default for Rotation {
    fn default() -> Self {
        Self { max_size: 50 << 20, keep: 10 }
    }
}

/// A rotation stopped half way. What was renamed stays renamed; nothing is lost.
#[derive(Debug, Error)]
pub enum RotateError {
    /// The oldest file cannot be removed.
    #[error("remove the oldest log {path}")]
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
            Self::Remove { source, .. } | Self::Rename { source, .. } => source,
        }
    }
}

/// Makes room for a new live file at `live`, keeping `keep` old ones.
///
/// # Errors
/// [`RotateError`]; some files may have moved up by then, none is lost.
pub(super) fn rotate(live: &Utf8Path, keep: u32) -> Result<(), RotateError> {
    // Up to the first free number: a gap that a crash left is filled, not carried along.
    let free = (1..=keep).find(|&number| !rotated_path(live, number).exists()).unwrap_or(keep);
    let last = rotated_path(live, free);
    for path in [index_path(&last), last] {
        remove(&path)?;
    }
    for number in (0..free).rev() {
        let (from, to) = (rotated_path(live, number), rotated_path(live, number + 1));
        rename(&from, &to)?;
        rename(&index_path(&from), &index_path(&to))?;
    }
    Ok(())
}

/// Lets an index follow its log where a crash fell between the two.
pub(super) fn repair(live: &Utf8Path) {
    let mut number = 0;
    let mut missing = 0;
    // Two missing in a row are the end; one is the gap.
    while missing < 2 {
        let (log, next) = (rotated_path(live, number), rotated_path(live, number + 1));
        if log.exists() {
            missing = 0;
        } else {
            missing += 1;
            let (index, next_index) = (index_path(&log), index_path(&next));
            if next.exists() && index.exists() && !next_index.exists() {
                // Where it fails the times of one old file stay unknown.
                let _ = std::fs::rename(index, next_index);
            }
        }
        number += 1;
    }
}

fn remove(path: &Utf8Path) -> Result<(), RotateError> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(RotateError::Remove { path: path.to_owned(), source })
        }
        Ok(()) | Err(_) => Ok(()),
    }
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
    fn logs_and_indexes_move_up_together_and_the_oldest_goes() {
        let (dir, live) = Dir::new();
        for text in ["a", "b", "c", "d"] {
            write(&live, text);
            rotate(&live, 2).expect("rotate");
        }
        assert_eq!(dir.files(), ["x.log.1.idx=d", "x.log.1=d", "x.log.2.idx=c", "x.log.2=c"]);
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
        write(&live, "a");
        write(&rotated_path(&live, 2), "c");
        std::fs::rename(&live, rotated_path(&live, 1)).expect("the rename before the crash");
        repair(&live);
        assert_eq!(dir.files(), ["x.log.1.idx=a", "x.log.1=a", "x.log.2.idx=c", "x.log.2=c"]);
    }

    #[test]
    fn a_gap_that_a_crash_left_is_filled_and_no_older_file_is_given_up_for_it() {
        let (dir, live) = Dir::new();
        write(&live, "a");
        write(&rotated_path(&live, 2), "c");
        rotate(&live, 2).expect("rotate");
        assert_eq!(dir.files(), ["x.log.1.idx=a", "x.log.1=a", "x.log.2.idx=c", "x.log.2=c"]);
    }
}
