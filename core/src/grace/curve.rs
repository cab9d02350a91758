//! How likely it is that something which has lasted `a` lasts `a + g`: the survival curve of a series.
//!
//! The body is the product-limit estimate (Kaplan and Meier 1958) over log buckets, with one phantom subject that is
//! always at risk, so that three observations claim no more than three can. From where data gets thin a Pareto tail
//! takes part: durations of agents' work have such tails, and a curve that ends at the longest one ever seen would
//! promise that nothing takes longer. A kind's curve is drawn towards the pool's by the weight of four observations.
//! Each point carries Greenwood's variance (1926), from which [`From::survival`] takes the cautious side.

use super::buckets::{BUCKETS, EDGES, PER_OCTAVE, position};
use super::series::Series;

/// The tail begins where at most this share survives.
const TAIL_FROM: f64 = 0.15;
/// The tail's exponent while nothing is known, and its bounds.
pub(super) const ALPHA0: f64 = 1.5;
const ALPHA_MIN: f64 = 0.8;
const ALPHA_MAX: f64 = 6.0;
/// How many observations the assumed exponent weighs.
const ALPHA_WEIGHT: f64 = 4.0;
/// How many observations the assumed beginning of the tail weighs.
const START_WEIGHT: f64 = 2.0;
/// How many observations the pool's curve weighs in a kind's.
const POOL_WEIGHT: f64 = 4.0;
/// How many standard errors towards the cautious side.
const CONFIDENCE_Z: f64 = 0.5;
/// A bucket's width by the natural logarithm.
const WIDTH: f64 = std::f64::consts::LN_2 / PER_OCTAVE as f64;

/// What is assumed while nothing is known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prior {
    /// Where the assumed tail begins, in seconds: grace.md's `u0`.
    start_s: f64,
}

impl Prior {
    /// The tail which `default_s` seconds bound with the probability `target`.
    #[must_use]
    pub fn new(default_s: f64, target: f64) -> Self {
        Self { start_s: default_s.max(f64::MIN_POSITIVE) * (1.0 - target).max(f64::EPSILON).powf(1.0 / ALPHA0) }
    }
}

/// The survival curve of one series. 3 KiB.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// Logarithm of the share that survives each edge.
    ln_s: [f64; BUCKETS + 1],
    /// Greenwood's sum up to each edge.
    variance: [f64; BUCKETS + 1],
    /// Exponent of the tail.
    alpha: f64,
}

impl Curve {
    /// The curve of an app's pool.
    #[must_use]
    pub fn of_pool(series: &Series, prior: Prior) -> Self {
        Self::of_pool_with(series, Tail::of(series, prior, ALPHA0))
    }

    /// The curve of a pool with a given tail.
    #[must_use]
    pub(super) fn of_pool_with(series: &Series, tail: Tail) -> Self {
        Self::draw(series, tail, |_| Toward { ended: 0.0, at_risk: 0.0 })
    }

    /// The curve of a kind, drawn towards its pool's.
    #[must_use]
    pub fn of_kind(series: &Series, prior: Prior, pool: &Self) -> Self {
        let survives: [f64; BUCKETS + 1] = std::array::from_fn(|j| pool.ln_s[j].exp());
        Self::draw(series, Tail::of(series, prior, pool.alpha), |j| Toward {
            ended: POOL_WEIGHT * (survives[j] - survives[j + 1]),
            at_risk: POOL_WEIGHT * survives[j],
        })
    }

    fn draw(series: &Series, tail: Tail, toward: impl Fn(usize) -> Toward) -> Self {
        let tail_hazard = 1.0 - (-tail.alpha / PER_OCTAVE as f64).exp2();
        let (mut ln_s, mut variance) = ([0.0; BUCKETS + 1], [0.0; BUCKETS + 1]);
        for j in 0..BUCKETS {
            let ended = series.ended(j);
            let toward = toward(j);
            let ending = ended + toward.ended + if j >= tail.bucket { tail_hazard } else { 0.0 };
            let at_risk = series.at_risk(j) + toward.at_risk + 1.0;
            // Most buckets below the first end hold nothing: no logarithm for them.
            ln_s[j + 1] = if ending > 0.0 { ln_s[j] + (-ending / at_risk).ln_1p() } else { ln_s[j] };
            variance[j + 1] = variance[j] + ended / (at_risk * (at_risk - ended));
        }
        Self { ln_s, variance, alpha: tail.alpha }
    }

    /// Logarithm of the survival at a duration in seconds, and its variance. Within a bucket the hazard is even over
    /// the logarithm, as the tail's is.
    fn at(&self, seconds: f64) -> (f64, f64) {
        let (j, share) = position(seconds);
        let ln_s = self.ln_s[j] + share * (self.ln_s[j + 1] - self.ln_s[j]);
        let variance = self.variance[j] + share * (self.variance[j + 1] - self.variance[j]);
        let beyond = seconds / EDGES[BUCKETS];
        if beyond > 1.0 { (ln_s - self.alpha * beyond.ln(), variance) } else { (ln_s, variance) }
    }

    /// A place on the curve from which [`survival`](From::survival) is asked, at an age in seconds.
    #[must_use]
    pub fn from_age(&self, age_s: f64) -> From<'_> {
        let (ln_s, variance) = self.at(age_s);
        From { curve: self, age_s, ln_s, variance }
    }

    /// The share that survives a duration in seconds, with no caution: for display.
    #[must_use]
    pub fn share(&self, seconds: f64) -> f64 {
        self.at(seconds).0.exp()
    }

    /// The duration in seconds which only the share `surviving` outlasts: 0.5 for the median, 0.01 for p99. Without
    /// caution, for display. Infinite when the curve never gets that low.
    #[must_use]
    pub fn quantile(&self, surviving: f64) -> f64 {
        let wanted = surviving.max(f64::MIN_POSITIVE).ln();
        let Some(after) = self.ln_s.iter().position(|ln_s| *ln_s <= wanted) else {
            return EDGES[BUCKETS] * ((self.ln_s[BUCKETS] - wanted) / self.alpha).exp();
        };
        let Some(j) = after.checked_sub(1) else { return EDGES[0] };
        let share = (wanted - self.ln_s[j]) / (self.ln_s[after] - self.ln_s[j]);
        EDGES[j] * (share * WIDTH).exp()
    }
}

/// A place on a curve: something that has lasted so long.
#[derive(Clone, Copy, Debug)]
pub struct From<'a> {
    curve: &'a Curve,
    age_s: f64,
    ln_s: f64,
    variance: f64,
}

impl From<'_> {
    /// Probability that it lasts `more_s` seconds more, on the cautious side: the upper bound at z = 0.5 of the
    /// complementary log-log interval (Kalbfleisch and Prentice 1980).
    #[must_use]
    pub fn survival(&self, more_s: f64) -> f64 {
        let (ln_s, variance) = self.curve.at(self.age_s + more_s);
        let hazard = self.ln_s - ln_s;
        if hazard <= 0.0 {
            return 1.0;
        }
        let error = (variance - self.variance).max(0.0).sqrt();
        if error == 0.0 {
            return (-hazard).exp();
        }
        (-hazard * (-CONFIDENCE_Z * error / hazard).exp()).exp()
    }
}

/// The part of a bucket that comes from the pool.
struct Toward {
    ended: f64,
    at_risk: f64,
}

/// Where the tail begins and how steep it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tail {
    /// The first bucket with the tail's hazard.
    pub(super) bucket: usize,
    /// The exponent: the share that outlasts `x` falls as `x^-alpha`.
    pub(super) alpha: f64,
}

impl Tail {
    /// From what was observed and what is assumed.
    pub(super) fn of(series: &Series, prior: Prior, alpha0: f64) -> Self {
        let from = Self::begins(series);
        let weight = series.at_risk(0);
        let (mut ended, mut exposure) = (0.0, 0.0);
        for j in from..BUCKETS {
            let here = series.ended(j);
            ended += here;
            exposure += (series.at_risk(j) - here / 2.0) * WIDTH;
        }
        let alpha = ((ended + ALPHA_WEIGHT) / (exposure + ALPHA_WEIGHT / alpha0)).clamp(ALPHA_MIN, ALPHA_MAX);
        let start_s = if weight > 0.0 {
            let body = EDGES[from];
            let drawn = (START_WEIGHT * prior.start_s.ln() + weight * body.ln()) / (START_WEIGHT + weight);
            drawn.exp().max(body)
        } else {
            prior.start_s
        };
        Self { bucket: position(start_s).0, alpha }
    }

    /// The first edge that at most [`TAIL_FROM`] of what was seen survives, with no phantom; where the record ends when
    /// so much was cut that none is.
    fn begins(series: &Series) -> usize {
        let (mut survives, mut end) = (1.0, 0);
        for j in 0..BUCKETS {
            let at_risk = series.at_risk(j);
            if at_risk > 0.0 {
                survives *= 1.0 - (series.ended(j) / at_risk).min(1.0);
                end = j + 1;
            }
            if survives <= TAIL_FROM {
                return j + 1;
            }
        }
        end
    }
}
