//! The sample servers of `tests/apps`, and what is done to them.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use agentd_testkit::e2e::{Daemon, Load, Mix, Report, Target};

/// Where the sample servers lie.
pub(crate) fn samples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/apps")
}

/// A program that `tests/prepare` installed.
fn prepared(below: &str) -> String {
    let target = Path::new(env!("CARGO_BIN_EXE_agentd")).ancestors().nth(2).expect("target/<profile>/agentd");
    let path = target.join("test-env").join(below);
    assert!(path.exists(), "{} is missing: run tests/prepare", path.display());
    path.to_str().expect("a path of text").to_owned()
}

/// A program of the Python environment.
pub(crate) fn python(program: &str) -> String {
    prepared(&format!("venv/bin/{program}"))
}

/// A daemon with the binary of this build.
pub(crate) fn daemon() -> Daemon {
    Daemon::start(env!("CARGO_BIN_EXE_agentd"))
}

/// An app of `tests/apps`, started as `web`.
pub(crate) struct Sample {
    pub(crate) daemon: Daemon,
    runtime: &'static str,
    target: Target,
}

impl Sample {
    /// Starts `[agent.web]` with this configuration; `target` is where clients connect.
    pub(crate) fn start(runtime: &'static str, target: impl Into<Target>, config: &str) -> Self {
        let daemon = daemon();
        let sample = Self { daemon, runtime, target: target.into() };
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
    pub(crate) fn reload_under_load(&self, reloads: u32, mix: Mix) -> Report {
        let mut took = Vec::new();
        let report = Load::run(self.target.clone(), mix, || {
            for _ in 0..reloads {
                let begun = Instant::now();
                self.daemon.ctl_ok(&["reload", "web"]);
                took.push(begun.elapsed());
            }
        });
        let mean = took.iter().sum::<Duration>().as_secs_f64() / f64::from(reloads);
        println!("{}: {reloads} reloads of {mean:.1} s\n{report}", self.runtime);
        report
    }
}
