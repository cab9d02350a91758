//! The bytes of a log or an index, packed or not: what [`super::part`] and [`super::index`] read from.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::SystemTime;

use camino::Utf8Path;

use super::layout::packed_path;
use super::packed::Packed;

/// Which file it is, whatever it is called and however it is kept. An inode is used again once its file is gone, so
/// the time of birth belongs to it; 0 where the file system does not know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) device: u64,
    pub(super) inode: u64,
    /// Nanoseconds since 1970.
    pub(super) born_ns: u64,
}

impl Identity {
    pub(super) fn of(meta: &std::fs::Metadata) -> Self {
        let born = meta.created().ok().and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
        let born_ns = born.map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX));
        Self { device: meta.dev(), inode: meta.ino(), born_ns }
    }
}

/// Bytes, opened for reading.
#[derive(Debug)]
pub(super) enum Body {
    /// As they were written; more may come.
    Plain(File),
    /// Packed; no more come.
    Packed(Packed),
}

impl Body {
    /// Opens `path`, else its packed form; none when there is neither.
    pub(super) fn open(path: &Utf8Path) -> io::Result<Option<Self>> {
        match File::open(path) {
            Ok(file) => return Ok(Some(Self::Plain(file))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        match File::open(packed_path(path)) {
            Ok(file) => Packed::open(file).map(|packed| Some(Self::Packed(packed))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn identity(&self) -> io::Result<Identity> {
        match self {
            Self::Plain(file) => file.metadata().map(|meta| Identity::of(&meta)),
            Self::Packed(packed) => Ok(packed.origin()),
        }
    }

    /// Bytes that there are now, unpacked.
    pub(super) fn len(&self) -> io::Result<u64> {
        match self {
            Self::Plain(file) => file.metadata().map(|meta| meta.len()),
            Self::Packed(packed) => Ok(packed.len()),
        }
    }

    /// When the last byte came. A packed file keeps that time.
    pub(super) fn written(&self) -> io::Result<SystemTime> {
        let file = match self {
            Self::Plain(file) => file,
            Self::Packed(packed) => packed.file(),
        };
        file.metadata().and_then(|meta| meta.modified())
    }

    /// Reads some bytes from `offset` on; none at the end.
    pub(super) fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        match self {
            Self::Plain(file) => file.read_at(into, offset),
            Self::Packed(packed) => packed.read_at(into, offset),
        }
    }

    /// Fills `into` with the bytes from `offset` on.
    pub(super) fn read_exact_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        let mut got = 0;
        while got < into.len() {
            match self.read_at(&mut into[got..], offset + got as u64) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(bytes) => got += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
