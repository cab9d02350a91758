//! Descriptors that a worker leaves to the next worker of its slot.
//!
//! Owns them, open, until they are removed by name, found dead, or the store is dropped. Knows nothing of who may store
//! or when they are passed on: they go to the slot's next worker after its listeners, each under its name.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::fstat;

use crate::process::sys::is_same_open_file;

/// Most descriptors kept for a slot.
pub const FD_STORE_MAX: usize = 64;
/// Longest name, in bytes, by systemd's rule.
const NAME_MAX: usize = 255;

/// The name of a descriptor: 1 to 255 printable ASCII characters but the colon, which separates names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FdName(Box<str>);

impl FdName {
    /// `text` as a name, if it can be one.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let fits = (1..=NAME_MAX).contains(&text.len());
        let clean = text.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b':');
        (fits && clean).then(|| Self(text.into()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for FdName {
    /// What systemd calls a descriptor that came without a name.
    fn default() -> Self {
        Self("stored".into())
    }
}

impl fmt::Display for FdName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What became of a descriptor that was to be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It is kept.
    Accepted,
    /// The same open file is kept already, under the name it came with first; this one was closed.
    AlreadySo,
    /// [`FD_STORE_MAX`] are kept; this one was closed.
    Full,
}

#[derive(Debug)]
struct Stored {
    name: FdName,
    fd: OwnedFd,
    /// Whether it is dropped once its other end is gone.
    poll: bool,
}

/// The descriptors of one slot, in the order in which they came.
#[derive(Debug, Default)]
pub struct FdStore {
    stored: Vec<Stored>,
}

impl FdStore {
    /// Keeps `fd` under `name`. With `poll`, [`drop_dead`](Self::drop_dead) may drop it later.
    pub fn add(&mut self, name: FdName, fd: OwnedFd, poll: bool) -> Admission {
        if self.stored.iter().any(|kept| is_same(kept.fd.as_fd(), fd.as_fd())) {
            return Admission::AlreadySo;
        }
        if self.stored.len() >= FD_STORE_MAX {
            return Admission::Full;
        }
        self.stored.push(Stored { name, fd, poll });
        Admission::Accepted
    }

    /// Closes all that is kept under `name`, and says how many they were.
    pub fn remove(&mut self, name: &FdName) -> usize {
        let before = self.stored.len();
        self.stored.retain(|kept| kept.name != *name);
        before - self.stored.len()
    }

    /// Closes descriptors whose other end has hung up or that are in error, unless they were stored with `FDPOLL=0`;
    /// answers their names. To be called before they are passed on.
    pub fn drop_dead(&mut self) -> Vec<FdName> {
        let (dead, alive) =
            std::mem::take(&mut self.stored).into_iter().partition(|kept| kept.poll && is_dead(&kept.fd));
        self.stored = alive;
        let dead: Vec<Stored> = dead;
        dead.into_iter().map(|kept| kept.name).collect()
    }

    /// What is kept, in the order in which it came.
    pub fn list(&self) -> impl Iterator<Item = (&FdName, BorrowedFd<'_>)> {
        self.stored.iter().map(|kept| (&kept.name, kept.fd.as_fd()))
    }

    /// How many are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.stored.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.stored.is_empty()
    }
}

/// Where the kernel does not compare open files, one file opened twice counts as the same; a socket or pipe never is
/// opened twice.
fn is_same(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> bool {
    is_same_open_file(one, other).unwrap_or_else(|| match (fstat(one), fstat(other)) {
        (Ok(one), Ok(other)) => (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino),
        (Ok(_) | Err(_), _) => false,
    })
}

fn is_dead(fd: &OwnedFd) -> bool {
    let mut watched = [PollFd::new(fd, PollFlags::empty())];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut watched, Some(&at_once)).is_ok() && watched[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    fn name(text: &str) -> FdName {
        FdName::new(text).unwrap()
    }

    fn pair() -> (OwnedFd, UnixStream) {
        let (one, other) = UnixStream::pair().unwrap();
        (one.into(), other)
    }

    fn names(store: &FdStore) -> Vec<&str> {
        store.list().map(|(name, _)| name.as_str()).collect()
    }

    #[test]
    fn names_are_systemds() {
        for bad in ["", "a:b", "a\nb", "ä", &"x".repeat(256)] {
            assert_eq!(FdName::new(bad), None, "{bad:?}");
        }
        assert_eq!(name(&"x".repeat(255)).as_str().len(), 255);
        assert_eq!(FdName::default().as_str(), "stored");
    }

    #[test]
    fn the_same_open_file_is_kept_once_and_one_name_may_have_several() {
        let mut store = FdStore::default();
        let ((one, _a), (two, _b)) = (pair(), pair());
        let copy = one.try_clone().unwrap();
        assert_eq!(store.add(name("x"), one, true), Admission::Accepted);
        assert_eq!(store.add(name("y"), copy, true), Admission::AlreadySo);
        assert_eq!(store.add(name("x"), two, true), Admission::Accepted);
        assert_eq!(names(&store), ["x", "x"]);
        assert_eq!(store.remove(&name("y")), 0);
        assert_eq!(store.remove(&name("x")), 2);
        assert!(store.is_empty());
    }

    #[test]
    fn a_full_store_refuses_and_keeps_what_it_has() {
        let mut store = FdStore::default();
        for _ in 0..FD_STORE_MAX {
            assert_eq!(store.add(name("x"), tempfile::tempfile().unwrap().into(), false), Admission::Accepted);
        }
        assert_eq!(store.add(name("y"), tempfile::tempfile().unwrap().into(), false), Admission::Full);
        assert_eq!(store.len(), FD_STORE_MAX);
    }

    #[test]
    fn a_connection_whose_other_end_is_gone_is_dropped_unless_it_asked_not_to_be_looked_at() {
        let mut store = FdStore::default();
        let ((dead, dead_end), (kept, kept_end), (alive, _alive_end)) = (pair(), pair(), pair());
        store.add(name("dead"), dead, true);
        store.add(name("kept"), kept, false);
        store.add(name("alive"), alive, true);
        drop((dead_end, kept_end));
        assert_eq!(store.drop_dead(), [name("dead")]);
        assert_eq!(names(&store), ["kept", "alive"]);
    }
}
