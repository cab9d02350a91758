//! Questions to the kernel's socket tables (`NETLINK_SOCK_DIAG`).
//!
//! Owns the netlink socket, the requests and the parsing of answers; one [`SockDiag`] serves any number of questions.
//! Does not know processes: an answer names a socket by its inode, `procfs.rs` says who holds it.
//!
//! Each question is answered before the call returns; the kernel walks its tables in the meantime (about 1 µs a
//! socket). What can go wrong: a kernel without `inet_diag` or `unix_diag` (`ENOENT`), or an answer longer than a
//! message may be, which is an error and never a short list.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::libc;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSG_HEADER: usize = 16;

const INET_DIAG_REQ_BYTECODE: u16 = 1;
const INET_DIAG_INFO: u16 = 2;
const INET_DIAG_MSG: usize = 72;
const BYTECODE_JMP: u8 = 1;
const BYTECODE_SOURCE_GE: u8 = 2;
const BYTECODE_SOURCE_LE: u8 = 3;

const UNIX_DIAG_MSG: usize = 16;
const UNIX_DIAG_NAME: u16 = 0;
const UNIX_DIAG_VFS: u16 = 1;
const UNIX_DIAG_PEER: u16 = 2;
const UNIX_DIAG_RQLEN: u16 = 4;
const UNIX_DIAG_SHUTDOWN: u16 = 6;
const UNIX_SHOW: u32 = 0x01 | 0x02 | 0x04 | 0x10;

/// Kernel answers come in messages of at most 32 KiB.
const BUFFER: usize = 64 * 1024;

/// State of a socket in the kernel's numbering, which Unix sockets share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TcpState(u8);

impl TcpState {
    pub(super) const ESTABLISHED: Self = Self(1);
    pub(super) const FIN_WAIT_1: Self = Self(4);
    pub(super) const FIN_WAIT_2: Self = Self(5);
    pub(super) const CLOSE: Self = Self(7);
    pub(super) const CLOSE_WAIT: Self = Self(8);
    pub(super) const LAST_ACK: Self = Self(9);
    pub(super) const LISTEN: Self = Self(10);
    pub(super) const CLOSING: Self = Self(11);

    /// The states as the bit mask that a request carries.
    pub(super) fn mask(states: &[Self]) -> u32 {
        states.iter().fold(0, |mask, state| mask | 1 << state.0)
    }
}

/// The two address families that TCP sockets have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    const fn number(self) -> u8 {
        match self {
            Self::V4 => libc::AF_INET as u8,
            Self::V6 => libc::AF_INET6 as u8,
        }
    }
}

/// One TCP socket as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct InetSocket {
    pub(super) state: TcpState,
    /// Our end. A mapped IPv4 address is given as IPv4.
    pub(super) local: SocketAddr,
    /// The other end; unspecified for a listener.
    pub(super) remote: SocketAddr,
    /// Bytes the owner has not read, or for a listener connections it has not accepted.
    pub(super) receive_queue: u32,
    /// Bytes not sent or not acknowledged, or for a listener its backlog.
    pub(super) send_queue: u32,
    /// 0 while nobody has accepted it, and when everybody has closed it.
    pub(super) inode: u64,
    /// What went over it, where asked for.
    pub(super) flow: Option<Flow>,
}

/// The figures of `struct tcp_info` that we read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flow {
    pub(super) last_data_sent_ms: u32,
    pub(super) last_data_received_ms: u32,
    pub(super) bytes_received: u64,
    /// 0 before Linux 4.19.
    pub(super) bytes_sent: u64,
}

impl Flow {
    fn read(info: &[u8]) -> Option<Self> {
        Some(Self {
            last_data_sent_ms: u32_at(info, 44)?,
            last_data_received_ms: u32_at(info, 52)?,
            bytes_received: u64_at(info, 128)?,
            bytes_sent: u64_at(info, 200).unwrap_or(0),
        })
    }
}

/// One Unix socket as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct UnixSocket {
    pub(super) inode: u64,
    pub(super) state: TcpState,
    pub(super) kind: UnixKind,
    /// Name it, or the listener it came from, was bound to; abstract names start with `@`.
    pub(super) name: Option<String>,
    /// Inode and device of the file it is bound to.
    pub(super) file: Option<(u32, u32)>,
    /// Inode of the other end; 0 while that has not been accepted, and when it was closed.
    pub(super) peer: Option<u64>,
    /// Neither end can send any more, as when the other was closed.
    pub(super) shut: bool,
    /// Bytes unread, or for a listener connections not accepted.
    pub(super) receive_queue: u32,
    /// Bytes the other end has not read, or for a listener its backlog.
    pub(super) send_queue: u32,
}

/// What a Unix socket carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UnixKind {
    Stream,
    Datagram,
    SeqPacket,
}

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
        let mut request = inet_request(family, mask, with_info);
        if !ports.is_empty() {
            push_attribute(&mut request, INET_DIAG_REQ_BYTECODE, &port_filter(ports));
        }
        let mut found = Vec::new();
        self.ask(NLM_F_DUMP, &request, |message| found.extend(inet_socket(message)))?;
        Ok(found)
    }

    /// The one TCP socket whose own end is `local` and whose other end is `remote`; a listener where there is no
    /// connection, none when there is no listener either.
    pub(super) fn inet_exact(&mut self, local: SocketAddr, remote: SocketAddr) -> io::Result<Option<InetSocket>> {
        let family = if local.is_ipv4() { Family::V4 } else { Family::V6 };
        let mut request = inet_request(family, u32::MAX, false);
        let mut id = Vec::with_capacity(48);
        id.extend(local.port().to_be_bytes());
        id.extend(remote.port().to_be_bytes());
        id.extend(address_bytes(local.ip()));
        id.extend(address_bytes(remote.ip()));
        let scope = if let SocketAddr::V6(v6) = remote { v6.scope_id() } else { 0 };
        id.extend(scope.to_ne_bytes());
        id.extend([0xff; 8]);
        request.truncate(8);
        request.extend(id);
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
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => return error_of(body),
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

fn malformed(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("an answer of sock_diag {what}"))
}

fn error_of(body: &[u8]) -> io::Result<()> {
    match u32_at(body, 0) {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(0_i32.wrapping_sub(code.cast_signed()))),
        None => Err(malformed("carries no error code")),
    }
}

type Message<'a> = (u16, u32, &'a [u8]);

/// The messages of one datagram: type, sequence number and body.
fn messages(datagram: &[u8]) -> impl Iterator<Item = io::Result<Message<'_>>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let whole = rest;
        rest = &[];
        let parsed = u32_at(whole, 0).zip(u16_at(whole, 4)).zip(u32_at(whole, 8)).and_then(|((length, kind), seq)| {
            let length = length as usize;
            let body = whole.get(NLMSG_HEADER..length)?;
            rest = whole.get(length.next_multiple_of(4)..).unwrap_or(&[]);
            Some((kind, seq, body))
        });
        Some(parsed.ok_or_else(|| malformed("has a length that does not fit")))
    })
}

/// The attributes behind an answer's fixed part; stops at the first whose length does not fit.
fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(rest, 0)?);
        let kind = u16_at(rest, 2)?;
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind, value))
    })
}

fn push_attribute(request: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).expect("a filter for the ports of one app is short");
    request.extend(length.to_ne_bytes());
    request.extend(kind.to_ne_bytes());
    request.extend(value);
    request.resize(request.len().next_multiple_of(4), 0);
}

/// `struct inet_diag_req_v2` with an empty socket id.
fn inet_request(family: Family, mask: u32, with_info: bool) -> Vec<u8> {
    let extensions = if with_info { 1 << (INET_DIAG_INFO - 1) } else { 0 };
    let mut request = vec![family.number(), libc::IPPROTO_TCP as u8, extensions, 0];
    request.extend(mask.to_ne_bytes());
    request.extend([0; 48]);
    request
}

/// `struct unix_diag_req`.
fn unix_request(mask: u32, inode: u32) -> Vec<u8> {
    let mut request = vec![libc::AF_UNIX as u8, 0, 0, 0];
    request.extend(mask.to_ne_bytes());
    request.extend(inode.to_ne_bytes());
    request.extend(UNIX_SHOW.to_ne_bytes());
    request.extend([0xff; 8]);
    request
}

/// Byte code that accepts a socket whose own port is one of `ports`: for each, `port >= p`, `port <= p` and a jump to
/// the end; a test that fails goes to the next port, the last one's past the end, which means no.
fn port_filter(ports: &[u16]) -> Vec<u8> {
    const TEST: u16 = 8;
    const JUMP: u16 = 4;
    let mut code = Vec::new();
    for (index, port) in ports.iter().enumerate() {
        let left = u16::try_from(ports.len() - index - 1).expect("an app has few ports");
        for (test, no) in [(BYTECODE_SOURCE_GE, 2 * TEST + JUMP), (BYTECODE_SOURCE_LE, TEST + JUMP)] {
            code.extend([test, TEST as u8]);
            code.extend(no.to_ne_bytes());
            code.extend([0, 0]);
            code.extend(port.to_ne_bytes());
        }
        if left > 0 {
            code.extend([BYTECODE_JMP, JUMP as u8]);
            code.extend((left * (2 * TEST + JUMP)).to_ne_bytes());
        }
    }
    code
}

fn inet_socket(body: &[u8]) -> Option<InetSocket> {
    let v4 = *body.first()? == Family::V4.number();
    let receive_queue = u32_at(body, 56)?;
    Some(InetSocket {
        state: TcpState(*body.get(1)?),
        local: address_at(body, v4, 8, 4, u32_at(body, 40)?)?,
        remote: address_at(body, v4, 24, 6, u32_at(body, 40)?)?,
        receive_queue,
        send_queue: u32_at(body, 60)?,
        inode: u64::from(u32_at(body, 68)?),
        flow: attributes(body.get(INET_DIAG_MSG..)?)
            .find(|(kind, _)| *kind == INET_DIAG_INFO)
            .and_then(|(_, info)| Flow::read(info)),
    })
}

fn unix_socket(body: &[u8]) -> Option<UnixSocket> {
    let kind = match i32::from(*body.get(1)?) {
        libc::SOCK_DGRAM => UnixKind::Datagram,
        libc::SOCK_SEQPACKET => UnixKind::SeqPacket,
        _ => UnixKind::Stream,
    };
    let mut found = UnixSocket {
        inode: u64::from(u32_at(body, 4)?),
        state: TcpState(*body.get(2)?),
        kind,
        name: None,
        file: None,
        peer: None,
        shut: false,
        receive_queue: 0,
        send_queue: 0,
    };
    for (kind, value) in attributes(body.get(UNIX_DIAG_MSG..)?) {
        match kind {
            UNIX_DIAG_NAME => found.name = Some(name_of(value)),
            UNIX_DIAG_VFS => found.file = u32_at(value, 0).zip(u32_at(value, 4)),
            UNIX_DIAG_PEER => found.peer = u32_at(value, 0).map(u64::from),
            UNIX_DIAG_SHUTDOWN => found.shut = value == [3],
            UNIX_DIAG_RQLEN => {
                found.receive_queue = u32_at(value, 0).unwrap_or(0);
                found.send_queue = u32_at(value, 4).unwrap_or(0);
            }
            _ => {}
        }
    }
    Some(found)
}

fn name_of(sun_path: &[u8]) -> String {
    match sun_path {
        [0, name @ ..] => format!("@{}", String::from_utf8_lossy(name)),
        path => {
            let end = path.iter().position(|byte| *byte == 0).unwrap_or(path.len());
            String::from_utf8_lossy(&path[..end]).into_owned()
        }
    }
}

fn address_bytes(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&ip.octets());
            bytes
        }
        IpAddr::V6(ip) => ip.octets(),
    }
}

fn address_at(body: &[u8], v4: bool, ip_at: usize, port_at: usize, interface: u32) -> Option<SocketAddr> {
    let port = u16::from_be_bytes(body.get(port_at..port_at + 2)?.try_into().ok()?);
    if v4 {
        let octets: [u8; 4] = body.get(ip_at..ip_at + 4)?.try_into().ok()?;
        return Some(SocketAddr::from((Ipv4Addr::from(octets), port)));
    }
    let octets: [u8; 16] = body.get(ip_at..ip_at + 16)?.try_into().ok()?;
    let ip = Ipv6Addr::from(octets);
    let scope = if ip.is_unicast_link_local() { interface } else { 0 };
    Some(super::addr::unmapped(SocketAddr::V6(SocketAddrV6::new(ip, port, 0, scope))))
}

/// The `u16` at byte `at`, in the machine's order.
fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// The `u32` at byte `at`, in the machine's order.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// The `u64` at byte `at`, in the machine's order.
fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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

    proptest! {
        #[test]
        fn no_answer_however_broken_is_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            for message in messages(&bytes).take(100).flatten() {
                let _ = error_of(message.2);
            }
            let _ = inet_socket(&bytes);
            let _ = unix_socket(&bytes);
            prop_assert!(attributes(&bytes).count() <= bytes.len() / 4);
        }
    }
}
