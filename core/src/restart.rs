//! When a worker that ended by itself is started again: at once, after a wait, or not until somebody asks.
//!
//! The wait doubles with each crash from `backoff_min` to `backoff_max` and is drawn from its upper half, so that
//! workers that fell together do not rise together ("equal jitter", Brooker, *Exponential Backoff And Jitter*, 2015).
//! A worker that had served for `backoff_max` is forgiven: its restart is immediate and the doubling starts anew.
//! More than `max` restarts within `period` park it (Erlang's restart intensity).

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::event::Exit;
use crate::policy::{RestartPolicy, RestartWhen};
use crate::time::{Moment, Tick};

/// What a worker's past exits amount to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartHistory {
    /// Restarts within the period, oldest first; never more than `max` long.
    recent: VecDeque<Moment>,
    /// Crashes since the worker was last forgiven.
    consecutive: u32,
    /// All restarts since the worker was made.
    total: u32,
}

/// What follows an exit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Start again after `delay` (zero: at once).
    Again {
        /// How long to wait.
        delay: Duration,
        /// Which restart within the period this is, from 1.
        attempt: u32,
    },
    /// The policy wants no restart after such an exit.
    Stay,
    /// Too many: wait for a person.
    Park {
        /// How many restarts there were within the period.
        restarts: u32,
    },
}

impl RestartHistory {
    /// All restarts since the worker was made.
    #[must_use]
    pub fn total(&self) -> u32 {
        self.total
    }

    /// Crashes since the worker was last forgiven.
    #[must_use]
    pub fn consecutive(&self) -> u32 {
        self.consecutive
    }

    /// Decides what follows an exit and notes a restart. `served` is how long the worker was ready, none when it
    /// never was.
    pub fn after_exit(&mut self, tick: Tick, policy: &RestartPolicy, exit: Exit, served: Option<Duration>) -> Verdict {
        match policy.when {
            RestartWhen::Never => return Verdict::Stay,
            RestartWhen::OnFailure if exit.is_success() => return Verdict::Stay,
            RestartWhen::OnFailure | RestartWhen::Always => {}
        }
        while self.recent.front().is_some_and(|&at| tick.now.since(at) > policy.period) {
            self.recent.pop_front();
        }
        let attempt = u32::try_from(self.recent.len()).unwrap_or(u32::MAX).saturating_add(1);
        if attempt > policy.max {
            return Verdict::Park { restarts: attempt - 1 };
        }
        let forgiven = served.is_some_and(|served| served >= policy.backoff_max);
        let delay = if forgiven {
            self.consecutive = 0;
            Duration::ZERO
        } else {
            let doubled = policy.backoff_min.saturating_mul(2_u32.saturating_pow(self.consecutive.min(31)));
            self.consecutive = self.consecutive.saturating_add(1);
            upper_half(doubled.min(policy.backoff_max), tick.entropy)
        };
        self.recent.push_back(tick.now);
        self.total = self.total.saturating_add(1);
        Verdict::Again { delay, attempt }
    }

    /// A person asked for a start: what was is forgotten, but for the total.
    pub fn forgive(&mut self) {
        self.recent.clear();
        self.consecutive = 0;
    }
}

/// A duration between half of `full` and `full`, by `entropy`.
pub(crate) fn upper_half(full: Duration, entropy: u64) -> Duration {
    let micros = u64::try_from(full.as_micros()).unwrap_or(u64::MAX);
    let half = micros / 2;
    let span = micros - half + 1;
    Duration::from_micros(half + if span == 0 { 0 } else { entropy % span })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POLICY: RestartPolicy = RestartPolicy {
        when: RestartWhen::Always,
        backoff_min: Duration::from_millis(100),
        backoff_max: Duration::from_secs(30),
        max: 3,
        period: Duration::from_secs(60),
    };

    fn tick(secs: u64) -> Tick {
        Tick { now: Moment::from_micros(secs * 1_000_000), entropy: u64::MAX }
    }

    #[test]
    fn the_fourth_crash_within_the_period_parks_when_three_are_allowed() {
        let mut history = RestartHistory::default();
        for second in 0..3 {
            assert!(matches!(history.after_exit(tick(second), &POLICY, Exit::Code(1), None), Verdict::Again { .. }));
        }
        assert_eq!(history.after_exit(tick(3), &POLICY, Exit::Code(1), None), Verdict::Park { restarts: 3 });
        assert!(matches!(
            history.after_exit(tick(70), &POLICY, Exit::Code(1), None),
            Verdict::Again { attempt: 1, .. }
        ));
    }

    #[test]
    fn a_worker_that_served_long_enough_is_restarted_at_once() {
        let mut history = RestartHistory::default();
        let served = Some(POLICY.backoff_max);
        let verdict = history.after_exit(tick(100), &POLICY, Exit::Signal(9), served);
        assert_eq!(verdict, Verdict::Again { delay: Duration::ZERO, attempt: 1 });
    }

    #[test]
    fn a_clean_exit_is_left_alone_under_on_failure() {
        let policy = RestartPolicy { when: RestartWhen::OnFailure, ..POLICY };
        assert_eq!(RestartHistory::default().after_exit(tick(1), &policy, Exit::Code(0), None), Verdict::Stay);
    }

    proptest! {
        #[test]
        fn the_wait_lies_in_the_upper_half_of_its_doubling(crashes in 0_u32..40, entropy: u64) {
            let policy = RestartPolicy { max: 100, ..POLICY };
            let mut history = RestartHistory::default();
            let mut full = policy.backoff_min;
            for n in 0..=crashes {
                let tick = Tick { now: Moment::from_micros(u64::from(n)), entropy };
                let Verdict::Again { delay, attempt } = history.after_exit(tick, &policy, Exit::Code(1), None) else {
                    panic!("parked under a limit of 100");
                };
                prop_assert_eq!(attempt, n + 1);
                prop_assert!(delay >= full / 2 && delay <= full, "{delay:?} outside {full:?}");
                full = (full * 2).min(policy.backoff_max);
            }
        }
    }
}
