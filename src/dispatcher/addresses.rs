//! The listening sockets of one app, by address.
//!
//! An address keeps its sockets, with what waits in them, for as long as any revision of the app names it; names may
//! change meanwhile. A reload that changes addresses adds the new ones before anything starts, and the old ones are given
//! back when the last revision that names them is gone.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::net::{Shutdown, shutdown};

use crate::sockets::{BindError, ListenAddr, Listeners, Pick, ProbeConnection, ProbeId, StartProbeError, WeightError};

/// What a configuration calls its addresses.
type Names = BTreeMap<String, ListenAddr>;

/// The name under which each address is kept in a set of its own.
const OWN: &str = "own";

/// All addresses of one app.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    by_address: BTreeMap<ListenAddr, Listeners>,
    lanes: u32,
}

impl Addresses {
    /// Takes the addresses that are not had yet; all or none.
    pub(super) fn add(&mut self, names: &Names, lanes: u32) -> Result<(), BindError> {
        let lanes = lanes.max(self.lanes).max(1);
        let mut new = BTreeMap::new();
        for addr in names.values().filter(|addr| !self.by_address.contains_key(addr)) {
            let one = BTreeMap::from([(OWN.to_owned(), addr.clone())]);
            new.insert(addr.clone(), Listeners::bind(&one, lanes, Pick::Random)?);
        }
        self.by_address.append(&mut new);
        self.lanes = lanes;
        Ok(())
    }

    /// Takes over an address that an earlier supervisor had, lane by lane; none for a lane whose socket is gone.
    pub(super) fn adopt(
        &mut self,
        addr: &ListenAddr,
        lanes: Vec<Option<OwnedFd>>,
        order: &[u32],
    ) -> Result<(), BindError> {
        let listeners = Listeners::adopt(OWN, addr, lanes, order, Pick::Random)?;
        self.lanes = self.lanes.max(listeners.lanes());
        self.by_address.insert(addr.clone(), listeners);
        Ok(())
    }

    /// Addresses whose sockets the kernel knows in another order than that of their lanes, with that order.
    pub(super) fn orders(&self) -> BTreeMap<String, Vec<u32>> {
        let known = self.by_address.iter();
        known.filter_map(|(addr, listeners)| Some((addr.to_string(), listeners.order(OWN)?))).collect()
    }

    /// Every socket that there is: its address, its lane, itself.
    pub(super) fn sockets(&self) -> Vec<(ListenAddr, u32, BorrowedFd<'_>)> {
        let of_address = |(addr, listeners): (&ListenAddr, &'_ Listeners)| {
            let addr = addr.clone();
            (0..listeners.lanes()).map(move |lane| (addr.clone(), lane)).collect::<Vec<_>>()
        };
        self.by_address
            .iter()
            .flat_map(of_address)
            .filter_map(|(addr, lane)| {
                let (_, fd) = self.by_address.get(&addr)?.lane(lane).into_iter().next()?;
                Some((addr, lane, fd))
            })
            .collect()
    }

    /// Gives back what is not `wanted`.
    pub(super) fn retain(&mut self, wanted: impl Fn(&ListenAddr) -> bool) {
        self.by_address.retain(|addr, listeners| {
            let kept = wanted(addr);
            if !kept {
                close(listeners);
            }
            kept
        });
    }

    /// Makes lanes up to this number, at every address.
    pub(super) fn ensure_lanes(&mut self, lanes: u32) -> Result<(), BindError> {
        for listeners in self.by_address.values_mut() {
            listeners.ensure_lanes(lanes)?;
        }
        self.lanes = self.lanes.max(lanes);
        Ok(())
    }

    /// How many lanes there are.
    pub(super) const fn lanes(&self) -> u32 {
        self.lanes
    }

    /// Every address.
    pub(super) fn all(&self) -> Vec<ListenAddr> {
        self.by_address.keys().cloned().collect()
    }

    /// What a worker on this lane gets, by the names that its configuration has for it.
    pub(super) fn lane<'a>(&'a self, names: &'a Names, lane: u32) -> Vec<(&'a str, BorrowedFd<'a>)> {
        names
            .iter()
            .filter_map(|(name, addr)| {
                let (_, fd) = self.by_address.get(addr)?.lane(lane).into_iter().next()?;
                Some((name.as_str(), fd))
            })
            .collect()
    }

    /// New connections at one address go by these weights from now on.
    pub(super) fn set_weights(&mut self, addr: &ListenAddr, weights: &[u32]) -> Result<(), WeightError> {
        self.by_address.get_mut(addr).map_or(Ok(()), |listeners| listeners.set_weights(weights))
    }

    /// The backlog again, which a runtime may have changed.
    pub(super) fn reassert_listen(&mut self, lane: u32) -> io::Result<()> {
        self.by_address.values_mut().try_for_each(|listeners| listeners.reassert_listen(lane))
    }

    /// Connections that wait in the lane's queues.
    pub(super) fn queued(&self, names: &Names, lane: u32) -> io::Result<u32> {
        let mut queued = 0_u32;
        for listeners in names.values().filter_map(|addr| self.by_address.get(addr)) {
            queued = queued.saturating_add(listeners.queued(lane)?);
        }
        Ok(queued)
    }

    /// The own addresses that connections carry which came in under these names.
    pub(super) fn accepting(&self, names: &Names) -> Vec<ListenAddr> {
        names.values().filter_map(|addr| self.by_address.get(addr)).flat_map(Listeners::accepting_addrs).collect()
    }

    /// Where an address really is.
    pub(super) fn local(&self, addr: &ListenAddr) -> Option<ListenAddr> {
        self.by_address.get(addr)?.local_addr(OWN)
    }

    /// A connection that reaches one lane at one address.
    pub(super) fn start_probe(&mut self, addr: &ListenAddr, lane: u32) -> Result<ProbeConnection, StartProbeError> {
        let all: Vec<u64> = self.by_address.values().flat_map(Listeners::inodes).collect();
        let Some(listeners) = self.by_address.get_mut(addr) else {
            return Err(StartProbeError::NoSuchName(addr.to_string()));
        };
        let mut connection = listeners.start_probe(OWN, lane)?;
        connection.app_sockets = all;
        Ok(connection)
    }

    /// Forgets a probe.
    pub(super) fn finish_probe(&mut self, addr: &ListenAddr, probe: ProbeId) {
        if let Some(listeners) = self.by_address.get_mut(addr) {
            listeners.finish_probe(probe);
        }
    }
}

/// Nobody connects any more, from this moment on: the keeper lets go of its copies only a little later.
fn close(listeners: &Listeners) {
    for lane in 0..listeners.lanes() {
        for (_, fd) in listeners.lane(lane) {
            if let Err(errno) = shutdown(fd, Shutdown::Both) {
                tracing::debug!(%errno, "a listening socket was closed already");
            }
        }
    }
}
