//! The sample servers of `tests/apps`, and what is done to them.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use agentd_testkit::e2e::{Daemon, Load, Mix, Report, Target};

/// Where the sample servers lie.
pub(crate) fn samples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/apps")
}

/// What `tests/prepare` installed.
fn prepared(below: &str) -> String {
    let target = Path::new(env!("CARGO_BIN_EXE_agentd")).ancestors().nth(2).expect("target/<profile>/agentd");
    let path = target.join("test-env").join(below);
    assert!(path.exists(), "{} is missing: run tests/prepare", path.display());
    text(&path)
}

fn text(path: &Path) -> String {
    path.to_str().expect("a path of text").to_owned()
}

/// A program of the Python environment.
pub(crate) fn python(program: &str) -> String {
    prepared(&format!("venv/bin/{program}"))
}

/// Where Node finds its packages.
pub(crate) fn node_modules() -> String {
    prepared("node/node_modules")
}

/// A program of this workspace that lies beside the daemon.
pub(crate) fn built(program: &str) -> String {
    let path = Path::new(env!("CARGO_BIN_EXE_agentd")).with_file_name(program);
    assert!(path.exists(), "{} is missing: run `cargo build --workspace`", path.display());
    text(&path)
}

/// A mix for servers whose answers end their connections, which no client can keep then.
pub(crate) fn without_keepalive() -> Mix {
    Mix { keepalive: 0, ..Mix::default() }
}

/// An app of `tests/apps`, started as `web`.
pub(crate) struct Sample {
    pub(crate) daemon: Daemon,
    runtime: &'static str,
}

impl Sample {
    /// Starts `[agent.web]` with this configuration, in the folder of the sample servers.
    pub(crate) fn start(runtime: &'static str, config: &str) -> Self {
        let daemon = Daemon::start(env!("CARGO_BIN_EXE_agentd"));
        let sample = Self { daemon, runtime };
        sample.configure(config);
        sample.daemon.ctl_ok(&["start", "./web.toml"]);
        sample
    }

    /// Writes another configuration, to be taken up by the next reload.
    pub(crate) fn configure(&self, config: &str) {
        let cwd = samples();
        self.daemon.config("web.toml", &format!("[agent.web]\ncwd = {cwd:?}\n{config}\n"));
    }

    /// Reloads several times under load and tells what came of it.
    pub(crate) fn reload_under_load(&self, reloads: u32, target: impl Into<Target>, mix: Mix) -> Report {
        let mut took = Vec::new();
        let report = Load::run(target, mix, || {
            for _ in 0..reloads {
                let begun = Instant::now();
                self.daemon.ctl_ok(&["reload", "web"]);
                took.push(begun.elapsed());
            }
        });
        let mean = took.iter().sum::<Duration>().as_secs_f64() / f64::from(reloads);
        self.tell(&format!("{reloads} reloads of {mean:.1} s"), &report);
        report
    }

    /// Prints a report, for people.
    pub(crate) fn tell(&self, what: &str, report: &Report) {
        println!("{}: {what}\n{report}", self.runtime);
    }
}
