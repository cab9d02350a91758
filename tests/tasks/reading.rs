//! Releases that cannot read the checkpoints of open tasks: those stay where they are until they end, and are shown.

use std::fs;

use agentd_protocol::control::{DeploymentReport, TaskCounts};
use agentd_protocol::status::DeploymentState;
use agentd_testkit::e2e::{Daemon, Load, Mix, Output, Outside, free_port};
use serde_json::json;

use super::{AGENTD, PATIENCE, await_task, begin, ended, task, tasker};

/// Names tasks whose checkpoint has something in its `pad`.
const CHECK: &str = r#"
import json, sys
for line in sys.stdin:
    shown = json.loads(line)
    if shown["json"]["pad"]:
        print(shown["task"], "no field `pad` is known", sep="\t")
"#;

/// A daemon with an agent `work` that has releases, and the world outside.
struct Site {
    daemon: Daemon,
    outside: Outside,
}

impl Site {
    /// Version 1.0.0 serves; `keys` are further ones of its manifest.
    fn started(keys: &str) -> Self {
        Self::started_with(keys, "")
    }

    /// As [`Self::started`], with `more` lines of configuration.
    fn started_with(keys: &str, more: &str) -> Self {
        let site = Self { daemon: Daemon::start(AGENTD), outside: Outside::start() };
        let home = site.daemon.home.path();
        fs::create_dir(home.join("src")).expect("the home takes folders");
        fs::copy(tasker(), home.join("src/tasker.py")).expect("the sample worker is there");
        fs::write(home.join("src/check.py"), CHECK).expect("the home takes files");
        site.source("1.0.0", keys);
        let text = format!(
            "[agent.work]\nsource = \"src\"\nready = \"protocol\"\nenv = {{ TASKER_SOCKET = \"{}\" }}\n\
             upgrade = {{ min_uptime = \"10ms\", stability = \"100ms\" }}\n\
             grace = {{ default = \"500ms\", min = \"100ms\", max = \"1s\" }}\n{more}",
            home.join("t").display()
        );
        site.daemon.config("work.toml", &text);
        site.daemon.ctl_ok(&["start", "./work.toml"]);
        site
    }

    /// Writes what the next release is cut from.
    fn source(&self, version: &str, keys: &str) {
        let text = format!("version = \"{version}\"\ncommand = [\"python3\", \"tasker.py\"]\n{keys}\n");
        fs::write(self.daemon.home.path().join("src/agent.toml"), text).expect("the home takes files");
    }

    /// Begins a task that makes a checkpoint and does something outside at each of `steps`.
    fn begin(&self, task: &str, steps: u32, pad: u32) {
        let input = json!({"steps": steps, "pause": 0.05, "pad": pad, "ledger": self.outside.url()});
        begin(&self.daemon, "0.1", json!({"kind": "steps", "task": task, "input": input}));
        await_task(&self.daemon, task, |seen| seen.step >= Some(2));
    }

    fn upgrade(&self, strategy: &str) -> Output {
        self.daemon.ctl(&["upgrade", "work", "--strategy", strategy])
    }

    /// Waits until the deployment says that it waits for tasks.
    fn await_waiting(&self) -> String {
        let document = self.daemon.wait_until(PATIENCE, |document| {
            let why = document.apps[0].deployment.as_ref().and_then(|deployment| deployment.why.as_deref());
            why.is_some_and(|why| why.contains("until done"))
        });
        document.apps[0].deployment.as_ref().and_then(|deployment| deployment.why.clone()).expect("it says why")
    }

    /// The latest deployment.
    fn report(&self) -> DeploymentReport {
        let list = self.daemon.ctl_ok(&["deployments", "work", "--json"]);
        let list: agentd_protocol::control::DeploymentList = list.json();
        let id = list.deployments[0].id.to_string();
        self.daemon.ctl_ok(&["deployment", &id, "--json"]).json()
    }

    /// A task that stayed ended in the worker that began it, and did nothing twice.
    fn stayed(&self, id: &str) {
        let seen = await_task(&self.daemon, id, ended);
        assert_eq!((seen.why.as_deref(), seen.fence, seen.attempt), (Some("ok"), 1, 1), "{seen:?}");
        assert!(self.outside.posted().values().all(|&count| count == 1), "{:?}", self.outside.posted());
    }
}

#[test]
fn tasks_that_a_release_says_it_cannot_read_stay_with_the_old_one_and_the_others_go_on_in_it() {
    let site = Site::started("");
    site.begin("padded", 50, 3);
    site.begin("plain", 50, 0);
    site.source("1.1.0", "check = [\"python3\", \"check.py\"]");
    let plan = site.daemon.ctl_ok(&["upgrade", "work", "--dry-run"]).stdout;
    assert!(plan.contains("2 open checkpoints, its check tells, before the cut-over"), "{plan}");
    site.daemon.ctl_ok(&["upgrade", "work", "--no-wait"]);
    let why = site.await_waiting();
    assert!(why.starts_with("1 task stays with 1.0.0+") && why.contains(": 1.1.0+"), "{why}");
    let stays = task(&site.daemon, "padded").why.expect("it is said");
    assert!(stays.starts_with("stays where it is"), "{stays}");
    let releases = site.daemon.ctl_ok(&["releases", "work"]).stdout;
    assert!(releases.lines().any(|line| line.starts_with("1.0.0") && line.contains("1 task stays")), "{releases}");
    assert_eq!(site.outside.posted().get("padded:end"), None, "it is not done yet");
    let plain = await_task(&site.daemon, "plain", ended);
    assert_eq!((plain.why.as_deref(), plain.fence), (Some("ok"), 2), "it went over: {plain:?}");
    site.stayed("padded");
    site.daemon.wait_until(PATIENCE, |document| document.apps[0].deployment.is_none());
    let report = site.report();
    assert_eq!(
        (report.state, report.tasks),
        (DeploymentState::Done, TaskCounts { finished: 1, handed_over: 1, lost: 0 })
    );
    let seen = report.checkpoints.expect("it was looked at");
    assert_eq!((seen.open, seen.shown, seen.unread), (2, 2, 1), "{seen:?}");
    assert_eq!((seen.tasks[0].task.as_str(), seen.tasks[0].why.as_str()), ("padded", "no field `pad` is known"));
    let text = site.daemon.ctl_ok(&["deployment", &report.id.to_string()]).stdout;
    assert!(text.contains("2 open, 2 shown to its check, 1 not read by 1.1.0"), "{text}");
}

#[test]
fn no_request_is_refused_while_a_deployment_waits_for_tasks_that_its_release_cannot_read() {
    for strategy in ["rolling", "blue-green"] {
        let port = free_port();
        let site = Site::started_with("state_version = 2", &format!("listen = \"127.0.0.1:{port}\"\n"));
        site.begin("newer", 80, 0);
        site.source("1.1.0", "state_version = 1");
        let load = Load::run(port, Mix::fresh(4), || {
            let output = site.upgrade(strategy);
            assert_eq!(output.code, Some(0), "{output:?}");
        });
        load.assert_none_lost();
        site.stayed("newer");
        let report = site.report();
        assert_eq!((report.state, report.tasks.lost), (DeploymentState::Done, 0), "{report:?}");
        assert_eq!(report.checkpoints.map(|seen| seen.unread), Some(1));
    }
}

#[test]
fn a_release_of_an_older_state_version_takes_over_when_the_tasks_of_the_newer_one_are_done() {
    for strategy in ["recreate", "blue-green"] {
        let site = Site::started("state_version = 2");
        site.begin("newer", 80, 0);
        site.source("1.1.0", "state_version = 1");
        let plan = site.daemon.ctl_ok(&["upgrade", "work", "--dry-run"]).stdout;
        assert!(plan.contains("1 newer than it reads, whose tasks stay with the old generation"), "{plan}");
        let output = site.upgrade(strategy);
        assert_eq!(output.code, Some(0), "{output:?}");
        site.stayed("newer");
        let report = site.report();
        assert_eq!(report.tasks, TaskCounts { finished: 1, handed_over: 0, lost: 0 }, "{report:?}");
        let seen = report.checkpoints.expect("it was looked at");
        assert!(seen.tasks.iter().all(|unread| unread.why.contains("state_version 2")), "{seen:?}");
    }
}

#[test]
fn the_next_supervisor_waits_for_them_as_well() {
    let mut site = Site::started("state_version = 2");
    site.begin("newer", 60, 0);
    site.source("1.1.0", "state_version = 1");
    site.daemon.ctl_ok(&["upgrade", "work", "--no-wait"]);
    site.await_waiting();
    site.daemon.kill();
    site.daemon.start_again();
    site.await_waiting();
    site.stayed("newer");
    site.daemon.wait_until(PATIENCE, |document| document.apps[0].deployment.is_none());
    assert_eq!(site.report().state, DeploymentState::Done);
}

#[test]
fn a_check_that_fails_takes_the_deployment_back_before_anybody_was_started() {
    let site = Site::started("");
    site.begin("open", 40, 0);
    let before = site.daemon.app("work").workers[0].pid;
    for (check, words) in [
        ("[\"sh\", \"-c\", \"echo no module named work >&2; exit 3\"]", "exited with status 3: no module named work"),
        ("[\"echo\", \"somebody\"]", "which is no task that it was shown"),
        ("[\"no-such-program\"]", "could not run"),
    ] {
        site.source("1.1.0", &format!("check = {check}"));
        let output = site.upgrade("rolling");
        assert_eq!(output.code, Some(5), "{output:?}");
        assert!(output.stderr.contains(words), "{words}: {}", output.stderr);
        let names: Vec<String> = site.report().stages.into_iter().map(|stage| stage.name).collect();
        assert_eq!(names, ["checking", "back"]);
    }
    assert_eq!(site.daemon.app("work").workers[0].pid, before, "the old one serves as if nothing had been");
    site.stayed("open");
}
