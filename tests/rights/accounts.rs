//! Workers under users of their own.

use agentd_testkit::e2e::Daemon;

use crate::site::{AGENTD, NOBODY, is_root, open_home, teller, written};

#[test]
fn a_worker_runs_as_its_user_with_its_groups_and_home_and_can_still_say_that_it_is_ready() {
    if !is_root() {
        return;
    }
    let home = open_home();
    let tell = teller(&home, "user = \"nobody\"\ngroups = [\"daemon\"]\numask = \"0027\"\nlimits.files = 512");
    let daemon = Daemon::start_in(AGENTD, home);
    daemon.ctl_ok(&["start", "./teller.toml"]);
    let told = written(&tell);
    assert_eq!(told["uid"], serde_json::json!([NOBODY, NOBODY, NOBODY]));
    assert_eq!(told["gid"], serde_json::json!([NOBODY, NOBODY, NOBODY]));
    assert_eq!(told["groups"], serde_json::json!([1, NOBODY]));
    assert_eq!((&told["env"]["USER"], &told["env"]["LOGNAME"]), (&"nobody".into(), &"nobody".into()));
    assert_eq!(told["env"]["HOME"], "/nonexistent");
    assert_eq!((told["umask"].as_u64(), told["files"].as_u64()), (Some(0o027), Some(512)));
    assert_eq!(told["stdout"], true, "a program may open its output by name");
    let worker = daemon.app("teller").workers.remove(0);
    assert_eq!(worker.status_text.as_deref(), Some("told"));
    // It survives the daemon and is stopped by the next one.
    let mut daemon = daemon;
    daemon.kill();
    daemon.start_again();
    assert_eq!(daemon.app("teller").workers[0].pid, worker.pid);
}

#[test]
fn a_user_that_is_gone_by_the_time_of_the_start_or_may_not_enter_its_folder_is_named() {
    if !is_root() {
        return;
    }
    let home = open_home();
    teller(&home, "user = \"nobody\"");
    crate::site::mode(home.path(), 0o700);
    let daemon = Daemon::start_in(AGENTD, home);
    let output = daemon.ctl(&["start", "./teller.toml"]);
    assert_eq!(output.code, Some(1), "{output:#?}");
    assert!(output.stderr.contains("changing to directory"), "{output:#?}");
    assert!(output.stderr.contains("Permission denied"), "{output:#?}");
}

#[test]
fn a_user_that_nobody_is_is_refused_before_anything_is_started() {
    let home = open_home();
    teller(&home, "user = \"no-such-user-here\"");
    let daemon = Daemon::start_in(AGENTD, home);
    let output = daemon.ctl(&["start", "./teller.toml"]);
    assert_eq!(output.code, Some(2), "{output:#?}");
    assert!(output.stderr.contains("there is no user \"no-such-user-here\""), "{output:#?}");
    assert!(daemon.status().apps.is_empty());
}

#[test]
fn a_daemon_that_is_not_root_refuses_other_users_and_takes_its_own() {
    let home = open_home();
    let tell = teller(&home, "user = \"root\"");
    let id = NOBODY.to_string();
    let daemon = match nix::unistd::geteuid().is_root() {
        true => {
            crate::site::give(home.path());
            Daemon::start_by(AGENTD, home, &["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups"])
        }
        false => Daemon::start_in(AGENTD, home),
    };
    let output = daemon.ctl(&["start", "./teller.toml"]);
    assert_eq!(output.code, Some(2), "{output:#?}");
    assert!(output.stderr.contains("only a daemon that runs as root starts workers as user"), "{output:#?}");
    let own = if nix::unistd::geteuid().is_root() { id } else { nix::unistd::geteuid().to_string() };
    teller(&daemon.home, &format!("user = \"{own}\""));
    daemon.ctl_ok(&["start", "./teller.toml"]);
    assert_eq!(written(&tell)["uid"][1].to_string(), own);
}
