//! Names, numbers and states that do not fit what is asked for.

use crate::site::{Site, answer, assert_said};

#[test]
fn a_name_that_nobody_has_is_three_and_a_near_one_is_suggested() {
    let site = Site::new();
    for command in [
        &["stop", "wep"] as &[&str],
        &["restart", "wep"],
        &["reload", "wep"],
        &["delete", "wep"],
        &["scale", "wep", "3"],
        &["signal", "wep", "HUP"],
        &["describe", "wep"],
        &["logs", "wep"],
        &["status", "wep"],
    ] {
        assert_said(&site.ctl(command), 3, &["wep", "web"]);
    }
    assert_said(&site.ctl(&["reload", "web", "wep"]), 3, &["did you mean web?"]);
    assert_said(&site.ctl(&["stop", "../../etc"]), 3, &["../../etc"]);
    site.assert_unharmed();
}

#[test]
fn a_start_of_what_runs_changes_nothing_and_says_so() {
    let site = Site::new();
    for again in [&["start", "./web.toml"] as &[&str], &["start", "web"]] {
        let output = site.ctl_ok(again);
        assert!(output.stdout.contains("already"), "{output:#?}");
        site.assert_unharmed();
    }
    site.configure("env = { ANSWER = \"new\" }\n");
    let output = site.ctl_ok(&["start", "./web.toml"]);
    assert!(format!("{}{}", output.stdout, output.stderr).contains("agentctl reload web"), "{output:#?}");
    site.assert_unharmed();
}

#[test]
fn a_number_of_workers_that_cannot_be_is_refused() {
    let site = Site::new();
    for number in ["0", "5000", "-1", "many", "99999999999"] {
        let output = site.ctl(&["scale", "web", number]);
        assert_eq!(output.code, Some(2), "{output:#?}");
        site.assert_unharmed();
    }
}

#[test]
fn what_is_stopped_is_not_reloaded_and_what_is_deleted_can_be_started_anew() {
    let site = Site::new();
    site.ctl_ok(&["stop", "web"]);
    assert_said(&site.ctl(&["reload", "web"]), 4, &["stopped", "agentctl start web"]);
    site.ctl_ok(&["stop", "web"]);
    site.ctl_ok(&["start", "web"]);
    assert_eq!(answer(site.port), "ok");
    site.ctl_ok(&["delete", "web"]);
    assert!(site.daemon.status().apps.is_empty());
    assert_said(&site.ctl(&["start", "web"]), 2, &["web"]);
    site.ctl_ok(&["start", "./web.toml"]);
    assert_eq!(answer(site.port), "ok");
}

#[test]
fn a_command_line_that_makes_no_sense_is_two_and_reaches_no_daemon() {
    let site = Site::new();
    for wrong in [
        &["relod", "web"] as &[&str],
        &["reload"],
        &["reload", "web", "--timeout", "soon"],
        &["reload", "web", "--no-wait", "--timeout", "1s"],
        &["signal", "web", "SIGNOPE"],
        &["logs", "web", "-n", "many"],
        &["start", "./web.toml", "--name", "x"],
        &["start", "./no-such-script.py"],
    ] {
        let output = site.ctl(wrong);
        assert_eq!(output.code, Some(2), "{output:#?}");
        assert!(!output.stderr.is_empty() && output.stdout.is_empty(), "{output:#?}");
    }
    site.assert_unharmed();
}
