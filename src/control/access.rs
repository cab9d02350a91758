//! Who a peer is, by the kernel's word, and what it may do.
//!
//! Owns: the credentials of a connection and the rule that turns them into a [`Role`]. The mode of the socket file is
//! the first gate; this is the second, and holds when somebody widened the first.

use std::collections::BTreeSet;
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
    /// Process, unless it is of a process namespace that the daemon does not see. For logs, and to tell a
    /// worker that asks about itself; never for what it may do: by now it may be gone and its number another's.
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

/// Who may do what, by effective user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    operators: BTreeSet<u32>,
    viewers: BTreeSet<u32>,
}

impl Access {
    /// `owner`, the daemon's own user, and root operate; nobody else may even look.
    #[must_use]
    pub fn owner_only(owner: u32) -> Self {
        Self { operators: BTreeSet::from([0, owner]), viewers: BTreeSet::new() }
    }

    /// The same, and `uid` may look.
    #[must_use]
    pub fn with_viewer(mut self, uid: u32) -> Self {
        self.viewers.insert(uid);
        self
    }

    /// What `peer` may do; none when it may do nothing.
    #[must_use]
    pub fn role(&self, peer: &Peer) -> Option<Role> {
        if self.operators.contains(&peer.uid) {
            return Some(Role::Operate);
        }
        self.viewers.contains(&peer.uid).then_some(Role::View)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_and_the_owner_operate_and_others_do_what_they_were_given() {
        let access = Access::owner_only(1000);
        let role = |uid| access.role(&Peer { uid, gid: 1000, pid: None });
        assert_eq!(role(0), Some(Role::Operate));
        assert_eq!(role(1000), Some(Role::Operate));
        assert_eq!(role(1001), None);
        let access = access.with_viewer(1001).with_viewer(1000);
        let role = |uid| access.role(&Peer { uid, gid: 1000, pid: None });
        assert_eq!(role(1001), Some(Role::View));
        assert_eq!(role(1000), Some(Role::Operate), "who operates need not be told that they may look");
    }
}
