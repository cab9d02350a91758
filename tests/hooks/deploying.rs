//! Hooks of deployments: what must succeed before they begin or go on, and what is told after.

use std::path::PathBuf;
use std::time::Instant;

use agentd_protocol::control::{DeploymentList, DeploymentReport, HookState};
use agentd_protocol::status::DeploymentState;
use agentd_testkit::e2e::Daemon;

use crate::PATIENCE;

/// A daemon with the app `web` of two workers that hold nothing, and these lines in its table.
fn started(more: &str) -> Daemon {
    let daemon = Daemon::start(crate::AGENTD);
    daemon.config("web.toml", &table(more));
    daemon.ctl_ok(&["start", "./web.toml"]);
    daemon
}

fn table(more: &str) -> String {
    format!("[agent.web]\ncommand = [\"sleep\", \"1000\"]\nworkers = 2\nreload = {{ settle = \"0s\" }}\n{more}")
}

fn hook(on: &str, script: &str) -> String {
    format!("[[agent.web.hooks]]\non = \"{on}\"\ncommand = [\"sh\", \"-c\", {script:?}]\n")
}

/// The report of the latest deployment, once it is as wanted.
fn report(daemon: &Daemon, wanted: impl Fn(&DeploymentReport) -> bool) -> DeploymentReport {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let list: DeploymentList = daemon.ctl_ok(&["deployments", "--json"]).json();
        if let Some(latest) = list.deployments.first() {
            let report: DeploymentReport = daemon.ctl_ok(&["deployment", &latest.id.to_string(), "--json"]).json();
            if wanted(&report) {
                return report;
            }
        }
        assert!(Instant::now() < deadline, "no report is as wanted: {list:#?}\n{}", daemon.log());
    }
}

/// For what hooks ran, at which percent, and what became of them.
fn runs(report: &DeploymentReport) -> Vec<(&str, Option<u8>, HookState)> {
    report.hooks.iter().map(|run| (run.on.as_str(), run.percent, run.state)).collect()
}

fn pids(daemon: &Daemon) -> Vec<Option<u32>> {
    daemon.app("web").workers.iter().map(|worker| worker.pid).collect()
}

fn await_file(path: &PathBuf) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Ok(text) = std::fs::read_to_string(path)
            && text.ends_with('\n')
        {
            return text;
        }
        assert!(Instant::now() < deadline, "{} is written", path.display());
        std::thread::yield_now();
    }
}

#[test]
fn a_deployment_waits_for_the_hooks_before_it_and_its_report_keeps_what_all_of_them_said() {
    let hooks = [
        hook("before_deployment", "echo from $AGENTD_DEPLOYMENT_FROM by $AGENTD_DEPLOYMENT_KIND; cat > given"),
        hook("before_deployment", "test -s given && echo second"),
        hook("deployed", "echo told of $AGENTD_DEPLOYMENT"),
    ];
    let daemon = started(&hooks.concat());
    let before = pids(&daemon);
    daemon.ctl_ok(&["reload", "web"]);
    assert!(pids(&daemon).iter().all(|pid| !before.contains(pid)), "both are new");
    let report = report(&daemon, |report| report.hooks.len() == 3 && report.hooks[2].state == HookState::Done);
    assert_eq!(report.stages[0].name, "preparing");
    let done = |on| (on, None, HookState::Done);
    assert_eq!(runs(&report), [done("before_deployment"), done("before_deployment"), done("deployed")]);
    let said: Vec<&str> = report.hooks.iter().flat_map(|run| &run.output).map(String::as_str).collect();
    assert_eq!(said, ["from g1 by reload", "second", &format!("told of {}", report.id)]);
    let given = std::fs::read_to_string(daemon.home.path().join("given")).expect("it was given the report");
    let given: DeploymentReport = serde_json::from_str(&given).expect("the report as JSON");
    assert_eq!((given.id, given.hooks[0].state), (report.id, HookState::Running), "it was written down before it ran");
    let text = daemon.ctl_ok(&["deployment", &report.id.to_string()]).stdout;
    assert!(text.contains("before_deployment") && text.contains("│ second"), "{text}");
}

#[test]
fn a_hook_that_fails_before_a_deployment_ends_it_before_anybody_was_started() {
    let daemon = started(&hook("before_deployment", "echo no database; exit 3"));
    let before = pids(&daemon);
    let refused = daemon.ctl(&["reload", "web"]);
    assert_eq!(refused.code, Some(5), "{refused:#?}");
    assert!(refused.stderr.contains("exited with status 3: no database"), "{refused:#?}");
    assert_eq!(pids(&daemon), before, "nobody was started, nobody ended");
    let report = report(&daemon, |report| report.finished_at.is_some());
    assert_eq!(report.state, DeploymentState::RolledBack);
    let stages: Vec<&str> = report.stages.iter().map(|stage| stage.name.as_str()).collect();
    assert_eq!(stages, ["preparing", "back"]);
    // What holds nothing new asks nobody.
    daemon.ctl_ok(&["restart", "web"]);
}

#[test]
fn a_hook_before_a_stage_of_a_canary_holds_its_share_of_connections_back() {
    let upgrade = "upgrade = { strategy = \"canary\", steps = [50, 100], dwell = \"0s\", stability = \"0s\", judged_by = \"time\" }\n";
    let before = hook("before_stage", "echo to $AGENTD_DEPLOYMENT_PERCENT; test $AGENTD_DEPLOYMENT_PERCENT = 50");
    let daemon = started(&format!("{upgrade}{before}{}", hook("after_stage", "true")));
    let refused = daemon.ctl(&["upgrade", "web"]);
    assert_eq!(refused.code, Some(5), "{refused:#?}");
    assert!(refused.stderr.contains("exited with status 1: to 100"), "{refused:#?}");
    let report = report(&daemon, |report| {
        report.finished_at.is_some() && report.hooks.iter().all(|run| run.state != HookState::Running)
    });
    let mut seen = runs(&report);
    // Nobody waits for what comes after: it may end at any time.
    seen.sort_by_key(|&(on, percent, _)| (percent, on == "after_stage"));
    assert_eq!(
        seen,
        [
            ("before_stage", Some(50), HookState::Done),
            ("after_stage", Some(50), HookState::Done),
            ("before_stage", Some(100), HookState::Failed),
        ]
    );
    let most = report.stages.iter().filter_map(|stage| stage.percent).max();
    assert_eq!(most, Some(50), "{:#?}", report.stages);
}

#[test]
fn each_share_of_a_canary_and_the_switch_of_a_blue_green_deployment_is_told_once() {
    let keys = "steps = [50, 100], dwell = \"0s\", stability = \"0s\", judged_by = \"time\"";
    let stage = hook("after_stage", "echo $AGENTD_DEPLOYMENT_PERCENT");
    let daemon = started(&format!("upgrade = {{ {keys} }}\n{stage}"));
    for (strategy, shares) in [("canary", ["50", "100"].as_slice()), ("blue-green", &["100"])] {
        daemon.ctl_ok(&["upgrade", "web", "--strategy", strategy]);
        let over = |report: &DeploymentReport| report.hooks.iter().all(|run| run.state == HookState::Done);
        let report = report(&daemon, |report| report.hooks.len() >= shares.len() && over(report));
        let said: Vec<&str> = report.hooks.iter().flat_map(|run| &run.output).map(String::as_str).collect();
        assert_eq!(said, shares, "{strategy}");
    }
}

#[test]
fn a_hook_that_ran_under_a_killed_supervisor_is_run_once_more_and_told_so_and_one_that_was_done_is_not() {
    let once = hook("before_deployment", "echo >> first");
    let held = "test $AGENTD_HOOK_AGAIN = 1 && exit 0; echo $$ > held; sleep 1000";
    let mut daemon = started(&format!("{once}{}", hook("before_deployment", held)));
    daemon.ctl_ok(&["reload", "web", "--no-wait"]);
    let pid = await_file(&daemon.home.path().join("held"));
    let why = daemon.app("web").deployment.and_then(|deployment| deployment.why).unwrap_or_default();
    assert!(why.contains("waits for its before_deployment hook sh"), "{why}");
    daemon.kill();
    daemon.start_again();
    let report = report(&daemon, |report| report.finished_at.is_some());
    assert_eq!(report.state, DeploymentState::Done, "{report:#?}");
    let states: Vec<HookState> = report.hooks.iter().map(|run| run.state).collect();
    assert_eq!(states, [HookState::Done, HookState::Cut, HookState::Done]);
    assert_eq!(std::fs::read_to_string(daemon.home.path().join("first")).expect("it ran"), "\n", "once");
    let deadline = Instant::now() + PATIENCE;
    while std::path::Path::new("/proc").join(pid.trim()).join("cwd").exists() {
        assert!(Instant::now() < deadline, "what the dead supervisor ran is gone");
    }
}

#[test]
fn a_paused_deployment_takes_no_step_when_its_hook_succeeds_and_goes_on_once_it_may() {
    let daemon = started(&hook("before_deployment", "until [ -e go ]; do sleep 0.02; done"));
    let before = pids(&daemon);
    daemon.ctl_ok(&["reload", "web", "--no-wait"]);
    daemon.ctl_ok(&["pause", "web"]);
    daemon.config("go", "");
    let paused = report(&daemon, |report| report.hooks.iter().any(|run| run.state == HookState::Done));
    assert_eq!((paused.state, paused.stages.len()), (DeploymentState::Paused, 1), "{paused:#?}");
    assert_eq!(pids(&daemon), before);
    daemon.ctl_ok(&["resume", "web"]);
    let done = report(&daemon, |report| report.finished_at.is_some());
    assert_eq!((done.state, runs(&done).len()), (DeploymentState::Done, 1), "it ran once: {done:#?}");
}

#[test]
fn aborting_a_deployment_ends_the_hook_that_it_waits_for() {
    let daemon = started(&hook("before_deployment", "echo $$ > held; sleep 1000"));
    daemon.ctl_ok(&["reload", "web", "--no-wait"]);
    let pid = await_file(&daemon.home.path().join("held"));
    daemon.ctl_ok(&["abort", "web"]);
    let report = report(&daemon, |report| {
        report.finished_at.is_some() && report.hooks.iter().all(|run| run.state != HookState::Running)
    });
    assert_eq!(
        (report.state, runs(&report)),
        (DeploymentState::Aborted, vec![("before_deployment", None, HookState::Cut)])
    );
    let deadline = Instant::now() + PATIENCE;
    while std::path::Path::new("/proc").join(pid.trim()).join("cwd").exists() {
        assert!(Instant::now() < deadline, "it is ended");
    }
}

#[test]
fn a_refresh_that_failed_is_told() {
    let daemon = started(&format!(
        "refresh = {{ signal = \"SIGHUP\" }}\n{}",
        hook("refresh_failed", "echo $AGENTD_EVENT_WHY > told")
    ));
    assert_eq!(daemon.ctl(&["refresh", "web"]).code, Some(1), "sleep does not handle the signal");
    assert!(await_file(&daemon.home.path().join("told")).contains("SIGHUP"));
}
