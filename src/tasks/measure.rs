//! What tasks take, learned: core's estimator of each app, fed and kept.
//!
//! A series that changed is written in the round in which its task ended, so it is as durable as the end itself. When a
//! round fails, what it taught stays learned: the same ends are told again, and count twice among a thousand.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

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

/// All estimators.
#[derive(Debug, Default)]
pub(super) struct Measures {
    apps: BTreeMap<AppName, AppGrace>,
    /// What each running task began with.
    runs: HashMap<TaskId, Run>,
    /// Apps of which a series changed.
    changed: Vec<AppName>,
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
        if self.changed.last() != Some(&span.app) {
            self.changed.push(span.app.clone());
        }
    }

    /// Writes the series that changed.
    pub(super) fn save(&mut self, db: &Db) -> Result<(), DbError> {
        for name in std::mem::take(&mut self.changed) {
            let Some(app) = self.apps.get_mut(&name) else { continue };
            for (key, bytes) in app.changed() {
                db.begin()?;
                let sql = "INSERT INTO series (app, kind, gaps, data) VALUES (?1, ?2, ?3, ?4)
                           ON CONFLICT DO UPDATE SET data = excluded.data";
                let kind = key.kind.unwrap_or_default();
                db.run("a series", sql, params![name.as_str(), kind, key.gaps, bytes])?;
            }
        }
        Ok(())
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
