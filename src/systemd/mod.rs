//! Our side of systemd, when it started us: what it is told, and the descriptors that it keeps for us.
//!
//! ```text
//!  systemd ──NOTIFY_SOCKET, WATCHDOG_USEC, LISTEN_FDS──► agentd
//!     ▲                                                    │ READY=1            restored, all sockets open
//!     │                                                    │ WATCHDOG=1         from the loop itself: a hung loop is silent
//!     │                                                    │ RELOADING=1 READY=1  SIGHUP
//!     └────────────────── datagrams ───────────────────────┤ STOPPING=1, EXTEND_TIMEOUT_USEC  while workers drain
//!                                                          │ FDSTORE=1 / FDSTOREREMOVE=1      the second holder
//! ```
//!
//! Owns the connection to `NOTIFY_SOCKET` and when the next word is due. Decides nothing about workers. Without systemd
//! (`NOTIFY_SOCKET` unset) every function does nothing, so that no caller has to ask.
//!
//! **What can go wrong.** A word is not taken: it is told in our log, once until a word passes again, and life goes on;
//! half an interval later comes the next beat. systemd's store is full (`FileDescriptorStoreMax`): it closes what
//! it has no room for and tells only its own log; the keeper is the first holder and has it.

mod names;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use agentd_core::time::Moment;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use sd_notify::NotifyState;

use crate::keeper::{self, Held};
use crate::process::sys;

/// While workers drain, how often systemd is told that this goes on.
const STILL_DRAINING: Duration = Duration::from_secs(5);
/// How much longer it is asked to wait each time: as much as a daemon may be silent before a stop is given up.
const EXTENSION: Duration = Duration::from_secs(30);

/// The conversation with systemd.
#[derive(Debug)]
pub struct Systemd {
    socket: Option<OwnedFd>,
    watchdog: Option<Duration>,
    phase: Phase,
    beaten: Option<Moment>,
    /// What it keeps for us, as far as we know.
    stored: BTreeSet<Held>,
    predecessor: Predecessor,
    hears: Hears,
}

/// What became of the last word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hears {
    /// It was taken.
    Well,
    /// It was not, which our log tells once.
    Not,
}

/// Who stored what systemd has from before us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Predecessor {
    /// Another process, or nobody: all that is there was passed on to us.
    Another,
    /// This process, before it became this program: what is there is not known.
    Ourselves,
}

/// Which words are due.
///
/// ```text
/// Serving ──stopping()──► Draining ──► the process ends
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The watchdog's beat, if there is a watchdog.
    Serving,
    /// The beat, and that it takes longer.
    Draining,
}

impl Systemd {
    /// What the environment says of systemd, and what it kept from our predecessor. To be called once, at the very
    /// start: it takes over the descriptors from 3 on if they are meant for us.
    #[must_use]
    pub fn from_environment() -> (Self, BTreeMap<Held, OwnedFd>) {
        let count = variable("LISTEN_FDS").filter(|_| is_ours("LISTEN_PID")).and_then(|count| count.parse().ok());
        let kept = sys::passed_descriptors(count.unwrap_or(0));
        let fd_names = variable("LISTEN_FDNAMES").unwrap_or_default();
        let mut systemd = Self { predecessor: Predecessor::Another, ..Self::after_an_upgrade() };
        let held = systemd.recognise(kept, &fd_names);
        systemd.stored = held.keys().cloned().collect();
        (systemd, held)
    }

    /// The same in a process that became another program: the environment still speaks of descriptors that are
    /// long something else.
    #[must_use]
    pub fn after_an_upgrade() -> Self {
        let socket = variable("NOTIFY_SOCKET").and_then(|address| match connected(&address) {
            Ok(socket) => Some(socket),
            Err(error) => {
                tracing::warn!(%error, address, "the service manager cannot be told of the daemon's state");
                None
            }
        });
        let interval =
            variable("WATCHDOG_USEC").filter(|_| variable("WATCHDOG_PID").is_none() || is_ours("WATCHDOG_PID"));
        let watchdog =
            interval.and_then(|text| text.parse().ok()).map(Duration::from_micros).filter(|_| socket.is_some());
        let predecessor = Predecessor::Ourselves;
        Self {
            socket,
            watchdog,
            stored: BTreeSet::new(),
            predecessor,
            phase: Phase::Serving,
            beaten: None,
            hears: Hears::Well,
        }
    }

    /// Everything is restored, and whoever connects is served.
    pub fn ready(&mut self) {
        self.tell("READY=1");
    }

    /// Configuration files are being read again; [`ready`](Self::ready) ends it.
    pub fn reloading(&mut self) {
        // systemd tells this reload from an earlier one by its own clock.
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.tell(&format!("RELOADING=1\n{now}")),
            Err(error) => tracing::warn!(%error, "the service manager was not told of a reload"),
        }
    }

    /// The daemon leaves; its workers stay for the next one.
    pub fn leaving(&mut self) {
        self.tell("STOPPING=1");
    }

    /// `workers` are being drained, for at most `longest`; from now on each beat asks for more time.
    pub fn draining(&mut self, workers: usize, longest: Duration) {
        self.phase = Phase::Draining;
        self.tell(&format!("STOPPING=1\nSTATUS=draining {workers} workers, at most {} s", longest.as_secs()));
        self.beaten = None;
    }

    /// When [`beat`](Self::beat) has something to say next.
    #[must_use]
    pub fn next_beat(&self) -> Option<Moment> {
        self.socket.as_ref()?;
        let every = self.interval()?;
        Some(self.beaten.map_or(Moment::default(), |beaten| beaten + every))
    }

    /// Says what is due at `now`. Called from every turn of the loop, so that a loop which hangs is not vouched for.
    pub fn beat(&mut self, now: Moment) {
        if self.next_beat().is_none_or(|due| due > now) {
            return;
        }
        let word = match self.phase {
            Phase::Serving => "WATCHDOG=1".to_owned(),
            Phase::Draining => format!("WATCHDOG=1\nEXTEND_TIMEOUT_USEC={}", EXTENSION.as_micros()),
        };
        self.tell(&word);
        self.beaten = Some(now);
    }

    /// Whether there is somebody to hold something, and it does not yet.
    #[must_use]
    pub fn lacks(&self, held: &Held) -> bool {
        self.socket.is_some() && !self.stored.contains(held)
    }

    /// Lets systemd hold these too, as far as it does not already.
    pub fn store(&mut self, given: &[(Held, BorrowedFd<'_>)]) {
        for (held, fd) in given {
            if !self.lacks(held) {
                continue;
            }
            // Not polled: a listening socket or a FIFO without a writer would be taken for dead.
            if let Some(name) = names::encode(held) {
                // Where it is there already by another opening, systemd would keep both.
                if self.predecessor == Predecessor::Ourselves {
                    self.tell(&format!("FDSTOREREMOVE=1\nFDNAME={name}"));
                }
                self.tell_with(&format!("FDSTORE=1\nFDPOLL=0\nFDNAME={name}"), &[*fd]);
                self.stored.insert(held.clone());
            }
        }
    }

    /// Lets it let go.
    pub fn unstore<'h>(&mut self, names: impl IntoIterator<Item = &'h Held>) {
        for held in names {
            if self.stored.remove(held)
                && let Some(name) = names::encode(held)
            {
                self.tell(&format!("FDSTOREREMOVE=1\nFDNAME={name}"));
            }
        }
    }

    /// Half of what the watchdog allows, as `sd_watchdog_enabled(3)` advises.
    fn interval(&self) -> Option<Duration> {
        let watchdog = self.watchdog.map(|interval| interval / 2);
        match self.phase {
            Phase::Serving => watchdog,
            Phase::Draining => Some(watchdog.map_or(STILL_DRAINING, |half| half.min(STILL_DRAINING))),
        }
    }

    /// Names to what came, by name and not by order. What is not ours is given up.
    fn recognise(&mut self, kept: Vec<Option<OwnedFd>>, fd_names: &str) -> BTreeMap<Held, OwnedFd> {
        let mut held = BTreeMap::new();
        for (fd, name) in kept.into_iter().zip(fd_names.split(':')) {
            match (fd, names::decode(name)) {
                (Some(fd), Some(known)) => drop(held.insert(known, fd)),
                (Some(_), None) => {
                    tracing::warn!(name, "systemd passed on a descriptor that is none of ours; it is closed");
                    self.tell(&format!("FDSTOREREMOVE=1\nFDNAME={name}"));
                }
                (None, _) => tracing::warn!(name, "systemd announced a descriptor and did not pass it on"),
            }
        }
        held
    }

    fn tell(&mut self, word: &str) {
        self.tell_with(word, &[]);
    }

    fn tell_with(&mut self, word: &str, fds: &[BorrowedFd<'_>]) {
        let Some(socket) = &self.socket else { return };
        match keeper::send(socket.as_fd(), word.as_bytes(), fds) {
            Ok(()) => self.hears = Hears::Well,
            Err(error) => {
                if self.hears == Hears::Well {
                    tracing::warn!(%error, word, "the service manager did not take a word");
                }
                self.hears = Hears::Not;
            }
        }
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Whether the process that a variable names is this one.
fn is_ours(name: &str) -> bool {
    variable(name).is_some_and(|pid| pid == std::process::id().to_string())
}

/// A socket to `NOTIFY_SOCKET`: a path, or `@` and a name without a file.
fn connected(address: &str) -> io::Result<OwnedFd> {
    let address = match address.strip_prefix('@') {
        Some(name) => SocketAddrUnix::new_abstract_name(name.as_bytes()),
        None => SocketAddrUnix::new(address),
    }?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
    connect(&socket, &address)?;
    Ok(socket)
}

#[cfg(test)]
mod tests;
