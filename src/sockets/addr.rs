//! Where an app listens, as the user writes it.
//!
//! Owns the text form and its parsing. Knows nothing of names, lanes or files that exist: whether an address can be
//! bound is found out by binding it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Longest path of a Unix socket, in bytes: `sun_path` without its final zero.
pub const UNIX_PATH_MAX: usize = 107;

/// One address an app listens on.
///
/// Its text is `0.0.0.0:80`, `[::]:80` (which takes IPv4 as well), `unix:/path` or `unix-dgram:/path`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ListenAddr {
    /// TCP. `[::]` is dual stack, any other IPv6 address is IPv6 only; port 0 lets the kernel choose.
    Tcp(SocketAddr),
    /// A Unix stream socket at this path.
    Unix(Utf8PathBuf),
    /// A Unix datagram socket at this path.
    UnixDatagram(Utf8PathBuf),
}

/// Why a text is no [`ListenAddr`].
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ListenAddrError {
    /// `unix:` or `unix-dgram:` with nothing behind it.
    #[error("{0:?} names no path: write unix:/run/app.sock")]
    NoPath(String),
    /// A path with a zero byte in it.
    #[error("{0:?} holds a zero byte, which no path can")]
    ZeroByte(String),
    /// Longer than the kernel takes.
    #[error("the path {path} has {} bytes, a Unix socket's path at most {UNIX_PATH_MAX}", path.as_str().len())]
    PathTooLong {
        /// The path as given.
        path: Utf8PathBuf,
    },
    /// Anything else.
    #[error("{0:?} is no address: write 127.0.0.1:8000, [::]:8000, unix:/run/app.sock or unix-dgram:/run/app.sock")]
    NotAnAddress(String),
}

impl ListenAddr {
    /// The address and port, for TCP.
    #[must_use]
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(addr) => Some(*addr),
            Self::Unix(_) | Self::UnixDatagram(_) => None,
        }
    }

    /// Whether two addresses stand in each other's way: the same one, or one of them means every address of the port.
    #[must_use]
    pub fn meets(&self, other: &Self) -> bool {
        match (self.socket_addr(), other.socket_addr()) {
            (Some(one), Some(two)) => {
                let any = one.ip().is_unspecified() || two.ip().is_unspecified();
                one.port() == two.port() && one.port() != 0 && (any || one.ip() == two.ip())
            }
            (None, None) => self.path() == other.path(),
            (Some(_), None) | (None, Some(_)) => false,
        }
    }

    /// As a client on this machine says it: every address of the machine is reached over the loopback interface.
    #[must_use]
    pub fn reachable(&self) -> String {
        match self {
            Self::Tcp(addr) if addr.ip().is_unspecified() => {
                let ip: IpAddr = if addr.is_ipv4() {
                    std::net::Ipv4Addr::LOCALHOST.into()
                } else {
                    std::net::Ipv6Addr::LOCALHOST.into()
                };
                SocketAddr::new(ip, addr.port()).to_string()
            }
            Self::Tcp(_) | Self::Unix(_) | Self::UnixDatagram(_) => self.to_string(),
        }
    }

    /// The path, for Unix sockets of either kind.
    #[must_use]
    pub fn path(&self) -> Option<&Utf8Path> {
        match self {
            Self::Tcp(_) => None,
            Self::Unix(path) | Self::UnixDatagram(path) => Some(path),
        }
    }
}

/// `::ffff:a.b.c.d` means the IPv4 address; everything that compares addresses sees it as that.
pub(super) fn unmapped(addr: SocketAddr) -> SocketAddr {
    match addr.ip().to_canonical() {
        v4 @ IpAddr::V4(_) => SocketAddr::new(v4, addr.port()),
        IpAddr::V6(_) => addr,
    }
}

fn path_of(text: &str, path: &str) -> Result<Utf8PathBuf, ListenAddrError> {
    if path.is_empty() {
        return Err(ListenAddrError::NoPath(text.to_owned()));
    }
    if path.contains('\0') {
        return Err(ListenAddrError::ZeroByte(text.to_owned()));
    }
    if path.len() > UNIX_PATH_MAX {
        return Err(ListenAddrError::PathTooLong { path: path.into() });
    }
    Ok(path.into())
}

impl FromStr for ListenAddr {
    type Err = ListenAddrError;

    fn from_str(text: &str) -> Result<Self, ListenAddrError> {
        if let Some(path) = text.strip_prefix("unix:") {
            return path_of(text, path).map(Self::Unix);
        }
        if let Some(path) = text.strip_prefix("unix-dgram:") {
            return path_of(text, path).map(Self::UnixDatagram);
        }
        let addr: SocketAddr = text.parse().map_err(|_| ListenAddrError::NotAnAddress(text.to_owned()))?;
        Ok(Self::Tcp(unmapped(addr)))
    }
}

impl TryFrom<String> for ListenAddr {
    type Error = ListenAddrError;

    fn try_from(text: String) -> Result<Self, ListenAddrError> {
        text.parse()
    }
}

impl From<ListenAddr> for String {
    fn from(addr: ListenAddr) -> Self {
        addr.to_string()
    }
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => write!(f, "{addr}"),
            Self::Unix(path) => write!(f, "unix:{path}"),
            Self::UnixDatagram(path) => write!(f, "unix-dgram:{path}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_survives_text_and_back() {
        for text in ["0.0.0.0:80", "[::]:80", "[::1]:0", "unix:/run/a.sock", "unix-dgram:/run/log"] {
            let addr: ListenAddr = text.parse().expect("is valid");
            assert_eq!(addr.to_string(), text);
            let json = serde_json::to_string(&addr).expect("serializes");
            assert_eq!(json, format!("{text:?}"));
            assert_eq!(serde_json::from_str::<ListenAddr>(&json).expect("deserializes"), addr);
        }
    }

    #[test]
    fn a_mapped_address_is_taken_as_ipv4() {
        assert_eq!("[::ffff:127.0.0.1]:80".parse::<ListenAddr>(), "127.0.0.1:80".parse());
    }

    #[test]
    fn what_is_no_address_is_refused_with_the_forms_that_are() {
        for text in ["", "80", ":80", "localhost:80", "unix:", "unix-dgram:", "tcp:1.2.3.4:5"] {
            text.parse::<ListenAddr>().expect_err(text);
        }
        assert!(matches!(
            format!("unix:/{}", "x".repeat(107)).parse::<ListenAddr>(),
            Err(ListenAddrError::PathTooLong { .. })
        ));
    }
}
