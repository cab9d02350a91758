//! A home folder that somebody removed.

use std::fs;

use agentd_testkit::e2e::{Daemon, Home, ProcessEnd};

use crate::site::{AGENTD, PATIENCE, serves, web};

#[test]
fn when_the_home_is_removed_workers_serve_on_and_the_daemon_leaves_when_it_is_told() {
    let home = Home::new();
    let port = web(&home, "");
    let mut daemon = Daemon::start_in(AGENTD, home);
    daemon.ctl_ok(&["start", "./web.toml"]);
    let workers: Vec<u32> = daemon.app("web").workers.iter().filter_map(|worker| worker.pid).collect();
    let ends: Vec<ProcessEnd> = workers.iter().filter_map(|&pid| ProcessEnd::of(pid)).collect();
    for folder in ["state", "run", "logs"] {
        fs::remove_dir_all(daemon.home.path().join(folder)).expect("it is ours");
    }
    assert!(serves(port));
    let output = daemon.ctl(&["daemon", "status"]);
    assert_eq!(output.code, Some(6), "nobody can be asked: {output:#?}");
    // By the signal that leaves the workers; nothing can be saved, and nothing hangs or fails for it.
    daemon.terminate();
    daemon.await_end(PATIENCE);
    assert!(serves(port), "its workers outlive it");
    for end in ends {
        end.kill();
    }
}
