//! Apps that cannot start.

use agentd_protocol::control::OperationState;
use agentd_protocol::status::{AppState, WorkerState};

use crate::fleet::Fleet;

#[test]
fn a_start_whose_worker_never_gets_ready_fails_with_the_reason_and_its_last_words() {
    let fleet = Fleet::new();
    fleet.listening(&["print=still loading", "hang"], "ready = { listening = true, timeout = \"4s\" }");
    let result = fleet.failing_start();
    assert_eq!(result.state, OperationState::Failed);
    assert!(result.why.as_ref().is_some_and(|why| why.contains("not ready in time")), "{result:#?}");
    assert_eq!(result.log_tail, ["still loading"]);
}

#[test]
fn an_app_that_binds_elsewhere_at_its_start_is_told_where_it_did() {
    let fleet = Fleet::new();
    let elsewhere = agentd_testkit::e2e::free_port();
    fleet.listening(&[&format!("bind={elsewhere}")], "ready = { listening = true, timeout = \"4s\" }");
    let result = fleet.failing_start();
    let named = format!("127.0.0.1:{elsewhere}");
    assert!(result.why.as_ref().is_some_and(|why| why.contains(&named)), "{result:#?}");
}

/// Asserts that what cannot be started is parked at its first try, with these words.
fn parked_at_once(fleet: &Fleet, words: &[&str]) {
    let result = fleet.failing_start();
    let why = result.why.clone().unwrap_or_default();
    assert!(words.iter().all(|word| why.contains(word)), "{words:?} in {result:#?}");
    let app = fleet.until(|app| app.state == AppState::Failed);
    assert_eq!(app.workers[0].state, WorkerState::Failed);
    assert_eq!(app.workers[0].restarts, 0, "it does not loop");
    let why = app.workers[0].why.clone().unwrap_or_default();
    assert!(words.iter().all(|word| why.contains(word)), "{words:?} in {app:#?}");
}

#[test]
fn a_command_that_is_not_found_is_parked() {
    let fleet = Fleet::new();
    fleet.commanded(&["no-such-program"], "");
    parked_at_once(&fleet, &["no-such-program", "PATH"]);
}

#[test]
fn a_program_that_is_not_executable_is_parked() {
    let fleet = Fleet::new();
    fleet.commanded(&["./worker.py"], "");
    parked_at_once(&fleet, &["worker.py", "not executable"]);
}

#[test]
fn a_script_without_its_interpreter_is_parked() {
    let fleet = Fleet::new();
    let script = fleet.daemon.config("interpreted", "#!/opt/python9\n");
    executable(&script);
    fleet.commanded(&["./interpreted"], "");
    parked_at_once(&fleet, &["/opt/python9", "interpreter"]);
}

fn executable(path: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
}

#[test]
fn a_folder_that_goes_away_while_it_runs_parks_the_next_start() {
    let fleet = Fleet::new();
    let folder = fleet.file("gone");
    std::fs::create_dir(&folder).expect("the home can be written");
    fleet.commanded(&["sleep", "3600"], "cwd = \"gone\"\nrestart = { backoff = \"100ms..100ms\" }");
    fleet.daemon.ctl_ok(&["start", "./web.toml"]);
    std::fs::remove_dir(&folder).expect("it is empty");
    crate::fleet::signal(fleet.pid(), nix::sys::signal::Signal::SIGKILL);
    let worker = fleet.worker_until(|worker| worker.state == WorkerState::Failed);
    let why = worker.why.clone().unwrap_or_default();
    assert!(why.contains("gone") && why.contains("No such file"), "{worker:#?}");
}

#[test]
fn an_env_file_that_goes_away_while_it_runs_parks_the_next_start() {
    let fleet = Fleet::new();
    let file = fleet.daemon.config("secrets.env", "KEY=value\n");
    fleet.commanded(&["sleep", "3600"], "env_file = \"secrets.env\"\nrestart = { backoff = \"100ms..100ms\" }");
    fleet.daemon.ctl_ok(&["start", "./web.toml"]);
    std::fs::remove_file(&file).expect("it was just written");
    crate::fleet::signal(fleet.pid(), nix::sys::signal::Signal::SIGKILL);
    let worker = fleet.worker_until(|worker| worker.state == WorkerState::Failed);
    let why = worker.why.clone().unwrap_or_default();
    assert!(why.contains("secrets.env"), "{worker:#?}");
}
