//! The gates of deployments, fed where tasks end and written with the ends: one commit holds both, so that no end is
//! counted twice or lost, whoever dies.
//!
//! ```text
//!  Judge ──► a stage begins: its baseline is what the store has of other versions' latest ends
//!  end of a task ──► by a worker of the new generation: observed      ──┐
//!               └──► by another, while there is too little to compare  │ the panel is written in the round
//!                     with: the baseline is read again                ──┘
//!  commit ──► what they say, where it changed; the figures a few times a second
//! ```
//! A round that could not be committed is read back, and its `Judge`s are taken in again: the worker whose end was
//! refused sends it again.
//!
//! What can go wrong: reading a kept panel that another version wrote. Its deployment is judged anew then, from its
//! present stage, which is told in the log.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use agentd_core::gate::panel::{End, Panel, Rules, Said, Shown};
use agentd_core::id::{AppName, Generation, Operation};
use agentd_core::task::{Ended, Fence};
use rusqlite::params;
use serde::{Deserialize, Serialize};

use super::db::{Db, DbError};
use super::figures::{Figures, is_bad};

/// A deployment to be judged.
#[derive(Clone, Debug)]
pub struct Judge {
    /// Whose.
    pub app: AppName,
    /// Which.
    pub deployment: Operation,
    /// Its new workers.
    pub generation: Generation,
    /// Its stage, by a number that rises. One that was begun before goes on.
    pub stage: u32,
    /// What it must hold to.
    pub rules: Rules,
    /// Generations that were taken back: nothing to compare with.
    pub distrusted: BTreeSet<u64>,
}

/// What the gates of a deployment say.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    /// Whose.
    pub app: AppName,
    /// Which.
    pub deployment: Operation,
    /// All together.
    pub said: Said,
    /// Each.
    pub gates: Vec<Shown>,
}

/// A panel with whose it is.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Bench {
    deployment: Operation,
    generation: Generation,
    distrusted: BTreeSet<u64>,
    panel: Panel,
}

/// All panels.
#[derive(Debug, Default)]
pub(super) struct Panels {
    benches: BTreeMap<AppName, Bench>,
    /// Apps whose panel is not written as it is, or is gone.
    unsaved: BTreeSet<AppName>,
    /// What was asked in this round.
    asked: Vec<Judge>,
    /// Apps whose figures changed since they were told.
    untold: BTreeSet<AppName>,
    /// What was said last.
    said: BTreeMap<AppName, (Operation, Said)>,
}

impl Panels {
    /// As they were kept.
    pub(super) fn restore(db: &Db) -> Result<Self, DbError> {
        let mut panels = Self::default();
        panels.read(db)?;
        Ok(panels)
    }

    fn read(&mut self, db: &Db) -> Result<(), DbError> {
        self.benches.clear();
        db.each("gates", "SELECT app, record FROM panel", |row| {
            let (app, record): (String, String) = (row.get(0)?, row.get(1)?);
            match (app.parse::<AppName>(), serde_json::from_str(&record)) {
                (Ok(app), Ok(bench)) => drop(self.benches.insert(app, bench)),
                (_, Err(error)) => tracing::error!(%app, %error, "its deployment is judged anew"),
                (Err(_), _) => {}
            }
            Ok(())
        })
    }

    /// Judges a deployment, from this stage on or still.
    pub(super) fn judge(&mut self, db: &Db, judge: Judge) {
        let old = match latest(db, &judge.app, judge.generation, &judge.distrusted) {
            Ok(old) => old,
            Err(error) => {
                tracing::error!(app = %judge.app, %error, "nothing could be read to compare with");
                Vec::new()
            }
        };
        let known = self.benches.get(&judge.app).is_some_and(|bench| bench.deployment == judge.deployment);
        if !known {
            let Judge { app, deployment, generation, rules, distrusted, .. } = judge.clone();
            let bench = Bench { deployment, generation, distrusted, panel: Panel::new(rules) };
            self.benches.insert(app, bench);
        }
        if let Some(bench) = self.benches.get_mut(&judge.app)
            && bench.panel.begin_stage(judge.stage, &old)
        {
            self.unsaved.insert(judge.app.clone());
        }
        // Whoever asks hears, also where nothing changed.
        self.said.remove(&judge.app);
        self.untold.insert(judge.app.clone());
        self.asked.push(judge);
    }

    /// It is over.
    pub(super) fn forget(&mut self, app: &AppName) {
        if self.benches.remove(app).is_some() {
            self.unsaved.insert(app.clone());
        }
        self.said.remove(app);
        self.untold.remove(app);
    }

    /// A task ended; called before its row leaves the open ones.
    pub(super) fn ended(&mut self, db: &Db, ended: &Ended, ran: Duration, figures: &Figures) -> Result<(), DbError> {
        let Some(bench) = self.benches.get_mut(&ended.app) else { return Ok(()) };
        let Some(bad) = is_bad(&ended.end) else { return Ok(()) };
        let sql = "SELECT worker FROM open_task WHERE id = ?1";
        let worker: Option<String> = db.one("a task", sql, params![ended.task.as_str()], |row| row.get(0))?;
        if worker.as_deref().and_then(generation_of) == Some(bench.generation.0) {
            bench.panel.observe(&figures.end(bad, ran, ended.fence));
        } else if bench.panel.lacks_baseline() {
            // This end is not among them yet: the next one, or the next stage, finds it.
            let old = latest(db, &ended.app, bench.generation, &bench.distrusted)?;
            bench.panel.compare_with(&old);
        } else {
            return Ok(());
        }
        self.unsaved.insert(ended.app.clone());
        self.untold.insert(ended.app.clone());
        Ok(())
    }

    /// Writes what changed into the round.
    pub(super) fn save(&mut self, db: &Db) -> Result<(), DbError> {
        for app in &self.unsaved {
            db.begin()?;
            match self.benches.get(app) {
                Some(bench) => {
                    let record = serde_json::to_string(bench).map_err(|source| DbError::Record {
                        what: "gates",
                        key: app.to_string(),
                        source,
                    })?;
                    let sql = "INSERT INTO panel (app, record) VALUES (?1, ?2)
                               ON CONFLICT DO UPDATE SET record = excluded.record";
                    db.run("gates", sql, params![app.as_str(), record])?;
                }
                None => db.run("gates", "DELETE FROM panel WHERE app = ?1", params![app.as_str()])?,
            }
        }
        Ok(())
    }

    /// The round is on the disk.
    pub(super) fn committed(&mut self) {
        self.unsaved.clear();
        self.asked.clear();
    }

    /// The round is not: all is as it was before, but for what is asked.
    pub(super) fn roll_back(&mut self, db: &Db) -> Result<(), DbError> {
        // What was given up stays so.
        let gone: Vec<AppName> = self.unsaved.iter().filter(|app| !self.benches.contains_key(*app)).cloned().collect();
        self.read(db)?;
        self.unsaved.clear();
        gone.iter().for_each(|app| self.forget(app));
        for judge in std::mem::take(&mut self.asked) {
            self.judge(db, judge);
        }
        Ok(())
    }

    /// Whether there are figures to tell.
    pub(super) fn has_news(&self) -> bool {
        !self.untold.is_empty()
    }

    /// What is said anew; with `figures` also where only the figures changed.
    pub(super) fn news(&mut self, figures: bool) -> Vec<Judged> {
        if self.untold.is_empty() {
            return Vec::new();
        }
        let mut news = Vec::new();
        self.untold.retain(|app| {
            let Some(bench) = self.benches.get(app) else { return false };
            let said = bench.panel.said();
            let now = (bench.deployment, said.clone());
            if !figures && self.said.get(app).is_some_and(|before| same(before, &now)) {
                return true;
            }
            self.said.insert(app.clone(), now);
            news.push(Judged {
                app: app.clone(),
                deployment: bench.deployment,
                said,
                gates: bench.panel.shown().collect(),
            });
            false
        });
        news
    }
}

/// Whether two verdicts lead to the same: the figures in their sentences change with each task.
fn same((of, before): &(Operation, Said), (now_of, now): &(Operation, Said)) -> bool {
    of == now_of && std::mem::discriminant(before) == std::mem::discriminant(now)
}

/// The latest ends of other generations than this one, as far as they are to be trusted.
fn latest(db: &Db, app: &AppName, new: Generation, distrusted: &BTreeSet<u64>) -> Result<Vec<End>, DbError> {
    let mut ends = Vec::new();
    let sql = "SELECT record, ran_ms, fence, worker, figures FROM ended_task
               WHERE app = ?1 ORDER BY n DESC LIMIT 4000";
    db.each_with("ends", sql, params![app.as_str()], |row| {
        let generation = generation_of(&row.get::<_, String>(3)?);
        let trusted = generation.is_some_and(|generation| generation != new.0 && !distrusted.contains(&generation));
        if ends.len() >= Panel::BASELINE || !trusted {
            return Ok(());
        }
        let record: Option<Ended> = serde_json::from_str(&row.get::<_, String>(0)?).ok();
        let Some(bad) = record.as_ref().and_then(|ended| is_bad(&ended.end)) else { return Ok(()) };
        let ran = Duration::from_millis(row.get::<_, i64>(1)?.cast_unsigned());
        let figures: Option<String> = row.get(4)?;
        let figures: Figures = figures.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        ends.push(figures.end(bad, ran, Fence(row.get::<_, i64>(2)?.cast_unsigned())));
        Ok(())
    })?;
    Ok(ends)
}

/// The generation in a worker's name, `app.slot.generation`.
pub(super) fn generation_of(worker: &str) -> Option<u64> {
    worker.rsplit_once('.')?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use agentd_core::gate::panel::Metric;

    #[test]
    fn a_panel_that_was_written_down_goes_on_as_it_was() {
        let good = End { latency: Some(1.0), ..End::default() };
        let bad = End { bad: true, ..good.clone() };
        let mut panel = Panel::new(Rules::default());
        panel.begin_stage(0, &vec![good; 100]);
        panel.observe(&bad);
        let bench =
            Bench { deployment: Operation(7), generation: Generation(2), distrusted: BTreeSet::from([1]), panel };
        let mut read: Bench = serde_json::from_str(&serde_json::to_string(&bench).unwrap()).unwrap();
        let mut kept = bench;
        assert!(!read.panel.begin_stage(0, &[]), "its stage has begun");
        (0..4).for_each(|_| read.panel.observe(&bad));
        (0..4).for_each(|_| kept.panel.observe(&bad));
        assert!(matches!(read.panel.said(), Said::Worse(_)), "{:?}", read.panel.said());
        let log_e = |bench: &Bench| {
            let mut shown = bench.panel.shown().filter(|shown| shown.metric == Metric::ErrorRate);
            shown.next().unwrap().reading.unwrap().log_e
        };
        assert!((log_e(&read) - log_e(&kept)).abs() < 1e-9);
    }

    #[test]
    fn a_worker_s_name_tells_its_generation() {
        assert_eq!(generation_of("support.0.17"), Some(17));
        assert_eq!(generation_of(""), None);
    }
}
