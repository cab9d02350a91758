//! Which releases of an app nobody needs any more.
//!
//! The newest are kept, by when they served last or were cut. Beyond that number stay those that run or could be gone
//! back to: whatever a worker or a deployment has, what is pinned, and the newest good one that does not serve.

use super::ReleaseId;

/// Releases that an app keeps where nobody says otherwise.
pub const KEEP: u32 = 5;

/// A release that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Which.
    pub id: ReleaseId,
    /// A worker runs it, or a deployment is about it.
    pub runs: bool,
    /// Something wants it to stay.
    pub pinned: bool,
    /// It served, and was not taken back.
    pub good: bool,
    /// When it served last, or was cut; any measure that grows.
    pub at: i64,
}

/// Those that may go when `keep` are to stay, oldest first.
#[must_use]
pub fn superfluous(releases: &[Kept], keep: u32) -> Vec<ReleaseId> {
    let mut newest: Vec<&Kept> = releases.iter().collect();
    newest.sort_by(|a, b| (b.at, &b.id).cmp(&(a.at, &a.id)));
    let way_back = newest.iter().find(|release| release.good && !release.runs).map(|release| release.id.clone());
    let wanted = |release: &Kept| release.runs || release.pinned || way_back.as_ref() == Some(&release.id);
    newest
        .iter()
        .skip(keep as usize)
        .rev()
        .filter(|release| !wanted(release))
        .map(|release| release.id.clone())
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn release(number: u8, at: i64) -> Kept {
        let id = ReleaseId::new(&crate::release::Version::none(), &[number; 32]);
        Kept { id, runs: false, pinned: false, good: false, at }
    }

    #[test]
    fn the_oldest_go_and_what_runs_is_pinned_or_is_the_way_back_stays() {
        let mut all: Vec<Kept> = (0..8).map(|number| release(number, i64::from(number))).collect();
        (all[0].runs, all[1].pinned, all[2].good) = (true, true, true);
        let gone = superfluous(&all, 3);
        assert_eq!(gone, [all[3].id.clone(), all[4].id.clone()]);
    }

    proptest! {
        #[test]
        fn what_goes_is_never_wanted_and_never_newer_than_what_is_kept_for_its_age(
            flags in proptest::collection::vec((any::<[bool; 3]>(), 0..50_i64), 0..20), keep in 1..6_u32,
        ) {
            let all: Vec<Kept> = (0_u8..).zip(flags).map(|(number, ([runs, pinned, good], at))| {
                Kept { runs, pinned, good, ..release(number, at) }
            }).collect();
            let gone = superfluous(&all, keep);
            let is_gone = |kept: &&Kept| gone.contains(&kept.id);
            prop_assert!(all.iter().filter(is_gone).all(|kept| !kept.runs && !kept.pinned));
            prop_assert!(all.len() - gone.len() >= all.len().min(keep as usize));
            let good = all.iter().filter(|kept| kept.good && !kept.runs);
            prop_assert!(good.clone().count() == 0 || good.clone().any(|kept| !gone.contains(&kept.id)));
            let newest_gone = all.iter().filter(is_gone).map(|kept| kept.at).max();
            let newer = all.iter().filter(|kept| newest_gone.is_some_and(|at| kept.at >= at) && !gone.contains(&kept.id));
            prop_assert!(newest_gone.is_none() || newer.count() >= keep as usize);
        }
    }
}
