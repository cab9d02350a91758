//! The words of `NETLINK_SOCK_DIAG`: what requests are made of and what answers say.
//!
//! Owns the byte layouts (`linux/netlink.h`, `inet_diag.h`, `unix_diag.h`, `tcp.h`), all in the machine's byte order but
//! for ports and addresses. An answer that is shorter than it should be is passed over or an error, never a panic.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use nix::libc;

use crate::sockets::addr::unmapped;

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

/// State of a socket in the kernel's numbering, which Unix sockets share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sockets) struct TcpState(u8);

impl TcpState {
    pub(in crate::sockets) const ESTABLISHED: Self = Self(1);
    pub(in crate::sockets) const SYN_RECV: Self = Self(3);
    pub(in crate::sockets) const FIN_WAIT_1: Self = Self(4);
    pub(in crate::sockets) const FIN_WAIT_2: Self = Self(5);
    pub(in crate::sockets) const CLOSE: Self = Self(7);
    pub(in crate::sockets) const CLOSE_WAIT: Self = Self(8);
    pub(in crate::sockets) const LAST_ACK: Self = Self(9);
    pub(in crate::sockets) const LISTEN: Self = Self(10);
    pub(in crate::sockets) const CLOSING: Self = Self(11);

    /// The states as the bit mask that a request carries.
    pub(in crate::sockets) fn mask(states: &[Self]) -> u32 {
        states.iter().fold(0, |mask, state| mask | 1 << state.0)
    }
}

/// The two address families that TCP sockets have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sockets) enum Family {
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
pub(in crate::sockets) struct InetSocket {
    pub(in crate::sockets) state: TcpState,
    /// Our end. A mapped IPv4 address is given as IPv4.
    pub(in crate::sockets) local: SocketAddr,
    /// The other end; unspecified for a listener.
    pub(in crate::sockets) remote: SocketAddr,
    /// Bytes the owner has not read, or for a listener connections it has not accepted.
    pub(in crate::sockets) receive_queue: u32,
    /// Bytes not sent or not acknowledged, or for a listener its backlog.
    pub(in crate::sockets) send_queue: u32,
    /// 0 while nobody has accepted it, and when everybody has closed it.
    pub(in crate::sockets) inode: u64,
    /// What went over it, where asked for.
    pub(in crate::sockets) flow: Option<Flow>,
}

/// The figures of `struct tcp_info` that we read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sockets) struct Flow {
    pub(in crate::sockets) last_data_sent_ms: u32,
    pub(in crate::sockets) last_data_received_ms: u32,
    pub(in crate::sockets) last_ack_received_ms: u32,
    pub(in crate::sockets) bytes_received: u64,
    /// Bytes of the send queue that were never sent; 0 before Linux 4.6.
    pub(in crate::sockets) bytes_not_sent: u32,
    /// 0 before Linux 4.19.
    pub(in crate::sockets) bytes_sent: u64,
}

impl Flow {
    fn read(info: &[u8]) -> Option<Self> {
        Some(Self {
            last_data_sent_ms: u32_at(info, 44)?,
            last_data_received_ms: u32_at(info, 52)?,
            last_ack_received_ms: u32_at(info, 56)?,
            bytes_received: u64_at(info, 128)?,
            bytes_not_sent: u32_at(info, 144).unwrap_or(0),
            bytes_sent: u64_at(info, 200).unwrap_or(0),
        })
    }
}

/// One Unix socket as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::sockets) struct UnixSocket {
    pub(in crate::sockets) inode: u64,
    pub(in crate::sockets) state: TcpState,
    pub(in crate::sockets) kind: UnixKind,
    /// Name it, or the listener it came from, was bound to; abstract names start with `@`.
    pub(in crate::sockets) name: Option<String>,
    /// Inode and device of the file it is bound to.
    pub(in crate::sockets) file: Option<(u32, u32)>,
    /// Inode of the other end; 0 while that has not been accepted, and when it was closed.
    pub(in crate::sockets) peer: Option<u64>,
    /// Neither end can send any more, as when the other was closed.
    pub(in crate::sockets) shut: bool,
    /// Bytes unread, or for a listener connections not accepted.
    pub(in crate::sockets) receive_queue: u32,
    /// Bytes the other end has not read, or for a listener its backlog.
    pub(in crate::sockets) send_queue: u32,
}

/// What a Unix socket carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sockets) enum UnixKind {
    Stream,
    Datagram,
    SeqPacket,
}

pub(super) fn malformed(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("an answer of sock_diag {what}"))
}

/// What the end of an answer says; the kernel writes errors as negative numbers.
pub(super) fn error_of(body: &[u8]) -> io::Result<()> {
    match u32_at(body, 0) {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(0_i32.wrapping_sub(code.cast_signed()))),
        None => Err(malformed("carries no error code")),
    }
}

pub(super) type Message<'a> = (u16, u32, &'a [u8]);

/// The messages of one datagram: type, sequence number and body.
pub(super) fn messages(datagram: &[u8]) -> impl Iterator<Item = io::Result<Message<'_>>> {
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

/// `struct inet_diag_req_v2` for the sockets of `family` in a state of `mask` whose own port is in `ports`, or that
/// have any when there are none.
pub(super) fn inet_request(family: Family, mask: u32, ports: &[u16], with_info: bool) -> Vec<u8> {
    let extensions = if with_info { 1 << (INET_DIAG_INFO - 1) } else { 0 };
    let mut request = vec![family.number(), libc::IPPROTO_TCP as u8, extensions, 0];
    request.extend(mask.to_ne_bytes());
    request.extend([0; 48]);
    if !ports.is_empty() {
        let filter = port_filter(ports);
        let length = u16::try_from(4 + filter.len()).expect("an app has few ports");
        request.extend(length.to_ne_bytes());
        request.extend(INET_DIAG_REQ_BYTECODE.to_ne_bytes());
        request.extend(filter);
    }
    request
}

/// `struct inet_diag_req_v2` for the one socket with these ends.
pub(super) fn inet_request_for(local: SocketAddr, remote: SocketAddr) -> Vec<u8> {
    let family = if local.is_ipv4() { Family::V4 } else { Family::V6 };
    let mut request = vec![family.number(), libc::IPPROTO_TCP as u8, 0, 0];
    request.extend(u32::MAX.to_ne_bytes());
    request.extend(local.port().to_be_bytes());
    request.extend(remote.port().to_be_bytes());
    request.extend(address_bytes(local.ip()));
    request.extend(address_bytes(remote.ip()));
    let interface = if let SocketAddr::V6(v6) = remote { v6.scope_id() } else { 0 };
    request.extend(interface.to_ne_bytes());
    // No cookie.
    request.extend([0xff; 8]);
    request
}

/// `struct unix_diag_req`.
pub(super) fn unix_request(mask: u32, inode: u32) -> Vec<u8> {
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

pub(super) fn inet_socket(body: &[u8]) -> Option<InetSocket> {
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

pub(super) fn unix_socket(body: &[u8]) -> Option<UnixSocket> {
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
    Some(unmapped(SocketAddr::V6(SocketAddrV6::new(ip, port, 0, scope))))
}

/// The `u16` at byte `at`, in the machine's order.
fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// The `u32` at byte `at`, in the machine's order.
pub(in crate::sockets) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
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
