//! A folder for one instance: `AGENTD_HOME`, and the configuration of its apps.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// An `AGENTD_HOME` of its own below `/tmp`, removed when dropped. Its path is short, so that sockets fit.
#[derive(Debug)]
pub struct Home {
    folder: TempDir,
}

impl Home {
    /// A fresh one.
    ///
    /// # Panics
    /// When `/tmp` cannot be written.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it makes a folder, which a default should not")]
    pub fn new() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("agentd-e2e-")
            .tempdir_in("/tmp")
            .unwrap_or_else(|error| panic!("failed to make a home below /tmp: {error}"));
        Self { folder }
    }

    /// The folder itself: what `AGENTD_HOME` is set to.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file, whole or not at all, in the place where configurations lie; returns its path.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path().join(name);
        let beside = self.path().join(format!(".{name}.new"));
        fs::write(&beside, text)
            .and_then(|()| fs::rename(&beside, &path))
            .unwrap_or_else(|error| panic!("failed to write {}: {error}", path.display()));
        path
    }

    /// Where one of its sockets is.
    #[must_use]
    pub fn socket(&self, name: &str) -> PathBuf {
        self.path().join("run").join(name)
    }

    pub(super) fn daemon_log(&self) -> PathBuf {
        self.path().join("daemon.log")
    }
}
