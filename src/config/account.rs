//! `user`, `group`, `groups`: who the workers of an app run as.
//!
//! Owns the reading. Whether there is such a user, and whether this daemon may become it, is asked at once, so that a
//! configuration that cannot work is refused before anything is changed; it is asked again at each start.

use super::reader::TableReader;
use crate::causes::in_full;
use crate::process::account::{Account, AccountError};

/// Reads all three.
pub(super) fn read(table: &TableReader<'_>) -> Account {
    let text = |name| table.get(name).and_then(|field| field.text()).map(str::to_owned);
    let groups = table.get("groups").and_then(|field| field.texts()).unwrap_or_default();
    let account = Account {
        user: text("user"),
        group: text("group"),
        groups: groups.iter().filter_map(|field| field.text()).map(str::to_owned).collect(),
    };
    if account.is_unset() {
        return account;
    }
    if let Err(error) = account.look_up() {
        let named = match &error {
            AccountError::NoGroup(name) if account.group.as_ref() != Some(name) => "groups",
            AccountError::NoGroup(_) => "group",
            AccountError::NoUser(_)
            | AccountError::NoGroupOf(_)
            | AccountError::LookUp { .. }
            | AccountError::NotRoot { .. } => "user",
        };
        if let Some(field) = table.given(&[named, "user", "group", "groups"]).first() {
            field.refuse(in_full(&error));
        }
    }
    account
}
