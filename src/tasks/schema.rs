//! The schema of `tasks.db` and its history. Steps are forward only; each is one transaction.
//!
//! | schema | since | what |
//! |---|---|---|
//! | 1 | 0.1.0 | meta, task, ckpt, effect, kv, series |

use rusqlite::Connection;

use super::db::DbError;

/// One step a schema; step `n` leads from schema `n` to `n + 1`.
const STEPS: &[&str] = &["
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
"];

/// Brings the schema up to date.
pub(super) fn migrate(connection: &mut Connection) -> Result<(), DbError> {
    let known = u32::try_from(STEPS.len()).expect("the steps fit 32 bits");
    let found: u32 =
        connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(DbError::Open)?;
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
