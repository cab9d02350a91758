//! A store that cannot be written, or cannot be read.

use std::fs;

use nix::libc;
use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::{PATIENCE, all_ready, fleet, pids, workers};

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
