//! How a deployment goes about it: its strategy, and what that strategy needs to know.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// By which road one generation takes the place of another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// Worker by worker, new beside old.
    #[default]
    Rolling,
    /// All of the new beside all of the old, then every new connection to the new at once.
    BlueGreen,
    /// All of the old stays while the new gets a growing part of the new connections.
    Canary,
    /// First the end of the old, then the beginning of the new: for what cannot run twice.
    Recreate,
}

/// What decides that a canary may take its next step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JudgedBy {
    /// The gates: enough tasks were seen, and none of them counts against the new version.
    #[default]
    Gates,
    /// Time alone; only a failure takes it back.
    Time,
}

/// The plan of one deployment, as it was when it began.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// By which road.
    pub strategy: Strategy,
    /// Percent of the new connections that the new generation gets, step by step; rising, the last is 100. Empty but
    /// for a canary.
    pub steps: Vec<u8>,
    /// Least time at each step.
    pub dwell: Duration,
    /// How long the old generation stays, ready and without new connections, after the last step.
    pub stability: Duration,
    /// What lets a canary take its next step.
    pub judged_by: JudgedBy,
    /// Whether the new release is shown copies of open checkpoints before it takes anything over.
    #[serde(default)]
    pub checks: bool,
    /// Whether something has to succeed before anything of it begins.
    #[serde(default)]
    pub prepares: bool,
    /// Whether a rolling deployment has its first new workers verified before any old one goes. Those that are staged
    /// always have.
    #[serde(default)]
    pub verifies: bool,
}

impl Plan {
    /// Workers one by one, as a reload does.
    #[must_use]
    pub fn rolling() -> Self {
        Self::default()
    }

    /// First the end of all, as a restart does.
    #[must_use]
    pub fn recreate() -> Self {
        Self { strategy: Strategy::Recreate, ..Self::default() }
    }

    /// Whether both generations stand beside each other until it is decided.
    #[must_use]
    pub fn is_staged(&self) -> bool {
        match self.strategy {
            Strategy::BlueGreen | Strategy::Canary => true,
            Strategy::Rolling | Strategy::Recreate => false,
        }
    }

    /// How many of `count` new workers must be there for `step`: as many as its part of the connections asks for, at
    /// least one. Without steps: all.
    #[must_use]
    pub fn workers_at(&self, step: usize, count: u32) -> u32 {
        let percent = self.steps.get(step).map_or(100, |&percent| u32::from(percent.min(100)));
        count.saturating_mul(percent).div_ceil(100).max(1).min(count)
    }

    /// Percent of new connections at `step`; 100 beyond the last.
    #[must_use]
    pub fn percent(&self, step: usize) -> u8 {
        self.steps.get(step).copied().unwrap_or(100).min(100)
    }
}
