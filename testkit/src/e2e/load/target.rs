//! Where clients connect to, over TCP and Unix sockets alike.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use nix::libc;
use socket2::{Domain, Socket, Type};

/// An address of an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// TCP, of either family.
    Tcp(SocketAddr),
    /// A Unix stream socket.
    Unix(PathBuf),
}

impl From<u16> for Target {
    fn from(port: u16) -> Self {
        Self::Tcp((Ipv4Addr::LOCALHOST, port).into())
    }
}

impl From<SocketAddr> for Target {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

impl From<PathBuf> for Target {
    fn from(path: PathBuf) -> Self {
        Self::Unix(path)
    }
}

/// A connection of either sort.
#[derive(Debug)]
pub(super) struct Connection {
    stream: Stream,
    /// How long a read takes at most.
    bound: Duration,
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Target {
    pub(super) fn connect(&self, patience: Duration) -> io::Result<Connection> {
        match self {
            Self::Tcp(address) => {
                // Bounded by the kernel's own clock, which takes half the calls of `TcpStream::connect_timeout`.
                let socket = Socket::new(Domain::for_address(*address), Type::STREAM, None)?;
                socket.set_write_timeout(Some(patience))?;
                socket.set_read_timeout(Some(patience))?;
                socket.connect(&(*address).into()).map_err(|error| match error.raw_os_error() {
                    Some(libc::EINPROGRESS) => io::ErrorKind::TimedOut.into(),
                    Some(_) | None => error,
                })?;
                Ok(Connection { bound: patience, stream: Stream::Tcp(socket.into()) })
            }
            Self::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_write_timeout(Some(patience))?;
                stream.set_read_timeout(Some(patience))?;
                Ok(Connection { bound: patience, stream: Stream::Unix(stream) })
            }
        }
    }
}

impl Connection {
    /// The client's port, which tells the connection from all others; none over a Unix socket.
    pub(super) fn own_port(&self) -> Option<u16> {
        match &self.stream {
            Stream::Tcp(stream) => stream.local_addr().ok().map(|address| address.port()),
            Stream::Unix(_) => None,
        }
    }

    /// Bounds the next read.
    pub(super) fn read_within(&mut self, patience: Duration) -> io::Result<()> {
        if self.bound == patience {
            return Ok(());
        }
        self.bound = patience;
        match &self.stream {
            Stream::Tcp(stream) => stream.set_read_timeout(Some(patience)),
            Stream::Unix(stream) => stream.set_read_timeout(Some(patience)),
        }
    }
}

impl Read for Connection {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.stream {
            Stream::Tcp(stream) => stream.read(buffer),
            Stream::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Connection {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.stream {
            Stream::Tcp(stream) => stream.write(bytes),
            Stream::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
