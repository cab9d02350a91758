//! One cgroup (v2) per process start: nothing that a worker starts leaves it, and one write ends all of it.
//!
//! Owns the folder `agentd-<instance>` below our own cgroup (beside it, where systemd put us into a subgroup of what it
//! delegated), and a folder per launch in it. Needs no controllers: membership and `cgroup.kill` work without; with them
//! [`super::controllers`] sets limits. Where any of it is impossible (v1 only, read-only,
//! not delegated, a kernel before 5.14), [`Cgroups::open`] says why and the [tree](super::tree) does without.
//!
//! A supervisor that was started elsewhere has another folder than its predecessor: the cgroup of a process that is
//! taken over is asked from the process itself ([`Cgroups::of_process`]).

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;

use agentd_core::id::{Launch, Pid};
use camino::{Utf8DirEntry, Utf8Path, Utf8PathBuf};
use rustix::fs::{Access, CWD, access};
use thiserror::Error;

use super::controllers::{self, Amounts, Controllers, Met, SetError};
use super::stat::read_into;

/// The subgroup that `DelegateSubgroup=` of our unit names: only from a leaf beside us controllers can be handed on.
const SUBGROUP: &str = "supervisor";

/// As much of a list of processes as is read at once, in bytes: some hundred processes.
const PROCS_MAX: usize = 2048;
/// As much of a text of `/proc` as is read at once, in bytes.
const READ_AT_ONCE: usize = 4096;
/// Longest line of such a list, in bytes.
const LINE_MAX: usize = 11;

/// Why processes cannot be contained by cgroups here.
#[derive(Debug, Error)]
pub enum NoCgroups {
    /// The instance's name cannot be a folder's.
    #[error("instance name {0:?} cannot name a cgroup")]
    Instance(String),
    /// `/proc` could not be read.
    #[error("{path} cannot be read")]
    Proc {
        /// The file.
        path: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// No cgroup v2 file system that shows our own cgroup.
    #[error("no cgroup v2 file system that shows this process is mounted")]
    NotMounted,
    /// No folder could be made, as when nothing was delegated to us.
    #[error("no cgroup can be made at {dir}")]
    Make {
        /// The folder.
        dir: Utf8PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Folders can be made but processes not moved there.
    #[error("processes cannot be moved out of {dir}")]
    Move {
        /// Our own cgroup.
        dir: Utf8PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel cannot kill a cgroup, or not a cgroup of this kind.
    #[error("{dir} has no cgroup.kill (it needs a kernel from 5.14 on)")]
    NoKill {
        /// The folder.
        dir: Utf8PathBuf,
    },
    /// A cgroup below a threaded one takes no processes.
    #[error("{dir} is of kind \"{kind}\" and takes no processes")]
    Kind {
        /// The folder.
        dir: Utf8PathBuf,
        /// The content of `cgroup.type`.
        kind: String,
    },
}

/// Why something could not be done with a cgroup.
#[derive(Debug, Error)]
pub enum CgroupError {
    /// It could not be made.
    #[error("make cgroup {dir}")]
    Make {
        /// Its folder.
        dir: Utf8PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Its processes could not be listed.
    #[error("list the processes of cgroup {dir}")]
    List {
        /// Its folder.
        dir: Utf8PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Its processes could not be killed.
    #[error("kill cgroup {dir}")]
    Kill {
        /// Its folder.
        dir: Utf8PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// It could not be removed; it still holds processes mostly.
    #[error("remove cgroup {dir}")]
    Remove {
        /// Its folder.
        dir: Utf8PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// The cgroups of one instance.
#[derive(Clone, Debug)]
pub struct Cgroups {
    /// `agentd-<instance>` below our own cgroup.
    dir: Utf8PathBuf,
    mount: Mount,
    /// What the kernel holds them to.
    controllers: Controllers,
}

impl Cgroups {
    /// Finds where cgroups can be made, makes the instance's folder and checks that it works.
    ///
    /// # Errors
    /// Why there can be none. To be said once, as a fact about the machine.
    pub fn open(instance: &str) -> Result<Self, NoCgroups> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if instance.is_empty() || instance.len() > 128 || !instance.bytes().all(allowed) {
            return Err(NoCgroups::Instance(instance.to_owned()));
        }
        let mount = Mount::find(&read_proc("/proc/self/mountinfo")?).ok_or(NoCgroups::NotMounted)?;
        let own = mount.folder_of(&read_proc("/proc/self/cgroup")?).ok_or(NoCgroups::NotMounted)?;
        let base = delegated(&own);
        let dir = base.join(folder_name(instance));
        make(&dir).map_err(|source| NoCgroups::Make { dir: dir.clone(), source })?;
        access(base.join("cgroup.procs").as_str(), Access::WRITE_OK)
            .map_err(|errno| NoCgroups::Move { dir: base.to_owned(), source: errno.into() })?;
        if access(dir.join("cgroup.kill").as_str(), Access::WRITE_OK).is_err() {
            return Err(NoCgroups::NoKill { dir });
        }
        match fs::read_to_string(dir.join("cgroup.type")).unwrap_or_default().trim() {
            "domain" | "domain threaded" => Ok(Self { controllers: Controllers::enable(base, &dir), dir, mount }),
            kind => Err(NoCgroups::Kind { kind: kind.to_owned(), dir }),
        }
    }

    /// What the kernel holds them to.
    #[must_use]
    pub const fn controllers(&self) -> Controllers {
        self.controllers
    }

    /// Holds a cgroup to amounts, as far as there are controllers.
    ///
    /// # Errors
    /// [`SetError`].
    pub fn limit(&self, cgroup: &Cgroup, amounts: &Amounts) -> Result<(), SetError> {
        controllers::set(&cgroup.dir, self.controllers, amounts)
    }

    /// The cgroup for `launch`, made if it is not there.
    ///
    /// # Errors
    /// [`CgroupError::Make`].
    pub fn make(&self, launch: Launch) -> Result<Cgroup, CgroupError> {
        let cgroup = self.of_launch(launch);
        make(&cgroup.dir).map_err(|source| CgroupError::Make { dir: cgroup.dir.clone(), source })?;
        Ok(cgroup)
    }

    /// The cgroup for `launch`, whether it is there or not.
    #[must_use]
    pub fn of_launch(&self, launch: Launch) -> Cgroup {
        Cgroup { dir: self.dir.join(launch.to_string()) }
    }

    /// The cgroup that `pid` is in, if one of this instance's supervisors made it for `launch`.
    #[must_use]
    pub fn of_process(&self, pid: Pid, launch: Launch) -> Option<Cgroup> {
        let dir = self.mount.folder_of(&read_at_once(&format!("/proc/{pid}/cgroup")).ok()?)?;
        let instance = self.dir.file_name()?;
        // It may have made cgroups of its own below.
        let ours = |dir: &&Utf8Path| dir.parent().and_then(Utf8Path::file_name) == Some(instance);
        let found = dir.ancestors().find(ours)?;
        (found.file_name() == Some(&launch.to_string())).then(|| Cgroup { dir: found.to_owned() })
    }

    /// The processes in this instance's cgroups, by launch.
    pub fn by_launch(&self) -> impl Iterator<Item = (Launch, Vec<Pid>)> {
        let folders = self.dir.read_dir_utf8().into_iter().flatten().flatten();
        folders.filter_map(|entry| {
            let launch = Launch(entry.file_name().parse().ok()?);
            // One that was removed since has none.
            Some((launch, Cgroup { dir: entry.into_path() }.processes().unwrap_or_default()))
        })
    }

    /// The processes in the cgroup of one launch, none where there is no such cgroup.
    #[must_use]
    pub fn processes_of(&self, launch: Launch) -> Vec<Pid> {
        self.of_launch(launch).processes().unwrap_or_default()
    }

    /// Removes the cgroups of this instance that hold no process any more and that are `wanted`, and says how many they
    /// were. One that was just made for a launch is empty, too.
    pub fn remove_empty(&self, wanted: impl Fn(Launch) -> bool) -> usize {
        let Ok(entries) = self.dir.read_dir_utf8() else { return 0 };
        let wanted = |entry: &Utf8DirEntry| entry.file_name().parse().is_ok_and(|number| wanted(Launch(number)));
        let folders = entries.flatten().filter(wanted);
        folders.filter(|entry| remove(entry.path()).is_ok()).count()
    }

    /// Removes the instance's folder itself, at the very end. It stays when a launch's cgroup does.
    pub fn close(self) {
        let _ = self.remove_empty(|_| true);
        // Not empty: workers that outlive us. The next supervisor finds it.
        drop(fs::remove_dir(&self.dir));
    }
}

/// The cgroup of one launch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    dir: Utf8PathBuf,
}

impl Cgroup {
    /// The cgroup at `dir`, as was recorded.
    #[must_use]
    pub fn at(dir: Utf8PathBuf) -> Self {
        Self { dir }
    }

    /// Its folder.
    #[must_use]
    pub fn dir(&self) -> &Utf8Path {
        &self.dir
    }

    /// The processes in it and below it, those that wait to be reaped not among them.
    ///
    /// # Errors
    /// [`CgroupError::List`], as when it was removed.
    pub fn processes(&self) -> Result<Vec<Pid>, CgroupError> {
        let mut found = Vec::new();
        list(&self.dir, &mut found).map_err(|source| CgroupError::List { dir: self.dir.clone(), source })?;
        Ok(found)
    }

    /// Sends SIGKILL to all processes in it and below it, those included that are being forked. Returns before they
    /// have ended.
    ///
    /// # Errors
    /// [`CgroupError::Kill`].
    pub fn kill(&self) -> Result<(), CgroupError> {
        fs::write(self.dir.join("cgroup.kill"), "1")
            .map_err(|source| CgroupError::Kill { dir: self.dir.clone(), source })
    }

    /// What came of its limits, where there are these controllers.
    #[must_use]
    pub fn met(&self, controllers: Controllers) -> Met {
        controllers::met(&self.dir, controllers)
    }

    /// Processor time of all that ever ran in it, in microseconds.
    #[must_use]
    pub fn cpu_us(&self) -> Option<u64> {
        let mut buffer = [0; 1024];
        let stat = read_into(CWD, self.dir.join("cpu.stat").as_str(), &mut buffer).ok()?;
        std::str::from_utf8(stat).ok()?.lines().find_map(|line| line.strip_prefix("usage_usec "))?.parse().ok()
    }

    /// Removes it, with cgroups that were made below it. Already gone is fine.
    ///
    /// # Errors
    /// [`CgroupError::Remove`] while processes are in it; killed ones are until they have ended.
    pub fn remove(&self) -> Result<(), CgroupError> {
        match remove(&self.dir) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(CgroupError::Remove { dir: self.dir.clone(), source })
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

/// What was delegated to us, given the cgroup that we are in.
fn delegated(own: &Utf8Path) -> &Utf8Path {
    let leaf = own.file_name() == Some(SUBGROUP);
    let ours = |parent: &&Utf8Path| access(parent.join("cgroup.subtree_control").as_str(), Access::WRITE_OK).is_ok();
    own.parent().filter(|_| leaf).filter(ours).unwrap_or(own)
}

fn folder_name(instance: &str) -> String {
    format!("agentd-{instance}")
}

fn read_proc(path: &'static str) -> Result<String, NoCgroups> {
    read_at_once(path).map_err(|source| NoCgroups::Proc { path, source })
}

/// Reads a file of `/proc` that says that it is empty: with room for all of it the kernel makes its text once.
fn read_at_once(path: &str) -> io::Result<String> {
    let mut text = String::with_capacity(READ_AT_ONCE);
    fs::File::open(path)?.read_to_string(&mut text)?;
    Ok(text)
}

fn make(dir: &Utf8Path) -> io::Result<()> {
    match fs::create_dir(dir) {
        Err(source) if source.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// Folders of a cgroup directly below `dir`.
fn below(dir: &Utf8Path) -> io::Result<Vec<Utf8PathBuf>> {
    // The kernel counts folders as links to their parent, and there mostly are none: this spares the listing.
    if fs::metadata(dir)?.nlink() == 2 {
        return Ok(Vec::new());
    }
    let entries = dir.read_dir_utf8()?.flatten();
    Ok(entries.filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir())).map(|e| e.path().to_owned()).collect())
}

fn list(dir: &Utf8Path, found: &mut Vec<Pid>) -> io::Result<()> {
    let file = dir.join("cgroup.procs");
    let mut buffer = [0; PROCS_MAX];
    let listed = read_into(CWD, file.as_str(), &mut buffer)?;
    // Where no further line would have fitted, there may be one.
    let whole = if listed.len() + LINE_MAX > PROCS_MAX { Some(fs::read(&file)?) } else { None };
    let lines = whole.as_deref().unwrap_or(listed).split(|&b| b == b'\n');
    let pids = lines.filter_map(|line| std::str::from_utf8(line).ok()?.parse().ok());
    // Zero stands for a process outside our view.
    found.extend(pids.filter(|&pid| pid != 0).map(Pid));
    for folder in below(dir)? {
        match list(&folder, found) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(source),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

fn remove(dir: &Utf8Path) -> io::Result<()> {
    for folder in below(dir)? {
        remove(&folder)?;
    }
    fs::remove_dir(dir)
}

/// Where the cgroup v2 hierarchy is seen.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mount {
    /// The cgroup that is mounted.
    root: Utf8PathBuf,
    /// Where.
    point: Utf8PathBuf,
}

impl Mount {
    /// The first cgroup v2 mount of a `/proc/PID/mountinfo`.
    fn find(mountinfo: &str) -> Option<Self> {
        mountinfo.lines().find_map(|line| {
            let (mount, kind) = line.split_once(" - ")?;
            let mut fields = mount.split(' ').skip(3);
            let (root, point) = (fields.next()?, fields.next()?);
            kind.starts_with("cgroup2 ").then(|| Self { root: unescape(root).into(), point: unescape(point).into() })
        })
    }

    /// The folder of the cgroup that a `/proc/PID/cgroup` names.
    fn folder_of(&self, cgroup: &str) -> Option<Utf8PathBuf> {
        let path = cgroup.lines().find_map(|line| line.strip_prefix("0::"))?;
        let inside = Utf8Path::new(path).strip_prefix(&self.root).ok()?;
        Some(if inside.as_str().is_empty() { self.point.clone() } else { self.point.join(inside) })
    }
}

/// Undoes the octal escapes that the kernel writes for blanks and backslashes.
fn unescape(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (escape, plain)| text.replace(escape, plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
34 31 0:31 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw
";

    #[test]
    fn on_a_hybrid_machine_the_v2_hierarchy_is_taken_and_the_others_are_not() {
        let mount = Mount::find(HYBRID).unwrap();
        assert_eq!(mount, Mount { root: "/".into(), point: "/sys/fs/cgroup/unified".into() });
        let own = "9:name=systemd:/a\n1:cpu:/b\n0::/system.slice/agentd.service\n";
        assert_eq!(mount.folder_of(own).unwrap(), "/sys/fs/cgroup/unified/system.slice/agentd.service");
        assert_eq!(mount.folder_of("0::/\n").unwrap(), "/sys/fs/cgroup/unified");
        assert_eq!(mount.folder_of("1:cpu:/b\n"), None);
        assert_eq!(Mount::find("34 31 0:31 / /sys/fs/cgroup rw - cgroup cgroup rw,cpuset\n"), None);
    }

    #[test]
    fn a_container_sees_only_what_is_below_its_mount() {
        let mount = Mount::find("5 4 0:3 /docker/abc /sys/fs/cg\\040v2 ro - cgroup2 cgroup rw\n").unwrap();
        assert_eq!(mount.folder_of("0::/docker/abc/x\n").unwrap(), "/sys/fs/cg v2/x");
        assert_eq!(mount.folder_of("0::/docker/other\n"), None);
    }

    #[test]
    fn an_instance_name_cannot_lead_elsewhere() {
        for bad in ["", "../x", "a/b", "a b"] {
            assert!(matches!(Cgroups::open(bad), Err(NoCgroups::Instance(_))), "{bad:?}");
        }
    }
}
