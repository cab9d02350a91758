//! How far a deployment is that has both generations beside each other.
//!
//! ```text
//!              ready              passed               dwell over, promoted
//!  Raising(0) ──────► Verifying(0) ──────► Sharing(0) ─────────────────────► Raising(1) … Sharing(last)
//!      │                  │                    │                                             │
//!      │                  │ refused            │ condemned by a gate                         │ the same
//!      │ a new worker     ▼                    ▼                                             ▼
//!      └─ fails ──────► back  ◄──────────────────────────── a failure, a gate, ──────────  Warm
//!                  (all new connections to the old at once)     a person                     │ stability over,
//!                                                                                            │ or promoted
//!                                                                                            ▼
//!                                                                                  Retiring ──► done
//! ```
//!
//! Blue-green is a canary without steps: `Raising(0) → Verifying(0) → Warm → Retiring`. Rolling and recreating
//! deployments are at [`Stage::Replacing`] all the way; `app::reconcile` moves them slot by slot. Where a rolling one is to
//! be verified, its first new workers, as many as `surge` has room for, are raised and verified before:
//! `Raising(0) → Verifying(0) → Replacing`.
//!
//! Where the new release is shown copies of open checkpoints, `Checking` comes before the first of these, with nobody
//! started yet; where both generations stay for long, once more before `Retiring`, for the tasks of the meantime. Where
//! something has to succeed beforehand, `Preparing` comes before all others, whatever the strategy.

use serde::{Deserialize, Serialize};

use super::plan::{JudgedBy, Plan, Strategy};
use crate::time::Moment;

/// Where a deployment that goes forward is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// What has to succeed before anything else is being done; nobody was started, and nothing looked at.
    Preparing,
    /// The new release is shown copies of open checkpoints.
    Checking {
        /// Whether all of it serves already: what follows is the end of the old generation.
        last: bool,
    },
    /// Worker by worker, without stages.
    #[default]
    Replacing,
    /// The new workers that this step needs are starting. Shares are as at the step before.
    Raising {
        /// Which step, from 0.
        step: usize,
    },
    /// They are ready, and being verified before they get anything.
    Verifying {
        /// Which step.
        step: usize,
    },
    /// They get this step's part of the new connections.
    Sharing {
        /// Which step.
        step: usize,
        /// Since when.
        since: Moment,
        /// What the gates said last.
        judgement: Judgement,
    },
    /// They get all new connections; the old generation can still have them back at once.
    Warm {
        /// Since when.
        since: Moment,
        /// What the gates said last.
        judgement: Judgement,
    },
    /// It is decided: the old generation finishes what it has.
    Retiring,
}

/// What the gates say of the new generation. That it must go back is an event of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Judgement {
    /// Too little was seen.
    #[default]
    TooFew,
    /// Nothing counts against it.
    Promote,
    /// Something may.
    Hold {
        /// What, with figures.
        why: String,
    },
}

/// Whether a deployment may take its next step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pace {
    /// As soon as it can.
    #[default]
    Going,
    /// Not before somebody says so. A failure still takes it back.
    Paused,
}

impl Stage {
    /// Where a deployment by `plan` begins.
    #[must_use]
    pub fn first(plan: &Plan) -> Self {
        if plan.prepares { Self::Preparing } else { Self::prepared(plan) }
    }

    /// What follows once it is prepared.
    fn prepared(plan: &Plan) -> Self {
        if plan.checks { Self::Checking { last: false } } else { Self::begun(plan) }
    }

    /// Where new workers begin to start.
    fn begun(plan: &Plan) -> Self {
        if plan.is_staged() || plan.verifies { Self::Raising { step: 0 } } else { Self::Replacing }
    }

    /// Percent of the new connections that go to the new generation; none where shares follow readiness alone.
    #[must_use]
    pub fn percent(&self, plan: &Plan) -> Option<u8> {
        match self {
            Self::Replacing => None,
            Self::Preparing => plan.is_staged().then_some(0),
            Self::Checking { last } => plan.is_staged().then_some(if *last { 100 } else { 0 }),
            Self::Raising { step } | Self::Verifying { step } => {
                Some(step.checked_sub(1).map_or(0, |before| plan.percent(before)))
            }
            Self::Sharing { step, .. } => Some(plan.percent(*step)),
            Self::Warm { .. } | Self::Retiring => Some(100),
        }
    }

    /// Which step's workers are wanted; none where all are.
    #[must_use]
    pub fn step(&self) -> Option<usize> {
        match self {
            Self::Raising { step } | Self::Verifying { step } | Self::Sharing { step, .. } => Some(*step),
            Self::Preparing | Self::Checking { .. } | Self::Replacing | Self::Warm { .. } | Self::Retiring => None,
        }
    }

    /// When it is left by time; none while something else must happen first.
    #[must_use]
    pub fn due(&self, plan: &Plan) -> Option<Moment> {
        match self {
            Self::Sharing { since, judgement, .. } => {
                let judged = match (plan.judged_by, judgement) {
                    (JudgedBy::Time, Judgement::TooFew | Judgement::Promote)
                    | (JudgedBy::Gates, Judgement::Promote) => true,
                    (JudgedBy::Gates, Judgement::TooFew) | (_, Judgement::Hold { .. }) => false,
                };
                judged.then(|| *since + plan.dwell)
            }
            Self::Warm { since, judgement } => match judgement {
                Judgement::TooFew | Judgement::Promote => Some(*since + plan.stability),
                Judgement::Hold { .. } => None,
            },
            Self::Preparing
            | Self::Checking { .. }
            | Self::Replacing
            | Self::Raising { .. }
            | Self::Verifying { .. }
            | Self::Retiring => None,
        }
    }

    /// The stage after this one, once it is left for the better at `now`.
    #[must_use]
    pub fn next(&self, plan: &Plan, now: Moment) -> Self {
        let warm = Self::Warm { since: now, judgement: Judgement::TooFew };
        match self {
            Self::Preparing => Self::prepared(plan),
            Self::Checking { last: false } => Self::begun(plan),
            Self::Checking { last: true } => Self::Retiring,
            Self::Replacing => Self::Replacing,
            Self::Raising { step } => Self::Verifying { step: *step },
            Self::Verifying { .. } if !plan.is_staged() => Self::Replacing,
            Self::Verifying { .. } if plan.strategy == Strategy::BlueGreen || plan.steps.is_empty() => warm,
            Self::Verifying { step } => Self::Sharing { step: *step, since: now, judgement: Judgement::TooFew },
            Self::Sharing { step, .. } if step + 1 < plan.steps.len() => Self::Raising { step: step + 1 },
            Self::Sharing { .. } => warm,
            Self::Warm { .. } if plan.checks => Self::Checking { last: true },
            Self::Warm { .. } | Self::Retiring => Self::Retiring,
        }
    }

    /// Whether what the gates say matters here; takes it in if so.
    pub fn take_judgement(&mut self, said: Judgement) -> bool {
        match self {
            Self::Sharing { judgement, .. } | Self::Warm { judgement, .. } if *judgement != said => {
                *judgement = said;
                true
            }
            Self::Sharing { .. }
            | Self::Warm { .. }
            | Self::Preparing
            | Self::Checking { .. }
            | Self::Replacing
            | Self::Raising { .. }
            | Self::Verifying { .. }
            | Self::Retiring => false,
        }
    }
}
