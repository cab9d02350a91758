//! Apps that need others.

use agentd_protocol::status::{AppState, AppView, StatusDocument};

use crate::site::{App, PATIENCE, Site, assert_code};

fn app<'d>(document: &'d StatusDocument, name: &str) -> &'d AppView {
    document.apps.iter().find(|app| app.name == name).expect("it is known")
}

/// The order in which workers came to this event.
fn order(site: &Site, event: &str) -> Vec<String> {
    let output = site.daemon.ctl_ok(&["events", "--json", "--since", "0"]);
    let events = output.stdout.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("an event"));
    let of = events.filter(|found| found["event"]["type"] == event);
    of.filter_map(|found| Some(found["app"].as_str()?.to_owned())).collect()
}

fn chain() -> (App, App, App) {
    let web = App::new("web").with("needs = [\"search\"]");
    let search = App::new("search").with("needs = [\"base\"]");
    (web, search, App::new("base"))
}

#[test]
fn an_app_starts_when_what_it_needs_is_ready_and_says_what_it_waits_for() {
    let site = Site::new();
    let gate = site.daemon.home.path().join("gate");
    let (web, search, base) = chain();
    site.write(&[web, search, base.with(&format!("env = {{ GATE = {gate:?} }}\nready = {{ http = \"/\" }}"))]);
    site.daemon.ctl_ok(&["start", "./site.toml", "--no-wait"]);
    let waiting = site.daemon.wait_until(PATIENCE, |document| document.apps.len() == 3);
    assert_eq!((app(&waiting, "web").state, app(&waiting, "web").workers.len()), (AppState::Starting, 0));
    assert_eq!(app(&waiting, "search").why.as_deref(), Some("waits for base, which is starting"));
    assert_eq!(app(&waiting, "web").why.as_deref(), Some("waits for search, which waits itself"));
    std::fs::write(&gate, "").expect("the home takes files");
    site.daemon.wait_until(PATIENCE, |document| document.apps.iter().all(|app| app.state == AppState::Running));
    assert_eq!(order(&site, "worker_ready"), ["base", "search", "web"]);
    // The other way round: whoever needs another ends before it.
    site.daemon.ctl_ok(&["stop", "all"]);
    assert_eq!(order(&site, "worker_exited"), ["web", "search", "base"]);
    site.daemon.ctl_ok(&["start", "web", "base", "search"]);
    assert_eq!(order(&site, "worker_ready")[3..], ["base", "search", "web"]);
}

#[test]
fn the_order_holds_for_the_next_daemon_too() {
    let mut site = Site::new();
    let (web, search, base) = chain();
    assert_code(&site.apply(&[web, search, base]), 0);
    site.daemon.ctl_ok(&["daemon", "stop"]);
    site.daemon.await_end(PATIENCE);
    site.daemon.start_again();
    site.daemon.wait_until(PATIENCE, |document| document.apps.iter().all(|app| app.state == AppState::Running));
    assert_eq!(order(&site, "worker_ready")[3..], ["base", "search", "web"]);
}

#[test]
fn a_need_that_fails_ends_the_waiting_with_its_reason_and_its_recovery_goes_on() {
    let site = Site::new();
    let (_, search, base) = chain();
    let park = "env = { FAIL = \"1\" }\nrestart = { policy = \"never\" }";
    site.write(&[search.clone(), base.with(park)]);
    let output = site.daemon.ctl(&["start", "./site.toml"]);
    assert_code(&output, 1);
    assert!(output.stderr.contains("waits for base, which failed"), "{output:#?}");
    let document = site.daemon.status();
    assert!(app(&document, "search").why.as_deref().is_some_and(|why| why.contains("base, which failed")));
    site.write(&[search, base]);
    assert_code(&site.daemon.ctl(&["reload", "base"]), 0);
    site.daemon.wait_until(PATIENCE, |document| document.apps.iter().all(|app| app.state == AppState::Running));
}

#[test]
fn a_later_crash_of_a_need_stops_no_dependant() {
    let site = Site::new();
    let (_, search, base) = chain();
    assert_code(&site.apply(&[search, base]), 0);
    let (before, needed) = (site.pids("search"), site.pids("base"));
    site.daemon.ctl_ok(&["signal", "base", "KILL"]);
    site.daemon.wait_until(PATIENCE, |document| {
        let base = app(document, "base");
        base.state == AppState::Running && base.workers.iter().all(|worker| worker.pid != needed.first().copied())
    });
    assert_eq!(site.pids("search"), before);
}

#[test]
fn unknown_needs_and_circles_are_configuration_errors_with_their_line() {
    let site = Site::new();
    let (web, search, base) = chain();
    let output = site.apply(&[web.clone(), search.clone()]);
    assert_code(&output, 2);
    assert!(output.stderr.contains("`search` needs `base`") && output.stderr.contains("site.toml:"), "{output:#?}");
    let output = site.apply(&[web, search, base.with("needs = [\"web\"]")]);
    assert_code(&output, 2);
    assert!(output.stderr.contains("in a circle: "), "{output:#?}");
    assert!(site.daemon.status().apps.is_empty());
}
