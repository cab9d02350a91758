//! What the two versions of a deployment did, for its report: how long their tasks took, and what the new one did to the
//! outside. Asked once, at the deployment's end; a look at the latest tasks of one app, as for a baseline.

use agentd_core::id::{AppName, Generation, Operation};
use agentd_protocol::Timestamp;
use agentd_protocol::control::{Durations, EffectView, EffectsParams};
use rusqlite::params;

use super::db::{Db, DbError};
use super::desk::Desk;
use super::panels::generation_of;
use super::thread::Report;
use crate::causes::in_full;

/// Effects that are named.
const EFFECTS: u32 = 100;
/// Parts of a curve.
const PARTS: usize = 64;

/// A question about a deployment.
#[derive(Clone, Debug)]
pub struct Measure {
    /// Whose.
    pub app: AppName,
    /// Which.
    pub deployment: Operation,
    /// Its old workers, and its new ones.
    pub generations: (Generation, Generation),
    /// Whose effects are wanted, by the name of the release, and since when.
    pub effects_of: Option<(String, Timestamp)>,
}

/// The answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// Which deployment.
    pub deployment: Operation,
    /// Of the old version.
    pub before: Option<Durations>,
    /// Of the new one.
    pub after: Option<Durations>,
    /// Of the new one.
    pub effects: Vec<EffectView>,
}

impl Desk {
    pub(super) fn measure(&mut self, measure: Measure) {
        let (before, after) = match self.db.durations(&measure.app, measure.generations) {
            Ok((before, after)) => (spread(before), spread(after)),
            Err(error) => {
                tracing::error!(error = in_full(&error), "a deployment's report lacks what its tasks took");
                (None, None)
            }
        };
        let effects = measure.effects_of.map_or_else(Vec::new, |(release, since)| {
            let names = vec![measure.app.to_string()];
            let asked = EffectsParams { names, release: Some(release), limit: EFFECTS, ..EffectsParams::default() };
            match self.list_effects(&asked) {
                Ok(list) => list.effects.into_iter().filter(|effect| effect.begun_at >= since).collect(),
                Err(error) => {
                    tracing::error!(error = error.message, "a deployment's report lacks what its version did");
                    Vec::new()
                }
            }
        });
        let measured = Measured { deployment: measure.deployment, before, after, effects };
        self.report(Report::Measured(Box::new(measured)));
    }
}

impl Db {
    /// How long the latest tasks of two generations took, in milliseconds.
    fn durations(&self, app: &AppName, of: (Generation, Generation)) -> Result<(Vec<u64>, Vec<u64>), DbError> {
        let (mut before, mut after) = (Vec::new(), Vec::new());
        let sql = "SELECT worker, ran_ms FROM ended_task WHERE app = ?1 AND outcome IN ('ok', 'error')
                   ORDER BY n DESC LIMIT 4000";
        self.each_with("ends", sql, params![app.as_str()], |row| {
            let generation = generation_of(&row.get::<_, String>(0)?);
            let ran = row.get::<_, i64>(1)?.cast_unsigned();
            if generation == Some(of.0.0) {
                before.push(ran);
            } else if generation == Some(of.1.0) {
                after.push(ran);
            }
            Ok(())
        })?;
        Ok((before, after))
    }
}

/// The distribution of durations; none of nothing.
fn spread(mut ran: Vec<u64>) -> Option<Durations> {
    ran.sort_unstable();
    let last = ran.len().checked_sub(1)?;
    // The smallest that at least this share is not over.
    let at = |part: usize, of: usize| ran[(ran.len() * part).div_ceil(of).saturating_sub(1).min(last)];
    let parts = PARTS.min(last.max(1));
    Some(Durations {
        n: ran.len() as u64,
        p50_ms: at(50, 100),
        p99_ms: at(99, 100),
        curve_ms: (0..=parts).map(|part| at(part, parts)).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distribution_has_its_percentiles_and_a_curve_from_the_shortest_to_the_longest() {
        let spread = spread((1..=200).rev().collect()).unwrap();
        assert_eq!((spread.n, spread.p50_ms, spread.p99_ms), (200, 100, 198));
        assert_eq!((spread.curve_ms.len(), spread.curve_ms[0], spread.curve_ms[64]), (65, 1, 200));
        assert!(spread.curve_ms.is_sorted());
    }

    #[test]
    fn one_task_is_its_own_distribution_and_none_is_none() {
        assert_eq!(spread(Vec::new()), None);
        let one = spread(vec![7]).unwrap();
        assert_eq!((one.n, one.p50_ms, one.p99_ms, one.curve_ms), (1, 7, 7, vec![7, 7]));
    }
}
