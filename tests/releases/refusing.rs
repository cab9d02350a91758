//! Everything that is refused: nothing changes, and nothing is left behind.

use std::os::unix::fs::symlink;

use agentd_protocol::control::{Changed, OperationState};
use agentd_testkit::e2e::{Load, Mix, processes_with};

use crate::site::{PATIENCE, Site, assert_code, eventually};

#[test]
fn a_link_that_leaves_its_source_a_pipe_and_a_setuid_program_are_refused() {
    let site = Site::started();
    for target in ["/etc/passwd", "../site.toml", "a/../../x"] {
        symlink(target, site.path("src/link")).expect("it is ours");
        let said = site.assert_refused(&[]);
        assert!(said.contains("link that leaves") && said.contains(".agentdignore"), "{target}: {said}");
        std::fs::remove_file(site.path("src/link")).expect("it is ours");
    }
    nix::unistd::mkfifo(&site.path("src/pipe"), nix::sys::stat::Mode::S_IRWXU).expect("it is ours");
    assert!(site.assert_refused(&[]).contains("a device, a pipe or a socket"));
    site.write("src/.agentdignore", "pipe\n");
    site.write("src/program", "");
    let setuid = std::os::unix::fs::PermissionsExt::from_mode(0o4755);
    std::fs::set_permissions(site.path("src/program"), setuid).expect("it is ours");
    assert!(site.assert_refused(&[]).contains("setuid"));
    site.write("src/.agentdignore", "pipe\nprogram\n");
    assert_code(&site.upgrade(&[]), 0);
}

#[test]
fn what_is_too_large_or_too_much_is_refused() {
    let site = Site::new();
    site.configure("releases = { max_size = \"1M\", max_files = 50 }");
    site.daemon.ctl_ok(&["start", "./site.toml"]);
    std::fs::write(site.path("src/large"), vec![7; 2 << 20]).expect("it is ours");
    assert!(site.assert_refused(&[]).contains("releases.max_size"));
    std::fs::remove_file(site.path("src/large")).expect("it is ours");
    for number in 0..60 {
        site.write(&format!("src/{number}"), "");
    }
    assert!(site.assert_refused(&[]).contains("releases.max_files"));
}

#[test]
fn a_manifest_with_a_mistake_or_of_another_app_is_refused_with_its_line() {
    let site = Site::started();
    site.source("1.1.0", "two", "bulid = { command = [\"make\"] }");
    let said = site.assert_refused(&[]);
    assert!(said.contains("skill.toml:4") && said.contains("did you mean `build`"), "{said}");
    site.write("src/skill.toml", "name = \"billing\"\ncommand = [\"python3\", \"server.py\"]\n");
    assert!(site.assert_refused(&[]).contains("\"billing\""));
    site.write("src/skill.toml", "name = \"search\"\n");
    assert!(site.assert_refused(&[]).contains("there is no command"));
    site.write("src/skill.toml", "command = [\"python3\", \"{port:grpc}\"]\n");
    assert!(site.assert_refused(&[]).contains("grpc"));
}

#[test]
fn a_source_that_is_not_there_is_refused() {
    let site = Site::started();
    assert!(site.assert_refused(&["--from", "nowhere"]).contains("nowhere"));
    assert!(site.assert_refused(&["--from", "nowhere.tar.gz"]).contains("nowhere.tar.gz"));
    assert!(site.assert_refused(&["--from", "git:nowhere"]).contains("git"));
    assert!(site.assert_refused(&["--from", "git:ext::sh -c touch% hooked"]).contains("git"));
    assert!(!site.path("hooked").exists());
    assert_code(&site.upgrade(&["--from", "git:--upload-pack=x"]), 4);
    assert_code(&site.upgrade(&["--from", "src", "--sha256", "00"]), 2);
    site.daemon.config("plain.toml", "[agent.plain]\ncommand = [\"sleep\", \"1000\"]\n");
    site.daemon.ctl_ok(&["start", "./plain.toml"]);
    assert_code(&site.daemon.ctl(&["upgrade", "plain", "--from", "src"]), 2);
    assert_code(&site.daemon.ctl(&["rollback", "plain"]), 4);
}

#[test]
fn a_build_that_fails_leaves_the_old_version_serving_and_shows_its_last_words() {
    let site = Site::started();
    let report = Load::run(site.port, Mix::fresh(4), || {
        site.source("1.1.0", "two", "build = { command = [\"sh\", \"-c\", \"echo no compiler; exit 3\"] }");
        let said = site.assert_refused(&[]);
        assert!(said.contains("exited with status 3") && said.contains("no compiler"), "{said}");
        assert!(said.contains("logs/build/search.log"), "{said}");
    });
    report.assert_none_lost();
    assert_eq!(site.says(), "one");
}

#[test]
fn a_build_that_hangs_is_ended_with_everything_that_it_started() {
    let site = Site::started();
    // It leaves its session, its parent and its environment behind.
    let script = "(setsid env -i PATH=$PATH sh -c 'echo $$ > '$AGENTD_TEST_PIDS'; exec sleep 1000' &) ; sleep 1000";
    let pids = site.path("pids");
    let keys = format!(
        "build = {{ command = [\"sh\", \"-c\", \"{script}\"], timeout = \"700ms\", env = {{ AGENTD_TEST_PIDS = {pids:?} }} }}"
    );
    site.source("1.1.0", "two", &keys);
    let said = site.assert_refused(&[]);
    assert!(said.contains("did not end within 700ms"), "{said}");
    let pid = std::fs::read_to_string(&pids).expect("it told its number");
    let gone = || !std::path::Path::new("/proc").join(pid.trim()).join("cwd").exists();
    eventually("what it started is gone", gone);
    let own = site.daemon.pid();
    let cuts = processes_with("AGENTD_LAUNCH", &u64::MAX.to_string());
    assert!(cuts.iter().all(|pid| *pid == own), "{cuts:?}");
}

#[test]
fn a_second_upgrade_is_denied_with_the_number_of_the_first_and_the_first_can_be_aborted() {
    let site = Site::started();
    let gate = site.path("gate");
    let script = format!("while [ ! -e {} ]; do sleep 0.01; done", gate.display());
    site.source("1.1.0", "two", &format!("build = {{ command = [\"sh\", \"-c\", {script:?}] }}"));
    let first = site.daemon.ctl_ok(&["upgrade", "search", "--no-wait", "--json"]).json::<Changed>();
    let id = first.operations[0].id;
    let second = site.upgrade(&[]);
    assert_code(&second, 4);
    assert!(second.stderr.contains(&format!("deployment {id} of search is running")), "{second:#?}");
    assert_code(&site.daemon.ctl(&["rollback", "search"]), 4);
    site.daemon.ctl_ok(&["abort", "search"]);
    eventually("nothing of it is left", || site.folders().len() == 1);
    assert_eq!((site.says(), site.releases().len()), ("one".to_owned(), 1));
    // Nothing stands in the way of the next one, which is told of by its own number.
    let third = site.daemon.ctl_ok(&["upgrade", "search", "--no-wait", "--json"]).json::<Changed>();
    std::fs::write(&gate, "").expect("it is ours");
    let release = |document: &agentd_protocol::status::StatusDocument| document.apps[0].release.starts_with("1.1.0+");
    site.daemon.wait_until(PATIENCE, |document| release(document) && document.apps[0].deployment.is_none());
    let events = site.daemon.ctl_ok(&["events", "--json"]).stdout;
    let ended = events
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("an event"))
        .filter(|event| event["event"]["type"] == "operation_finished");
    let ended: Vec<serde_json::Value> = ended.collect();
    let state = |id: u64| {
        let end = ended.iter().find(|event| event["event"]["id"] == id).expect("it ended");
        serde_json::from_value::<OperationState>(end["event"]["state"].clone()).expect("a state")
    };
    assert_eq!(state(id), OperationState::Failed);
    assert_eq!(state(third.operations[0].id), OperationState::Done);
}

#[test]
fn the_first_release_of_an_app_that_cannot_be_cut_starts_nothing_of_its_file() {
    let site = Site::new();
    site.source("1.0.0", "one", "build = { command = [\"false\"] }");
    site.configure("[agent.other]\ncommand = [\"sleep\", \"1000\"]");
    for command in ["start", "apply"] {
        assert_code(&site.daemon.ctl(&[command, "./site.toml"]), 4);
        assert!(site.daemon.status().apps.is_empty());
    }
    eventually("no folder is left", || !site.path("state/releases/search").exists());
    site.source("1.0.0", "one", "");
    site.daemon.ctl_ok(&["apply", "./site.toml"]);
    assert_eq!(site.says(), "one");
}
