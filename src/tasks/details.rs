//! Everything that is kept of one task: its payloads, its checkpoints, and the runs that its workers did not end.
//!
//! ```text
//!  open_task: running under fence 3 ── taken from its worker ──► run: fence 3, which worker, when, how
//!                                                                  │ that worker's process ends
//!                                                                  ▼
//!                                                                 run: and how it ended
//! ```
//! A run is written in the transaction that takes the task from its worker; of one that its worker ended, the task's own
//! row says all. How a process ended comes after that, and is not known of one whose daemon died meanwhile.

use agentd_core::event::Exit;
use agentd_core::id::Launch;
use agentd_core::task::{Paused, State, Task, TaskId};
use agentd_protocol::control::{CheckpointView, EffectsParams, ErrorObject, PayloadView, RunView, TaskDetails};
use rusqlite::params;

use super::ask::{failed, wall};
use super::db::{Db, DbError, now_ms};
use super::desk::Desk;
use super::payload::{Payload, blob_name};

/// Effects that are shown of a task.
const EFFECTS: u32 = 100;

impl Desk {
    /// What is kept of a task beside what lists show.
    pub(super) fn details(&self, task: &str) -> Result<TaskDetails, ErrorObject> {
        let params = EffectsParams { task: Some(task.to_owned()), limit: EFFECTS, ..EffectsParams::default() };
        let effects = self.list_effects(&params)?.effects;
        self.db.details(task).map(|kept| TaskDetails { effects, ..kept }).map_err(|error| failed(&error))
    }
}

impl Db {
    fn details(&self, task: &str) -> Result<TaskDetails, DbError> {
        let result = "SELECT form, value FROM ended_task WHERE id = ?1 AND form IS NOT NULL ORDER BY n DESC LIMIT 1";
        Ok(TaskDetails {
            input: self.shown("an input", "SELECT form, value FROM input WHERE task = ?1", task)?,
            result: self.shown("a result", result, task)?,
            checkpoints: self.checkpoints(task)?,
            runs: self.runs(task)?,
            effects: Vec::new(),
        })
    }

    fn checkpoints(&self, task: &str) -> Result<Vec<CheckpointView>, DbError> {
        let mut kept = Vec::new();
        let sql = "SELECT step, at, fence, safe, state_version, form, iif(form >= 2, value, ''), length(value)
             FROM ckpt WHERE task = ?1 ORDER BY step DESC";
        self.each_with("checkpoints", sql, params![task], |row| {
            let blob = blob_name(row.get(5)?, row.get_ref(6)?.as_bytes().unwrap_or_default());
            kept.push(CheckpointView {
                step: row.get::<_, i64>(0)?.cast_unsigned(),
                bytes: match blob {
                    Some(name) => self.blobs.size(&name),
                    None => row.get::<_, i64>(7)?.cast_unsigned(),
                },
                at: wall(row.get(1)?).unwrap_or_default(),
                fence: row.get::<_, i64>(2)?.cast_unsigned(),
                safe: row.get(3)?,
                state_version: row.get(4)?,
            });
            Ok(())
        })?;
        Ok(kept)
    }

    /// A payload, without reading one that is large.
    fn shown(&self, what: &'static str, sql: &str, task: &str) -> Result<Option<PayloadView>, DbError> {
        let read = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?));
        let Some((form, value)) = self.one(what, sql, params![task], read)? else { return Ok(None) };
        if let Some(name) = blob_name(form, &value) {
            return Ok(Some(PayloadView { bytes: self.blobs.size(&name), json: None }));
        }
        let payload = Payload::of_kept(form, value, &self.blobs)?;
        let json = payload.fields().1.and_then(|json| serde_json::from_str(json.get()).ok());
        Ok(Some(PayloadView { bytes: payload.bytes.len() as u64, json }))
    }

    fn runs(&self, task: &str) -> Result<Vec<RunView>, DbError> {
        let mut runs = Vec::new();
        let sql = "SELECT fence, worker, release, left_at, how, exit FROM run WHERE task = ?1 ORDER BY fence DESC";
        self.each_with("runs", sql, params![task], |row| {
            let worker: String = row.get(1)?;
            runs.push(RunView {
                fence: row.get::<_, i64>(0)?.cast_unsigned(),
                generation: generation_of(&worker),
                worker,
                release: row.get(2)?,
                left_at: wall(row.get(3)?).unwrap_or_default(),
                how: row.get(4)?,
                exit: row.get(5)?,
            });
            Ok(())
        })?;
        Ok(runs)
    }

    /// Notes the run of a task that is about to be written as nobody's, if somebody had it until now.
    pub(super) fn note_left(&self, task: &Task) -> Result<(), DbError> {
        let how = match &task.state {
            State::Running(_) | State::Told { .. } => return Ok(()),
            State::Waiting { why, .. } => paused_word(*why),
            State::Parked { .. } => "parked",
        };
        self.note_run(&task.id, how)
    }

    /// Notes the run of a task as it is stored, if somebody has it.
    pub(super) fn note_run(&self, task: &TaskId, how: &str) -> Result<(), DbError> {
        self.run(
            "the run of a task",
            "INSERT OR IGNORE INTO run (task, fence, launch, worker, release, left_at, how)
             SELECT id, json_extract(record, '$.fence'),
                coalesce(json_extract(record, '$.state.running.launch'), json_extract(record, '$.state.told.launch')),
                worker, release, ?2, ?3
             FROM open_task WHERE id = ?1
                AND (json_extract(record, '$.state.running') IS NOT NULL OR json_extract(record, '$.state.told') IS NOT NULL)",
            params![task.as_str(), now_ms(), how],
        )
    }

    /// Notes how a process ended with the runs that were its own. No row is written of one that had none.
    pub(super) fn note_exit(&self, launch: Launch, exit: Exit) -> Result<(), DbError> {
        let launch = launch.0.cast_signed();
        let sql = "SELECT 1 FROM run WHERE launch = ?1 AND exit IS NULL LIMIT 1";
        if self.one("a run", sql, params![launch], |_| Ok(()))?.is_none() {
            return Ok(());
        }
        self.begin()?;
        let sql = "UPDATE run SET exit = ?2 WHERE launch = ?1 AND exit IS NULL";
        self.run("the end of a run", sql, params![launch, exit.to_string()])
    }
}

/// The generation in a worker's name, `app.slot.generation`.
pub(super) fn generation_of(worker: &str) -> Option<u64> {
    worker.rsplit('.').next()?.parse().ok()
}

/// Why a task is not running, as one word.
pub(super) fn paused_word(why: Paused) -> &'static str {
    match why {
        Paused::Yielded => "yielded",
        Paused::Cut => "cut",
        Paused::Crashed => "crashed",
        Paused::Silent => "silent",
        Paused::Retried => "retried",
    }
}
