//! How much a release may hold, counted while it is taken in: an archive's own word for its size is worth nothing.

use std::sync::atomic::{AtomicU64, Ordering};

use camino::Utf8Path;
use serde::{Deserialize, Serialize};

use super::error::CutError;

/// Room that is left to others: the disk of a machine that is full serves nobody.
const RESERVE: u64 = 64 << 20;
/// The same as a part of the disk, where that is less.
const RESERVE_PART: u64 = 50;

/// What a release may hold at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of its files.
    pub bytes: u64,
    /// Files, folders and links.
    pub entries: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 4 << 30, entries: 250_000 }
    }
}

/// What was taken in so far; several threads count.
#[derive(Debug)]
pub struct Budget {
    limits: Limits,
    bytes: AtomicU64,
    entries: AtomicU64,
}

impl Budget {
    /// Nothing was.
    #[must_use]
    pub const fn new(limits: Limits) -> Self {
        Self { limits, bytes: AtomicU64::new(0), entries: AtomicU64::new(0) }
    }

    /// One more thing.
    ///
    /// # Errors
    /// It is one too many.
    pub fn entry(&self) -> Result<(), CutError> {
        let before = self.entries.fetch_add(1, Ordering::Relaxed);
        if before < self.limits.entries { Ok(()) } else { Err(CutError::TooMany { max: self.limits.entries }) }
    }

    /// More bytes.
    ///
    /// # Errors
    /// They are too many.
    pub fn spend(&self, bytes: u64) -> Result<(), CutError> {
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let fits = before.saturating_add(bytes) <= self.limits.bytes;
        if fits { Ok(()) } else { Err(CutError::TooLarge { max: self.limits.bytes }) }
    }

    /// Bytes that may be read in all to take in what is allowed, headers and padding included.
    #[must_use]
    pub fn readable(&self) -> u64 {
        self.limits.bytes.saturating_add(self.limits.entries.saturating_mul(4096)).saturating_add(1 << 20)
    }
}

/// That the disk of `folder` has room for this many bytes more, and something left then.
///
/// # Errors
/// [`CutError::NoRoom`]. Where the disk cannot be asked, nothing is known and nothing refused.
pub fn check_room(folder: &Utf8Path, needed: u64) -> Result<(), CutError> {
    let Ok(disk) = nix::sys::statvfs::statvfs(folder.as_std_path()) else { return Ok(()) };
    let unit = disk.fragment_size();
    let (free, whole) = (unit.saturating_mul(disk.blocks_available()), unit.saturating_mul(disk.blocks()));
    let reserve = RESERVE.min(whole / RESERVE_PART);
    if needed.saturating_add(reserve) <= free {
        return Ok(());
    }
    Err(CutError::NoRoom { path: folder.to_owned(), needed, free, reserve })
}
