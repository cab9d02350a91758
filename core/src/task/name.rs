//! Names that workers choose, bounded once at the edge, and the numbers that say who owns what.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::id::{Launch, Pid};

/// Why a text is no name.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum NameError {
    /// Nothing was given.
    #[error("{what} cannot be empty")]
    Empty {
        /// Which kind of name.
        what: &'static str,
    },
    /// Too many bytes.
    #[error("{what} has {bytes} bytes, at most {most} are allowed")]
    TooLong {
        /// Which kind of name.
        what: &'static str,
        /// How many it has.
        bytes: usize,
        /// How many it may have.
        most: usize,
    },
    /// A control character, which would garble tables and logs.
    #[error("{what} holds a control character")]
    Control {
        /// Which kind of name.
        what: &'static str,
    },
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $most:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// The most bytes it may have.
            pub const MOST: usize = $most;

            /// Takes a text as a name.
            ///
            /// # Errors
            /// It is empty, too long, or holds a control character.
            pub fn new(text: &str) -> Result<Self, NameError> {
                if text.is_empty() {
                    return Err(NameError::Empty { what: $what });
                }
                if text.len() > $most {
                    return Err(NameError::TooLong { what: $what, bytes: text.len(), most: $most });
                }
                if text.chars().any(char::is_control) {
                    return Err(NameError::Control { what: $what });
                }
                Ok(Self(text.into()))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                Self::new(&text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.as_str().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name! {
    /// A task, within the whole instance. Chosen by its worker (so that a `begin` sent again is known) or drawn.
    TaskId, "a task id", 128
}
name! {
    /// What sort of work: the series that its durations belong to.
    Kind, "a kind", 64
}
name! {
    /// Tasks that must see one version.
    Session, "a session", 512
}
name! {
    /// An idempotency key, within its app.
    Key, "a key", 512
}
name! {
    /// An effect, within its task.
    EffectKey, "an effect's key", 512
}

impl TaskId {
    /// The id for a task whose worker gave none.
    pub(super) fn drawn(entropy: u64) -> Self {
        Self(format!("{entropy:016x}").into())
    }

    /// The instance-wide id of a task told by datagram (`X_AGENTD_TASK_BEGIN=id`), whose own id is its worker's alone.
    /// Cut to the longest that an id may be; control characters become `?`.
    #[must_use]
    pub fn told(launch: Launch, id: &str) -> Self {
        let mut text = format!("{launch}.");
        for char in id.chars().map(|c| if c.is_control() { '?' } else { c }) {
            if text.len() + char.len_utf8() > Self::MOST {
                break;
            }
            text.push(char);
        }
        Self(text.into())
    }
}

/// Who owns a task now. Rises each time a task is taken from its owner; every write carries it, and a write with
/// another one than the task's is refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fence(pub u64);

impl Fence {
    /// The first owner's.
    pub const FIRST: Self = Self(1);

    /// The next owner's.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A connection of a worker, never used twice while the supervisor lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Link(pub u64);

/// Who says something: proven by its token and its peer credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Speaker {
    /// Which process start it belongs to.
    pub launch: Launch,
    /// Which of its processes it is; a worker may be many.
    pub pid: Pid,
    /// Over which connection.
    pub link: Link,
}
