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
//!
//! Blue-green and canary keep both generations beside each other until it is decided ([`stage`]); what is decided then is
//! carried out by the same algorithm as everything else: the old ones go, or the deployment goes back.

mod plan;
mod stage;

pub use plan::{JudgedBy, Plan, Strategy};
pub use stage::{Judgement, Pace, Stage};

use serde::{Deserialize, Serialize};

use crate::effect::{OperationKind, Toll};
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
    #[serde(alias = "report")]
    pub toll: Toll,
    /// How it goes about it.
    #[serde(default)]
    pub plan: Plan,
    /// How far it is, while it goes forward.
    #[serde(default)]
    pub stage: Stage,
    /// Whether it may take its next step.
    #[serde(default)]
    pub pace: Pace,
    /// When each stage was reached, in order.
    #[serde(default)]
    pub steps: Vec<StepReached>,
}

/// A stage of a deployment that was reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepReached {
    /// Which: `preparing`, `checking`, `replacing`, `raising`, `verifying`, `sharing`, `warm`, `retiring`, `back`.
    pub name: StepName,
    /// Percent of new connections that the new generation gets from then on, where shares are by stage.
    pub percent: Option<u8>,
    /// When.
    pub at: Moment,
}

/// The name of a stage, for the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepName {
    /// What has to succeed first is being done.
    Preparing,
    /// Open checkpoints are shown to the new release.
    Checking,
    /// Worker by worker.
    Replacing,
    /// New workers start.
    Raising,
    /// They are verified.
    Verifying,
    /// They get a part of the new connections.
    Sharing,
    /// They get all; the old ones stay at hand.
    Warm,
    /// The old ones finish.
    Retiring,
    /// It goes back.
    Back,
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

/// Both generations of a deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sides {
    /// What served before.
    pub from: Side,
    /// What was asked for.
    pub to: Side,
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
        /// Who decided so.
        #[serde(default)]
        by: BackBy,
    },
}

/// Who took a deployment back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackBy {
    /// A failure: a worker, a verification, a gate.
    #[default]
    Failure,
    /// A person.
    Person,
}

impl Rollout {
    /// A deployment at its beginning.
    #[must_use]
    pub fn begin(
        id: Operation,
        kind: OperationKind,
        sides: Sides,
        plan: Plan,
        policy: &AppPolicy,
        now: Moment,
    ) -> Self {
        let Sides { from, to } = sides;
        let new = brings_something_new(kind);
        let plan = Plan { prepares: policy.prepares && new, ..plan };
        let whole = from.count.max(to.count);
        let (surge, unavailable) = match (plan.strategy, policy.lanes) {
            // First the end, then the beginning: for what holds an exclusive lock, and for a clean slate.
            (Strategy::Recreate, _) => (0, whole),
            // All of the new beside all of the old.
            (Strategy::BlueGreen | Strategy::Canary, _) => (whole, 0),
            // One lane a generation: all of it comes, then all of it goes.
            (Strategy::Rolling, Lanes::PerGeneration) => (whole, 0),
            // With room neither above nor under the number nothing could ever move.
            (Strategy::Rolling, Lanes::None | Lanes::PerWorker) => {
                match (policy.reload.max_surge, policy.reload.max_unavailable) {
                    (0, 0) => (1, 0),
                    room => room,
                }
            }
        };
        // Nobody can be looked at before anybody went, where there is no room for one more.
        let verifies = plan.verifies && new && surge > 0 && plan.strategy == Strategy::Rolling;
        let plan = Plan { verifies, ..plan };
        let mut rollout = Self {
            id,
            kind,
            from,
            to,
            direction: Direction::Forward,
            surge,
            unavailable,
            started_at: now,
            toll: Toll::default(),
            stage: Stage::first(&plan),
            plan,
            pace: Pace::Going,
            steps: Vec::new(),
        };
        rollout.note_step(now);
        rollout
    }

    /// Notes the stage that was just reached.
    pub(crate) fn note_step(&mut self, at: Moment) {
        let name = match (&self.direction, &self.stage) {
            (Direction::Back { .. }, _) => StepName::Back,
            (Direction::Forward, Stage::Preparing) => StepName::Preparing,
            (Direction::Forward, Stage::Checking { .. }) => StepName::Checking,
            (Direction::Forward, Stage::Replacing) => StepName::Replacing,
            (Direction::Forward, Stage::Raising { .. }) => StepName::Raising,
            (Direction::Forward, Stage::Verifying { .. }) => StepName::Verifying,
            (Direction::Forward, Stage::Sharing { .. }) => StepName::Sharing,
            (Direction::Forward, Stage::Warm { .. }) => StepName::Warm,
            (Direction::Forward, Stage::Retiring) => StepName::Retiring,
        };
        self.steps.push(StepReached { name, percent: self.percent(), at });
    }

    /// Percent of the new connections that the new generation gets; none where shares follow readiness alone.
    #[must_use]
    pub fn percent(&self) -> Option<u8> {
        match self.direction {
            Direction::Forward => self.stage.percent(&self.plan),
            // What was refused before it had any gets none on its way out.
            Direction::Back { .. } => {
                let unproven = matches!(self.stage, Stage::Raising { .. } | Stage::Verifying { .. });
                (self.plan.is_staged() || unproven).then_some(0)
            }
        }
    }

    /// Whether both generations stay, each as it is, until it is decided.
    #[must_use]
    pub fn is_undecided(&self) -> bool {
        let undecided = match self.stage {
            Stage::Preparing
            | Stage::Checking { .. }
            | Stage::Raising { .. }
            | Stage::Verifying { .. }
            | Stage::Sharing { .. }
            | Stage::Warm { .. } => true,
            Stage::Replacing | Stage::Retiring => false,
        };
        undecided && self.direction == Direction::Forward
    }

    /// Whether gates may take it back while it replaces worker by worker: another release does so. Nothing waits for their
    /// word there: what is sure that it is worse condemns it, and else it goes on as its workers prove themselves.
    #[must_use]
    pub fn is_judged_on_the_way(&self) -> bool {
        let another = matches!(self.kind, OperationKind::Upgrade | OperationKind::Rollback);
        let rolling = self.stage == Stage::Replacing && self.plan.strategy == Strategy::Rolling;
        another && rolling && self.direction == Direction::Forward && self.plan.judged_by == JudgedBy::Gates
    }

    /// Whether workers of `generation` are on their way out.
    #[must_use]
    pub fn is_leaving(&self, generation: Generation) -> bool {
        !self.is_undecided() && generation != self.target()
    }

    /// The new workers that are wanted now, and beside them the old ones.
    #[must_use]
    pub fn raised(&self) -> Side {
        let count = match self.stage {
            // Nobody before it may begin, or before it is known what they could read.
            Stage::Preparing | Stage::Checking { last: false } => 0,
            Stage::Checking { last: true }
            | Stage::Replacing
            | Stage::Raising { .. }
            | Stage::Verifying { .. }
            | Stage::Sharing { .. }
            | Stage::Warm { .. }
            | Stage::Retiring => self.stage.step().map_or(self.to.count, |step| match self.plan.strategy {
                Strategy::Rolling | Strategy::Recreate => self.surge.min(self.to.count),
                Strategy::BlueGreen | Strategy::Canary => self.plan.workers_at(step, self.to.count),
            }),
        };
        Side { count, ..self.to }
    }

    /// How many workers there may be beyond the new ones that are wanted now, while both generations stay.
    #[must_use]
    pub fn beside_raised(&self) -> u32 {
        match self.plan.strategy {
            Strategy::Rolling | Strategy::Recreate => {
                self.from.count.saturating_add(self.surge).saturating_sub(self.raised().count)
            }
            Strategy::BlueGreen | Strategy::Canary => self.surge,
        }
    }

    /// When time alone moves it on.
    #[must_use]
    pub fn due(&self) -> Option<Moment> {
        match (&self.direction, self.pace) {
            (Direction::Forward, Pace::Going) => self.stage.due(&self.plan),
            (Direction::Forward, Pace::Paused) | (Direction::Back { .. }, _) => None,
        }
    }

    /// Why it stands still though nothing failed, in words; none while it moves.
    #[must_use]
    pub fn waits_for(&self) -> Option<String> {
        match (&self.direction, self.pace, &self.stage) {
            (Direction::Back { .. }, _, _) => None,
            (Direction::Forward, Pace::Paused, _) => Some("`resume` lets it go on".to_owned()),
            (
                Direction::Forward,
                Pace::Going,
                Stage::Sharing { judgement: Judgement::Hold { why }, .. }
                | Stage::Warm { judgement: Judgement::Hold { why }, .. },
            ) => Some(why.clone()),
            (Direction::Forward, Pace::Going, Stage::Sharing { judgement: Judgement::TooFew, .. })
                if self.plan.judged_by == JudgedBy::Gates =>
            {
                Some("too few tasks were seen to judge by".to_owned())
            }
            (Direction::Forward, Pace::Going, _) => None,
        }
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

    /// Whether a failing new worker takes it back. What was warm for long enough is decided.
    #[must_use]
    pub fn reversible(&self) -> bool {
        self.can_go_back() && self.stage != Stage::Retiring
    }

    /// Whether it can be taken back at all.
    #[must_use]
    pub fn can_go_back(&self) -> bool {
        self.kind != OperationKind::Restart && self.direction == Direction::Forward
    }

    /// Whether the two generations must never run at the same time.
    #[must_use]
    pub fn is_exclusive(&self) -> bool {
        self.plan.strategy == Strategy::Recreate
    }

    /// How many workers are ready at least, as long as nothing crashes.
    #[must_use]
    pub fn floor(&self) -> u32 {
        self.from.count.min(self.to.count).saturating_sub(self.unavailable)
    }
}

/// Whether a deployment of this kind is one that somebody may want to prepare for. What ends and begins the same, or
/// changes a number, must not depend on a command.
const fn brings_something_new(kind: OperationKind) -> bool {
    match kind {
        OperationKind::Reload | OperationKind::Upgrade | OperationKind::Rollback => true,
        OperationKind::Start
        | OperationKind::Stop
        | OperationKind::Delete
        | OperationKind::Restart
        | OperationKind::Scale
        | OperationKind::Adopt
        | OperationKind::Refresh => false,
    }
}
