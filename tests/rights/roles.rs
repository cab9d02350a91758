//! Who may look and who may change, by user and by group.

use std::os::unix::fs::PermissionsExt;

use agentd_testkit::e2e::Daemon;

use crate::site::{AGENTD, NOBODY, PATIENCE, ctl_as_nobody, give, is_root, mode, open_home, teller};

fn daemon(settings: &str) -> Daemon {
    let home = open_home();
    teller(&home, "");
    if !settings.is_empty() {
        home.write("daemon.toml", settings);
    }
    let daemon = Daemon::start_in(AGENTD, home);
    daemon.ctl_ok(&["start", "./teller.toml"]);
    daemon
}

fn mode_of(path: &std::path::Path) -> u32 {
    std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777
}

/// What commands of nobody, in these further groups, come to: looking by the status socket, by the control socket,
/// and changing.
fn codes(daemon: &Daemon, groups: &str) -> [Option<i32>; 3] {
    [&["ls"][..], &["describe", "teller"], &["signal", "teller", "WINCH"]]
        .map(|arguments| ctl_as_nobody(daemon, groups, arguments).code)
}

#[test]
fn without_roles_only_the_owner_and_root_may_do_anything() {
    if !is_root() {
        return;
    }
    let daemon = daemon("");
    assert_eq!(codes(&daemon, ""), [Some(8); 3]);
    // Of the daemon's own group: the status is readable.
    assert_eq!(codes(&daemon, "0"), [Some(0), Some(8), Some(8)]);
}

#[test]
fn a_viewer_looks_and_is_told_clearly_that_it_may_not_change() {
    if !is_root() {
        return;
    }
    let settings = format!("[daemon]\nroles = {{ view = [\"{NOBODY}\"], operate = [\"group:daemon\"] }}\n");
    let daemon = daemon(&settings);
    assert_eq!(codes(&daemon, ""), [Some(0), Some(0), Some(8)]);
    let refused = ctl_as_nobody(&daemon, "", &["stop", "teller"]);
    assert_eq!(refused.code, Some(8));
    let words = format!("user {NOBODY} may look (role view), and stop changes things");
    assert!(refused.stderr.contains(&words) && refused.stderr.contains("daemon.toml"), "{refused:#?}");
    let json = ctl_as_nobody(&daemon, "", &["stop", "teller", "--json"]);
    assert_eq!((json.code, json.json::<serde_json::Value>()["error"]["kind"].clone()), (Some(8), "forbidden".into()));
    assert_eq!(daemon.app("teller").ready, 1);
    // The same user in a further group that may operate: SO_PEERGROUPS, not the effective group.
    assert_eq!(codes(&daemon, "1"), [Some(0); 3]);
}

#[test]
fn a_stranger_is_turned_away_from_both_sockets_where_others_have_roles() {
    if !is_root() {
        return;
    }
    let daemon = daemon("[daemon]\nroles = { view = [\"1\"], operate = [\"no-such-user-here\"] }\n");
    assert_eq!(codes(&daemon, ""), [Some(8); 3]);
    let refused = ctl_as_nobody(&daemon, "", &["ls"]);
    assert!(refused.stderr.contains("may not read the status"), "{refused:#?}");
    let notes = daemon.ctl_ok(&["daemon", "status"]).stdout;
    assert!(notes.contains("there is no user \"no-such-user-here\""), "{notes}");
}

#[test]
fn settings_that_others_may_write_or_that_are_not_valid_grant_nothing_and_the_daemon_serves() {
    if !is_root() {
        return;
    }
    let settings = format!("[daemon]\nroles = {{ operate = [\"{NOBODY}\"] }}\n");
    let mut daemon = daemon(&settings);
    assert_eq!(codes(&daemon, ""), [Some(0); 3]);
    let path = daemon.home.path().join("daemon.toml");
    for spoil in [0, 1] {
        match spoil {
            0 => give(&path),
            _ => {
                daemon.config("daemon.toml", "[daemon]\nroles = { operate = 1 }\n");
                mode(&path, 0o644);
            }
        }
        daemon.kill();
        daemon.start_again();
        assert_eq!(codes(&daemon, ""), [Some(8); 3]);
        assert_eq!(daemon.app("teller").ready, 1);
        let notes = daemon.ctl_ok(&["daemon", "status"]).stdout;
        assert!(notes.contains("nobody has a role by it"), "{notes}");
    }
}

#[test]
fn settings_are_read_again_at_a_sighup_and_those_that_are_not_valid_change_nothing() {
    if !is_root() {
        return;
    }
    let daemon = daemon("");
    let hang_up = || {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(daemon.pid()).expect("a pid"));
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGHUP).expect("it lives");
    };
    let becomes = |expected: [Option<i32>; 3]| {
        hang_up();
        let deadline = std::time::Instant::now() + PATIENCE;
        while codes(&daemon, "") != expected {
            assert!(std::time::Instant::now() < deadline, "{:?}, not {expected:?}", codes(&daemon, ""));
        }
    };
    assert_eq!(codes(&daemon, ""), [Some(8); 3]);
    let viewer = format!("[daemon]\nroles = {{ view = [\"{NOBODY}\"] }}\n");
    daemon.config("daemon.toml", &viewer);
    becomes([Some(0), Some(0), Some(8)]);
    daemon.config("daemon.toml", &viewer.replace("view", "operate"));
    becomes([Some(0); 3]);
    daemon.config("daemon.toml", "[daemon]\nroles = { operate = 1 }\n");
    hang_up();
    let deadline = std::time::Instant::now() + PATIENCE;
    while !daemon.ctl_ok(&["daemon", "status"]).stdout.contains("what it said before still holds") {
        assert!(std::time::Instant::now() < deadline, "nobody is told");
    }
    assert_eq!(codes(&daemon, ""), [Some(0); 3]);
    daemon.config("daemon.toml", "");
    becomes([Some(8); 3]);
    assert_eq!(mode_of(&daemon.home.socket("control.sock")), 0o600);
}
