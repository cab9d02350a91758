//! A database that cannot be understood: set aside, never reset, and what can still be read of it.
//!
//! Damage is a file that is no database or a torn one, a record that is not what it should be, and a file that is gone
//! though its instance was here before. Another's lock, a file system that cannot be written, a schema of the future are
//! none: those refuse the start, since the file is well.

use camino::{Utf8Path, Utf8PathBuf};
use rusqlite::{Connection, ErrorCode, OpenFlags};
use serde::de::DeserializeOwned;

use agentd_core::app::{Head, Unsound};
use agentd_core::worker::Worker;

use super::{Counters, Durability, Revision, Store, StoreError, Stored};

/// Beside the database: the instance's name, which its processes carry.
pub const INSTANCE_FILE: &str = "instance";

/// A store that is ready, with what was in it.
#[derive(Debug)]
pub struct Opened {
    /// The store.
    pub store: Store,
    /// What was kept.
    pub stored: Stored,
    /// What happened to the file before it, when it was damaged.
    pub damage: Option<Damage>,
}

/// A damaged file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// What is wrong with it.
    pub why: String,
    /// Where it is now; nowhere when it was gone.
    pub aside: Option<Utf8PathBuf>,
}

/// Opens the database at `path` and reads everything. A damaged one is set aside, a new one takes its place, and what
/// could still be read of the damaged one is the answer; nothing of that is written yet.
///
/// # Errors
/// As [`Store::open`] and [`Store::load`], where the file is not damaged; or that it could not be set aside.
pub fn open(path: &Utf8Path) -> Result<Opened, StoreError> {
    if is_gone(path) {
        let store = Store::open(path)?;
        let stored = store.load()?;
        let damage = Damage { why: format!("{path} is gone"), aside: None };
        return Ok(Opened { store, stored, damage: Some(damage) });
    }
    let read = Store::open(path).and_then(|store| {
        let stored = store.load()?;
        Ok((store, stored))
    });
    let error = match read {
        Ok((store, stored)) => return Ok(Opened { store, stored, damage: None }),
        Err(error) if error.is_damage() => error,
        Err(error) => return Err(error),
    };
    let mut why = error.to_string();
    if let Some(cause) = std::error::Error::source(&error) {
        why = format!("{why}: {cause}");
    }
    let stored = salvage(path);
    let aside = set_aside(path)?;
    Ok(Opened { store: Store::open(path)?, stored, damage: Some(Damage { why, aside: Some(aside) }) })
}

/// Sets a database aside that turned out to be damaged while it was in use, and opens a new one in its place. What belongs
/// in there the caller knows.
///
/// # Errors
/// It could not be set aside, or nothing can be opened there.
pub fn begin_anew(path: &Utf8Path) -> Result<(Store, Utf8PathBuf), StoreError> {
    let aside = set_aside(path)?;
    Ok((Store::open(path)?, aside))
}

/// Whether there was a database: its instance wrote its name beside it.
fn is_gone(path: &Utf8Path) -> bool {
    !path.exists() && path.with_file_name(INSTANCE_FILE).exists()
}

impl StoreError {
    /// Whether the file itself is what is wrong, so that another has to take its place.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        let of_sqlite = |error: &rusqlite::Error| match error.sqlite_error_code() {
            Some(code) => matches!(code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::Unknown),
            // A column that holds something else than it should.
            None => true,
        };
        match self {
            Self::Record { .. } | Self::Unsound { .. } => true,
            Self::Open { source, .. } | Self::Read { source, .. } | Self::Migrate { source, .. } => of_sqlite(source),
            // While it is in use, only what SQLite itself calls so: anything else may pass.
            Self::Commit(source) => {
                matches!(source.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
            }
            Self::ReadOnly { .. } | Self::Newer { .. } | Self::Encode { .. } | Self::Aside { .. } | Self::Boot(_) => {
                false
            }
        }
    }
}

/// Gives the file, and what SQLite keeps beside it, a name that no file has.
fn set_aside(path: &Utf8Path) -> Result<Utf8PathBuf, StoreError> {
    let aside = (1..)
        .map(|n| Utf8PathBuf::from(format!("{path}.damaged-{n}")))
        .find(|aside| !aside.exists())
        .expect("some number is free");
    for beside in ["", "-wal", "-shm"] {
        let (from, to) = (format!("{path}{beside}"), format!("{aside}{beside}"));
        match std::fs::rename(&from, &to) {
            Err(error) if beside.is_empty() || error.kind() != std::io::ErrorKind::NotFound => {
                return Err(StoreError::Aside { path: from.into(), source: error });
            }
            Ok(()) | Err(_) => {}
        }
    }
    Ok(aside)
}

/// Every record that can be understood.
fn salvage(path: &Utf8Path) -> Stored {
    let nothing = Stored {
        counters: Counters::default(),
        heads: vec![],
        workers: vec![],
        revisions: vec![],
        releases: vec![],
        boot: None,
    };
    let Ok(connection) = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE) else { return nothing };
    let store = Store { connection, durability: Durability::Power };
    let meta = |key: &str| store.meta(key).ok().flatten();
    let counters = meta("counters").and_then(|json| serde_json::from_str::<Counters>(&json).ok());
    let counters = counters.filter(|counters| counters.check_sound().is_ok()).unwrap_or_default();
    let revisions = texts(&store.connection, "SELECT app, CAST(id AS TEXT), config FROM revision");
    let revisions = revisions.into_iter().filter_map(|[app, id, config]| {
        let id = id.parse::<i64>().ok()?;
        Some((app.parse().ok()?, Revision(id.cast_unsigned()), config))
    });
    let releases = texts(&store.connection, "SELECT app, id, record FROM release");
    let releases = releases
        .into_iter()
        .filter_map(|[app, _, record]| Some((app.parse().ok()?, serde_json::from_str(&record).ok()?)));
    Stored {
        counters,
        releases: releases.collect(),
        heads: records(&store.connection, "SELECT name, '', head FROM app ORDER BY name", Head::check_sound),
        workers: records(
            &store.connection,
            "SELECT app, '', record FROM worker ORDER BY app, slot",
            Worker::check_sound,
        ),
        revisions: revisions.collect(),
        boot: meta("boot"),
    }
}

fn records<T: DeserializeOwned>(connection: &Connection, query: &str, check: fn(&T) -> Result<(), Unsound>) -> Vec<T> {
    let understood = |[key, _, json]: [String; 3]| {
        let record = serde_json::from_str(&json).map_err(|error| error.to_string());
        let sound = record.and_then(|record| check(&record).map(|()| record).map_err(|error| error.to_string()));
        sound.inspect_err(|error| tracing::warn!(key, error, "a record of the damaged state is lost")).ok()
    };
    texts(connection, query).into_iter().filter_map(understood).collect()
}

/// Rows of three texts, as far as they can be read.
fn texts(connection: &Connection, query: &str) -> Vec<[String; 3]> {
    let Ok(mut statement) = connection.prepare(query) else { return Vec::new() };
    let rows = statement.query_map([], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?]));
    // Behind a torn page there may be more; SQLite does not say where.
    rows.map(|rows| rows.map_while(Result::ok).collect()).unwrap_or_default()
}
