//! Limits that a cgroup holds its processes to, and what it tells of them.
//!
//! Owns the controllers: which there are, and the files of one cgroup that set and tell amounts. Folders are
//! [`cgroup`](super::cgroup)'s.
//!
//! | limit | set by | told by |
//! |---|---|---|
//! | memory | `memory.max`; `memory.high` a tenth below; `memory.oom.group`, so that a worker dies whole | `memory.events` `oom_kill`; `memory.current` less the cache that could go |
//! | processes | `pids.max` | `pids.events` `max` |
//! | processor | `cpu.max`, in a period of 100 ms | nothing: it is slowed, and lives |
//!
//! What can go wrong: a controller is bound to cgroup v1, or not delegated, or our own cgroup holds us and so may not hand
//! it on (systemd before 254 without `DelegateSubgroup=`). It counts as not there then.

use std::fs;
use std::io;

use camino::{Utf8Path, Utf8PathBuf};
use thiserror::Error;

/// The kernel's usual period of `cpu.max`, in microseconds.
const CPU_PERIOD_US: u64 = 100_000;

/// Which amounts the kernel can hold cgroups of an instance to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Controllers {
    /// Memory.
    pub memory: bool,
    /// Processes and threads.
    pub pids: bool,
    /// Processor time.
    pub cpu: bool,
}

/// The amounts of one cgroup; none is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amounts {
    /// Bytes.
    pub memory: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u32>,
    /// Percent of one processor.
    pub cpu_percent: Option<u32>,
}

/// What came of the limits of a cgroup since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Met {
    /// Processes that the kernel killed for want of memory.
    pub oom_kills: u64,
    /// Processes that were refused.
    pub pids_refused: u64,
}

/// An amount that could not be set.
#[derive(Debug, Error)]
#[error("write {value} to {path}")]
pub struct SetError {
    /// The file.
    path: Utf8PathBuf,
    /// What was to be written.
    value: String,
    /// What the kernel said.
    source: io::Error,
}

impl Controllers {
    /// Hands on from `base` to the folders in `dir`, which is in `base`, what there is; says what that is.
    #[must_use]
    pub fn enable(base: &Utf8Path, dir: &Utf8Path) -> Self {
        let on = |name: &str| hand_on(base, name) && hand_on(dir, name);
        Self { memory: on("memory"), pids: on("pids"), cpu: on("cpu") }
    }
}

/// Whether the folders in `dir` have a controller, once it was asked for.
fn hand_on(dir: &Utf8Path, name: &str) -> bool {
    let control = dir.join("cgroup.subtree_control");
    let has = || fs::read_to_string(&control).is_ok_and(|text| text.split_whitespace().any(|known| known == name));
    if has() {
        return true;
    }
    // To be refused takes the kernel milliseconds.
    let offered = fs::read_to_string(dir.join("cgroup.controllers")).unwrap_or_default();
    if !offered.split_whitespace().any(|known| known == name) {
        return false;
    }
    if let Err(error) = fs::write(&control, format!("+{name}")) {
        tracing::debug!(%control, name, %error, "a controller is not to be had");
        return false;
    }
    has()
}

/// Where the kernel begins to slow a worker down and take its caches: there it is replaced, before it is killed.
#[must_use]
pub const fn high_of(max: u64) -> u64 {
    max - max / 10
}

/// Sets the amounts of the cgroup at `dir` that there are controllers for.
///
/// # Errors
/// The first that the kernel did not take.
pub fn set(dir: &Utf8Path, controllers: Controllers, amounts: &Amounts) -> Result<(), SetError> {
    let write = |file: &str, value: String| {
        let path = dir.join(file);
        fs::write(&path, &value).map_err(|source| SetError { path, value, source })
    };
    if let Some(max) = amounts.memory.filter(|_| controllers.memory) {
        write("memory.high", high_of(max).to_string())?;
        write("memory.max", max.to_string())?;
        write("memory.oom.group", "1".to_owned())?;
    }
    if let Some(pids) = amounts.pids.filter(|_| controllers.pids) {
        write("pids.max", pids.to_string())?;
    }
    if let Some(percent) = amounts.cpu_percent.filter(|_| controllers.cpu) {
        let quota = u64::from(percent) * CPU_PERIOD_US / 100;
        write("cpu.max", format!("{quota} {CPU_PERIOD_US}"))?;
    }
    Ok(())
}

/// What came of the limits of the cgroup at `dir`. Nothing where its files are not there.
#[must_use]
pub fn met(dir: &Utf8Path, controllers: Controllers) -> Met {
    let count =
        |there: bool, file: &str, name: &str| there.then(|| field(&dir.join(file), name)).flatten().unwrap_or(0);
    Met {
        oom_kills: count(controllers.memory, "memory.events", "oom_kill"),
        pids_refused: count(controllers.pids, "pids.events", "max"),
    }
}

/// Bytes that the cgroup at `dir` uses and could not give back at once: all but the cache of files that was not
/// touched lately. None where there is no such controller.
#[must_use]
pub fn memory_in_use(dir: &Utf8Path) -> Option<u64> {
    let current: u64 = fs::read_to_string(dir.join("memory.current")).ok()?.trim().parse().ok()?;
    let cache = field(&dir.join("memory.stat"), "inactive_file").unwrap_or(0);
    Some(current.saturating_sub(cache))
}

fn field(file: &Utf8Path, name: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    let mut pairs = text.lines().filter_map(|line| line.split_once(' '));
    pairs.find(|(key, _)| *key == name)?.1.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Controllers = Controllers { memory: true, pids: true, cpu: true };

    fn folder() -> (tempfile::TempDir, Utf8PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(dir.path().to_owned()).unwrap();
        (dir, path)
    }

    #[test]
    fn amounts_are_written_as_the_kernel_reads_them_and_only_where_there_are_controllers() {
        let (_keep, dir) = folder();
        let amounts = Amounts { memory: Some(200 << 20), pids: Some(64), cpu_percent: Some(150) };
        set(&dir, ALL, &amounts).unwrap();
        let read = |file: &str| fs::read_to_string(dir.join(file)).unwrap();
        assert_eq!((read("memory.max"), read("memory.high")), ("209715200".into(), "188743680".into()));
        assert_eq!((read("memory.oom.group"), read("pids.max")), ("1".into(), "64".into()));
        assert_eq!(read("cpu.max"), "150000 100000");

        let (_keep, bare) = folder();
        set(&bare, Controllers::default(), &amounts).unwrap();
        assert_eq!(fs::read_dir(&bare).unwrap().count(), 0);
        let error = set(Utf8Path::new("/proc/no"), ALL, &amounts).unwrap_err();
        assert_eq!(error.to_string(), "write 188743680 to /proc/no/memory.high");
    }

    #[test]
    fn what_came_of_limits_is_read_and_nothing_where_there_is_nothing() {
        let (_keep, dir) = folder();
        assert_eq!((met(&dir, ALL), memory_in_use(&dir)), (Met::default(), None));
        fs::write(dir.join("memory.events"), "low 0\nhigh 9\nmax 3\noom 1\noom_kill 2\noom_group_kill 1\n").unwrap();
        fs::write(dir.join("pids.events"), "max 7\n").unwrap();
        fs::write(dir.join("memory.current"), "1000\n").unwrap();
        fs::write(dir.join("memory.stat"), "anon 500\ninactive_file 300\nactive_file 200\n").unwrap();
        assert_eq!((met(&dir, ALL), memory_in_use(&dir)), (Met { oom_kills: 2, pids_refused: 7 }, Some(700)));
        assert_eq!(met(&dir, Controllers { pids: false, ..ALL }), Met { oom_kills: 2, pids_refused: 0 });
    }

    #[test]
    fn a_controller_counts_when_both_folders_hand_it_on() {
        let (_keep, base) = folder();
        let dir = base.join("agentd-x");
        fs::create_dir(&dir).unwrap();
        // A folder of files, where a write replaces the list: `+memory` is not the word `memory`.
        for folder in [&base, &dir] {
            fs::write(folder.join("cgroup.subtree_control"), "memory pids").unwrap();
        }
        assert_eq!(Controllers::enable(&base, &dir), Controllers { memory: true, pids: true, cpu: false });
        assert_eq!(Controllers::enable(Utf8Path::new("/proc/no"), &dir), Controllers::default());
    }
}
