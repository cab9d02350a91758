//! The wall clock is set, forward and back, while a fleet runs.

use std::fs;
use std::path::Path;
use std::process::Command;

use agentd_testkit::e2e::{Daemon, Home};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::site::{AGENTD, PATIENCE, serves, until, web};

/// Adds the seconds in the file `AGENTD_TEST_CLOCK` to the wall clock of whoever it is loaded into: the machine's own is
/// everybody's.
const SHIFTED: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t clock, struct timespec *at) {
    int result = syscall(SYS_clock_gettime, clock, at);
    const char *path = getenv("AGENTD_TEST_CLOCK");
    if (result != 0 || clock != CLOCK_REALTIME || !path) return result;
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return result;
    char text[32] = {0};
    if (read(file, text, sizeof text - 1) > 0) at->tv_sec += atol(text);
    close(file);
    return result;
}
"#;

const DAY: i64 = 24 * 3600;

fn shifted(folder: &Path) -> Option<String> {
    let (source, library) = (folder.join("clock.c"), folder.join("clock.so"));
    fs::write(&source, SHIFTED).expect("the home takes files");
    let built = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).args([&library, &source]).status();
    if !built.is_ok_and(|status| status.success()) {
        eprintln!("skipped: there is no C compiler");
        return None;
    }
    Some(library.display().to_string())
}

#[test]
fn a_clock_that_is_set_forward_and_back_starts_and_stops_nothing_and_every_wait_ends() {
    let home = Home::new();
    let clock = home.path().join("clock");
    let set = |seconds: i64| {
        let beside = clock.with_extension("new");
        fs::write(&beside, seconds.to_string()).and_then(|()| fs::rename(&beside, &clock)).expect("it is written");
    };
    set(0);
    let Some(library) = shifted(home.path()) else { return };
    let keys = "workers = 2\nlive = { http = \"/\", every = \"200ms\" }\nrestart = { backoff = \"200ms..1s\" }\n\
                cron_reload = { at = \"0 0 29 2 *\", tz = \"UTC\" }";
    let port = web(&home, keys);
    let (preload, file) = (format!("LD_PRELOAD={library}"), format!("AGENTD_TEST_CLOCK={}", clock.display()));
    let daemon = Daemon::start_by(AGENTD, home, &["env", &preload, &file]);
    daemon.ctl_ok(&["start", "./web.toml"]);
    let pids = || {
        let workers = daemon.app("web").workers.into_iter();
        workers.filter_map(|worker| worker.pid).collect::<std::collections::BTreeSet<u32>>()
    };
    let shown_at = || daemon.status().now.as_second();
    let before = pids();
    for (days, ahead) in [(3, true), (-3, false), (0, true)] {
        let then = shown_at();
        set(days * DAY);
        assert_eq!(shown_at() > then + DAY, ahead, "the daemon sees another clock");
        assert!(serves(port), "{days} days");
        assert_eq!(pids(), before, "nobody was stopped at {days} days");
        let log = daemon.ctl_ok(&["logs", "web", "-n", "5"]);
        assert!(log.stdout.contains("printed all"), "{days} days: {log:#?}");
    }
    set(-DAY);
    let victim = *pids().first().expect("two serve");
    kill(Pid::from_raw(i32::try_from(victim).expect("a pid")), Signal::SIGKILL).expect("it is ours");
    set(DAY);
    until("another serves in its place", || pids().len() == 2 && !pids().contains(&victim));
    daemon.wait_until(PATIENCE, |document| document.apps[0].ready == 2);
    set(-2 * DAY);
    daemon.ctl_ok(&["reload", "web"]);
    assert!(serves(port));
    let numbers: Vec<u64> = daemon
        .ctl_ok(&["events", "--json"])
        .stdout
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok()?["seq"].as_u64())
        .collect();
    assert!(numbers.len() > 3 && numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{numbers:?}");
    // The cron_reload of a leap day did not come: the one reload was ours.
    assert!(daemon.app("web").workers.iter().all(|worker| worker.id.ends_with(".2")), "{:?}", daemon.app("web"));
}
