//! What can fail when listening sockets are made, weighted or probed.

use std::io;

use camino::Utf8PathBuf;
use thiserror::Error;

use super::addr::ListenAddr;
use super::owner::Holder;

/// Why an app's addresses could not be taken. Those taken before are given back.
#[derive(Debug, Error)]
pub enum BindError {
    /// No lane was asked for.
    #[error("listen on no lane at all: an app that listens has at least one")]
    NoLanes,
    /// Two names of one app with one address.
    #[error("listen on {addr} twice, as {first:?} and as {second:?}")]
    Twice {
        /// The address.
        addr: ListenAddr,
        /// The name that comes first in order.
        first: String,
        /// The other name.
        second: String,
    },
    /// The kernel gives out no more sockets, or not of this kind (IPv6 may be off).
    #[error("make a socket for {addr}")]
    Socket {
        /// Where it was to listen.
        addr: ListenAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel refuses a socket option.
    #[error("set {option} on the socket for {addr}")]
    Option {
        /// Where it was to listen.
        addr: ListenAddr,
        /// The option.
        option: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// Somebody else has the address.
    #[error("listen on {addr}, which is held by {holder}")]
    InUse {
        /// The address.
        addr: ListenAddr,
        /// Who has it.
        holder: Holder,
    },
    /// A process of the same user has joined the port with a socket of its own, so that the kernel's numbering of a
    /// new lane would be a guess.
    #[error("add lanes to {addr}, which {holder} listens on as well")]
    Shared {
        /// The address.
        addr: ListenAddr,
        /// Who joined it.
        holder: Holder,
    },
    /// The kernel does not say who listens.
    #[error("look for others that listen on {addr}")]
    Look {
        /// The address.
        addr: ListenAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// This user may not have the address (a port below 1024, a folder that is not writable).
    #[error("listen on {addr} as this user")]
    Denied {
        /// The address.
        addr: ListenAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// The address is not one of this machine's.
    #[error("listen on {addr}, an address this machine does not have")]
    NotLocal {
        /// The address.
        addr: ListenAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// Any other refusal of `bind(2)`.
    #[error("bind {addr}")]
    Bind {
        /// The address.
        addr: ListenAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel refuses `listen(2)`.
    #[error("listen on {addr}")]
    Listen {
        /// The address.
        addr: ListenAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel refuses the program that picks lanes.
    #[error("attach the program that shares out {addr}")]
    Program {
        /// The address.
        addr: ListenAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// The path of a Unix socket is taken by something that is no socket; it is not ours to remove.
    #[error("listen on {addr}: {path} exists and is no socket")]
    NotASocket {
        /// The address.
        addr: ListenAddr,
        /// What is in the way.
        path: Utf8PathBuf,
    },
    /// The names of the lanes beside a Unix socket would be longer than the kernel takes.
    #[error("listen on {addr}: its lanes' names beside it, as {path}, have more than 107 bytes")]
    LanePathTooLong {
        /// The address.
        addr: ListenAddr,
        /// The longest of the names.
        path: Utf8PathBuf,
    },
    /// A file beside a Unix socket cannot be looked at, made, linked, renamed or removed.
    #[error("{step} {path} for {addr}")]
    File {
        /// The address.
        addr: ListenAddr,
        /// What was tried.
        step: &'static str,
        /// On which file.
        path: Utf8PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Why new weights were not taken. Addresses in name order before the one named have them already.
#[derive(Debug, Error)]
pub enum WeightError {
    /// Every lane would have weight 0, so that nobody would get the connections.
    #[error("give every lane weight 0: connections must go somewhere")]
    NoneLive,
    /// A lane that is not there would have a share.
    #[error("share out among {weights} lanes of {lanes}")]
    MoreThanLanes {
        /// Up to which lane weights were given.
        weights: usize,
        /// How many lanes there are.
        lanes: usize,
    },
    /// The weights add up to more than 2³² − 1.
    #[error("weigh lanes: the weights add up to {0}, more than 32 bits hold")]
    TooHeavy(u64),
    /// More live lanes than source addresses have buckets.
    #[error("share source addresses among {0} lanes, more than the 256 buckets there are")]
    TooManyLive(usize),
    /// The kernel refuses the program, or a socket that a worker shut down cannot listen again.
    #[error("attach the program that shares out {addr}")]
    Program {
        /// The address.
        addr: ListenAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// A Unix socket's lane cannot be put in its place.
    #[error("publish lane {lane} at {addr}")]
    Publish {
        /// The address.
        addr: ListenAddr,
        /// The lane.
        lane: usize,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Why a probe could not be started. No clause stays behind.
#[derive(Debug, Error)]
pub enum StartProbeError {
    /// The app has no address of this name.
    #[error("probe {0:?}: the app does not listen under this name")]
    NoSuchName(String),
    /// There is no such lane.
    #[error("probe lane {lane} of {lanes}")]
    NoSuchLane {
        /// The lane asked for.
        lane: u32,
        /// How many there are.
        lanes: usize,
    },
    /// Datagram sockets accept nothing that could prove anything.
    #[error("probe {0}: a datagram socket has no connections")]
    NoConnections(ListenAddr),
    /// So many probes run on this address that its program would get too long.
    #[error("probe {addr}: {running} probes are running already")]
    TooMany {
        /// The address.
        addr: ListenAddr,
        /// How many run.
        running: usize,
    },
    /// No socket of our own to probe from.
    #[error("make a socket to probe {addr} from")]
    Source {
        /// The address.
        addr: ListenAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel refuses the program with the probe's clause.
    #[error("steer a probe to lane {lane} of {addr}")]
    Program {
        /// The address.
        addr: ListenAddr,
        /// The lane.
        lane: u32,
        /// What the kernel said.
        source: io::Error,
    },
    /// The connection is refused at once; a full accept queue on a Unix socket is `WouldBlock`.
    #[error("connect to lane {lane} of {addr}")]
    Connect {
        /// The address.
        addr: ListenAddr,
        /// The lane.
        lane: u32,
        /// What the kernel said.
        source: io::Error,
    },
}
