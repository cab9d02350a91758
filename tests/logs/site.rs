//! A worker that prints what it is asked for, and what is looked at.

use std::path::PathBuf;
use std::time::Duration;

use agentd_testkit::e2e::Daemon;
use serde_json::Value;

pub(crate) const AGENTD: &str = env!("CARGO_BIN_EXE_agentd");

/// Longest wait for anything that takes milliseconds on an idle machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Pause between two looks, so that who is waited for has the processors.
pub(crate) const BETWEEN_LOOKS: Duration = Duration::from_millis(10);

/// Prints numbered lines of 100 bytes, as many as its first argument says, by 50 at once, and makes the file `printed`. Once
/// there is a file `again` it prints one line more. Then it waits.
const PRINTER: &str = r#"
import os, sys, time
count = int(sys.argv[1])
for start in range(0, count, 50):
    os.write(1, b"".join(b"line %094d\n" % number for number in range(start, start + 50)))
os.write(2, b"all printed\n")
open("printed", "w").close()
while not os.path.exists("again"):
    time.sleep(0.01)
os.write(1, b"printed again\n")
while True:
    time.sleep(3600)
"#;

/// The table of an app `web` that prints, and more keys of it.
pub(crate) fn printer(daemon: &Daemon, lines: usize, keys: &str) -> PathBuf {
    daemon.config("printer.py", PRINTER);
    let table = format!("[agent.web]\ncommand = [\"python3\", \"printer.py\", \"{lines}\"]\n{keys}\n");
    daemon.config("web.toml", &table)
}

/// Waits until all that the printer printed is there. Its two streams come by pipes of their own: the end of one says nothing
/// of the other.
#[track_caller]
pub(crate) fn await_printed(daemon: &Daemon, lines: usize) {
    let deadline = std::time::Instant::now() + PATIENCE;
    for (stream, last) in [("err", "all printed".to_owned()), ("out", format!("{:094}", lines - 1))] {
        while !daemon.ctl(&["logs", "web", "--stream", stream, "-n", "1"]).stdout.contains(&last) {
            assert!(std::time::Instant::now() < deadline, "it prints in time");
            std::thread::sleep(BETWEEN_LOOKS);
        }
    }
}

/// The texts of the lines that a command shows.
pub(crate) fn texts(daemon: &Daemon, arguments: &[&str]) -> Vec<String> {
    let output = daemon.ctl_ok(&[&["logs", "web", "--json"], arguments].concat());
    let text = |line| {
        let line: Value = serde_json::from_str(line).expect("nothing but JSON");
        line["text"].as_str().expect("a line has a text").to_owned()
    };
    output.stdout.lines().map(text).collect()
}

/// The numbers in the lines of the printer.
pub(crate) fn numbers(texts: &[String]) -> Vec<usize> {
    texts.iter().filter_map(|text| text.strip_prefix("line ")?.parse().ok()).collect()
}

/// The names of the files of the app's logs.
pub(crate) fn files(daemon: &Daemon) -> Vec<String> {
    let entries = std::fs::read_dir(daemon.home.path().join("logs/web")).expect("it has logged");
    entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
}
