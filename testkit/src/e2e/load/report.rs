//! What became of all requests of a load.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::outcome::{Class, Loss, Outcome};

/// Answers told apart at most; a test that looks at them asks for few different ones.
const ANSWERS_MAX: usize = 4096;

/// Losses told one by one at most, of each client; all are counted.
const LOSSES_MAX: usize = 4096;

/// How many requests of each class came to which end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Requests by class and outcome.
    pub counts: BTreeMap<Class, BTreeMap<Outcome, u64>>,
    /// Longest time from connecting to the answer's first byte, by class; whole answers only.
    pub slowest: BTreeMap<Class, Duration>,
    /// Bodies that fresh and keep-alive clients were answered with, and how often.
    pub answers: BTreeMap<String, u64>,
    /// What was lost, one by one.
    pub losses: Vec<Loss>,
    /// How long the load lasted.
    pub took: Duration,
}

impl Report {
    /// Requests of a class that ended so.
    #[must_use]
    pub fn count(&self, class: Class, outcome: Outcome) -> u64 {
        self.counts.get(&class).and_then(|outcomes| outcomes.get(&outcome)).copied().unwrap_or(0)
    }

    /// All requests.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.values().flat_map(BTreeMap::values).sum()
    }

    /// Requests that did not end well.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.total() - self.counts.keys().map(|class| self.count(*class, Outcome::Ok)).sum::<u64>()
    }

    /// Requests that did not end well, those left out that an idle connection's end cost: no worker can avoid these
    /// that does not say `Connection: close` before.
    #[must_use]
    pub fn lost_in_service(&self) -> u64 {
        self.lost() - self.counts.keys().map(|class| self.count(*class, Outcome::ResetIdle)).sum::<u64>()
    }

    /// Every request of every class was answered, and there were some of each.
    ///
    /// # Panics
    /// Otherwise; prints the table.
    pub fn assert_none_lost(&self) {
        self.assert_all_took_part();
        assert_eq!(self.lost(), 0, "requests were lost\n{self}");
    }

    /// As [`Report::assert_none_lost`], but kept-alive connections may have been closed between two requests: right for
    /// workers that do not cooperate.
    ///
    /// # Panics
    /// Otherwise; prints the table.
    pub fn assert_none_lost_in_service(&self) {
        self.assert_all_took_part();
        assert_eq!(self.lost_in_service(), 0, "requests were lost\n{self}");
    }

    /// Nothing was lost but up to `at_most` requests of keep-alive clients, none of them refused: right for workers that
    /// close kept connections under requests that they have begun to answer.
    ///
    /// # Panics
    /// Otherwise; prints the table.
    pub fn assert_only_kept_cut(&self, at_most: u64) {
        self.assert_all_took_part();
        let kept: u64 = self.counts.get(&Class::KeepAlive).into_iter().flatten().map(|(_, count)| count).sum();
        let cut = kept - self.count(Class::KeepAlive, Outcome::Ok);
        assert_eq!(self.lost(), cut, "requests beside those on kept connections were lost\n{self}");
        assert_eq!(self.count(Class::KeepAlive, Outcome::Refused), 0, "a connection was refused\n{self}");
        assert!(cut <= at_most, "more than {at_most} requests on kept connections were lost\n{self}");
    }

    fn assert_all_took_part(&self) {
        for class in self.counts.keys() {
            assert!(self.count(*class, Outcome::Ok) > 0, "no {class} client was answered at all\n{self}");
        }
    }

    /// A client of this class takes part.
    pub(super) fn of(class: Class) -> Self {
        Self { counts: BTreeMap::from([(class, BTreeMap::new())]), ..Self::default() }
    }

    pub(super) fn record_answer(&mut self, class: Class, first_byte: Duration) {
        self.add(class, Outcome::Ok);
        let slowest = self.slowest.entry(class).or_default();
        *slowest = (*slowest).max(first_byte);
    }

    pub(super) fn record_loss(&mut self, loss: Loss) {
        self.add(loss.class, loss.outcome);
        if self.losses.len() < LOSSES_MAX {
            self.losses.push(loss);
        }
    }

    fn add(&mut self, class: Class, outcome: Outcome) {
        *self.counts.entry(class).or_default().entry(outcome).or_default() += 1;
    }

    pub(super) fn answered(&mut self, body: String) {
        if self.answers.len() < ANSWERS_MAX || self.answers.contains_key(&body) {
            *self.answers.entry(body).or_default() += 1;
        }
    }

    pub(super) fn merge(&mut self, other: Self) {
        for (class, outcomes) in other.counts {
            let counts = self.counts.entry(class).or_default();
            for (outcome, count) in outcomes {
                *counts.entry(outcome).or_default() += count;
            }
        }
        for (class, slowest) in other.slowest {
            let present = self.slowest.entry(class).or_default();
            *present = (*present).max(slowest);
        }
        self.losses.extend(other.losses);
        for (body, count) in other.answers {
            *self.answers.entry(body).or_default() += count;
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (class, outcomes) in &self.counts {
            write!(f, "{class:<10}")?;
            for (outcome, count) in outcomes {
                write!(f, " {outcome} {count:<7}")?;
            }
            if let Some(slowest) = self.slowest.get(class) {
                write!(f, " first byte within {} ms", slowest.as_millis())?;
            }
            writeln!(f)?;
        }
        write!(f, "{} requests in {:.1} s, {} lost", self.total(), self.took.as_secs_f64(), self.lost())
    }
}
