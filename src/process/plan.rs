//! What the supervisor asks of the shim, and what the shim answers.
//!
//! Owns the types that cross the socket between the two, and their words for people. Both ends are always the same
//! binary (see [`Launcher`](super::spawn::Launcher)), so the format needs no version and may change at will.

use std::fmt;

use camino::Utf8PathBuf;
use nix::errno::Errno;
use rustix::process::Resource;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::account::Account;
use super::secret::{Road, Secret, file_variable};

/// Everything that a program is started with, except its descriptors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecPlan {
    /// The program and its arguments. A program without a slash is looked for in the `PATH` of [`env`](Self::env); one
    /// with a slash is taken relative to [`cwd`](Self::cwd).
    pub argv: Vec<String>,
    /// The directory it starts in, absolute.
    pub cwd: Utf8PathBuf,
    /// Its whole environment: nothing is inherited. `LISTEN_*` and `AGENTD_FD_*` are added by the shim and replace
    /// what is given here.
    pub env: Vec<(String, String)>,
    /// The permission bits that files it makes do not get, such as `0o022`.
    pub umask: u32,
    /// Resource limits, set as soft and hard limit both; `u64::MAX` is no limit. Those not named are inherited.
    pub limits: Vec<(Limit, u64)>,
    /// Soft limit of open files where [`Self::limits`] does not name it; the hard one stays. The supervisor raises its own
    /// soft limit, which is no reason for workers to have another than their user.
    pub soft_files: Option<u64>,
    /// The cgroup to enter: its directory in the file system.
    pub cgroup: Option<Utf8PathBuf>,
    /// Names of the descriptors passed from 3 on, in their order.
    pub listen_names: Vec<String>,
    /// Whether `LISTEN_PID` is set. Without it, wrappers that fork keep the descriptors usable.
    pub listen_pid: bool,
    /// Whether it is given Node's channel, as the descriptor behind those: a socket beside `NOTIFY_SOCKET`, connected to it.
    #[serde(default)]
    pub node_channel: bool,
    /// Whether it is given a standard input; `/dev/null` otherwise.
    #[serde(default)]
    pub stdin: bool,
    /// Who it runs as.
    #[serde(default)]
    pub account: Account,
    /// What it is given and nobody is told.
    #[serde(default)]
    pub secrets: Secrets,
}

/// The secrets of a plan: where they are, never what they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secrets {
    /// Each of them.
    pub given: Vec<Secret>,
    /// The private folder for those that go by file; made when there is one.
    pub folder: Utf8PathBuf,
}

impl Secrets {
    /// What a command beside the program gets: the same variables, and the files that the program has.
    #[must_use]
    pub fn beside(self) -> (Self, Vec<(String, String)>) {
        let path = |secret: &Secret| (file_variable(&secret.name), self.folder.join(&secret.name).into_string());
        let (files, given): (Vec<_>, _) = self.given.iter().cloned().partition(|secret| secret.road == Road::File);
        let variables = files.iter().map(path).collect();
        (Self { given, folder: self.folder }, variables)
    }
}

/// A resource limit that can be set for a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// Open descriptors.
    Files,
    /// Processes and threads of the user.
    Processes,
    /// Size of a core file, in bytes.
    Core,
    /// Size of a file written, in bytes.
    FileSize,
    /// Size of the main thread's stack, in bytes.
    Stack,
    /// Size of the address space, in bytes.
    AddressSpace,
    /// Memory locked, in bytes.
    LockedMemory,
    /// Processor time, in seconds.
    CpuSeconds,
}

impl Limit {
    pub(super) const fn resource(self) -> Resource {
        match self {
            Self::Files => Resource::Nofile,
            Self::Processes => Resource::Nproc,
            Self::Core => Resource::Core,
            Self::FileSize => Resource::Fsize,
            Self::Stack => Resource::Stack,
            Self::AddressSpace => Resource::As,
            Self::LockedMemory => Resource::Memlock,
            Self::CpuSeconds => Resource::Cpu,
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Files => "files",
            Self::Processes => "processes",
            Self::Core => "core",
            Self::FileSize => "file_size",
            Self::Stack => "stack",
            Self::AddressSpace => "address_space",
            Self::LockedMemory => "locked_memory",
            Self::CpuSeconds => "cpu_seconds",
        })
    }
}

/// What the shim was doing when it failed, in the order in which it does it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// Reading the plan and the descriptors that the supervisor sent.
    ReadingPlan,
    /// Leaving the supervisor's session and process group.
    MakingSession,
    /// Moving itself to the worker's cgroup.
    EnteringCgroup(Utf8PathBuf),
    /// Looking up who it is to run as.
    LookingUpAccount(String),
    /// Reading a secret, or putting it where only the program finds it.
    DeliveringSecret(String),
    /// Giving the program's user what the supervisor made for it.
    GivingOver(Utf8PathBuf),
    /// Becoming the program's user.
    TakingAccount(String),
    /// Changing to the working directory.
    ChangingDirectory(Utf8PathBuf),
    /// Making Node's channel to the supervisor.
    MakingChannel(Utf8PathBuf),
    /// Putting standard streams and listeners at their numbers.
    PlacingDescriptors,
    /// Looking for the program.
    FindingProgram(String),
    /// Setting a resource limit.
    SettingLimit(Limit),
    /// Becoming the program.
    Executing(Utf8PathBuf),
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ReadingPlan => f.write_str("reading the plan"),
            Self::MakingSession => f.write_str("making a session"),
            Self::EnteringCgroup(dir) => write!(f, "entering cgroup {dir}"),
            Self::LookingUpAccount(who) => write!(f, "looking up {who}"),
            Self::DeliveringSecret(name) => write!(f, "delivering secret {name}"),
            Self::MakingChannel(path) => write!(f, "making Node's channel {path}"),
            Self::GivingOver(path) => write!(f, "giving {path} to its user"),
            Self::TakingAccount(who) => write!(f, "becoming {who}"),
            Self::ChangingDirectory(dir) => write!(f, "changing to directory {dir}"),
            Self::PlacingDescriptors => f.write_str("placing descriptors"),
            Self::FindingProgram(name) => write!(f, "finding the program {name}"),
            Self::SettingLimit(limit) => write!(f, "setting limit {limit}"),
            Self::Executing(path) => write!(f, "executing {path}"),
        }
    }
}

/// Why a process did not become the program it was started for.
#[derive(Clone, Debug, Error, PartialEq, Eq, Serialize, Deserialize)]
#[error("{stage}: {detail}")]
pub struct StageFailure {
    /// What it was doing.
    pub stage: Stage,
    /// What the kernel refused it with; absent where the plan itself cannot be carried out.
    pub errno: Option<i32>,
    /// What was wrong, in words. Holds the meaning of `errno` too.
    pub detail: String,
}

impl StageFailure {
    /// A failure that the kernel's own words describe well enough.
    pub(super) fn refused(stage: Stage, errno: rustix::io::Errno) -> Self {
        let detail = Errno::from_raw(errno.raw_os_error()).desc().to_owned();
        Self { stage, errno: Some(errno.raw_os_error()), detail }
    }

    /// A failure that needs words of its own.
    pub(super) fn explained(stage: Stage, errno: Option<rustix::io::Errno>, detail: impl Into<String>) -> Self {
        Self { stage, errno: errno.map(rustix::io::Errno::raw_os_error), detail: detail.into() }
    }

    /// This failure with texts of at most [`TEXT_MAX`] bytes, so that it fits a message whatever the plan held.
    pub(super) fn shortened(self) -> Self {
        let stage = match self.stage {
            Stage::EnteringCgroup(dir) => Stage::EnteringCgroup(shorten(dir.into()).into()),
            Stage::LookingUpAccount(who) => Stage::LookingUpAccount(shorten(who)),
            Stage::DeliveringSecret(name) => Stage::DeliveringSecret(shorten(name)),
            Stage::MakingChannel(path) => Stage::MakingChannel(shorten(path.into()).into()),
            Stage::GivingOver(path) => Stage::GivingOver(shorten(path.into()).into()),
            Stage::TakingAccount(who) => Stage::TakingAccount(shorten(who)),
            Stage::ChangingDirectory(dir) => Stage::ChangingDirectory(shorten(dir.into()).into()),
            Stage::FindingProgram(name) => Stage::FindingProgram(shorten(name)),
            Stage::Executing(path) => Stage::Executing(shorten(path.into()).into()),
            other
            @ (Stage::ReadingPlan | Stage::MakingSession | Stage::PlacingDescriptors | Stage::SettingLimit(_)) => other,
        };
        Self { stage, errno: self.errno, detail: shorten(self.detail) }
    }

    /// The status that the shim exits with: as shells have it, 127 where there is no such program and 126 where it
    /// could not be run.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self.stage {
            Stage::FindingProgram(_) if self.errno == Some(Errno::ENOENT as i32) => 127,
            Stage::ReadingPlan
            | Stage::MakingSession
            | Stage::EnteringCgroup(_)
            | Stage::LookingUpAccount(_)
            | Stage::DeliveringSecret(_)
            | Stage::MakingChannel(_)
            | Stage::GivingOver(_)
            | Stage::TakingAccount(_)
            | Stage::ChangingDirectory(_)
            | Stage::PlacingDescriptors
            | Stage::FindingProgram(_)
            | Stage::SettingLimit(_)
            | Stage::Executing(_) => 126,
        }
    }
}

/// Longest text of a failure that is told, in bytes.
const TEXT_MAX: usize = 1024;

fn shorten(mut text: String) -> String {
    if text.len() > TEXT_MAX {
        text.truncate(text.floor_char_boundary(TEXT_MAX));
        text.push('…');
    }
    text
}

/// What the shim tells its supervisor. After either word it says nothing more, unless becoming the program fails.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum ShimWord {
    /// All is prepared; the next thing is `execve`. The socket's end after this means that it happened.
    Executing,
    /// It came to an end here.
    Failed(StageFailure),
}

/// The environment variable that holds the number of the descriptor named `name`: `AGENTD_FD_HTTP_2` for `http-2`.
#[must_use]
pub fn fd_variable(name: &str) -> String {
    let upper = name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' });
    "AGENTD_FD_".chars().chain(upper).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_descriptor_becomes_a_name_that_shells_take() {
        assert_eq!(fd_variable("http"), "AGENTD_FD_HTTP");
        assert_eq!(fd_variable("web-2.x"), "AGENTD_FD_WEB_2_X");
    }

    #[test]
    fn a_failure_names_its_stage_and_exits_as_a_shell_would() {
        let missing = StageFailure::refused(Stage::FindingProgram("uvicorn".into()), rustix::io::Errno::NOENT);
        assert_eq!(missing.to_string(), "finding the program uvicorn: No such file or directory");
        assert_eq!(missing.exit_code(), 127);
        let refused = StageFailure::refused(Stage::ChangingDirectory("/x".into()), rustix::io::Errno::NOENT);
        assert_eq!(refused.exit_code(), 126);
    }
}
