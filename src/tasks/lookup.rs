//! Reading `tasks.db`: what a step needs to know, what a daemon begins with, and payloads on their way back.

use std::collections::HashMap;

use agentd_core::task::{Boot, EffectKey, EffectRecord, EffectState, Fence, Known, Mark, Needs, Task, TaskId};
use agentd_core::time::Moment;
use rusqlite::{OptionalExtension, Row, params};
use serde::de::DeserializeOwned;

use super::db::{Db, DbError};
use super::payload::Payload;

impl Db {
    /// What is known of what a message names.
    pub(super) fn known(&self, needs: &Needs<'_>) -> Result<Known, DbError> {
        let mut known = Known::default();
        if let Some(task) = needs.task {
            let sql = "SELECT record FROM ended_task WHERE id = ?1";
            known.task = self.record("a task", task.as_str(), sql, params![task.as_str()])?;
        }
        if let Some((app, key)) = needs.key {
            let sql = "SELECT record FROM ended_task WHERE app = ?1 AND key = ?2 ORDER BY n DESC LIMIT 1";
            known.key = self.record("a task", key.as_str(), sql, params![app.as_str(), key.as_str()])?;
        }
        if let Some((task, step)) = needs.checkpoint {
            let sql = "SELECT 1 FROM ckpt WHERE task = ?1 AND step = ?2";
            let found = self.one("a checkpoint", sql, params![task.as_str(), step.cast_signed()], |_| Ok(()))?;
            known.checkpoint = found.is_some();
        }
        if let Some((task, key)) = needs.effect {
            let sql = "SELECT fence, state FROM effect WHERE task = ?1 AND key = ?2";
            let found = self.one("an effect", sql, params![task.as_str(), key.as_str()], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?))
            })?;
            known.effect = found.map(|(fence, state)| EffectRecord {
                fence: Fence(fence.cast_unsigned()),
                state: effect_state(&state),
            });
        }
        Ok(known)
    }

    /// Whether what is stored was written since the machine was booted. Notes the present boot.
    pub(super) fn boot(&self) -> Result<Boot, DbError> {
        let this = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let this = this.trim();
        let last =
            self.one("the boot", "SELECT value FROM meta WHERE key = 'boot'", &[], |row| row.get::<_, String>(0))?;
        if last.as_deref() == Some(this) {
            return Ok(Boot::Same);
        }
        self.put_meta("the boot", "boot", this)?;
        // Of a new file nothing was written before.
        Ok(if last.is_some() { Boot::Other } else { Boot::Same })
    }

    /// Every open task, with what is read back from its checkpoints and effects.
    pub(super) fn open_tasks(&self) -> Result<Vec<Task>, DbError> {
        let mut marks = HashMap::new();
        self.each(
            "checkpoints",
            "SELECT c.task, max(c.step), c.safe, c.state_version, c.moment
             FROM open_task o JOIN ckpt c ON c.task = o.id GROUP BY c.task",
            |row| {
                let mark = Mark {
                    step: row.get::<_, i64>(1)?.cast_unsigned(),
                    safe: row.get(2)?,
                    state_version: row.get(3)?,
                    at: Moment::from_micros(row.get::<_, i64>(4)?.cast_unsigned()),
                };
                marks.insert(row.get::<_, String>(0)?, mark);
                Ok(())
            },
        )?;
        let mut intents: HashMap<(String, u64), u32> = HashMap::new();
        self.each(
            "effects",
            "SELECT e.task, e.fence FROM open_task o JOIN effect e ON e.task = o.id WHERE e.state = 'intent'",
            |row| {
                *intents.entry((row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned())).or_default() += 1;
                Ok(())
            },
        )?;
        let mut records = Vec::new();
        self.each("tasks", "SELECT id, record FROM open_task", |row| {
            records.push((row.get::<_, String>(0)?, row.get::<_, String>(1)?));
            Ok(())
        })?;
        let read = |(key, record): (String, String)| -> Result<Task, DbError> {
            let mut task: Task = serde_json::from_str(&record).map_err(|source| DbError::Record {
                what: "task",
                key: key.clone(),
                source,
            })?;
            task.checkpoint = marks.get(&key).copied();
            task.intents = intents.get(&(key, task.fence.0)).copied().unwrap_or(0);
            Ok(task)
        };
        records.into_iter().map(read).collect()
    }

    /// What a task was begun with.
    pub(super) fn input(&self, task: &TaskId) -> Result<Option<Payload<'static>>, DbError> {
        self.payload("an input", "SELECT form, value FROM input WHERE task = ?1", params![task.as_str()])
    }

    /// A checkpoint, with the version of its form.
    pub(super) fn ckpt(&self, task: &TaskId, step: u64) -> Result<Option<(Payload<'static>, Option<u32>)>, DbError> {
        let with = params![task.as_str(), step.cast_signed()];
        let sql = "SELECT form, value FROM ckpt WHERE task = ?1 AND step = ?2";
        let Some(payload) = self.payload("a checkpoint", sql, with)? else { return Ok(None) };
        let sql = "SELECT state_version FROM ckpt WHERE task = ?1 AND step = ?2";
        let version = self.one("a checkpoint", sql, with, |row| row.get(0))?.flatten();
        Ok(Some((payload, version)))
    }

    /// What an effect gave.
    pub(super) fn effect_result(&self, task: &TaskId, key: &EffectKey) -> Result<Option<Payload<'static>>, DbError> {
        let sql = "SELECT form, value FROM effect WHERE task = ?1 AND key = ?2 AND form IS NOT NULL";
        self.payload("an effect", sql, params![task.as_str(), key.as_str()])
    }

    /// How a task ended and what it gave.
    pub(super) fn result(&self, task: &TaskId) -> Result<Option<(String, Option<Payload<'static>>)>, DbError> {
        let sql = "SELECT outcome FROM ended_task WHERE id = ?1";
        let Some(outcome) = self.one("a task", sql, params![task.as_str()], |row| row.get(0))? else {
            return Ok(None);
        };
        let sql = "SELECT form, value FROM ended_task WHERE id = ?1 AND form IS NOT NULL";
        Ok(Some((outcome, self.payload("a result", sql, params![task.as_str()])?)))
    }

    /// The key that a task was begun with, and its trace.
    pub(super) fn begun_with(&self, task: &TaskId) -> Result<(Option<String>, Option<String>), DbError> {
        let sql = "SELECT key, traceparent FROM open_task WHERE id = ?1";
        let found = self.one("a task", sql, params![task.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(found.unwrap_or_default())
    }

    pub(super) fn payload(
        &self,
        what: &'static str,
        sql: &str,
        with: &[&dyn rusqlite::ToSql],
    ) -> Result<Option<Payload<'static>>, DbError> {
        let found = self.one(what, sql, with, |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?)))?;
        found.map(|(form, value)| Ok(Payload::of_kept(form, value, &self.blobs)?)).transpose()
    }

    pub(super) fn one<T>(
        &self,
        what: &'static str,
        sql: &str,
        with: &[&dyn rusqlite::ToSql],
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, DbError> {
        let failed = |source| DbError::Read { what, source };
        let mut statement = self.connection.prepare_cached(sql).map_err(failed)?;
        statement.query_row(with, read).optional().map_err(failed)
    }

    pub(super) fn each(
        &self,
        what: &'static str,
        sql: &str,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<()>,
    ) -> Result<(), DbError> {
        self.each_with(what, sql, &[], read)
    }

    pub(super) fn each_with(
        &self,
        what: &'static str,
        sql: &str,
        with: &[&dyn rusqlite::ToSql],
        mut read: impl FnMut(&Row<'_>) -> rusqlite::Result<()>,
    ) -> Result<(), DbError> {
        let failed = |source| DbError::Read { what, source };
        let mut statement = self.connection.prepare_cached(sql).map_err(failed)?;
        let mut rows = statement.query(with).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            read(row).map_err(failed)?;
        }
        Ok(())
    }

    fn record<T: DeserializeOwned>(
        &self,
        what: &'static str,
        key: &str,
        sql: &str,
        with: &[&dyn rusqlite::ToSql],
    ) -> Result<Option<T>, DbError> {
        let Some(text) = self.one(what, sql, with, |row| row.get::<_, String>(0))? else { return Ok(None) };
        serde_json::from_str(&text).map(Some).map_err(|source| DbError::Record { what, key: key.to_owned(), source })
    }
}

/// The words of an effect's state.
const EFFECT_STATES: [(EffectState, &str); 4] = [
    (EffectState::Intent, "intent"),
    (EffectState::Done, "done"),
    (EffectState::Failed, "failed"),
    (EffectState::Skipped, "skipped"),
];

/// An effect's state as one word.
pub(super) fn effect_word(state: EffectState) -> &'static str {
    EFFECT_STATES.iter().find(|(known, _)| *known == state).map_or("intent", |(_, word)| word)
}

/// The state that a word stands for. A word that nobody wrote is an effect that nobody knows of: an intent.
fn effect_state(word: &str) -> EffectState {
    EFFECT_STATES.iter().find(|(_, known)| *known == word).map_or(EffectState::Intent, |(state, _)| *state)
}
