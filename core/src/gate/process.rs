//! Evidence against "as good as before" that may be looked at after every observation.
//!
//! A process is a bank of bets at fair odds, each begun with a stake of 1 and played with every observation. If the new
//! version is no worse, no way of watching makes the average fortune reach `x` with a probability over `1/x` (Ville 1939):
//! so peeking costs nothing. If it is worse, one of the bets fits and grows exponentially.
//!
//! Owns the bets. What is bet against comes from a [`Baseline`], which is frozen while a stage runs.

use serde::{Deserialize, Serialize};

use super::beta;

/// How much worse each bet says the bad rate is, as a multiple of its odds.
const ODDS: [f64; 5] = [1.5, 2.0, 3.0, 5.0, 10.0];
/// The quantiles of the baseline at which numbers are compared.
const QUANTILES: [f64; 4] = [0.5, 0.75, 0.9, 0.95];
/// What each bet on a mean stakes, as a share of the most that cannot be lost.
const STAKES: [f64; 5] = [0.1, 0.2, 0.4, 0.6, 0.8];
/// How sure the baseline's bad rate is to lie under the one bet against.
const BASELINE_LEVEL: f64 = 0.8;
/// A rate of 1 leaves nothing to bet on.
const RATE_MAX: f64 = 0.999;

/// What the old version did, as bets against it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Baseline {
    /// Bad or good.
    Rate(Rate),
    /// A number; bad is to be over a threshold, one for each quantile.
    Numbers(Vec<(f64, Rate)>),
    /// A score from 0 to 1, bad when its mean is under this.
    Mean(f64),
}

/// What each bet wins and loses against the bad rate that is taken for granted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Rate {
    /// Logarithm of the growth at a bad observation, and at a good one.
    growth: [(f64, f64); ODDS.len()],
}

impl Rate {
    pub(super) fn new(bad: f64, all: usize, floor: f64) -> Self {
        let p0 = beta::upper_bound(bad, all as f64, BASELINE_LEVEL).clamp(floor, RATE_MAX);
        let growth = ODDS.map(|multiple| {
            let odds = multiple * p0 / (1.0 - p0);
            let worse = odds / (1.0 + odds);
            ((worse / p0).ln(), ((1.0 - worse) / (1.0 - p0)).ln())
        });
        Self { growth }
    }

    fn play(&self, bad: bool, bets: &mut [f64]) {
        for (bet, (at_bad, at_good)) in bets.iter_mut().zip(self.growth) {
            *bet += if bad { at_bad } else { at_good };
        }
    }
}

impl Baseline {
    pub(super) fn of_rate(bad: usize, all: usize, floor: f64) -> Self {
        Self::Rate(Rate::new(bad as f64, all, floor))
    }

    /// Numbers up to `tol` worse count as no worse: the share of the baseline over each quantile is the rate that the
    /// new version may have over the quantile times `1 + tol`.
    pub(super) fn of_numbers(values: &[f64], tol: f64) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let threshold = |quantile: f64| {
            let tau = sorted[((sorted.len() as f64 * quantile).ceil() as usize).clamp(1, sorted.len()) - 1];
            // Of whole numbers fewer lie over the quantile than its share, by the accident of where the ties end.
            let over = (1.0 - quantile) * sorted.len() as f64;
            (tau * (1.0 + tol), Rate::new(over, sorted.len(), f64::MIN_POSITIVE))
        };
        Self::Numbers(QUANTILES.map(threshold).to_vec())
    }

    pub(super) fn of_scores(mean: f64, margin: f64) -> Self {
        Self::Mean((mean - margin).clamp(0.0, RATE_MAX))
    }

    /// How many bets a process against it has.
    const fn bets(&self) -> usize {
        match self {
            Self::Rate(_) => ODDS.len(),
            Self::Numbers(_) => ODDS.len() * QUANTILES.len(),
            Self::Mean(_) => STAKES.len(),
        }
    }
}

/// A bank of bets begun together: the logarithm of each one's fortune.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Process {
    bets: Vec<f64>,
}

impl Process {
    pub(super) fn new(baseline: &Baseline) -> Self {
        Self { bets: vec![0.0; baseline.bets()] }
    }

    pub(super) fn observe(&mut self, x: f64, baseline: &Baseline) {
        match baseline {
            Baseline::Rate(rate) => rate.play(x > 0.0, &mut self.bets),
            Baseline::Numbers(thresholds) => {
                for (bets, (threshold, rate)) in self.bets.chunks_mut(ODDS.len()).zip(thresholds) {
                    rate.play(x > *threshold, bets);
                }
            }
            Baseline::Mean(mean) => {
                for (bet, stake) in self.bets.iter_mut().zip(STAKES) {
                    *bet += (stake * (mean - x) / (1.0 - mean)).ln_1p();
                }
            }
        }
    }
}

/// Logarithm of the average fortune over all bets of all processes: they have as many bets each.
pub(super) fn log_mean(processes: &[Process]) -> f64 {
    let bets = || processes.iter().flat_map(|process| &process.bets);
    let most = bets().copied().fold(f64::NEG_INFINITY, f64::max);
    if most == f64::NEG_INFINITY {
        return 0.0;
    }
    let sum: f64 = bets().map(|bet| (bet - most).exp()).sum();
    most + (sum / bets().count() as f64).ln()
}
