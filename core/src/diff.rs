//! The difference between two configurations of one app, and the least that makes one of the other.
//!
//! Owns the judgement: for each field whether it can change under the workers that run, or takes new ones. Pure; a
//! configuration comes as texts by field, in the words of whoever wrote it, and as the policy. Knows neither what a
//! value means nor how the change is made ([`Work`] says which request makes it).
//!
//! A field that this version has never heard of takes new workers: that is never wrong, only dear.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::policy::{AppPolicy, Lanes};

/// What has to be done, from the least to the most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// It is as wanted.
    Nothing,
    /// It changes under the workers that run; they may become more or fewer.
    InPlace,
    /// New workers take the place of those that run, without a gap.
    Reload,
    /// The same, and its `reload` leaves no room for both: for a moment nobody serves.
    Restart,
    /// It was not there before.
    New,
    /// It is not wanted any more.
    Gone,
}

/// Fields that only the supervisor goes by. A worker is told nothing of them when it starts, so they can change under
/// it. `ready` is among them because it is asked at a start only: it holds from the next one on.
const IN_PLACE: [&str; 25] = [
    "changes",
    "cron_reload",
    "file",
    "gates",
    "grace",
    "hooks",
    "kind",
    "live",
    "log.compress",
    "log.keep",
    "log.keep_bytes",
    "log.keep_for",
    "log.max_age",
    "log.max_size",
    "needs",
    "ready",
    "refresh",
    "releases",
    "reload",
    "restart",
    "source",
    "stop",
    "tasks",
    "upgrade",
    "watch",
];

/// Fields that begin as one of [`IN_PLACE`], and that a worker is told of all the same.
const TOLD: [&str; 2] = ["live.watchdog", "tasks.lease"];

/// The field whose change is a change of the number of workers.
const WORKERS: &str = "workers";

/// One side of a comparison.
#[derive(Clone, Debug, PartialEq)]
pub struct Description {
    /// Every field that is not as if it were left out, by its name, as people write it.
    pub fields: BTreeMap<String, String>,
    /// What core goes by.
    pub policy: AppPolicy,
}

/// One field that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its name.
    pub field: String,
    /// What it was; none when it was not there.
    pub old: Option<String>,
    /// What it is to be; none when it goes.
    pub new: Option<String>,
    /// What this change alone would take.
    pub work: Work,
}

/// All that differs.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// What it takes: the most that any field does.
    pub work: Work,
    /// The fields, by name. Empty for what is new, gone or the same.
    pub changes: Vec<Change>,
    sides: [Option<AppPolicy>; 2],
}

impl Difference {
    /// What makes `new` of `old`. Neither is an app that nobody knows and nobody wants: nothing.
    #[must_use]
    pub fn between(old: Option<&Description>, new: Option<&Description>) -> Self {
        let sides = [old, new].map(|side| side.map(|side| side.policy.clone()));
        let (old, new) = match (old, new) {
            (Some(old), Some(new)) => (old, new),
            (Some(_), None) => return Self { work: Work::Gone, changes: Vec::new(), sides },
            (None, Some(_)) => return Self { work: Work::New, changes: Vec::new(), sides },
            (None, None) => return Self { work: Work::Nothing, changes: Vec::new(), sides },
        };
        let fields: BTreeSet<&String> = old.fields.keys().chain(new.fields.keys()).collect();
        let changes =
            fields.into_iter().filter(|&field| old.fields.get(field) != new.fields.get(field)).map(|field| Change {
                field: field.clone(),
                old: old.fields.get(field).cloned(),
                new: new.fields.get(field).cloned(),
                work: work(field, &old.policy, &new.policy),
            });
        Self::of(changes.collect(), sides)
    }

    fn of(changes: Vec<Change>, sides: [Option<AppPolicy>; 2]) -> Self {
        let work = changes.iter().map(|change| change.work).max().unwrap_or(Work::Nothing);
        Self { work, changes, sides }
    }

    /// What takes it back.
    #[must_use]
    pub fn inverse(self) -> Self {
        let [old, new] = self.sides;
        let turned = |work: Work| match work {
            Work::New => Work::Gone,
            Work::Gone => Work::New,
            Work::Nothing | Work::InPlace | Work::Reload | Work::Restart => work,
        };
        let (Some(before), Some(after)) = (&old, &new) else {
            return Self { work: turned(self.work), changes: Vec::new(), sides: [new, old] };
        };
        let changes = self.changes.into_iter().map(|change| Change {
            work: work(&change.field, after, before),
            field: change.field,
            old: change.new,
            new: change.old,
        });
        Self::of(changes.collect(), [new, old])
    }
}

/// What a change of one field takes.
fn work(field: &str, old: &AppPolicy, new: &AppPolicy) -> Work {
    let is = |name: &&str| field.strip_prefix(*name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    if field == WORKERS {
        // Workers that share a queue come and go together.
        let shared = [old, new].iter().any(|side| side.lanes == Lanes::PerGeneration);
        return if shared { replacement(new) } else { Work::InPlace };
    }
    if IN_PLACE.iter().any(is) && !TOLD.iter().any(is) {
        return Work::InPlace;
    }
    replacement(new)
}

/// How workers are replaced under this policy.
fn replacement(policy: &AppPolicy) -> Work {
    let room = policy.reload.max_surge > 0 || policy.reload.max_unavailable < policy.workers;
    if room || policy.lanes == Lanes::PerGeneration { Work::Reload } else { Work::Restart }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn side(fields: &[(&str, &str)]) -> Description {
        let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Description { fields, policy: AppPolicy::default() }
    }

    fn works(old: &Description, new: &Description) -> Vec<(String, Work)> {
        let difference = Difference::between(Some(old), Some(new));
        difference.changes.into_iter().map(|change| (change.field, change.work)).collect()
    }

    #[test]
    fn only_what_a_worker_is_told_of_takes_new_workers() {
        let old = side(&[("command", "a"), ("grace.default", "5m"), ("live.watchdog", "3s"), ("readyness", "x")]);
        let new = side(&[("command", "b"), ("grace.default", "6m"), ("stop.signal", "SIGINT")]);
        let expected = [
            ("command", Work::Reload),
            ("grace.default", Work::InPlace),
            ("live.watchdog", Work::Reload),
            ("readyness", Work::Reload),
            ("stop.signal", Work::InPlace),
        ];
        assert_eq!(works(&old, &new), expected.map(|(field, work)| (field.to_owned(), work)));
        assert_eq!(Difference::between(Some(&old), Some(&new)).work, Work::Reload);
    }

    #[test]
    fn a_policy_without_room_for_both_makes_a_restart_of_a_reload() {
        let (old, mut new) = (side(&[("command", "a")]), side(&[("command", "b")]));
        (new.policy.reload.max_surge, new.policy.reload.max_unavailable) = (0, 1);
        assert_eq!(works(&old, &new)[0].1, Work::Restart);
        new.policy.workers = 2;
        assert_eq!(works(&old, &new)[0].1, Work::Reload);
    }

    #[test]
    fn another_number_of_workers_needs_new_ones_only_where_they_share_a_queue() {
        let (old, mut new) = (side(&[("workers", "2")]), side(&[("workers", "3")]));
        assert_eq!(works(&old, &new)[0].1, Work::InPlace);
        new.policy.lanes = Lanes::PerGeneration;
        assert_eq!(works(&old, &new)[0].1, Work::Reload);
    }

    #[test]
    fn what_is_new_is_taken_back_by_being_gone() {
        let new = side(&[("command", "a")]);
        let difference = Difference::between(None, Some(&new));
        assert_eq!((difference.work, difference.inverse().work), (Work::New, Work::Gone));
        assert_eq!(Difference::between(None, None).work, Work::Nothing);
    }

    fn any_side() -> impl Strategy<Value = Option<Description>> {
        let names =
            proptest::sample::select(vec!["command", "workers", "grace.max", "live.http", "live.watchdog", "env.A"]);
        let fields = proptest::collection::btree_map(names.prop_map(str::to_owned), "[ab]", 0..6);
        let policy = (1..3u32, 0..2u32, 0..3u32, 0..2u8).prop_map(|(workers, surge, unavailable, shared)| {
            let mut policy = AppPolicy { workers, ..AppPolicy::default() };
            (policy.reload.max_surge, policy.reload.max_unavailable) = (surge, unavailable);
            policy.lanes = if shared == 1 { Lanes::PerGeneration } else { Lanes::PerWorker };
            policy
        });
        proptest::option::of((fields, policy).prop_map(|(fields, policy)| Description { fields, policy }))
    }

    proptest! {
        #[test]
        fn a_difference_turned_round_is_the_difference_the_other_way(old in any_side(), new in any_side()) {
            let difference = Difference::between(old.as_ref(), new.as_ref());
            prop_assert_eq!(difference.clone().inverse(), Difference::between(new.as_ref(), old.as_ref()));
            prop_assert_eq!(difference.clone().inverse().inverse(), difference);
        }

        #[test]
        fn what_differs_makes_one_of_the_other_and_nothing_of_itself(old in any_side(), new in any_side()) {
            prop_assert_eq!(Difference::between(old.as_ref(), old.as_ref()).work, Work::Nothing);
            if let (Some(old), Some(new)) = (&old, &new) {
                let mut made = old.fields.clone();
                for change in Difference::between(Some(old), Some(new)).changes {
                    match change.new {
                        Some(value) => made.insert(change.field, value),
                        None => made.remove(&change.field),
                    };
                }
                prop_assert_eq!(&made, &new.fields);
            }
        }
    }
}
