//! Names of things: parsed once at the edge, then carried as types.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Longest app name: it becomes part of file names, socket names and cgroup names.
pub const APP_NAME_MAX: usize = 64;

/// The name of an app: 1 to 64 of `a-z A-Z 0-9 _ -`, starting with a letter or digit.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AppName(Arc<str>);

/// Why a text is no app name.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum AppNameError {
    /// Nothing was given.
    #[error("an app name cannot be empty")]
    Empty,
    /// More than [`APP_NAME_MAX`] bytes.
    #[error("app name has {0} characters, at most {APP_NAME_MAX} are allowed")]
    TooLong(usize),
    /// Reserved by the command line, where it means every app.
    #[error("\"all\" means every app and cannot be an app's name")]
    Reserved,
    /// A character outside the allowed set, or a bad first one.
    #[error("app name {0:?} may only hold a-z, A-Z, 0-9, '_' and '-', and starts with a letter or digit")]
    Character(String),
}

impl AppName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AppName {
    type Err = AppNameError;

    fn from_str(s: &str) -> Result<Self, AppNameError> {
        if s.is_empty() {
            return Err(AppNameError::Empty);
        }
        if s.len() > APP_NAME_MAX {
            return Err(AppNameError::TooLong(s.len()));
        }
        if s == "all" {
            return Err(AppNameError::Reserved);
        }
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        if !s.bytes().all(allowed) || !s.as_bytes()[0].is_ascii_alphanumeric() {
            return Err(AppNameError::Character(s.to_owned()));
        }
        Ok(Self(s.into()))
    }
}

impl TryFrom<String> for AppName {
    type Error = AppNameError;

    fn try_from(s: String) -> Result<Self, AppNameError> {
        s.parse()
    }
}

impl From<AppName> for String {
    fn from(name: AppName) -> Self {
        name.as_str().to_owned()
    }
}

impl fmt::Display for AppName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for AppName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl $name {
            /// The next one after this.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number_id! {
    /// A numbered place for a worker within its app.
    Slot(u32)
}
number_id! {
    /// The workers that one deployment started from one revision. Rises by one a deployment, within an app.
    Generation(u64)
}
number_id! {
    /// One configuration (later: release) of an app. Opaque to core; the shell keeps what it stands for.
    Revision(u64)
}
number_id! {
    /// One process start, unique within an instance for ever: every event about a process carries it, so that
    /// a late word about a dead predecessor is never taken for news of its successor.
    Launch(u64)
}
number_id! {
    /// Index of a socket within an app's listening group (its kernel reuseport index).
    Lane(u32)
}
number_id! {
    /// A command that changes something, from its admission to its end. A reload's is its deployment's id.
    Operation(u64)
}
number_id! {
    /// A process id of the kernel. Never trusted alone: see `process::adopt`.
    Pid(u32)
}

/// Which worker: the app, its slot and the generation that it belongs to. Written `support.0.17`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WorkerId {
    /// The app.
    pub app: AppName,
    /// Its place.
    pub slot: Slot,
    /// The deployment that started it.
    pub generation: Generation,
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.app, self.slot, self.generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_app_name_becomes_part_of_paths_and_so_is_held_to_safe_characters() {
        for good in ["a", "web-search", "A_1", "0x"] {
            assert_eq!(good.parse::<AppName>().map(|n| n.to_string()), Ok(good.to_owned()));
        }
        for bad in ["", "../x", "a/b", "-x", "_x", "a b", "ä", "all", &"x".repeat(65)] {
            assert!(bad.parse::<AppName>().is_err(), "{bad:?} was taken");
        }
    }
}
