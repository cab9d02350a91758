//! Where a launch's output goes, and the descriptor that the worker is given for it.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use agentd_core::id::Launch;
use camino::{Utf8Path, Utf8PathBuf};
use thiserror::Error;

use super::fifo::{Fifo, FifoError};
use super::file::{make_folder, now_us};
use super::index::{IndexWriter, Record};
use super::layout::index_path;
use super::rotate::{RotateError, Rotation, rotate};

/// What `log = { sink = … }` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sink {
    /// Through a FIFO and the log thread: every chunk with its time, rotation while the worker runs, no line lost with
    /// the supervisor. A worker that prints 1 MiB while there is no supervisor waits for the next one.
    #[default]
    Fifo,
    /// Straight into the file. Nothing ever blocks but the disk itself; in return lines carry the time of the launch, two
    /// launches that overlap cannot be told apart, and the file is rotated only when a worker starts.
    File,
    /// To `/dev/null`.
    None,
}

/// One stream of one launch, opened.
#[derive(Debug)]
pub enum Opened {
    /// Give `supervisor` to the log thread and `worker` to the worker.
    Fifo(Fifo),
    /// Give it to the worker; there is nothing to move.
    Direct(OwnedFd),
}

/// A worker's output could not be opened.
#[derive(Debug, Error)]
pub enum SinkError {
    /// No FIFO.
    #[error(transparent)]
    Fifo(#[from] FifoError),
    /// The log's folder cannot be made.
    #[error("create the folder {path}")]
    Folder {
        /// The folder.
        path: Utf8PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The log that the worker is to write cannot be opened.
    #[error("open the log {path}")]
    Open {
        /// The file.
        path: Utf8PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is too big and could not be rotated.
    #[error(transparent)]
    Rotate(#[from] RotateError),
}

/// Opens one stream of a launch: `fifo` is its FIFO's name, `log` its live log file. Only what `sink` needs is made.
///
/// # Errors
/// [`SinkError`], one variant a step.
pub fn open_sink(
    sink: Sink,
    fifo: &Utf8Path,
    log: &Utf8Path,
    launch: Launch,
    rotation: Rotation,
) -> Result<Opened, SinkError> {
    match sink {
        Sink::Fifo => Ok(Opened::Fifo(Fifo::create(fifo)?)),
        Sink::File => open_file(log, launch, rotation).map(Opened::Direct),
        Sink::None => {
            let path = Utf8Path::new("/dev/null");
            let opened = File::options().read(true).write(true).open(path);
            opened
                .map(|file| Opened::Direct(file.into()))
                .map_err(|source| SinkError::Open { path: path.into(), source })
        }
    }
}

fn open_file(log: &Utf8Path, launch: Launch, rotation: Rotation) -> Result<OwnedFd, SinkError> {
    use std::os::unix::fs::OpenOptionsExt;
    if let Some(folder) = log.parent() {
        make_folder(folder).map_err(|source| SinkError::Folder { path: folder.to_owned(), source })?;
    }
    if std::fs::metadata(log).is_ok_and(|meta| meta.len() >= rotation.max_size) {
        // A predecessor that still runs keeps writing to what is now put aside; it is packed once nobody does.
        rotate(log, rotation.keep)?;
    }
    let mut options = File::options();
    options.append(true).create(true).mode(0o640);
    let failed = |source| SinkError::Open { path: log.to_owned(), source };
    let file = options.open(log).map_err(failed)?;
    let end = file.metadata().map_err(failed)?.len();
    // Without an index its lines have no launch; that is no reason not to start a worker.
    if let Ok(mut index) = IndexWriter::open(&index_path(log), end)
        && index.announce(Record { offset: end, time_us: now_us(), launch: Some(launch) }).is_ok()
    {
        index.settle();
    }
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir() -> (tempfile::TempDir, Utf8PathBuf) {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = Utf8PathBuf::from_path_buf(dir.path().to_owned()).expect("a UTF-8 temporary folder");
        (dir, path)
    }

    fn direct(sink: Sink, dir: &Utf8Path, max_size: u64) -> OwnedFd {
        let rotation = Rotation { max_size, keep: 1, ..Rotation::default() };
        match open_sink(sink, &dir.join("fifo"), &dir.join("web/0.out.log"), Launch(1), rotation).expect("open") {
            Opened::Direct(fd) => fd,
            Opened::Fifo(_) => panic!("{sink:?} opened a FIFO"),
        }
    }

    #[test]
    fn two_launches_append_to_one_file_and_the_third_finds_it_rotated() {
        let (_guard, dir) = dir();
        let (first, second) = (direct(Sink::File, &dir, 4), direct(Sink::File, &dir, 4));
        rustix::io::write(&first, b"one\n").expect("write");
        rustix::io::write(&second, b"two\n").expect("write");
        let third = direct(Sink::File, &dir, 4);
        rustix::io::write(&third, b"three\n").expect("write");
        rustix::io::write(&first, b"late\n").expect("write");
        let read = |name: &str| std::fs::read_to_string(dir.join("web").join(name)).expect("read");
        assert_eq!((read("0.out.log.000001"), read("0.out.log")), ("one\ntwo\nlate\n".into(), "three\n".into()));
    }

    #[test]
    fn none_takes_everything_and_leaves_no_file() {
        let (_guard, dir) = dir();
        assert_eq!(rustix::io::write(direct(Sink::None, &dir, 1), b"gone"), Ok(4));
        assert_eq!(std::fs::read_dir(&dir).expect("list").count(), 0);
    }
}
