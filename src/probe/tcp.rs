//! The check that connects and does no more.
//!
//! A kernel accepts connections for a program that hangs, so this proves that something listens, not that it works;
//! `ready.rs` asks who accepted.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use camino::Utf8PathBuf;
use thiserror::Error;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Instant;

use super::http::Seconds;
use crate::sockets::ProbeStream;

/// Where to connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// An address and port.
    Tcp(SocketAddr),
    /// A Unix stream socket.
    Unix(Utf8PathBuf),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => write!(f, "{addr}"),
            Self::Unix(path) => write!(f, "unix:{path}"),
        }
    }
}

/// Why nothing could be connected to.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// Nobody listens there.
    #[error("refuses connections at {0}")]
    Refused(Target),
    /// Nothing came back in time.
    #[error("took no connection at {target} within {}", Seconds(*.within))]
    Timeout {
        /// Where.
        target: Target,
        /// How long it had.
        within: Duration,
    },
    /// Anything else that the kernel says.
    #[error("cannot be connected to at {target}")]
    Failed {
        /// Where.
        target: Target,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Connects; the caller may go on with the connection or drop it.
///
/// # Errors
/// No connection by `deadline`.
pub async fn connect(target: &Target, deadline: Instant) -> Result<ProbeStream, ConnectError> {
    let within = deadline.saturating_duration_since(Instant::now());
    let connecting = async {
        Ok::<_, io::Error>(match target {
            Target::Tcp(addr) => ProbeStream::Tcp(TcpStream::connect(addr).await?),
            Target::Unix(path) => ProbeStream::Unix(UnixStream::connect(path).await?),
        })
    };
    match tokio::time::timeout_at(deadline, connecting).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
            Err(ConnectError::Refused(target.clone()))
        }
        Ok(Err(source)) => Err(ConnectError::Failed { target: target.clone(), source }),
        Err(_) => Err(ConnectError::Timeout { target: target.clone(), within }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_listener_is_connected_to_and_its_absence_named() {
        let listener = std::net::TcpListener::bind("127.0.4.1:0").expect("all of 127/8 is ours");
        let target = Target::Tcp(listener.local_addr().expect("is bound"));
        let soon = || Instant::now() + Duration::from_secs(20);
        connect(&target, soon()).await.expect("somebody listens");
        drop(listener);
        let error = connect(&target, soon()).await.expect_err("nobody listens");
        assert_eq!(error.to_string(), format!("refuses connections at {target}"));

        let folder = tempfile::tempdir().expect("there is room");
        let path = Utf8PathBuf::from_path_buf(folder.path().join("s")).expect("is UTF-8");
        let target = Target::Unix(path.clone());
        let missing = connect(&target, soon()).await;
        assert!(matches!(missing, Err(ConnectError::Failed { .. })), "{missing:?}");
        let _listener = std::os::unix::net::UnixListener::bind(&path).expect("the path is free");
        connect(&target, soon()).await.expect("somebody listens");
    }
}
