//! Who is believed.
//!
//! Owns the rule. The kernel attaches the sender's pid and user id to each datagram and checks them, so neither can be
//! made up (root may, and needs no lie to do harm).
//!
//! 1. A sender that is part of the worker's [tree](Tree) is believed, whatever its user: wrappers fork, and a shell
//!    script speaks through `systemd-notify`.
//! 2. A sender that lives and is not part of it is not, even with the same user.
//! 3. A sender that has ended since (`systemd-notify` ends at once), or that is in a pid namespace we do not see, is
//!    believed when its user is the worker's. Its cgroup and ancestors can no longer be asked. The socket's mode lets
//!    only that user and root write to it in the first place, so this grants nobody what he could not do by starting a
//!    process in the tree.

use agentd_core::id::Pid;
use thiserror::Error;

use crate::process::stat;
use crate::process::tree::Tree;

/// Who sent a datagram, by the kernel's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sender {
    /// Its process; `None` when that is outside our pid namespace.
    pub pid: Option<Pid>,
    /// Its real user id.
    pub uid: u32,
}

/// Why a sender is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is one of the worker's processes.
    Member,
    /// It cannot be looked at any more, and was of the worker's user.
    Departed,
}

/// Why a sender is not believed.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Unbelieved {
    /// The kernel named no sender.
    #[error("believe a datagram without credentials")]
    Anonymous,
    /// Not one of the worker's processes.
    #[error("believe process {0}, which is not part of the worker")]
    Outsider(Pid),
    /// It has ended, and was of another user.
    #[error("believe a process of user {uid} that has ended, as the worker is of user {expected}")]
    OtherUser {
        /// The sender's user.
        uid: u32,
        /// The worker's.
        expected: u32,
    },
}

/// Whether what `sender` said counts as the worker's word, whose processes are `tree` and whose user is `uid`.
///
/// # Errors
/// Why it does not; to be logged and otherwise ignored.
pub fn judge(sender: Option<Sender>, tree: &Tree, uid: u32) -> Result<Standing, Unbelieved> {
    let sender = sender.ok_or(Unbelieved::Anonymous)?;
    if let Some(pid) = sender.pid {
        if tree.contains(pid) {
            return Ok(Standing::Member);
        }
        // Asked after the tree, so that one that ends in between is taken for ended and not for a stranger.
        if stat::Stat::of(pid).is_some_and(|process| !process.is_zombie) {
            return Err(Unbelieved::Outsider(pid));
        }
    }
    if sender.uid == uid {
        Ok(Standing::Departed)
    } else {
        Err(Unbelieved::OtherUser { uid: sender.uid, expected: uid })
    }
}

#[cfg(test)]
mod tests {
    use agentd_core::id::Launch;
    use rustix::process::getuid;

    use super::*;
    use crate::process::tree::Identity;

    /// A tree whose leader is this very test process.
    fn tree_of_this_process() -> Tree {
        Tree::of_child(Identity { instance: "test".into(), launch: Launch(1) }, Pid(std::process::id()), None)
    }

    #[test]
    fn a_member_is_believed_and_a_living_stranger_is_not() {
        let tree = tree_of_this_process();
        let uid = getuid().as_raw();
        let me = Sender { pid: Some(Pid(std::process::id())), uid };
        assert_eq!(judge(Some(me), &tree, uid + 1), Ok(Standing::Member));
        let parent = Pid(std::os::unix::process::parent_id());
        assert_eq!(judge(Some(Sender { pid: Some(parent), uid }), &tree, uid), Err(Unbelieved::Outsider(parent)));
    }

    #[test]
    fn one_that_cannot_be_seen_is_believed_by_its_user() {
        let tree = tree_of_this_process();
        for pid in [Some(Pid(i32::MAX.unsigned_abs())), None] {
            assert_eq!(judge(Some(Sender { pid, uid: 7 }), &tree, 7), Ok(Standing::Departed));
            let refused = Err(Unbelieved::OtherUser { uid: 8, expected: 7 });
            assert_eq!(judge(Some(Sender { pid, uid: 8 }), &tree, 7), refused);
        }
        assert_eq!(judge(None, &tree, 7), Err(Unbelieved::Anonymous));
    }
}
