//! How long a drain may take, learned from what tasks really take.
//!
//! The question: tasks are in flight at known ages; what is the smallest bound within which all of them end with the
//! wanted probability? The answer is read off the survival curve of such tasks, counted from what was observed, with
//! what was cut counted as cut. docs/design/grace.md explains it from the beginning.
//!
//! Owns the estimate and its reason. Does not own tasks (whoever does keeps a [`Run`] with each) nor what happens at the
//! bound. A bound is never a wait: a worker whose tasks are all gone stops at once.
//!
//! Start reading at [`app`], then [`series`] (what is counted) and [`curve`] (what follows from it).

pub mod answer;
pub mod app;
pub mod buckets;
pub mod curve;
pub mod series;

#[cfg(test)]
mod tests;

use std::time::Duration;

pub use answer::{Grace, SettledBy, Until};
pub use app::{AppGrace, Ended, InFlight, Run, SeriesKey, Shape};

use crate::policy::GracePolicy;

/// The longest that a drain may take of which no task is known: the configured default within its bounds.
#[must_use]
pub fn bound(policy: &GracePolicy) -> Duration {
    policy.default.clamp(policy.min, policy.max.max(policy.min))
}
