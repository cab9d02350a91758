//! What passes from one program to the next when the daemon is upgraded in place.
//!
//! ```text
//! agentd 0.1 ── agentd --check-state ──► "I know this state"          still serving; a refusal ends it here
//!            ── execve ──► agentd 0.2 run --handed lock=5,control=6,status=7,clients=8+9
//!                          the same process: its children, its pending signals, these descriptors
//! ```
//!
//! Everything else a new supervisor gets as after a death: state from the store, sockets and pipes from the keeper,
//! workers by adoption. There is one way to take over, and it is the one that is tried 300 times.
//!
//! The descriptors are there so that nobody notices the moment in between: the instance is never unlocked, who connects
//! meanwhile waits in the sockets' queues instead of being refused, and who is connected to the control socket and awaits
//! nothing goes on with the next program. Signals are held back from before the
//! exec until the new program listens to them; workers that end meanwhile stay zombies until it asks.

use std::collections::BTreeSet;
use std::ffi::{CString, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::signal::{SigSet, Signal};
use rustix::io::{FdFlags, fcntl_setfd};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::process::sys;

/// The version of what is passed on. A program that knows another does not get it.
pub const HANDOVER: u32 = 2;
/// The flag that passes it.
pub const FLAG: &str = "--handed";
/// What a binary is asked by before it is trusted with the instance.
pub const CHECK_FLAG: &str = "--check-state";

/// What a new binary answers to [`CHECK_FLAG`] when it can go on, as one line of JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    /// Its version.
    pub version: String,
    /// The newest schema of the store that it knows.
    pub schema: u32,
    /// The handover that it knows.
    pub handover: u32,
    /// Apps that it found.
    pub apps: usize,
    /// Workers that it found.
    pub workers: usize,
}

/// The descriptors that are passed on.
#[derive(Debug)]
pub struct Handover {
    /// The locked file of the instance.
    pub lock: OwnedFd,
    /// The control socket, listening.
    pub control: OwnedFd,
    /// The status socket, listening.
    pub status: OwnedFd,
    /// Clients of the control socket, each between two lines.
    pub clients: Vec<OwnedFd>,
}

/// What was handed is not what was said.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{FLAG} {0:?} names no descriptors of this process")]
pub struct NotHanded(String);

impl Handover {
    /// Takes over what the argument of [`FLAG`] names. To be called once, before anything else opens a descriptor.
    ///
    /// # Errors
    /// It names what is not there.
    pub fn take(argument: &str) -> Result<Self, NotHanded> {
        let refused = || NotHanded(argument.to_owned());
        let ([lock, control, status], clients) = numbers(argument).ok_or_else(refused)?;
        // Close-on-exec again first of all: a worker must never inherit them.
        let take = |number| sys::inherited_descriptor(number).ok_or_else(refused);
        let (lock, control, status) = (take(lock)?, take(control)?, take(status)?);
        let clients = clients.into_iter().map(take).collect::<Result<_, _>>()?;
        Ok(Self { lock, control, status, clients })
    }

    fn argument(&self) -> String {
        let (lock, control, status) = (self.lock.as_raw_fd(), self.control.as_raw_fd(), self.status.as_raw_fd());
        let mut all = format!("lock={lock},control={control},status={status}");
        for (index, client) in self.clients.iter().enumerate() {
            all.push_str(if index == 0 { ",clients=" } else { "+" });
            all.push_str(&client.as_raw_fd().to_string());
        }
        all
    }

    fn all(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        [&self.lock, &self.control, &self.status].into_iter().chain(&self.clients).map(AsFd::as_fd)
    }
}

/// The lock's, the sockets' and the clients': different descriptors above the standard ones.
fn numbers(argument: &str) -> Option<([RawFd; 3], Vec<RawFd>)> {
    let mut fields = argument.split(',');
    let mut next = |name: &str| fields.next()?.strip_prefix(name)?.strip_prefix('=')?.parse::<RawFd>().ok();
    let first = [next("lock")?, next("control")?, next("status")?];
    let clients: Vec<RawFd> = match fields.next() {
        Some(field) => field.strip_prefix("clients=")?.split('+').map(str::parse).collect::<Result<_, _>>().ok()?,
        None => Vec::new(),
    };
    let distinct: BTreeSet<RawFd> = first.iter().chain(&clients).copied().collect();
    let sound =
        fields.next().is_none() && distinct.len() == 3 + clients.len() && distinct.iter().all(|number| *number > 2);
    sound.then_some((first, clients))
}

/// A program that was asked and may take over: its file is held, so that it is the one that was asked.
#[derive(Debug)]
pub struct NewBinary {
    path: PathBuf,
    file: File,
}

impl NewBinary {
    /// Opens the program at `path`.
    ///
    /// # Errors
    /// There is none.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), file: File::open(path)? })
    }

    /// Where it was found.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path to exactly this file: its name, or, where another file has that by now, our hold on it.
    #[must_use]
    pub fn exact_path(&self) -> PathBuf {
        let same =
            |one: &std::fs::Metadata, other: &std::fs::Metadata| (one.dev(), one.ino()) == (other.dev(), other.ino());
        match (std::fs::metadata(&self.path), self.file.metadata()) {
            (Ok(named), Ok(held)) if same(&named, &held) => self.path.clone(),
            (_, _) => PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd())),
        }
    }
}

/// The arguments that this daemon was started with, without the program and without what only its start needed.
#[must_use]
pub fn own_arguments() -> Vec<OsString> {
    let mut kept = Vec::new();
    let mut given = std::env::args_os().skip(1);
    while let Some(word) = given.next() {
        if word == FLAG {
            // Its value goes with it.
            let _numbers = given.next();
        } else {
            kept.push(word);
        }
    }
    kept
}

/// Signals that mean something to the daemon, and must not be lost between two programs.
fn heeded() -> SigSet {
    [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].into_iter().collect()
}

/// Holds signals back: from now on they wait for the next program, and none is taken by a handler that nobody reads.
///
/// # Errors
/// What the kernel refused: nothing.
pub fn hold_signals() -> io::Result<()> {
    Ok(heeded().thread_block()?)
}

/// Lets them through again, once there are handlers: those that were held back come now.
///
/// # Errors
/// What the kernel refused: nothing.
pub fn release_signals() -> io::Result<()> {
    Ok(heeded().thread_unblock()?)
}

/// Becomes the new program, with `handed`. Should the kernel refuse it, becomes this program once more: whoever was
/// connected cannot tell the two apart, and the supervisor's history says which it was. Returns only when both failed.
#[must_use]
pub fn become_program(new: &NewBinary, handed: &Handover) -> io::Error {
    for fd in handed.all() {
        if let Err(errno) = fcntl_setfd(fd, FdFlags::empty()) {
            return errno.into();
        }
    }
    let mut words = vec![OsString::from("agentd")];
    words.extend(own_arguments());
    words.extend([OsString::from(FLAG), OsString::from(handed.argument())]);
    let error = execute(new.exact_path(), &words);
    tracing::error!(binary = %new.path.display(), %error, "the kernel does not execute the new binary; going on with the old");
    execute(PathBuf::from("/proc/self/exe"), &words)
}

fn execute(program: PathBuf, words: &[OsString]) -> io::Error {
    let text = |word: OsString| CString::new(word.into_vec()).map_err(io::Error::from);
    let prepared = (|| {
        let words = words.iter().cloned().map(text).collect::<io::Result<Vec<_>>>()?;
        let environment = std::env::vars_os().map(|(mut name, value)| {
            name.push("=");
            name.push(value);
            text(name)
        });
        Ok::<_, io::Error>((text(program.into_os_string())?, words, environment.collect::<io::Result<Vec<_>>>()?))
    })();
    match prepared {
        Ok((program, words, environment)) => match nix::unistd::execve(&program, &words, &environment) {
            Err(errno) => errno.into(),
        },
        Err(error) => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_handed_is_named_in_order_and_nothing_else_is_believed() {
        assert_eq!(numbers("lock=5,control=6,status=7"), Some(([5, 6, 7], vec![])));
        assert_eq!(numbers("lock=5,control=6,status=7,clients=8+9"), Some(([5, 6, 7], vec![8, 9])));
        for wrong in [
            "",
            "lock=5",
            "lock=5,control=6,status=7,more=8",
            "lock=5,control=6,status=7,clients=",
            "lock=5,control=6,status=7,clients=8+7",
            "lock=5,control=6,status=7,clients=8+x",
            "lock=5,control=6,status=7,clients=8,more=9",
            "lock=1,control=6,status=7",
            "lock=5,control=5,status=7",
            "control=5,lock=6,status=7",
            "lock=-1,control=6,status=7",
            "lock=5,control=6,status=x",
        ] {
            assert_eq!(numbers(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn descriptors_that_are_not_open_are_refused() {
        assert!(Handover::take("lock=90001,control=90002,status=90003").is_err());
    }

    #[test]
    fn a_file_that_was_replaced_is_reached_by_the_hold_on_it() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("agentd");
        std::fs::write(&path, "old").expect("written");
        let binary = NewBinary::open(&path).expect("it is there");
        assert_eq!(binary.exact_path(), path);
        std::fs::rename(&path, dir.path().join("aside")).expect("moved");
        std::fs::write(&path, "another").expect("written");
        assert_eq!(std::fs::read_to_string(binary.exact_path()).expect("it is held"), "old");
    }
}
