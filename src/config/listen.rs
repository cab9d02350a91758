//! Where an app listens, as users write it.
//!
//! Owns the short forms, the reasons why a text is no address, and the question whether two addresses claim the same
//! port. The type and its exact text are `sockets`', and so is binding.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use camino::{Utf8Path, Utf8PathBuf};
use thiserror::Error;

use crate::sockets::{ListenAddr, UNIX_PATH_MAX};

/// Why a text is no address to listen on.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum AddressError {
    /// Neither an address with a port nor a Unix path.
    #[error("{0:?} is no address to listen on")]
    Form(String),
    /// A name stands where an address should: resolving it could give another answer tomorrow.
    #[error("{0:?} is a host name; write the address itself")]
    HostName(String),
    /// A protocol in front.
    #[error("{0:?} names a protocol; only the address is wanted")]
    Protocol(String),
    /// Not 1 to 65535.
    #[error("{0:?} is no port")]
    Port(String),
    /// The kernel would pick another port at every start, and nobody would know it.
    #[error("port 0 would be another port at every start")]
    PortZero,
    /// A path that would depend on somebody's working directory.
    #[error("the socket's path {0:?} is not absolute")]
    Relative(String),
    /// More than the kernel takes.
    #[error("the socket's path has {0} bytes, at most {UNIX_PATH_MAX} fit")]
    PathTooLong(usize),
    /// A name in the kernel's abstract space, which has no owner and no permissions.
    #[error("abstract socket names are not supported")]
    Abstract,
    /// A zero byte in the path.
    #[error("the socket's path holds a zero byte")]
    Nul,
}

impl ListenAddr {
    /// Reads an address as users write it, relative socket paths being taken from `folder`.
    ///
    /// Beside the full forms: `8080` and `:8080` mean `0.0.0.0:8080`, `localhost:8080` means `127.0.0.1:8080`, and
    /// `unix:///run/a.sock` means `unix:/run/a.sock`.
    ///
    /// # Errors
    /// The text is none of these forms, its port is 0 or no port, or its path does not fit a socket's address.
    pub fn parse_in(text: &str, folder: &Utf8Path) -> Result<Self, AddressError> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Self::Unix(socket_path(path, folder)?));
        }
        if let Some(path) = text.strip_prefix("unix-dgram:") {
            return Ok(Self::UnixDatagram(socket_path(path, folder)?));
        }
        if text.contains("://") {
            return Err(AddressError::Protocol(text.to_owned()));
        }
        if text.starts_with(['/', '.']) {
            return Err(AddressError::Form(text.to_owned()));
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => (host, port),
            None => ("", text),
        };
        let ip = host_address(host, text)?;
        if port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit()) {
            return Err(AddressError::Form(text.to_owned()));
        }
        match port.parse::<u16>() {
            Ok(0) => Err(AddressError::PortZero),
            Ok(port) => Ok(Self::Tcp(SocketAddr::new(ip, port))),
            Err(_) => Err(AddressError::Port(port.to_owned())),
        }
    }

    /// The host to put into `{host:NAME}`; none for a Unix socket.
    #[must_use]
    pub fn host(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(address) => Some(address.ip()),
            Self::Unix(_) | Self::UnixDatagram(_) => None,
        }
    }

    /// The port to put into `{port:NAME}`; none for a Unix socket.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        match self {
            Self::Tcp(address) => Some(address.port()),
            Self::Unix(_) | Self::UnixDatagram(_) => None,
        }
    }

    /// Whether connections are accepted from it: everything but datagrams.
    #[must_use]
    pub fn is_stream(&self) -> bool {
        match self {
            Self::Tcp(_) | Self::Unix(_) => true,
            Self::UnixDatagram(_) => false,
        }
    }

    /// Whether it has one queue however many listen: the kernel has reuseport groups for TCP only.
    #[must_use]
    pub fn is_unix(&self) -> bool {
        match self {
            Self::Tcp(_) => false,
            Self::Unix(_) | Self::UnixDatagram(_) => true,
        }
    }

    /// Whether a client of one could be meant for the other: the same port where one host covers the other's, or
    /// the same path.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tcp(a), Self::Tcp(b)) => a.port() == b.port() && (covers(a.ip(), b.ip()) || covers(b.ip(), a.ip())),
            (Self::Unix(a) | Self::UnixDatagram(a), Self::Unix(b) | Self::UnixDatagram(b)) => a == b,
            (Self::Tcp(_), Self::Unix(_) | Self::UnixDatagram(_))
            | (Self::Unix(_) | Self::UnixDatagram(_), Self::Tcp(_)) => false,
        }
    }
}

fn covers(wide: IpAddr, narrow: IpAddr) -> bool {
    match wide {
        IpAddr::V4(wide) => wide == narrow || (wide.is_unspecified() && narrow.is_ipv4()),
        IpAddr::V6(wide) => wide == narrow || wide.is_unspecified(),
    }
}

fn host_address(host: &str, text: &str) -> Result<IpAddr, AddressError> {
    if host.is_empty() {
        return Ok(Ipv4Addr::UNSPECIFIED.into());
    }
    if host == "localhost" {
        return Ok(Ipv4Addr::LOCALHOST.into());
    }
    if let Some(v6) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        return v6.parse::<Ipv6Addr>().map(IpAddr::from).map_err(|_| AddressError::Form(text.to_owned()));
    }
    if let Ok(v4) = host.parse::<Ipv4Addr>() {
        return Ok(v4.into());
    }
    let name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    if host.bytes().all(name) && host.bytes().any(|b| b.is_ascii_alphabetic()) {
        return Err(AddressError::HostName(host.to_owned()));
    }
    Err(AddressError::Form(text.to_owned()))
}

fn socket_path(path: &str, folder: &Utf8Path) -> Result<Utf8PathBuf, AddressError> {
    if path.starts_with('@') {
        return Err(AddressError::Abstract);
    }
    if path.contains('\0') {
        return Err(AddressError::Nul);
    }
    let path = if path.starts_with("///") { &path[2..] } else { path };
    if path.is_empty() || path.starts_with("//") || path.ends_with('/') {
        return Err(AddressError::Form(format!("unix:{path}")));
    }
    let whole: Utf8PathBuf = folder.join(path).components().collect();
    if !whole.is_absolute() {
        return Err(AddressError::Relative(path.to_owned()));
    }
    if whole.as_str().len() > UNIX_PATH_MAX {
        return Err(AddressError::PathTooLong(whole.as_str().len()));
    }
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<String, String> {
        ListenAddr::parse_in(text, Utf8Path::new("/srv/app")).map(|a| a.to_string()).map_err(|e| e.to_string())
    }

    #[test]
    fn the_short_forms_mean_what_people_expect() {
        for (text, whole) in [
            ("0.0.0.0:8080", "0.0.0.0:8080"),
            ("[::]:8080", "[::]:8080"),
            ("[::1]:1", "[::1]:1"),
            ("8080", "0.0.0.0:8080"),
            (":8080", "0.0.0.0:8080"),
            ("localhost:8080", "127.0.0.1:8080"),
            ("unix:/run/a.sock", "unix:/run/a.sock"),
            ("unix:///run/a.sock", "unix:/run/a.sock"),
            ("unix:run/./a.sock", "unix:/srv/app/run/a.sock"),
            ("unix-dgram:/run/a.sock", "unix-dgram:/run/a.sock"),
        ] {
            assert_eq!(parse(text), Ok(whole.to_owned()), "{text}");
        }
    }

    #[test]
    fn an_address_that_cannot_be_listened_on_says_why() {
        for (text, why) in [
            ("", "\"\" is no address to listen on"),
            ("::1:80", "\"::1:80\" is no address to listen on"),
            ("[::1]", "\"[::1]\" is no address to listen on"),
            ("*:80", "\"*:80\" is no address to listen on"),
            ("/run/a.sock", "\"/run/a.sock\" is no address to listen on"),
            ("1.2.3.4:", "\"1.2.3.4:\" is no address to listen on"),
            ("1.2.3.4:http", "\"1.2.3.4:http\" is no address to listen on"),
            ("example.org:80", "\"example.org\" is a host name; write the address itself"),
            ("http://0.0.0.0:80", "\"http://0.0.0.0:80\" names a protocol; only the address is wanted"),
            ("1.2.3.4:70000", "\"70000\" is no port"),
            ("127.0.0.1:0", "port 0 would be another port at every start"),
            ("unix:", "\"unix:\" is no address to listen on"),
            ("unix:@a", "abstract socket names are not supported"),
            ("unix:/a\0b", "the socket's path holds a zero byte"),
        ] {
            assert_eq!(parse(text), Err(why.to_owned()), "{text}");
        }
        let relative = ListenAddr::parse_in("unix:a", Utf8Path::new(""));
        assert_eq!(relative, Err(AddressError::Relative("a".to_owned())));
        let deep = format!("unix:/{}", "x".repeat(107));
        assert_eq!(ListenAddr::parse_in(&deep, Utf8Path::new("/")), Err(AddressError::PathTooLong(108)));
    }

    #[test]
    fn a_wildcard_claims_its_port_on_every_host_of_its_family() {
        let overlap = |a: &str, b: &str| {
            let (a, b): (ListenAddr, ListenAddr) = (a.parse().expect("valid"), b.parse().expect("valid"));
            assert_eq!(a.overlaps(&b), b.overlaps(&a));
            a.overlaps(&b)
        };
        assert!(overlap("0.0.0.0:80", "127.0.0.1:80"));
        assert!(overlap("[::]:80", "127.0.0.1:80"));
        assert!(overlap("unix:/a", "unix-dgram:/a"));
        assert!(!overlap("0.0.0.0:80", "0.0.0.0:81"));
        assert!(!overlap("0.0.0.0:80", "[::1]:80"));
        assert!(!overlap("127.0.0.1:80", "127.0.0.2:80"));
    }

    proptest! {
        #[test]
        fn an_address_that_was_read_is_written_so_that_it_reads_the_same(
            text in "(unix:|unix-dgram:)?[0-9a-z./:\\[\\]@]{0,20}",
        ) {
            if let Ok(address) = ListenAddr::parse_in(&text, Utf8Path::new("/srv")) {
                prop_assert_eq!(address.to_string().parse(), Ok(address));
            }
        }
    }
}
