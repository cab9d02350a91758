//! Versions that fall: never ready, dead soon after they serve, dead together with their supervisor at each step. The old
//! version serves on, nobody is refused, and no connection is cut but those that the dead had in hand.

use agentd_protocol::control::DeploymentReport;
use agentd_protocol::status::{DeploymentState, WorkerState};
use agentd_testkit::e2e::ProcessEnd;

use super::load::{CLIENTS, Load};
use super::{Judged, PATIENCE};

impl Judged {
    /// Its file with something else in the place of a part of it.
    fn configure_with(&self, env: &str, more: &str, part: &str, other: &str) {
        let file = self.configure(env, more);
        let text = std::fs::read_to_string(&file).expect("it was written");
        assert!(text.contains(part), "{text}");
        std::fs::write(&file, text.replace(part, other)).expect("it is ours");
    }

    /// The old version serves with all of its workers, as the report says.
    fn serves_on(&self, report: &DeploymentReport) {
        assert_eq!((report.state, report.tasks.lost), (DeploymentState::RolledBack, 0), "{report:#?}");
        let app = self.daemon.app("judged");
        let old = |generation| generation == report.from_generation;
        assert!(app.ready == 2 && app.workers.iter().all(|worker| old(worker.generation)), "{app:#?}");
    }
}

/// Nobody was refused; cut was at most what each of `dead` processes had in hand.
#[track_caller]
fn nobody_was_refused(wrong: &[String], dead: usize) {
    assert!(wrong.iter().all(|why| !why.starts_with("connect")), "{wrong:?}");
    assert!(wrong.len() <= dead * CLIENTS, "{wrong:?}");
}

#[test]
fn a_version_that_never_gets_ready_is_taken_back_by_every_strategy() {
    let judged = Judged::start();
    let load = Load::start(judged.port);
    for strategy in ["rolling", "blue-green", "canary"] {
        judged.configure_with(
            &format!("READY_AFTER = \"1000\", BY = \"{strategy}\""),
            "",
            "ready = \"protocol\"",
            "ready = { protocol = true, timeout = \"500ms\" }",
        );
        let output = judged.daemon.ctl(&["upgrade", "judged", "--strategy", strategy]);
        assert_eq!(output.code, Some(5), "{output:?}");
        let report = judged.report();
        assert!(report.why.as_ref().is_some_and(|why| why.contains("not ready")), "{report:#?}");
        judged.serves_on(&report);
    }
    assert_eq!(load.end(), Vec::<String>::new());
}

#[test]
fn a_version_that_crashes_soon_after_it_serves_is_taken_back_by_every_strategy() {
    let judged = Judged::start();
    let load = Load::start(judged.port);
    load.await_answers(20);
    for strategy in ["rolling", "blue-green", "canary"] {
        // Its steps take longer than it lives, and it is watched for longer.
        let (part, other) = ("dwell = \"300ms\", stability = \"300ms\"", "dwell = \"1h\", stability = \"1h\"");
        let env = format!("CRASH_AFTER = \"0.7\", BY = \"{strategy}\"");
        // Beside other tests on two processors: how long tasks take says nothing of the version.
        judged.configure_with(&env, "gates = { latency = \"off\" }", part, other);
        let output = judged.daemon.ctl(&["upgrade", "judged", "--strategy", strategy]);
        assert_eq!(output.code, Some(5), "{output:?}");
        let report = judged.report();
        assert!(report.why.as_ref().is_some_and(|why| why.contains("exit code 1")), "{report:#?}");
        judged.serves_on(&report);
    }
    // At most both of each.
    nobody_was_refused(&load.end(), 6);
}

/// Steps of a canary, each with what holds it there: how often it is promoted before, its stage and its share.
const STEPS: [(&str, usize, &str, Option<u8>); 5] = [
    ("READY_AFTER = \"1000\"", 0, "raising", Some(0)),
    ("EVAL = \"hangs\"", 0, "verifying", Some(0)),
    ("GOOD = \"1\"", 0, "sharing", Some(50)),
    ("GOOD = \"2\"", 1, "sharing", Some(100)),
    ("GOOD = \"3\"", 2, "warm", Some(100)),
];

#[test]
fn a_canary_that_is_killed_with_its_supervisor_is_taken_back_by_the_next_one_at_every_step() {
    let mut judged = Judged::start();
    let load = Load::start(judged.port);
    load.await_answers(20);
    for (env, promoted, stage, percent) in STEPS {
        let eval = if stage == "verifying" { ", eval = [\"sleep\", \"1000\"]" } else { "" };
        // Beside other tests on two processors: how long tasks take says nothing of the version.
        let more = format!("gates = {{ latency = \"off\"{eval} }}");
        let (part, other) = ("dwell = \"300ms\", stability = \"300ms\"", "dwell = \"1h\", stability = \"1h\"");
        judged.configure_with(env, &more, part, other);
        judged.daemon.ctl_ok(&["upgrade", "judged", "--no-wait"]);
        for step in [50, 100].into_iter().take(promoted) {
            judged.await_stage("sharing", Some(step));
            judged.daemon.ctl_ok(&["promote", "judged"]);
        }
        judged.await_stage(stage, percent);
        let dead = judged.new_processes();
        judged.daemon.kill();
        dead.iter().for_each(ProcessEnd::kill);
        judged.daemon.start_again();
        let over = |report: &DeploymentReport| report.finished_at.is_some();
        let report = judged.await_report(&format!("{stage} at {percent:?} is over"), over);
        judged.serves_on(&report);
        assert!(report.why.as_ref().is_some_and(|why| why.contains("judged.")), "{stage} at {percent:?}: {report:#?}");
    }
    let answered = load.answers();
    load.await_answers(answered + 20);
    nobody_was_refused(&load.end(), 2 * STEPS.len());
}

impl Judged {
    fn await_stage(&self, name: &str, percent: Option<u8>) {
        self.await_report(&format!("{name} at {percent:?}"), |report| {
            report.finished_at.is_none()
                && report.stages.last().is_some_and(|last| last.name == name && last.percent == percent)
        });
    }

    /// The processes of the new version, once there are some.
    fn new_processes(&self) -> Vec<ProcessEnd> {
        let newest = |app: &agentd_protocol::status::AppView| app.workers.iter().map(|worker| worker.generation).max();
        let runs = |state| matches!(state, WorkerState::Starting | WorkerState::Ready);
        let document = self.daemon.wait_until(PATIENCE, |document| {
            let app = &document.apps[0];
            let mut new = app.workers.iter().filter(|worker| Some(worker.generation) == newest(app));
            new.all(|worker| worker.pid.is_some() && runs(worker.state))
        });
        let app = &document.apps[0];
        let new = app.workers.iter().filter(|worker| Some(worker.generation) == newest(app));
        let found: Vec<ProcessEnd> = new.filter_map(|worker| ProcessEnd::of(worker.pid?)).collect();
        assert!(!found.is_empty(), "{app:#?}");
        found
    }
}
