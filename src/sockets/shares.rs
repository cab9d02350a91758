//! Which part of the new connections each lane gets.
//!
//! Owns the weights of one address and, where source addresses stay together, which bucket of them is whose. Pure;
//! `program.rs` puts it into the kernel's words.
//!
//! With [`Pick::SourceAddress`] each address falls into one of 256 buckets and each bucket belongs to a lane. A change
//! of weights moves as few buckets as the new weights demand, so all other sources keep their worker.

use serde::{Deserialize, Serialize};

use super::error::WeightError;
use super::program::{self, BUCKETS, Clause};
use crate::process::sys::SockFilter;

/// By what a new connection picks its lane, within the weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pick {
    /// By chance.
    #[default]
    Random,
    /// By its source address: one source, one lane, as long as the weights stay.
    SourceAddress,
}

/// The weights of the lanes of one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shares {
    pick: Pick,
    weights: Vec<u32>,
    /// The lane of each bucket; empty when picking at random.
    buckets: Vec<usize>,
}

/// That `weights` can be given to `lanes` lanes. Beyond them only a weight of 0 can: nobody is there to miss it.
pub(super) fn check(weights: &[u32], lanes: usize, pick: Pick) -> Result<(), WeightError> {
    let shared = weights.iter().rposition(|&weight| weight > 0).map_or(0, |last| last + 1);
    if shared > lanes {
        return Err(WeightError::MoreThanLanes { weights: shared, lanes });
    }
    let total: u64 = weights.iter().copied().map(u64::from).sum();
    if total == 0 {
        return Err(WeightError::NoneLive);
    }
    if u32::try_from(total).is_err() {
        return Err(WeightError::TooHeavy(total));
    }
    let live = weights.iter().filter(|weight| **weight > 0).count();
    match pick {
        Pick::SourceAddress if live > BUCKETS => Err(WeightError::TooManyLive(live)),
        Pick::SourceAddress | Pick::Random => Ok(()),
    }
}

impl Shares {
    /// Everything to lane 0.
    pub(super) fn first_lane(pick: Pick) -> Self {
        let buckets = match pick {
            Pick::Random => Vec::new(),
            Pick::SourceAddress => vec![0; BUCKETS],
        };
        Self { pick, weights: vec![1], buckets }
    }

    /// The same with other weights, which have passed [`check`].
    pub(super) fn reweighed(&self, weights: &[u32]) -> Self {
        let buckets = match self.pick {
            Pick::Random => Vec::new(),
            Pick::SourceAddress => moved(&self.buckets, &targets(weights)),
        };
        Self { pick: self.pick, weights: weights.to_vec(), buckets }
    }

    /// The same weights, picked from by `pick`; none when that is how it is already.
    pub(super) fn picked_by(&self, pick: Pick) -> Option<Self> {
        (pick != self.pick).then(|| Self::first_lane(pick).reweighed(&self.weights))
    }

    /// The kernel's program; `index` gives the kernel's index of a lane.
    pub(super) fn program(&self, clauses: &[Clause], index: impl Fn(usize) -> u32) -> Vec<SockFilter> {
        match self.pick {
            Pick::Random => {
                let weights = self.weights.iter().enumerate().map(|(lane, weight)| (lane, *weight));
                let live = weights.filter(|(_, weight)| *weight > 0).map(|(lane, weight)| (index(lane), weight));
                program::random(clauses, &program::shares_by_weight(live))
            }
            Pick::SourceAddress => {
                let buckets = self.buckets.iter().map(|lane| index(*lane));
                program::by_source(clauses, &program::shares_by_bucket(buckets))
            }
        }
    }
}

/// How many buckets each lane gets: its part rounded down but at least one, then what is left by largest remainder,
/// or what is too much from the largest.
fn targets(weights: &[u32]) -> Vec<usize> {
    let total: u64 = weights.iter().copied().map(u64::from).sum();
    let exact = |weight: u32| u64::from(weight) * BUCKETS as u64;
    let mut targets: Vec<usize> = weights
        .iter()
        .map(|weight| if *weight == 0 { 0 } else { usize::max(1, (exact(*weight) / total) as usize) })
        .collect();
    let mut by_remainder: Vec<usize> = (0..weights.len()).filter(|lane| weights[*lane] > 0).collect();
    by_remainder.sort_by_key(|lane| std::cmp::Reverse(exact(weights[*lane]) % total));
    let given: usize = targets.iter().sum();
    for lane in by_remainder.into_iter().cycle().take(BUCKETS.saturating_sub(given)) {
        targets[lane] += 1;
    }
    for _ in BUCKETS..given {
        let largest = targets.iter_mut().max().expect("some lane has a weight");
        *largest -= 1;
    }
    targets
}

/// `buckets` with no more of them moved than the targets demand.
fn moved(buckets: &[usize], targets: &[usize]) -> Vec<usize> {
    let mut room = targets.to_vec();
    let mut homeless = Vec::new();
    let mut moved = buckets.to_vec();
    for (bucket, lane) in buckets.iter().enumerate() {
        match room.get_mut(*lane) {
            Some(left) if *left > 0 => *left -= 1,
            Some(_) | None => homeless.push(bucket),
        }
    }
    let free = room.iter().enumerate().flat_map(|(lane, left)| std::iter::repeat_n(lane, *left));
    for (bucket, lane) in homeless.into_iter().zip(free) {
        moved[bucket] = lane;
    }
    moved
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn count(buckets: &[usize], lane: usize) -> usize {
        buckets.iter().filter(|owner| **owner == lane).count()
    }

    #[test]
    fn weights_that_say_nothing_or_too_much_are_refused() {
        assert!(matches!(check(&[], 3, Pick::Random), Err(WeightError::NoneLive)));
        assert!(matches!(check(&[0, 0, 0], 3, Pick::Random), Err(WeightError::NoneLive)));
        assert!(matches!(check(&[1, 1], 1, Pick::Random), Err(WeightError::MoreThanLanes { weights: 2, lanes: 1 })));
        assert!(matches!(check(&[u32::MAX, 1], 2, Pick::Random), Err(WeightError::TooHeavy(_))));
        assert!(matches!(check(&[1; 300], 300, Pick::SourceAddress), Err(WeightError::TooManyLive(300))));
        check(&[1; 300], 300, Pick::Random).expect("random picks among any number");
        check(&[u32::MAX], 2, Pick::Random).expect("fewer weights than lanes leave the rest at 0");
        check(&[1, 0, 0], 1, Pick::Random).expect("a lane that is not there may have no share");
    }

    proptest! {
        #[test]
        fn buckets_follow_the_weights_and_move_no_more_than_they_must(
            before in prop::collection::vec(0_u32..1000, 1..12).prop_filter("live", |w| w.iter().any(|x| *x > 0)),
            after in prop::collection::vec(0_u32..1000, 1..12).prop_filter("live", |w| w.iter().any(|x| *x > 0)),
        ) {
            let first = Shares::first_lane(Pick::SourceAddress).reweighed(&before);
            let second = first.reweighed(&after);
            let total: u32 = after.iter().sum();
            let mut must_move = 0;
            for lane in 0..before.len().max(after.len()) {
                let (was, is) = (count(&first.buckets, lane), count(&second.buckets, lane));
                must_move += was.saturating_sub(is);
                let weight = after.get(lane).copied().unwrap_or(0);
                prop_assert_eq!(weight == 0, is == 0);
                let exact = f64::from(weight) * 256.0 / f64::from(total);
                prop_assert!((is as f64 - exact).abs() <= after.len() as f64, "{} for {}", is, exact);
            }
            let did_move = first.buckets.iter().zip(&second.buckets).filter(|(a, b)| a != b).count();
            prop_assert_eq!(did_move, must_move);
        }
    }
}
