//! How often something may happen: at most so many times within a period, and how often it was held back.
//!
//! Owns the memory of one limited thing. Time is an argument; nothing here can fail.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::Moment;

/// At most `count` times within any `period`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// Times.
    pub count: u32,
    /// Within this.
    pub period: Duration,
}

/// What was let through lately.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limiter {
    /// Moments at which it was, oldest first; as many as the rate's count.
    passed: VecDeque<Moment>,
    held_back: u64,
}

/// Whether it may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Yes; so many others were held back since it last did.
    Pass {
        /// How many.
        held_back: u64,
    },
    /// No; so many were held back by now, this one included.
    HeldBack {
        /// How many.
        held_back: u64,
    },
}

impl Limiter {
    /// Decides one occasion at `now`.
    pub fn admit(&mut self, now: Moment, rate: Rate) -> Pace {
        while self.passed.front().is_some_and(|&first| now.since(first) >= rate.period) {
            self.passed.pop_front();
        }
        if self.passed.len() >= rate.count as usize {
            return self.hold_back();
        }
        self.passed.push_back(now);
        Pace::Pass { held_back: std::mem::take(&mut self.held_back) }
    }

    /// Counts one that does not happen for another reason than the rate.
    pub fn hold_back(&mut self) -> Pace {
        self.held_back += 1;
        Pace::HeldBack { held_back: self.held_back }
    }

    /// How many were held back since it last happened.
    #[must_use]
    pub const fn held_back(&self) -> u64 {
        self.held_back
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { count: 2, period: Duration::from_secs(10) };

    fn at(second: u64) -> Moment {
        Moment::default() + Duration::from_secs(second)
    }

    #[test]
    fn what_comes_too_often_is_held_back_counted_and_told_when_it_passes_again() {
        let mut limiter = Limiter::default();
        let decided: Vec<_> = [0, 1, 2, 3, 9, 10, 10, 11].map(|second| limiter.admit(at(second), RATE)).to_vec();
        let (pass, held) = (|held_back| Pace::Pass { held_back }, |held_back| Pace::HeldBack { held_back });
        assert_eq!(decided, [pass(0), pass(0), held(1), held(2), held(3), pass(3), held(1), pass(1)]);
    }

    #[test]
    fn no_period_ever_holds_more_than_the_rate() {
        let (mut limiter, mut passed) = (Limiter::default(), Vec::new());
        for second in (0..300).map(|n: u64| n * n / 40) {
            if matches!(limiter.admit(at(second), RATE), Pace::Pass { .. }) {
                passed.push(second);
            }
        }
        assert!(passed.len() > 2 && passed.windows(3).all(|three| three[2] - three[0] >= 10), "{passed:?}");
    }
}
