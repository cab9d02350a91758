//! Large payloads: files beside the database, named by the SHA-256 of what they hold.
//!
//! The database names a blob only in a transaction that commits after the file and its folder are on disk; so a
//! name always leads somewhere. A file that nothing names (its transaction failed, or what named it was pruned) is swept
//! by retention. The same content is stored once.
//!
//! What can go wrong: the disk is full, or fails. The request that brought the payload is refused then.

use std::fmt::Write as _;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};

use camino::Utf8PathBuf;
use sha2::{Digest, Sha256};
use thiserror::Error;

/// Payloads longer than this, in bytes, become files.
pub(super) const INLINE_MAX: usize = 64 * 1024;

/// Why a blob could not be kept or read.
#[derive(Debug, Error)]
pub enum BlobError {
    /// The folder could not be made.
    #[error("make the folder {path}")]
    Folder {
        /// Which.
        path: Utf8PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It could not be written.
    #[error("write {path}")]
    Write {
        /// The file.
        path: Utf8PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It could not be read.
    #[error("read {path}")]
    Read {
        /// The file.
        path: Utf8PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Name of a blob: 64 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct BlobName(String);

impl BlobName {
    /// A name as it was stored; none when it is no such name.
    #[must_use]
    pub(super) fn parse(name: &str) -> Option<Self> {
        let good = name.len() == 64 && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        good.then(|| Self(name.to_owned()))
    }

    /// As text.
    #[must_use]
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// The folder of blobs.
#[derive(Clone, Debug)]
pub(super) struct Blobs {
    folder: Utf8PathBuf,
}

impl Blobs {
    /// Blobs in `folder`, which is made when missing.
    ///
    /// # Errors
    /// It cannot be made.
    pub(super) fn open(folder: Utf8PathBuf) -> Result<Self, BlobError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .map_err(|source| BlobError::Folder { path: folder.clone(), source })?;
        Ok(Self { folder })
    }

    /// Keeps `bytes`; they are on disk when this returns.
    ///
    /// # Errors
    /// Nothing is kept then.
    pub(super) fn keep(&self, bytes: &[u8]) -> Result<BlobName, BlobError> {
        let mut name = String::with_capacity(64);
        for byte in Sha256::digest(bytes) {
            // Writing to a text cannot fail.
            let _ = write!(name, "{byte:02x}");
        }
        let path = self.folder.join(&name);
        let failed = |source| BlobError::Write { path: path.clone(), source };
        if !path.exists() {
            let aside = self.folder.join(".new");
            let written = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&aside)
                .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
                .and_then(|()| fs::rename(&aside, &path))
                .and_then(|()| File::open(&self.folder)?.sync_all());
            if let Err(source) = written {
                // Half of it is of no use and takes room where there is none.
                let _ = fs::remove_file(&aside);
                return Err(failed(source));
            }
        }
        Ok(BlobName(name))
    }

    /// What was kept under `name`.
    ///
    /// # Errors
    /// It is not there, or cannot be read.
    pub(super) fn read(&self, name: &BlobName) -> Result<Vec<u8>, BlobError> {
        let path = self.path(name);
        fs::read(&path).map_err(|source| BlobError::Read { path, source })
    }

    /// The size of one in bytes; 0 when it is not there.
    pub(super) fn size(&self, name: &BlobName) -> u64 {
        fs::metadata(self.path(name)).map_or(0, |about| about.len())
    }

    /// Every blob with its size in bytes.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub(super) fn list(&self) -> Result<Vec<(BlobName, u64)>, BlobError> {
        let failed = |source| BlobError::Read { path: self.folder.clone(), source };
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_str().and_then(BlobName::parse);
            if let (Some(name), Ok(about)) = (name, entry.metadata()) {
                found.push((name, about.len()));
            }
        }
        Ok(found)
    }

    /// Removes one. Whether it was there.
    pub(super) fn remove(&self, name: &BlobName) -> bool {
        fs::remove_file(self.path(name)).is_ok()
    }

    fn path(&self, name: &BlobName) -> Utf8PathBuf {
        self.folder.join(&name.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_twice_is_stored_once_and_read_as_it_was() {
        let folder = tempfile::tempdir().expect("a folder");
        let blobs = Blobs::open(Utf8PathBuf::from_path_buf(folder.path().join("blobs")).expect("UTF-8")).expect("made");
        let bytes = vec![7; 100_000];
        let name = blobs.keep(&bytes).expect("kept");
        assert_eq!(blobs.keep(&bytes).expect("kept again"), name);
        assert_eq!(blobs.list().expect("listed"), [(name.clone(), 100_000)]);
        assert_eq!(blobs.read(&name).expect("read"), bytes);
        assert!(blobs.remove(&name) && !blobs.remove(&name));
        assert!(matches!(blobs.read(&name), Err(BlobError::Read { .. })));
    }

    #[test]
    fn a_name_that_could_lead_out_of_the_folder_is_none() {
        assert_eq!(BlobName::parse("../../etc/passwd"), None);
        assert_eq!(BlobName::parse(&"A".repeat(64)), None);
        assert!(BlobName::parse(&"a1".repeat(32)).is_some());
    }
}
