//! How long a drain may take.
//!
//! Static in this version: the configured default within its bounds. The estimator of grace.md takes this
//! function's place; its callers already treat the answer as a bound and never as a wait.

use std::time::Duration;

use crate::policy::GracePolicy;

/// The longest that a drain beginning now may take.
#[must_use]
pub fn bound(policy: &GracePolicy) -> Duration {
    policy.default.clamp(policy.min, policy.max.max(policy.min))
}
