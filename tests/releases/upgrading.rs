//! The good ways: from a folder, an archive, a git reference; dry runs; the way back; addresses that stay.

use std::process::Command;
use std::time::Instant;

use agentd_protocol::control::{DeploymentsParams, PlannedRun, ReleaseState, UpgradePlan};
use agentd_protocol::events::EventKind;
use agentd_protocol::status::{Strategy, WorkerState};
use agentd_testkit::e2e::{Load, Mix};

use crate::site::{PATIENCE, Site, assert_code};

#[test]
fn an_app_with_a_source_runs_from_its_release_and_not_from_its_source() {
    let site = Site::started();
    let answer = site.answer();
    let [text, release, folder] = answer.as_slice() else { panic!("{answer:?}") };
    assert_eq!(text, "one");
    assert!(
        release.starts_with("1.0.0+") && folder.ends_with(&format!("state/releases/search/{release}")),
        "{answer:?}"
    );
    let app = site.daemon.app("search");
    assert!(app.release == *release && app.workers.iter().all(|worker| worker.release == *release), "{app:#?}");
    site.write("src/text", "written in between");
    site.daemon.ctl_ok(&["reload", "search"]);
    assert_eq!(site.answer(), answer, "a reload is of the same release");
}

#[test]
fn a_new_release_takes_the_place_of_the_old_one_without_a_lost_request_and_back_again() {
    let site = Site::started();
    let report = Load::run(site.port, Mix::fresh(4), || {
        site.source("1.1.0", "two", "");
        let output = site.upgrade(&[]);
        assert_code(&output, 0);
        assert!(output.stdout.contains("1.0.0+") && output.stdout.contains("→ 1.1.0+"), "{output:#?}");
        assert_eq!(site.says(), "two");
        let releases = site.releases();
        assert!(releases[0].serving && releases[0].state == ReleaseState::Good && releases[0].workers.len() == 2);
        assert!(releases[1].rollback && releases[1].workers.is_empty(), "{releases:#?}");
        site.daemon.ctl_ok(&["rollback", "search"]);
        assert_eq!(site.says(), "one");
    });
    report.assert_none_lost();
    let releases = site.releases();
    assert_eq!(releases[0].state, ReleaseState::Bad, "what somebody rolled back is no way back: {releases:#?}");
    assert_code(&site.daemon.ctl(&["rollback", "search"]), 4);
    site.daemon.ctl_ok(&["rollback", "search", "--to", "1.1.0"]);
    assert_eq!(site.says(), "two");
}

#[test]
fn a_release_that_is_there_and_has_failed_does_not_serve() {
    let site = Site::new();
    site.configure("restart = { backoff = \"10ms..20ms\", max = \"1 in 10m\" }");
    site.daemon.ctl_ok(&["start", "./site.toml"]);
    let mut watch = site.daemon.watch();
    let deadline = Instant::now() + PATIENCE;
    let mut parked = 0;
    site.daemon.ctl_ok(&["signal", "search", "SIGKILL"]);
    while parked < 2 {
        let event = watch.next(deadline).expect("both are parked in time").event;
        if matches!(event, EventKind::WorkerReady { .. }) {
            drop(site.daemon.ctl(&["signal", "search", "SIGKILL"]));
        } else if matches!(event, EventKind::WorkerFailed { .. }) {
            parked += 1;
        }
    }
    let output = site.upgrade(&[]);
    assert_code(&output, 4);
    assert!(output.stderr.contains("its workers have failed") && output.stderr.contains("start search"), "{output:#?}");
}

#[test]
fn an_upgrade_is_of_one_app_and_from_somewhere() {
    let site = Site::started();
    assert_code(&site.daemon.ctl(&["upgrade", "all"]), 3);
    assert_code(&site.upgrade(&["--from", ""]), 2);
    assert_code(&site.upgrade(&["--from", "git:", "--dry-run"]), 2);
    site.assert_nothing_else();
}

#[test]
fn recreation_waits_for_nobody_who_has_nothing_in_hand() {
    let site = Site::started();
    site.source("1.1.0", "two", "");
    let file = std::fs::read_to_string(site.path("site.toml")).expect("it was written");
    site.write("site.toml", &file.replace("min_uptime = \"50ms\"", "min_uptime = \"10m\""));
    site.daemon.ctl_ok(&["upgrade", "search", "--strategy", "recreate", "--no-wait"]);
    site.daemon.wait_until(PATIENCE, |document| {
        let workers = &document.apps[0].workers;
        workers.len() == 2
            && workers.iter().all(|worker| worker.state == WorkerState::Ready && worker.release.starts_with("1.1.0+"))
    });
}

#[test]
fn what_did_not_change_is_not_deployed_again() {
    let site = Site::started();
    let before = site.pids();
    let output = site.upgrade(&[]);
    assert_code(&output, 0);
    assert!(output.stdout.contains("nothing to do") && output.stdout.contains("serves"), "{output:#?}");
    assert_eq!(site.pids(), before);
    site.assert_nothing_else();
}

#[test]
fn a_release_that_does_not_come_up_is_taken_back_and_remembered() {
    let site = Site::started();
    let report = Load::run(site.port, Mix::fresh(2), || {
        site.source("1.1.0", "fails", "");
        let output = site.upgrade(&[]);
        assert_code(&output, 5);
        assert!(output.stderr.contains("cannot go on"), "its last words are shown: {output:#?}");
    });
    report.assert_none_lost();
    assert_eq!(site.says(), "one");
    let releases = site.releases();
    assert!(releases[0].state == ReleaseState::Bad && releases[0].why.is_some(), "{releases:#?}");
    assert!(releases[1].serving && releases[1].state == ReleaseState::Good, "{releases:#?}");
}

#[test]
fn what_was_taken_back_is_deployed_again_only_when_that_is_asked_for() {
    let site = Site::started();
    site.source("1.1.0", "fails", "");
    assert_code(&site.upgrade(&[]), 5);
    let plan = site.upgrade(&["--dry-run"]);
    assert!(plan.stdout.contains("taken back before, and only deployed again with --force"), "{plan:#?}");
    let told = site.assert_refused(&[]);
    assert!(told.contains("was taken back before: search.") && told.contains("--force"), "{told}");
    let output = site.upgrade(&["--force"]);
    assert_code(&output, 5);
    assert!(output.stderr.contains("cannot go on"), "it was tried: {output:#?}");
    site.source("1.1.0", "two", "");
    assert_code(&site.upgrade(&[]), 0);
    assert_eq!(site.says(), "two");
}

#[test]
fn an_archive_is_a_source_and_its_one_folder_the_release() {
    let site = Site::started();
    site.source("2.0.0", "packed", "");
    for (name, flags) in [("a.tar", "-cf"), ("a.tar.gz", "-czf")] {
        let packed = Command::new("tar").args([flags, name, "src"]).current_dir(site.path("")).status();
        assert!(packed.expect("tar runs").success());
        let sum = Command::new("sha256sum").arg(site.path(name)).output().expect("sha256sum runs").stdout;
        let sum = String::from_utf8(sum).expect("a text").split_whitespace().next().expect("a sum").to_owned();
        assert_code(&site.upgrade(&["--from", name, "--sha256", &sum]), 0);
        assert_eq!(site.says(), "packed");
    }
    assert_eq!(site.releases().len(), 2, "the same content is the same release, however it is packed");
}

#[test]
fn a_git_reference_is_a_source() {
    let site = Site::started();
    let repository = site.path("repo");
    let git = |arguments: &[&str]| {
        let mut git = Command::new("git");
        git.args(["-c", "user.name=a", "-c", "user.email=a@b"]).args(arguments).current_dir(&repository);
        let output = git.output().expect("git runs");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("a text").trim().to_owned()
    };
    std::fs::create_dir(&repository).expect("it is ours");
    git(&["init", "--quiet", "--initial-branch=main"]);
    let commit = |version: &str, text: &str| {
        site.source(version, text, "");
        for name in ["server.py", "skill.toml", "text"] {
            std::fs::copy(site.path("src").join(name), repository.join(name)).expect("both are ours");
        }
        git(&["add", "."]);
        git(&["commit", "--quiet", "-m", text]);
        git(&["rev-parse", "HEAD"])
    };
    let first = commit("3.0.0", "committed");
    git(&["tag", "v3"]);
    commit("3.1.0", "later");
    std::fs::write(repository.join("text"), "not committed").expect("it is ours");
    // None of these may ever run.
    let hooks = repository.join(".git/hooks");
    for hook in ["post-checkout", "pre-auto-gc", "reference-transaction"] {
        std::fs::write(hooks.join(hook), format!("#!/bin/sh\ntouch {:?}\n", site.path("hooked"))).expect("it is ours");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(hooks.join(hook), mode).expect("it is ours");
    }
    for (from, text) in [("git:repo", "later"), ("git:repo#v3", "committed"), ("git:repo#main", "later")] {
        assert_code(&site.upgrade(&["--from", from]), 0);
        assert_eq!(site.says(), text, "{from}");
    }
    assert_code(&site.upgrade(&["--from", &format!("git:repo#{first}")]), 0);
    let serving = site.releases().into_iter().find(|release| release.serving).expect("one serves");
    assert!(serving.origin.starts_with("git:") && serving.version == "3.0.0", "{serving:?}");
    assert!(!site.path("hooked").exists());
    let missing = site.assert_refused(&["--from", "git:repo#nowhere"]);
    assert!(missing.contains("nowhere"), "{missing}");
}

#[test]
fn a_build_runs_in_the_release_and_not_in_the_source() {
    let site = Site::new();
    site.source("1.0.0", "one", "build = { command = [\"sh\", \"-c\", \"echo built as $AGENTD_RELEASE > text; echo $A\"], env = { A = \"said\" } }");
    site.daemon.ctl_ok(&["start", "./site.toml"]);
    assert!(site.says().starts_with("built as 1.0.0+"), "{}", site.says());
    assert_eq!(std::fs::read_to_string(site.path("src/text")).expect("it is there"), "one");
    let log = std::fs::read_to_string(site.path("logs/build/search.log")).expect("a build has a log");
    assert!(log.contains("said"), "{log}");
}

#[test]
fn a_dry_run_says_what_differs_and_which_strategy_that_asks_for_and_changes_nothing() {
    let site = Site::new();
    site.configure("changes = { prompt = [\"prompts/**\"], model = [\"MODEL\"] }");
    site.daemon.ctl_ok(&["start", "./site.toml"]);
    let before = (site.pids(), site.releases());
    let plan = || site.daemon.ctl_ok(&["upgrade", "search", "--dry-run", "--json"]).json::<UpgradePlan>();
    assert_eq!((plan().changes, plan().advised), (vec![], None));
    site.source("1.1.0", "two", "");
    let code = plan();
    assert!(code.changes.contains(&"version: 1.0.0 → 1.1.0".to_owned()), "{code:#?}");
    assert!(code.changes.contains(&"  ~ text".to_owned()) && code.advised == Some(Strategy::Rolling), "{code:#?}");
    site.source("1.0.0", "one", "");
    std::fs::create_dir(site.path("src/prompts")).expect("it is ours");
    site.write("src/prompts/a.txt", "be kind");
    assert_eq!(plan().advised, Some(Strategy::Canary));
    site.source("2.0.0", "one", "");
    assert_eq!(plan().advised, Some(Strategy::BlueGreen));
    std::fs::remove_dir_all(site.path("src/prompts")).expect("it is ours");
    site.source("1.0.0", "one", "");
    site.configure("changes = { prompt = [\"prompts/**\"], model = [\"MODEL\"] }\nenv = { MODEL = \"x\" }");
    let model = plan();
    assert!(model.advised == Some(Strategy::Canary) && !format!("{model:?}").contains("\"x\""), "{model:#?}");
    assert_eq!((site.pids(), site.releases()), before);
    site.assert_nothing_else();
}

#[test]
fn a_dry_run_names_the_commands_that_would_run_in_their_order_and_runs_none() {
    let site = Site::new();
    let says = |word: &str| format!("[\"touch\", \"{}\"]", site.path(word).display());
    let hook = |on: &str| format!("[[skill.search.hooks]]\non = [\"{on}\"]\ncommand = {}\n", says(on));
    site.daemon.ctl_ok(&["start", "./site.toml"]);
    let hooks: String =
        ["rollback", "deployed", "after_stage", "before_stage", "before_deployment", "crash"].map(hook).concat();
    site.configure(&format!("gates = {{ eval = {} }}\n{hooks}", says("eval")));
    site.source("1.1.0", "two", &format!("check = {}", says("check")));
    let runs = |strategy: &str| {
        let plan = site.daemon.ctl_ok(&["upgrade", "search", "--dry-run", "--json", "--strategy", strategy]);
        let named =
            |run: PlannedRun| format!("{} {:?}{}", run.on, run.percents, if run.awaited { " awaited" } else { "" });
        plan.json::<UpgradePlan>().runs.into_iter().map(named).collect::<Vec<String>>().join("; ")
    };
    let steps = "[10, 25, 50, 100]";
    assert_eq!(
        runs("canary"),
        format!(
            "before_deployment [] awaited; check [] awaited; eval {steps} awaited; before_stage {steps} awaited; \
             after_stage {steps}; deployed []; rollback []"
        )
    );
    let rolling = "before_deployment [] awaited; check [] awaited; eval [] awaited; deployed []; rollback []";
    assert_eq!(runs("rolling"), rolling);
    let shown = site.upgrade(&["--dry-run", "--strategy", "blue-green"]).stdout;
    assert!(shown.contains("eval at 100 %, awaited: touch "), "{shown}");
    assert!(!["check", "eval", "before_deployment"].iter().any(|word| site.path(word).exists()), "it only says so");
}

#[test]
fn a_rolling_upgrade_has_its_first_new_worker_looked_at_before_any_old_one_goes() {
    let site = Site::started();
    let old = site.pids();
    let seen = site.path("seen");
    let look = |code: u32| {
        let program = "import os, sys, urllib.request as u; a = os.environ['AGENTD_EVAL_ADDR']; \
             open(sys.argv[1], 'a').write(u.urlopen('http://' + a).read().decode().split()[0] + '\\\\n'); \
             sys.exit(int(sys.argv[2]))";
        format!("gates = {{ eval = [\"python3\", \"-c\", \"{program}\", \"{}\", \"{code}\"] }}", seen.display())
    };
    site.configure(&look(3));
    site.source("1.1.0", "two", "");
    let refused = site.upgrade(&["--strategy", "rolling"]);
    assert_code(&refused, 5);
    assert!(refused.stderr.contains("eval refused it: python3 exited with status 3"), "{}", refused.stderr);
    assert_eq!((site.says(), site.pids()), ("one".to_owned(), old), "nobody was touched");
    site.configure(&look(0));
    site.source("1.2.0", "three", "");
    assert_code(&site.upgrade(&["--strategy", "rolling"]), 0);
    assert_eq!(site.says(), "three");
    assert_eq!(std::fs::read_to_string(&seen).expect("it looked"), "two\nthree\n", "once a deployment, at the new one");
    let report = site.daemon.request(DeploymentsParams { name: None }).expect("a list").deployments.swap_remove(0);
    let stages: Vec<&str> = report.stages.iter().map(|stage| stage.name.as_str()).collect();
    assert_eq!(stages, ["raising", "verifying", "replacing"]);
}

#[test]
fn a_release_is_found_by_its_program_wherever_it_lies() {
    let site = Site::new();
    site.configure("command = [\"python3\", \"{release}/server.py\", \"{release}\"]\nenv = { HERE = \"{release}/x\" }");
    site.daemon.ctl_ok(&["start", "./site.toml"]);
    let answer = site.answer();
    assert_eq!(answer[2], answer[3]);
}

#[test]
fn agents_find_a_skill_at_an_address_that_stays() {
    let site = Site::started();
    let port = agentd_testkit::e2e::free_port();
    site.write("agent.py", "import os, socket\n\
        body = os.environ.get('AGENTD_SKILL_SEARCH', 'none').encode()\n\
        listener = socket.socket(fileno=3)\nlistener.setblocking(True)\n\
        while True:\n    c, _ = listener.accept()\n    with c:\n        if c.recv(9999):\n\
        \x20           c.sendall(b'HTTP/1.1 200 OK\\r\\nConnection: close\\r\\nContent-Length: %d\\r\\n\\r\\n' % len(body) + body)\n");
    site.daemon.config(
        "agent.toml",
        &format!("[agent.caller]\ncommand = [\"python3\", \"agent.py\"]\nlisten = \"127.0.0.1:{port}\"\nready = {{ http = \"/\" }}\n"),
    );
    site.daemon.ctl_ok(&["start", "./agent.toml"]);
    let caller = Site { port, daemon: site.daemon };
    let address = caller.says();
    assert_eq!(address, format!("127.0.0.1:{}", site.port));
    let site = Site { port: site.port, daemon: caller.daemon };
    site.source("1.1.0", "two", "");
    assert_code(&site.upgrade(&[]), 0);
    assert_eq!((site.says(), address), ("two".to_owned(), format!("127.0.0.1:{}", site.port)));
}

#[test]
fn an_app_in_place_gets_a_source_and_loses_it_by_apply() {
    let site = Site::new();
    let keys = "command = [\"python3\", \"-u\", \"server.py\"]\nworkers = 1\nready = { http = \"/\" }";
    let port = site.port;
    let in_place = format!("[skill.search]\n{keys}\nlisten = \"127.0.0.1:{port}\"\n");
    site.daemon.config("site.toml", &format!("{in_place}cwd = \"src\"\n"));
    site.daemon.ctl_ok(&["apply", "./site.toml"]);
    assert!(site.answer()[2].ends_with("/src"));
    assert!(site.releases().is_empty());
    site.daemon.config("site.toml", &format!("{in_place}source = \"src\"\n"));
    assert_code(&site.daemon.ctl(&["reload", "search"]), 2);
    site.daemon.ctl_ok(&["apply", "./site.toml"]);
    assert!(site.answer()[1].starts_with("1.0.0+"));
    site.daemon.config("site.toml", &format!("{in_place}cwd = \"src\"\n"));
    site.daemon.ctl_ok(&["apply", "./site.toml"]);
    assert!(site.answer()[2].ends_with("/src"));
}
