//! Tasks of the Python SDK that are cancelled while an answer is owed. The other side is the program's own: agentd does not
//! keep an answer back when it is asked to.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::programs::{python, source};

/// Longest that one case may take.
const PATIENCE: Duration = Duration::from_secs(60);

fn passes(case: &str) {
    let mut child = Command::new(python())
        .arg(source("tests/sdk/cancelling.py"))
        .arg(case)
        .env("PYTHONPATH", source("sdk/python"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("python3 is there");
    let deadline = Instant::now() + PATIENCE;
    while child.try_wait().expect("it is our child").is_none() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
    // One that hangs is ended, and has not said that all is well.
    let _ = child.kill();
    let output = child.wait_with_output().expect("it has ended");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(stdout.contains("as it should be") && output.status.success(), "{stdout}{stderr}");
}

#[test]
fn an_event_loop_ends_while_agentd_is_away_and_a_task_begins() {
    passes("away");
}

#[test]
fn a_begin_that_is_cancelled_is_ended_when_it_is_answered() {
    passes("beginning");
}

#[test]
fn a_task_that_is_cancelled_while_its_end_is_answered_is_let_go_of() {
    passes("ending");
}
