//! A deployment: one generation of workers takes the place of another.
//!
//! ```text
//!                                  every new worker ready,
//!              ┌────────────────── old ones gone ──────────────► done
//!              │
//!  begun ─► Forward ── a new worker fails ──► Back ── new ones gone, old ones back ──► rolled back
//!              │         (reload, scale)       │
//!              │                               │
//!              ├── a new worker fails ──► failed            (restart: there is nothing to go back to)
//!              └───────────┴── stop, delete ──► aborted
//! ```
//!
//! Going back is the same deployment with the two generations in each other's place: one algorithm, by levels
//! (`app::reconcile`), which at every moment may start as many workers as `surge` leaves room for, and may drain as
//! many as keep `count − unavailable` ready. So a crash of anything at any step is no special case.
//!
//! Happy path with `max_surge = 1`: a new worker starts in the spare slot, is proven ready, gets its share of new
//! connections; the old one in the lowest slot gets none any more, finishes what it has, is kept warm until the new
//! one has lived for `settle`, is told to end; its slot is the next spare one.

use serde::{Deserialize, Serialize};

use crate::effect::{DeploymentReport, OperationKind};
use crate::id::{Generation, Launch, Operation, Revision};
use crate::policy::{AppPolicy, Lanes};
use crate::time::Moment;

/// A deployment that runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rollout {
    /// Its operation.
    pub id: Operation,
    /// What was asked for: reload, restart, or a scale that needs a new generation.
    pub kind: OperationKind,
    /// What served before.
    pub from: Side,
    /// What was asked for.
    pub to: Side,
    /// Which way it goes.
    pub direction: Direction,
    /// How many workers may run beyond the wanted number.
    pub surge: u32,
    /// How many of the wanted number may be missing.
    pub unavailable: u32,
    /// When it began.
    pub started_at: Moment,
    /// What it did to the work in flight so far.
    pub report: DeploymentReport,
}

/// One of the two generations of a deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Side {
    /// Which.
    pub generation: Generation,
    /// The configuration of its workers.
    pub revision: Revision,
    /// How many of them serve.
    pub count: u32,
}

/// Which way a deployment goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// To what was asked for.
    Forward,
    /// To what was before.
    Back {
        /// Why, in one sentence.
        why: String,
        /// The process start to blame.
        culprit: Option<Launch>,
    },
}

impl Rollout {
    /// A deployment at its beginning.
    #[must_use]
    pub fn begin(
        id: Operation,
        kind: OperationKind,
        from: Side,
        to: Side,
        policy: &AppPolicy,
        started_at: Moment,
    ) -> Self {
        let whole = from.count.max(to.count);
        let (surge, unavailable) = match (kind, policy.lanes) {
            // First the end, then the beginning: for what holds an exclusive lock, and for a clean slate.
            (OperationKind::Restart, _) => (0, whole),
            // One lane a generation: all of it comes, then all of it goes.
            (_, Lanes::PerGeneration) => (whole, 0),
            // With room neither above nor under the number nothing could ever move.
            (_, Lanes::None | Lanes::PerWorker) => match (policy.reload.max_surge, policy.reload.max_unavailable) {
                (0, 0) => (1, 0),
                room => room,
            },
        };
        let report = DeploymentReport { from: from.generation, to: to.generation, ..DeploymentReport::default() };
        Self { id, kind, from, to, direction: Direction::Forward, surge, unavailable, started_at, report }
    }

    /// The side that is to serve in the end.
    #[must_use]
    pub fn target_side(&self) -> Side {
        match self.direction {
            Direction::Forward => self.to,
            Direction::Back { .. } => self.from,
        }
    }

    /// The generation that is to serve in the end.
    #[must_use]
    pub fn target(&self) -> Generation {
        self.target_side().generation
    }

    /// Whether a failing new worker takes it back.
    #[must_use]
    pub fn reversible(&self) -> bool {
        self.kind != OperationKind::Restart && self.direction == Direction::Forward
    }

    /// How many workers are ready at least, as long as nothing crashes.
    #[must_use]
    pub fn floor(&self) -> u32 {
        self.from.count.min(self.to.count).saturating_sub(self.unavailable)
    }
}
