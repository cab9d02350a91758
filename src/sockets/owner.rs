//! Who holds an address that we cannot have.
//!
//! Owns nothing; looks into the kernel's socket tables for the inode and into `/proc` for its holder. Both change
//! while we look, so the answer is for a person to read, not for a decision.

use std::collections::HashSet;
use std::fmt;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;

use agentd_core::id::Pid;
use camino::Utf8Path;

use super::addr::ListenAddr;
use super::diag::{Family, InetSocket, SockDiag, TcpState};
use super::procfs;

/// A process that holds an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortHolder {
    /// Its process id.
    pub pid: Pid,
    /// Its name, at most 15 bytes.
    pub comm: String,
    /// Its command line, arguments separated by blanks; empty for a process that hides it.
    pub cmdline: String,
}

/// Who holds an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// This process does, perhaps among others.
    Process(PortHolder),
    /// A socket is bound there, and no process we can look into holds it; or it went away while we looked.
    Unknown,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process(PortHolder { pid, comm, cmdline }) if cmdline.is_empty() => write!(f, "{comm} (pid {pid})"),
            Self::Process(PortHolder { pid, comm, cmdline }) => write!(f, "{comm} (pid {pid}: {cmdline})"),
            Self::Unknown => f.write_str("an unknown process (not visible to this user)"),
        }
    }
}

/// Who holds `addr`, or as much of it that we cannot bind it.
///
/// # Errors
/// When the kernel does not answer; a holder that cannot be named is [`Holder::Unknown`].
pub fn holder_of(addr: &ListenAddr) -> io::Result<Holder> {
    let mut diag = SockDiag::open()?;
    let inodes = match addr {
        ListenAddr::Tcp(addr) => tcp_inodes(&mut diag, *addr)?,
        ListenAddr::Unix(path) | ListenAddr::UnixDatagram(path) => unix_inodes(&mut diag, path)?,
    };
    Ok(named(&inodes))
}

/// Who else listens at exactly `addr`, beside the sockets in `own`; none when nobody does.
pub(super) fn sharer_of(addr: SocketAddr, own: impl Iterator<Item = u64>) -> io::Result<Option<Holder>> {
    let family = if addr.is_ipv4() { Family::V4 } else { Family::V6 };
    let sockets = SockDiag::open()?.inet(family, TcpState::mask(&[TcpState::LISTEN]), &[addr.port()], false)?;
    let mut inodes: HashSet<u64> = sockets.iter().filter(|s| s.local.ip() == addr.ip()).map(|s| s.inode).collect();
    for inode in own {
        inodes.remove(&inode);
    }
    Ok((!inodes.is_empty()).then(|| named(&inodes)))
}

fn named(inodes: &HashSet<u64>) -> Holder {
    procfs::process_with(inodes).map_or(Holder::Unknown, |pid| Holder::Process(describe(pid)))
}

/// The sockets in the way at `addr`: listeners if there are any, else whatever uses the port.
fn tcp_inodes(diag: &mut SockDiag, addr: SocketAddr) -> io::Result<HashSet<u64>> {
    let mut sockets = diag.inet(Family::V4, u32::MAX, &[addr.port()], false)?;
    sockets.extend(diag.inet(Family::V6, u32::MAX, &[addr.port()], false)?);
    sockets.retain(|socket| socket.inode != 0 && overlap(socket.local.ip(), addr.ip()));
    let of = |listeners_only: bool| -> HashSet<u64> {
        let wanted = |socket: &&InetSocket| !listeners_only || socket.state == TcpState::LISTEN;
        sockets.iter().filter(wanted).map(|socket| socket.inode).collect()
    };
    let listeners = of(true);
    Ok(if listeners.is_empty() { of(false) } else { listeners })
}

/// Whether two local addresses can be in each other's way. `[::]` may or may not take IPv4; here it does.
fn overlap(one: IpAddr, other: IpAddr) -> bool {
    let takes = |wide: IpAddr, narrow: IpAddr| {
        wide == IpAddr::V6(Ipv6Addr::UNSPECIFIED) || (wide == IpAddr::V4(Ipv4Addr::UNSPECIFIED) && narrow.is_ipv4())
    };
    one == other || takes(one, other) || takes(other, one)
}

/// The sockets bound to the file at `path`, whatever name they were bound under.
fn unix_inodes(diag: &mut SockDiag, path: &Utf8Path) -> io::Result<HashSet<u64>> {
    let file = fs::metadata(path)?;
    // The kernel gives the low 32 bits of the inode.
    let low = file.ino() as u32;
    let bound = diag.unix(TcpState::mask(&[TcpState::LISTEN, TcpState::CLOSE]))?;
    Ok(bound.iter().filter(|socket| socket.file.is_some_and(|(inode, _)| inode == low)).map(|s| s.inode).collect())
}

fn describe(pid: Pid) -> PortHolder {
    let read = |name: &str| fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
    let comm = String::from_utf8_lossy(&read("comm")).trim_end().to_owned();
    let cmdline = read("cmdline");
    let words: Vec<_> = cmdline.split(|b| *b == 0).filter(|w| !w.is_empty()).map(String::from_utf8_lossy).collect();
    PortHolder { pid, comm, cmdline: words.join(" ") }
}
