//! The database's schema and its history. Steps are forward only; each is one transaction.
//!
//! | schema | since | what |
//! |---|---|---|
//! | 1 | 0.1.0 | meta, revision, app, worker |
//! | 2 | 0.1.0 | release |
//! | 3 | 0.1.0 | deployment |

use camino::Utf8Path;
use rusqlite::Connection;

use super::StoreError;

/// One step a schema; step `n` leads from schema `n` to `n + 1`.
const STEPS: &[&str] = &[
    "
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE revision (
        app TEXT NOT NULL, id INTEGER NOT NULL, config TEXT NOT NULL, PRIMARY KEY (app, id)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE app (name TEXT PRIMARY KEY, head TEXT NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE worker (
        app TEXT NOT NULL, slot INTEGER NOT NULL, record TEXT NOT NULL, PRIMARY KEY (app, slot)
    ) STRICT, WITHOUT ROWID;
",
    "
    CREATE TABLE release (
        app TEXT NOT NULL, id TEXT NOT NULL, record TEXT NOT NULL, PRIMARY KEY (app, id)
    ) STRICT, WITHOUT ROWID;
",
    "
    CREATE TABLE deployment (
        id INTEGER PRIMARY KEY, app TEXT NOT NULL, state TEXT NOT NULL, generation INTEGER NOT NULL, record TEXT NOT NULL
    ) STRICT;
    CREATE INDEX deployment_app ON deployment (app);
",
];

/// The newest schema known here.
pub const SCHEMA: u32 = STEPS.len() as u32;

/// The schema of a database; zero for an empty one.
pub(super) fn found(connection: &Connection, path: &Utf8Path) -> Result<u32, StoreError> {
    let found: u32 = connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(|source| StoreError::Open { path: path.to_owned(), source })?;
    if found > SCHEMA {
        return Err(StoreError::Newer { path: path.to_owned(), found, known: SCHEMA });
    }
    Ok(found)
}

pub(super) fn migrate(connection: &mut Connection, path: &Utf8Path) -> Result<(), StoreError> {
    let found = found(connection, path)?;
    for (index, step) in STEPS.iter().enumerate().skip(found as usize) {
        let from = u32::try_from(index).expect("the steps fit 32 bits");
        let failed = |source| StoreError::Migrate { path: path.to_owned(), from, to: from + 1, source };
        let transaction = connection.transaction().map_err(failed)?;
        transaction.execute_batch(step).map_err(failed)?;
        transaction.pragma_update(None, "user_version", from + 1).map_err(failed)?;
        transaction.commit().map_err(failed)?;
    }
    Ok(())
}
