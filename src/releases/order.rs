//! What passes between the daemon and the process that cuts: an order in, a report out, one line of JSON each.
//!
//! The standard input stays open after the order. Its end means that whoever asked is gone: then the cutting process
//! ends what it has started, removes what it has written, and ends.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use agentd_core::release::ReleaseId;
use agentd_core::release::advice::Part;
use camino::Utf8PathBuf;
use serde::{Deserialize, Serialize};

use super::budget::Limits;
use super::source::Source;
use super::tree::Difference;
use crate::config::Manifest;

/// What to cut.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Order {
    /// Whose release.
    pub app: String,
    /// The file in it that says what it is: `agent.toml` or `skill.toml`.
    pub manifest: String,
    /// From what.
    pub source: Source,
    /// What an archive must hash to, in hexadecimal.
    pub sha256: Option<String>,
    /// The folder to work in. It is not there yet, and lies where the release is to be.
    pub staging: Utf8PathBuf,
    /// What is wanted.
    pub wanted: Wanted,
    /// What it may hold.
    pub limits: Limits,
    /// The environment of builds and of git.
    pub env: BTreeMap<String, String>,
}

/// What is wanted of a cut.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wanted {
    /// A release, built and brought to the disk, unless it is there already.
    Release {
        /// Those that are there.
        have: BTreeSet<ReleaseId>,
        /// Where the build's output goes.
        build_log: Utf8PathBuf,
    },
    /// Only what would be in it.
    Look {
        /// The folder of the release that it is compared with.
        before: Option<Utf8PathBuf>,
        /// Which files are which part.
        parts: Vec<(Part, Vec<String>)>,
    },
}

/// How it went.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// As wanted.
    Cut(Box<Cut>),
    /// Not; nothing is left.
    Failed(Failed),
}

/// What was cut.
#[derive(Debug, Serialize, Deserialize)]
pub struct Cut {
    /// What it is called.
    pub id: ReleaseId,
    /// The whole hash of what it was cut from, in hexadecimal.
    pub hash: String,
    /// What it says of itself.
    pub manifest: Manifest,
    /// Where exactly it comes from: with the commit, where that is known.
    pub origin: String,
    /// Its folder, ready to be given its name; none when it is there already, or was only looked at.
    pub folder: Option<Utf8PathBuf>,
    /// Files, folders and links in it, as cut.
    pub entries: u64,
    /// Bytes of its files, with what its build made.
    pub bytes: u64,
    /// How long its build took.
    pub build: Option<Duration>,
    /// How it differs from the one before; only when that was asked for.
    pub difference: Option<Looked>,
}

/// How a source differs from a release.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Looked {
    /// How many files differ.
    pub files: u64,
    /// The first of them: `+ added`, `- removed`, `~ changed`.
    pub shown: Vec<String>,
    /// The parts that they belong to.
    pub parts: BTreeSet<Part>,
    /// The manifest of the one before.
    pub before: Option<Manifest>,
}

/// Why nothing was cut.
#[derive(Debug, Serialize, Deserialize)]
pub struct Failed {
    /// In a fragment that follows "failed to".
    pub why: String,
    /// What to do about it.
    pub help: Option<String>,
    /// The last lines of the build, where it was the build.
    pub tail: Vec<String>,
}

impl Looked {
    /// Files that are named.
    const SHOWN: usize = 20;

    pub(super) fn of(difference: &Difference, parts: BTreeSet<Part>, before: Option<Manifest>) -> Self {
        let sign = |sign: char, paths: &BTreeSet<Utf8PathBuf>| {
            paths.iter().map(|path| format!("{sign} {path}")).collect::<Vec<_>>()
        };
        let mut shown = sign('~', &difference.changed);
        shown.extend(sign('+', &difference.added));
        shown.extend(sign('-', &difference.removed));
        let files = shown.len() as u64;
        shown.truncate(Self::SHOWN);
        Self { files, shown, parts, before }
    }
}
