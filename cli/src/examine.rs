//! What `doctor` looks at: the machine, the instance's folders, the daemon.
//!
//! Owns the list of checks and what each finds; every finding says what to do. Reads `/proc`, `/sys` and the folders of
//! the instance, and asks the daemon about itself. A file that is not there means that its check says nothing: other
//! kernels have other files.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use agentd_protocol::control::{DaemonStatusParams, DaemonView};
use camino::Utf8Path;
use serde::Serialize;

use crate::client::{Client, ClientError};
use crate::home::{Home, HomeError};
use crate::launch;

/// Open files under which a busy daemon runs out: each worker takes about ten, each connection of a client one.
const FILES_LEAST: u64 = 4096;

/// Free space under which logs and state are in danger, in bytes.
const SPACE_LEAST: u64 = 200 << 20;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Weight {
    /// As it should be.
    Well,
    /// A promise holds only in part.
    Limited,
    /// Something does not work.
    Broken,
}

/// What one check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// What was looked at.
    pub(crate) subject: &'static str,
    /// How bad it is.
    pub(crate) weight: Weight,
    /// What was found.
    pub(crate) found: String,
    /// What to do.
    pub(crate) help: Option<String>,
}

fn well(subject: &'static str, found: impl Into<String>) -> Finding {
    Finding { subject, weight: Weight::Well, found: found.into(), help: None }
}

fn ill(subject: &'static str, weight: Weight, found: impl Into<String>, help: impl Into<String>) -> Finding {
    Finding { subject, weight, found: found.into(), help: Some(help.into()) }
}

/// Everything, in the order in which it is best mended.
pub(crate) fn all(home: &Home) -> Vec<Finding> {
    let (daemon, view) = daemon(home);
    let mut findings = vec![daemon];
    findings.extend(view.iter().flat_map(said));
    findings.extend([folder("state folder", &home.state), folder("runtime folder", &home.run), space(home)]);
    findings.extend(store(home));
    findings.push(files(view.as_ref()));
    findings.push(cgroups());
    findings.extend(tracing());
    findings.extend(processes());
    findings.extend(clock());
    findings
}

fn daemon(home: &Home) -> (Finding, Option<DaemonView>) {
    let asked = Client::connect(home).and_then(|mut client| client.call(DaemonStatusParams {}));
    let found = |weight, found: String, help: &str| (ill("daemon", weight, found, help), None);
    match asked {
        Ok(view) if view.version != env!("CARGO_PKG_VERSION") => {
            let text =
                format!("runs as {}, version {}; agentctl is {}", view.pid, view.version, env!("CARGO_PKG_VERSION"));
            (
                ill(
                    "daemon",
                    Weight::Limited,
                    text,
                    "install both from one release, then restart the daemon: its workers stay",
                ),
                Some(view),
            )
        }
        Ok(view) => (well("daemon", format!("runs as {}, version {}", view.pid, view.version)), Some(view)),
        Err(ClientError::Home(HomeError::NoDaemon { stale, .. })) => {
            let text = if stale { "died and left its socket; workers may run on" } else { "does not run" };
            found(Weight::Broken, text.to_owned(), "agentctl daemon start")
        }
        Err(error) => found(Weight::Broken, format!("cannot be asked: {error}"), "run agentctl as the daemon's user"),
    }
}

/// What the daemon itself noted of its surroundings.
fn said(view: &DaemonView) -> Vec<Finding> {
    let note = |note: &String| {
        ill("daemon's note", Weight::Limited, note.clone(), "docs/design/spawning.md says what follows from it")
    };
    view.notes.iter().map(note).collect()
}

fn folder(subject: &'static str, path: &Utf8Path) -> Finding {
    let us = nix::unistd::geteuid().as_raw();
    match fs::metadata(path) {
        Ok(found) if !found.is_dir() => {
            ill(subject, Weight::Broken, format!("{path} is no folder"), "move it out of the way")
        }
        Ok(found) if found.uid() != us && us != 0 => ill(
            subject,
            Weight::Broken,
            format!("{path} belongs to user {}", found.uid()),
            "run agentctl as that user, or name another home",
        ),
        Ok(found) if found.mode() & 0o022 != 0 => {
            ill(subject, Weight::Broken, format!("others may write into {path}"), format!("chmod go-w {path}"))
        }
        Ok(_) if nix::unistd::access(path.as_str(), nix::unistd::AccessFlags::W_OK).is_err() => ill(
            subject,
            Weight::Broken,
            format!("{path} cannot be written"),
            "mount its file system writable, or mend its rights",
        ),
        Ok(_) => well(subject, path.as_str()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            well(subject, format!("{path} is made by the daemon"))
        }
        Err(error) => ill(subject, Weight::Broken, format!("{path}: {error}"), "mend its rights"),
    }
}

/// The nearest folder that is there.
fn present(path: &Utf8Path) -> &Utf8Path {
    path.ancestors().find(|path| path.exists()).unwrap_or(Utf8Path::new("/"))
}

fn space(home: &Home) -> Finding {
    let at = present(&home.state);
    match nix::sys::statvfs::statvfs(at.as_str()) {
        Ok(found) => {
            let free = found.blocks_available().saturating_mul(found.fragment_size());
            let text = format!("{} free where state and logs are", crate::render::bytes_time::bytes(free));
            if free < SPACE_LEAST {
                ill(
                    "disk",
                    Weight::Broken,
                    text,
                    "make room: on a full disk lines of logs are dropped and state is not saved",
                )
            } else {
                well("disk", text)
            }
        }
        Err(error) => ill("disk", Weight::Limited, format!("{at}: {error}"), "look at it with df"),
    }
}

/// What the daemon's program makes of the state: it would start from that.
fn store(home: &Home) -> Option<Finding> {
    let path = home.state.join("agentd.db");
    let gone = !path.exists() && home.state.join("instance").exists();
    if gone {
        let help = "agentctl daemon start: workers that live are taken up from what their processes tell; then start the \
                    other apps from their files";
        return Some(ill("store", Weight::Broken, format!("{path} is gone"), help));
    }
    if !path.exists() {
        return None;
    }
    match launch::check_state(home) {
        Ok(Ok(())) => Some(well("store", path.as_str())),
        Ok(Err(said)) => {
            let (why, help) = said.split_once('\n').unwrap_or((&said, "mend what it says; workers that live serve on"));
            Some(ill("store", Weight::Broken, why.trim_start_matches("agentd: "), help.trim_end()))
        }
        Err(error) => Some(ill(
            "store",
            Weight::Limited,
            format!("not looked at: {error}"),
            "install agentd and agentctl together",
        )),
    }
}

fn files(view: Option<&DaemonView>) -> Finding {
    let of = view.map_or_else(|| "self".to_owned(), |view| view.pid.to_string());
    let limits = fs::read_to_string(format!("/proc/{of}/limits")).unwrap_or_default();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap_or_default();
    let mut numbers =
        line.split_whitespace().filter_map(|word| if word == "unlimited" { Some(u64::MAX) } else { word.parse().ok() });
    match numbers.nth(1).or_else(|| numbers.next()) {
        Some(hard) if hard < FILES_LEAST => {
            let text = format!("{hard} open files at most, which a few hundred workers use up");
            ill("descriptors", Weight::Limited, text, "raise LimitNOFILE= of the unit, or ulimit -Hn, to 65536")
        }
        Some(hard) => well("descriptors", format!("{hard} open files at most")),
        None => well("descriptors", "no limit is told"),
    }
}

fn cgroups() -> Finding {
    let wanted = ["cpu", "memory", "pids"];
    let roots = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(Path::new);
    let root = roots.into_iter().find(|root| root.join("cgroup.controllers").exists());
    let Some(root) = root else {
        return ill(
            "cgroups",
            Weight::Limited,
            "no cgroup v2 here",
            "whole trees of processes are ended by looking for them; memory is measured and not held by the kernel, cpu and pids are not held",
        );
    };
    let controllers = fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
    let missing: Vec<&str> =
        wanted.into_iter().filter(|name| !controllers.split_whitespace().any(|has| has == *name)).collect();
    if missing.is_empty() {
        return well("cgroups", format!("{} with {}", root.display(), wanted.join(", ")));
    }
    let text = format!("{} has no controller for {}", root.display(), missing.join(", "));
    ill(
        "cgroups",
        Weight::Limited,
        text,
        "of these, memory is measured and not held by the kernel, pids are held for apps with a user of their own, cpu is not held: boot with systemd.unified_cgroup_hierarchy=1",
    )
}

/// Yama may forbid to look into processes that are not our children: those that an earlier daemon started.
fn tracing() -> Option<Finding> {
    let scope = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").ok()?;
    Some(scope_found(scope.trim(), nix::unistd::geteuid().is_root()))
}

fn scope_found(scope: &str, root: bool) -> Finding {
    let limited = |help: &str| ill("ptrace_scope", Weight::Limited, scope, help);
    match scope {
        "0" => well("ptrace_scope", scope),
        _ if root => well("ptrace_scope", format!("{scope}, and we are root")),
        "1" => limited(
            "nothing to do while daemon or keeper lives, or systemd holds the sockets; only when all of them die at once, \
             workers serve on and cannot be reloaded until they have ended",
        ),
        _ => limited("sysctl kernel.yama.ptrace_scope=1: stuck workers cannot be looked into"),
    }
}

/// Whether processes of others can be seen, which is how a tree's strays and a port's holder are found.
fn processes() -> Option<Finding> {
    let hidden = fs::read_to_string("/proc/1/stat").is_err();
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let option = mounts.lines().any(|line| line.contains(" /proc ") && line.contains("hidepid="));
    hidden.then(|| {
        ill(
            "/proc",
            Weight::Limited,
            if option { "hidepid hides others' processes" } else { "processes of others are hidden" },
            "mount /proc without hidepid for the daemon's user (gid=)",
        )
    })
}

/// A clock that was never set makes times in logs and events worthless.
fn clock() -> Option<Finding> {
    let year = jiff::Zoned::now().year();
    (year < 2025).then(|| ill("clock", Weight::Limited, format!("it says {year}"), "set it: timedatectl set-ntp true"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_yama_takes_is_said_to_whom_it_takes_it_from() {
        let weight = |scope, root| scope_found(scope, root).weight;
        assert_eq!([weight("0", false), weight("1", true), weight("3", true)], [Weight::Well; 3]);
        assert_eq!([weight("1", false), weight("2", false)], [Weight::Limited; 2]);
        assert!(scope_found("1", false).help.is_some_and(|help| help.contains("cannot be reloaded")));
    }
}
