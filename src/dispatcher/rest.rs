//! What the daemon does before it rests: it makes ready what the next start needs, and lets go of its code.
//!
//! ```text
//! awake ── nothing for REST_AFTER ──► resting ── anything ──► awake
//! ```
//!
//! A daemon is at rest most of its life, beside workers that could use the memory. Of its code a start needs ten times what
//! waiting does; the kernel keeps what is mapped for those who mapped it, and lets go of the rest first when memory is short.
//!
//! What can go wrong is told in the log, and nothing depends on it.

use std::time::Duration;

use agentd_core::time::Moment;

use super::Dispatcher;
use crate::process::sys;

/// How long nothing has to happen. What happens more often finds everything in place.
const REST_AFTER: Duration = Duration::from_secs(2);

/// Whether the daemon rests.
#[derive(Debug)]
pub(super) enum Rest {
    /// Something happened lately.
    Awake {
        /// When it rests, should nothing happen any more.
        until: Moment,
    },
    /// Nothing has happened since it came to rest.
    Resting,
}

impl Rest {
    pub(super) fn begin(now: Moment) -> Self {
        Self::Awake { until: now + REST_AFTER }
    }

    /// The loop has turned. Whether it comes to rest by that, because nothing but its own timer made it turn.
    pub(super) fn turned(&mut self, now: Moment) -> bool {
        let rests = matches!(self, Self::Awake { until } if *until <= now);
        *self = if rests { Self::Resting } else { Self::begin(now) };
        rests
    }

    pub(super) const fn wake(&self) -> Option<Moment> {
        match self {
            Self::Awake { until } => Some(*until),
            Self::Resting => None,
        }
    }
}

impl Dispatcher {
    /// To be called whenever the loop has turned.
    pub(super) fn rest(&mut self) {
        if !self.rest.turned(sys::boottime()) {
            return;
        }
        if self.cgroups.is_some() {
            self.launcher.make_ready();
        }
        if let Err(error) = sys::let_go_of_program() {
            tracing::debug!(%error, "its code stays in memory");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Moment {
        Moment::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn it_rests_once_when_nothing_happened_and_again_after_something_did() {
        let mut rest = Rest::begin(at(10));
        assert!(!rest.turned(at(11)), "something happened");
        assert_eq!(rest.wake(), Some(at(13)));
        assert!(rest.turned(at(13)));
        assert_eq!(rest.wake(), None, "nothing wakes it");
        assert!(!rest.turned(at(100)));
        assert_eq!(rest.wake(), Some(at(102)));
        assert!(rest.turned(at(102)));
    }
}
