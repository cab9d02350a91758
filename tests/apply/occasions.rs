//! Reloads that nobody asks for.

use std::time::Duration;

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

#[test]
fn the_clock_reloads_an_app_and_describe_tells_when_it_will() {
    let site = Site::new();
    let web = App::new("web").with("cron_reload = { at = \"0 4 * * *\", tz = \"Europe/Berlin\" }");
    assert_code(&site.apply(std::slice::from_ref(&web)), 0);
    let described = site.daemon.ctl_ok(&["describe", "web"]);
    assert!(described.stdout.contains("0 4 * * * in Europe/Berlin, next at 20"), "{described:#?}");
    // Every minute is the shortest that a schedule has.
    assert_code(&site.apply(&[App { keys: "cron_reload = \"* * * * *\"\n".to_owned(), ..web }]), 0);
    site.daemon.wait_until(Duration::from_secs(90), |document| {
        document.apps[0].workers.first().is_some_and(|worker| worker.generation == 2)
    });
}
