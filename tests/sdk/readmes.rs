//! The first program of each SDK's README: it is short, runs without agentd, and is a task with it.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use agentd_protocol::control::{TaskState, TasksParams};
use agentd_testkit::e2e::{Daemon, Home};

use crate::blocks::blocks;
use crate::programs::{python, source};

const PATIENCE: Duration = Duration::from_secs(30);

/// The program of a README that is marked as this file.
fn first_program(sdk: &str, info: &str) -> String {
    let page = std::fs::read_to_string(source(&format!("sdk/{sdk}/README.md"))).expect("each SDK has one");
    let found = blocks(&page).into_iter().find(|block| block.info == info);
    let text = found.unwrap_or_else(|| panic!("sdk/{sdk}/README.md has no block {info:?}")).text;
    assert!(text.lines().count() < 15, "a first program is under 15 lines: {text}");
    text
}

/// Makes `agentd-worker` known to Node programs in this folder.
pub(crate) fn install_for_node(folder: &Path) {
    let modules = folder.join("node_modules");
    std::fs::create_dir_all(&modules).expect("a folder");
    std::os::unix::fs::symlink(source("sdk/node"), modules.join("agentd-worker")).expect("a link");
}

fn runs(sdk: &str, file: &str, language: &str, interpreter: &Path) {
    let home = Home::new();
    let path = home.path().join(file);
    std::fs::write(&path, first_program(sdk, &format!("{language} {file}"))).expect("it can be written");
    install_for_node(home.path());
    let library = source("sdk/python");
    let alone = Command::new(interpreter).arg(&path).env("PYTHONPATH", &library).output().expect("it runs");
    let said = String::from_utf8_lossy(&alone.stdout).into_owned();
    assert!(alone.status.success(), "{alone:?}");
    assert_eq!(said.lines().collect::<Vec<_>>(), ["mail to Ada", "mail to Grace", "mail to Edsger"]);

    let daemon = Daemon::start_in(env!("CARGO_BIN_EXE_agentd"), home);
    daemon.config(
        "first.toml",
        &format!(
            "[agent.first]\ncommand = [{interpreter:?}, {path:?}]\nrestart.policy = \"on-failure\"\n\
             env.PYTHONPATH = {library:?}\n"
        ),
    );
    daemon.ctl_ok(&["start", "./first.toml"]);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let tasks = daemon.request(TasksParams::default()).expect("a list").tasks;
        if let [task] = tasks.as_slice()
            && task.state == TaskState::Ended
        {
            assert_eq!((task.kind.as_deref(), task.why.as_deref()), (Some("greeting"), Some("ok")), "{task:?}");
            break;
        }
        assert!(Instant::now() < deadline, "it does not end: {tasks:?}: {}", daemon.log());
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn the_first_program_in_python_runs_with_and_without_agentd() {
    runs("python", "first.py", "python", &python());
}

#[test]
fn the_first_program_in_javascript_runs_with_and_without_agentd() {
    runs("node", "first.js", "js", Path::new("node"));
}

/// It runs as the crate's own example, when its documentation is tested.
#[test]
fn the_first_program_in_rust_is_short() {
    first_program("rust", "rust");
}
