//! `agentd keep`: the process that holds.
//!
//! Its listening socket is descriptor 3. One supervisor is served at a time; a newer connection takes an older one's
//! place, since two live supervisors of one instance cannot be (see `home`). Only processes of the same user, or root,
//! are heard. It ends when it is told to; without a supervisor it waits for the next, as long as
//! its socket has a name by which one can come.
//!
//! It allocates little and uses no runtime, so that hundreds of descriptors cost it less than a megabyte.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::ExitCode;

use agentd_core::time::Moment;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{getsockopt, sockopt};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{SocketAddrUnix, SocketFlags, accept_with, listen};

use super::{BACKLOG, WORD_MAX, send};
use crate::process::sys;

/// Most descriptors that are held; a supervisor that gives more has lost its count.
const HELD_MAX: usize = 100_000;

/// Without a supervisor, how often it looks whether one can still come.
const ALONE: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

/// What is kept, and what is known of whose it is.
#[derive(Debug, Default)]
pub(super) struct Hoard {
    held: BTreeMap<String, OwnedFd>,
    /// When the last supervisor was gone.
    alone_since: Option<Moment>,
}

/// Whether to go on.
enum Next {
    /// There may be another word.
    Serve,
    /// There is none now.
    Wait,
    HangUp,
    Exit,
}

/// Runs the keeper until it is told to end.
#[must_use]
pub fn run() -> ExitCode {
    // Its supervisor's soft limit is the workers'; it holds three descriptors for each of them.
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // Without it, fewer are held, and the supervisor hears of each that is not.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
    let listener = sys::listening_descriptor();
    // The kernel tells whoever connects the process that listened last: by it a keeper that hangs is found and ended.
    let listened = listen(&listener, BACKLOG).map_err(io::Error::from);
    match listened.and_then(|()| serve(listener, &mut Hoard::default())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("agentd keep: {error}");
            ExitCode::FAILURE
        }
    }
}

pub(super) fn serve(listener: OwnedFd, hoard: &mut Hoard) -> io::Result<()> {
    let mut supervisor: Option<OwnedFd> = None;
    let mut buffer = vec![0; WORD_MAX];
    loop {
        let mut polled = vec![PollFd::new(&listener, PollFlags::IN)];
        polled.extend(supervisor.as_ref().map(|fd| PollFd::new(fd, PollFlags::IN)));
        // With a supervisor it sleeps until one of them speaks.
        let patience = if supervisor.is_some() { None } else { Some(&ALONE) };
        match poll(&mut polled, patience) {
            Ok(0) if is_cut_off(&listener) => return Ok(()),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let new = !polled[0].revents().is_empty();
        // What a supervisor said before it died comes before its successor's first word.
        while let Some(fd) = &supervisor {
            match heed(fd.as_fd(), &mut buffer, hoard) {
                Next::Serve => {}
                Next::Wait => break,
                Next::HangUp => {
                    hoard.alone_since = Some(sys::boottime());
                    supervisor = None;
                }
                Next::Exit => return Ok(()),
            }
        }
        if new
            && let Ok(fd) = accept_with(&listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)
            && may_speak(fd.as_fd())
        {
            supervisor = Some(fd);
        }
    }
}

/// Whether no supervisor can ever come: the name of its socket is gone, and with it the instance's home.
fn is_cut_off(listener: &OwnedFd) -> bool {
    let name = rustix::net::getsockname(listener).ok().and_then(|name| SocketAddrUnix::try_from(name).ok());
    let path = name.as_ref().and_then(SocketAddrUnix::path);
    path.is_some_and(|path| !Path::new(OsStr::from_bytes(path.to_bytes())).exists())
}

fn may_speak(peer: BorrowedFd<'_>) -> bool {
    let us = nix::unistd::geteuid().as_raw();
    getsockopt(&peer, sockopt::PeerCredentials).is_ok_and(|peer| peer.uid() == us || peer.uid() == 0)
}

fn heed(socket: BorrowedFd<'_>, buffer: &mut [u8], hoard: &mut Hoard) -> Next {
    let Hoard { held, alone_since } = hoard;
    let received = match sys::receive(socket, buffer) {
        Ok(received) => received,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Next::Wait,
        Err(_) => return Next::HangUp,
    };
    let Ok(text) = str::from_utf8(&buffer[..received.length]) else { return Next::HangUp };
    let mut lines = text.split('\n');
    match lines.next() {
        Some("hold") => {
            let names: Vec<&str> = lines.collect();
            // Descriptors that could not be installed here would shift the names: better none of them, and a
            // supervisor that notices.
            if names.len() != received.fds.len() || held.len() + names.len() > HELD_MAX {
                return Next::HangUp;
            }
            held.extend(names.into_iter().map(str::to_owned).zip(received.fds));
            Next::Serve
        }
        Some("release") => {
            for name in lines {
                held.remove(name);
            }
            Next::Serve
        }
        Some("take") => {
            for (name, fd) in held.iter() {
                if send(socket, format!("held\n{name}").as_bytes(), &[fd.as_fd()]).is_err() {
                    return Next::HangUp;
                }
            }
            let since = alone_since.map_or_else(|| "-".to_owned(), |at| at.as_micros().to_string());
            if send(socket, format!("end\n{since}").as_bytes(), &[]).is_ok() { Next::Serve } else { Next::HangUp }
        }
        Some("exit") => Next::Exit,
        // The end of the connection is an empty word.
        Some(_) | None => Next::HangUp,
    }
}
