//! Reloads that nobody asks for.

use std::time::Duration;

use agentd_protocol::status::StatusDocument;

use crate::site::{App, PATIENCE, Site, assert_code};

#[test]
fn a_changed_file_reloads_the_app_once_and_what_is_ignored_does_not() {
    let site = Site::new();
    let folder = site.daemon.home.path().join("app");
    std::fs::create_dir_all(folder.join("logs")).expect("the home takes folders");
    let keys = format!("cwd = {folder:?}\nwatch = [\"**/*.py\"]");
    let web = App::new("web").with(&keys);
    std::fs::copy(site.daemon.home.path().join("server.py"), folder.join("server.py")).expect("both are ours");
    assert_code(&site.apply(&[web]), 0);
    let before = site.pids("web");
    std::fs::write(folder.join("logs/a.py"), "x").expect("it is ours");
    std::fs::write(folder.join("note.txt"), "x").expect("it is ours");
    // As an editor does it: beside, then over it.
    std::fs::copy(folder.join("server.py"), folder.join(".server.py.tmp")).expect("both are ours");
    std::fs::rename(folder.join(".server.py.tmp"), folder.join("server.py")).expect("both are ours");
    site.daemon.wait_until(PATIENCE, |document| {
        document.apps[0].workers.len() == 1
            && document.apps[0].workers[0].pid != before.first().copied()
            && document.apps[0].deployment.is_none()
    });
    assert_eq!(site.daemon.app("web").workers[0].generation, 2, "one reload, not several");
}

/// An app that is being deployed when its time comes stays with that deployment.
#[test]
fn the_clock_reloads_an_app_unless_a_deployment_runs_and_describe_tells_when_it_will() {
    let site = Site::new();
    let web = App::new("web").with("cron_reload = { at = \"0 4 * * *\", tz = \"Europe/Berlin\" }");
    assert_code(&site.apply(std::slice::from_ref(&web)), 0);
    let described = site.daemon.ctl_ok(&["describe", "web"]);
    assert!(described.stdout.contains("0 4 * * * in Europe/Berlin, next at 20"), "{described:#?}");
    // Every minute is the shortest that a schedule has.
    let minutely = "cron_reload = \"* * * * *\"";
    let gate = site.daemon.home.path().join("gate");
    std::fs::write(&gate, "").expect("the home takes files");
    let ready = "ready = { http = \"/\", timeout = \"5m\" }";
    let held = App::new("held").with(&format!("{minutely}\n{ready}\nenv = {{ GATE = {gate:?} }}"));
    assert_code(&site.apply(std::slice::from_ref(&held)), 0);
    std::fs::remove_file(&gate).expect("it was just made");
    let generation = |document: &StatusDocument, name: &str| {
        let app = document.apps.iter().find(|app| app.name == name);
        app.and_then(|app| app.workers.iter().map(|worker| worker.generation).max())
    };
    let reload = site.daemon.ctl(&["reload", "--no-wait", "held"]);
    assert!(matches!(reload.code, Some(0 | 4)), "begun, or the clock was first just now: {reload:#?}");
    let asked = generation(&site.daemon.status(), "held");
    assert_code(&site.apply(&[held, App { keys: format!("{minutely}\n"), ..web }]), 0);
    let document = site.daemon.wait_until(Duration::from_secs(90), |document| generation(document, "web") == Some(2));
    let deployment = document.apps.iter().find(|app| app.name == "held").and_then(|app| app.deployment.clone());
    assert_eq!(generation(&document, "held"), asked, "the one that somebody asked for: {deployment:?}");
    assert!(deployment.is_some());
    assert!(site.daemon.log().contains("its cron_reload is left out"), "{}", site.daemon.log());
}
