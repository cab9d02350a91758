//! Renewing what the workers of an app know, one after the other, without another process.
//!
//! Owns which worker is asked next, how long it may take, and what came of each. Pure; how a worker is asked (a request,
//! a signal, a word of its protocol) is the shell's. `app::refreshing` ties it to the app.
//!
//! ```text
//!           ┌────────── the next one ──────────┐
//!           ▼                                  │
//! begun ► Looking ── one serves ──► Asked ─────┤ renewed, told, or on its way out for another reason
//!           │  ▲                      │ ▲ │
//!           │  └ those left start     │ └─┘ the supervisor died: it is asked again
//!           │                         └ refused, too late, or it fell ──► over: failed, the others keep what they know
//!           └ nobody is left ──► over: done
//! ```
//!
//! **The first that fails ends it.** Knowledge that one worker cannot read, or hangs on, must not meet the others: they
//! serve on with what they have. **Only who is there is asked**: whoever starts later reads it at its start.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::effect::OperationResult;
use crate::id::{Launch, Operation, WorkerId};
use crate::time::Moment;

/// Durations that are remembered.
const DURATIONS_MAX: usize = 200;

/// What is kept of an app's refreshes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Refreshes {
    /// The one that runs.
    pub running: Option<Refresh>,
    /// The last one that ended.
    pub last: Option<Ended>,
    /// How long the last renewals took that were seen to their end, in milliseconds, the oldest first.
    pub took_ms: VecDeque<u64>,
}

/// A refresh that runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Refresh {
    /// Its number.
    pub id: Operation,
    /// When it was admitted.
    pub started_at: Moment,
    /// Where it is.
    pub stage: Stage,
    /// Process starts that are still to be asked.
    pub left: BTreeSet<Launch>,
    /// What came of those before.
    pub renewals: Vec<Renewal>,
}

/// Where a refresh is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// It looks for the next worker that serves.
    Looking,
    /// One was asked.
    Asked {
        /// Whom.
        worker: WorkerId,
        /// Which of its process starts.
        launch: Launch,
        /// When.
        since: Moment,
        /// When no answer counts as a failure.
        until: Moment,
    },
}

/// What came of one worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renewal {
    /// Which.
    pub worker: WorkerId,
    /// What.
    pub outcome: RenewalOutcome,
    /// How long it was asked.
    pub took: Duration,
}

/// What came of asking one worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RenewalOutcome {
    /// It said that it knows it by now.
    Renewed,
    /// It was told, by a way on which it says nothing back.
    Told,
    /// It was on its way out. Whoever took its place read it at its start.
    Gone,
    /// It refused, did not answer in time, or fell.
    Failed {
        /// In one sentence.
        why: String,
    },
    /// It was not asked, because one before it failed.
    Spared,
}

/// What a worker answered, as far as it can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefreshAnswer {
    /// It is done.
    Renewed,
    /// It was told, and there is nothing to wait for.
    Told,
}

/// A refresh that is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Its number.
    pub id: Operation,
    /// How it ended.
    pub result: OperationResult,
    /// Why, unless it is done.
    pub why: Option<String>,
    /// When; none once the machine was started anew since.
    pub finished_at: Option<Moment>,
    /// What came of each worker.
    pub renewals: Vec<Renewal>,
}

impl Refresh {
    /// One of these process starts, with nobody asked yet.
    #[must_use]
    pub fn begin(id: Operation, now: Moment, left: BTreeSet<Launch>) -> Self {
        Self { id, started_at: now, stage: Stage::Looking, left, renewals: Vec::new() }
    }

    /// When the one that was asked is too late.
    #[must_use]
    pub fn due(&self) -> Option<Moment> {
        match self.stage {
            Stage::Looking => None,
            Stage::Asked { until, .. } => Some(until),
        }
    }

    /// Asks this one.
    pub(crate) fn ask(&mut self, worker: WorkerId, launch: Launch, now: Moment, within: Duration) {
        self.left.remove(&launch);
        self.stage = Stage::Asked { worker, launch, since: now, until: now + within };
    }

    /// Whoever was asked has come to an outcome; none when nobody was.
    pub(crate) fn answered(&mut self, now: Moment, outcome: RenewalOutcome) -> Option<&Renewal> {
        let Stage::Asked { worker, since, .. } = std::mem::replace(&mut self.stage, Stage::Looking) else {
            return None;
        };
        self.renewals.push(Renewal { worker, outcome, took: now.since(since) });
        self.renewals.last()
    }

    /// The one that was asked may not have heard it: its supervisor died. It is asked again; to renew twice is no harm.
    pub(crate) fn resume(&mut self) {
        if let Stage::Asked { launch, .. } = self.stage {
            self.left.insert(launch);
            self.stage = Stage::Looking;
        }
    }

    /// Why it cannot go on.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        self.renewals.iter().find_map(|renewal| match &renewal.outcome {
            RenewalOutcome::Failed { why } => Some(format!("{} {why}", renewal.worker)),
            RenewalOutcome::Renewed | RenewalOutcome::Told | RenewalOutcome::Gone | RenewalOutcome::Spared => None,
        })
    }
}

impl Refreshes {
    /// Remembers how long a renewal took that was seen to its end.
    pub(crate) fn learn(&mut self, took: Duration) {
        self.took_ms.push_back(u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
        while self.took_ms.len() > DURATIONS_MAX {
            self.took_ms.pop_front();
        }
    }

    /// The machine was started anew: every worker reads it at its start, and moments mean nothing.
    pub fn forget_the_running(&mut self) {
        if let Some(refresh) = self.running.take() {
            self.last = Some(Ended {
                id: refresh.id,
                result: OperationResult::Aborted,
                why: Some("the machine was started anew, and every worker with it".to_owned()),
                finished_at: None,
                renewals: refresh.renewals,
            });
        }
        if let Some(last) = &mut self.last {
            last.finished_at = None;
        }
    }
}
