//! Watching an app's files, for `watch`: a change of one is told, once things are quiet.
//!
//! Owns a thread an app that watches: it follows every folder below the app's that is not ignored, new ones too, and
//! tells the loop which file changed. Folders are watched, never files, so an editor's dance (write beside, rename over)
//! is a change like any other. Not watched, so that an app never reloads itself by what it writes: what `.gitignore`
//! leaves out, [`IGNORED`], and what a pattern with `!` names. A reading of a file is no change, nor is its closing.
//!
//! What can go wrong: the kernel's watches run out (`fs.inotify.max_user_watches`); that is told, and what could be
//! watched is. Ends when its [`Watch`] is dropped.

use std::path::{Path, PathBuf};
use std::sync::mpsc;

use camino::{Utf8Path, Utf8PathBuf};
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use ignore::overrides::{Override, OverrideBuilder};
use nix::sys::signal::{SigSet, SigmaskHow};
use notify::event::{EventKind, ModifyKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use thiserror::Error;

/// Never watched, in the words of a `.gitignore`: what programs write about themselves, and what editors leave lying.
pub const IGNORED: [&str; 20] = [
    ".git/",
    ".hg/",
    ".svn/",
    "node_modules/",
    "__pycache__/",
    ".venv/",
    "venv/",
    ".pytest_cache/",
    ".mypy_cache/",
    ".ruff_cache/",
    ".idea/",
    ".vscode/",
    "logs/",
    "*.log",
    "*.pyc",
    "*.swp",
    "*.swx",
    "*~",
    ".#*",
    "4913",
];

/// Folders watched at most for one app.
const FOLDERS_MAX: usize = 4096;

/// Why files cannot be watched.
#[derive(Debug, Error)]
pub enum WatchError {
    /// A pattern that is none.
    #[error("\"{pattern}\" is no pattern: {source}")]
    Pattern {
        /// As it was written.
        pattern: String,
        /// What is wrong with it.
        source: ignore::Error,
    },
    /// The list of what is never watched, or a `.gitignore`, cannot be understood.
    #[error("read what is to be ignored in {folder}: {source}")]
    Ignored {
        /// The folder.
        folder: Utf8PathBuf,
        /// What is wrong.
        source: ignore::Error,
    },
    /// The kernel watches nothing for us.
    #[error("watch {folder}: {source}")]
    Kernel {
        /// The folder.
        folder: Utf8PathBuf,
        /// What it said.
        source: notify::Error,
    },
    /// The kernel gave no thread.
    #[error("start the watching thread: {0}")]
    Spawn(#[source] std::io::Error),
}

/// A running watch. Ends with its drop.
#[derive(Debug)]
pub struct Watch {
    words: mpsc::Sender<Word>,
}

#[derive(Debug)]
enum Word {
    Seen(notify::Result<notify::Event>),
    End,
}

impl Drop for Watch {
    fn drop(&mut self) {
        // A thread that has ended by itself needs no word.
        let _ = self.words.send(Word::End);
    }
}

/// Whether a pattern can be understood.
///
/// # Errors
/// [`WatchError::Pattern`].
pub fn check(folder: &Utf8Path, pattern: &str) -> Result<(), WatchError> {
    OverrideBuilder::new(folder)
        .add(pattern)
        .map(|_| ())
        .map_err(|source| WatchError::Pattern { pattern: pattern.to_owned(), source })
}

impl Watch {
    /// Watches what the patterns name below the folder; `changed` hears of each change, in the watch's own thread.
    ///
    /// # Errors
    /// [`WatchError`].
    pub fn begin(
        folder: &Utf8Path,
        patterns: &[String],
        changed: impl Fn(PathBuf) + Send + 'static,
    ) -> Result<Self, WatchError> {
        // Threads begin with our mask. Signals are the main thread's: what another takes is lost between two programs.
        let ours = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK).map_err(|e| WatchError::Spawn(e.into()))?;
        let begun = Self::begin_without_signals(folder, patterns, changed);
        ours.thread_set_mask().map_err(|e| WatchError::Spawn(e.into()))?;
        begun
    }

    fn begin_without_signals(
        folder: &Utf8Path,
        patterns: &[String],
        changed: impl Fn(PathBuf) + Send + 'static,
    ) -> Result<Self, WatchError> {
        let scope = Scope::new(folder, patterns)?;
        let (words, heard) = mpsc::channel();
        let ear = words.clone();
        let kernel = |source| WatchError::Kernel { folder: folder.to_owned(), source };
        let watcher = notify::recommended_watcher(move |event| {
            // The thread is gone only when nobody listens any more.
            let _ = ear.send(Word::Seen(event));
        })
        .map_err(kernel)?;
        let mut eye = Eye { scope, watcher, folders: 0 };
        eye.follow(folder.as_std_path()).map_err(kernel)?;
        std::thread::Builder::new()
            .name("agentd-watch".to_owned())
            .spawn(move || eye.run(&heard, &changed))
            .map_err(WatchError::Spawn)?;
        Ok(Self { words })
    }
}

/// What is watched and what not.
struct Scope {
    folder: PathBuf,
    wanted: Override,
    ignored: Gitignore,
}

impl Scope {
    fn new(folder: &Utf8Path, patterns: &[String]) -> Result<Self, WatchError> {
        let mut wanted = OverrideBuilder::new(folder);
        for pattern in patterns.iter().filter(|pattern| !pattern.starts_with('!')) {
            wanted.add(pattern).map_err(|source| WatchError::Pattern { pattern: pattern.clone(), source })?;
        }
        let failed = |source| WatchError::Ignored { folder: folder.to_owned(), source };
        let mut ignored = GitignoreBuilder::new(folder);
        for line in IGNORED {
            ignored.add_line(None, line).map_err(failed)?;
        }
        // A folder without the file is nothing wrong; its lines win over the list above.
        let file = folder.join(".gitignore");
        if file.is_file()
            && let Some(source) = ignored.add(&file)
        {
            tracing::warn!(%file, %source, "some of its lines cannot be understood");
        }
        for pattern in patterns.iter().filter_map(|pattern| pattern.strip_prefix('!')) {
            ignored.add_line(None, pattern).map_err(failed)?;
        }
        Ok(Self {
            folder: folder.as_std_path().to_owned(),
            wanted: wanted.build().map_err(failed)?,
            ignored: ignored.build().map_err(failed)?,
        })
    }

    fn skips_folder(&self, path: &Path) -> bool {
        path != self.folder
            && path.starts_with(&self.folder)
            && self.ignored.matched_path_or_any_parents(path, true).is_ignore()
    }

    fn means(&self, path: &Path) -> bool {
        path.starts_with(&self.folder)
            && !self.ignored.matched_path_or_any_parents(path, false).is_ignore()
            && self.wanted.matched(path, false).is_whitelist()
    }
}

struct Eye {
    scope: Scope,
    watcher: RecommendedWatcher,
    folders: usize,
}

impl Eye {
    /// Watches a folder and all below it that are not ignored. Only the first one has to work.
    fn follow(&mut self, folder: &Path) -> notify::Result<()> {
        self.watcher.watch(folder, RecursiveMode::NonRecursive)?;
        self.folders += 1;
        let mut open = vec![folder.to_owned()];
        while let Some(folder) = open.pop() {
            let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
            // A link is not followed: it may lead round in a circle.
            let below =
                entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path());
            for path in below.filter(|path| !self.scope.skips_folder(path)) {
                if self.folders >= FOLDERS_MAX {
                    tracing::warn!(folder = %self.scope.folder.display(), "more than {FOLDERS_MAX} folders: the rest is not watched");
                    return Ok(());
                }
                match self.watcher.watch(&path, RecursiveMode::NonRecursive) {
                    Ok(()) => {
                        self.folders += 1;
                        open.push(path);
                    }
                    Err(error) => tracing::warn!(folder = %path.display(), %error, "it is not watched"),
                }
            }
        }
        Ok(())
    }

    fn run(mut self, heard: &mpsc::Receiver<Word>, changed: &impl Fn(PathBuf)) {
        while let Ok(Word::Seen(seen)) = heard.recv() {
            match seen {
                Ok(event) => self.look(event, changed),
                Err(error) => {
                    tracing::warn!(folder = %self.scope.folder.display(), %error, "some changes may go unseen")
                }
            }
        }
    }

    fn look(&mut self, event: notify::Event, changed: &impl Fn(PathBuf)) {
        let is_change = match event.kind {
            EventKind::Create(_) | EventKind::Remove(_) => true,
            EventKind::Modify(kind) => !matches!(kind, ModifyKind::Metadata(_)),
            EventKind::Any | EventKind::Access(_) | EventKind::Other => false,
        };
        if !is_change {
            return;
        }
        for path in event.paths {
            if path.is_dir() {
                // New, or moved here: what is in it came with it, before it could be watched.
                if !self.scope.skips_folder(&path) && self.follow(&path).is_ok() {
                    files_below(&path, &self.scope).for_each(changed);
                }
            } else if self.scope.means(&path) {
                changed(path);
            }
        }
    }
}

fn files_below<'s>(folder: &Path, scope: &'s Scope) -> impl Iterator<Item = PathBuf> + use<'s> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_file() && scope.means(path))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    struct Desk {
        _dir: tempfile::TempDir,
        folder: Utf8PathBuf,
        heard: mpsc::Receiver<PathBuf>,
        _watch: Watch,
    }

    impl Desk {
        fn new(patterns: &[&str], gitignore: &str) -> Self {
            let dir = tempfile::tempdir().expect("a temporary folder");
            let folder = Utf8PathBuf::from_path_buf(dir.path().to_owned()).expect("a plain path");
            for below in ["app/deep", "node_modules/x", "logs", "out"] {
                std::fs::create_dir_all(folder.join(below)).expect("the folder takes folders");
            }
            std::fs::write(folder.join(".gitignore"), gitignore).expect("the folder takes files");
            let (tell, heard) = mpsc::channel();
            let patterns: Vec<String> = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
            let watch = Watch::begin(&folder, &patterns, move |path| {
                // The test may be over.
                let _ = tell.send(path);
            });
            Self { _dir: dir, folder, heard, _watch: watch.expect("it is watched") }
        }

        fn write(&self, name: &str) {
            std::fs::write(self.folder.join(name), "x").expect("the folder takes files");
        }

        /// The first change that is told, by its name.
        fn next(&self) -> String {
            let path = self.heard.recv_timeout(Duration::from_secs(20)).expect("a change is told in time");
            path.strip_prefix(&self.folder).expect("it is below the folder").display().to_string()
        }
    }

    #[test]
    fn a_change_is_told_where_a_pattern_names_it_and_nothing_leaves_it_out() {
        let desk = Desk::new(&["**/*.py", "!app/made.py"], "out/\n");
        // In the order in which they happen, so the first that is told shows that none before it was.
        for unseen in ["note.txt", "node_modules/x/a.py", "logs/a.py", "out/a.py", "app/made.py", "app/a.pyc"] {
            desk.write(unseen);
        }
        desk.write("app/deep/a.py");
        assert_eq!(desk.next(), "app/deep/a.py");
    }

    #[test]
    fn an_editors_rename_over_a_file_is_a_change_of_it() {
        let desk = Desk::new(&["**/*.py"], "");
        desk.write("app/.a.py.tmp");
        std::fs::rename(desk.folder.join("app/.a.py.tmp"), desk.folder.join("app/a.py")).expect("both are ours");
        assert_eq!(desk.next(), "app/a.py");
    }

    #[test]
    fn a_folder_that_comes_later_is_watched_with_what_it_brought() {
        let desk = Desk::new(&["**/*.py"], "");
        std::fs::create_dir(desk.folder.join("new")).expect("the folder takes folders");
        desk.write("new/a.py");
        assert_eq!(desk.next(), "new/a.py");
    }

    #[test]
    fn a_pattern_that_is_none_is_told() {
        assert!(check(Utf8Path::new("/"), "a[").is_err());
        assert!(check(Utf8Path::new("/"), "app/**/*.py").is_ok());
    }
}
