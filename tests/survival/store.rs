//! A store that cannot be written, or cannot be read.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::libc;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::{PATIENCE, all_ready, fleet, pids, workers};

/// A folder that nobody can write into, root included, until this is dropped.
struct ReadOnly {
    folder: PathBuf,
    as_root: bool,
}

impl ReadOnly {
    fn make(folder: &Path) -> Self {
        let (folder, as_root) = (folder.to_owned(), nix::unistd::geteuid().is_root());
        if as_root {
            let none: Option<&str> = None;
            mount(Some(&folder), &folder, none, MsFlags::MS_BIND, none).expect("root may mount");
            let again = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
            mount(none, &folder, none, again, none).expect("what is mounted can be made read-only");
        } else {
            set_modes(&folder, 0o555, 0o444);
        }
        Self { folder, as_root }
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        if self.as_root {
            umount2(&self.folder, MntFlags::MNT_DETACH).expect("it was mounted");
        } else {
            set_modes(&self.folder, 0o700, 0o600);
        }
    }
}

fn set_modes(folder: &Path, of_folder: u32, of_files: u32) {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).expect("it is ours");
    for entry in fs::read_dir(folder).expect("it is there").flatten().filter(|entry| entry.path().is_file()) {
        fs::set_permissions(entry.path(), fs::Permissions::from_mode(of_files)).expect("it is ours");
    }
    fs::set_permissions(folder, fs::Permissions::from_mode(of_folder)).expect("it is ours");
}

/// Lets the daemon write nothing beyond this many bytes into any file, as a full disk does.
fn let_it_write(daemon: u32, bytes: Option<u64>) {
    let pid = Pid::from_raw(libc::pid_t::try_from(daemon).expect("process ids are positive"));
    let limit = Rlimit { current: bytes, maximum: None };
    prlimit(pid, Resource::Fsize, limit).expect("it is our own process");
}

#[test]
fn a_full_disk_stops_no_worker_is_told_of_and_saving_resumes_by_itself() {
    let (mut daemon, _) = fleet();
    let before = pids(&daemon.status());
    let_it_write(daemon.pid(), Some(32 * 1024));
    let victim = daemon.app("web").workers[0].pid.expect("it runs");
    workers::kill_nine(victim);
    daemon.wait_until(PATIENCE, |document| all_ready(document) && !pids(document).contains(&victim));
    let told = daemon.ctl_ok(&["daemon", "status"]).stdout;
    assert!(told.contains("state is not being saved"), "{told}");
    let_it_write(daemon.pid(), None);
    let deadline = std::time::Instant::now() + PATIENCE;
    while daemon.ctl_ok(&["daemon", "status"]).stdout.contains("state is not being saved") {
        assert!(std::time::Instant::now() < deadline, "saving does not resume");
        std::thread::yield_now();
    }
    let now = pids(&daemon.status());
    assert_eq!(now.difference(&before).count(), 1, "one worker was replaced meanwhile");
    daemon.kill();
    daemon.start_again();
    assert_eq!(pids(&daemon.wait_until(PATIENCE, all_ready)), now, "what happened meanwhile is not missing");
}

#[test]
fn a_store_of_a_newer_version_refuses_the_start_and_the_workers_serve_on() {
    let (mut daemon, port) = fleet();
    let before = pids(&daemon.status());
    daemon.kill();
    let path = daemon.home.path().join("state/agentd.db");
    let schema = |to: Option<u32>| {
        let database = rusqlite::Connection::open(&path).expect("it is there");
        let found: u32 = database.pragma_query_value(None, "user_version", |row| row.get(0)).expect("it is readable");
        if let Some(to) = to {
            database.pragma_update(None, "user_version", to).expect("it is writable");
        }
        found
    };
    let own = schema(Some(99));
    assert!(daemon.start_doomed("none:0", PATIENCE), "it refuses");
    assert!(daemon.log().contains("has schema 99") && daemon.log().contains("newer version"), "{}", daemon.log());
    assert_eq!(schema(None), 99, "nothing was changed");
    agentd_testkit::e2e::Load::run(port, agentd_testkit::e2e::Mix::fresh(1), || {}).assert_none_lost();
    schema(Some(own));
    daemon.start_again();
    assert_eq!(pids(&daemon.wait_until(PATIENCE, all_ready)), before);
}

#[test]
fn a_damaged_store_is_set_aside_and_the_fleet_goes_on_from_what_its_processes_tell() {
    for damage in ["file", "record"] {
        let (mut daemon, port) = fleet();
        let before = pids(&daemon.status());
        let report = agentd_testkit::e2e::Load::run(port, agentd_testkit::e2e::Mix::fresh(2), || {
            daemon.kill();
            let path = daemon.home.path().join("state/agentd.db");
            if damage == "file" {
                for file in ["agentd.db-wal", "agentd.db-shm"] {
                    drop(fs::remove_file(path.with_file_name(file)));
                }
                fs::write(&path, "not a database any more, and long enough to be looked at ".repeat(200))
                    .expect("written");
            } else {
                let database = rusqlite::Connection::open(&path).expect("it is there");
                database.execute("UPDATE worker SET record = '{' WHERE app = 'web' AND slot = 0", []).expect("updated");
            }
            daemon.start_again();
            let document = daemon.wait_until(PATIENCE, |document| pids(document) == before);
            assert_eq!(document.apps.iter().map(|app| app.ready).sum::<u32>(), 3, "{damage}: {document:#?}");
        });
        report.assert_none_lost();
        let told = daemon.ctl_ok(&["daemon", "status"]).stdout;
        assert!(told.contains("damaged"), "{damage}: {told}");
        let state = fs::read_dir(daemon.home.path().join("state")).expect("it is there");
        let names: Vec<String> =
            state.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        assert!(names.iter().any(|name| name.contains("damaged")), "{names:?}");
        // A supervisor that knows them again can do with them what one may.
        daemon.ctl_ok(&["scale", "web", "3"]);
        daemon.kill();
        daemon.start_again();
        daemon.wait_until(PATIENCE, |document| all_ready(document) && before.is_subset(&pids(document)));
    }
}

#[test]
fn a_store_that_another_process_holds_refuses_the_start_and_the_workers_serve_on() {
    let (mut daemon, port) = fleet();
    let before = pids(&daemon.status());
    daemon.kill();
    let other = rusqlite::Connection::open(daemon.home.path().join("state/agentd.db")).expect("it is there");
    // A lock of the kind that somebody's backup takes: nobody writes, nobody reads.
    other.execute_batch("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE").expect("it is free");
    assert!(daemon.start_doomed("none:0", PATIENCE), "it refuses");
    assert!(daemon.log().contains("database is locked"), "{}", daemon.log());
    let said = daemon.ctl(&["doctor"]);
    assert_eq!(said.code, Some(4), "{said:#?}");
    assert!(said.stdout.contains("database is locked"), "{said:#?}");
    agentd_testkit::e2e::Load::run(port, agentd_testkit::e2e::Mix::fresh(1), || {}).assert_none_lost();
    drop(other);
    daemon.start_again();
    assert_eq!(pids(&daemon.wait_until(PATIENCE, all_ready)), before);
}

#[test]
fn a_file_system_that_cannot_be_written_refuses_the_start_and_the_workers_serve_on() {
    let (mut daemon, port) = fleet();
    let before = pids(&daemon.status());
    daemon.kill();
    let state = daemon.home.path().join("state");
    let barred = ReadOnly::make(&state);
    assert!(daemon.start_doomed("none:0", PATIENCE), "it refuses");
    let log = daemon.log();
    assert!(log.contains("agentd.db for writing") || log.contains("denied"), "{log}");
    let said = daemon.ctl(&["doctor"]);
    assert_eq!(said.code, Some(4), "{said:#?}");
    assert!(said.stdout.contains("cannot be written"), "{said:#?}");
    agentd_testkit::e2e::Load::run(port, agentd_testkit::e2e::Mix::fresh(1), || {}).assert_none_lost();
    drop(barred);
    daemon.start_again();
    assert_eq!(pids(&daemon.wait_until(PATIENCE, all_ready)), before);
}

#[test]
fn a_store_that_is_gone_is_no_empty_fleet_doctor_says_so_and_the_start_repairs_it() {
    let (mut daemon, port) = fleet();
    let before = pids(&daemon.status());
    daemon.kill();
    for file in ["agentd.db", "agentd.db-wal", "agentd.db-shm"] {
        drop(fs::remove_file(daemon.home.path().join("state").join(file)));
    }
    let said = daemon.ctl(&["doctor"]);
    assert_eq!(said.code, Some(4), "{said:#?}");
    assert!(said.stdout.contains("agentd.db is gone"), "{said:#?}");
    daemon.start_again();
    assert_eq!(pids(&daemon.wait_until(PATIENCE, all_ready)), before, "the same processes serve");
    assert!(daemon.ctl_ok(&["daemon", "status"]).stdout.contains("is gone"));
    agentd_testkit::e2e::Load::run(port, agentd_testkit::e2e::Mix::fresh(1), || {}).assert_none_lost();
}

#[test]
fn doctor_says_what_a_damaged_store_costs_and_the_next_start_has_mended_it() {
    let (mut daemon, _) = fleet();
    let before = pids(&daemon.status());
    daemon.kill();
    let database = rusqlite::Connection::open(daemon.home.path().join("state/agentd.db")).expect("it is there");
    database.execute("UPDATE worker SET record = '{' WHERE app = 'web' AND slot = 0", []).expect("updated");
    drop(database);
    let said = daemon.ctl(&["doctor"]);
    assert_eq!(said.code, Some(4), "{said:#?}");
    assert!(said.stdout.contains("failed to understand worker web.0"), "{said:#?}");
    assert!(said.stdout.contains("none of them is stopped"), "{said:#?}");
    daemon.start_again();
    assert_eq!(pids(&daemon.wait_until(PATIENCE, all_ready)), before);
    let said = daemon.ctl(&["doctor", "--json"]).stdout;
    let said: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    let store = said["findings"].as_array().expect("a list").iter().find(|finding| finding["subject"] == "store");
    assert_eq!(store.expect("it is looked at")["weight"], "well", "{said:#}");
}

/// Makes what a bad disk would: every page of the tables is something else, and the log beside them is checkpointed away.
fn damage_in_use(path: &Path) {
    use std::os::unix::fs::FileExt;
    let database = rusqlite::Connection::open(path).expect("it is there");
    database.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).expect("nobody holds it for long");
    // So that the daemon reads every page anew.
    database.execute_batch("CREATE TABLE stranger (x); DROP TABLE stranger").expect("it is writable");
    database.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).expect("nobody holds it for long");
    let file = fs::File::options().write(true).open(path).expect("it is there");
    let length = file.metadata().expect("it is there").len();
    for page in 1..length / 4096 {
        file.write_all_at(&[0xa5; 4096], page * 4096).expect("it is writable");
    }
}

#[test]
fn a_store_that_is_damaged_while_it_is_in_use_is_written_anew_from_memory() {
    let (mut daemon, _) = fleet();
    let before = pids(&daemon.status());
    let path = daemon.home.path().join("state/agentd.db");
    damage_in_use(&path);
    let deadline = std::time::Instant::now() + PATIENCE;
    let mut count = 2;
    while !daemon.ctl_ok(&["daemon", "status"]).stdout.contains("written anew from memory") {
        assert!(std::time::Instant::now() < deadline, "nobody noticed; {}", daemon.log());
        count = 5 - count;
        daemon.ctl_ok(&["scale", "web", &count.to_string()]);
    }
    daemon.ctl_ok(&["scale", "web", "2"]);
    let now = pids(&daemon.wait_until(PATIENCE, all_ready));
    daemon.kill();
    daemon.start_again();
    assert_eq!(pids(&daemon.wait_until(PATIENCE, all_ready)), now, "nothing is missing");
    assert_eq!(now.intersection(&before).count(), 3, "and nobody was stopped for it");
}
