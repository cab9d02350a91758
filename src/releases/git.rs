//! Taking in what a git repository holds, by the git program: the tracked files of one commit, nothing of its history.
//!
//! It is fetched into a fresh bare repository beside the release, so no hook, filter or configuration of the source is
//! ever heeded; those of this machine's git neither. What git packs up then is taken in as any archive is.

use std::collections::BTreeMap;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};

use super::archive::{self, Unpacked};
use super::budget::Budget;
use super::error::CutError;
use super::program::Program;

/// Longest run of one git command.
const TIMEOUT: Duration = Duration::from_secs(300);

/// What a repository held.
#[derive(Debug)]
pub struct Fetched {
    /// Its files.
    pub unpacked: Unpacked,
    /// The commit that they are of.
    pub commit: String,
}

/// Takes in `reference` of `repository`: fetched in the folder `aside`, unpacked into `to`; both are there and empty.
///
/// # Errors
/// What git says, or what is wrong with the files.
pub fn take(
    repository: &str,
    reference: Option<&str>,
    aside: &Utf8Path,
    to: &Utf8Path,
    env: &BTreeMap<String, String>,
    budget: &Budget,
) -> Result<Fetched, CutError> {
    let git = Git { folder: aside.to_owned(), env: quiet(env) };
    git.run("make an empty repository", &["init", "--quiet", "--bare", "--template=", "."])?;
    let commit = git.fetch(repository, reference.unwrap_or("HEAD"))?;
    git.run("pack up the files", &["archive", "--format=tar", "--output=source.tar", &commit])?;
    let unpacked = archive::unpack(&aside.join("source.tar"), None, to, budget)?;
    Ok(Fetched { unpacked, commit })
}

/// What keeps git from asking anybody and from heeding anything but us.
fn quiet(env: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut env = env.clone();
    env.retain(|name, _| !name.starts_with("GIT_"));
    for (name, value) in [
        ("GIT_CONFIG_NOSYSTEM", "1"),
        ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ("GIT_TERMINAL_PROMPT", "0"),
        ("GIT_SSH_COMMAND", "ssh -oBatchMode=yes"),
        ("LC_ALL", "C"),
    ] {
        env.insert(name.to_owned(), value.to_owned());
    }
    env
}

struct Git {
    folder: Utf8PathBuf,
    env: BTreeMap<String, String>,
}

impl Git {
    /// Fetches one commit and says which. Alone where the other side can do that; else with everything.
    fn fetch(&self, repository: &str, reference: &str) -> Result<String, CutError> {
        let shallow = ["fetch", "--quiet", "--depth=1", "--no-tags", "--", repository, reference];
        if self.run("fetch", &shallow).is_ok() {
            return self.resolve("FETCH_HEAD");
        }
        let everything = "+refs/*:refs/fetched/*";
        self.run("fetch", &["fetch", "--quiet", "--", repository, everything])?;
        let places = ["refs/fetched/heads/", "refs/fetched/tags/", "refs/fetched/", ""];
        let found = places.iter().find_map(|place| self.resolve(&format!("{place}{reference}")).ok());
        found.ok_or_else(|| CutError::Git { step: "find the reference", why: format!("there is no {reference:?}") })
    }

    fn resolve(&self, name: &str) -> Result<String, CutError> {
        let tail = self
            .run("find the reference", &["rev-parse", "--verify", "--end-of-options", &format!("{name}^{{commit}}")])?;
        // Some versions print the option too.
        let is_hash = |line: &&String| line.len() >= 40 && line.bytes().all(|b| b.is_ascii_hexdigit());
        let why = || CutError::Git { step: "find the reference", why: format!("{name:?} is no commit") };
        tail.iter().find(is_hash).cloned().ok_or_else(why)
    }

    /// Runs git and returns what it printed last.
    fn run(&self, step: &'static str, arguments: &[&str]) -> Result<Vec<String>, CutError> {
        let fixed = [
            "git",
            "-c",
            "core.hooksPath=/dev/null",
            "-c",
            "core.fsmonitor=false",
            "-c",
            "protocol.ext.allow=never",
            "-c",
            "gc.auto=0",
        ];
        let argv: Vec<String> = fixed.iter().chain(arguments).map(|word| (*word).to_owned()).collect();
        let ran = Program { argv: &argv, cwd: &self.folder, env: &self.env, timeout: TIMEOUT }.run(None)?;
        match ran.failure {
            None => Ok(ran.tail),
            Some(why) => {
                let said = ran.tail.iter().rev().find(|line| !line.is_empty()).cloned();
                Err(CutError::Git { step, why: said.unwrap_or(why) })
            }
        }
    }
}
