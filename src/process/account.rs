//! Who a worker runs as: the user, the group and the further groups of a configuration, and becoming them.
//!
//! Owns the look-up of names, which account may be taken by whom, and the change itself, which is the shim's: the
//! supervisor stays who it is. Names are looked up at each start, so an account that was made anew counts as it is now.
//!
//! What can go wrong: there is no such user or group; a number has no entry and no `group` beside it; the supervisor is
//! not root and is asked to become somebody else. Nothing is started then. The kernel does not hold back who may
//! become anybody: as long as the shim is root it does what needs rights, and after [`Taken::become_it`] it has none.

use std::ffi::CString;
use std::io;

use camino::Utf8PathBuf;
use nix::unistd::{Gid, Group, Uid, User, getegid, geteuid, getgrouplist, setgroups, setresgid, setresuid};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Where somebody without an entry is at home.
const NOWHERE: &str = "/";

/// Who to run as, as it is configured: names or numbers. Empty means the supervisor's own user and groups.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// The user.
    pub user: Option<String>,
    /// The group; the user's own without it.
    pub group: Option<String>,
    /// Groups beside those that the user is in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
}

/// Why an account cannot be taken.
#[derive(Debug, Error)]
pub enum AccountError {
    /// Nobody has the name.
    #[error("there is no user \"{0}\"")]
    NoUser(String),
    /// No group has the name.
    #[error("there is no group \"{0}\"")]
    NoGroup(String),
    /// A number without an entry tells no group.
    #[error("user {0} has no entry that tells its group: set `group` as well")]
    NoGroupOf(Uid),
    /// The machine's list of users could not be asked.
    #[error("look up \"{name}\"")]
    LookUp {
        /// What was looked up.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// Only root becomes somebody else.
    #[error("only a daemon that runs as root starts workers as {wanted}; this one runs as {us}")]
    NotRoot {
        /// As who.
        wanted: String,
        /// Who we are.
        us: Uid,
    },
}

/// An account, looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Its user.
    pub uid: Uid,
    /// Its group.
    pub gid: Gid,
    /// All its further groups, sorted.
    pub groups: Vec<Gid>,
    /// Its name, home and shell, where it has an entry.
    entry: Option<(String, Utf8PathBuf, Utf8PathBuf)>,
}

impl Account {
    /// Whether it says nothing.
    #[must_use]
    pub const fn is_unset(&self) -> bool {
        self.user.is_none() && self.group.is_none() && self.groups.is_empty()
    }

    /// Looks it up, and checks that this process may become it.
    ///
    /// # Errors
    /// [`AccountError`].
    pub fn look_up(&self) -> Result<Taken, AccountError> {
        let (us, own_group) = (geteuid(), getegid());
        let entry = match &self.user {
            Some(user) => user_of(user)?,
            None => Entry { uid: us, user: User::from_uid(us).ok().flatten() },
        };
        let Entry { uid, user } = entry;
        let gid = match (&self.group, &user) {
            (Some(group), _) => group_of(group)?,
            (None, Some(user)) if self.user.is_some() => user.gid,
            (None, _) if self.user.is_none() => own_group,
            (None, _) => return Err(AccountError::NoGroupOf(uid)),
        };
        let mut groups = match &user {
            Some(user) => member_of(user, gid)?,
            None => vec![gid],
        };
        for group in &self.groups {
            groups.push(group_of(group)?);
        }
        groups.sort_by_key(|gid| gid.as_raw());
        groups.dedup();
        if !us.is_root() && (uid != us || gid != own_group || !self.groups.is_empty()) {
            return Err(AccountError::NotRoot { wanted: self.to_string(), us });
        }
        let utf8 = |path: std::path::PathBuf| Utf8PathBuf::from_path_buf(path).unwrap_or_else(|_| NOWHERE.into());
        let entry = user.map(|user| (user.name, utf8(user.dir), utf8(user.shell)));
        Ok(Taken { uid, gid, groups, entry })
    }
}

impl std::fmt::Display for Account {
    /// In the words of the file: `user "web", group "www"`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let user = self.user.iter().map(|name| ("user", name));
        let groups = self.group.iter().chain(&self.groups).map(|name| ("group", name));
        let mut between = "";
        for (what, name) in user.chain(groups) {
            write!(f, "{between}{what} \"{name}\"")?;
            between = ", ";
        }
        Ok(())
    }
}

impl Taken {
    /// What tells a program who it is: `HOME`, `USER`, `LOGNAME` and `SHELL`.
    #[must_use]
    pub fn variables(&self) -> Vec<(String, String)> {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        match &self.entry {
            Some((name, home, shell)) => vec![
                pair("HOME", home.as_str()),
                pair("USER", name),
                pair("LOGNAME", name),
                pair("SHELL", if shell.as_str().is_empty() { "/bin/sh" } else { shell.as_str() }),
            ],
            None => vec![pair("HOME", NOWHERE)],
        }
    }

    /// Becomes it, for good: real, effective and saved. Without root there is nothing to become, which was checked.
    ///
    /// # Errors
    /// What the kernel refused; the process is to end then.
    pub(super) fn become_it(&self) -> Result<(), nix::errno::Errno> {
        if geteuid().is_root() {
            setgroups(&self.groups)?;
            setresgid(self.gid, self.gid, self.gid)?;
            setresuid(self.uid, self.uid, self.uid)?;
        }
        Ok(())
    }
}

struct Entry {
    uid: Uid,
    user: Option<User>,
}

fn looked_up(name: &str) -> impl Fn(nix::errno::Errno) -> AccountError {
    move |errno| AccountError::LookUp { name: name.to_owned(), source: errno.into() }
}

/// A name first, as everywhere: somebody may be called by a number.
fn user_of(text: &str) -> Result<Entry, AccountError> {
    if let Some(user) = User::from_name(text).map_err(looked_up(text))? {
        return Ok(Entry { uid: user.uid, user: Some(user) });
    }
    let uid = number(text).map(Uid::from_raw).ok_or_else(|| AccountError::NoUser(text.to_owned()))?;
    Ok(Entry { uid, user: User::from_uid(uid).map_err(looked_up(text))? })
}

/// The group of this name or number.
///
/// # Errors
/// [`AccountError::NoGroup`], [`AccountError::LookUp`].
pub fn group_of(text: &str) -> Result<Gid, AccountError> {
    match Group::from_name(text).map_err(looked_up(text))? {
        Some(group) => Ok(group.gid),
        None => number(text).map(Gid::from_raw).ok_or_else(|| AccountError::NoGroup(text.to_owned())),
    }
}

/// The user of this name or number.
///
/// # Errors
/// [`AccountError::NoUser`], [`AccountError::LookUp`].
pub fn uid_of(text: &str) -> Result<Uid, AccountError> {
    user_of(text).map(|entry| entry.uid)
}

/// Digits, and not the number that stands for "leave it as it is".
fn number(text: &str) -> Option<u32> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|&number| digits && number != u32::MAX)
}

fn member_of(user: &User, gid: Gid) -> Result<Vec<Gid>, AccountError> {
    let name = CString::new(user.name.as_str()).map_err(|_| AccountError::NoUser(user.name.clone()))?;
    getgrouplist(&name, gid).map_err(looked_up(&user.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(user: &str, group: &str) -> Account {
        let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Account { user: given(user), group: given(group), groups: Vec::new() }
    }

    #[test]
    fn nobody_and_no_group_are_told_by_name() {
        let error = account("no-such-user-here", "").look_up().expect_err("refused");
        assert_eq!(error.to_string(), "there is no user \"no-such-user-here\"");
        let error = account("", "no-such-group-here").look_up().expect_err("refused");
        assert_eq!(error.to_string(), "there is no group \"no-such-group-here\"");
        for text in ["-1", "4294967295", "1e3", ""] {
            assert_eq!(number(text).filter(|_| !text.is_empty()), None, "{text}");
        }
    }

    #[test]
    fn ones_own_account_may_be_taken_by_anybody_and_others_by_root_alone() {
        let (uid, gid) = (geteuid(), getegid());
        let own = account(&uid.to_string(), &gid.to_string()).look_up().expect("it is ours");
        assert_eq!((own.uid, own.gid), (uid, gid));
        let other = account("4000000001", "4000000001").look_up();
        if uid.is_root() {
            let other = other.expect("root becomes anybody");
            assert_eq!(
                (other.groups.as_slice(), other.variables().len()),
                ([Gid::from_raw(4_000_000_001)].as_slice(), 1)
            );
            let error = account("4000000001", "").look_up().expect_err("no group is known");
            assert!(error.to_string().ends_with("set `group` as well"), "{error}");
        } else {
            let error = other.expect_err("refused").to_string();
            assert!(
                error.starts_with("only a daemon that runs as root starts workers as user \"4000000001\""),
                "{error}"
            );
        }
    }
}
