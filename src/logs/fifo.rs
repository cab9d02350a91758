//! The named FIFO between one worker launch and the log thread.
//!
//! Both ends are opened `O_RDWR`, each by an `open` of its own:
//!
//! - the worker never sees `SIGPIPE` when the supervisor dies, because it is itself a reader;
//! - the supervisor's `O_NONBLOCK` does not reach the worker, because flags belong to an open, not to the FIFO;
//! - a later supervisor finds the FIFO by its name and goes on where the last one stopped ([`reopen`]).
//!
//! The price: no end of file ever comes. Who waits for the worker's exit drains afterwards (see [`super::thread`]).

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use camino::{Utf8Path, Utf8PathBuf};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use thiserror::Error;

/// Wanted capacity in bytes: how much a worker may print while the supervisor is being replaced.
pub const PIPE_BYTES: usize = 1 << 20;

/// Below this no smaller capacity is asked for; the kernel's own default is as good.
const PIPE_BYTES_FLOOR: usize = 128 << 10;

/// The two ends of a fresh FIFO.
#[derive(Debug)]
pub struct Fifo {
    /// Reads; does not block.
    pub supervisor: OwnedFd,
    /// To become the worker's standard output or error; blocks. Close-on-exec until it is dup'ed into place.
    pub worker: OwnedFd,
}

/// A FIFO could not be had.
#[derive(Debug, Error)]
pub enum FifoError {
    /// Its folder cannot be made.
    #[error("create the folder {path}")]
    Folder {
        /// The folder.
        path: Utf8PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It cannot be made; `AlreadyExists` means that a launch number came twice.
    #[error("create the FIFO {path}")]
    Create {
        /// The FIFO.
        path: Utf8PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is there and cannot be opened.
    #[error("open the FIFO {path}")]
    Open {
        /// The FIFO.
        path: Utf8PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something else has its name.
    #[error("use {path}: it is not a FIFO")]
    NotAFifo {
        /// What was found.
        path: Utf8PathBuf,
    },
}

impl Fifo {
    /// Makes the FIFO `path` (mode 0600, its folder 0700 when missing) and opens both ends.
    ///
    /// # Errors
    /// One [`FifoError`] for each step. A FIFO that could be made but not opened is removed again.
    pub fn create(path: &Utf8Path) -> Result<Self, FifoError> {
        let mode = Mode::RUSR | Mode::WUSR;
        let make = || rustix::fs::mknodat(rustix::fs::CWD, path.as_std_path(), FileType::Fifo, mode, 0);
        let made = match (make(), path.parent()) {
            (Err(Errno::NOENT), Some(folder)) => {
                use std::os::unix::fs::DirBuilderExt;
                let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
                made.map_err(|source| FifoError::Folder { path: folder.to_owned(), source })?;
                make()
            }
            (made, _) => made,
        };
        made.map_err(|errno| FifoError::Create { path: path.to_owned(), source: errno.into() })?;
        let opened = open(path, OFlags::NONBLOCK).and_then(|supervisor| {
            let worker = open(path, OFlags::empty())?;
            Ok(Self { supervisor, worker })
        });
        match opened {
            Ok(fifo) => {
                enlarge(&fifo.supervisor);
                Ok(fifo)
            }
            Err(error) => {
                // The first error is the one worth telling; a FIFO left behind is swept with the runtime folder.
                let _ = std::fs::remove_file(path);
                Err(error)
            }
        }
    }
}

/// Opens the supervisor's end of a FIFO that an earlier supervisor made.
///
/// # Errors
/// [`FifoError::Open`] and [`FifoError::NotAFifo`].
pub fn reopen(path: &Utf8Path) -> Result<OwnedFd, FifoError> {
    let supervisor = open(path, OFlags::NONBLOCK)?;
    enlarge(&supervisor);
    Ok(supervisor)
}

/// The capacity of the FIFO behind `fd`, in bytes.
///
/// # Errors
/// The kernel's, when `fd` is no pipe.
pub fn capacity(fd: impl AsFd) -> io::Result<usize> {
    Ok(rustix::pipe::fcntl_getpipe_size(fd)?)
}

fn open(path: &Utf8Path, extra: OFlags) -> Result<OwnedFd, FifoError> {
    let failed = |errno: Errno| FifoError::Open { path: path.to_owned(), source: errno.into() };
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW | extra;
    let fd = rustix::fs::open(path.as_std_path(), flags, Mode::empty()).map_err(failed)?;
    match FileType::from_raw_mode(rustix::fs::fstat(&fd).map_err(failed)?.st_mode) {
        FileType::Fifo => Ok(fd),
        FileType::RegularFile
        | FileType::Directory
        | FileType::Symlink
        | FileType::Socket
        | FileType::CharacterDevice
        | FileType::BlockDevice
        | FileType::Unknown => Err(FifoError::NotAFifo { path: path.to_owned() }),
    }
}

/// Asks for [`PIPE_BYTES`], then for less: a user without privileges has a budget over all pipes
/// (`pipe-user-pages-soft`), and a small pipe works as well, it only gives the worker less room.
fn enlarge(fd: &OwnedFd) {
    let mut bytes = PIPE_BYTES;
    while bytes >= PIPE_BYTES_FLOOR && rustix::pipe::fcntl_setpipe_size(fd, bytes).is_err() {
        bytes /= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir() -> (tempfile::TempDir, Utf8PathBuf) {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = Utf8PathBuf::from_path_buf(dir.path().to_owned()).expect("a UTF-8 temporary folder");
        (dir, path)
    }

    #[test]
    fn only_the_supervisors_end_is_non_blocking_and_both_close_on_exec() {
        let (_guard, dir) = dir();
        let fifo = Fifo::create(&dir.join("run/fifo/web.0.1.out")).expect("create");
        let flags = |fd: &OwnedFd| rustix::fs::fcntl_getfl(fd).expect("flags");
        assert!(flags(&fifo.supervisor).contains(OFlags::NONBLOCK));
        assert!(!flags(&fifo.worker).contains(OFlags::NONBLOCK));
        for fd in [&fifo.supervisor, &fifo.worker] {
            let flags = rustix::io::fcntl_getfd(fd).expect("descriptor flags");
            assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
        }
        assert!(capacity(&fifo.worker).expect("capacity") > 0);
    }

    #[test]
    fn what_was_printed_while_no_supervisor_lived_is_read_by_the_next() {
        let (_guard, dir) = dir();
        let path = dir.join("web.0.1.out");
        let Fifo { supervisor, worker } = Fifo::create(&path).expect("create");
        drop(supervisor);
        rustix::io::write(&worker, b"alone\n").expect("no reader is no reason for an error");
        let mut text = [0; 16];
        let next = reopen(&path).expect("reopen");
        assert_eq!(rustix::io::read(&next, &mut text), Ok(6));
        assert_eq!(rustix::io::read(&next, &mut text), Err(Errno::AGAIN));
    }

    #[test]
    fn a_name_in_use_and_a_name_of_something_else_are_refused() {
        let (_guard, dir) = dir();
        let path = dir.join("web.0.1.out");
        let _fifo = Fifo::create(&path).expect("create");
        assert!(matches!(Fifo::create(&path), Err(FifoError::Create { .. })));
        std::fs::write(dir.join("file"), "").expect("write");
        assert!(matches!(reopen(&dir.join("file")), Err(FifoError::NotAFifo { .. })));
        assert!(matches!(reopen(&dir.join("nothing")), Err(FifoError::Open { .. })));
    }
}
