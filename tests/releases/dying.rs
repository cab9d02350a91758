//! The supervisor dies while a release is cut, recorded or named: nothing is left behind, and the next one goes on with the
//! upgrade under its number.

use std::time::Duration;

use agentd_protocol::control::{Changed, DeploymentsParams, ReleasesParams};
use agentd_protocol::status::{CuttingView, DeploymentState};

use crate::site::{PATIENCE, Site, assert_code, eventually};

fn cutting(site: &Site) -> Option<CuttingView> {
    site.daemon.request(ReleasesParams { name: "search".to_owned() }).expect("a list").cutting
}

/// What the upgrade brings serves, as the only deployment there was, and nothing else of it is there.
fn went_on(site: &Site) {
    eventually("the next daemon goes on with it", || site.says() == "two");
    let deployments = || site.daemon.request(DeploymentsParams { name: None }).expect("a list").deployments;
    eventually("it is over", || deployments().first().is_some_and(|one| one.finished_at.is_some()));
    let deployments = deployments();
    assert!(deployments.len() == 1 && deployments[0].state == DeploymentState::Done, "{deployments:#?}");
    site.assert_nothing_else();
}

#[test]
fn a_daemon_that_is_killed_while_a_build_runs_leaves_neither_folder_nor_process_and_the_next_one_builds_again() {
    let mut site = Site::started();
    let told = site.path("told");
    let script = format!("echo $$ >> {0}; test $(wc -l < {0}) -gt 1 || sleep 1000", told.display());
    site.source("1.1.0", "two", &format!("build = {{ command = [\"sh\", \"-c\", {script:?}] }}"));
    let asked = site.daemon.ctl_ok(&["upgrade", "search", "--no-wait", "--json"]).json::<Changed>();
    let pid = || std::fs::read_to_string(&told).ok().filter(|pid| pid.ends_with('\n'));
    eventually("the build runs", || pid().is_some());
    assert_eq!(cutting(&site).map(|cutting| cutting.operation), asked.operations.first().map(|operation| operation.id));
    assert_eq!(site.daemon.app("search").cutting, cutting(&site), "it is in the status, too");
    site.daemon.kill();
    // Without a daemon: the process that cuts sees by itself that nobody waits for it.
    eventually("nothing of the cut is left", || site.folders().len() == 1);
    let build = pid().expect("it told its number");
    eventually("its build is gone", || !std::path::Path::new("/proc").join(build.trim()).join("cwd").exists());
    assert_eq!(site.says(), "one");
    site.daemon.start_again();
    went_on(&site);
    let done = site.daemon.request(DeploymentsParams { name: None }).expect("a list").deployments;
    assert_eq!(Some(done[0].id), asked.operations.first().map(|operation| operation.id), "under its number");
}

#[test]
fn an_upgrade_that_is_being_cut_ends_with_the_daemon_that_is_told_to_end_and_can_be_aborted() {
    let mut site = Site::started();
    site.source("1.1.0", "two", "build = { command = [\"sleep\", \"1000\"] }");
    let told = |site: &Site, words: &str| {
        let events = site.daemon.ctl_ok(&["events", "-n", "200"]).stdout;
        assert!(events.contains(&format!("no release of search was cut: failed to go on: {words}")), "{events}");
    };
    site.daemon.ctl_ok(&["upgrade", "search", "--no-wait"]);
    site.daemon.ctl_ok(&["abort", "search"]);
    told(&site, "it was aborted");
    site.daemon.kill();
    site.daemon.start_again();
    assert_eq!(cutting(&site), None, "nobody wants it any more");
    assert_eq!(site.daemon.app("search").cutting, None);
    site.daemon.ctl_ok(&["upgrade", "search", "--no-wait"]);
    site.daemon.ctl_ok(&["daemon", "stop"]);
    assert_eq!(site.daemon.await_end(PATIENCE), Some(0));
    site.daemon.start_again();
    told(&site, "the daemon is ending");
    assert_eq!(cutting(&site), None, "nobody wants it any more");
    eventually("what ran runs again", || site.daemon.app("search").ready == 2);
    site.assert_nothing_else();
}

#[test]
fn deleting_an_app_ends_its_cut_and_its_name_is_free() {
    let site = Site::started();
    site.source("1.1.0", "two", "build = { command = [\"sleep\", \"1000\"] }");
    site.daemon.ctl_ok(&["upgrade", "search", "--no-wait"]);
    site.daemon.ctl_ok(&["delete", "search"]);
    let events = site.daemon.ctl_ok(&["events", "-n", "200"]).stdout;
    assert!(events.contains("no release of search was cut: failed to go on: the app was deleted"), "{events}");
    site.source("1.2.0", "three", "");
    site.daemon.ctl_ok(&["start", "./site.toml"]);
    assert_eq!(site.says(), "three");
}

#[test]
fn an_upgrade_that_finds_its_configuration_broken_says_where() {
    let mut site = Site::started();
    site.source("1.1.0", "two", "build = { command = [\"sleep\", \"1000\"] }");
    site.daemon.ctl_ok(&["upgrade", "search", "--no-wait"]);
    site.daemon.kill();
    site.configure("worker = 3");
    site.daemon.start_again();
    let events = site.daemon.ctl_ok(&["events", "-n", "200"]).stdout;
    assert!(events.contains("site.toml:") && events.contains("unknown key `worker`"), "{events}");
}

#[test]
fn an_upgrade_over_which_three_supervisors_ended_is_told_as_failed_and_the_next_one_is_cut() {
    let mut site = Site::started();
    site.source("1.1.0", "two", "build = { command = [\"sleep\", \"1000\"] }");
    site.daemon.ctl_ok(&["upgrade", "search", "--no-wait"]);
    for ended in 1..=3 {
        site.daemon.kill();
        site.daemon.start_again();
        assert_eq!(cutting(&site).is_some(), ended < 3, "{ended} ended over it");
    }
    let events = site.daemon.ctl_ok(&["events", "-n", "200"]).stdout;
    assert!(events.contains("no release of search was cut: 3 supervisors ended over it"), "{events}");
    site.source("1.1.0", "two", "");
    assert_code(&site.upgrade(&[]), 0);
    assert_eq!(site.says(), "two");
    site.assert_nothing_else();
}

#[test]
fn a_daemon_that_is_upgraded_in_place_while_a_build_runs_builds_again() {
    let site = Site::started();
    let told = site.path("told");
    let script = format!("echo $$ >> {0}; test $(wc -l < {0}) -gt 1 || sleep 1000", told.display());
    site.source("1.1.0", "two", &format!("build = {{ command = [\"sh\", \"-c\", {script:?}] }}"));
    site.daemon.ctl_ok(&["upgrade", "search", "--no-wait"]);
    eventually("the build runs", || told.exists());
    site.daemon.ctl_ok(&["daemon", "upgrade"]);
    went_on(&site);
}

#[test]
fn a_daemon_that_dies_between_recording_and_naming_a_release_leaves_nothing() {
    for point in ["recorded:1", "named:1"] {
        let mut site = Site::started();
        site.daemon.kill();
        assert!(!site.daemon.start_doomed(point, Duration::ZERO), "it dies when something is installed");
        site.source("1.1.0", "two", "");
        assert_ne!(site.upgrade(&[]).code, Some(0), "{point}");
        assert!(site.daemon.died_within(PATIENCE), "{point}");
        assert_eq!(site.says(), "one", "{point}");
        site.daemon.start_again();
        went_on(&site);
    }
}

#[test]
fn what_is_cut_on_while_the_next_daemon_looks_is_removed_once_its_process_is_ended() {
    let mut site = Site::started();
    let instance = site.daemon.instance().to_owned();
    // A mark that only a daemon of the past gave.
    let mark = 1_u64 << 63;
    let folder = site.path("state/releases/search").join(format!(".cut-1-{mark}"));
    site.daemon.kill();
    let script = "import os, sys, time\nuntil = time.monotonic() + 120\n\
                  while time.monotonic() < until: os.makedirs(sys.argv[1], exist_ok=True)\n";
    let mut cutter = std::process::Command::new("python3")
        .args(["-c", script])
        .arg(&folder)
        .envs([("AGENTD_INSTANCE", &instance), ("AGENTD_LAUNCH", &mark.to_string())])
        .spawn()
        .expect("python3 is there");
    eventually("it cuts", || folder.exists());
    site.daemon.start_again();
    eventually("it is ended", || cutter.try_wait().expect("it is our child").is_some());
    site.assert_nothing_else();
}

#[test]
fn what_a_daemon_finds_and_nobody_recorded_is_removed_and_what_is_gone_is_forgotten() {
    let mut site = Site::started();
    site.source("1.1.0", "two", "");
    assert_code(&site.upgrade(&[]), 0);
    let old = site.releases().into_iter().find(|release| !release.serving).expect("the first one");
    site.daemon.kill();
    for name in ["9.9.9+deadbeef", ".cut-1-1", ".gone-1-2.0.0+deadbeef", "stray"] {
        std::fs::create_dir_all(site.path("state/releases/search").join(name).join("deep/down")).expect("it is ours");
    }
    std::fs::create_dir_all(site.path("state/releases/nobody/1.0.0+deadbeef")).expect("it is ours");
    std::fs::remove_dir_all(&old.folder).expect("it is ours");
    site.daemon.start_again();
    assert_eq!(site.releases().len(), 1);
    site.assert_nothing_else();
    eventually("nobody's folder is gone", || !site.path("state/releases/nobody").exists());
    assert_eq!(site.says(), "two");
}

#[test]
fn a_disk_that_is_full_in_the_middle_of_a_cut_is_told_and_leaves_nothing() {
    let site = Site::started();
    let (staging, order) = (site.path("small/cut"), site.path("order"));
    std::fs::create_dir(site.path("small")).expect("it is ours");
    let bytes = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect::<Vec<u8>>();
    std::fs::write(site.path("src/large"), bytes).expect("it is ours");
    let line = serde_json::json!({
        "app": "search", "manifest": "skill.toml", "source": site.path("src"), "sha256": null, "staging": staging,
        "wanted": {"release": {"have": [], "build_log": site.path("log")}},
        "limits": {"bytes": 1_u64 << 30, "entries": 1000}, "env": {"PATH": std::env::var("PATH").expect("there is one")},
    });
    std::fs::write(&order, format!("{line}\n")).expect("it is ours");
    let run = |setup: &str| {
        let script = format!(
            "{setup} (cat {}; sleep 1000 & echo $! >&2; wait) | {{ {} cut; }}",
            order.display(),
            crate::site::AGENTD
        );
        let script = script.replace("sleep 1000 & echo $! >&2; wait", "cat");
        let mut command = std::process::Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", &script]).stdin(std::process::Stdio::piped());
        let output = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn();
        let mut child = output.expect("unshare runs");
        // Held open: whoever waits for the report is there.
        let held = child.stdin.take();
        let mut said = String::new();
        let mut stdout = std::io::BufReader::new(child.stdout.take().expect("it is piped"));
        std::io::BufRead::read_line(&mut stdout, &mut said).expect("it reports");
        drop(held);
        let mut errors = String::new();
        std::io::Read::read_to_string(&mut child.stderr.take().expect("it is piped"), &mut errors).expect("it ends");
        child.wait().expect("it ends");
        assert!(said.contains("failed"), "{said} {errors}");
        said
    };
    let small = site.path("small");
    let full = run(&format!("mount -t tmpfs -o size=4m none {} &&", small.display()));
    assert!(full.contains("make room for"), "looked at beforehand: {full}");
    let limited = run("ulimit -f 2000;");
    assert!(limited.contains("File too large"), "{limited}");
    assert!(!staging.exists(), "nothing is left");
}
