//! Versions that fall: never ready, dead soon after they serve, dead together with their supervisor at each step. The old
//! version serves on and does what the dead had in hand, nobody is refused, and no connection is cut but those that the
//! dead had accepted: nobody else can answer on these. Whoever repeats is answered.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use agentd_protocol::control::{DeploymentReport, TaskState, TaskView, TasksParams};
use agentd_protocol::status::{AppView, DeploymentState, StatusDocument, WorkerState, WorkerView};
use agentd_testkit::e2e::ProcessEnd;

use super::load::Load;
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

    /// No task that was begun so far was lost, and the old version has done what the dead had in hand; how many those were. One that died
    /// between the two words of an effect is a person's to judge.
    fn all_is_done_by(&self, generation: u64) -> usize {
        let list = || self.daemon.request(TasksParams { limit: 10_000, ..TasksParams::default() }).expect("a list");
        let over = |task: &TaskView| matches!(task.state, TaskState::Ended | TaskState::Parked);
        let begun: BTreeSet<String> = list().tasks.into_iter().map(|task| task.id).collect();
        let begun = || -> Vec<TaskView> { list().tasks.into_iter().filter(|task| begun.contains(&task.id)).collect() };
        let deadline = Instant::now() + PATIENCE;
        let mut tasks = begun();
        while !tasks.iter().all(over) {
            assert!(Instant::now() < deadline, "{tasks:#?}");
            std::thread::sleep(Duration::from_millis(20));
            tasks = begun();
        }
        let lost = |task: &&TaskView| task.why.as_ref().is_some_and(|why| why.starts_with("lost"));
        assert_eq!(tasks.iter().find(lost), None);
        let resumed = tasks.iter().filter(|task| task.attempt > 1 && task.state == TaskState::Ended);
        let others: Vec<&TaskView> = resumed.clone().filter(|task| task.generation != Some(generation)).collect();
        assert!(others.is_empty(), "{others:#?}");
        resumed.count()
    }
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
        judged.daemon.ctl_ok(&["upgrade", "judged", "--strategy", strategy, "--no-wait"]);
        judged.daemon.wait_until(PATIENCE, |document| {
            let app = &document.apps[0];
            let serves = |worker: &&WorkerView| worker.generation == 1 && worker.state == WorkerState::Ready;
            assert_eq!(app.workers.iter().filter(serves).count(), 2, "at any moment: {app:#?}");
            app.deployment.is_none()
        });
        let report = judged.report();
        assert!(report.why.as_ref().is_some_and(|why| why.contains("not ready")), "{report:#?}");
        judged.serves_on(&report);
    }
    load.nobody_was_refused(0);
}

/// A version that crashes 5 s after it serves; at most so many of its workers serve at once.
#[track_caller]
fn falls(strategy: &str, serving: usize) {
    let judged = Judged::start();
    let load = Load::start(judged.port);
    load.await_answers(20);
    // Its steps take longer than it lives, and it is watched for longer.
    let (part, other) = (
        "dwell = \"300ms\", stability = \"300ms\", min_uptime = \"5s\"",
        "dwell = \"1h\", stability = \"1h\", min_uptime = \"1h\"",
    );
    // Beside other tests on two processors: how long tasks take says nothing of the version.
    judged.configure_with("CRASH_AFTER = \"5\"", "gates = { latency = \"off\" }", part, other);
    let output = judged.daemon.ctl(&["upgrade", "judged", "--strategy", strategy]);
    assert_eq!(output.code, Some(5), "{output:?}");
    let report = judged.report();
    assert!(report.why.as_ref().is_some_and(|why| why.contains("exit code 1")), "{report:#?}");
    judged.serves_on(&report);
    load.nobody_was_refused(serving);
    let resumed = judged.all_is_done_by(report.from_generation);
    assert!(resumed > 0 && report.tasks.handed_over > 0, "it died in the midst of one: {report:#?}");
}

#[test]
fn a_rolling_upgrade_to_a_version_that_crashes_after_5_s_goes_back() {
    falls("rolling", 1);
}

#[test]
fn a_version_that_crashes_after_5_s_gives_all_its_shares_back() {
    falls("blue-green", 2);
}

#[test]
fn a_canary_that_crashes_after_5_s_is_taken_back() {
    falls("canary", 1);
}

/// Steps of a canary that can be taken back, each with what holds it there: how often it is promoted before, its stage and
/// its share.
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
        // What the last one had in hand when it died is for the old version, not for the next.
        judged.all_is_done_by(1);
        judged.hold_at(env, &more, promoted);
        judged.await_stage(stage, percent);
        judged.dies_with_its_supervisor();
        let report = judged.ended();
        judged.serves_on(&report);
        assert!(report.why.as_ref().is_some_and(|why| why.contains("judged.")), "{stage} at {percent:?}: {report:#?}");
    }
    let answered = load.answers();
    load.await_answers(answered + 20);
    // In the hands of the dead were connections where they had a share of them. What waited behind them is answered by a
    // relief worker, at whose end one that nobody has answered for 10 s counts as at rest: on a machine so busy that the
    // next supervisor takes as long, it may be cut just before its answer.
    load.nobody_was_refused(2 * STEPS.iter().filter(|(.., percent)| *percent > Some(0)).count());
    judged.all_is_done_by(1);
}

#[test]
fn a_canary_that_is_killed_with_its_supervisor_while_the_old_version_retires_is_decided_and_starts_again() {
    let mut judged = Judged::start_as("STAYS = \"1\"");
    let load = Load::start(judged.port);
    load.await_answers(20);
    judged.hold_at("GOOD = \"1\"", "gates = { latency = \"off\" }", 2);
    judged.await_stage("warm", Some(100));
    judged.daemon.ctl_ok(&["promote", "judged"]);
    judged.await_stage("retiring", Some(100));
    let leaving = |worker: &&WorkerView| worker.generation == 1 && worker.state == WorkerState::Stopping;
    let leave = |document: &StatusDocument| document.apps[0].workers.iter().filter(leaving).count() == 2;
    let document = judged.daemon.wait_until(PATIENCE, leave);
    let old = document.apps[0].workers.iter().filter(leaving).filter_map(|worker| ProcessEnd::of(worker.pid?));
    let old: Vec<ProcessEnd> = old.collect();
    judged.dies_with_its_supervisor();
    old.iter().for_each(ProcessEnd::kill);
    let report = judged.ended();
    assert_eq!((report.state, report.tasks.lost), (DeploymentState::Done, 0), "{report:#?}");
    let new = |worker: &WorkerView| worker.generation == report.to_generation;
    let serves = |app: &AppView| app.ready == 2 && app.workers.iter().all(new);
    judged.daemon.wait_until(PATIENCE, |document| serves(&document.apps[0]));
    load.nobody_was_refused(1);
    judged.all_is_done_by(report.to_generation);
}

impl Judged {
    /// Begins a canary that goes on when it is told to only, and tells it so often.
    fn hold_at(&self, env: &str, more: &str, promoted: usize) {
        let (part, other) = ("dwell = \"300ms\", stability = \"300ms\"", "dwell = \"1h\", stability = \"1h\"");
        self.configure_with(env, more, part, other);
        self.daemon.ctl_ok(&["upgrade", "judged", "--no-wait"]);
        for step in [50, 100].into_iter().take(promoted) {
            self.await_stage("sharing", Some(step));
            self.daemon.ctl_ok(&["promote", "judged"]);
        }
    }

    /// Kills the supervisor and the new version, and starts the next one. All of that version stands still before the first
    /// of it is gone, so that nobody is cut twice.
    fn dies_with_its_supervisor(&mut self) {
        let dead = self.new_processes();
        self.daemon.kill();
        dead.iter().for_each(ProcessEnd::freeze);
        dead.iter().for_each(ProcessEnd::kill);
        self.daemon.start_again();
    }

    /// How the deployment ended.
    fn ended(&self) -> DeploymentReport {
        self.await_report("it is over", |report| report.finished_at.is_some())
    }

    fn await_stage(&self, name: &str, percent: Option<u8>) {
        self.await_report(&format!("{name} at {percent:?}"), |report| {
            report.finished_at.is_none()
                && report.stages.last().is_some_and(|last| last.name == name && last.percent == percent)
        });
    }

    /// The processes of the new version, once there are some.
    fn new_processes(&self) -> Vec<ProcessEnd> {
        let newest = |app: &AppView| app.workers.iter().map(|worker| worker.generation).max();
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
