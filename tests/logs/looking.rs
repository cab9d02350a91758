//! Looking through logs by time and by pattern.

use agentd_protocol::Timestamp;
use agentd_testkit::e2e::Daemon;

use crate::site::{AGENTD, await_printed, numbers, printer, texts};

#[test]
fn lines_are_found_by_pattern_and_by_time_over_all_files() {
    let daemon = Daemon::start(AGENTD);
    printer(&daemon, 40_000, "log = { max_size = \"1M\" }");
    let before = Timestamp::now().to_string();
    daemon.ctl_ok(&["start", "./web.toml"]);
    await_printed(&daemon, 40_000);
    let after = Timestamp::now().to_string();
    let found = |arguments: &[&str]| numbers(&texts(&daemon, arguments));
    assert_eq!(found(&["--grep", "line 0+77$"]), [77]);
    assert_eq!(found(&["--grep", "000$", "-n", "2"]), [38_000, 39_000]);
    assert_eq!(found(&["--since", &before]).len(), 40_000);
    assert_eq!(found(&["--since", &before, "-n", "5", "--stream", "out"]), [39_995, 39_996, 39_997, 39_998, 39_999]);
    assert_eq!(found(&["--since", &after]).len(), 0);
    assert_eq!(found(&["--until", &before]).len(), 0);
    assert_eq!(found(&["--since", "1h", "--until", &after, "--grep", "9999$"]), [9_999, 19_999, 29_999, 39_999]);
}

#[test]
fn what_is_no_pattern_or_no_time_is_refused_in_words() {
    let daemon = Daemon::start(AGENTD);
    let refused = daemon.ctl(&["logs", "--grep", "("]);
    assert_eq!(refused.code, Some(2), "{refused:#?}");
    assert!(refused.stderr.contains("pattern"), "{refused:#?}");
    let refused = daemon.ctl(&["logs", "--since", "yesterday"]);
    assert_eq!(refused.code, Some(2), "{refused:#?}");
    assert!(refused.stderr.contains("10m"), "{refused:#?}");
}
