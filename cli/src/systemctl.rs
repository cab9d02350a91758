//! Asking systemd, by its own command.
//!
//! Owns how `systemctl` is called and what its words mean; what is asked for is its callers' affair.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use thiserror::Error;

/// Which systemd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// The machine's.
    System,
    /// That of this user.
    User,
}

/// systemd was not asked, or refused.
#[derive(Debug, Error)]
pub(crate) enum SystemctlError {
    /// The command does not run.
    #[error("running {command}: {source}")]
    Run {
        /// As it would be typed.
        command: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// It failed.
    #[error("{command} failed:\n{said}")]
    Failed {
        /// As it would be typed.
        command: String,
        /// What it printed.
        said: String,
    },
}

/// What systemd is about to do with a unit that it stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Job {
    /// Start it again at once.
    Restart,
    /// Something else, or nothing.
    Other,
}

/// Whether systemd runs this machine (`sd_booted(3)`).
pub(crate) fn is_booted() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

impl Scope {
    /// The words of a call, as they would be typed.
    pub(crate) fn words<'a>(self, words: &[&'a str]) -> Vec<&'a str> {
        let scope: &[&str] = match self {
            Self::System => &[],
            Self::User => &["--user"],
        };
        ["systemctl"].iter().chain(scope).chain(words).copied().collect()
    }

    /// Calls `systemctl` and returns what it printed.
    ///
    /// # Errors
    /// [`SystemctlError`].
    pub(crate) fn call(self, words: &[&str]) -> Result<String, SystemctlError> {
        run(&self.words(words))
    }

    /// One property of a unit.
    ///
    /// # Errors
    /// [`SystemctlError`].
    pub(crate) fn property(self, unit: &str, name: &str) -> Result<String, SystemctlError> {
        Ok(self.call(&["show", "--property", name, "--value", unit])?.trim().to_owned())
    }

    /// What the queue holds for `unit`.
    ///
    /// # Errors
    /// [`SystemctlError`].
    pub(crate) fn job(self, unit: &str) -> Result<Job, SystemctlError> {
        let queue = self.call(&["list-jobs", "--plain", "--no-legend", "--no-pager"])?;
        Ok(job_in(&queue, unit))
    }
}

/// Runs a command to its end and returns what it printed.
///
/// # Errors
/// [`SystemctlError`].
pub(crate) fn run(words: &[&str]) -> Result<String, SystemctlError> {
    let command = words.join(" ");
    let (program, arguments) = words.split_first().unwrap_or((&"", &[]));
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(|source| SystemctlError::Run { command: command.clone(), source })?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    let said = [text(&output.stdout), text(&output.stderr)].join("\n").trim().to_owned();
    Err(SystemctlError::Failed { command, said })
}

/// `JOB UNIT TYPE STATE` a line. systemd keeps a restart's type until the stop is over, then makes it a start.
fn job_in(queue: &str, unit: &str) -> Job {
    let words = queue.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let restarts = |words: &[&str]| words.contains(&unit) && words.contains(&"restart");
    if words.into_iter().any(|words| restarts(&words)) { Job::Restart } else { Job::Other }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_is_told_from_a_stop_by_the_job_of_this_very_unit() {
        let queue = "201 nginx.service   restart running\n 77 agentd.service stop    running\n";
        assert_eq!(job_in(queue, "agentd.service"), Job::Other);
        assert_eq!(job_in(queue, "nginx.service"), Job::Restart);
        assert_eq!(job_in("", "agentd.service"), Job::Other);
        assert_eq!(job_in("No jobs running.", "agentd.service"), Job::Other);
    }

    #[test]
    fn a_command_that_fails_is_told_with_its_own_words() {
        let error = run(&["sh", "-c", "echo no such unit >&2; exit 5"]).unwrap_err();
        assert_eq!(error.to_string(), "sh -c echo no such unit >&2; exit 5 failed:\nno such unit");
        assert!(matches!(run(&["/nonexistent/systemctl"]), Err(SystemctlError::Run { .. })));
    }
}
