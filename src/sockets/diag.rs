//! Questions to the kernel's socket tables (`NETLINK_SOCK_DIAG`).
//!
//! Owns the netlink socket and the exchange over it, in the words of `diag/wire.rs`; one [`SockDiag`] serves any number
//! of questions. Does not know processes: an answer names a socket by its inode, `procfs.rs` says who holds it.
//!
//! Each question is answered before the call returns; the kernel walks its tables in the meantime (about 1 µs a
//! socket). What can go wrong: a kernel without `inet_diag` or `unix_diag` (`ENOENT`), or an answer longer than a
//! message may be, which is an error and never a short list.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::libc;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

mod wire;

pub(super) use wire::{Family, Flow, InetSocket, TcpState, UnixKind, UnixSocket, u32_at};
use wire::{error_of, inet_request, inet_request_for, inet_socket, malformed, messages, unix_request, unix_socket};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSG_HEADER: usize = 16;

/// Kernel answers come in messages of at most 32 KiB.
const BUFFER: usize = 64 * 1024;

/// A netlink socket to ask through.
#[derive(Debug)]
pub struct SockDiag {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl SockDiag {
    /// Opens the netlink socket. Needs no privilege.
    ///
    /// # Errors
    /// Those of `socket(2)`.
    pub fn open() -> io::Result<Self> {
        let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkSockDiag)?;
        // The kernel answers in the call; the limit is for a kernel that does not.
        setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::seconds(2))?;
        Ok(Self { fd, sequence: 0, buffer: vec![0; BUFFER] })
    }

    /// All TCP sockets of `family` in one of the states of `mask` whose own port is in `ports`; every port when empty.
    pub(super) fn inet(
        &mut self,
        family: Family,
        mask: u32,
        ports: &[u16],
        with_info: bool,
    ) -> io::Result<Vec<InetSocket>> {
        let request = inet_request(family, mask, ports, with_info);
        let mut found = Vec::new();
        self.ask(NLM_F_DUMP, &request, |message| found.extend(inet_socket(message)))?;
        Ok(found)
    }

    /// The one TCP socket whose own end is `local` and whose other end is `remote`; a listener where there is no
    /// connection, none when there is no listener either.
    pub(super) fn inet_exact(&mut self, local: SocketAddr, remote: SocketAddr) -> io::Result<Option<InetSocket>> {
        let request = inet_request_for(local, remote);
        let mut found = None;
        match self.ask(0, &request, |message| found = inet_socket(message)) {
            Ok(()) => Ok(found),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All Unix sockets in one of the states of `mask`.
    pub(super) fn unix(&mut self, mask: u32) -> io::Result<Vec<UnixSocket>> {
        let mut found = Vec::new();
        self.ask(NLM_F_DUMP, &unix_request(mask, 0), |message| found.extend(unix_socket(message)))?;
        Ok(found)
    }

    /// The Unix socket with this inode; none when there is none.
    pub(super) fn unix_exact(&mut self, inode: u64) -> io::Result<Option<UnixSocket>> {
        // The kernel's own field has 32 bits; so have its socket inodes.
        let Ok(inode) = u32::try_from(inode) else { return Ok(None) };
        let mut found = None;
        match self.ask(0, &unix_request(u32::MAX, inode), |message| found = unix_socket(message)) {
            Ok(()) => Ok(found),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sends one request and gives each answer's body to `each` until the kernel says that there are no more.
    fn ask(&mut self, flags: u16, body: &[u8], mut each: impl FnMut(&[u8])) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut request = Vec::with_capacity(NLMSG_HEADER + body.len());
        let length = u32::try_from(NLMSG_HEADER + body.len()).expect("a request has a few kilobytes");
        request.extend(length.to_ne_bytes());
        request.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        request.extend((NLM_F_REQUEST | flags).to_ne_bytes());
        request.extend(self.sequence.to_ne_bytes());
        request.extend([0; 4]);
        request.extend(body);
        sendto(self.fd.as_raw_fd(), &request, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
        loop {
            let got = match recv(self.fd.as_raw_fd(), &mut self.buffer, MsgFlags::MSG_TRUNC) {
                Ok(got) => got,
                Err(nix::errno::Errno::EINTR) => continue,
                Err(error) => return Err(error.into()),
            };
            let Some(datagram) = self.buffer.get(..got) else { return Err(malformed("is longer than its buffer")) };
            for message in messages(datagram) {
                let (kind, sequence, body) = message?;
                // An answer to a question that failed half-way may still be in the queue.
                if sequence != self.sequence {
                    continue;
                }
                match kind {
                    // The end of a list carries an error too, where the list could not be finished.
                    NLMSG_DONE | NLMSG_ERROR => return error_of(body),
                    SOCK_DIAG_BY_FAMILY => each(body),
                    _ => {}
                }
                if flags & NLM_F_DUMP == 0 {
                    return Ok(());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_filtered_by_the_kernel() {
        let listeners = [(); 4].map(|()| std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has ports"));
        let mut ports = listeners.each_ref().map(|listener| listener.local_addr().expect("is bound").port());
        ports.sort_unstable();
        let mut diag = SockDiag::open().expect("the kernel has sock_diag");
        for asked in [&ports[..1], &ports[1..3], &ports[..]] {
            let found = diag.inet(Family::V4, TcpState::mask(&[TcpState::LISTEN]), asked, false).expect("answers");
            let mut found: Vec<u16> = found.iter().map(|socket| socket.local.port()).collect();
            found.sort_unstable();
            found.dedup();
            assert_eq!(found, asked);
        }
    }

    #[test]
    fn what_is_not_there_is_none_and_the_socket_stays_usable() {
        let mut diag = SockDiag::open().expect("the kernel has sock_diag");
        for _ in 0..3 {
            assert_eq!(diag.unix_exact(u64::from(u32::MAX)).expect("the kernel answers"), None);
            let nobody = "127.0.3.9:9".parse().expect("is an address");
            assert_eq!(diag.inet_exact(nobody, nobody).expect("the kernel answers"), None);
        }
    }
}
