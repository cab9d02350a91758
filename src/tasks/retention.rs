//! How much is kept of tasks that are over, and letting go of the rest.
//!
//! For each app by count and age, the oldest first, and every hour by the size of their blobs, the oldest of those that have
//! some. They go with their effects and checkpoints, some hundred in a round so that nobody waits for it. Blobs that
//! nothing names any more are removed every hour, between two rounds: what a round let go of comes back when it
//! cannot be committed. What is open is never touched.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

use agentd_core::id::AppName;
use rusqlite::params;

use super::ask::among;
use super::db::{Db, DbError, now_ms};
use super::desk::Desk;
use super::payload::blob_name;
use crate::causes::in_full;

/// Tasks let go of in one round.
const AT_ONCE: i64 = 500;

/// How many more than asked for are kept before some are let go of, so that it pays.
const SLACK: u64 = 100;

/// Pause between looks at ages and blobs.
const EVERY: Duration = Duration::from_secs(3600);

/// How much is kept of an app's tasks that are over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Retention {
    /// How many.
    pub count: u64,
    /// For how long.
    pub age: Duration,
    /// Bytes of large payloads.
    pub bytes: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self { count: 100_000, age: Duration::from_secs(7 * 24 * 3600), bytes: 1 << 30 }
    }
}

/// What is to be let go of.
#[derive(Debug)]
pub(super) struct Sweeper {
    /// Ended tasks by app.
    kept: BTreeMap<AppName, u64>,
    /// Apps that have too many.
    over: BTreeSet<AppName>,
    /// Apps whose blobs may be too large.
    large: BTreeSet<AppName>,
    /// Whether there may be blobs that nothing names.
    blobs: Blobs,
    next: Instant,
}

/// What is to be done about blobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blobs {
    /// Nothing.
    Kept,
    /// Those that nothing names are removed when the round is over.
    Due,
}

/// An ended task: its number, and its id.
type Old = (i64, String);

impl Sweeper {
    pub(super) fn new(db: &Db) -> Result<Self, DbError> {
        let mut kept = BTreeMap::new();
        db.each("counts of tasks", "SELECT app, count(*) FROM ended_task GROUP BY app", |row| {
            if let Ok(app) = row.get::<_, String>(0)?.parse() {
                kept.insert(app, row.get::<_, i64>(1)?.cast_unsigned());
            }
            Ok(())
        })?;
        let over = kept.keys().cloned().collect();
        let next = Instant::now() + Duration::from_secs(60);
        Ok(Self { kept, over, large: BTreeSet::new(), blobs: Blobs::Kept, next })
    }

    /// A task ended.
    pub(super) fn ended(&mut self, app: &AppName) {
        match self.kept.get_mut(app) {
            Some(kept) => {
                *kept += 1;
                if kept.is_multiple_of(SLACK) {
                    self.over.insert(app.clone());
                }
            }
            None => drop(self.kept.insert(app.clone(), 1)),
        }
    }

    /// When it wants to look next.
    pub(super) fn due(&self) -> Option<Instant> {
        let at_once = !self.over.is_empty() || !self.large.is_empty() || self.blobs == Blobs::Due;
        Some(if at_once { Instant::now() } else { self.next })
    }
}

impl Desk {
    /// Lets go of some of what is not to be kept; within the round's transaction.
    pub(super) fn sweep(&mut self) {
        if self.batch.failed.is_some() {
            return;
        }
        let now = Instant::now();
        let hourly = self.sweeper.next <= now;
        if hourly {
            self.sweeper.next = now + EVERY;
            self.sweeper.over.extend(self.sweeper.kept.keys().cloned());
            self.sweeper.large.extend(self.sweeper.kept.keys().cloned());
            self.sweeper.blobs = Blobs::Due;
        }
        for app in std::mem::take(&mut self.sweeper.over) {
            let keep = self.governed.get(&app).map(|governed| governed.retention).unwrap_or_default();
            let kept = self.sweeper.kept.get(&app).copied().unwrap_or(0);
            let surplus = i64::try_from(kept.saturating_sub(keep.count)).unwrap_or(i64::MAX).min(AT_ONCE);
            let age = i64::try_from(keep.age.as_millis()).unwrap_or(i64::MAX);
            match self.db.let_go(&app, surplus, now_ms().saturating_sub(age)) {
                Ok(0) => {}
                Ok(gone) => {
                    if let Some(kept) = self.sweeper.kept.get_mut(&app) {
                        *kept = kept.saturating_sub(gone);
                    }
                    self.sweeper.over.insert(app);
                }
                Err(error) => return self.fail(&error),
            }
        }
        if let Some(app) = self.sweeper.large.pop_first()
            && let Err(error) = self.sweep_large(app)
        {
            self.fail(&error);
        }
    }

    /// Lets go of the oldest tasks with blobs of an app that has too much in them.
    fn sweep_large(&mut self, app: AppName) -> Result<(), DbError> {
        let keep = self.governed.get(&app).map(|governed| governed.retention).unwrap_or_default();
        let old = self.db.too_large(&app, keep.bytes)?;
        if old.is_empty() {
            return Ok(());
        }
        self.db.forget(&old)?;
        if let Some(kept) = self.sweeper.kept.get_mut(&app) {
            *kept = kept.saturating_sub(old.len() as u64);
        }
        self.sweeper.blobs = Blobs::Due;
        self.sweeper.large.insert(app);
        Ok(())
    }

    /// Removes the blobs that nothing names, when that is due. Only between two rounds.
    pub(super) fn sweep_blobs(&mut self) {
        if std::mem::replace(&mut self.sweeper.blobs, Blobs::Kept) == Blobs::Due
            && let Err(error) = self.db.sweep_blobs()
        {
            tracing::warn!(error = in_full(&error), "blobs that nothing names may lie about");
        }
    }
}

impl Desk {
    /// Lets go of all ended tasks of these apps that ended before `before`; how many.
    pub(super) fn prune_kept(&mut self, names: &[String], before: i64) -> Result<u64, DbError> {
        let apps: Vec<AppName> = self.sweeper.kept.keys().filter(|app| among(names, app.as_str())).cloned().collect();
        let mut all = 0;
        for app in apps {
            loop {
                let gone = self.db.let_go(&app, 0, before)?;
                all += gone;
                if let Some(kept) = self.sweeper.kept.get_mut(&app) {
                    *kept = kept.saturating_sub(gone);
                }
                if gone == 0 {
                    break;
                }
            }
        }
        Ok(all)
    }
}

impl Db {
    /// Lets go of the oldest ended tasks of an app: `surplus` of them, and those that ended before `before` (ms since
    /// 1970). At most some hundred; how many.
    pub(super) fn let_go(&self, app: &AppName, surplus: i64, before: i64) -> Result<u64, DbError> {
        let read = |source| DbError::Read { what: "old tasks", source };
        let mut old: Vec<Old> = Vec::new();
        {
            let sql = "SELECT n, id, ended_at FROM ended_task WHERE app = ?1 ORDER BY n LIMIT ?2";
            let mut statement = self.connection.prepare_cached(sql).map_err(read)?;
            let mut rows = statement.query(params![app.as_str(), AT_ONCE]).map_err(read)?;
            while let Some(row) = rows.next().map_err(read)? {
                let among = i64::try_from(old.len()).unwrap_or(i64::MAX) < surplus;
                if !among && row.get::<_, i64>(2).map_err(read)? >= before {
                    break;
                }
                old.push((row.get(0).map_err(read)?, row.get(1).map_err(read)?));
            }
        }
        self.forget(&old)?;
        Ok(old.len() as u64)
    }

    fn forget(&self, old: &[Old]) -> Result<(), DbError> {
        if !old.is_empty() {
            self.begin()?;
        }
        for (n, id) in old {
            self.run("old tasks", "DELETE FROM effect WHERE task = ?1", params![id])?;
            self.run("old tasks", "DELETE FROM ckpt WHERE task = ?1", params![id])?;
            self.run("old tasks", "DELETE FROM run WHERE task = ?1", params![id])?;
            self.run("old tasks", "DELETE FROM ended_task WHERE n = ?1", params![n])?;
        }
        Ok(())
    }

    /// The ended tasks of an app whose blobs come on top of `bytes` of younger ones'; the oldest first, at most some
    /// hundred.
    fn too_large(&self, app: &AppName, bytes: u64) -> Result<Vec<Old>, DbError> {
        let sizes: HashMap<_, _> = self.blobs.list()?.into_iter().collect();
        let sql = "SELECT e.n, e.id, e.form, e.value FROM ended_task e WHERE e.app = ?1 AND e.form >= 2
             UNION ALL SELECT e.n, e.id, f.form, f.value FROM effect f JOIN ended_task e ON e.id = f.task
                WHERE f.app = ?1 AND f.form >= 2
             UNION ALL SELECT e.n, e.id, c.form, c.value FROM ckpt c JOIN ended_task e ON e.id = c.task
                WHERE e.app = ?1 AND c.form >= 2
             ORDER BY 1 DESC";
        let (mut kept, mut beyond) = (0_u64, Vec::<Old>::new());
        self.each_with("large tasks", sql, params![app.as_str()], |row| {
            let (n, form, value): (i64, i64, Vec<u8>) = (row.get(0)?, row.get(2)?, row.get(3)?);
            kept += blob_name(form, &value).and_then(|name| sizes.get(&name)).copied().unwrap_or(0);
            if kept > bytes && beyond.last().is_none_or(|(last, _)| *last != n) {
                beyond.push((n, row.get(1)?));
            }
            Ok(())
        })?;
        beyond.reverse();
        beyond.truncate(usize::try_from(AT_ONCE).unwrap_or(usize::MAX));
        Ok(beyond)
    }

    /// Removes the blobs that nothing names; how many bytes that were.
    pub(super) fn sweep_blobs(&self) -> Result<u64, DbError> {
        let mut named = HashSet::new();
        for table in ["input", "ckpt", "effect", "ended_task", "kv"] {
            let sql = format!("SELECT form, value FROM {table} WHERE form >= 2");
            self.each("blobs' names", &sql, |row| {
                named.extend(blob_name(row.get(0)?, &row.get::<_, Vec<u8>>(1)?));
                Ok(())
            })?;
        }
        let mut freed = 0;
        for (name, bytes) in self.blobs.list()? {
            if !named.contains(&name) && self.blobs.remove(&name) {
                freed += bytes;
            }
        }
        Ok(freed)
    }
}

#[cfg(test)]
mod tests {
    use camino::Utf8PathBuf;

    use super::super::payload::{Form, Payload};
    use super::*;

    #[test]
    fn of_tasks_with_large_payloads_the_oldest_go_until_the_rest_fits() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = Utf8PathBuf::from_path_buf(folder.path().join("tasks.db")).expect("UTF-8");
        let db = Db::open(&path).expect("it can be made");
        let app: AppName = "support".parse().expect("a name");
        for (n, bytes) in [(1_i64, 100_000), (2, 10), (3, 100_000), (4, 100_000)] {
            let payload = Payload { form: Form::Bytes, bytes: vec![n.to_le_bytes()[0]; bytes].into() };
            let kept = payload.keep(&db.blobs).expect("kept");
            let sql = "INSERT INTO ended_task (n, id, app, record, outcome, fence, ran_ms, release, worker, begun_at,
                ended_at, form, value) VALUES (?1, 't' || ?1, ?2, '', 'ok', 1, 1, 'g1', 'w', 1, 1, ?3, ?4)";
            db.run("a task", sql, params![n, app.as_str(), kept.form, kept]).expect("written");
        }
        assert_eq!(db.too_large(&app, 300_000).expect("read"), []);
        assert_eq!(db.too_large(&app, 250_000).expect("read"), [(1, "t1".to_owned())], "not the one without blobs");
        let old = db.too_large(&app, 50_000).expect("read");
        assert_eq!(old.iter().map(|(n, _)| *n).collect::<Vec<_>>(), [1, 3, 4]);
        db.forget(&old[..2]).expect("let go of");
        assert_eq!(db.sweep_blobs().expect("swept"), 200_000);
        assert_eq!(db.too_large(&app, 100_000).expect("read"), []);
    }
}
