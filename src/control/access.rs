//! Who a peer is, by the kernel's word, and what it may do.
//!
//! Owns: the credentials of a connection and the rule that turns them into a [`Role`]. The mode of the socket file is
//! the first gate; this is the second, and holds when somebody widened the first.

use std::io;

use agentd_protocol::control::Role;
use interprocess::local_socket::tokio::Stream;
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

/// Who connected: as of its `connect`, whatever it has become since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Effective user.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
    /// Process, unless it is of a process namespace that the daemon does not see. For logs only: by now it may be
    /// gone and its number another's.
    pub pid: Option<u32>,
}

impl Peer {
    /// Who is at the other end.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn of(stream: &Stream) -> io::Result<Self> {
        let Stream::UdSocket(stream) = stream;
        // Not interprocess's `peer_creds`: it takes a process of another namespace, whose pid is 0, for an error.
        let creds = getsockopt(stream, PeerCredentials)?;
        let pid = u32::try_from(creds.pid()).ok().filter(|pid| *pid > 0);
        Ok(Self { uid: creds.uid(), gid: creds.gid(), pid })
    }
}

/// Who may do what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    owner: u32,
}

impl Access {
    /// `owner`, the daemon's own user, and root operate; nobody else may even look.
    #[must_use]
    pub const fn owner_only(owner: u32) -> Self {
        Self { owner }
    }

    /// What `peer` may do; none when it may do nothing.
    #[must_use]
    pub fn role(&self, peer: &Peer) -> Option<Role> {
        (peer.uid == 0 || peer.uid == self.owner).then_some(Role::Operate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_and_the_owner_operate_and_nobody_else_even_looks() {
        let access = Access::owner_only(1000);
        let role = |uid| access.role(&Peer { uid, gid: 1000, pid: None });
        assert_eq!(role(0), Some(Role::Operate));
        assert_eq!(role(1000), Some(Role::Operate));
        assert_eq!(role(1001), None);
    }
}
