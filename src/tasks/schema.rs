//! The schema of `tasks.db` and its history. Steps are forward only; each is one transaction.
//!
//! | schema | since | what |
//! |---|---|---|
//! | 1 | 0.1.0 | meta, open_task, input, ckpt, effect, ended_task, kv, series |
//! | 2 | 0.1.0 | panel |
//! | 3 | 0.1.0 | run |
//!
//! `open_task` is small and hot: its rows are written whole. `ended_task` is written at its end only, in the order in
//! which tasks end, so that retention removes from its beginning. Payloads are in columns `form` and `value`: see
//! [`Payload`](super::payload::Payload).

use rusqlite::Connection;

use super::db::DbError;

/// One step a schema; step `n` leads from schema `n` to `n + 1`.
const STEPS: &[&str] = &[
    "
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE open_task (
        id TEXT PRIMARY KEY, app TEXT NOT NULL, key TEXT, kind TEXT, session TEXT, record TEXT NOT NULL,
        traceparent TEXT, release TEXT NOT NULL, worker TEXT NOT NULL, begun_at INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE input (
        task TEXT PRIMARY KEY, form INTEGER NOT NULL, value BLOB NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE ckpt (
        task TEXT NOT NULL, step INTEGER NOT NULL, fence INTEGER NOT NULL, safe INTEGER NOT NULL, state_version INTEGER,
        moment INTEGER NOT NULL, at INTEGER NOT NULL, form INTEGER NOT NULL, value BLOB NOT NULL
    ) STRICT;
    CREATE UNIQUE INDEX ckpt_step ON ckpt (task, step);
    CREATE TABLE effect (
        task TEXT NOT NULL, key TEXT NOT NULL, app TEXT NOT NULL, release TEXT NOT NULL, kind TEXT NOT NULL,
        fence INTEGER NOT NULL, state TEXT NOT NULL, description TEXT, compensate TEXT,
        begun_at INTEGER NOT NULL, ended_at INTEGER, form INTEGER, value BLOB, error TEXT,
        PRIMARY KEY (task, key)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX effect_release ON effect (app, release, begun_at);
    CREATE TABLE ended_task (
        n INTEGER PRIMARY KEY, id TEXT NOT NULL, app TEXT NOT NULL, key TEXT, kind TEXT, session TEXT,
        record TEXT NOT NULL, outcome TEXT NOT NULL, fence INTEGER NOT NULL, ran_ms INTEGER NOT NULL,
        traceparent TEXT, release TEXT NOT NULL, worker TEXT NOT NULL,
        begun_at INTEGER NOT NULL, ended_at INTEGER NOT NULL, form INTEGER, value BLOB, figures TEXT
    ) STRICT;
    CREATE INDEX ended_id ON ended_task (id);
    CREATE INDEX ended_key ON ended_task (app, key) WHERE key IS NOT NULL;
    CREATE INDEX ended_session ON ended_task (app, session) WHERE session IS NOT NULL;
    CREATE INDEX ended_app ON ended_task (app);
    CREATE TABLE kv (
        app TEXT NOT NULL, ns TEXT NOT NULL, key TEXT NOT NULL, form INTEGER NOT NULL, value BLOB NOT NULL,
        PRIMARY KEY (app, ns, key)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE series (
        app TEXT NOT NULL, kind TEXT NOT NULL, gaps INTEGER NOT NULL, data BLOB NOT NULL, PRIMARY KEY (app, kind, gaps)
    ) STRICT, WITHOUT ROWID;
",
    "
    CREATE TABLE panel (app TEXT PRIMARY KEY, record TEXT NOT NULL) STRICT, WITHOUT ROWID;
",
    "
    CREATE TABLE run (
        task TEXT NOT NULL, fence INTEGER NOT NULL, launch INTEGER NOT NULL, worker TEXT NOT NULL, release TEXT NOT NULL,
        left_at INTEGER NOT NULL, how TEXT NOT NULL, exit TEXT, PRIMARY KEY (task, fence)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX run_launch ON run (launch) WHERE exit IS NULL;
",
];

/// Brings the schema up to date.
///
/// # Errors
/// A file of a newer agentd is left alone.
pub(super) fn migrate(connection: &mut Connection) -> Result<(), DbError> {
    let known = u32::try_from(STEPS.len()).expect("the steps fit 32 bits");
    let found: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(DbError::Open)?;
    if found > known {
        return Err(DbError::Newer { found, known });
    }
    for (index, step) in STEPS.iter().enumerate().skip(found as usize) {
        let from = u32::try_from(index).expect("the steps fit 32 bits");
        let failed = |source| DbError::Migrate { from, to: from + 1, source };
        let transaction = connection.transaction().map_err(failed)?;
        transaction.execute_batch(step).map_err(failed)?;
        transaction.pragma_update(None, "user_version", from + 1).map_err(failed)?;
        transaction.commit().map_err(failed)?;
    }
    Ok(())
}
