//! Workers that speak systemd's protocol, and our words in it.

use std::fs;

use agentd_protocol::control::OperationState;
use agentd_protocol::events::EventKind;
use agentd_protocol::status::{AppView, ExitReason, WorkerState};
use nix::sys::signal::Signal;

use crate::fleet::{Fleet, next, next_exit, signal};

const NOTIFY: &str = "ready = \"notify\"\nrestart = { backoff = \"50ms..50ms\" }";

#[test]
fn ready_is_believed_and_status_is_shown() {
    let fleet = Fleet::new();
    fleet.plain(&["notify=STATUS=model loaded;READY=1", "hang"], NOTIFY);
    let mut watch = fleet.daemon.watch();
    fleet.daemon.ctl_ok(&["start", "./web.toml"]);
    let ready = next(&mut watch, |event| matches!(event.event, EventKind::WorkerReady { .. }));
    let EventKind::WorkerReady { how, .. } = ready.event else { panic!("it was just looked at") };
    assert_eq!(how, "notify");
    assert_eq!(fleet.app().workers[0].status_text.as_deref(), Some("model loaded"));
    let status = fleet.daemon.ctl_ok(&["status"]).stdout;
    assert!(status.contains("model loaded"), "{status}");
}

#[test]
fn systemd_notify_makes_a_worker_ready() {
    if std::process::Command::new("systemd-notify").arg("--version").output().is_err() {
        eprintln!("systemd-notify is not installed");
        return;
    }
    let fleet = Fleet::running(&["command=systemd-notify --ready --status=by_a_tool", "hang"], NOTIFY);
    assert_eq!(fleet.app().workers[0].status_text.as_deref(), Some("by_a_tool"));
}

#[test]
fn a_start_that_asks_for_more_time_gets_it() {
    Fleet::running(
        &["notify=EXTEND_TIMEOUT_USEC=20000000", "pause=3", "notify=READY=1", "hang"],
        "ready = { notify = true, timeout = \"2s\" }",
    );
}

#[test]
fn stored_descriptors_reach_the_next_worker() {
    let fleet = Fleet::running(&["recall=memory", "notify=READY=1", "hang"], NOTIFY);
    let first = fleet.pid();
    signal(first, Signal::SIGKILL);
    fleet.worker_until(|worker| worker.restarts == 1 && worker.state == WorkerState::Ready);
    assert!(fleet.printed().contains(&format!("recalled {first}")), "{}", fleet.printed());
}

#[test]
fn the_end_of_a_main_process_that_was_named_is_the_workers_end() {
    let fleet = Fleet::running(&["fork-main=READY=1"], NOTIFY);
    let first = fleet.worker_until(|worker| worker.state == WorkerState::Ready).pid.expect("it runs");
    let children = fs::read_to_string(format!("/proc/{first}/task/{first}/children")).expect("it runs");
    let mut mains: Vec<u32> = children.split_whitespace().filter_map(|pid| pid.parse().ok()).collect();
    // The view may name either: the process that was started, or the one that took its place.
    mains.push(first);
    signal(mains[0], Signal::SIGKILL);
    let worker = fleet.worker_until(|worker| worker.restarts == 1 && worker.state == WorkerState::Ready);
    assert!(worker.pid.is_some_and(|pid| !mains.contains(&pid)), "{worker:#?}");
}

#[test]
fn a_daemon_of_the_old_school_lives_on_in_the_child_that_it_named() {
    let fleet = Fleet::new();
    let path = fleet.file("end");
    let until = format!("await={}", path.display());
    fleet.plain(&["fork-away=READY=1", &until, "exit=3"], &format!("{NOTIFY}\nworkers = 4"));
    fleet.daemon.ctl_ok(&["start", "./web.toml"]);
    let mut watch = fleet.daemon.watch();
    // Nobody's end is told before the children end.
    assert_eq!(fleet.app().ready, 4);
    fs::write(&path, "").expect("the home can be written");
    let exit = next_exit(&mut watch);
    assert_eq!((exit.code, exit.reason), (Some(3), ExitReason::Crashed));
    fs::remove_file(&path).expect("it was just written");
    fleet.until(|app| app.ready == 4);
}

#[test]
fn a_worker_that_says_it_is_stopping_gets_no_share_and_ends_by_itself() {
    let fleet = Fleet::new();
    let path = fleet.file("end");
    let words = ["notify=READY=1".to_owned(), "notify=STOPPING=1".to_owned(), format!("await={}", path.display())];
    let mut words: Vec<&str> = words.iter().map(String::as_str).collect();
    words.push("exit=0");
    fleet.listening(&words, "ready = \"notify\"\nrestart = { policy = \"on-failure\" }");
    let mut watch = fleet.daemon.watch();
    drop(fleet.daemon.ctl(&["start", "./web.toml", "--no-wait"]));
    fleet.worker_until(|worker| worker.state == WorkerState::Stopping);
    fs::write(&path, "").expect("the home can be written");
    let exit = next_exit(&mut watch);
    assert_eq!((exit.code, exit.reason), (Some(0), ExitReason::Finished));
    fleet.worker_until(|worker| worker.state == WorkerState::Exited);
}

#[test]
fn a_task_holds_a_drain_open_and_is_shown_in_flight() {
    let fleet = Fleet::new();
    let path = fleet.file("answer");
    let task = format!("task=chat-1:{}", path.display());
    fleet.listening(&[&task, "serve"], "");
    fleet.daemon.ctl_ok(&["start", "./web.toml"]);
    fleet.until(|app| app.in_flight == 1);
    let draining = |app: &AppView| app.workers.iter().find(|worker| worker.state == WorkerState::Draining).cloned();
    std::thread::scope(|scope| {
        let reload = scope.spawn(|| fleet.result_of(&["reload", "web"]));
        let app = fleet.until(|app| draining(app).is_some_and(|worker| worker.in_flight == 1));
        let worker = draining(&app).expect("it was just looked at");
        assert!(worker.oldest_task_ms.is_some() && worker.drain_deadline.is_some(), "{worker:#?}");
        fs::write(&path, "").expect("the home can be written");
        let (output, result) = reload.join().expect("a reload does not panic");
        assert_eq!(output.code, Some(0), "{output:#?}");
        assert_eq!(result.state, OperationState::Done);
        assert_eq!((result.tasks.finished, result.tasks.lost), (1, 0), "{result:#?}");
    });
}
