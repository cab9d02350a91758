//! What a worker proves itself by: nothing that is stored for each, so that it is as good under the next daemon.
//!
//! A token is the launch's number and the SHA-256 of the instance's secret with it. The secret lies in the state folder,
//! readable by the daemon's user only, is drawn once, and never leaves.
//!
//! What can go wrong: the file cannot be read or made. Then the daemon has no task protocol, and says so.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;

use agentd_core::id::Launch;
use camino::{Utf8Path, Utf8PathBuf};
use sha2::{Digest, Sha256};
use thiserror::Error;

/// Length of the secret in bytes.
const SECRET_BYTES: usize = 32;

/// Why there is no secret.
#[derive(Debug, Error)]
pub enum SecretError {
    /// It could not be drawn.
    #[error("draw a secret from /dev/urandom")]
    Draw(#[source] io::Error),
    /// It could not be read.
    #[error("read {path}")]
    Read {
        /// The file.
        path: Utf8PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It could not be kept.
    #[error("write {path}")]
    Write {
        /// The file.
        path: Utf8PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file holds something else.
    #[error("read {path}: it holds {found} bytes and should hold 32; remove it and restart the workers")]
    Damaged {
        /// The file.
        path: Utf8PathBuf,
        /// How many bytes it holds.
        found: usize,
    },
}

/// The instance's secret.
#[derive(Clone)]
pub struct Secret([u8; SECRET_BYTES]);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

impl Secret {
    /// The secret kept at `path`, drawn and written there when there is none.
    ///
    /// # Errors
    /// What stands in the way; a file that is there is never replaced.
    pub fn keep_at(path: &Utf8Path) -> Result<Self, SecretError> {
        match fs::read(path) {
            Ok(bytes) => {
                let found = bytes.len();
                bytes.try_into().map(Self).map_err(|_| SecretError::Damaged { path: path.to_owned(), found })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::draw(path),
            Err(source) => Err(SecretError::Read { path: path.to_owned(), source }),
        }
    }

    fn draw(path: &Utf8Path) -> Result<Self, SecretError> {
        let mut secret = [0; SECRET_BYTES];
        File::open("/dev/urandom").and_then(|mut random| random.read_exact(&mut secret)).map_err(SecretError::Draw)?;
        let failed = |source| SecretError::Write { path: path.to_owned(), source };
        // Whole under its name, or not there: half a secret would shut every worker out for good.
        let aside = path.with_extension("new");
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside).map_err(failed)?;
        file.write_all(&secret).and_then(|()| file.sync_all()).map_err(failed)?;
        fs::rename(&aside, path).map_err(failed)?;
        Ok(Self(secret))
    }

    /// What the worker of `launch` proves itself by.
    #[must_use]
    pub fn token(&self, launch: Launch) -> String {
        let mut token = format!("{launch}.");
        for byte in self.digest(launch) {
            // Writing to a text cannot fail.
            let _ = write!(token, "{byte:02x}");
        }
        token
    }

    /// Whose token this is; none when it is nobody's.
    #[must_use]
    pub fn launch_of(&self, token: &str) -> Option<Launch> {
        let (number, _) = token.split_once('.')?;
        let launch = Launch(number.parse().ok()?);
        let right = self.token(launch);
        // As long for a wrong guess as for a good one: how much of it was right is not told.
        let differ =
            right.len() != token.len() || right.bytes().zip(token.bytes()).fold(0, |seen, (a, b)| seen | (a ^ b)) != 0;
        (!differ).then_some(launch)
    }

    fn digest(&self, launch: Launch) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(self.0);
        hash.update(launch.0.to_be_bytes());
        hash.finalize().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_for_its_launch_only_and_under_the_next_daemon_too() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = Utf8PathBuf::from_path_buf(folder.path().join("worker.secret")).expect("UTF-8");
        let token = Secret::keep_at(&path).expect("drawn").token(Launch(7));
        let next = Secret::keep_at(&path).expect("read");
        assert_eq!(next.launch_of(&token), Some(Launch(7)));
        assert_eq!(next.launch_of(&token.replacen('7', "8", 1)), None);
        assert_eq!(next.launch_of(&token[..token.len() - 1]), None);
        assert_eq!(next.launch_of(""), None);
        let other = folder.path().join("other");
        let other = Secret::keep_at(&Utf8PathBuf::from_path_buf(other).expect("UTF-8")).expect("drawn");
        assert_eq!(other.launch_of(&token), None, "another instance's");
    }

    #[test]
    fn a_damaged_secret_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = Utf8PathBuf::from_path_buf(folder.path().join("worker.secret")).expect("UTF-8");
        fs::write(&path, "short").expect("written");
        assert!(matches!(Secret::keep_at(&path), Err(SecretError::Damaged { found: 5, .. })));
        assert_eq!(fs::read(&path).expect("still there"), b"short");
    }
}
