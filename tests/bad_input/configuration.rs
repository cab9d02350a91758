//! Configurations that are wrong, at the start and at a reload.

use std::net::TcpListener;

use agentd_protocol::status::AppState;
use agentd_testkit::e2e::free_port;
use serde_json::Value;

use crate::site::{PATIENCE, Site, answer, assert_said, server};

#[test]
fn every_mistake_of_a_file_is_told_with_its_line_and_nothing_is_started() {
    let site = Site::new();
    let wrong = "[agent.ok]\ncommand = [\"sleep\", \"9\"]\n[agent.bad]\ncomand = [\"x\"]\nworkers = \"two\"\n\
                 listen = \"127.0.0.1:99999\"\n";
    site.daemon.config("wrong.toml", wrong);
    let output = site.ctl(&["start", "./wrong.toml"]);
    assert_said(&output, 2, &["wrong.toml:4", "wrong.toml:5", "wrong.toml:6", "`command`", "nothing was started"]);
    let output = site.ctl(&["start", "./wrong.toml", "--json"]);
    let document: Value = output.json();
    let lines: Vec<_> = document["error"]["diagnostics"].as_array().expect("a list").iter().collect();
    assert!(lines.len() >= 3 && lines.iter().all(|line| line["file"].as_str().unwrap().ends_with("wrong.toml")));
    assert_eq!(site.daemon.status().apps.len(), 1, "only web is known");
    site.assert_unharmed();
}

#[test]
fn what_is_no_toml_what_is_missing_and_what_is_empty_is_said_and_changes_nothing() {
    let site = Site::new();
    site.daemon.config("torn.toml", "[agent.torn\ncommand = 1\n");
    site.daemon.config("empty.toml", "");
    assert_said(&site.ctl(&["start", "./torn.toml"]), 2, &["torn.toml:1"]);
    assert_said(&site.ctl(&["start", "./empty.toml"]), 2, &["names no app"]);
    assert_said(&site.ctl(&["start", "./nowhere.toml"]), 2, &["nowhere.toml"]);
    std::fs::write(site.daemon.home.path().join("bytes.toml"), b"[agent.a]\n\xff\xfe").expect("it is written");
    assert_said(&site.ctl(&["start", "./bytes.toml"]), 2, &["bytes.toml"]);
    assert_eq!(site.daemon.status().apps.len(), 1, "only web is known");
    site.assert_unharmed();
}

#[test]
fn a_reload_with_a_broken_file_names_every_mistake_and_leaves_the_workers_alone() {
    let site = Site::new();
    site.configure("worker = 3\nreddy = { http = \"/\" }\n");
    for command in ["reload", "restart"] {
        let output = site.ctl(&[command, "web"]);
        assert_said(&output, 2, &["web.toml:5", "web.toml:6", "workers", "ready", "nothing was started or changed"]);
        site.assert_unharmed();
    }
    site.daemon.config("web.toml", &server("other", site.port));
    assert_said(&site.ctl(&["reload", "web"]), 2, &["does not name web any more"]);
    std::fs::remove_file(site.daemon.home.path().join("web.toml")).expect("it was there");
    assert_said(&site.ctl(&["reload", "web"]), 2, &["web.toml"]);
    site.assert_unharmed();
}

#[test]
fn a_port_in_use_names_its_holder_and_starts_nothing_of_the_file() {
    let site = Site::new();
    let held = TcpListener::bind(("127.0.0.1", free_port())).expect("a free port");
    let taken = held.local_addr().expect("it is bound").port();
    let pair = server("first", free_port()) + &server("second", taken);
    site.daemon.config("pair.toml", &pair);
    let us = std::process::id().to_string();
    assert_said(&site.ctl(&["start", "./pair.toml"]), 4, &["second", &taken.to_string(), &us, "nothing was started"]);
    assert_eq!(site.daemon.status().apps.len(), 1, "not even the app whose port was free");
    // The same at a reload: the old port goes on to serve.
    site.daemon.config("web.toml", &server("web", taken));
    assert_said(&site.ctl(&["reload", "web"]), 4, &["web", &us]);
    site.assert_unharmed();
    drop(held);
    site.ctl_ok(&["start", "./pair.toml"]);
}

#[test]
fn the_port_of_another_app_is_refused_by_that_apps_name() {
    let site = Site::new();
    site.daemon.config("thief.toml", &server("thief", site.port));
    assert_said(&site.ctl(&["start", "./thief.toml"]), 4, &["thief", "web"]);
    assert_eq!(site.daemon.status().apps.len(), 1);
    site.assert_unharmed();
}

#[test]
fn a_command_that_is_missing_parks_its_app_at_once_and_says_why() {
    let site = Site::new();
    site.daemon.config(
        "bad.toml",
        "[agent.missing]\ncommand = [\"no-such-program-at-all\"]\n[agent.other]\ncommand = [\"sleep\", \"99\"]\n",
    );
    assert_said(&site.ctl(&["start", "./bad.toml"]), 1, &["no-such-program-at-all"]);
    let missing = site.daemon.app("missing");
    assert_eq!(missing.state, AppState::Failed);
    assert!(missing.workers.iter().all(|worker| worker.pid.is_none()), "{missing:#?}");
    assert_eq!(site.daemon.app("other").ready, 1, "the other app of the file runs");
    site.daemon.config("nowhere.toml", "[agent.nowhere]\ncommand = [\"sleep\", \"9\"]\ncwd = \"/no/such/folder\"\n");
    assert_said(&site.ctl(&["start", "./nowhere.toml"]), 2, &["nowhere.toml:3", "/no/such/folder"]);
    site.assert_unharmed();
}

#[test]
fn a_failing_command_is_tried_as_often_as_its_policy_says_and_then_parked() {
    let site = Site::new();
    site.daemon.config(
        "falls.toml",
        "[agent.falls]\ncommand = [\"sh\", \"-c\", \"echo the last words; exit 7\"]\n\
         restart = { backoff = \"1ms..2ms\", max = \"3 in 5m\" }\n",
    );
    // Nothing was said of when it is ready, so the start is done once its program runs.
    site.ctl_ok(&["start", "./falls.toml"]);
    let document = site.daemon.wait_until(PATIENCE, |document| {
        document.apps.iter().any(|app| app.name == "falls" && app.state == AppState::Failed)
    });
    let falls = document.apps.iter().find(|app| app.name == "falls").expect("it is known");
    let exit = falls.workers.iter().find_map(|worker| worker.last_exit.clone()).expect("its end is shown");
    assert_eq!(exit.code, Some(7));
    let shown = site.ctl_ok(&["describe", "falls"]);
    assert!(shown.stdout.contains("the last words"), "{shown:#?}");
    site.assert_unharmed();
}

#[test]
fn a_reload_to_a_command_that_is_missing_is_taken_back() {
    let site = Site::new();
    let broken = server("web", site.port).replace("python3", "no-such-program-at-all");
    site.daemon.config("web.toml", &broken);
    assert_said(&site.ctl(&["reload", "web"]), 5, &["no-such-program-at-all"]);
    site.assert_unharmed();
    site.configure("env = { ANSWER = \"new\" }\n");
    site.ctl_ok(&["reload", "web"]);
    assert_eq!(answer(site.port), "new", "a reload that failed does not stand in the way of the next");
}
