//! Whether a new version is worse than the old one, judged while its observations come in.
//!
//! One statistic for errors, numbers and scores, valid at every look: docs/design/gates.md explains it from the beginning.
//!
//! Owns the evidence and the verdict on one measure. Does not know deployments: whoever runs one gives the baseline at the
//! beginning of each stage, every observation, and asks for the [`Reading`]. Hard limits, dwell times and what follows
//! from a verdict are the deployment's. A gate that was given too little never passes: it says [`Verdict::TooFew`].

mod beta;
pub mod panel;
mod process;

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use process::{Baseline, Process, log_mean};

/// The error rate allowed to one of eight gates that share 5 %.
pub const ALPHA: f64 = 0.05 / 8.0;
/// Evidence from which nothing is promoted.
pub const HOLD: f64 = 8.0;
/// A baseline of fewer observations is none.
pub const BASELINE_MIN: usize = 50;
/// Most processes of a gate. In a deployment of more stages the last ones share theirs.
const PROCESSES_MAX: usize = 16;

/// What is measured, and how much worse still counts as no worse.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// 1 is bad, 0 is good.
    Binary {
        /// A bad rate up to this is always allowed.
        floor: f64,
    },
    /// Larger is worse: latency, tokens, cost, tool calls, steps, context use.
    Numeric {
        /// How much larger is allowed, as a share.
        tol: f64,
    },
    /// A score from 0 to 1, larger is better.
    Mean {
        /// How much smaller the mean may be.
        margin: f64,
    },
}

/// How one gate judges.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// What is measured.
    pub measure: Measure,
    /// Probability of a rollback without cause, however often it is looked at.
    pub alpha: f64,
    /// Fewest observations of a stage before it is promoted.
    pub n_min: u64,
}

impl Settings {
    /// With the usual error rate and count.
    #[must_use]
    pub const fn new(measure: Measure) -> Self {
        Self { measure, alpha: ALPHA, n_min: 30 }
    }
}

/// Why a setting, a baseline or an observation was refused.
#[derive(Clone, Copy, Debug, Error, PartialEq)]
pub enum GateError {
    /// Not a probability.
    #[error("alpha must lie between 0 and 1, not {0}")]
    Alpha(f64),
    /// Not a rate.
    #[error("floor must be at least 0 and less than 1, not {0}")]
    Floor(f64),
    /// Not a share.
    #[error("tol must be 0 or more, not {0}")]
    Tolerance(f64),
    /// Not a difference of scores.
    #[error("margin must be at least 0 and less than 1, not {0}")]
    Margin(f64),
    /// A binary observation that is neither.
    #[error("a binary gate takes 0 (good) and 1 (bad), not {0}")]
    NotBinary(f64),
    /// A number that is none, or negative.
    #[error("a numeric gate takes numbers from 0 on, not {0}")]
    NotNumber(f64),
    /// A score out of range.
    #[error("a mean gate takes scores from 0 to 1, not {0}")]
    NotScore(f64),
}

/// What follows from a gate, the gravest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The evidence reached `1/alpha`: it is worse.
    Rollback,
    /// The evidence reached [`HOLD`]: no next stage.
    Hold,
    /// Too few observations, or no baseline, to say anything.
    TooFew,
    /// Nothing speaks against the next stage.
    Promote,
}

/// A gate as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// Observations of this stage.
    pub n: u64,
    /// Mean of this stage's observations; the bad rate of a binary gate. None without any.
    pub observed: Option<f64>,
    /// Mean of the baseline; its bad rate. None without one.
    pub baseline: Option<f64>,
    /// Natural logarithm of the evidence; 0 is none either way.
    pub log_e: f64,
    /// What follows.
    pub verdict: Verdict,
}

/// The evidence on one measure over one deployment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gate {
    settings: Settings,
    /// The baseline of this stage, and its mean.
    frozen: Option<(Baseline, f64)>,
    /// One for each stage since the first that had a baseline; each goes on to the end.
    processes: Vec<Process>,
    /// A baseline for the next stage, given while this one runs.
    next: Option<(Baseline, f64)>,
    n: u64,
    sum: f64,
    /// Rolled back is for good: evidence that was reached stays reached.
    peak: f64,
}

impl Gate {
    /// A gate with nothing seen.
    ///
    /// # Errors
    /// [`GateError`] on a setting out of range.
    pub fn new(settings: Settings) -> Result<Self, GateError> {
        if !(settings.alpha > 0.0 && settings.alpha < 1.0) {
            return Err(GateError::Alpha(settings.alpha));
        }
        match settings.measure {
            Measure::Binary { floor } if !(0.0..1.0).contains(&floor) => return Err(GateError::Floor(floor)),
            Measure::Numeric { tol } if !(tol >= 0.0 && tol.is_finite()) => return Err(GateError::Tolerance(tol)),
            Measure::Mean { margin } if !(0.0..1.0).contains(&margin) => return Err(GateError::Margin(margin)),
            Measure::Binary { .. } | Measure::Numeric { .. } | Measure::Mean { .. } => {}
        }
        let processes = Vec::new();
        Ok(Self { settings, frozen: None, processes, next: None, n: 0, sum: 0.0, peak: 0.0 })
    }

    /// Gives what the old version did: of the concurrent cohort, topped up with history of the same kind. It is frozen
    /// while a stage runs: once the stage has an observation, a new baseline waits for the next stage. Fewer than
    /// [`BASELINE_MIN`] are none.
    ///
    /// # Errors
    /// [`GateError`] when an observation is out of range; the former baseline stays.
    pub fn baseline(&mut self, values: &[f64]) -> Result<(), GateError> {
        for value in values {
            self.check(*value)?;
        }
        if values.len() < BASELINE_MIN {
            return Ok(());
        }
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let baseline = match self.settings.measure {
            Measure::Binary { floor } => {
                let bad = values.iter().filter(|value| **value > 0.0).count();
                Baseline::of_rate(bad, values.len(), floor)
            }
            Measure::Numeric { tol } => Baseline::of_numbers(values, tol),
            Measure::Mean { margin } => Baseline::of_scores(mean, margin),
        };
        self.next = Some((baseline, mean));
        if self.n == 0 || self.frozen.is_none() {
            self.freeze();
        }
        Ok(())
    }

    /// A stage begins: its observations are counted anew, and a process is begun that knows nothing of the former ones,
    /// so that a version which turns bad late is not shielded by its good beginning.
    pub fn begin_stage(&mut self) {
        let began_before = self.n > 0;
        (self.n, self.sum) = (0, 0.0);
        self.freeze();
        let Some((baseline, _)) = &self.frozen else { return };
        if began_before && self.processes.len() < PROCESSES_MAX {
            self.processes.push(Process::new(baseline));
        }
    }

    /// Takes in one observation of the new version.
    ///
    /// # Errors
    /// [`GateError`] when it is out of range; nothing changes.
    pub fn observe(&mut self, x: f64) -> Result<Reading, GateError> {
        self.check(x)?;
        self.n += 1;
        self.sum += x;
        if let Some((baseline, _)) = &self.frozen {
            self.processes.iter_mut().for_each(|process| process.observe(x, baseline));
        }
        let log_e = log_mean(&self.processes);
        self.peak = self.peak.max(log_e);
        Ok(self.read(log_e))
    }

    /// The gate as it stands.
    #[must_use]
    pub fn reading(&self) -> Reading {
        self.read(log_mean(&self.processes))
    }

    fn read(&self, log_e: f64) -> Reading {
        let enough = self.n >= self.settings.n_min && self.frozen.is_some();
        let verdict = if self.peak >= -self.settings.alpha.ln() {
            Verdict::Rollback
        } else if log_e >= HOLD.ln() {
            Verdict::Hold
        } else if enough {
            Verdict::Promote
        } else {
            Verdict::TooFew
        };
        Reading {
            n: self.n,
            observed: (self.n > 0).then(|| self.sum / self.n as f64),
            baseline: self.frozen.as_ref().map(|(_, mean)| *mean),
            log_e,
            verdict,
        }
    }

    fn freeze(&mut self) {
        if let Some(next) = self.next.take() {
            if self.processes.is_empty() {
                self.processes.push(Process::new(&next.0));
            }
            self.frozen = Some(next);
        }
    }

    fn check(&self, x: f64) -> Result<(), GateError> {
        match self.settings.measure {
            Measure::Binary { .. } if x != 0.0 && x != 1.0 => Err(GateError::NotBinary(x)),
            Measure::Numeric { .. } if !(x >= 0.0 && x.is_finite()) => Err(GateError::NotNumber(x)),
            Measure::Mean { .. } if !(0.0..=1.0).contains(&x) => Err(GateError::NotScore(x)),
            Measure::Binary { .. } | Measure::Numeric { .. } | Measure::Mean { .. } => Ok(()),
        }
    }
}
