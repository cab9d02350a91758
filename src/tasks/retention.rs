//! How much is kept of tasks that are over, and letting go of the rest.
//!
//! By count and age, for each app: the oldest go first, with their effects and checkpoints, some hundred in a round so that
//! nobody waits for it. Blobs that nothing names any more are removed every hour, and the oldest tasks with blobs when
//! all blobs together are too large. What is open is never touched.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::{Duration, Instant};

use agentd_core::id::AppName;
use rusqlite::params;

use super::ask::among;
use super::db::{Db, DbError, now_ms};
use super::desk::{Desk, in_full};
use super::payload::blob_name;

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
    next: Instant,
}

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
        Ok(Self { kept, over, next: Instant::now() + Duration::from_secs(60) })
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
        Some(if self.over.is_empty() { self.next } else { Instant::now() })
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
        if hourly && let Err(error) = self.db.sweep_blobs() {
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
        let mut old: Vec<(i64, String)> = Vec::new();
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
        if !old.is_empty() {
            self.begin()?;
        }
        for (n, id) in &old {
            self.run("old tasks", "DELETE FROM effect WHERE task = ?1", params![id])?;
            self.run("old tasks", "DELETE FROM ckpt WHERE task = ?1", params![id])?;
            self.run("old tasks", "DELETE FROM ended_task WHERE n = ?1", params![n])?;
        }
        Ok(old.len() as u64)
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
