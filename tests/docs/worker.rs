//! The worker of docs/reference/worker-protocol.md, run as it stands there: what it hears is what the page shows.

use std::time::{Duration, Instant};

use agentd_testkit::e2e::Daemon;

use crate::blocks::blocks;
use crate::text;

/// Longest wait for what takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn a_worker_in_plain_nc_hears_what_its_page_shows() {
    let page = blocks(&text("docs/reference/worker-protocol.md"));
    let block = |info: &str| {
        let found = page.iter().find(|block| block.info == info);
        found.map(|block| block.text.clone()).unwrap_or_else(|| panic!("no block is marked {info:?}"))
    };
    let daemon = Daemon::start(env!("CARGO_BIN_EXE_agentd"));
    daemon.config("greeter.sh", &block("sh worker"));
    let config = "[skill.greeter]\ncommand = [\"sh\", \"greeter.sh\"]\nready = \"protocol\"\n";
    daemon.config("greeter.toml", config);
    daemon.ctl_ok(&["start", "./greeter.toml"]);
    let wanted = block("text answers");
    let deadline = Instant::now() + PATIENCE;
    loop {
        let output = daemon.ctl_ok(&["logs", "greeter", "--json"]).stdout;
        let lines =
            output.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("a line of a log"));
        let heard: String = lines.filter_map(|line| Some(format!("{}\n", line["text"].as_str()?))).collect();
        if heard.lines().count() >= wanted.lines().count() || Instant::now() > deadline {
            assert_eq!(heard, wanted);
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let tasks: serde_json::Value = daemon.ctl_ok(&["tasks", "--state", "ended", "--json"]).json();
    assert_eq!((&tasks["tasks"][0]["id"], &tasks["tasks"][0]["why"]), (&"greet-ada".into(), &"ok".into()), "{tasks}");
}
