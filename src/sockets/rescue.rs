//! Listening sockets taken back out of live processes, where nobody else holds them any more.
//!
//! Supervisor and keeper are both gone; the workers serve on, each with its socket. `pidfd_getfd` gives us a second hold
//! on it: the same socket, the same queue, the same place in the kernel's group. Lanes without a live worker closed with
//! their last holder; what waited in their queues is lost, and they are made anew.
//!
//! What can go wrong: the kernel refuses. Root may always; anybody else only where Yama's `ptrace_scope` is 0, since it
//! counts as tracing the process. Then the workers serve on alone, and their address comes back to us when they end.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use agentd_core::id::Pid;
use camino::Utf8Path;
use socket2::SockRef;

use super::addr::ListenAddr;
use crate::fault;
use crate::process::sys;

/// The socket of one lane at `addr` out of the process that `pidfd` and `pid` stand for; none when it holds none.
///
/// # Errors
/// `PermissionDenied` where this user may not.
pub fn lane_of(addr: &ListenAddr, lane: u32, pid: Pid, pidfd: BorrowedFd<'_>) -> io::Result<Option<OwnedFd>> {
    if fault::is_denied("getfd") {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let mut numbers = descriptors(pid)?;
    // Ours are passed first, from 3 on.
    numbers.sort_unstable();
    for number in numbers {
        let fd = match sys::descriptor_of(pidfd, number) {
            Ok(fd) => fd,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(error),
            // It closed it a moment ago.
            Err(_) => continue,
        };
        if is_lane(addr, lane, fd.as_fd()) {
            return Ok(Some(fd));
        }
    }
    Ok(None)
}

/// The numbers of the sockets that a process holds.
fn descriptors(pid: Pid) -> io::Result<Vec<i32>> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd"))?;
    let socket = |entry: std::fs::DirEntry| {
        let target = std::fs::read_link(entry.path()).ok()?;
        target.to_str()?.strip_prefix("socket:[")?;
        entry.file_name().to_str()?.parse().ok()
    };
    Ok(entries.flatten().filter_map(socket).collect())
}

/// Whether `fd` is what a lane at `addr` is: bound there, and for streams listening.
fn is_lane(addr: &ListenAddr, lane: u32, fd: BorrowedFd<'_>) -> bool {
    let socket = SockRef::from(&fd);
    let listens = socket.is_listener().unwrap_or(false);
    let Ok(bound) = socket.local_addr() else { return false };
    let is_beside = |path: &Utf8Path| {
        let name = format!(".{}.{lane}", path.file_name().unwrap_or_default());
        bound.as_pathname().is_some_and(|bound| bound == path.with_file_name(&name))
    };
    match addr {
        ListenAddr::Tcp(wanted) => {
            let same = |bound: std::net::SocketAddr| {
                bound.ip() == wanted.ip() && (wanted.port() == 0 || bound.port() == wanted.port())
            };
            listens && bound.as_socket().is_some_and(same)
        }
        ListenAddr::Unix(path) => listens && is_beside(path),
        ListenAddr::UnixDatagram(path) => is_beside(path),
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::{PidfdFlags, getpid, pidfd_open};

    use super::*;

    #[test]
    fn a_listening_socket_is_found_among_the_others_of_a_process_and_is_the_very_one() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let addr = listener.local_addr().expect("it is bound");
        let other = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let _connected = std::net::TcpStream::connect(addr).expect("it listens");
        let pidfd = pidfd_open(getpid(), PidfdFlags::empty()).expect("we are here");
        let pid = Pid(std::process::id());
        let found =
            lane_of(&ListenAddr::Tcp(addr), 0, pid, pidfd.as_fd()).expect("it is our own").expect("it is there");
        let inode = |fd: BorrowedFd<'_>| nix::sys::stat::fstat(fd).expect("it is open").st_ino;
        assert_eq!(inode(found.as_fd()), inode(listener.as_fd()));
        let port = other.local_addr().expect("it is bound");
        drop((other, found));
        assert!(lane_of(&ListenAddr::Tcp(port), 0, pid, pidfd.as_fd()).expect("it is our own").is_none());
    }
}
