//! What tasks take, learned: core's estimator of each app, fed and kept.
//!
//! What a task's end taught is written in the round of that end, and is as durable. What a safe point taught is written
//! with the next end, or [`LATER`] at the latest, so that a checkpoint writes no page of a series; a crash takes no more
//! than a second of gaps from a series of thousands. When a round fails, what it taught stays learned, and is written again:
//! the same ends are told again, and count twice among a thousand.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use agentd_core::grace::{AppGrace, Grace, InFlight, Run, SeriesKey, Shape, Until};
use agentd_core::id::AppName;
use agentd_core::policy::GracePolicy;
use agentd_core::task::{Fate, InHand, Kind, Span, Stretch, Task, TaskId, Usual};
use agentd_core::time::Moment;
use rusqlite::params;

use super::db::{Db, DbError};
use crate::process::sys;

/// Tasks of one worker that a query looks at: the oldest. Each costs some µs, and the deadline is theirs.
const ASKED_MAX: usize = 64;

/// How long what a safe point taught may wait to be written.
const LATER: Duration = Duration::from_secs(1);

/// All estimators.
#[derive(Debug, Default)]
pub(super) struct Measures {
    apps: BTreeMap<AppName, AppGrace>,
    /// What each running task began with.
    runs: HashMap<TaskId, Run>,
    /// Apps of which a series changed.
    changed: BTreeSet<AppName>,
    /// When they are written; none while none changed.
    due: Option<Instant>,
    /// Apps whose series are in the round that is not committed yet.
    written: BTreeSet<AppName>,
    /// Apps whose series were in a round that failed: all of them are written again.
    owed: BTreeSet<AppName>,
}

impl Measures {
    /// As they were kept. A series that cannot be read begins anew, and is told of.
    pub(super) fn restore(db: &Db) -> Result<Self, DbError> {
        let mut measures = Self::default();
        db.each("series", "SELECT app, kind, gaps, data FROM series", |row| {
            let (app, kind): (String, String) = (row.get(0)?, row.get(1)?);
            let key = SeriesKey { kind: (!kind.is_empty()).then_some(kind), gaps: row.get(2)? };
            let data: Vec<u8> = row.get(3)?;
            if let Ok(app) = app.parse::<AppName>()
                && let Err(error) = measures.apps.entry(app.clone()).or_default().load(&key, &data)
            {
                tracing::error!(%app, ?key, %error, "what tasks take is learned anew");
            }
            Ok(())
        })?;
        Ok(measures)
    }

    /// A task runs from now on, unless it does already.
    pub(super) fn runs(&mut self, task: &Task) {
        if !self.runs.contains_key(&task.id) {
            let now = sys::boottime();
            let kind = task.kind.as_ref().map(Kind::as_str);
            let run = self.app(&task.app).begin(kind, task.age(now), now);
            self.runs.insert(task.id.clone(), run);
        }
    }

    /// A stretch of work came to an end.
    pub(super) fn learn(&mut self, span: &Span, now: Moment) {
        let kind = span.kind.as_ref().map(Kind::as_str);
        let run = self.runs.get(&span.task).copied();
        let app = self.apps.entry(span.app.clone()).or_default();
        let run = run.unwrap_or_else(|| app.begin(kind, span.age0, now));
        let until = match span.of {
            Stretch::Task => Until::End,
            Stretch::Gap => Until::SafePoint,
        };
        let finished = match span.fate {
            Fate::Done => true,
            Fate::Killed | Fate::Crashed | Fate::HandedOver => false,
        };
        app.on_span(kind, until, (span.age0, span.age), finished, &run);
        match span.of {
            Stretch::Task => drop(self.runs.remove(&span.task)),
            Stretch::Gap => {
                if let Some(run) = self.runs.get_mut(&span.task) {
                    app.mark_safe(kind, run, now);
                }
            }
        }
        let due = match span.of {
            Stretch::Task => Instant::now(),
            Stretch::Gap => Instant::now() + LATER,
        };
        self.due = Some(self.due.map_or(due, |earlier| earlier.min(due)));
        if !self.changed.contains(&span.app) {
            self.changed.insert(span.app.clone());
        }
    }

    /// When [`save`](Self::save) has something to write; none while nothing was learned.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Nothing of what was learned waits any longer.
    pub(super) fn hurry(&mut self) {
        self.due = self.due.map(|_| Instant::now());
    }

    /// Writes the series that changed, once they are due.
    pub(super) fn save(&mut self, db: &Db) -> Result<(), DbError> {
        if self.due.is_none_or(|due| due > Instant::now()) {
            return Ok(());
        }
        self.due = None;
        self.written = std::mem::take(&mut self.changed);
        for name in &self.written {
            let Some(app) = self.apps.get_mut(name) else { continue };
            let changed = app.changed();
            for (key, bytes) in if self.owed.remove(name) { app.all() } else { changed } {
                db.begin()?;
                let sql = "INSERT INTO series (app, kind, gaps, data) VALUES (?1, ?2, ?3, ?4)
                           ON CONFLICT DO UPDATE SET data = excluded.data";
                let kind = key.kind.unwrap_or_default();
                db.run("a series", sql, params![name.as_str(), kind, key.gaps, bytes])?;
            }
        }
        Ok(())
    }

    /// What was written is on disk.
    pub(super) fn committed(&mut self) {
        self.written.clear();
    }

    /// What was written is not: it will be, a moment later.
    pub(super) fn roll_back(&mut self) {
        self.owed.append(&mut self.written.clone());
        self.changed.append(&mut self.written);
        self.due = (!self.changed.is_empty()).then(|| Instant::now() + LATER);
    }

    /// How long these tasks need.
    pub(super) fn query<'a>(
        &mut self,
        app: &AppName,
        tasks: impl Iterator<Item = &'a InHand>,
        policy: &GracePolicy,
    ) -> Grace {
        let mut tasks: Vec<InFlight<'_>> = tasks
            .map(|task| InFlight {
                kind: task.kind.as_ref().map(Kind::as_str),
                age: task.age,
                since_safe: task.since_safe,
            })
            .collect();
        if tasks.len() > ASKED_MAX {
            tasks.select_nth_unstable_by_key(ASKED_MAX, |task| std::cmp::Reverse(task.age));
            tasks.truncate(ASKED_MAX);
        }
        self.app(app).query(&tasks, policy)
    }

    /// How long tasks go without a safe point, at most as a rule: what is silent for longer is stuck. Never under a
    /// lease: a beat says that somebody is there.
    pub(super) fn usual(&mut self, app: &AppName, policy: &GracePolicy, least: Duration) -> Usual {
        let other = self.gap(app, None, policy, least);
        let kinds = self.kinds(app);
        let kinds =
            kinds.iter().filter_map(|kind| Some((Kind::new(kind).ok()?, self.gap(app, Some(kind), policy, least))));
        Usual { kinds: kinds.collect(), other }
    }

    /// The same for one kind.
    pub(super) fn gap(&mut self, app: &AppName, kind: Option<&str>, policy: &GracePolicy, least: Duration) -> Duration {
        let p99 = self.app(app).shape(kind, Until::SafePoint, policy).p99;
        Duration::try_from_secs_f64(p99).unwrap_or(policy.max).max(least)
    }

    /// A curve for display.
    pub(super) fn shape(&mut self, app: &AppName, kind: Option<&str>, until: Until, policy: &GracePolicy) -> Shape {
        self.app(app).shape(kind, until, policy)
    }

    /// The kinds that an app's tasks have.
    pub(super) fn kinds(&self, app: &AppName) -> Vec<String> {
        self.apps.get(app).map_or_else(Vec::new, |app| app.kinds().map(str::to_owned).collect())
    }

    fn app(&mut self, name: &AppName) -> &mut AppGrace {
        if !self.apps.contains_key(name) {
            self.apps.insert(name.clone(), AppGrace::default());
        }
        self.apps.get_mut(name).expect("it was put there")
    }
}

#[cfg(test)]
mod tests {
    use camino::Utf8Path;

    use super::*;

    fn taught(of: Stretch) -> Span {
        Span {
            task: TaskId::new("t").expect("a name"),
            app: "web".parse().expect("a name"),
            kind: None,
            of,
            age0: Duration::ZERO,
            age: Duration::from_secs(3),
            fate: Fate::Done,
        }
    }

    fn kept(db: &Db) -> i64 {
        db.connection.query_row("SELECT count(*) FROM series", [], |row| row.get(0)).expect("a count")
    }

    #[test]
    fn a_safe_point_waits_for_a_moment_an_end_or_the_end_of_the_thread() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = Utf8Path::from_path(folder.path()).expect("a UTF-8 path").join("tasks.db");
        let db = Db::open(&path).expect("a database");
        let (mut measures, now) = (Measures::default(), sys::boottime());

        measures.learn(&taught(Stretch::Gap), now);
        measures.save(&db).expect("nothing is due");
        assert_eq!(kept(&db), 0);
        assert!(measures.due().is_some_and(|due| due <= Instant::now() + LATER));
        measures.hurry();
        measures.save(&db).expect("it is written");
        assert_eq!((kept(&db), measures.due()), (1, None), "the pool's gaps");

        db.rollback();
        measures.roll_back();
        measures.hurry();
        measures.save(&db).expect("it is written again");
        assert_eq!(kept(&db), 1, "though nothing was learned since");
        db.commit().expect("a disk");
        measures.committed();

        measures.learn(&taught(Stretch::Gap), now);
        measures.learn(&taught(Stretch::Task), now);
        measures.save(&db).expect("it is written");
        assert_eq!((kept(&db), measures.due()), (2, None), "the pool's ends are written at once");
        db.commit().expect("a disk");
        let mut again = Measures::restore(&db).expect("it reads");
        let shape = again.shape(
            &"web".parse().expect("a name"),
            None,
            Until::SafePoint,
            &agentd_core::policy::AppPolicy::default().grace,
        );
        assert_eq!(shape.seen, 2, "both gaps are there");
    }
}
