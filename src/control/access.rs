//! Who a peer is, by the kernel's word, and what it may do.
//!
//! Owns: the credentials of a connection and the rule that turns them into a [`Role`]. The mode of the socket file is
//! the first gate; this is the second, and holds when somebody widened the first. Who is connected keeps the role that it
//! came with.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, PoisonError, RwLock};

use agentd_protocol::control::Role;
use interprocess::local_socket::tokio::Stream;
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

use crate::config::Settings;
use crate::process::{account, sys};

/// Who connected: as of its `connect`, whatever it has become since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Effective user.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
    /// Its further groups; empty where the kernel does not tell them.
    pub groups: Vec<u32>,
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
        let groups = sys::peer_groups(stream.as_fd()).unwrap_or_default();
        Ok(Self { uid: creds.uid(), gid: creds.gid(), groups, pid })
    }

    fn is_in(&self, groups: &BTreeSet<u32>) -> bool {
        groups.contains(&self.gid) || self.groups.iter().any(|group| groups.contains(group))
    }
}

/// Who may do what, by effective user and by group, as it is now: every clone tells the same.
#[derive(Clone, Debug, Default)]
pub struct Access {
    rules: Arc<RwLock<Rules>>,
}

#[derive(Debug, Default)]
struct Rules {
    operators: Granted,
    viewers: Granted,
    /// The daemon's own group, which may read the status.
    readers: BTreeSet<u32>,
}

/// Users and groups that have a role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Granted {
    users: BTreeSet<u32>,
    groups: BTreeSet<u32>,
}

impl Granted {
    fn has(&self, peer: &Peer) -> bool {
        self.users.contains(&peer.uid) || peer.is_in(&self.groups)
    }

    /// Adds users by name or number, and groups as `group:NAME`; who nobody is, in words.
    fn add(&mut self, names: &[String]) -> Vec<String> {
        let mut unknown = Vec::new();
        for name in names {
            let found = match name.strip_prefix(GROUP) {
                Some(group) => account::group_of(group).map(|gid| self.groups.insert(gid.as_raw())),
                None => account::uid_of(name).map(|uid| self.users.insert(uid.as_raw())),
            };
            unknown.extend(found.err().map(|error| error.to_string()));
        }
        unknown
    }
}

/// What stands before a group's name among those who have a role.
const GROUP: &str = "group:";

impl Access {
    /// `owner`, the daemon's own user, and root operate; nobody else may even look.
    #[must_use]
    pub fn owner_only(owner: u32) -> Self {
        Self { rules: Arc::new(RwLock::new(Rules::owner_only(owner))) }
    }

    /// The same, and `settings` give roles to others; and the members of `group` may read the status. Whom nobody is
    /// called is told in words, and has no role.
    #[must_use]
    pub fn granted(owner: u32, group: u32, settings: &Settings) -> (Self, Vec<String>) {
        let access = Self::owner_only(owner);
        let unknown = access.grant(owner, group, settings);
        (access, unknown)
    }

    /// What [`granted`](Self::granted) says is so from now on, here and in every clone.
    pub fn grant(&self, owner: u32, group: u32, settings: &Settings) -> Vec<String> {
        let mut rules = Rules { readers: BTreeSet::from([group]), ..Rules::owner_only(owner) };
        let mut unknown = rules.operators.add(&settings.operate);
        unknown.extend(rules.viewers.add(&settings.view));
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = rules;
        unknown
    }

    /// The same, and `uid` may look.
    #[must_use]
    pub fn with_viewer(self, uid: u32) -> Self {
        self.rules.write().unwrap_or_else(PoisonError::into_inner).viewers.users.insert(uid);
        self
    }

    /// What `peer` may do; none when it may do nothing.
    #[must_use]
    pub fn role(&self, peer: &Peer) -> Option<Role> {
        self.rules.read().unwrap_or_else(PoisonError::into_inner).role(peer)
    }

    /// Whether `peer` may read the status document and events.
    #[must_use]
    pub fn may_read_status(&self, peer: &Peer) -> bool {
        let rules = self.rules.read().unwrap_or_else(PoisonError::into_inner);
        rules.role(peer).is_some() || peer.is_in(&rules.readers)
    }
}

impl Rules {
    fn owner_only(owner: u32) -> Self {
        let operators = Granted { users: BTreeSet::from([0, owner]), groups: BTreeSet::new() };
        Self { operators, ..Self::default() }
    }

    fn role(&self, peer: &Peer) -> Option<Role> {
        if self.operators.has(peer) {
            return Some(Role::Operate);
        }
        self.viewers.has(peer).then_some(Role::View)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_and_the_owner_operate_and_others_do_what_they_were_given() {
        let access = Access::owner_only(1000);
        let role = |uid| access.role(&Peer { uid, gid: 1000, groups: Vec::new(), pid: None });
        assert_eq!(role(0), Some(Role::Operate));
        assert_eq!(role(1000), Some(Role::Operate));
        assert_eq!(role(1001), None);
        let access = access.with_viewer(1001).with_viewer(1000);
        let role = |uid| access.role(&Peer { uid, gid: 1000, groups: Vec::new(), pid: None });
        assert_eq!(role(1001), Some(Role::View));
        assert_eq!(role(1000), Some(Role::Operate), "who operates need not be told that they may look");
    }

    #[test]
    fn a_role_is_given_to_users_and_to_groups_and_the_higher_one_counts() {
        let words = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let settings = Settings {
            view: words(&["4000000001", "group:4000000002"]),
            operate: words(&["group:4000000003", "no-one-x"]),
            ..Settings::default()
        };
        let (access, unknown) = Access::granted(1000, 7, &settings);
        assert_eq!(unknown, ["there is no user \"no-one-x\""]);
        let peer = |uid, gid, groups: &[u32]| Peer { uid, gid, groups: groups.to_vec(), pid: None };
        for (peer, role, status) in [
            (peer(4_000_000_001, 1, &[]), Some(Role::View), true),
            (peer(5, 4_000_000_002, &[]), Some(Role::View), true),
            (peer(5, 1, &[2, 4_000_000_002]), Some(Role::View), true),
            (peer(4_000_000_001, 1, &[4_000_000_003]), Some(Role::Operate), true),
            (peer(5, 1, &[7]), None, true),
            (peer(5, 1, &[8]), None, false),
        ] {
            assert_eq!((access.role(&peer), access.may_read_status(&peer)), (role, status), "{peer:?}");
        }
    }
}
