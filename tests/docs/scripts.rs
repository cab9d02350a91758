//! The examples of docs/reference/scripts.md, run against a real daemon one after the other.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::blocks::{Block, blocks};
use crate::text;

const PAGE: &str = "docs/reference/scripts.md";

/// How long one example, or the end of the daemon, may take.
const DEADLINE: Duration = Duration::from_secs(60);

const APPS: &str = r#"
[agent.support]
command = ["sleep", "infinity"]
workers = 2

[skill.search]
command = ["sleep", "infinity"]
"#;

/// A daemon with the apps that the page speaks of; ends with its workers.
struct Daemon {
    home: TempDir,
}

impl Daemon {
    fn start() -> Self {
        let daemon = Self { home: tempfile::Builder::new().prefix("agentd-docs-").tempdir().unwrap() };
        let config = daemon.home.path().join("apps.toml");
        std::fs::write(&config, APPS).unwrap();
        let output = daemon.bash(&format!("agentctl start {}", config.display()));
        assert!(output.status.success(), "{output:?}");
        daemon
    }

    /// Runs `script` as the page's reader would, with the built programs first on `PATH`.
    fn bash(&self, script: &str) -> Output {
        let programs = programs();
        let path = std::env::var("PATH").unwrap_or_default();
        let seconds = DEADLINE.as_secs().to_string();
        Command::new("timeout")
            .args([&seconds, "bash", "-euo", "pipefail", "-c", script])
            .env("AGENTD_HOME", self.home.path())
            .env("PATH", format!("{}:{path}", programs.display()))
            .stdin(Stdio::null())
            .output()
            .expect("bash and timeout are on every Linux machine")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let begun = Instant::now();
        let output = self.bash("agentctl daemon stop");
        if !std::thread::panicking() {
            assert!(output.status.success(), "{output:?}");
            assert!(begun.elapsed() < DEADLINE);
        }
    }
}

/// Where `agentd` and `agentctl` were built.
fn programs() -> PathBuf {
    let folder = Path::new(env!("CARGO_BIN_EXE_agentd")).parent().unwrap().to_owned();
    assert!(folder.join("agentctl").is_file(), "build it first: cargo build --workspace --bins");
    folder
}

/// The examples with the output that the page shows for them, if it shows one.
fn examples() -> Vec<(Block, Option<String>)> {
    let mut found: Vec<(Block, Option<String>)> = Vec::new();
    let mut before = None;
    for block in blocks(&text(PAGE)) {
        let info = block.info.clone();
        match (info.as_str(), found.last_mut()) {
            ("sh test", _) => found.push((block, None)),
            ("text", Some((_, shown))) if before.as_deref() == Some("sh test") => *shown = Some(block.text),
            _ => {}
        }
        before = Some(info);
    }
    found
}

#[test]
fn every_example_for_scripts_does_what_the_page_says() {
    let daemon = Daemon::start();
    for tool in ["socat", "jq", "python3"] {
        let there = daemon.bash(&format!("command -v {tool}")).status.success();
        assert!(there, "{tool} is missing: install it, or run ./check prepare as root");
    }
    let examples = examples();
    assert!(examples.len() >= 8, "only {} examples were found", examples.len());
    for (example, shown) in examples {
        let output = daemon.bash(&example.text);
        let at = format!("{PAGE}, line {}", example.line);
        assert!(output.status.success(), "{at}: {output:?}");
        if let Some(shown) = shown {
            let said = String::from_utf8_lossy(&output.stdout);
            assert_eq!(said, shown, "{at}: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
}
