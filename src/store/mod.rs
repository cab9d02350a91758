//! What survives the supervisor: SQLite, one file, one writer.
//!
//! Owns `state/agentd.db`: the apps and what is wanted of them, each revision of their configuration that a worker
//! still runs, the workers with the processes that they have, and the numbers that are never given out twice.
//! Knows nothing of what these mean; the records are core's, as JSON.
//!
//! **How durable.** What a person asked for must survive a power cut: such a commit waits for the disk
//! (`synchronous=FULL`). Which process fills which slot must survive the supervisor, and means nothing after a
//! reboot: such a commit goes to the kernel only (`synchronous=NORMAL` under WAL), which `kill -9` cannot undo and
//! which costs tens of µs instead of an fsync. See docs/adr/0002-two-durabilities.md.
//!
//! **What can go wrong.** A file of a newer version is refused and left alone. A damaged one is set aside and named (see
//! `damage.rs`). A full or failing disk is told to the caller, who goes on serving without it.

mod damage;
mod schema;

pub use damage::{Damage, INSTANCE_FILE, Opened, begin_anew, open};
pub use schema::SCHEMA;

use std::collections::BTreeSet;

use camino::{Utf8Path, Utf8PathBuf};
use rusqlite::backup::Backup;
use rusqlite::{Connection, MAIN_DB, OpenFlags, OptionalExtension, params};
use thiserror::Error;

use agentd_core::app::{Head, Unsound};
use agentd_core::fleet::Counters;
use agentd_core::id::{AppName, Generation, Operation, Revision, Slot};
use agentd_core::release::ReleaseId;
use agentd_core::worker::Worker;

use crate::process::sys;
use crate::releases::ReleaseRecord;

/// How long another process may hold the database.
const BUSY: std::time::Duration = std::time::Duration::from_secs(2);
/// Deployments kept of an app.
const DEPLOYMENTS_KEPT: i64 = 100;
/// Pages copied at a time.
const COPIED_PAGES: i32 = 1024;

/// Why the store could not do its work.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The file could not be opened or made.
    #[error("failed to open the state database {path}")]
    Open {
        /// Where it is.
        path: Utf8PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// It can be read, and nothing can be written into it.
    #[error(
        "failed to open the state database {path} for writing: its file system is mounted read-only, or this user may not \
         write it; mend that and start again"
    )]
    ReadOnly {
        /// Where it is.
        path: Utf8PathBuf,
    },
    /// It was written by a later agentd.
    #[error(
        "the state database {path} has schema {found}, and this agentd knows {known}: it was written by a newer version; \
         run that version, or move the file aside to begin anew"
    )]
    Newer {
        /// Where it is.
        path: Utf8PathBuf,
        /// Its schema.
        found: u32,
        /// The newest known here.
        known: u32,
    },
    /// Its schema could not be brought up to date.
    #[error("failed to bring the state database {path} from schema {from} to {to}")]
    Migrate {
        /// Where it is.
        path: Utf8PathBuf,
        /// From.
        from: u32,
        /// To.
        to: u32,
        /// Why.
        source: rusqlite::Error,
    },
    /// It could not be read.
    #[error("failed to read {what} from the state database")]
    Read {
        /// What.
        what: &'static str,
        /// Why.
        source: rusqlite::Error,
    },
    /// A record in it is not what it should be.
    #[error("failed to understand {what} {key} in the state database")]
    Record {
        /// What.
        what: &'static str,
        /// Which.
        key: String,
        /// Why.
        source: serde_json::Error,
    },
    /// A record in it is well formed and makes no sense.
    #[error("failed to go on from {what} {key} in the state database")]
    Unsound {
        /// What.
        what: &'static str,
        /// Which.
        key: String,
        /// Why.
        source: Unsound,
    },
    /// A record could not be put into words.
    #[error("failed to encode {what} {key} for the state database")]
    Encode {
        /// What.
        what: &'static str,
        /// Which.
        key: String,
        /// Why.
        source: serde_json::Error,
    },
    /// Whether its processes can be there still is not known.
    #[error("failed to read which boot this is")]
    Boot(#[source] std::io::Error),
    /// A damaged file could not be given another name.
    #[error("failed to set the damaged {path} aside")]
    Aside {
        /// Which.
        path: Utf8PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A commit did not take place.
    #[error("failed to commit to the state database")]
    Commit(#[source] rusqlite::Error),
}

/// How much a commit must outlive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The supervisor.
    Process,
    /// A power cut.
    Power,
}

/// One change of one record.
#[derive(Debug)]
pub enum Change {
    /// The app's head is now this.
    App(Box<Head>),
    /// The app is gone, with its workers and revisions.
    AppGone(AppName),
    /// The slot's worker is now this.
    Worker(Box<Worker>),
    /// The slot is empty.
    WorkerGone(AppName, Slot),
    /// A revision's configuration, as JSON. Never changes once written.
    Revision {
        /// Whose.
        app: AppName,
        /// Which.
        revision: Revision,
        /// What it stands for.
        json: String,
    },
    /// No worker runs it any more.
    RevisionGone(AppName, Revision),
    /// A deployment is now this.
    Deployment {
        /// Whose.
        app: AppName,
        /// Which.
        id: Operation,
        /// Whether it is over.
        state: DeploymentStanding,
        /// Its new workers.
        generation: Generation,
        /// What is told of it, as JSON.
        json: String,
    },
    /// A release is now this.
    Release(AppName, Box<ReleaseRecord>),
    /// A release is gone.
    ReleaseGone(AppName, ReleaseId),
    /// The numbers to go on from.
    Counters(Counters),
    /// A named text.
    Meta {
        /// Its name.
        key: &'static str,
        /// The text.
        value: String,
    },
}

/// What a kept deployment is to the next ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeploymentStanding {
    /// It runs.
    Open,
    /// What it brought serves.
    Done,
    /// What it brought was taken back, or never served.
    TakenBack,
}

impl DeploymentStanding {
    const fn word(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Done => "done",
            Self::TakenBack => "taken_back",
        }
    }
}

/// Everything that was kept.
#[derive(Debug)]
pub struct Stored {
    /// Numbers to go on from.
    pub counters: Counters,
    /// Apps.
    pub heads: Vec<Head>,
    /// Workers.
    pub workers: Vec<Worker>,
    /// Revisions as `(app, revision, JSON)`.
    pub revisions: Vec<(AppName, Revision, String)>,
    /// Releases.
    pub releases: Vec<(AppName, ReleaseRecord)>,
    /// The boot in which it was last written.
    pub boot: Option<String>,
}

/// The database.
#[derive(Debug)]
pub struct Store {
    connection: Connection,
    durability: Durability,
}

/// Reads everything in the database at `path` as [`Store::load`] would, and changes nothing; an earlier schema is brought
/// up to date in a copy in memory. No file is an empty state.
///
/// # Errors
/// Why a store could not be opened there and loaded.
pub fn check(path: &Utf8Path) -> Result<Stored, StoreError> {
    let open = |source| StoreError::Open { path: path.to_owned(), source };
    let mut copy = Connection::open_in_memory().map_err(open)?;
    if path.exists() {
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(open)?;
        connection.busy_timeout(BUSY).map_err(open)?;
        if schema::found(&connection, path)? == SCHEMA {
            return Store { connection, durability: Durability::Power }.load();
        }
        let backup = Backup::new(&connection, &mut copy).map_err(open)?;
        backup.run_to_completion(COPIED_PAGES, std::time::Duration::ZERO, None).map_err(open)?;
        drop(backup);
    }
    schema::migrate(&mut copy, path)?;
    Store { connection: copy, durability: Durability::Power }.load()
}

/// Brings what the log of the database at `path` holds into the database, so that whoever opens it next has little to read
/// through. On a connection of its own, beside the store that is in use; waits for the disk, and for nobody.
///
/// # Errors
/// It could not be opened or written; nothing is lost then.
pub fn shorten_log(path: &Utf8Path) -> Result<(), StoreError> {
    let failed = |source| StoreError::Open { path: path.to_owned(), source };
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(failed)?;
    connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())).map_err(StoreError::Commit)
}

/// Sees to it that a database, and with it the files that SQLite makes beside it, is its owner's alone: made so before
/// SQLite makes it, or made so now. What stands in the way, opening it tells.
pub(crate) fn keep_private(path: &Utf8Path) {
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
    let made = std::fs::OpenOptions::new().write(true).create_new(true).mode(PRIVATE).open(path);
    if made.is_err() {
        for beside in ["", "-wal", "-shm"] {
            let file = format!("{path}{beside}");
            // Rights are taken away only: whoever barred their own writing meant it.
            let Ok(mode) = std::fs::metadata(&file).map(|found| found.permissions().mode()) else { continue };
            // Not ours to change.
            let _ = std::fs::set_permissions(file, std::fs::Permissions::from_mode(mode & PRIVATE));
        }
    }
}

/// The mode of a file that nobody but its owner is to read.
const PRIVATE: u32 = 0o600;

impl Store {
    /// Opens or makes the database at `path` and brings its schema up to date.
    ///
    /// # Errors
    /// [`StoreError::Newer`] and [`StoreError::ReadOnly`] leave the file untouched; so does every other failure before the
    /// migration.
    pub fn open(path: &Utf8Path) -> Result<Self, StoreError> {
        let open = |source| StoreError::Open { path: path.to_owned(), source };
        keep_private(path);
        let mut connection = Connection::open(path).map_err(open)?;
        // Where a file cannot be opened for writing, SQLite opens it for reading and says nothing.
        if connection.is_readonly(MAIN_DB).map_err(open)? {
            return Err(StoreError::ReadOnly { path: path.to_owned() });
        }
        connection.busy_timeout(BUSY).map_err(open)?;
        schema::migrate(&mut connection, path)?;
        connection.pragma_update(None, "journal_mode", "WAL").map_err(open)?;
        connection.pragma_update(None, "synchronous", "FULL").map_err(open)?;
        // Small on purpose: rows are few and short, and the supervisor's memory is somebody's worker's.
        connection.pragma_update(None, "cache_size", -256).map_err(open)?;
        // Whoever takes over reads the log through before anything else: a megabyte takes one millisecond, the usual four five.
        connection.pragma_update(None, "wal_autocheckpoint", 256).map_err(open)?;
        connection.set_prepared_statement_cache_capacity(16);
        Ok(Self { connection, durability: Durability::Power })
    }

    /// Commits all of `changes`, or none.
    ///
    /// # Errors
    /// Nothing is written then; the caller decides whether to go on without.
    pub fn commit(&mut self, changes: &[Change], durability: Durability) -> Result<(), StoreError> {
        if changes.is_empty() {
            return Ok(());
        }
        if self.durability != durability {
            let level = match durability {
                Durability::Process => "NORMAL",
                Durability::Power => "FULL",
            };
            self.connection.pragma_update(None, "synchronous", level).map_err(StoreError::Commit)?;
            self.durability = durability;
        }
        let transaction = self.connection.transaction().map_err(StoreError::Commit)?;
        for change in changes {
            write(&transaction, change)?;
        }
        transaction.commit().map_err(StoreError::Commit)
    }

    /// As [`commit`](Self::commit), after forgetting every app, worker and revision that there was.
    ///
    /// # Errors
    /// Nothing changes then.
    pub fn replace(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        let transaction = self.connection.transaction().map_err(StoreError::Commit)?;
        transaction
            .execute_batch("DELETE FROM worker; DELETE FROM revision; DELETE FROM app")
            .map_err(StoreError::Commit)?;
        for change in changes {
            write(&transaction, change)?;
        }
        transaction.commit().map_err(StoreError::Commit)
    }

    /// Everything that was kept. Records that cannot be understood are an error, never skipped: a worker that is not
    /// known would be started a second time.
    ///
    /// # Errors
    /// What could not be read, and which record of it.
    pub fn load(&self) -> Result<Stored, StoreError> {
        let heads = self.records("app", "SELECT name, head FROM app ORDER BY name", Head::check_sound)?;
        let workers = "SELECT app || '.' || slot, record FROM worker ORDER BY app, slot";
        let workers = self.records("worker", workers, Worker::check_sound)?;
        let revisions = self.revisions()?;
        let counters: Counters = match self.meta("counters")? {
            Some(json) => serde_json::from_str(&json).map_err(|source| StoreError::Record {
                what: "numbers",
                key: "counters".to_owned(),
                source,
            })?,
            None => Counters::default(),
        };
        let unsound = |source| StoreError::Unsound { what: "numbers", key: "counters".to_owned(), source };
        counters.check_sound().map_err(unsound)?;
        let releases = self.releases()?;
        Ok(Stored { counters, heads, workers, revisions, releases, boot: self.meta("boot")? })
    }

    /// Gives back what it keeps in memory of the file; what is wanted again is read again.
    pub fn let_go_of_cache(&self) {
        if let Err(error) = self.connection.release_memory() {
            tracing::debug!(%error, "the database's cache stays in memory");
        }
        sys::return_free_memory();
    }

    /// A named text, if it was ever set.
    ///
    /// # Errors
    /// It could not be read.
    pub fn meta(&self, key: &str) -> Result<Option<String>, StoreError> {
        self.connection
            .query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0))
            .optional()
            .map_err(|source| StoreError::Read { what: "a named text", source })
    }

    /// Sets a named text, for good.
    ///
    /// # Errors
    /// It was not written.
    pub fn set_meta(&mut self, key: &str, value: &str) -> Result<(), StoreError> {
        self.connection.execute(PUT_META, [key, value]).map(|_| ()).map_err(StoreError::Commit)
    }

    /// What is told of deployments as JSON, the latest first: of an app, or of all; the one of this number, or all; those
    /// that are not over, or all.
    ///
    /// # Errors
    /// They could not be read.
    pub fn deployments(&self, app: Option<&str>, id: Option<u64>, open: bool) -> Result<Vec<String>, StoreError> {
        let read = |source| StoreError::Read { what: "deployments", source };
        let sql = "SELECT record FROM deployment WHERE (?1 IS NULL OR app = ?1) AND (?2 IS NULL OR id = ?2)
                   AND (NOT ?3 OR state = 'open') ORDER BY id DESC";
        let mut statement = self.connection.prepare_cached(sql).map_err(read)?;
        let rows = statement.query_map(params![app, id.map(u64::cast_signed), open], |row| row.get(0)).map_err(read)?;
        rows.map(|row| row.map_err(read)).collect()
    }

    /// The generations of an app that were taken back.
    ///
    /// # Errors
    /// They could not be read.
    pub fn taken_back(&self, app: &AppName) -> Result<BTreeSet<u64>, StoreError> {
        let read = |source| StoreError::Read { what: "deployments", source };
        let sql = "SELECT generation FROM deployment WHERE app = ?1 AND state = 'taken_back'";
        let mut statement = self.connection.prepare_cached(sql).map_err(read)?;
        let rows = statement.query_map(params![app.as_str()], |row| row.get::<_, i64>(0)).map_err(read)?;
        rows.map(|row| row.map(i64::cast_unsigned).map_err(read)).collect()
    }

    fn records<T: serde::de::DeserializeOwned>(
        &self,
        what: &'static str,
        query: &str,
        check: fn(&T) -> Result<(), Unsound>,
    ) -> Result<Vec<T>, StoreError> {
        let read = |source| StoreError::Read { what, source };
        let mut statement = self.connection.prepare(query).map_err(read)?;
        let rows =
            statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))).map_err(read)?;
        rows.map(|row| {
            let (key, json) = row.map_err(read)?;
            let record = match serde_json::from_str(&json) {
                Ok(record) => record,
                Err(source) => return Err(StoreError::Record { what, key, source }),
            };
            match check(&record) {
                Ok(()) => Ok(record),
                Err(source) => Err(StoreError::Unsound { what, key, source }),
            }
        })
        .collect()
    }

    fn releases(&self) -> Result<Vec<(AppName, ReleaseRecord)>, StoreError> {
        let read = |source| StoreError::Read { what: "a release", source };
        let mut statement = self.connection.prepare("SELECT app, id, record FROM release").map_err(read)?;
        let rows = statement
            .query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?)))
            .map_err(read)?;
        rows.map(|row| {
            let (app, id, json) = row.map_err(read)?;
            let record = |source| StoreError::Record { what: "a release", key: format!("{app} {id}"), source };
            let name = serde_json::from_value(serde_json::Value::String(app.clone())).map_err(record)?;
            Ok((name, serde_json::from_str(&json).map_err(record)?))
        })
        .collect()
    }

    fn revisions(&self) -> Result<Vec<(AppName, Revision, String)>, StoreError> {
        let read = |source| StoreError::Read { what: "a revision", source };
        let mut statement = self.connection.prepare("SELECT app, id, config FROM revision").map_err(read)?;
        let rows = statement
            .query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?, row.get::<_, String>(2)?)))
            .map_err(read)?;
        rows.map(|row| {
            let (app, id, json) = row.map_err(read)?;
            let app = serde_json::from_value(serde_json::Value::String(app.clone()))
                .map_err(|source| StoreError::Record { what: "a revision of app", key: app, source })?;
            Ok((app, Revision(id.cast_unsigned()), json))
        })
        .collect()
    }
}

/// Sets a named text. As everywhere here a row that is there is updated, and rows are removed one by one: a statement of
/// several writes, as `INSERT OR REPLACE` is, has SQLite copy each page first, into 64 KiB of memory taken each time.
const PUT_META: &str = "INSERT INTO meta (key, value) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = excluded.value";

fn write(transaction: &rusqlite::Transaction<'_>, change: &Change) -> Result<(), StoreError> {
    let run = |sql: &str, params: &[&dyn rusqlite::ToSql]| -> Result<(), StoreError> {
        let mut statement = transaction.prepare_cached(sql).map_err(StoreError::Commit)?;
        statement.execute(params).map(|_| ()).map_err(StoreError::Commit)
    };
    match change {
        Change::App(head) => {
            let json = encode("app", head.name.as_str(), head)?;
            run(
                "INSERT INTO app (name, head) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET head = excluded.head",
                params![head.name.as_str(), json],
            )
        }
        Change::AppGone(app) => {
            run("DELETE FROM worker WHERE app = ?1", params![app.as_str()])?;
            run("DELETE FROM revision WHERE app = ?1", params![app.as_str()])?;
            run("DELETE FROM release WHERE app = ?1", params![app.as_str()])?;
            run("DELETE FROM deployment WHERE app = ?1", params![app.as_str()])?;
            run("DELETE FROM app WHERE name = ?1", params![app.as_str()])
        }
        Change::Worker(worker) => {
            let json = encode("worker", worker.id.app.as_str(), worker)?;
            run(
                "INSERT INTO worker (app, slot, record) VALUES (?1, ?2, ?3)
                 ON CONFLICT DO UPDATE SET record = excluded.record",
                params![worker.id.app.as_str(), worker.id.slot.0, json],
            )
        }
        Change::WorkerGone(app, slot) => {
            run("DELETE FROM worker WHERE app = ?1 AND slot = ?2", params![app.as_str(), slot.0])
        }
        Change::Revision { app, revision, json } => run(
            "INSERT INTO revision (app, id, config) VALUES (?1, ?2, ?3)
             ON CONFLICT DO UPDATE SET config = excluded.config",
            params![app.as_str(), revision.0.cast_signed(), json],
        ),
        Change::RevisionGone(app, revision) => {
            run("DELETE FROM revision WHERE app = ?1 AND id = ?2", params![app.as_str(), revision.0.cast_signed()])
        }
        Change::Deployment { app, id, state, generation, json } => {
            run(
                "INSERT INTO deployment (id, app, state, generation, record) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT DO UPDATE SET app = excluded.app, state = excluded.state,
                    generation = excluded.generation, record = excluded.record",
                params![id.0.cast_signed(), app.as_str(), state.word(), generation.0.cast_signed(), json],
            )?;
            let beyond = old_deployments(transaction, app).map_err(StoreError::Commit)?;
            beyond.iter().try_for_each(|id| run("DELETE FROM deployment WHERE id = ?1", params![id]))
        }
        Change::Release(app, record) => {
            let id = &record.release.id;
            let json = encode("a release", id.as_str(), record)?;
            run(
                "INSERT INTO release (app, id, record) VALUES (?1, ?2, ?3)
                 ON CONFLICT DO UPDATE SET record = excluded.record",
                params![app.as_str(), id.as_str(), json],
            )
        }
        Change::ReleaseGone(app, id) => {
            run("DELETE FROM release WHERE app = ?1 AND id = ?2", params![app.as_str(), id.as_str()])
        }
        Change::Meta { key, value } => run(PUT_META, params![key, value]),
        Change::Counters(counters) => {
            let json = encode("numbers", "counters", counters)?;
            run(PUT_META, params!["counters", json])
        }
    }
}

/// Deployments of an app that are no longer kept.
fn old_deployments(transaction: &rusqlite::Transaction<'_>, app: &AppName) -> rusqlite::Result<Vec<i64>> {
    let sql = "SELECT id FROM deployment WHERE app = ?1 ORDER BY id DESC LIMIT -1 OFFSET ?2";
    let mut statement = transaction.prepare_cached(sql)?;
    statement.query_map(params![app.as_str(), DEPLOYMENTS_KEPT], |row| row.get(0))?.collect()
}

fn encode<T: serde::Serialize>(what: &'static str, key: &str, value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|source| StoreError::Encode { what, key: key.to_owned(), source })
}

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod migrations;
#[cfg(test)]
mod tests;
