//! The folders of releases: `releases/APP/VERSION+HASH`, and beside them what is being cut or removed.
//!
//! A name that begins with a dot is nobody's release: `.cut-…` is being cut, `.gone-…` is being removed. Whatever of
//! these a daemon finds when it starts was left by one that died, and goes.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;

use agentd_core::id::AppName;
use agentd_core::release::ReleaseId;
use camino::{Utf8Path, Utf8PathBuf};
use thiserror::Error;

/// What is being cut.
const CUT: &str = ".cut-";
/// What is being removed.
const GONE: &str = ".gone-";

/// Why a folder of releases could not be changed.
#[derive(Debug, Error)]
pub enum FolderError {
    /// It could not be made.
    #[error("make the folder {path}")]
    Make {
        /// Which.
        path: Utf8PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A release could not be given its name.
    #[error("install {path}")]
    Install {
        /// Which.
        path: Utf8PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A release could not be put aside.
    #[error("put {path} aside")]
    PutAside {
        /// Which.
        path: Utf8PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// All releases of an instance.
#[derive(Clone, Debug)]
pub struct ReleaseFolders {
    root: Utf8PathBuf,
}

impl ReleaseFolders {
    /// Those below the state folder of an instance.
    #[must_use]
    pub fn below(state: &Utf8Path) -> Self {
        Self { root: state.join("releases") }
    }

    /// The folder of one app's.
    #[must_use]
    pub fn of(&self, app: &AppName) -> Utf8PathBuf {
        self.root.join(app.as_str())
    }

    /// Where a release lies.
    #[must_use]
    pub fn release(&self, app: &AppName, id: &ReleaseId) -> Utf8PathBuf {
        self.of(app).join(id.as_str())
    }

    /// A folder for a cut that nobody has used: `number` is never given twice by a daemon.
    ///
    /// # Errors
    /// The app's own folder could not be made.
    pub fn staging(&self, app: &AppName, number: u64) -> Result<Utf8PathBuf, FolderError> {
        let folder = self.of(app);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .map_err(|source| FolderError::Make { path: folder.clone(), source })?;
        Ok(folder.join(format!("{CUT}{}-{number}", std::process::id())))
    }

    /// Gives what was cut its name, for good.
    ///
    /// # Errors
    /// It has no name then.
    pub fn install(&self, cut: &Utf8Path, app: &AppName, id: &ReleaseId) -> Result<Utf8PathBuf, FolderError> {
        let path = self.release(app, id);
        let failed = |source| FolderError::Install { path: path.clone(), source };
        fs::rename(cut, &path).map_err(failed)?;
        File::open(self.of(app)).and_then(|folder| folder.sync_all()).map_err(failed)?;
        Ok(path)
    }

    /// Takes a release's name away: from now on nobody finds it, and its folder can be removed at leisure.
    ///
    /// # Errors
    /// It keeps its name.
    pub fn put_aside(&self, app: &AppName, name: &str) -> Result<Utf8PathBuf, FolderError> {
        let path = self.of(app).join(name);
        let aside = self.of(app).join(format!("{GONE}{}-{name}", std::process::id()));
        fs::rename(&path, &aside).map_err(|source| FolderError::PutAside { path, source })?;
        Ok(aside)
    }

    /// Every app that has a folder here, with the names in it. What cannot be read is not there.
    #[must_use]
    pub fn found(&self) -> Vec<(String, BTreeSet<String>)> {
        let names = |folder: &Utf8Path| -> BTreeSet<String> {
            let entries = folder.read_dir_utf8().into_iter().flatten().flatten();
            entries.map(|entry| entry.file_name().to_owned()).collect()
        };
        names(&self.root).into_iter().map(|app| (app.clone(), names(&self.root.join(app)))).collect()
    }

    /// Folders of cuts whose number satisfies `is_past`: the number that [`Self::staging`] was given.
    #[must_use]
    pub fn cut_by(&self, is_past: impl Fn(u64) -> bool) -> Vec<Utf8PathBuf> {
        let number = |name: &str| name.strip_prefix(CUT)?.rsplit('-').next()?.parse::<u64>().ok();
        let past = |name: &String| number(name).is_some_and(&is_past);
        let found = self.found().into_iter();
        found
            .flat_map(|(app, names)| {
                names.into_iter().filter(past).map(|name| self.path(&app, &name)).collect::<Vec<_>>()
            })
            .collect()
    }

    /// The path of a name in an app's folder, as [`Self::found`] gives both.
    #[must_use]
    pub fn path(&self, app: &str, name: &str) -> Utf8PathBuf {
        self.root.join(app).join(name)
    }
}

/// Whether a name is that of something unfinished or put aside.
#[must_use]
pub fn is_passing(name: &str) -> bool {
    name.starts_with(CUT) || name.starts_with(GONE)
}

/// Removes folders on a thread beside the loop. What cannot be removed is told in the log, and tried again by the next
/// daemon.
pub fn remove_aside(paths: Vec<Utf8PathBuf>) {
    if paths.is_empty() {
        return;
    }
    tokio::task::spawn_blocking(move || remove(paths));
}

/// The same, now: waits for the disk.
pub fn remove(paths: Vec<Utf8PathBuf>) {
    for path in paths {
        match fs::remove_dir_all(&path) {
            Ok(()) => {
                tracing::debug!(%path, "removed");
                // The last thing of its app: its folder goes as well. It is empty, or stays.
                let _ = path.parent().map(fs::remove_dir);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => drop(path.parent().map(fs::remove_dir)),
            Err(error) => tracing::warn!(%path, %error, "a release that nobody needs could not be removed"),
        }
    }
}
