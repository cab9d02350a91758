//! The scale of durations: 192 buckets, 8 to an octave, from 62.5 ms to 12 days.
//!
//! Bucket `j` covers `EDGES[j]..EDGES[j + 1]` seconds, about 9 % of its own length. What is shorter than the first edge
//! belongs to the first bucket, what is longer than the last to the last one.

/// How many buckets a series has.
pub const BUCKETS: usize = 192;
/// How many make a factor of two.
pub const PER_OCTAVE: usize = 8;

/// The shortest duration told apart, in seconds.
const FIRST_S: f64 = 0.0625;
const OCTAVES: usize = BUCKETS / PER_OCTAVE;

/// `2^(k/8)`.
const ROOTS: [f64; PER_OCTAVE] = [
    1.0,
    1.090_507_732_665_257_7,
    1.189_207_115_002_721,
    1.296_839_554_651_009_6,
    std::f64::consts::SQRT_2,
    1.542_210_825_407_940_7,
    1.681_792_830_507_429,
    1.834_008_086_409_342_4,
];

/// Where each bucket begins, in seconds; the last entry is where the last bucket ends.
pub const EDGES: [f64; BUCKETS + 1] = edges();

const fn edges() -> [f64; BUCKETS + 1] {
    let mut edges = [0.0; BUCKETS + 1];
    let mut octave = 0;
    let mut factor = FIRST_S;
    while octave < OCTAVES {
        let mut k = 0;
        while k < PER_OCTAVE {
            edges[octave * PER_OCTAVE + k] = factor * ROOTS[k];
            k += 1;
        }
        factor *= 2.0;
        octave += 1;
    }
    edges[BUCKETS] = factor;
    edges
}

/// The bucket of a duration in seconds. Anything that is not a positive number is in the first one.
#[must_use]
pub fn index(seconds: f64) -> usize {
    locate(seconds).0
}

/// The bucket of a duration in seconds, and the share of it that lies before the duration, by the logarithm: 0 to 1.
#[must_use]
pub(super) fn position(seconds: f64) -> (usize, f64) {
    match locate(seconds) {
        (bucket, Some(ratio)) => (bucket, ratio.log2() * PER_OCTAVE as f64),
        (0, None) => (0, 0.0),
        (bucket, None) => (bucket, 1.0),
    }
}

/// The bucket, and the duration over its edge; none outside of the scale.
fn locate(seconds: f64) -> (usize, Option<f64>) {
    if seconds.is_nan() || seconds < FIRST_S {
        return (0, None);
    }
    if seconds >= EDGES[BUCKETS] {
        return (BUCKETS - 1, None);
    }
    // The exponent is the octave, the mantissa the place in it: no logarithm on the way of every end.
    let bits = (seconds / FIRST_S).to_bits();
    let octave = (bits >> 52) as usize - 1023;
    let mantissa = f64::from_bits((bits & ((1 << 52) - 1)) | (1023 << 52));
    let k = ROOTS[1..].iter().filter(|root| mantissa >= **root).count();
    (octave * PER_OCTAVE + k, Some(mantissa / ROOTS[k]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_edge_is_in_its_own_bucket_and_a_hair_less_is_in_the_one_before() {
        for (j, edge) in EDGES[..BUCKETS].iter().enumerate() {
            assert_eq!(index(*edge), j);
            assert_eq!(index(edge * (1.0 - 1e-12)), j.saturating_sub(1));
            assert!((edge - 0.0625 * (j as f64 / 8.0).exp2()).abs() < edge * 1e-12);
        }
    }

    #[test]
    fn what_is_no_duration_or_beyond_the_scale_has_a_bucket_nevertheless() {
        for nothing in [0.0, -1.0, f64::NAN, f64::NEG_INFINITY] {
            assert_eq!(position(nothing), (0, 0.0));
        }
        assert_eq!(index(f64::INFINITY), BUCKETS - 1);
        assert_eq!(position(2e6), (BUCKETS - 1, 1.0));
    }

    #[test]
    fn the_position_in_a_bucket_is_by_the_logarithm() {
        let middle = (EDGES[80] * EDGES[81]).sqrt();
        let (bucket, share) = position(middle);
        assert_eq!(bucket, 80);
        assert!((share - 0.5).abs() < 1e-9, "{share}");
    }
}
