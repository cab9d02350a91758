//! When a `cron_reload` is due: a pattern of crontab(5) in a time zone.
//!
//! Owns the reading of both and the next moment after another. The pattern is followed in the zone's wall clock time,
//! and what a change of the clock does to that is settled here, whatever the pattern's reader thinks of it:
//!
//! - a time that is **skipped** (the clock goes forward over it) is due once, at the first moment after the gap;
//! - a time that comes **twice** (the clock goes back) is due once, the first time.
//!
//! Pure: the present is an argument. What can go wrong is a pattern or a zone that nobody knows, and a pattern that is
//! never due, such as the 30th of February.

use std::str::FromStr;

use croner::Cron;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Wall clock times that are tried, each later than the one before: more are skipped by no clock.
const TRIED: usize = 10_000;

/// A schedule as it is configured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// Minute, hour, day of the month, month, day of the week; or `@daily` and its like.
    pub at: String,
    /// The zone's IANA name; the machine's own zone when none.
    pub tz: Option<String>,
}

/// Why a schedule is none.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ScheduleError {
    /// The pattern.
    #[error("\"{at}\" is no schedule: {why}")]
    Pattern {
        /// As it was written.
        at: String,
        /// What is wrong with it.
        why: String,
    },
    /// The zone.
    #[error("there is no time zone \"{0}\"")]
    Zone(String),
    /// Days that no month has.
    #[error("\"{0}\" is never due")]
    Never(String),
}

impl Schedule {
    /// The first moment after `now` at which it is due.
    ///
    /// # Errors
    /// [`ScheduleError`]; a schedule that was read without one has one later only when its zone is gone.
    pub fn next_after(&self, now: Timestamp) -> Result<Timestamp, ScheduleError> {
        let pattern = Cron::from_str(&self.at)
            .map_err(|error| ScheduleError::Pattern { at: self.at.clone(), why: error.to_string() })?;
        let zone = match &self.tz {
            Some(name) => TimeZone::get(name).map_err(|_| ScheduleError::Zone(name.clone()))?,
            None => TimeZone::system(),
        };
        let never = || ScheduleError::Never(self.at.clone());
        let mut wall: DateTime = zone.to_datetime(now);
        for _ in 0..TRIED {
            wall = pattern.find_next_occurrence(&wall, false).map_err(|_| never())?;
            let due = moment(&zone, wall).ok_or_else(never)?;
            // In the second of two equal hours what was due in the first is past.
            if due > now {
                return Ok(due);
            }
        }
        Err(never())
    }
}

/// The moment that a wall clock shows a time: the first, where it shows it twice; the end of the gap, where never.
fn moment(zone: &TimeZone, wall: DateTime) -> Option<Timestamp> {
    let ambiguous = zone.to_ambiguous_timestamp(wall);
    match ambiguous.offset() {
        AmbiguousOffset::Unambiguous { .. } | AmbiguousOffset::Fold { .. } => ambiguous.earlier().ok(),
        AmbiguousOffset::Gap { .. } => {
            // With the offset from before the gap the time lies after it; the gap ends at the last change until then.
            let after = ambiguous.later().ok()?.max(ambiguous.earlier().ok()?);
            zone.preceding(after).next().map(|change| change.timestamp())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(at: &str, tz: &str, now: &str) -> String {
        let schedule = Schedule { at: at.to_owned(), tz: Some(tz.to_owned()) };
        let now: Timestamp = now.parse().expect("a moment");
        schedule.next_after(now).map_or_else(|error| error.to_string(), |due| due.to_string())
    }

    #[test]
    fn a_schedule_is_followed_in_its_own_zone() {
        assert_eq!(next("0 4 * * *", "Europe/Berlin", "2026-01-10T12:00:00Z"), "2026-01-11T03:00:00Z");
        assert_eq!(next("0 4 * * *", "Europe/Berlin", "2026-07-10T12:00:00Z"), "2026-07-11T02:00:00Z");
        assert_eq!(next("*/15 * * * *", "Asia/Kathmandu", "2026-07-10T12:07:00Z"), "2026-07-10T12:15:00Z");
        assert_eq!(next("0 4 * * *", "UTC", "2026-01-10T04:00:00Z"), "2026-01-11T04:00:00Z");
    }

    #[test]
    fn what_the_clock_skips_is_due_once_when_the_gap_is_over() {
        // On 29 March 2026 the clocks of Berlin go from 2:00 to 3:00, which is 1:00 UTC.
        assert_eq!(next("30 2 * * *", "Europe/Berlin", "2026-03-29T00:30:00Z"), "2026-03-29T01:00:00Z");
        assert_eq!(next("30 2 * * *", "Europe/Berlin", "2026-03-29T01:00:00Z"), "2026-03-30T00:30:00Z");
        assert_eq!(next("*/20 2 * * *", "Europe/Berlin", "2026-03-29T00:30:00Z"), "2026-03-29T01:00:00Z");
        assert_eq!(next("*/20 2 * * *", "Europe/Berlin", "2026-03-29T01:00:00Z"), "2026-03-30T00:00:00Z");
    }

    #[test]
    fn what_the_clock_shows_twice_is_due_the_first_time() {
        // On 25 October 2026 the clocks of Berlin go from 3:00 back to 2:00, which is 1:00 UTC.
        assert_eq!(next("30 2 * * *", "Europe/Berlin", "2026-10-24T23:00:00Z"), "2026-10-25T00:30:00Z");
        assert_eq!(next("30 2 * * *", "Europe/Berlin", "2026-10-25T00:30:00Z"), "2026-10-26T01:30:00Z");
        assert_eq!(next("30 2 * * *", "Europe/Berlin", "2026-10-25T01:10:00Z"), "2026-10-26T01:30:00Z");
    }

    #[test]
    fn a_schedule_that_makes_no_sense_says_so() {
        assert_eq!(
            next("0 4 * *", "UTC", "2026-01-01T00:00:00Z").split(':').next(),
            Some("\"0 4 * *\" is no schedule")
        );
        assert_eq!(next("0 4 * * *", "Mars/Base", "2026-01-01T00:00:00Z"), "there is no time zone \"Mars/Base\"");
        assert_eq!(next("0 0 30 2 *", "UTC", "2026-01-01T00:00:00Z"), "\"0 0 30 2 *\" is never due");
    }
}
