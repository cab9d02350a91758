//! Databases as each earlier agentd left them: `fixtures/schema-N.sql`, a dump with schema N, never changed once it is there.
//!
//! The first was written by the daemon of that day; those after it have the same rows. Whoever adds a step adds a dump.

use std::path::{Path, PathBuf};

use agentd_core::fleet::Fleet;

use super::tests::home;
use super::*;
use crate::revision::RevisionRecord;

fn fixture(schema: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("src/store/fixtures/schema-{schema}.sql"))
}

/// A database of that schema, as its version left it.
fn laid_out(schema: u32, path: &Utf8Path) {
    let sql = std::fs::read_to_string(fixture(schema)).unwrap_or_else(|error| {
        panic!("{}: {error}; each schema needs its fixture, see the head of this file", fixture(schema).display())
    });
    Connection::open(path).expect("a new file").execute_batch(&sql).expect("it is SQL");
}

#[test]
fn a_database_of_every_schema_that_there_was_is_understood_with_all_that_is_in_it() {
    for schema in 1..=SCHEMA {
        let (_dir, path) = home();
        laid_out(schema, &path);
        let checked = check(&path).unwrap_or_else(|error| panic!("schema {schema} cannot be taken over: {error}"));
        let untouched = Connection::open(&path).expect("it opens");
        let version: u32 = untouched.pragma_query_value(None, "user_version", |row| row.get(0)).expect("it reads");
        assert_eq!(version, schema, "to look at it changes nothing");
        drop(untouched);

        let opened = open(&path).unwrap_or_else(|error| panic!("schema {schema}: {error}"));
        assert_eq!(opened.damage, None, "schema {schema}");
        let stored = opened.stored;
        assert_eq!(
            (stored.heads.len(), stored.workers.len(), stored.revisions.len(), stored.boot.as_deref()),
            (1, 2, 1, Some("40f0 17")),
            "schema {schema}"
        );
        assert_eq!((&stored.heads, &stored.workers), (&checked.heads, &checked.workers), "schema {schema}");
        let process = stored.workers[0].state.process().and_then(|process| process.kernel);
        assert!(process.is_some(), "schema {schema}: its process is not forgotten");
        let (_, _, config) = &stored.revisions[0];
        let config: Result<RevisionRecord, _> = serde_json::from_str(config);
        assert!(config.is_ok(), "schema {schema}: {config:?}");
        let restored = Fleet::restore(stored.counters, stored.heads, stored.workers);
        assert_eq!(restored.check_invariants(), Ok(()), "schema {schema}");
        drop(opened.store);
        assert_eq!(open(&path).expect("it opens again").damage, None, "schema {schema} is now the present one");
    }
}

#[test]
fn a_migration_that_fails_half_way_leaves_the_schema_that_was_there() {
    let (_dir, path) = home();
    // A table of ours that an empty database cannot have.
    let stranger = Connection::open(&path).expect("a new file");
    stranger.execute_batch("CREATE TABLE worker (mine TEXT); INSERT INTO worker VALUES ('kept')").expect("it is SQL");
    drop(stranger);
    assert!(matches!(Store::open(&path), Err(StoreError::Migrate { from: 0, to: 1, .. })));
    let after = Connection::open(&path).expect("it opens");
    let tables: u32 = after.query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0)).expect("it reads");
    let kept: String = after.query_row("SELECT mine FROM worker", [], |row| row.get(0)).expect("it reads");
    assert_eq!((tables, kept.as_str()), (1, "kept"), "nothing of the step is there");
}
