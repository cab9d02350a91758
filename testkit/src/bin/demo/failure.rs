//! Why the demo could not be shown to its end.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Why the demo could not be shown to its end. Each fits "failed to …".
#[derive(Debug, Error)]
pub(crate) enum DemoError {
    #[error("wait for signals")]
    Signals(#[source] nix::Error),
    #[error("find its own folder")]
    OwnFolder(#[source] io::Error),
    #[error("make a folder for the daemon")]
    Folder(#[source] io::Error),
    #[error("read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("write {path}")]
    Write { path: PathBuf, source: io::Error },
    #[error("remove {path}")]
    Remove { path: PathBuf, source: io::Error },
    #[error("find a free port")]
    Port(#[source] io::Error),
    #[error("start {program} (does ./demo build it?)")]
    Program { program: PathBuf, source: io::Error },
    #[error("run agentctl {command}: it ended with {status}\n{said}")]
    Agentctl { command: String, status: String, said: String },
    #[error("understand what agentctl {command} printed: {said}")]
    Answer { command: String, said: String, source: serde_json::Error },
    #[error("watch {path}")]
    Watch { path: PathBuf, source: io::Error },
    #[error("find a worker to kill: none is ready")]
    NoVictim,
    #[error("kill worker {pid}")]
    Kill { pid: i32, source: nix::Error },
    #[error("see the killed worker start again within {seconds} s")]
    NoRestart { seconds: u64 },
    #[error("see the long task end within {seconds} s")]
    NoEnd { seconds: u64 },
    #[error("end the daemon (pid {pid}) within {seconds} s; its log is in {log}")]
    DaemonStays { pid: u32, seconds: u64, log: PathBuf },
}

/// The error and what caused it, in one line.
pub(crate) fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
