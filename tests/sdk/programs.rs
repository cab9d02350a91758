//! What the tests run: programs of the workspace and of the environment that `tests/prepare` made.

use std::path::{Path, PathBuf};

/// A file of this repository.
pub(crate) fn source(below: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(below)
}

/// A program of this workspace that lies beside the daemon.
pub(crate) fn built(program: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_agentd")).with_file_name(program);
    assert!(path.exists(), "{} is missing: run `cargo build --workspace`", path.display());
    path
}

fn prepared(below: &str) -> PathBuf {
    let target = Path::new(env!("CARGO_BIN_EXE_agentd")).ancestors().nth(2).expect("target/<profile>/agentd");
    let path = target.join("test-env").join(below);
    assert!(path.exists(), "{} is missing: run tests/prepare", path.display());
    path
}

/// The Python that has the packages of the tests.
pub(crate) fn python() -> PathBuf {
    prepared("venv/bin/python")
}

/// Where Node finds its packages.
pub(crate) fn node_modules() -> PathBuf {
    prepared("node/node_modules")
}
