//! Secrets on their way from a file to a worker.
//!
//! Owns the shim's half: reading a secret, as late as can be and in no other process than the one that becomes the
//! worker, and handing it over by environment or by a file in a private folder. The supervisor knows where secrets are
//! and never what they are: it cannot log, store or dump them.
//!
//! ```text
//!  supervisor ── plan: NAME, where it is, by which road ──► shim (still with the supervisor's rights)
//!                                                            │ read, check
//!                            by = Environment: NAME=value ◄──┤
//!                  by = File: run/secrets/<launch>/NAME   ◄──┘   folder 0700, file 0400, the worker's user's
//!                             NAME_FILE=that path
//! ```
//!
//! What can go wrong: it is not there, it is nobody's but can be read by everybody, it is empty, too large, or cannot be an
//! environment variable. Then nothing is started. No error shows any of it.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};

use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::account::Taken;

/// Bytes of a secret at most. The kernel takes 128 KiB for one variable, its name included.
pub const SIZE_MAX: u64 = 120 * 1024;

/// Bits of a file's mode that let others than its owner and group at it, or let its group change it.
const LOOSE: u32 = 0o027;

/// By which road a secret reaches its worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Road {
    /// As an environment variable.
    #[default]
    #[serde(rename = "env")]
    Environment,
    /// As a file that only the worker's user can read; `NAME_FILE` tells where.
    File,
}

/// A secret that a plan names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret {
    /// Its name, a variable's.
    pub name: String,
    /// The file that holds it.
    pub from: Utf8PathBuf,
    /// Whether the mode of that file is checked: systemd sees to its own.
    pub guarded: bool,
    /// How it reaches the worker.
    pub road: Road,
}

/// Why a secret cannot be handed over. Tells its name and where it is, never what it is.
#[derive(Debug, Error)]
pub enum SecretError {
    /// It cannot be read.
    #[error("read {path}")]
    Read {
        /// The file.
        path: Utf8PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A folder, a pipe or a device.
    #[error("read {0}: it is not a regular file")]
    NotAFile(Utf8PathBuf),
    /// Everybody can have it.
    #[error("read {path}: mode {mode:04o} lets others at it; `chmod 600 {path}`")]
    Loose {
        /// The file.
        path: Utf8PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// There is nothing in it.
    #[error("read {0}: it is empty")]
    Empty(Utf8PathBuf),
    /// More than a secret ever has.
    #[error("read {0}: it has more than {SIZE_MAX} bytes")]
    TooLarge(Utf8PathBuf),
    /// No environment variable holds it.
    #[error("pass {0} in the environment: it holds a zero byte; use `as = \"file\"`")]
    Nul(Utf8PathBuf),
    /// The private folder or file could not be made.
    #[error("make {path}")]
    Make {
        /// Which.
        path: Utf8PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Whether a secret could be read now: what can be said when a configuration is read.
///
/// # Errors
/// Why it could not.
pub fn check(path: &Utf8Path, guarded: bool) -> Result<(), SecretError> {
    open(path, guarded).map(drop)
}

fn open(path: &Utf8Path, guarded: bool) -> Result<fs::File, SecretError> {
    let failed = |source| SecretError::Read { path: path.to_owned(), source };
    // Before it is opened: opening a pipe without a writer would wait for ever.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(SecretError::NotAFile(path.to_owned()));
    }
    let file = fs::File::open(path).map_err(failed)?;
    let found = file.metadata().map_err(failed)?;
    let mode = found.mode() & 0o7777;
    if guarded && mode & LOOSE != 0 {
        return Err(SecretError::Loose { path: path.to_owned(), mode });
    }
    match found.len() {
        0 => Err(SecretError::Empty(path.to_owned())),
        len if len > SIZE_MAX => Err(SecretError::TooLarge(path.to_owned())),
        _ => Ok(file),
    }
}

fn read(secret: &Secret) -> Result<Vec<u8>, SecretError> {
    let path = &secret.from;
    let mut bytes = Vec::new();
    let read = open(path, secret.guarded)?.take(SIZE_MAX + 1).read_to_end(&mut bytes);
    read.map_err(|source| SecretError::Read { path: path.clone(), source })?;
    match bytes.len() as u64 {
        0 => Err(SecretError::Empty(path.clone())),
        len if len > SIZE_MAX => Err(SecretError::TooLarge(path.clone())),
        _ => Ok(bytes),
    }
}

/// The variable that tells where the file of a secret is.
#[must_use]
pub fn file_variable(name: &str) -> String {
    format!("{name}_FILE")
}

/// A variable and its value.
pub(super) type Variable = (String, Vec<u8>);

/// Hands secrets over: writes those that go by file into `folder`, for the user of `account`, and returns the variables
/// of all.
///
/// # Errors
/// The first that cannot be, by its name.
pub(super) fn deliver(
    secrets: &[Secret],
    folder: &Utf8Path,
    account: Option<&Taken>,
) -> Result<Vec<Variable>, (String, SecretError)> {
    let mut variables = Vec::new();
    for secret in secrets {
        let named = |error| (secret.name.clone(), error);
        match secret.road {
            Road::Environment => variables.push((secret.name.clone(), by_environment(secret).map_err(named)?)),
            Road::File => {
                let path = folder.join(&secret.name);
                by_file(secret, folder, &path, account).map_err(named)?;
                variables.push((file_variable(&secret.name), path.into_string().into_bytes()));
            }
        }
    }
    Ok(variables)
}

/// Without the line end that editors and `echo` put behind it.
fn by_environment(secret: &Secret) -> Result<Vec<u8>, SecretError> {
    let mut bytes = read(secret)?;
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
    }
    if bytes.contains(&0) {
        return Err(SecretError::Nul(secret.from.clone()));
    }
    if bytes.is_empty() {
        return Err(SecretError::Empty(secret.from.clone()));
    }
    Ok(bytes)
}

fn by_file(secret: &Secret, folder: &Utf8Path, path: &Utf8Path, account: Option<&Taken>) -> Result<(), SecretError> {
    let bytes = read(secret)?;
    let failed = |path: &Utf8Path| {
        let path = path.to_owned();
        move |source| SecretError::Make { path, source }
    };
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => return Err(failed(folder)(source)),
        Ok(()) | Err(_) => {}
    }
    // It appears under its name when it is whole.
    let aside = folder.join(format!(".{}", secret.name));
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o400);
    let mut file = options.open(&aside).map_err(failed(&aside))?;
    file.write_all(&bytes).map_err(failed(&aside))?;
    if let Some(Taken { uid, gid, .. }) = account {
        let give = |path: &Utf8Path| {
            nix::unistd::chown(path.as_str(), Some(*uid), Some(*gid)).map_err(|errno| failed(path)(errno.into()))
        };
        give(&aside)?;
        give(folder)?;
    }
    fs::rename(&aside, path).map_err(failed(path))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn kept(text: &[u8], mode: u32) -> (tempfile::TempDir, Secret) {
        let dir = tempfile::tempdir().unwrap();
        let from = Utf8PathBuf::from_path_buf(dir.path().join("key")).unwrap();
        fs::write(&from, text).unwrap();
        fs::set_permissions(&from, fs::Permissions::from_mode(mode)).unwrap();
        (dir, Secret { name: "KEY".into(), from, guarded: true, road: Road::Environment })
    }

    #[test]
    fn the_line_end_of_an_editor_is_no_part_of_a_variable() {
        for (text, value) in [("a b", "a b"), ("a\n", "a"), ("a\r\n", "a"), ("a\n\n", "a\n")] {
            let (_dir, secret) = kept(text.as_bytes(), 0o600);
            let variables = deliver(&[secret], Utf8Path::new("/nowhere"), None).unwrap();
            assert_eq!(variables, [("KEY".to_owned(), value.as_bytes().to_vec())], "{text:?}");
        }
    }

    #[test]
    fn a_secret_that_others_can_read_is_refused_and_one_for_its_group_is_not() {
        for (mode, fine) in
            [(0o600, true), (0o400, true), (0o640, true), (0o644, false), (0o660, false), (0o602, false)]
        {
            let (_dir, secret) = kept(b"x", mode);
            assert_eq!(check(&secret.from, true).is_ok(), fine, "{mode:o}");
            assert!(check(&secret.from, false).is_ok());
        }
        let (_dir, secret) = kept(b"hush", 0o644);
        let (name, error) = deliver(&[secret], Utf8Path::new("/nowhere"), None).unwrap_err();
        assert!(name == "KEY" && error.to_string().contains("mode 0644 lets others at it"), "{error}");
    }

    #[test]
    fn what_cannot_be_handed_over_says_why_and_not_what_it_is() {
        for (text, why) in [(&b""[..], "it is empty"), (b"\n", "it is empty"), (b"hush\0", "it holds a zero byte")] {
            let (_dir, secret) = kept(text, 0o600);
            let (_, error) = deliver(&[secret], Utf8Path::new("/nowhere"), None).unwrap_err();
            assert!(error.to_string().contains(why) && !error.to_string().contains("hush"), "{error}");
        }
        let (_dir, secret) = kept(&vec![b'x'; 121 * 1024], 0o600);
        assert!(matches!(check(&secret.from, true), Err(SecretError::TooLarge(_))));
        assert!(matches!(check(Utf8Path::new("/dev/null"), true), Err(SecretError::NotAFile(_))));
        assert!(matches!(check(Utf8Path::new("/nowhere/x"), true), Err(SecretError::Read { .. })));
    }

    #[test]
    fn a_file_for_the_worker_is_whole_and_private() {
        let (dir, mut secret) = kept(b"one\n", 0o600);
        secret.road = Road::File;
        let folder = Utf8PathBuf::from_path_buf(dir.path().join("7")).unwrap();
        let variables = deliver(std::slice::from_ref(&secret), &folder, None).unwrap();
        let path = folder.join("KEY");
        assert_eq!(variables, [("KEY_FILE".to_owned(), path.as_str().as_bytes().to_vec())]);
        let mode = |path: &Utf8Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((fs::read(&path).unwrap(), mode(&path), mode(&folder)), (b"one\n".to_vec(), 0o400, 0o700));
    }
}
