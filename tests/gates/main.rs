//! Versions that are judged by their tasks: a real daemon, real workers under load, good and bad upgrades.

mod falling;
mod load;

use std::path::Path;
use std::time::{Duration, Instant};

use agentd_protocol::control::{DeploymentParams, DeploymentReport, DeploymentsParams};
use agentd_protocol::status::{DeploymentState, GateVerdict, GateView};
use agentd_testkit::e2e::{Daemon, Output, free_port};

use load::Load;

const AGENTD: &str = env!("CARGO_BIN_EXE_agentd");
/// Longest wait for what takes seconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Tasks of the old version before it is upgraded: more than a baseline needs.
const HISTORY: u64 = 150;

/// An app of two judged workers under load.
struct Judged {
    daemon: Daemon,
    port: u16,
}

impl Judged {
    fn start() -> Self {
        Self::start_as("")
    }

    /// Its first version with this environment.
    fn start_as(env: &str) -> Self {
        let judged = Self { daemon: Daemon::start(AGENTD), port: free_port() };
        let config = judged.configure(env, "");
        judged.daemon.ctl_ok(&["start", &config]);
        judged
    }

    /// Writes its file: `env` is what makes it worse, `more` is further lines.
    fn configure(&self, env: &str, more: &str) -> String {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let text = format!(
            "[agent.judged]\ncommand = [\"python3\", \"{}\"]\nworkers = 2\nlisten = \"127.0.0.1:{}\"\n\
             env = {{ PYTHONPATH = \"{}\", {env} }}\nready = \"protocol\"\n\
             upgrade = {{ strategy = \"canary\", steps = [50, 100], dwell = \"300ms\", stability = \"300ms\", min_uptime = \"5s\" }}\n{more}\n",
            root.join("tests/apps/judged.py").display(),
            self.port,
            root.join("sdk/python").display(),
        );
        self.daemon.config("judged.toml", &text).to_str().expect("a UTF-8 path").to_owned()
    }

    /// Upgrades to a version with this environment while `load` goes on.
    fn upgrade(&self, env: &str, more: &str) -> Output {
        self.configure(env, more);
        self.daemon.ctl(&["upgrade", "judged"])
    }

    /// The latest deployment.
    fn report(&self) -> DeploymentReport {
        // What tasks took is asked of the ledger after the end.
        self.await_report("its report is whole", |report| report.finished_at.is_none() || report.before.is_some())
    }

    /// The latest deployment, once it is as wanted.
    fn await_report(&self, what: &str, wanted: impl Fn(&DeploymentReport) -> bool) -> DeploymentReport {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let list = self.daemon.request(DeploymentsParams { name: Some("judged".to_owned()) }).expect("a list");
            let id = list.deployments.first().expect("there was one").id;
            let report = self.daemon.request(DeploymentParams { id }).expect("a report");
            if wanted(&report) {
                return report;
            }
            assert!(Instant::now() < deadline, "{what}: {report:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn gates(&self) -> Vec<GateView> {
        self.daemon.app("judged").deployment.map(|deployment| deployment.gates).unwrap_or_default()
    }

    /// Waits for something that the gates show.
    fn await_gates(&self, wanted: impl Fn(&[GateView]) -> bool) -> Vec<GateView> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let gates = self.gates();
            if wanted(&gates) {
                return gates;
            }
            assert!(Instant::now() < deadline, "not as wanted: {gates:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn seen(gates: &[GateView]) -> u64 {
    gates.iter().find(|gate| gate.gate == "error_rate").map_or(0, |gate| gate.n)
}

/// A bad version is taken back by the gate `by`, with figures, and nobody was refused.
fn takes_itself_back(env: &str, by: &str) {
    takes_itself_back_from("canary", "", env, by);
}

fn takes_itself_back_from(strategy: &str, before: &str, env: &str, by: &str) {
    let judged = Judged::start_as(before);
    let load = Load::start(judged.port);
    load.await_answers(HISTORY);
    // Beside other tests on two processors: how long tasks take says nothing of a version that is not slower, and of one
    // that is it says so later.
    judged.configure(env, if by == "latency" { "gates = { n_min = 200 }" } else { "gates = { latency = \"off\" }" });
    let output = judged.daemon.ctl(&["upgrade", "judged", "--strategy", strategy]);
    load.nobody_was_refused(0);
    assert_eq!(output.code, Some(5), "{output:?}");
    let report = judged.report();
    assert_eq!(report.state, DeploymentState::RolledBack, "{report:?}");
    let why = report.why.as_deref().expect("it says why");
    assert!(why.starts_with(by) && why.contains("tasks, it was") && why.contains("evidence"), "{why}");
    let gate = report.gates.iter().find(|gate| gate.gate == by).expect("it is shown");
    assert_eq!(gate.verdict, GateVerdict::Rollback, "{gate:?}");
    assert_eq!(report.verdicts.last().map(|said| said.verdict), Some(GateVerdict::Rollback));
    assert!(!report.effects.is_empty(), "what it did is listed: {report:?}");
    assert!(output.stderr.contains("which the rollback does not undo"), "{}", output.stderr);
    assert_eq!(report.tasks.lost, 0, "nothing is lost");
    let app = judged.daemon.app("judged");
    assert!(app.ready == 2 && app.workers.iter().all(|worker| worker.generation == report.from_generation), "{app:?}");
}

#[test]
fn a_version_that_fails_every_tenth_task_takes_itself_back() {
    takes_itself_back("ERRORS = \"10\"", "error_rate");
}

#[test]
fn a_rolling_upgrade_to_a_version_that_fails_every_tenth_task_goes_back_as_well() {
    takes_itself_back_from("rolling", "", "ERRORS = \"10\"", "error_rate");
}

#[test]
fn a_version_that_is_half_as_slow_again_takes_itself_back() {
    takes_itself_back_from("canary", "SLOW = \"10\"", "SLOW = \"15\"", "latency");
}

#[test]
fn a_version_that_calls_three_times_as_many_tools_takes_itself_back() {
    takes_itself_back("TOOLS = \"3\"", "tool_calls");
}

#[test]
fn a_good_version_passes_all_gates_and_its_report_tells_both_versions() {
    let judged = Judged::start();
    let load = Load::start(judged.port);
    load.await_answers(HISTORY);
    // Beside six other tests on two processors: how long tasks take says nothing of the version.
    let output = judged.upgrade("GOOD = \"1\"", "gates = { latency = \"off\" }");
    load.nobody_was_refused(0);
    assert_eq!(output.code, Some(0), "{output:?}");
    let report = judged.report();
    assert_eq!((report.state, report.tasks.lost), (DeploymentState::Done, 0), "{report:?}");
    assert!(report.verdicts.iter().any(|said| said.verdict == GateVerdict::Promote), "{report:?}");
    let names: Vec<&str> = report.stages.iter().map(|stage| stage.name.as_str()).collect();
    let through = ["raising", "verifying", "sharing", "raising", "verifying", "sharing", "warm", "retiring"];
    assert_eq!(names, through);
    let (before, after) = (report.before.expect("the old version's"), report.after.expect("the new one's"));
    assert!(before.n >= HISTORY && after.n >= 60, "{before:?} {after:?}");
    let off = report.gates.iter().find(|gate| gate.gate == "latency").expect("it is shown");
    assert_eq!(off.verdict, GateVerdict::Off);
    let context = report.gates.iter().find(|gate| gate.gate == "context").expect("it is shown");
    assert_eq!(context.verdict, GateVerdict::NotEvaluated, "nobody tells of it");
}

#[test]
fn too_few_tasks_hold_and_say_what_is_missing_and_a_person_may_go_on() {
    let judged = Judged::start();
    let load = Load::start(judged.port);
    load.await_answers(20);
    load.nobody_was_refused(0);
    judged.configure("GOOD = \"1\"", "");
    judged.daemon.ctl_ok(&["upgrade", "judged", "--no-wait"]);
    let document = judged.daemon.wait_until(PATIENCE, |document| {
        let why = document.apps[0].deployment.as_ref().and_then(|deployment| deployment.why.as_deref());
        why.is_some_and(|why| why.contains("50 are needed to compare with"))
    });
    let deployment = document.apps[0].deployment.as_ref().expect("it runs");
    assert_eq!((deployment.percent, deployment.state), (Some(50), DeploymentState::Running));
    for _ in 0..2 {
        judged.daemon.ctl_ok(&["promote", "judged"]);
        judged.daemon.wait_until(PATIENCE, |document| {
            document.apps[0].deployment.as_ref().is_none_or(|deployment| deployment.percent == Some(100))
        });
    }
    judged.daemon.wait_until(PATIENCE, |document| document.apps[0].deployment.is_none());
    assert_eq!(judged.report().state, DeploymentState::Done);
}

#[test]
fn the_next_supervisor_goes_on_with_the_evidence_of_the_one_that_was_killed() {
    let mut judged = Judged::start();
    let load = Load::start(judged.port);
    load.await_answers(HISTORY);
    // It holds for want of tasks until we say so.
    judged.configure("GOOD = \"1\"", "gates = { latency = \"off\", n_min = 100000 }");
    judged.daemon.ctl_ok(&["upgrade", "judged", "--no-wait"]);
    judged.await_gates(|gates| seen(gates) >= 40);
    load.nobody_was_refused(0);
    let (mut before, mut still) = (seen(&judged.gates()), 0);
    while still < 3 {
        std::thread::sleep(Duration::from_millis(150));
        let now = seen(&judged.gates());
        still = if now == before { still + 1 } else { 0 };
        before = now;
    }
    judged.daemon.kill();
    judged.daemon.start_again();
    let gates = judged.await_gates(|gates| seen(gates) > 0);
    assert_eq!(seen(&gates), before, "nothing is lost and nothing counted twice");
    judged.daemon.ctl_ok(&["abort", "judged"]);
    judged.daemon.wait_until(PATIENCE, |document| document.apps[0].deployment.is_none());
    let report = judged.report();
    assert_eq!((report.state, report.to_generation), (DeploymentState::Aborted, 2));
    assert_eq!(seen(&report.gates), before, "and its report has them");
}
