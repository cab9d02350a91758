//! What the daemon does while nothing happens: it makes ready what the next start needs, and then lets go of its code and of
//! what it has in memory of its database.
//!
//! ```text
//!        ┌── nothing for READY_AFTER ──► ready ── nothing for rest::AFTER ─► resting
//!      awake ◄──────────── anything ───────┴─────────── anything ───────────────┘
//! ```
//!
//! [`process::rest`](crate::process::rest) says what for. While it rests nothing wakes it.
//!
//! What can go wrong is told in the log, and nothing depends on it.

use std::time::Duration;

use agentd_core::time::Moment;

use super::Dispatcher;
use crate::causes::in_full;
use crate::process::{rest, sys};

/// How long nothing has to happen until the next start is seen to: in the middle of many it would hinder them.
const READY_AFTER: Duration = Duration::from_millis(20);

/// How much the daemon rests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// Something happened just now.
    Awake {
        /// When all is to be made ready, should nothing happen any more.
        until: Moment,
    },
    /// What the next start needs is there.
    Ready {
        /// When it rests.
        until: Moment,
    },
    /// Nothing has happened since it let go of its code.
    Resting,
}

impl Rest {
    pub(super) fn begin(now: Moment) -> Self {
        Self::Awake { until: now + READY_AFTER }
    }

    /// After a turn of the loop, in which something happened or only a timer was due.
    fn turned(self, now: Moment, happened: bool) -> Self {
        match self {
            _ if happened => Self::begin(now),
            Self::Awake { until } if until <= now => Self::Ready { until: now + rest::AFTER },
            Self::Ready { until } if until <= now => Self::Resting,
            Self::Awake { .. } | Self::Ready { .. } | Self::Resting => self,
        }
    }

    pub(super) const fn wake(&self) -> Option<Moment> {
        match self {
            Self::Awake { until } | Self::Ready { until } => Some(*until),
            Self::Resting => None,
        }
    }
}

impl Dispatcher {
    /// To be called whenever the loop has turned.
    pub(super) fn rest(&mut self, happened: bool) {
        let next = self.rest.turned(sys::boottime(), happened);
        if next == self.rest {
            return;
        }
        self.rest = next;
        match next {
            Rest::Awake { .. } => {}
            Rest::Ready { .. } => self.make_ready(),
            Rest::Resting => {
                self.store.let_go_of_cache();
                rest::let_go();
            }
        }
    }

    /// What the next start needs, whichever worker's it is: a zygote, and its cgroup.
    fn make_ready(&mut self) {
        let Some(cgroups) = &self.cgroups else { return };
        if let Err(error) = cgroups.make(self.fleet.counters().launch) {
            tracing::debug!(error = in_full(&error), "the next start has to make its cgroup by itself");
        }
        self.launcher.make_ready();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(millis: u64) -> Moment {
        Moment::from_micros(millis * 1_000)
    }

    #[test]
    fn it_comes_to_rest_in_two_steps_and_what_happens_wakes_it() {
        let awake = Rest::begin(at(0)).turned(at(10), true);
        assert_eq!(awake, Rest::Awake { until: at(30) });
        assert_eq!(awake.turned(at(90), true), Rest::Awake { until: at(110) }, "a turn may take long");
        assert_eq!(awake.turned(at(20), false), awake, "another timer was due");
        let ready = awake.turned(at(30), false);
        assert_eq!(ready, Rest::Ready { until: at(2_030) });
        assert_eq!(ready.turned(at(1_000), true), Rest::Awake { until: at(1_020) });
        let resting = ready.turned(at(2_030), false);
        assert_eq!(resting, Rest::Resting);
        assert_eq!(resting.wake(), None, "nothing wakes it");
        assert_eq!(resting.turned(at(5_000), false), Rest::Resting, "another timer was due");
        assert_eq!(resting.turned(at(9_000), true), Rest::Awake { until: at(9_020) });
    }
}
