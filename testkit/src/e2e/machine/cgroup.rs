//! A cgroup for one container: two in the same one would take each other's services for their own.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// How long processes that were killed may take to leave it.
const EMPTY_WITHIN: Duration = Duration::from_secs(5);

/// Gone, with all below it, when it is dropped.
#[derive(Debug)]
pub(super) struct OwnCgroup {
    path: PathBuf,
}

impl OwnCgroup {
    /// Makes it below our own, in the v2 hierarchy.
    pub(super) fn make(name: &str) -> Self {
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("/proc is there");
        let point = mounts.lines().find_map(|line| {
            let (mount, kind) = line.split_once(" - ")?;
            kind.starts_with("cgroup2 ").then(|| mount.split(' ').nth(4)).flatten()
        });
        let point = point.expect("a container needs cgroup v2");
        let own = fs::read_to_string("/proc/self/cgroup").expect("/proc is there");
        let own = own.lines().find_map(|line| line.strip_prefix("0::/")).expect("we are in some cgroup");
        let path = Path::new(point).join(own).join(name);
        fs::create_dir(&path).unwrap_or_else(|error| panic!("failed to make {}: {error}", path.display()));
        Self { path }
    }

    /// Where a container in it has its first process.
    pub(super) fn of_the_leader(&self) -> PathBuf {
        self.path.join("payload/init.scope")
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for OwnCgroup {
    fn drop(&mut self) {
        let deadline = Instant::now() + EMPTY_WITHIN;
        while let Err(error) = remove(&self.path) {
            if Instant::now() > deadline {
                eprintln!("{} stays: {error}", self.path.display());
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

fn remove(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)?.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path())?;
        }
    }
    fs::remove_dir(folder)
}
