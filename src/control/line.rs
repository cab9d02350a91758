//! Lines to a client, and whether it is still there.
//!
//! Owns: what both of the daemon's sockets need to speak to one client that may be slow, silent or gone.

use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use interprocess::local_socket::tokio::Stream;
use nix::sys::socket::{MsgFlags, send};
use tokio::io::{AsyncWriteExt, Interest};
use tokio::time::{sleep, timeout};

/// How often to look whether a client that says nothing more still listens.
const HANG_UP_CHECK: Duration = Duration::from_secs(1);

/// Writes `line` and its end, as [`write_all`] does: the reader wakes once, and has it whole.
///
/// # Errors
/// As [`write_all`].
pub(crate) async fn write_line(stream: &Stream, line: &str, stall: Duration) -> io::Result<()> {
    write_all(stream, &[line.as_bytes(), b"\n"].concat(), stall).await
}

/// Writes `bytes`. Headway counts, not the end: a large document to a slow reader is no stall.
///
/// # Errors
/// When the client is gone, or takes no byte for `stall`.
pub(crate) async fn write_all(stream: &Stream, bytes: &[u8], stall: Duration) -> io::Result<()> {
    write_noting(stream, bytes, stall, || {}).await
}

/// The same; `headway` is told each time that the client took some and not all.
///
/// # Errors
/// As [`write_all`].
pub(crate) async fn write_noting(
    mut stream: &Stream,
    bytes: &[u8],
    stall: Duration,
    mut headway: impl FnMut(),
) -> io::Result<()> {
    let mut rest = bytes;
    loop {
        match timeout(stall, stream.write(rest)).await?? {
            0 if !rest.is_empty() => return Err(io::ErrorKind::WriteZero.into()),
            count => rest = &rest[count..],
        }
        if rest.is_empty() {
            return Ok(());
        }
        headway();
    }
}

/// Tells a fresh connection `line` and closes it, without waiting: for clients that shall cost nothing more.
pub(crate) fn refuse(stream: Stream, line: &str) {
    let Stream::UdSocket(stream) = stream;
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    if let Err(error) = send(stream.inner().as_raw_fd(), format!("{line}\n").as_bytes(), flags) {
        tracing::debug!(%error, "could not tell a refused client why");
    }
}

/// Ends when the client has closed both ways. Half a close tells nothing: `agentctl` closes its way early.
pub(crate) async fn hung_up(stream: &Stream) {
    let Stream::UdSocket(stream) = stream;
    loop {
        match stream.inner().ready(Interest::WRITABLE).await {
            Ok(ready) if ready.is_write_closed() => return,
            Ok(_) => sleep(HANG_UP_CHECK).await,
            Err(_) => return,
        }
    }
}
