//! Ports that no other test has.
//!
//! They come from below the range that the kernel gives to outgoing connections: a client of another test would
//! otherwise now and then sit on the port that a daemon is about to bind. Each is reserved for this process by an
//! abstract Unix socket of its name, which the kernel lets go of with the process.

use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::sync::Mutex;

/// The ports tried, below the usual ephemeral range.
const PORTS: std::ops::Range<u16> = 12_000..32_000;

static RESERVED: Mutex<Vec<UnixListener>> = Mutex::new(Vec::new());

/// A TCP port that nobody uses, on IPv4 and IPv6, and that no other test is given while this process lives.
///
/// # Panics
/// When every port is taken.
#[must_use]
pub fn free_port() -> u16 {
    let span = u32::from(PORTS.end - PORTS.start);
    // Where a process begins is its own, so that parallel ones rarely look at the same ports.
    let begin = std::process::id().wrapping_mul(0x9E37_79B9) % span;
    for step in 0..span {
        let offset = u16::try_from((begin + step) % span).expect("a remainder of a span of ports");
        let port = PORTS.start + offset;
        if let Some(reservation) = reserve(port) {
            RESERVED.lock().expect("nobody panics while holding it").push(reservation);
            return port;
        }
    }
    panic!("no port of {PORTS:?} is free");
}

fn reserve(port: u16) -> Option<UnixListener> {
    let name = SocketAddr::from_abstract_name(format!("agentd-test-port-{port}")).ok()?;
    let reservation = UnixListener::bind_addr(&name).ok()?;
    TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).ok()?;
    match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)) {
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => None,
        // Free, or a machine without IPv6.
        Ok(_) | Err(_) => Some(reservation),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_given_once_and_can_be_bound() {
        let ports: std::collections::BTreeSet<u16> = (0..20).map(|_| free_port()).collect();
        assert_eq!(ports.len(), 20);
        for port in ports {
            TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        }
    }
}
