//! Which processes hold which sockets, from `/proc/PID/fd`.
//!
//! Owns nothing. A process of another user, or in a hidden `/proc`, cannot be looked into; it is passed over, and what
//! it holds then belongs to nobody we can name. One look costs about 1 µs a descriptor.

use std::collections::HashSet;
use std::fs;

use nix::unistd::Pid;

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
    let own = Pid::this();
    let mut own_has = false;
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()).map(Pid::from_raw) else {
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
    fs::read_dir(folder).into_iter().flatten().flatten().filter_map(|entry| {
        let target = fs::read_link(entry.path()).ok()?;
        target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
    })
}
