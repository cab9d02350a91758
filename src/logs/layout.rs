//! Where logs lie and what their files are called.
//!
//! Owns the names only. Nothing here touches the disk but [`sources`], which lists what was printed so far.
//!
//! ```text
//! logs/support/0.out.log         the live file of slot 0's standard output
//! logs/support/0.out.log.idx     its time index
//! logs/support/0.out.log.1       the one before, its index is 0.out.log.1.idx
//! run/fifo/support.0.412.out     the FIFO of launch 412
//! ```

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

/// The `number`th predecessor of the live file `live`; 0 is the live file itself.
#[must_use]
pub fn rotated_path(live: &Utf8Path, number: u32) -> Utf8PathBuf {
    match number {
        0 => live.to_owned(),
        older => Utf8PathBuf::from(format!("{live}.{older}")),
    }
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

fn parse_live_name(name: &str) -> Option<(Slot, StreamKind)> {
    let (slot, stream) = name.strip_suffix(".log")?.split_once('.')?;
    let stream = StreamKind::BOTH.into_iter().find(|kind| kind.as_str() == stream)?;
    slot.parse().ok().map(|slot| (Slot(slot), stream))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_apps_sources_are_its_live_files_and_nothing_else_in_the_folder() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let logs = Utf8Path::from_path(dir.path()).expect("a UTF-8 temporary folder");
        let app: AppName = "web".parse().expect("a good name");
        assert_eq!(sources(logs, &app).expect("no folder is no error"), []);
        std::fs::create_dir(logs.join("web")).expect("create the folder");
        for name in ["10.out.log", "2.out.log", "2.err.log", "2.err.log.1", "2.err.log.idx", "x.out.log", "notes"] {
            std::fs::write(logs.join("web").join(name), "").expect("create a file");
        }
        let hostile = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"\xff.out.log");
        std::fs::write(logs.as_std_path().join("web").join(hostile), "").expect("create a file that is no UTF-8");
        let found: Vec<_> = sources(logs, &app).expect("list").iter().map(|s| (s.slot.0, s.stream)).collect();
        assert_eq!(found, [(2, StreamKind::Out), (2, StreamKind::Err), (10, StreamKind::Out)]);
    }
}
