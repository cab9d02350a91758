//! Hooks: somebody is told when something happens, and nothing waits for them.

mod deploying;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use agentd_protocol::events::EventKind;
use agentd_testkit::e2e::Daemon;
use serde_json::Value;

const AGENTD: &str = env!("CARGO_BIN_EXE_agentd");

/// Longest wait for anything that takes milliseconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a hook writes down of what it was given.
const TELL: &str = r#"#!/bin/sh
part=part.$AGENTD_EVENT_ON.$AGENTD_EVENT_SEQ
cat > $part
env | grep AGENTD_EVENT_ | sort >> $part
mv $part told.$AGENTD_EVENT_ON.$AGENTD_EVENT_SEQ
"#;

fn app(daemon: &Daemon, command: &str, hooks: &str) -> PathBuf {
    daemon.config("tell.sh", TELL);
    let table = format!(
        "[agent.web]\ncommand = [\"sh\", \"-c\", \"{command}\"]\nrestart = {{ backoff = \"10ms\", max = \"3 in 1m\" }}\n{hooks}"
    );
    daemon.config("web.toml", &table)
}

/// The files that hooks for `on` have written, once there are `count`.
fn told(daemon: &Daemon, on: &str, count: usize) -> Vec<PathBuf> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let files = written(daemon.home.path(), &format!("told.{on}."));
        if files.len() >= count {
            return files;
        }
        assert!(Instant::now() < deadline, "{} of {count} were told of {on}:\n{}", files.len(), daemon.log());
        std::thread::yield_now();
    }
}

fn written(folder: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("the home is there").filter_map(Result::ok);
    entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix)).map(|entry| entry.path()).collect()
}

#[test]
fn a_crash_and_a_parked_worker_are_told_with_the_event_on_standard_input_and_in_variables() {
    let daemon = Daemon::start(AGENTD);
    app(&daemon, "exit 7", "[[hooks]]\non = [\"crash\", \"park\"]\ncommand = [\"sh\", \"tell.sh\"]\n");
    drop(daemon.ctl(&["start", "./web.toml"]));
    let crashes = told(&daemon, "crash", 3);
    let text = std::fs::read_to_string(&crashes[0]).expect("it was written");
    let (first, variables) = text.split_once('\n').expect("an event and variables");
    let event: Value = serde_json::from_str(first).expect("the event as JSON");
    assert_eq!((event["event"]["type"].as_str(), event["event"]["code"].as_i64()), (Some("worker_exited"), Some(7)));
    for wanted in ["AGENTD_EVENT_APP=web", "AGENTD_EVENT_TYPE=worker_exited", "AGENTD_EVENT_ON=crash"] {
        assert!(variables.contains(wanted), "{variables}");
    }
    assert!(variables.contains(&format!("AGENTD_EVENT_SEQ={}", event["seq"])), "{variables}");
    told(&daemon, "park", 1);
}

#[test]
fn a_reload_is_told_and_the_apps_own_hooks_run_beside_those_of_the_file() {
    let daemon = Daemon::start(AGENTD);
    let hooks = "[[hooks]]\non = \"reload\"\ncommand = [\"sh\", \"tell.sh\"]\n\
                 [[agent.web.hooks]]\non = \"reload\"\ncommand = [\"sh\", \"-c\", \"echo > own\"]\n";
    app(&daemon, "exec sleep 1000", hooks);
    daemon.ctl_ok(&["start", "./web.toml"]);
    daemon.ctl_ok(&["reload", "web"]);
    told(&daemon, "reload", 1);
    let deadline = Instant::now() + PATIENCE;
    while !daemon.home.path().join("own").exists() {
        assert!(Instant::now() < deadline, "its own hook runs too");
    }
}

#[test]
fn a_hook_that_hangs_is_killed_with_all_that_it_started_and_holds_nothing_up() {
    let daemon = Daemon::start(AGENTD);
    let hooks = "[[hooks]]\non = \"reload\"\ntimeout = \"500ms\"\n\
                 command = [\"sh\", \"-c\", \"echo to nobody; sleep 1000 & echo $! > child; wait\"]\n";
    app(&daemon, "exec sleep 1000", hooks);
    let mut watch = daemon.watch();
    daemon.ctl_ok(&["start", "./web.toml"]);
    let begun = Instant::now();
    daemon.ctl_ok(&["reload", "web"]);
    assert!(begun.elapsed() < Duration::from_secs(20), "the reload does not wait for it");
    let deadline = Instant::now() + PATIENCE;
    let failed = loop {
        let event = watch.next(deadline).expect("its failure is told in time");
        if let EventKind::HookFailed { on, why, output, .. } = event.event {
            break (on, why, output);
        }
    };
    assert_eq!((failed.0.as_str(), failed.2), ("reload", vec!["to nobody".to_owned()]));
    assert!(failed.1.contains("did not end within 500ms"), "{}", failed.1);
    let child = std::fs::read_to_string(daemon.home.path().join("child")).expect("it was started");
    let deadline = Instant::now() + PATIENCE;
    while Path::new("/proc").join(child.trim()).exists() {
        assert!(Instant::now() < deadline, "what it started is gone");
    }
    let status = daemon.ctl_ok(&["daemon", "status"]).stdout;
    assert!(status.contains("the hook of web for reload failed: sh"), "{status}");
}

#[test]
fn hooks_beyond_their_rate_are_counted_and_told() {
    let daemon = Daemon::start(AGENTD);
    app(
        &daemon,
        "exit 7",
        "[[hooks]]\non = \"crash\"\ncommand = [\"sh\", \"tell.sh\"]\nrate = \"1 in 1h\"\n\
         [[hooks]]\non = \"park\"\ncommand = [\"sh\", \"tell.sh\"]\n",
    );
    drop(daemon.ctl(&["start", "./web.toml"]));
    told(&daemon, "park", 1);
    assert_eq!(told(&daemon, "crash", 1).len(), 1);
    let status = daemon.ctl_ok(&["daemon", "status"]).stdout;
    assert!(status.contains("hook 1 of web was suppressed 3 times"), "{status}");
}

#[test]
fn a_program_that_is_not_there_is_told_as_any_failure() {
    let daemon = Daemon::start(AGENTD);
    app(&daemon, "exec sleep 1000", "[[hooks]]\non = \"reload\"\ncommand = [\"no-such-program\"]\n");
    let mut watch = daemon.watch();
    daemon.ctl_ok(&["start", "./web.toml"]);
    daemon.ctl_ok(&["reload", "web"]);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let event = watch.next(deadline).expect("its failure is told in time");
        if let EventKind::HookFailed { why, .. } = event.event {
            assert!(why.contains("no-such-program"), "{why}");
            return;
        }
    }
}

#[test]
fn a_hook_that_waits_for_nothing_known_is_refused_with_what_was_meant() {
    let daemon = Daemon::start(AGENTD);
    app(&daemon, "exec sleep 1000", "[[hooks]]\non = [\"crahs\"]\ncommand = [\"true\"]\n");
    let refused = daemon.ctl(&["start", "./web.toml"]);
    assert_eq!(refused.code, Some(2), "{refused:#?}");
    assert!(refused.stderr.contains("did you mean \"crash\"?"), "{refused:#?}");
}
