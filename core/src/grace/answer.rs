//! The answer to "how long may this drain take", with its reason, and the search that finds it.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::curve::From;
use crate::policy::GracePolicy;

/// How near the search gets: the answer is at most this factor over the smallest one.
const PRECISION: f64 = 1.005;
/// The search is by factors and cannot begin at nothing.
const SHORTEST_S: f64 = 0.001;

/// What the tasks are given time for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Until {
    /// To end.
    End,
    /// To end or to reach a safe point and yield, whichever is first.
    SafePoint,
}

/// What settled the bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SettledBy {
    /// The curve, between the policy's bounds.
    Curve,
    /// Nothing was observed yet: the policy's default, or more where the tasks are many or already old.
    Default,
    /// Less would do, but the policy's `min` is the least.
    Min,
    /// More would be wanted, but the policy's `max` is the most.
    Max,
    /// No task is in flight.
    Idle,
}

/// How long a drain may take, and why. Its [`Display`](fmt::Display) is the sentence for people.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Grace {
    /// The bound. Never a wait: a worker whose tasks are all gone stops at once.
    pub bound: Duration,
    /// How many tasks were asked about.
    pub tasks: usize,
    /// Age of the oldest.
    pub oldest: Duration,
    /// What they are given time for.
    pub until: Until,
    /// What settled it.
    pub by: SettledBy,
    /// Probability that all are there by the bound: the target, unless `min` or `max` settled it.
    pub probability: f64,
    /// How many observations it rests on.
    pub seen: u64,
    /// How many of them were cut and count as "longer than that".
    pub cut: u64,
}

impl fmt::Display for Grace {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tasks = match self.tasks {
            0 => return write!(out, "no task in flight"),
            1 => "1 task".to_owned(),
            many => format!("{many} tasks, oldest"),
        };
        let there = match self.until {
            Until::End => "finish",
            Until::SafePoint => "finish or reach a safe point",
        };
        let bound = Seconds(self.bound);
        write!(out, "{tasks} {}; ", Seconds(self.oldest))?;
        match self.by {
            SettledBy::Default => {
                let percent = Percent(self.probability);
                write!(out, "nothing observed yet: by the default, {percent} of such {there} within {bound}")
            }
            SettledBy::Idle => Ok(()),
            SettledBy::Curve => write!(out, "{} of such {there} within {bound}", Percent(self.probability)),
            SettledBy::Min => {
                write!(out, "{} of such {there} within {bound}, the least allowed", Percent(self.probability))
            }
            SettledBy::Max => {
                write!(out, "only {} of such {there} within {bound}, the most allowed", Percent(self.probability))
            }
        }?;
        if self.seen > 0 { write!(out, "; {} of {} observations censored", self.cut, self.seen) } else { Ok(()) }
    }
}

/// Seconds with as many digits as matter.
struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs_f64();
        if seconds < 10.0 && seconds.fract() != 0.0 {
            write!(out, "{seconds:.1} s")
        } else {
            write!(out, "{seconds:.0} s")
        }
    }
}

/// A probability in percent, rounded down, so that nothing short of certainty reads as 100 %.
struct Percent(f64);

impl fmt::Display for Percent {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A target of 0.99 is 99 %, although 0.99 * 1000 is a hair less than 990.
        let tenths = (self.0 * 1000.0 + 1e-6).floor() / 10.0;
        write!(out, "{tenths} %")
    }
}

/// The outcome of a search: seconds, what settled them, and the probability that all are there by then.
pub(super) struct Found {
    pub(super) seconds: f64,
    pub(super) by: SettledBy,
    pub(super) probability: f64,
}

/// The smallest number of seconds by which all have ended with the policy's target probability, by bisection over the
/// logarithm between the policy's bounds.
///
/// The probability rises with the seconds. Should it dip where Greenwood's variance jumps, the answer is still one at
/// which the target is reached, and a higher target never gets a shorter one: both searches take the same steps until
/// they part.
pub(super) fn smallest(tasks: &[From<'_>], policy: &GracePolicy) -> Found {
    let all_ended = |seconds: f64| tasks.iter().map(|task| 1.0 - task.survival(seconds)).product::<f64>();
    let (min, max) = (policy.min.as_secs_f64(), policy.max.max(policy.min).as_secs_f64());
    let probability = all_ended(min);
    if probability >= policy.target {
        return Found { seconds: min, by: SettledBy::Min, probability };
    }
    let probability = all_ended(max);
    if probability < policy.target {
        return Found { seconds: max, by: SettledBy::Max, probability };
    }
    let (mut short, mut enough) = (min.max(SHORTEST_S), max.max(SHORTEST_S));
    while enough > short * PRECISION {
        let middle = (short * enough).sqrt();
        if all_ended(middle) >= policy.target { enough = middle } else { short = middle }
    }
    Found { seconds: enough.min(max), by: SettledBy::Curve, probability: policy.target }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grace() -> Grace {
        Grace {
            bound: Duration::from_secs(312),
            tasks: 3,
            oldest: Duration::from_secs(41),
            until: Until::End,
            by: SettledBy::Curve,
            probability: 0.99,
            seen: 512,
            cut: 37,
        }
    }

    #[test]
    fn the_reason_is_one_sentence_with_its_figures() {
        let sentence = "3 tasks, oldest 41 s; 99 % of such finish within 312 s; 37 of 512 observations censored";
        assert_eq!(grace().to_string(), sentence);
        let one = Grace { tasks: 1, until: Until::SafePoint, bound: Duration::from_millis(2500), ..grace() };
        let sentence =
            "1 task 41 s; 99 % of such finish or reach a safe point within 2.5 s; 37 of 512 observations censored";
        assert_eq!(one.to_string(), sentence);
        let most = Grace { by: SettledBy::Max, probability: 0.8137, ..grace() };
        assert!(most.to_string().contains("only 81.3 % of such finish within 312 s, the most allowed"), "{most}");
        let first = Grace { by: SettledBy::Default, seen: 0, cut: 0, ..grace() };
        assert_eq!(
            first.to_string(),
            "3 tasks, oldest 41 s; nothing observed yet: by the default, 99 % of such finish within 312 s"
        );
        assert_eq!(Grace { tasks: 0, by: SettledBy::Idle, ..grace() }.to_string(), "no task in flight");
    }
}
