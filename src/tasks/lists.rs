//! Lists of what is kept: tasks that are over, effects, sessions.

use agentd_core::task::{EffectKey, Ended, TaskId};
use agentd_protocol::control::tasks::ROWS_MAX;
use agentd_protocol::control::{
    ALL, EffectList, EffectState, EffectView, EffectsParams, ErrorObject, SessionList, SessionView, SessionsParams,
    TaskState, TaskView, TasksParams,
};
use rusqlite::types::Value;
use rusqlite::{Row, params_from_iter};

use super::ask::{failed, wall};
use super::db::{Db, DbError};
use super::desk::Desk;
use super::details::generation_of;

/// Conditions of a query, with what they are about.
#[derive(Debug, Default)]
struct Where {
    conditions: Vec<String>,
    values: Vec<Value>,
}

impl Where {
    fn equal(&mut self, column: &str, value: Option<&String>) {
        if let Some(value) = value {
            self.conditions.push(format!("{column} = ?"));
            self.values.push(Value::Text(value.clone()));
        }
    }

    fn among(&mut self, column: &str, names: &[String]) {
        if !names.is_empty() && !names.iter().any(|name| name == ALL) {
            let marks = vec!["?"; names.len()].join(", ");
            self.conditions.push(format!("{column} IN ({marks})"));
            self.values.extend(names.iter().cloned().map(Value::Text));
        }
    }

    fn text(&self) -> String {
        if self.conditions.is_empty() { String::new() } else { format!("WHERE {}", self.conditions.join(" AND ")) }
    }
}

impl Desk {
    /// Effects as people see them; those of which nobody knows the end first.
    pub(super) fn list_effects(&self, params: &EffectsParams) -> Result<EffectList, ErrorObject> {
        let limit = params.limit.min(ROWS_MAX) as usize;
        let mut effects = self.db.effects(params, limit + 1).map_err(|error| failed(&error))?;
        for effect in &mut effects {
            // One whose task is still with the worker that began it is being done right now.
            let open = TaskId::new(&effect.task).ok().and_then(|id| self.ledger.task(&id));
            let owned = open.is_some_and(|task| task.owner().is_some() && task.fence.0 == effect.fence);
            if effect.state == EffectState::Indeterminate && owned && EffectKey::new(&effect.key).is_ok() {
                effect.state = EffectState::Open;
            }
        }
        let more = effects.len() > limit;
        effects.truncate(limit);
        Ok(EffectList { effects, more })
    }

    /// Sessions as people see them.
    pub(super) fn list_sessions(&self, params: &SessionsParams) -> Result<SessionList, ErrorObject> {
        let limit = params.limit.min(ROWS_MAX) as usize;
        let mut sessions = self.db.sessions(params, limit + 1).map_err(|error| failed(&error))?;
        let more = sessions.len() > limit;
        sessions.truncate(limit);
        Ok(SessionList { sessions, more })
    }
}

impl Db {
    /// Tasks that are over, the latest first.
    pub(super) fn ended(&self, params: &TasksParams, limit: usize) -> Result<Vec<TaskView>, DbError> {
        let mut only = Where::default();
        only.among("app", &params.names);
        only.equal("kind", params.kind.as_ref());
        only.equal("session", params.session.as_ref());
        only.equal("id", params.task.as_ref());
        let sql = format!(
            "SELECT id, app, key, kind, session, record, outcome, fence, ran_ms, traceparent, release, worker, begun_at,
                ended_at, figures FROM ended_task {} ORDER BY n DESC LIMIT {limit}",
            only.text()
        );
        self.all("tasks", &sql, only.values, ended_view)
    }

    fn effects(&self, params: &EffectsParams, limit: usize) -> Result<Vec<EffectView>, DbError> {
        let mut only = Where::default();
        only.among("app", &params.names);
        only.equal("task", params.task.as_ref());
        only.equal("release", params.release.as_ref());
        let sql = format!(
            "SELECT app, task, key, kind, state, release, fence, description, compensate, error, begun_at, ended_at
             FROM effect {} ORDER BY state = 'intent' DESC, begun_at DESC LIMIT {limit}",
            only.text()
        );
        self.all("effects", &sql, only.values, effect_view)
    }

    fn sessions(&self, params: &SessionsParams, limit: usize) -> Result<Vec<SessionView>, DbError> {
        let sql = format!(
            "SELECT session, sum(open), sum(parked), sum(1 - open), release, max(begun_at) FROM (
                SELECT session, 1 AS open, json_extract(record, '$.state.parked') IS NOT NULL AS parked, release, begun_at
                FROM open_task WHERE app = ?1 AND session IS NOT NULL
                UNION ALL
                SELECT session, 0, 0, release, begun_at FROM ended_task WHERE app = ?1 AND session IS NOT NULL)
             GROUP BY session ORDER BY max(begun_at) DESC LIMIT {limit}"
        );
        self.all("sessions", &sql, vec![Value::Text(params.name.clone())], |row| {
            let count = |index| row.get::<_, i64>(index).map(i64::cast_unsigned);
            Ok(SessionView {
                session: row.get(0)?,
                open: count(1)?,
                parked: count(2)?,
                ended: count(3)?,
                release: row.get(4)?,
                last_at: wall(row.get(5)?).unwrap_or_default(),
            })
        })
    }

    fn all<T>(
        &self,
        what: &'static str,
        sql: &str,
        values: Vec<Value>,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, DbError> {
        let failed = |source| DbError::Read { what, source };
        let mut statement = self.connection.prepare(sql).map_err(failed)?;
        let rows = statement.query_map(params_from_iter(values), read).map_err(failed)?;
        rows.collect::<Result<_, _>>().map_err(failed)
    }
}

fn ended_view(row: &Row<'_>) -> rusqlite::Result<TaskView> {
    let record: String = row.get(5)?;
    let outcome: String = row.get(6)?;
    let loss = serde_json::from_str::<Ended>(&record).ok().and_then(|ended| match ended.end {
        agentd_core::task::End::Lost(loss) => Some(loss.word()),
        agentd_core::task::End::Ok
        | agentd_core::task::End::Error
        | agentd_core::task::End::Cancelled
        | agentd_core::task::End::Discarded => None,
    });
    let why = loss.map_or_else(|| outcome.clone(), |word| format!("{outcome}: {word}"));
    let text = |index| row.get::<_, String>(index).map(|text| Some(text).filter(|text| !text.is_empty()));
    let fence = row.get::<_, i64>(7)?.cast_unsigned();
    let worker = text(11)?;
    Ok(TaskView {
        id: row.get(0)?,
        app: row.get(1)?,
        key: row.get(2)?,
        kind: row.get(3)?,
        session: row.get(4)?,
        state: TaskState::Ended,
        why: Some(why),
        stuck: false,
        attempt: u32::try_from(fence).unwrap_or(u32::MAX),
        fence,
        generation: worker.as_deref().and_then(generation_of),
        worker,
        release: text(10)?,
        traceparent: row.get(9)?,
        age_ms: row.get::<_, i64>(8)?.cast_unsigned(),
        p50_ms: None,
        p99_ms: None,
        step: None,
        checkpoint_at: None,
        open_effects: 0,
        parked_effect: None,
        begun_at: wall(row.get(12)?),
        ended_at: wall(row.get(13)?),
        figures: json(row.get(14)?),
        details: None,
    })
}

fn effect_view(row: &Row<'_>) -> rusqlite::Result<EffectView> {
    let state = match row.get::<_, String>(4)?.as_str() {
        "done" => EffectState::Done,
        "failed" => EffectState::Failed,
        "skipped" => EffectState::Skipped,
        _ => EffectState::Indeterminate,
    };
    Ok(EffectView {
        app: row.get(0)?,
        task: row.get(1)?,
        key: row.get(2)?,
        kind: row.get(3)?,
        state,
        release: row.get(5)?,
        fence: row.get::<_, i64>(6)?.cast_unsigned(),
        description: row.get(7)?,
        compensate: json(row.get(8)?),
        error: json(row.get(9)?),
        begun_at: wall(row.get(10)?).unwrap_or_default(),
        ended_at: row.get::<_, Option<i64>>(11)?.and_then(wall),
    })
}

/// JSON as it was stored.
fn json(text: Option<String>) -> Option<serde_json::Value> {
    text.and_then(|text| serde_json::from_str(&text).ok())
}
