//! All listening sockets of one app.
//!
//! Owns them from before the first worker starts until the app is deleted. Workers come and go on lanes; a lane is
//! the same number under every name. Knows nothing of workers: the caller says which lane has which weight.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use socket2::Socket;

use super::addr::ListenAddr;
use super::diag::SockDiag;
use super::error::{BindError, StartProbeError, WeightError};
use super::shares::Pick;
use super::steer::{ProbeConnection, ProbeId};
use super::tcp::TcpGroup;
use super::unix::{Kind, UnixGroup};

/// The listening sockets of one app, by the names its configuration gives them.
///
/// Dropping it closes them and removes the files of its Unix sockets.
#[derive(Debug)]
pub struct Listeners {
    groups: BTreeMap<String, Group>,
    lanes: usize,
    pick: Pick,
    next_probe: u64,
}

#[derive(Debug)]
enum Group {
    Tcp(TcpGroup),
    Unix(UnixGroup),
}

impl Listeners {
    /// Takes all addresses or none, with `lanes` lanes each. Everything goes to lane 0 until weights are set.
    ///
    /// # Errors
    /// The first address that cannot be had, and why; for one in use, who holds it.
    pub fn bind(addrs: &BTreeMap<String, ListenAddr>, lanes: u32, pick: Pick) -> Result<Self, BindError> {
        let mut nothing = Self { groups: BTreeMap::new(), lanes: 0, pick, next_probe: 0 };
        Self::bind_reusing(addrs, lanes, pick, &mut nothing)
    }

    /// Takes over the sockets of one address, under `name`, that an earlier supervisor made: one for each lane, in the
    /// order of lanes, and [`order`](Self::order) as it was there, where it was not that of the lanes. Weights and queues are as they were left; nothing changes before the first
    /// [`set_weights`](Self::set_weights). A lane whose socket is gone is made anew, behind the others.
    ///
    /// # Errors
    /// They are not what `addr` says, or there is none.
    pub fn adopt(
        name: &str,
        addr: &ListenAddr,
        sockets: Vec<Option<OwnedFd>>,
        order: &[u32],
        pick: Pick,
    ) -> Result<Self, BindError> {
        let lanes = sockets.len();
        if sockets.iter().flatten().next().is_none() {
            return Err(BindError::NoLanes);
        }
        let sockets = sockets.into_iter().map(|socket| socket.map(Socket::from)).collect();
        let group = match addr {
            ListenAddr::Tcp(addr) => Group::Tcp(TcpGroup::adopt(*addr, sockets, order, pick)?),
            ListenAddr::Unix(path) => Group::Unix(UnixGroup::adopt(path, Kind::Stream, sockets)?),
            ListenAddr::UnixDatagram(path) => Group::Unix(UnixGroup::adopt(path, Kind::Datagram, sockets)?),
        };
        Ok(Self { groups: BTreeMap::from([(name.to_owned(), group)]), lanes, pick, next_probe: 0 })
    }

    /// In which order the kernel knows the sockets of an address, by their lanes; none where that is the order of lanes.
    /// It changes when a socket leaves the group: the last takes its place, and it comes back as the last.
    #[must_use]
    pub fn order(&self, name: &str) -> Option<Vec<u32>> {
        match self.groups.get(name)? {
            Group::Tcp(group) => Some(group.order().collect::<Vec<u32>>()).filter(|order| !order.is_sorted()),
            // Told apart by their names.
            Group::Unix(_) => None,
        }
    }

    /// As [`bind`](Self::bind), where addresses that `old` has keep their sockets, with what is queued on them, their
    /// weights and their probes, under whatever name; new ones give everything to lane 0 until weights are set. What `old`
    /// still has afterwards is no longer wanted.
    ///
    /// # Errors
    /// Those of [`bind`](Self::bind); `old` then has all it had, perhaps with more lanes and the new `pick`.
    pub fn bind_reusing(
        addrs: &BTreeMap<String, ListenAddr>,
        lanes: u32,
        pick: Pick,
        old: &mut Self,
    ) -> Result<Self, BindError> {
        let lanes = (lanes as usize).max(old.lanes);
        if lanes == 0 {
            return Err(BindError::NoLanes);
        }
        refuse_doubles(addrs)?;
        let mut groups = BTreeMap::new();
        let mut kept = Vec::new();
        for (name, addr) in addrs {
            let free = |old_name: &&String| !kept.iter().any(|(_, taken)| taken == *old_name);
            match old.name_of(name, addr, free) {
                Some(old_name) => kept.push((name, old_name)),
                None => {
                    let mut group = Group::bind(addr, pick)?;
                    group.ensure_lanes(lanes)?;
                    groups.insert(name.clone(), group);
                }
            }
        }
        for (_, old_name) in &kept {
            let group = old.groups.get_mut(old_name).expect("the name was found a moment ago");
            group.ensure_lanes(lanes)?;
            group.set_pick(pick)?;
        }
        for (name, old_name) in kept {
            let group = old.groups.remove(&old_name).expect("the name was found a moment ago");
            groups.insert(name.clone(), group);
        }
        Ok(Self { groups, lanes, pick, next_probe: old.next_probe })
    }

    /// Makes lanes at the end until there are `lanes` of them, all of weight 0. Never takes one away.
    ///
    /// # Errors
    /// As for [`bind`](Self::bind); addresses in name order before the one named have the new lanes already, which
    /// does no harm, and calling again goes on.
    pub fn ensure_lanes(&mut self, lanes: u32) -> Result<(), BindError> {
        for group in self.groups.values_mut() {
            group.ensure_lanes(lanes as usize)?;
        }
        self.lanes = self.lanes.max(lanes as usize);
        Ok(())
    }

    /// How many lanes there are.
    #[must_use]
    pub fn lanes(&self) -> u32 {
        u32::try_from(self.lanes).expect("lanes are asked for as u32")
    }

    /// The sockets that a worker on this lane is given, by name; none for a lane that does not exist.
    #[must_use]
    pub fn lane(&self, lane: u32) -> Vec<(&str, BorrowedFd<'_>)> {
        self.groups.iter().filter_map(|(name, group)| Some((name.as_str(), group.lane(lane as usize)?))).collect()
    }

    /// Where new connections go from now on, per lane; lanes beyond the list get weight 0, and a weight of 0 may be a lane's
    /// that is not there. Established connections and queued ones stay where they are. A Unix socket has one receiver: the
    /// heaviest lane, the first of equals.
    ///
    /// # Errors
    /// Weights that cannot be, before anything is changed; or a refusal of the kernel at one address.
    pub fn set_weights(&mut self, weights: &[u32]) -> Result<(), WeightError> {
        super::shares::check(weights, self.lanes, self.pick)?;
        for group in self.groups.values_mut() {
            match group {
                Group::Tcp(tcp) => {
                    let addr = ListenAddr::Tcp(tcp.local());
                    tcp.set_weights(weights).map_err(|source| WeightError::Program { addr, source })?;
                }
                Group::Unix(unix) => {
                    let lane = UnixGroup::heaviest(weights).ok_or(WeightError::NoneLive)?;
                    unix.publish(lane).map_err(|source| WeightError::Publish {
                        addr: unix.addr().clone(),
                        lane,
                        source,
                    })?;
                }
            }
        }
        Ok(())
    }

    /// Gives the lane's sockets our backlog again, which runtimes change on the socket that we share with them; one
    /// that a worker shut down listens again, and a Unix name that a worker removed is put back. To be called when a
    /// worker is ready and when one has ended.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn reassert_listen(&mut self, lane: u32) -> io::Result<()> {
        for group in self.groups.values_mut() {
            match group {
                Group::Tcp(tcp) => tcp.reassert_listen(lane as usize)?,
                Group::Unix(unix) => unix.reassert_listen(lane as usize)?,
            }
        }
        Ok(())
    }

    /// How many connections wait in the lane's accept queues, all names together. A datagram socket that has
    /// anything to be received adds its bytes: only "none" means the same everywhere.
    ///
    /// # Errors
    /// A lane that does not exist, or what the kernel refused.
    pub fn queued(&self, lane: u32) -> io::Result<u32> {
        let mut diag = None;
        let mut queued = 0_u32;
        for group in self.groups.values() {
            queued = queued.saturating_add(match group {
                Group::Tcp(tcp) => tcp.queued(lane as usize)?,
                Group::Unix(unix) => {
                    let open = match diag.take() {
                        Some(open) => open,
                        None => SockDiag::open()?,
                    };
                    unix.queued(lane as usize, diag.insert(open))?
                }
            });
        }
        Ok(queued)
    }

    /// Where the app listens under this name, with the port that the kernel chose where 0 was asked for.
    #[must_use]
    pub fn local_addr(&self, name: &str) -> Option<ListenAddr> {
        self.groups.get(name).map(Group::local_addr)
    }

    /// The own addresses that connections to this app carry: for TCP where it listens, for Unix the names its lanes
    /// are bound to. What [`SockDiag::connections`] is asked with.
    #[must_use]
    pub fn accepting_addrs(&self) -> Vec<ListenAddr> {
        let mut addrs = Vec::new();
        for group in self.groups.values() {
            match group {
                Group::Tcp(tcp) => addrs.push(ListenAddr::Tcp(tcp.local())),
                Group::Unix(unix) => {
                    addrs.extend(unix.bound_names().map(|name| ListenAddr::Unix(name.to_owned())));
                }
            }
        }
        addrs
    }

    /// The inodes of all listening sockets.
    #[must_use]
    pub fn inodes(&self) -> Vec<u64> {
        self.groups.values().flat_map(Group::inodes).collect()
    }

    /// Starts a connection that reaches this lane whatever its weight, under the address of this name.
    ///
    /// # Errors
    /// See [`StartProbeError`]; nothing is left behind.
    pub fn start_probe(&mut self, name: &str, lane: u32) -> Result<ProbeConnection, StartProbeError> {
        let app_sockets = self.inodes();
        let Some(group) = self.groups.get_mut(name) else {
            return Err(StartProbeError::NoSuchName(name.to_owned()));
        };
        if lane as usize >= self.lanes {
            return Err(StartProbeError::NoSuchLane { lane, lanes: self.lanes });
        }
        let id = ProbeId(self.next_probe);
        self.next_probe += 1;
        let started = match group {
            Group::Tcp(tcp) => tcp.start_probe(id, lane),
            Group::Unix(unix) => unix.start_probe(id, lane),
        };
        started.map(|connection| ProbeConnection { app_sockets, ..connection })
    }

    /// Ends a probe. Its TCP connection stays open until both this was called and the probe's own end was dropped, so
    /// that no other client gets its port, and with it its lane. To be called whatever became of the probe; calling
    /// again does nothing.
    pub fn finish_probe(&mut self, id: ProbeId) {
        for group in self.groups.values_mut() {
            match group {
                Group::Tcp(tcp) => tcp.finish_probe(id),
                Group::Unix(_) => {}
            }
        }
    }

    /// The name that has `addr` here: `name` itself if it can be, else the first of those that are `free`.
    fn name_of(&self, name: &String, addr: &ListenAddr, free: impl Fn(&&String) -> bool) -> Option<String> {
        if free(&name) && self.groups.get(name).is_some_and(|group| group.is_at(addr)) {
            return Some(name.clone());
        }
        self.groups.iter().find(|(name, group)| free(name) && group.is_at(addr)).map(|(name, _)| name.clone())
    }
}

impl Group {
    fn bind(addr: &ListenAddr, pick: Pick) -> Result<Self, BindError> {
        match addr {
            ListenAddr::Tcp(addr) => TcpGroup::bind(*addr, pick).map(Self::Tcp),
            ListenAddr::Unix(path) => UnixGroup::bind(path, Kind::Stream).map(Self::Unix),
            ListenAddr::UnixDatagram(path) => UnixGroup::bind(path, Kind::Datagram).map(Self::Unix),
        }
    }

    fn ensure_lanes(&mut self, lanes: usize) -> Result<(), BindError> {
        match self {
            Self::Tcp(tcp) => tcp.ensure_lanes(lanes),
            Self::Unix(unix) => unix.ensure_lanes(lanes),
        }
    }

    fn lane(&self, lane: usize) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Tcp(tcp) => tcp.lane(lane),
            Self::Unix(unix) => unix.lane(lane),
        }
    }

    fn local_addr(&self) -> ListenAddr {
        match self {
            Self::Tcp(tcp) => ListenAddr::Tcp(tcp.local()),
            Self::Unix(unix) => unix.addr().clone(),
        }
    }

    fn inodes(&self) -> Vec<u64> {
        match self {
            Self::Tcp(tcp) => tcp.inodes().collect(),
            Self::Unix(unix) => unix.inodes().collect(),
        }
    }

    fn set_pick(&mut self, pick: Pick) -> Result<(), BindError> {
        match self {
            Self::Tcp(tcp) => {
                let addr = ListenAddr::Tcp(tcp.local());
                tcp.set_pick(pick).map_err(|source| BindError::Program { addr, source })
            }
            Self::Unix(_) => Ok(()),
        }
    }

    /// Whether this group is what a configuration with `addr` would make.
    fn is_at(&self, addr: &ListenAddr) -> bool {
        match self {
            Self::Tcp(tcp) => *addr == ListenAddr::Tcp(tcp.requested()),
            Self::Unix(unix) => addr == unix.addr(),
        }
    }
}

fn refuse_doubles(addrs: &BTreeMap<String, ListenAddr>) -> Result<(), BindError> {
    let mut seen: BTreeMap<&ListenAddr, &str> = BTreeMap::new();
    for (name, addr) in addrs {
        if addr.socket_addr().is_some_and(|addr| addr.port() == 0) {
            continue;
        }
        if let Some(first) = seen.insert(addr, name) {
            return Err(BindError::Twice { addr: addr.clone(), first: first.to_owned(), second: name.clone() });
        }
    }
    Ok(())
}
