//! What the daemon says of itself, on its standard error: to a terminal, to systemd's journal, or to `state/daemon.log`.
//!
//! Owns that the last one stays bounded: once it has [`MAX_SIZE`] it is put aside as `daemon.log.000007`, and of those
//! [`KEEP`] stay. A standard error that somebody else chose is theirs. The journal is given each line's priority.
//!
//! ```text
//!   write ──► standard error ──► state/daemon.log has MAX_SIZE, or was removed?
//!                                   │ rename, make anew, let standard error be the new one
//!                                   ▼ killed in between: the next start makes it anew
//! ```
//!
//! What can go wrong: the file cannot be put aside or made anew. Then the daemon goes on with the one it has and tries
//! again at the next line; where the disk is full nothing grows.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Mutex, PoisonError};

use camino::{Utf8Path, Utf8PathBuf};
use rustix::fs::{Stat, fstat, stat};
use rustix::stdio::{dup2_stderr, dup2_stdout};
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

use crate::home::Home;
use crate::logs::rotate::rotate;

/// Bytes after which the file is put aside.
const MAX_SIZE: u64 = 10 << 20;

/// How many put aside are kept.
const KEEP: u32 = 3;

/// Where the daemon's own words go.
#[derive(Debug)]
pub struct Diary {
    to: Place,
}

#[derive(Debug)]
enum Place {
    /// The journal, by a stream of systemd's: it adds the time, and takes a priority before each line.
    Journal,
    /// Our own file. The lock is held while it is put aside.
    File(Mutex<Utf8PathBuf>),
    /// A terminal, or whatever somebody made of standard error.
    Elsewhere,
}

impl Diary {
    /// Looks at what standard error is.
    #[must_use]
    pub fn of(home: &Home) -> Self {
        let own = fstat(io::stderr()).ok();
        let path = home.state.join("daemon.log");
        let journal = std::env::var("JOURNAL_STREAM").ok();
        let to = match own {
            Some(own) if journal.is_some_and(|stream| stream == format!("{}:{}", own.st_dev, own.st_ino)) => {
                Place::Journal
            }
            Some(own) if is_at(&own, &path) => Place::File(Mutex::new(path)),
            Some(_) | None => Place::Elsewhere,
        };
        Self { to }
    }

    /// Whether each line needs its time.
    #[must_use]
    pub const fn needs_times(&self) -> bool {
        match self.to {
            Place::Journal => false,
            Place::File(_) | Place::Elsewhere => true,
        }
    }

    /// Sees to it that the file is not too long.
    fn bound(&self) {
        let Place::File(path) = &self.to else { return };
        let path = path.lock().unwrap_or_else(PoisonError::into_inner);
        let Ok(own) = fstat(io::stderr()) else { return };
        let removed = own.st_nlink == 0;
        if u64::try_from(own.st_size).is_ok_and(|size| size >= MAX_SIZE) || removed {
            // There is nobody to tell: this is where it would be told.
            let _ = anew(&path, &own);
        }
    }
}

/// Puts the file aside, and makes standard error, and standard output where it is the same, a new one of that name.
fn anew(path: &Utf8Path, own: &Stat) -> io::Result<()> {
    if is_at(own, path) {
        rotate(path, KEEP).map_err(io::Error::other)?;
    }
    let file = File::options().append(true).create(true).mode(0o600).open(path)?;
    let both = fstat(io::stdout()).is_ok_and(|out| (out.st_dev, out.st_ino) == (own.st_dev, own.st_ino));
    dup2_stderr(file.as_fd())?;
    if both {
        dup2_stdout(file.as_fd())?;
    }
    Ok(())
}

fn is_at(own: &Stat, path: &Utf8Path) -> bool {
    stat(path.as_std_path()).is_ok_and(|found| (found.st_dev, found.st_ino) == (own.st_dev, own.st_ino))
}

impl<'d> MakeWriter<'d> for Diary {
    type Writer = Entry<'d>;

    fn make_writer(&'d self) -> Entry<'d> {
        Entry { diary: self, level: Level::INFO }
    }

    fn make_writer_for(&'d self, about: &Metadata<'_>) -> Entry<'d> {
        Entry { diary: self, level: *about.level() }
    }
}

/// One line on its way.
#[derive(Debug)]
pub struct Entry<'d> {
    diary: &'d Diary,
    level: Level,
}

impl Write for Entry<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match self.diary.to {
            Place::Journal => {
                // In one write: the keeper may speak beside us.
                let text = [priority(self.level).as_bytes(), line].concat();
                io::stderr().write_all(&text)?;
            }
            Place::File(_) | Place::Elsewhere => io::stderr().write_all(line)?,
        }
        self.diary.bound();
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// As `sd-daemon(3)` has it.
fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "<3>",
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        Level::DEBUG | Level::TRACE => "<7>",
    }
}
