//! The restart policy seen as a circuit breaker: is a worker trusted, on trial, or left alone for now?
//!
//! ```text
//!            crash                       the wait is over
//!  Closed ──────────► Open { until } ─────────────────────► HalfOpen
//!    ▲                  ▲     │                               │   │
//!    │                  │     └ too many: Open, until somebody │   │ crash
//!    │                  └──────── starts it                    │   │
//!    │                  └──────────────────────────────────────┼───┘
//!    └───────────────── served for `backoff_max` ──────────────┘
//! ```
//!
//! Owns nothing and decides nothing: it is a view of [`RestartHistory`] and the worker's state, in the field's own words
//! (Nygard, *Release It!*, 2007). An app's breaker is that of the worker which is trusted most: connections and tasks go
//! there, and only when nobody is left does the app as a whole let nothing through.
//!
//! [`RestartHistory`]: crate::restart::RestartHistory

use crate::app::{App, Desired};
use crate::policy::RestartPolicy;
use crate::time::Moment;
use crate::worker::State;
use crate::worker::state::Worker;

/// Whether what fell is trusted again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breaker {
    /// It did not fall, or served long enough since.
    Closed,
    /// It fell and runs again, on trial.
    HalfOpen {
        /// When it is trusted again, if it serves until then; none before it serves.
        closes_at: Option<Moment>,
    },
    /// It fell and is not started for now.
    Open {
        /// Until when; none where nothing more is tried until somebody starts it.
        until: Option<Moment>,
    },
}

impl Breaker {
    /// Of one worker at `now`.
    #[must_use]
    pub fn of(worker: &Worker, policy: &RestartPolicy, now: Moment) -> Self {
        let on_trial = worker.restarts.consecutive() > 0;
        match &worker.state {
            State::Failed { .. } => Self::Open { until: None },
            State::Backoff { until } => Self::Open { until: Some(*until) },
            State::Starting { .. } if on_trial => Self::HalfOpen { closes_at: None },
            State::Ready { since, .. } if on_trial && *since + policy.backoff_max > now => {
                Self::HalfOpen { closes_at: Some(*since + policy.backoff_max) }
            }
            // Who is on its way out takes nothing because somebody said so.
            State::Starting { .. }
            | State::Ready { .. }
            | State::Draining { .. }
            | State::Stopping { .. }
            | State::Killed { .. }
            | State::Exited => Self::Closed,
        }
    }

    /// Of an app at `now`: of the worker that is trusted most. Closed where nobody is wanted.
    #[must_use]
    pub fn of_app(app: &App, now: Moment) -> Self {
        if app.head.desired != Desired::Running {
            return Self::Closed;
        }
        let each = app.workers.values().map(|worker| Self::of(worker, &app.policy_of(worker).restart, now));
        each.min_by_key(Self::rank).unwrap_or(Self::Closed)
    }

    /// The more it is trusted, and the sooner, the less.
    fn rank(&self) -> (u8, Moment) {
        let never = Moment::from_micros(u64::MAX);
        match self {
            Self::Closed => (0, Moment::from_micros(0)),
            Self::HalfOpen { closes_at } => (1, closes_at.unwrap_or(never)),
            Self::Open { until } => (2, until.unwrap_or(never)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::event::Exit;
    use crate::id::{Generation, Revision, Slot, WorkerId};
    use crate::policy::AppPolicy;
    use crate::restart::{RestartHistory, Verdict};
    use crate::time::Tick;

    fn at(secs: u64) -> Moment {
        Moment::from_micros(secs * 1_000_000)
    }

    fn worker(slot: u32, state: State, crashes: u32) -> Worker {
        let policy = AppPolicy::default();
        let mut restarts = RestartHistory::default();
        for _ in 0..crashes {
            let verdict = restarts.after_exit(Tick { now: at(1), entropy: 0 }, &policy.restart, Exit::Code(1), None);
            assert!(matches!(verdict, Verdict::Again { .. }));
        }
        let id = WorkerId { app: "a".parse().unwrap(), slot: Slot(slot), generation: Generation(1) };
        Worker { id, revision: Revision(1), lane: None, state, restarts, last_exit: None }
    }

    fn breaker(state: State, crashes: u32, now: u64) -> Breaker {
        Breaker::of(&worker(0, state, crashes), &AppPolicy::default().restart, at(now))
    }

    fn process() -> crate::worker::Process {
        crate::worker::Process {
            launch: crate::id::Launch(1),
            kernel: None,
            started_at: at(0),
            tasks: std::collections::BTreeMap::new(),
            in_hand: 0,
            drains_itself: false,
            watchdog: None,
        }
    }

    fn ready(since: u64) -> State {
        State::Ready { process: process(), since: at(since), proof: crate::event::Proof::Running, probe: None }
    }

    #[test]
    fn a_worker_that_fell_is_open_while_it_waits_on_trial_while_it_serves_and_trusted_once_it_served_long_enough() {
        assert_eq!(breaker(ready(1), 0, 2), Breaker::Closed, "it never fell");
        assert_eq!(breaker(State::Backoff { until: at(9) }, 1, 2), Breaker::Open { until: Some(at(9)) });
        let starting = State::Starting { process: process(), ready_by: at(60), refuted: None };
        assert_eq!(breaker(starting.clone(), 1, 10), Breaker::HalfOpen { closes_at: None });
        assert_eq!(breaker(starting, 0, 10), Breaker::Closed, "its first start is no trial");
        let long = AppPolicy::default().restart.backoff_max;
        assert_eq!(breaker(ready(10), 1, 11), Breaker::HalfOpen { closes_at: Some(at(10) + long) });
        assert_eq!(breaker(ready(10), 1, 10 + long.as_secs()), Breaker::Closed);
        assert_eq!(breaker(State::Failed { why: "no".to_owned() }, 0, 2), Breaker::Open { until: None });
    }

    #[test]
    fn an_app_lets_through_what_its_most_trusted_worker_does() {
        let mut app = App::new("a".parse().unwrap(), Revision(1), AppPolicy::default());
        app.head.desired = Desired::Running;
        let mut put = |slot, state, crashes| app.workers.insert(Slot(slot), Box::new(worker(slot, state, crashes)));
        put(0, State::Failed { why: "no".to_owned() }, 3);
        put(1, State::Backoff { until: at(9) }, 1);
        assert_eq!(Breaker::of_app(&app, at(5)), Breaker::Open { until: Some(at(9)) });
        app.workers.insert(Slot(2), Box::new(worker(2, ready(1), 0)));
        assert_eq!(Breaker::of_app(&app, at(5)), Breaker::Closed);
        app.workers.clear();
        app.workers.insert(Slot(0), Box::new(worker(0, State::Failed { why: "no".to_owned() }, 3)));
        assert_eq!(Breaker::of_app(&app, at(5)), Breaker::Open { until: None });
        app.head.desired = Desired::Stopped;
        assert_eq!(Breaker::of_app(&app, at(5) + Duration::from_secs(1)), Breaker::Closed);
    }
}
