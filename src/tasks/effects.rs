//! Writing effects, and the small store of an app's own.

use agentd_core::id::AppName;
use agentd_core::task::{EffectKey, EffectState, Fence, Kind, TaskId};
use rusqlite::params;

use super::db::{Db, DbError, now_ms};
use super::lookup::effect_word;
use super::payload::Payload;

/// An effect that is begun.
#[derive(Debug)]
pub(super) struct Intent<'a> {
    pub(super) task: &'a TaskId,
    pub(super) key: &'a EffectKey,
    pub(super) app: &'a AppName,
    pub(super) release: &'a str,
    pub(super) kind: &'a Kind,
    pub(super) fence: Fence,
    pub(super) description: Option<&'a str>,
    /// JSON.
    pub(super) compensate: Option<&'a str>,
}

impl Db {
    /// Writes that an effect is about to be done.
    pub(super) fn begin_effect(&self, intent: &Intent<'_>) -> Result<(), DbError> {
        self.begin()?;
        self.run(
            "an effect",
            "INSERT INTO effect (task, key, app, release, kind, fence, state, description, compensate, begun_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, 'intent', ?7, ?8, ?9)
             ON CONFLICT DO UPDATE SET app = excluded.app, release = excluded.release, kind = excluded.kind,
                fence = excluded.fence, state = excluded.state, description = excluded.description,
                compensate = excluded.compensate, begun_at = excluded.begun_at,
                ended_at = NULL, form = NULL, value = NULL, error = NULL",
            params![
                intent.task.as_str(),
                intent.key.as_str(),
                intent.app.as_str(),
                intent.release,
                intent.kind.as_str(),
                intent.fence.0.cast_signed(),
                intent.description,
                intent.compensate,
                now_ms()
            ],
        )
    }

    /// Writes what became of one.
    pub(super) fn end_effect(
        &self,
        task: &TaskId,
        key: &EffectKey,
        fence: Fence,
        state: EffectState,
        result: Option<&Payload<'_>>,
        error: Option<&str>,
    ) -> Result<(), DbError> {
        self.begin()?;
        let kept = result.map(|payload| payload.keep(&self.blobs)).transpose()?;
        self.run(
            "an effect",
            "UPDATE effect SET state = ?3, fence = ?4, ended_at = ?5, form = ?6, value = ?7, error = ?8
             WHERE task = ?1 AND key = ?2",
            params![
                task.as_str(),
                key.as_str(),
                effect_word(state),
                fence.0.cast_signed(),
                now_ms(),
                kept.as_ref().map(|kept| kept.form),
                kept,
                error
            ],
        )
    }
}
