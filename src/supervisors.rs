//! Who supervised this instance, and how each ended.
//!
//! ```text
//!            begin                      leave(how)
//!  (none) ───────────► running ───────────────────────► ended: stopped, signalled, upgraded
//!                         │  the next one begins
//!                         └───────────────────────────► ended: unknown (killed, crashed)
//! ```
//!
//! Owns the record of the last [`KEPT`] supervisors, as it is stored and as it is shown. A supervisor that dies leaves
//! no word; that it did, and when, its successor concludes: from the record that has no end, and from the keeper, which
//! notices the moment. Nothing is written while nothing happens.
//!
//! What can go wrong: a stored record that cannot be read. It is history and no state: it is begun anew, and that is
//! logged.

use agentd_core::time::Moment;
use agentd_protocol::control::{SocketOrigins, SupervisorEnd, SupervisorView};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Supervisors that are remembered.
pub const KEPT: usize = 32;

/// One supervisor, as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Supervisor {
    view: SupervisorView,
    /// When it ended, on the clock that nobody sets; means nothing after a reboot.
    #[serde(default)]
    ended_at_us: Option<u64>,
}

/// The supervisors of an instance, the oldest first; the last is the present one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Supervisors {
    all: Vec<Supervisor>,
}

/// What a new supervisor found.
#[derive(Clone, Copy, Debug, Default)]
pub struct Found {
    /// Workers that it took over.
    pub adopted: u32,
    /// Where its sockets came from.
    pub sockets: SocketOrigins,
    /// When the last one was gone, if somebody noticed.
    pub alone_since: Option<Moment>,
    /// The machine was started meanwhile.
    pub rebooted: bool,
}

impl Supervisors {
    /// What was stored; what cannot be read is an empty history.
    #[must_use]
    pub fn from_stored(stored: Option<&str>) -> Self {
        let Some(json) = stored else { return Self::default() };
        serde_json::from_str(json).unwrap_or_else(|error| {
            tracing::warn!(%error, "the history of supervisors cannot be read; it begins anew");
            Self::default()
        })
    }

    /// To be stored.
    #[must_use]
    pub fn to_stored(&self) -> String {
        serde_json::to_string(self).expect("texts and numbers are JSON")
    }

    /// A supervisor is ready. Where the one before it left no word, its end is unknown.
    pub fn begin(&mut self, pid: u32, version: &str, wall: Timestamp, now: Moment, found: Found) {
        let Found { adopted, sockets, alone_since, rebooted } = found;
        let mut gone_at = alone_since.filter(|_| !rebooted);
        if let Some(last) = self.all.last_mut() {
            if last.view.end.is_none() {
                last.view.end = Some(SupervisorEnd::Unknown);
                last.view.ended_at = gone_at.and_then(|at| wall.checked_sub(now.since(at)).ok());
            }
            // Whoever notices an end does so a little after it.
            gone_at = last.ended_at_us.filter(|_| !rebooted).map(Moment::from_micros).or(gone_at);
        }
        let unwatched_us = gone_at.map(|at| u64::try_from(now.since(at).as_micros()).unwrap_or(u64::MAX));
        let view = SupervisorView {
            pid,
            version: version.to_owned(),
            started_at: wall,
            adopted,
            sockets,
            unwatched_us,
            end: None,
            ended_at: None,
        };
        self.all.push(Supervisor { view, ended_at_us: None });
        self.all.drain(..self.all.len().saturating_sub(KEPT));
    }

    /// The present one leaves.
    pub fn leave(&mut self, how: SupervisorEnd, wall: Timestamp, now: Moment) {
        if let Some(present) = self.all.last_mut() {
            present.view.end = Some(how);
            present.view.ended_at = Some(wall);
            present.ended_at_us = Some(now.as_micros());
        }
    }

    /// As it is shown.
    #[must_use]
    pub fn views(&self) -> Vec<SupervisorView> {
        self.all.iter().map(|supervisor| supervisor.view.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> (Timestamp, Moment) {
        let wall = Timestamp::from_second(1_000_000 + i64::try_from(seconds).expect("small")).expect("in range");
        (wall, Moment::from_micros(seconds * 1_000_000))
    }

    fn begin(history: &mut Supervisors, seconds: u64, found: Found) {
        let (wall, now) = at(seconds);
        history.begin(7, "0.1.0", wall, now, found);
    }

    #[test]
    fn one_that_left_no_word_ended_unknown_when_the_keeper_noticed() {
        let mut history = Supervisors::default();
        begin(&mut history, 10, Found::default());
        begin(&mut history, 30, Found { alone_since: Some(at(27).1), adopted: 3, ..Found::default() });
        let views = history.views();
        assert_eq!(views[0].end, Some(SupervisorEnd::Unknown));
        assert_eq!(views[0].ended_at, Some(at(27).0));
        assert_eq!((views[1].unwatched_us, views[1].adopted, views[1].end), (Some(3_000_000), 3, None));
    }

    #[test]
    fn one_that_said_how_it_ended_is_believed_and_times_the_gap_itself() {
        let mut history = Supervisors::default();
        begin(&mut history, 10, Found::default());
        let (wall, now) = at(20);
        history.leave(SupervisorEnd::Upgraded, wall, now);
        let mut history = Supervisors::from_stored(Some(&history.to_stored()));
        begin(&mut history, 22, Found { alone_since: Some(at(21).1), ..Found::default() });
        let views = history.views();
        assert_eq!((views[0].end, views[0].ended_at), (Some(SupervisorEnd::Upgraded), Some(wall)));
        assert_eq!(views[1].unwatched_us, Some(2_000_000));
    }

    #[test]
    fn moments_of_an_earlier_boot_mean_nothing() {
        let mut history = Supervisors::default();
        begin(&mut history, 1000, Found::default());
        let (wall, now) = at(2000);
        history.leave(SupervisorEnd::Signalled, wall, now);
        begin(&mut history, 3, Found { rebooted: true, ..Found::default() });
        assert_eq!(history.views()[1].unwatched_us, None);
    }

    #[test]
    fn the_history_is_bounded_and_nonsense_begins_it_anew() {
        let mut history = Supervisors::from_stored(Some("no JSON"));
        (0..100).for_each(|n| begin(&mut history, n, Found::default()));
        assert_eq!(history.views().len(), KEPT);
        assert_eq!(history.views()[KEPT - 1].started_at, at(99).0);
        assert!(history.to_stored().len() < 16 * 1024);
    }
}
