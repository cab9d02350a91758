//! LangGraph's conformance suite for checkpointers, on agentd's store: what a saver must do is said by LangGraph, not by us.

use std::collections::BTreeMap;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use agentd_testkit::e2e::Daemon;
use serde::Deserialize;

use crate::programs::{python, source};

/// Longest wait for the suite, which takes seconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// What the suite asks for. A version of it that asks for more is to be looked at.
const CAPABILITIES: [&str; 8] =
    ["copy_thread", "delete_for_runs", "delete_thread", "get_tuple", "list", "prune", "put", "put_writes"];

/// What `CapabilityReport.to_dict` tells.
#[derive(Debug, Deserialize)]
struct Report {
    conformance_level: String,
    results: BTreeMap<String, Capability>,
}

#[derive(Debug, Deserialize)]
struct Capability {
    detected: bool,
    /// None when it was passed over.
    passed: Option<bool>,
    tests_passed: u32,
    tests_failed: u32,
    tests_skipped: u32,
    failures: Vec<String>,
}

/// The report of the suite, run by a worker of a daemon.
fn judged() -> Report {
    let daemon = Daemon::start(env!("CARGO_BIN_EXE_agentd"));
    let report = daemon.home.path().join("report.json");
    let (command, library) = ([python(), source("tests/apps/langgraph_conformance.py")], source("sdk/python"));
    daemon.config(
        "judge.toml",
        &format!(
            "[agent.judge]\ncommand = {command:?}\nready = \"protocol\"\n\
             env = {{ REPORT = {report:?}, PYTHONPATH = {library:?}, PYTHONDONTWRITEBYTECODE = \"1\" }}\n"
        ),
    );
    daemon.ctl_ok(&["start", "./judge.toml"]);
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Ok(text) = fs::read_to_string(&report) {
            return serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        }
        let printed = || daemon.ctl(&["logs", "judge"]).stdout;
        assert_eq!(daemon.app("judge").workers[0].restarts, 0, "the suite does not run: {}", printed());
        assert!(Instant::now() < deadline, "the suite does not end: {}", printed());
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn the_saver_passes_every_capability_of_langgraphs_conformance_suite() {
    let report = judged();
    assert_eq!(report.results.keys().collect::<Vec<_>>(), CAPABILITIES, "{report:#?}");
    for (name, capability) in &report.results {
        let Capability { detected, passed, tests_passed, tests_failed, tests_skipped, failures } = capability;
        assert!(failures.is_empty(), "{name}: {failures:#?}");
        assert_eq!((*detected, *passed), (true, Some(true)), "{name}: {capability:?}");
        assert_eq!((*tests_failed, *tests_skipped), (0, 0), "{name}: {capability:?}");
        assert!(*tests_passed > 0, "{name}: nothing was tested");
    }
    assert_eq!(report.conformance_level, "FULL");
}
