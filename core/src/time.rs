//! Time as an argument.
//!
//! Core never reads a clock. Every step is given a [`Tick`]: the moment it happens at and 64 bits of chance.

use std::ops::{Add, Sub};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A point on the machine's monotonic clock that counts suspend (`CLOCK_BOOTTIME`), in microseconds since boot.
///
/// It survives the supervisor (two supervisors of one boot agree on it) and means nothing after a reboot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Moment(u64);

impl Moment {
    /// The moment `us` microseconds after boot.
    #[must_use]
    pub const fn from_micros(us: u64) -> Self {
        Self(us)
    }

    /// Microseconds since boot.
    #[must_use]
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// Time from `earlier` to `self`; zero when `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, by: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(by.as_micros()).unwrap_or(u64::MAX)))
    }
}

impl Sub for Moment {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.since(earlier)
    }
}

/// What a step may know of the outside beside its event: when it is, and a number nobody could foresee.
#[derive(Clone, Copy, Debug)]
pub struct Tick {
    /// When the step happens.
    pub now: Moment,
    /// Uniform over all of `u64`; drawn afresh for each step. Used for jitter only.
    pub entropy: u64,
}
