//! Which processes hold which sockets, from `/proc/PID/fd`.
//!
//! Owns nothing. A process of another user, or in a hidden `/proc`, cannot be looked into; it is passed over, and what
//! it holds then belongs to nobody we can name. One look costs about 1 µs a descriptor.

use std::collections::HashSet;
use std::fs;
use std::mem::MaybeUninit;

use agentd_core::id::Pid;
use rustix::fs::{Dir, Mode, OFlags, readlinkat_raw};

/// The inodes of all sockets that these processes hold. Processes that ended or cannot be looked into hold none.
#[must_use]
pub fn sockets_of(pids: &[Pid]) -> HashSet<u64> {
    let mut inodes = HashSet::new();
    for pid in pids {
        inodes.extend(sockets_in(&format!("/proc/{pid}/fd")));
    }
    inodes
}

/// The first process found, among all, that holds one of these sockets and is not the one asking, or else the one
/// asking.
pub(super) fn process_with(inodes: &HashSet<u64>) -> Option<Pid> {
    let own = Pid(std::process::id());
    let mut own_has = false;
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()).map(Pid) else {
            continue;
        };
        if sockets_in(&format!("/proc/{pid}/fd")).any(|inode| inodes.contains(&inode)) {
            if pid != own {
                return Some(pid);
            }
            own_has = true;
        }
    }
    own_has.then_some(own)
}

fn sockets_in(folder: &str) -> impl Iterator<Item = u64> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = rustix::fs::open(folder, flags, Mode::empty()).ok();
    let entries = folder.as_ref().and_then(|folder| Dir::read_from(folder).ok());
    // One look may cover ten thousand descriptors: links are read relative to the folder, into one buffer.
    let mut target = [MaybeUninit::uninit(); 32];
    entries.into_iter().flatten().filter_map(move |entry| {
        let entry = entry.ok()?;
        let (target, _) = readlinkat_raw(folder.as_ref()?, entry.file_name(), &mut target[..]).ok()?;
        str::from_utf8(target).ok()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
    })
}
