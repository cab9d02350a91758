//! What was observed of one sort of duration: how many were at risk in each bucket, and how many ended there.
//!
//! Owns the counts of one series, their fading and their form on disk. Does not know what the durations are of
//! ([`super::app`]) nor what follows from them ([`super::curve`]).
//!
//! The weights fade by half every 1,024 ends, so that a quiet night forgets nothing. Instead of making all 384 of them
//! smaller at every end, new ones are added larger (`growth`) and readers divide; now and then all are brought back to
//! scale. A duration that was *cut* (killed, crashed, handed over) counts as at risk up to where it was seen and never
//! as ended: leaving it out would make the long ones vanish from the record, and every next deadline shorter.

use thiserror::Error;

use super::buckets::{BUCKETS, EDGES, PER_OCTAVE, index};

/// Ends after which a weight has halved.
pub const HALF_LIFE: f64 = 1024.0;
/// `2^(1/1024)`.
const GROWTH: f64 = 1.000_677_130_693_066_4;
/// The weights are brought back to scale when a new one is this large.
const GROWTH_MAX: f64 = 4_294_967_296.0;
/// Beyond it all is forgotten anyway (`e^-690`), and the powers would leave the range of numbers.
const FADED_MAX: f64 = 690.0;

/// The version of [`Series::to_bytes`]. 1: ends, cut (u64), growth (f64), first bucket and count (u8), then ended and at
/// risk (f64) of each, all little-endian.
const VERSION: u8 = 1;
const HEAD: usize = 1 + 8 + 8 + 8 + 2;

/// One observed duration.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Observation {
    /// Age at which it came under observation, in seconds: not zero for a task that was resumed (left truncation).
    pub age0_s: f64,
    /// Age at which it was last seen, in seconds.
    pub age_s: f64,
    /// Whether it ended there. Otherwise it was cut there and would have gone on (right censoring).
    pub finished: bool,
    /// How many others of its series ended while it ran: it was young that much longer ago.
    pub meanwhile: u64,
}

/// The counts of one series. 3 KiB.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    ends: u64,
    cut: u64,
    growth: f64,
    ended: [f64; BUCKETS],
    at_risk: [f64; BUCKETS],
}

impl Default for Series {
    fn default() -> Self {
        Self { ends: 0, cut: 0, growth: 1.0, ended: [0.0; BUCKETS], at_risk: [0.0; BUCKETS] }
    }
}

/// Why stored bytes are no series.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum BytesError {
    /// It was written by a later version.
    #[error("read a series of durations: it has version {0}, this agentd knows {VERSION}")]
    Version(u8),
    /// It is shorter or longer than it says.
    #[error("read a series of durations: {0} bytes do not fit what its head says")]
    Length(usize),
    /// A number in it is negative, infinite or none, or more ended than were there.
    #[error("read a series of durations: bucket {0} holds an impossible weight")]
    Weight(usize),
}

impl Series {
    /// How many ends it has seen, cut ones included. Not faded.
    #[must_use]
    pub const fn ends(&self) -> u64 {
        self.ends
    }

    /// How many of them were cut.
    #[must_use]
    pub const fn cut(&self) -> u64 {
        self.cut
    }

    /// The faded weight that ended in a bucket: grace.md's `d[j]`.
    #[must_use]
    pub fn ended(&self, bucket: usize) -> f64 {
        self.ended[bucket] / self.growth
    }

    /// The faded weight that was at risk in a bucket: grace.md's `n[j]`.
    #[must_use]
    pub fn at_risk(&self, bucket: usize) -> f64 {
        self.at_risk[bucket] / self.growth
    }

    /// Takes in one end. Durations that are negative or no number count as zero.
    pub fn observe(&mut self, seen: Observation) {
        self.ends += 1;
        self.growth *= GROWTH;
        if self.growth > GROWTH_MAX {
            self.rescale();
        }
        let age = seen.age_s.max(0.0);
        let last = index(age);
        let first = index(seen.age0_s.min(age));
        self.pass(first, last, age, seen.meanwhile);
        if seen.finished {
            self.at_risk[last] += self.growth;
            self.ended[last] += self.growth;
        } else {
            self.cut += 1;
            let passed = (age - EDGES[last]) / (EDGES[last + 1] - EDGES[last]);
            self.at_risk[last] += self.growth * passed.clamp(0.0, 1.0);
        }
    }

    /// At risk in each of `first..last`, with the weight `2^(-(meanwhile/1024)·(1 - edge/age))`: it passed the bucket
    /// when that part of the others had not ended yet.
    fn pass(&mut self, first: usize, last: usize, age: f64, meanwhile: u64) {
        let passed = &mut self.at_risk[first..last];
        if meanwhile == 0 {
            passed.iter_mut().for_each(|weight| *weight += self.growth);
            return;
        }
        let faded = (meanwhile as f64 / HALF_LIFE * std::f64::consts::LN_2).min(FADED_MAX);
        let oldest = self.growth * (-faded).exp();
        // An octave later the edge, and with it the exponent, is twice as large: square instead of `exp` per bucket.
        let power = |j: usize| (faded * EDGES[j.min(BUCKETS)] / age).min(FADED_MAX).exp();
        let mut powers: [f64; PER_OCTAVE] = std::array::from_fn(|k| power(first + k));
        for octave in passed.chunks_mut(PER_OCTAVE) {
            for (weight, power) in octave.iter_mut().zip(&mut powers) {
                *weight += oldest * *power;
                *power *= *power;
            }
        }
    }

    fn rescale(&mut self) {
        for weight in self.ended.iter_mut().chain(&mut self.at_risk) {
            *weight /= self.growth;
        }
        self.growth = 1.0;
    }

    /// Adds what another series has seen of the same sort of duration, each with the weight that it has now.
    pub fn merge(&mut self, other: &Self) {
        self.rescale();
        self.ends += other.ends;
        self.cut += other.cut;
        for (mine, theirs) in self.ended.iter_mut().zip(&other.ended) {
            *mine += theirs / other.growth;
        }
        for (mine, theirs) in self.at_risk.iter_mut().zip(&other.at_risk) {
            *mine += theirs / other.growth;
        }
    }

    /// As stored: at most 3,099 bytes, exact, so that a loaded series answers as the saved one did.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let used = |bucket: &usize| self.at_risk[*bucket] > 0.0;
        let first = (0..BUCKETS).find(used).unwrap_or(0);
        let end = (0..BUCKETS).rev().find(used).map_or(first, |last| last + 1);
        let mut bytes = Vec::with_capacity(HEAD + (end - first) * 16);
        bytes.push(VERSION);
        bytes.extend(self.ends.to_le_bytes());
        bytes.extend(self.cut.to_le_bytes());
        bytes.extend(self.growth.to_le_bytes());
        bytes.extend([first as u8, (end - first) as u8]);
        for bucket in first..end {
            bytes.extend(self.ended[bucket].to_le_bytes());
            bytes.extend(self.at_risk[bucket].to_le_bytes());
        }
        bytes
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote.
    ///
    /// # Errors
    /// [`BytesError`] when the bytes are of a later version, cut off or damaged. Nothing is guessed.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BytesError> {
        let version = *bytes.first().ok_or(BytesError::Length(0))?;
        if version != VERSION {
            return Err(BytesError::Version(version));
        }
        let (head, body) = bytes.split_at_checked(HEAD).ok_or(BytesError::Length(bytes.len()))?;
        let word = |at: usize| -> [u8; 8] { std::array::from_fn(|k| head[at + k]) };
        let (first, count) = (usize::from(head[HEAD - 2]), usize::from(head[HEAD - 1]));
        if body.len() != count * 16 || first + count > BUCKETS {
            return Err(BytesError::Length(bytes.len()));
        }
        let mut series = Self {
            ends: u64::from_le_bytes(word(1)),
            cut: u64::from_le_bytes(word(9)),
            growth: f64::from_le_bytes(word(17)),
            ..Self::default()
        };
        if !(1.0..=GROWTH_MAX).contains(&series.growth) {
            return Err(BytesError::Weight(first));
        }
        for (bucket, pair) in (first..).zip(body.chunks_exact(16)) {
            let number = |at: usize| f64::from_le_bytes(std::array::from_fn(|k| pair[at + k]));
            let (ended, at_risk) = (number(0), number(8));
            // Sums of the same weights in another order differ in the last digits.
            let possible = ended >= 0.0 && at_risk.is_finite() && ended <= at_risk * (1.0 + 1e-9);
            if !possible {
                return Err(BytesError::Weight(bucket));
            }
            series.ended[bucket] = ended;
            series.at_risk[bucket] = at_risk;
        }
        Ok(series)
    }
}
