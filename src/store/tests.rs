use agentd_core::admission::Request;
use agentd_core::event::{Event, WorkerEvent};
use agentd_core::fleet::Fleet;
use agentd_core::id::Pid;
use agentd_core::policy::{AppPolicy, Lanes};
use agentd_core::time::{Moment, Tick};

use super::*;

pub(super) fn home() -> (tempfile::TempDir, Utf8PathBuf) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = Utf8PathBuf::from_path_buf(dir.path().join("agentd.db")).expect("a UTF-8 path");
    (dir, path)
}

fn fleet() -> Fleet {
    let tick = Tick { now: Moment::from_micros(1), entropy: 7 };
    let mut fleet = Fleet::default();
    let policy = AppPolicy { workers: 2, lanes: Lanes::PerWorker, ..AppPolicy::default() };
    let app = "support".parse().expect("a valid name");
    let (_, outcome) =
        fleet.request(tick, Request::Start { app, revision: Revision(3), policy }).expect("it is admitted");
    assert_eq!(outcome.persist.workers.len(), 2);
    let launch = fleet.apps().next().expect("one app").workers[&Slot(0)].launch().expect("it starts");
    fleet.step(tick, Event::Worker { launch, event: WorkerEvent::Spawned { pid: Pid(4242), start_time: 99 } });
    fleet
}

fn changes(fleet: &Fleet) -> Vec<Change> {
    let mut changes = vec![Change::Counters(fleet.counters())];
    for app in fleet.apps() {
        changes.push(Change::App(Box::new(app.head.clone())));
        changes.extend(app.workers.values().map(|worker| Change::Worker(worker.clone())));
        let (app, json) = (app.head.name.clone(), "{}".to_owned());
        changes.push(Change::Revision { app, revision: Revision(3), json });
    }
    changes
}

#[test]
fn what_was_committed_is_there_after_a_reopen_in_either_durability() {
    for durability in [Durability::Process, Durability::Power] {
        let (_dir, path) = home();
        let fleet = fleet();
        let mut store = Store::open(&path).expect("it opens");
        store.commit(&changes(&fleet), durability).expect("it commits");
        drop(store);
        let stored = Store::open(&path).expect("it opens again").load().expect("it loads");
        let app = fleet.apps().next().expect("one app");
        assert_eq!(stored.heads, vec![app.head.clone()]);
        assert_eq!(stored.workers, app.workers.values().map(|worker| (**worker).clone()).collect::<Vec<_>>());
        assert_eq!(stored.counters, fleet.counters());
        assert_eq!(stored.revisions.len(), 1);
        let restored = Fleet::restore(stored.counters, stored.heads, stored.workers);
        assert_eq!(restored.check_invariants(), Ok(()));
    }
}

#[test]
fn an_app_that_is_gone_takes_its_workers_and_revisions_along() {
    let (_dir, path) = home();
    let mut store = Store::open(&path).expect("it opens");
    store.commit(&changes(&fleet()), Durability::Power).expect("it commits");
    let app: AppName = "support".parse().expect("a valid name");
    store.commit(&[Change::WorkerGone(app.clone(), Slot(1))], Durability::Process).expect("it commits");
    assert_eq!(store.load().expect("it loads").workers.len(), 1);
    store.commit(&[Change::AppGone(app)], Durability::Power).expect("it commits");
    let stored = store.load().expect("it loads");
    assert!(stored.heads.is_empty() && stored.workers.is_empty() && stored.revisions.is_empty());
}

#[test]
fn a_database_of_a_newer_version_is_refused_and_left_as_it_is() {
    let (_dir, path) = home();
    drop(Store::open(&path).expect("it opens"));
    let connection = Connection::open(&path).expect("plain SQLite opens it");
    connection.pragma_update(None, "user_version", 99).expect("a version is set");
    drop(connection);
    assert!(matches!(Store::open(&path), Err(StoreError::Newer { found: 99, .. })));
    let connection = Connection::open(&path).expect("plain SQLite opens it");
    let version: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).expect("it reads");
    assert_eq!(version, 99);
}

#[test]
fn a_damaged_database_or_record_is_an_error_and_never_a_fresh_start() {
    let (_dir, path) = home();
    std::fs::write(&path, "this is no database, and long enough not to be taken for an empty file").expect("written");
    assert!(Store::open(&path).is_err());
    std::fs::remove_file(&path).expect("removed");
    let mut store = Store::open(&path).expect("it opens");
    store.commit(&changes(&fleet()), Durability::Power).expect("it commits");
    store.connection.execute("UPDATE worker SET record = '{\"id\":1}' WHERE slot = 0", []).expect("updated");
    assert!(matches!(store.load(), Err(StoreError::Record { what: "worker", .. })));
}

#[test]
fn the_latest_hundred_deployments_of_an_app_are_kept_and_those_taken_back_are_known() {
    let (_dir, path) = home();
    let mut store = Store::open(&path).unwrap();
    let deployment = |app: &str, id: u64, state| Change::Deployment {
        app: app.parse().unwrap(),
        id: Operation(id),
        state,
        generation: Generation(id + 1),
        json: format!("{{\"id\":{id}}}"),
    };
    let mut changes: Vec<Change> = (1..=120).map(|id| deployment("web", id, DeploymentStanding::Done)).collect();
    changes.push(deployment("api", 121, DeploymentStanding::Open));
    changes.push(deployment("web", 122, DeploymentStanding::TakenBack));
    store.commit(&changes, Durability::Process).unwrap();
    let kept = store.deployments(Some("web"), None, false).unwrap();
    assert_eq!((kept.len(), kept[0].as_str(), kept[99].as_str()), (100, "{\"id\":122}", "{\"id\":22}"));
    assert_eq!(store.deployments(None, None, true).unwrap(), ["{\"id\":121}"]);
    assert_eq!(store.deployments(None, Some(122), false).unwrap().len(), 1);
    let web = "web".parse().unwrap();
    assert_eq!(store.taken_back(&web).unwrap().into_iter().collect::<Vec<u64>>(), [123]);
    store.commit(&[Change::AppGone(web)], Durability::Process).unwrap();
    assert_eq!(store.deployments(None, None, false).unwrap().len(), 1, "they go with their app");
}
