//! What must hold of a record that was stored, before anything is decided by it.
//!
//! A record that was torn, or written by somebody else, may be of the right form and still make no sense: a lane
//! beyond all lanes, a configuration that is not there, numbers at the end of their range. Such a one counts as one
//! that cannot be read (see `store::damage` of the shell). What passes here makes no step of core panic.

use std::time::Duration;

use thiserror::Error;

use crate::admission::WORKERS_MAX;
use crate::effect::Toll;
use crate::fleet::Counters;
use crate::id::{Lane, Revision};
use crate::policy::AppPolicy;
use crate::rollout::{Rollout, Side};
use crate::time::Moment;
use crate::worker::Worker;

use super::Head;
use super::operation::Undo;

/// Slots, and lanes with them, that an app may come to have: its workers and as many beside them, twice over.
const SLOTS_MAX: u32 = 4 * WORKERS_MAX;

/// No instance counts this far, and from here every number has room to rise.
const NUMBER_MAX: u64 = 1 << 60;

/// More tasks and connections than one operation meets.
const TALLY_MAX: u32 = 1 << 30;

/// No configuration has a longer time (ten years, see the shell's `config::quantity`).
const TIME_MAX: Duration = Duration::from_secs(11 * 366 * 86_400);

/// Why a stored record makes no sense.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Unsound {
    /// A number that no instance has come to.
    #[error("its {what} is {found}, which no instance comes to")]
    Number {
        /// Which.
        what: &'static str,
        /// How large.
        found: u64,
    },
    /// A time that no configuration has.
    #[error("its {what} is {} s, which no configuration has", found.as_secs())]
    Time {
        /// Which.
        what: &'static str,
        /// How long.
        found: Duration,
    },
    /// It names a configuration that it does not have.
    #[error("it names revision {0} and does not have it")]
    Policy(Revision),
}

fn number(what: &'static str, found: u64) -> Result<(), Unsound> {
    if found < NUMBER_MAX { Ok(()) } else { Err(Unsound::Number { what, found }) }
}

fn moment(what: &'static str, found: Moment) -> Result<(), Unsound> {
    number(what, found.as_micros())
}

fn count(what: &'static str, found: u32, most: u32) -> Result<(), Unsound> {
    if found <= most { Ok(()) } else { Err(Unsound::Number { what, found: u64::from(found) }) }
}

fn lane(found: Option<Lane>) -> Result<(), Unsound> {
    found.map_or(Ok(()), |Lane(found)| count("lane", found, SLOTS_MAX))
}

fn time(what: &'static str, found: Duration) -> Result<(), Unsound> {
    if found <= TIME_MAX { Ok(()) } else { Err(Unsound::Time { what, found }) }
}

impl Counters {
    /// Whether these are numbers to go on from.
    ///
    /// # Errors
    /// Why not.
    pub fn check_sound(&self) -> Result<(), Unsound> {
        number("next launch", self.launch.0)?;
        number("next operation", self.operation.0)
    }
}

impl Head {
    /// Whether it can be gone on from.
    ///
    /// # Errors
    /// Why not.
    pub fn check_sound(&self) -> Result<(), Unsound> {
        number("generation", self.generation.0.max(self.last_generation.0))?;
        number("revision", self.policies.keys().map(|revision| revision.0).max().unwrap_or(0))?;
        count("number of workers", self.count, WORKERS_MAX)?;
        self.owed.iter().copied().chain(self.parked).try_for_each(|found| lane(Some(found)))?;
        count("slot", self.relief.map_or(0, |slot| slot.0), SLOTS_MAX)?;
        self.policies.values().try_for_each(|policy| policy.check_sound())?;
        self.has(self.revision)?;
        for pending in &self.pending {
            number("operation", pending.id.0)?;
            pending.toll.check_sound()?;
            match pending.undo {
                Some(Undo::Adopt { revision, count: before }) => {
                    count("number of workers", before, WORKERS_MAX)?;
                    self.has(revision)?;
                }
                Some(Undo::Forget) | None => {}
            }
        }
        let Some(rollout) = &self.rollout else { return Ok(()) };
        rollout.check_sound()?;
        [rollout.from, rollout.to].iter().try_for_each(|side| self.has(side.revision))
    }

    fn has(&self, revision: Revision) -> Result<(), Unsound> {
        if self.policies.contains_key(&revision) { Ok(()) } else { Err(Unsound::Policy(revision)) }
    }
}

impl Rollout {
    fn check_sound(&self) -> Result<(), Unsound> {
        number("operation", self.id.0)?;
        count("surge", self.surge, WORKERS_MAX)?;
        count("number of missing workers", self.unavailable, WORKERS_MAX)?;
        self.toll.check_sound()?;
        number("step", self.stage.step().unwrap_or(0) as u64)?;
        time("dwell", self.plan.dwell)?;
        time("stability", self.plan.stability)?;
        [self.from, self.to].iter().try_for_each(Side::check_sound)
    }
}

impl Toll {
    fn check_sound(&self) -> Result<(), Unsound> {
        let counts = [self.finished, self.handed_over, self.lost, self.idle_cut, self.busy_cut];
        counts.into_iter().try_for_each(|found| count("tally", found, TALLY_MAX))
    }
}

impl Side {
    fn check_sound(&self) -> Result<(), Unsound> {
        number("generation", self.generation.0)?;
        count("number of workers", self.count, WORKERS_MAX)
    }
}

impl AppPolicy {
    fn check_sound(&self) -> Result<(), Unsound> {
        count("number of workers", self.workers, WORKERS_MAX)?;
        count("surge", self.reload.max_surge, WORKERS_MAX)?;
        count("number of missing workers", self.reload.max_unavailable, WORKERS_MAX)?;
        let times = [
            ("ready timeout", Some(self.ready.timeout)),
            ("probe interval", self.live.map(|live| live.every)),
            ("watchdog", self.watchdog),
            ("backoff", Some(self.restart.backoff_min.max(self.restart.backoff_max))),
            ("restart period", Some(self.restart.period)),
            ("stop timeout", self.stop.timeout),
            ("grace", Some(self.grace.default.max(self.grace.min).max(self.grace.max))),
            ("settling", Some(self.reload.settle)),
        ];
        times.into_iter().try_for_each(|(what, found)| found.map_or(Ok(()), |found| time(what, found)))
    }
}

impl Worker {
    /// Whether it can be gone on from.
    ///
    /// # Errors
    /// Why not.
    pub fn check_sound(&self) -> Result<(), Unsound> {
        count("slot", self.id.slot.0, SLOTS_MAX)?;
        number("generation", self.id.generation.0)?;
        number("revision", self.revision.0)?;
        lane(self.lane)?;
        moment("next step", self.state.wake().unwrap_or_default())?;
        let Some(process) = self.state.process() else { return Ok(()) };
        number("launch", process.launch.0)?;
        moment("start", process.started_at)?;
        time("watchdog", process.watchdog.map_or(Duration::ZERO, |watchdog| watchdog.interval))
    }
}
