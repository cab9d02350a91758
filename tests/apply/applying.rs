//! A configuration against what runs.

use agentd_protocol::control::{Applied, Work};
use agentd_protocol::status::AppView;

use crate::site::{App, PATIENCE, Site, answer, assert_code};

#[test]
fn applying_twice_changes_nothing_the_second_time() {
    let site = Site::new();
    let apps = [App::new("web").with("workers = 2"), App::new("search")];
    assert_code(&site.apply(&apps), 0);
    let before = (site.pids("web"), site.pids("search"));
    assert_eq!(site.plan(), [("web", "nothing"), ("search", "nothing")].map(|(a, b)| (a.to_owned(), b.to_owned())));
    let again = site.apply(&apps);
    assert_code(&again, 0);
    assert!(again.stdout.contains("nothing to do: 2 apps as configured"), "{again:#?}");
    assert_eq!((site.pids("web"), site.pids("search")), before);
}

#[test]
fn each_app_gets_the_least_that_its_change_takes() {
    let site = Site::new();
    let (web, search, docs) = (App::new("web"), App::new("search"), App::new("docs"));
    assert_code(&site.apply(&[web.clone(), search.clone(), docs.clone()]), 0);
    let before = (site.pids("web"), site.pids("search"), site.pids("docs"));
    let wanted = [
        web.with("workers = 2\ngrace = { default = \"7m\" }"),
        search.with("env = { ANSWER = \"new\" }"),
        docs.clone(),
        App::new("extra"),
    ];
    site.write(&wanted);
    let plan = [("web", "in_place"), ("search", "reload"), ("docs", "nothing"), ("extra", "new")];
    assert_eq!(site.plan(), plan.map(|(app, work)| (app.to_owned(), work.to_owned())));
    assert_eq!((site.pids("web"), site.pids("search"), site.pids("docs")), before, "a dry run changes nothing");
    let output = site.apply(&wanted);
    assert_code(&output, 0);
    assert!(output.stdout.contains("grace.default") && output.stdout.contains("5m → 7m"), "{output:#?}");
    assert!(!output.stdout.contains("new\"") && output.stdout.contains("(not shown)"), "values of env stay unseen");
    assert_eq!(site.pids("docs"), before.2);
    let now = site.pids("web");
    assert!(now.len() == 2 && now.contains(&before.0[0]), "the worker that ran still does: {before:?}, {now:?}");
    assert_eq!(site.daemon.app("web").grace_ms, 7 * 60 * 1000);
    assert_ne!(site.pids("search"), before.1);
    assert_eq!(answer(search.port), "new");
    // Fewer, without a new process either.
    let fewer = [web.with("grace = { default = \"7m\" }"), wanted[1].clone(), docs, wanted[3].clone()];
    assert_code(&site.apply(&fewer), 0);
    let left = site.pids("web");
    assert!(left.len() == 1 && now.contains(&left[0]), "{now:?}, {left:?}");
}

#[test]
fn what_cannot_be_finished_goes_back_and_the_others_stay_applied() {
    let site = Site::new();
    let (web, search) = (App::new("web"), App::new("search"));
    assert_code(&site.apply(&[web.clone(), search.clone()]), 0);
    let before = site.pids("web");
    let bad = App::new("bad").with("env = { FAIL = \"1\" }");
    let wanted = [web.with("env = { FAIL = \"1\" }"), search.with("env = { ANSWER = \"new\" }"), bad];
    let output = site.apply(&wanted);
    assert_code(&output, 5);
    assert!(output.stderr.contains("cannot go on"), "its last words are shown: {output:#?}");
    assert!(output.stderr.contains("are as before; what else was applied stays"), "{output:#?}");
    assert_eq!((site.pids("web"), answer(web.port)), (before, "ok".to_owned()));
    assert_eq!(answer(search.port), "new");
    let names: Vec<String> = site.daemon.status().apps.into_iter().map(|app| app.name).collect();
    assert_eq!(names, ["search", "web"], "an app that could not be started is forgotten again");
    let plan = [("web", "reload"), ("search", "nothing"), ("bad", "new")];
    assert_eq!(site.plan(), plan.map(|(app, work)| (app.to_owned(), work.to_owned())), "it would be tried again");
}

#[test]
fn more_workers_that_do_not_start_leave_the_number_as_it_was() {
    let site = Site::new();
    let gate = site.daemon.home.path().join("gate");
    std::fs::write(&gate, "").expect("the home takes files");
    let keys = format!("env = {{ GATE = {gate:?} }}\nready = {{ http = \"/\", timeout = \"1s\" }}");
    let web = App::new("web").with(&keys);
    assert_code(&site.apply(std::slice::from_ref(&web)), 0);
    let before = site.pids("web");
    std::fs::remove_file(&gate).expect("it was just made");
    let output = site.apply(&[web.with("workers = 3")]);
    assert_code(&output, 5);
    site.daemon
        .wait_until(PATIENCE, |document| document.apps.iter().all(|app| app.desired == 1 && app.workers.len() == 1));
    assert_eq!(site.pids("web"), before);
    assert_eq!(site.plan(), [("web".to_owned(), "in_place".to_owned())]);
}

#[test]
fn what_a_killed_supervisor_was_applying_is_finished_or_taken_back_by_the_next() {
    let mut site = Site::new();
    let gate = site.daemon.home.path().join("gate");
    std::fs::write(&gate, "").expect("the home takes files");
    let gated = format!("env = {{ GATE = {gate:?} }}\nready = {{ http = \"/\", timeout = \"3s\" }}");
    let (web, more, fine) = (App::new("web"), App::new("more").with(&gated), App::new("fine"));
    assert_code(&site.apply(&[web.clone(), more.clone(), fine.clone()]), 0);
    let before = (site.pids("web"), site.pids("more"));
    std::fs::remove_file(&gate).expect("it was just made");
    let wanted = [
        web.with(&gated),
        more.with("workers = 3"),
        fine.with("env = { ANSWER = \"new\" }"),
        App::new("extra").with(&gated),
    ];
    site.write(&wanted);
    site.daemon.ctl_ok(&["apply", "--no-wait", "./site.toml"]);
    // Each is in the middle of it: somebody new is there who does not get on.
    site.daemon.wait_until(PATIENCE, |document| {
        let workers = |name: &str| document.apps.iter().find(|app| app.name == name).map_or(0, |app| app.workers.len());
        workers("web") == 2 && workers("more") == 3 && workers("extra") == 1
    });
    site.daemon.kill();
    site.daemon.start_again();
    let document = site.daemon.wait_until(PATIENCE, |document| {
        let settled = |app: &AppView| app.deployment.is_none() && app.workers.len() == 1 && app.ready == app.desired;
        document.apps.len() == 3 && document.apps.iter().all(settled)
    });
    let names: Vec<&str> = document.apps.iter().map(|app| app.name.as_str()).collect();
    assert_eq!(names, ["fine", "more", "web"], "what could not be started is forgotten again");
    assert_eq!((site.pids("web"), site.pids("more")), before);
    assert_eq!(answer(fine.port), "new", "what could be done was");
    let plan = [("web", "reload"), ("more", "in_place"), ("fine", "nothing"), ("extra", "new")];
    assert_eq!(site.plan(), plan.map(|(app, work)| (app.to_owned(), work.to_owned())), "it would be tried again");
}

#[test]
fn any_mistake_anywhere_starts_nothing() {
    let site = Site::new();
    let output =
        site.apply(&[App::new("web"), App::new("search").with("colour = 1"), App::new("docs").with("workers = 0")]);
    assert_code(&output, 2);
    assert!(output.stderr.contains("colour") && output.stderr.contains("workers"), "{output:#?}");
    assert!(site.daemon.status().apps.is_empty());
    site.daemon.config("empty.toml", "");
    assert_code(&site.daemon.ctl(&["apply", "--prune", "./empty.toml"]), 2);
}

#[test]
fn only_pruning_deletes_and_only_what_came_from_the_same_file() {
    let site = Site::new();
    let (web, search) = (App::new("web"), App::new("search"));
    assert_code(&site.apply(&[web.clone(), search]), 0);
    site.daemon.config("other.toml", "[agent.other]\ncommand = [\"sleep\", \"1000\"]\n");
    site.daemon.ctl_ok(&["apply", "./other.toml"]);
    let kept = site.apply(std::slice::from_ref(&web));
    assert_code(&kept, 0);
    assert!(kept.stdout.contains("search: not configured any more"), "{kept:#?}");
    assert_eq!(site.daemon.status().apps.len(), 3);
    site.daemon.ctl_ok(&["apply", "--prune", "./site.toml"]);
    let names: Vec<String> = site.daemon.status().apps.into_iter().map(|app| app.name).collect();
    assert_eq!(names, ["other", "web"]);
}

#[test]
fn what_is_to_go_stays_as_long_as_what_takes_its_place_does_not_come_to_be() {
    let site = Site::new();
    let old = App::new("old");
    assert_code(&site.apply(std::slice::from_ref(&old)), 0);
    let before = site.pids("old");
    let new = App::new("new");
    site.write(&[new.with("env = { FAIL = \"1\" }")]);
    let output = site.daemon.ctl(&["apply", "--prune", "./site.toml"]);
    assert_code(&output, 5);
    assert!(output.stderr.contains("old was not deleted"), "{output:#?}");
    assert_eq!(site.pids("old"), before);
    assert_eq!(answer(old.port), "ok");
    site.write(std::slice::from_ref(&new));
    let output = site.daemon.ctl(&["--json", "apply", "--prune", "./site.toml"]);
    assert_code(&output, 0);
    let done: Applied = serde_json::from_str(output.stdout.trim()).expect("one document");
    let works: Vec<(&str, Work)> = done.apps.iter().map(|app| (app.app.as_str(), app.work)).collect();
    assert_eq!(works, [("new", Work::New), ("old", Work::Gone)]);
    assert_eq!(done.results.len(), 2, "{done:#?}");
    let names: Vec<String> = site.daemon.status().apps.into_iter().map(|app| app.name).collect();
    assert_eq!(names, ["new"]);
}

#[test]
fn a_stopped_app_takes_its_new_configuration_and_stays_stopped() {
    let site = Site::new();
    let web = App::new("web");
    assert_code(&site.apply(std::slice::from_ref(&web)), 0);
    site.daemon.ctl_ok(&["stop", "web"]);
    let output = site.apply(&[web.with("env = { ANSWER = \"new\" }")]);
    assert_code(&output, 0);
    assert!(output.stdout.contains("agentctl start web"), "{output:#?}");
    assert!(site.pids("web").is_empty());
    site.daemon.ctl_ok(&["start", "web"]);
    assert_eq!(answer(web.port), "new");
}
