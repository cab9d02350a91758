//! `tasks.db`: what is known of tasks when everything else is gone.
//!
//! Owns the file, the order of its writes and the payloads beside it ([`super::blob`]). Knows nothing of what a row
//! leads to: rows are asked for by core's ledger, one by one, while the message that brought their payload is in hand.
//!
//! **One transaction a batch.** The first write of a batch opens it, [`Db::commit`] ends it with one fsync
//! (`synchronous=FULL` under WAL), [`Db::rollback`] forgets it. Reads see what the open transaction wrote.
//!
//! **What can go wrong.** A file of a newer agentd is refused and left alone. A full or failing disk fails the batch; the
//! file stays as it was after the last commit.

use std::time::Duration;

use agentd_core::task::{End, Ended, Fence, Key, Kind, Mark, Session, Task, TaskId};
use camino::{Utf8Path, Utf8PathBuf};
use jiff::Timestamp;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, params};
use thiserror::Error;

use super::blob::{BlobError, Blobs};
use super::payload::Payload;
use super::schema;

/// Why the database could not do its work.
#[derive(Debug, Error)]
pub enum DbError {
    /// The file could not be opened or made.
    #[error("open tasks.db")]
    Open(#[source] rusqlite::Error),
    /// It was written by a later agentd.
    #[error("open tasks.db: it has schema {found}, and this agentd knows {known}: run the version that wrote it")]
    Newer {
        /// Its schema.
        found: u32,
        /// The newest known here.
        known: u32,
    },
    /// Its schema could not be brought up to date.
    #[error("bring tasks.db from schema {from} to {to}")]
    Migrate {
        /// From.
        from: u32,
        /// To.
        to: u32,
        /// Why.
        source: rusqlite::Error,
    },
    /// It could not be read.
    #[error("read {what} from tasks.db")]
    Read {
        /// What.
        what: &'static str,
        /// Why.
        source: rusqlite::Error,
    },
    /// A record in it is not what it should be.
    #[error("understand {what} {key} in tasks.db")]
    Record {
        /// What.
        what: &'static str,
        /// Which.
        key: String,
        /// Why.
        source: serde_json::Error,
    },
    /// Something could not be written.
    #[error("write {what} to tasks.db")]
    Write {
        /// What.
        what: &'static str,
        /// Why.
        source: rusqlite::Error,
    },
    /// The batch could not be committed.
    #[error("commit to tasks.db")]
    Commit(#[source] rusqlite::Error),
    /// A large payload.
    #[error(transparent)]
    Blob(#[from] BlobError),
}

/// What is written of a task when it is begun, beside what core knows.
#[derive(Clone, Copy, Debug)]
pub(super) struct About<'a> {
    pub(super) traceparent: Option<&'a str>,
    /// What the worker runs that has it now.
    pub(super) release: &'a str,
    /// Which worker that is.
    pub(super) worker: &'a str,
}

/// What is written of a task when it ends, beside what core knows.
#[derive(Debug, Default)]
pub(super) struct Epilogue<'a> {
    /// Its result, or what went wrong.
    pub(super) payload: Option<Payload<'a>>,
    /// Figures of `task.end`, as JSON.
    pub(super) figures: Option<String>,
}

/// The database.
#[derive(Debug)]
pub(super) struct Db {
    pub(super) path: Utf8PathBuf,
    pub(super) connection: Connection,
    pub(super) blobs: Blobs,
}

impl Db {
    /// Opens or makes the database at `path`, with its blobs in a folder beside it, and brings its schema up to date.
    ///
    /// # Errors
    /// A newer file is left as it is; so is every file that cannot be opened.
    pub(super) fn open(path: &Utf8Path) -> Result<Self, DbError> {
        let blobs = Blobs::open(path.with_file_name("blobs"))?;
        crate::store::keep_private(path);
        let mut connection = Connection::open(path).map_err(DbError::Open)?;
        connection.busy_timeout(Duration::from_secs(2)).map_err(DbError::Open)?;
        schema::migrate(&mut connection)?;
        for (name, value) in [("journal_mode", "WAL"), ("synchronous", "FULL")] {
            connection.pragma_update(None, name, value).map_err(DbError::Open)?;
        }
        // Pages of 4 KiB: 4 MiB of cache, and a WAL that is moved into the file every 16 MiB.
        for (name, value) in [("cache_size", -4096), ("wal_autocheckpoint", 4096)] {
            connection.pragma_update(None, name, value).map_err(DbError::Open)?;
        }
        // Otherwise a statement with `LIMIT ?` is compiled anew each time it is given another value.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map_err(DbError::Open)?;
        connection.set_prepared_statement_cache_capacity(64);
        Ok(Self { path: path.to_owned(), connection, blobs })
    }

    /// Opens the batch's transaction if it is not open.
    pub(super) fn begin(&self) -> Result<(), DbError> {
        if !self.connection.is_autocommit() {
            return Ok(());
        }
        self.run("a transaction", "BEGIN IMMEDIATE", &[])
    }

    /// Whether something waits for a commit.
    pub(super) fn is_dirty(&self) -> bool {
        !self.connection.is_autocommit()
    }

    /// Makes the batch durable.
    ///
    /// # Errors
    /// Nothing of it is.
    pub(super) fn commit(&self) -> Result<(), DbError> {
        if self.is_dirty() {
            let mut statement = self.connection.prepare_cached("COMMIT").map_err(DbError::Commit)?;
            statement.execute([]).map_err(DbError::Commit)?;
        }
        Ok(())
    }

    /// Forgets the batch.
    pub(super) fn rollback(&self) {
        // SQLite may have rolled back by itself, on a full disk above all.
        if self.is_dirty()
            && let Err(error) = self.connection.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "a batch of tasks.db could not be rolled back");
        }
    }

    pub(super) fn run(&self, what: &'static str, sql: &str, with: &[&dyn rusqlite::ToSql]) -> Result<(), DbError> {
        self.change(what, sql, with).map(drop)
    }

    /// The same; says how many rows it changed.
    fn change(&self, what: &'static str, sql: &str, with: &[&dyn rusqlite::ToSql]) -> Result<usize, DbError> {
        let failed = |source| DbError::Write { what, source };
        self.connection.prepare_cached(sql).map_err(failed)?.execute(with).map_err(failed)
    }

    /// Sets a named text. As everywhere here a row that is there is updated: `INSERT OR REPLACE` is two writes, for
    /// whose undoing SQLite copies each page first, into 64 KiB of memory that it takes each time.
    pub(super) fn put_meta(&self, what: &'static str, key: &str, value: &str) -> Result<(), DbError> {
        let sql = "INSERT INTO meta (key, value) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = excluded.value";
        self.run(what, sql, params![key, value])
    }

    /// Writes an open task as it is. `about` is empty for one that nobody runs: what is there stays.
    pub(super) fn write_task(&self, task: &Task, about: &About<'_>) -> Result<(), DbError> {
        self.begin()?;
        self.note_left(task)?;
        let record = encode("task", task.id.as_str(), task)?;
        self.run(
            "a task",
            "INSERT INTO open_task (id, app, key, kind, session, record, traceparent, release, worker, begun_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
             ON CONFLICT (id) DO UPDATE SET record = excluded.record,
                release = iif(excluded.worker = '', release, excluded.release),
                worker = iif(excluded.worker = '', worker, excluded.worker)",
            params![
                task.id.as_str(),
                task.app.as_str(),
                task.key.as_ref().map(Key::as_str),
                task.kind.as_ref().map(Kind::as_str),
                task.session.as_ref().map(Session::as_str),
                record,
                about.traceparent,
                about.release,
                about.worker,
                now_ms()
            ],
        )
    }

    /// Moves a task from the open ones to those that are over.
    pub(super) fn end_task(&self, ended: &Ended, ran: Duration, epilogue: &Epilogue<'_>) -> Result<(), DbError> {
        self.begin()?;
        let task = ended.task.as_str();
        if matches!(ended.end, End::Lost(_)) {
            self.note_run(&ended.task, "lost")?;
        }
        let record = encode("task", task, ended)?;
        let kept = epilogue.payload.as_ref().map(|payload| payload.keep(&self.blobs)).transpose()?;
        self.run(
            "the end of a task",
            "INSERT INTO ended_task (id, app, key, kind, session, record, outcome, fence, ran_ms, traceparent,
                release, worker, begun_at, ended_at, form, value, figures)
             SELECT id, app, key, kind, session, ?2, ?3, ?4, ?5, traceparent, release, worker, begun_at, ?6, ?7, ?8, ?9
             FROM open_task WHERE id = ?1",
            params![
                task,
                record,
                outcome_word(&ended.end),
                ended.fence.0.cast_signed(),
                i64::try_from(ran.as_millis()).unwrap_or(i64::MAX),
                now_ms(),
                kept.as_ref().map(|kept| kept.form),
                kept,
                epilogue.figures
            ],
        )?;
        self.run("the end of a task", "DELETE FROM open_task WHERE id = ?1", params![task])?;
        self.run("the end of a task", "DELETE FROM input WHERE task = ?1", params![task])?;
        // What failed is looked at; of what is done the result is enough.
        if matches!(ended.end, End::Ok | End::Cancelled) {
            self.run("the end of a task", "DELETE FROM ckpt WHERE task = ?1", params![task])?;
        }
        Ok(())
    }

    /// Writes what a task was begun with.
    pub(super) fn write_input(&self, task: &TaskId, input: &Payload<'_>) -> Result<(), DbError> {
        self.begin()?;
        let kept = input.keep(&self.blobs)?;
        let sql = "INSERT INTO input (task, form, value) VALUES (?1, ?2, ?3)
                   ON CONFLICT DO UPDATE SET form = excluded.form, value = excluded.value";
        self.run("an input", sql, params![task.as_str(), kept.form, kept])
    }

    /// Writes a checkpoint: over the one of this step if there is one, else over the oldest where 20 are kept. A row that
    /// gets a payload as long as the one it had keeps its pages: with 8 KiB, 4 pages a commit where a new row and the end of
    /// an old one are 9; a payload of another length saves two of them.
    pub(super) fn write_ckpt(
        &self,
        task: &TaskId,
        fence: Fence,
        mark: &Mark,
        payload: &Payload<'_>,
    ) -> Result<(), DbError> {
        self.begin()?;
        let kept = payload.keep(&self.blobs)?;
        let with = params![
            task.as_str(),
            mark.step.cast_signed(),
            fence.0.cast_signed(),
            mark.safe,
            mark.state_version,
            mark.at.as_micros().cast_signed(),
            now_ms(),
            kept.form,
            kept
        ];
        let sql = "UPDATE ckpt SET step = ?2, fence = ?3, safe = ?4, state_version = ?5, moment = ?6, at = ?7, form = ?8, value = ?9
             WHERE rowid = coalesce((SELECT rowid FROM ckpt WHERE task = ?1 AND step = ?2),
                (SELECT rowid FROM ckpt WHERE task = ?1 ORDER BY step DESC LIMIT 1 OFFSET 19))";
        if self.change("a checkpoint", sql, with)? > 0 {
            return Ok(());
        }
        let sql = "INSERT INTO ckpt (task, step, fence, safe, state_version, moment, at, form, value)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
        self.run("a checkpoint", sql, with)
    }
}

fn encode<T: serde::Serialize>(what: &'static str, key: &str, value: &T) -> Result<String, DbError> {
    serde_json::to_string(value).map_err(|source| DbError::Record { what, key: key.to_owned(), source })
}

/// Milliseconds of the wall clock since 1970, for people.
pub(super) fn now_ms() -> i64 {
    Timestamp::now().as_millisecond()
}

/// How a task ended, as one word.
pub(super) fn outcome_word(end: &End) -> &'static str {
    match end {
        End::Ok => "ok",
        End::Error => "error",
        End::Cancelled => "cancelled",
        End::Lost(_) => "lost",
        End::Discarded => "discarded",
    }
}
