//! What is kept of a release, in the database.

use agentd_core::release::ReleaseId;
use camino::Utf8PathBuf;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::config::SkillKind;
use crate::revision::RevisionRecord;

/// The part of a release that its workers are started from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// What it is called.
    pub id: ReleaseId,
    /// Where it lies.
    pub folder: Utf8PathBuf,
    /// Its own command, for a configuration that names none.
    #[serde(default)]
    pub command: Vec<String>,
    /// The version of its checkpoints or of the state that it keeps.
    #[serde(default)]
    pub state_version: Option<u32>,
    /// What says which open checkpoints it cannot read; empty where it has no such program.
    #[serde(default)]
    pub check: Vec<String>,
    /// What it says that it is.
    #[serde(default)]
    pub kind: Option<SkillKind>,
}

/// A release that is installed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReleaseRecord {
    /// What workers need of it.
    pub release: Release,
    /// The whole hash of what it was cut from, in hexadecimal.
    pub hash: String,
    /// Where it was cut from.
    pub origin: String,
    /// When.
    pub cut_at: Timestamp,
    /// Bytes of its files.
    pub bytes: u64,
    /// Files, folders and links that it was cut from.
    pub entries: u64,
    /// How long its build took, in milliseconds.
    pub build_ms: Option<u64>,
    /// What became of it.
    pub verdict: Verdict,
    /// When it began to serve last.
    pub served_at: Option<Timestamp>,
    /// Somebody wants it to stay.
    #[serde(default)]
    pub pinned: bool,
    /// The configuration that it was deployed with last: what a rollback goes back to.
    pub deployed: Option<RevisionRecord>,
}

/// What became of a release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It has not served yet.
    Untried,
    /// A deployment of it was done.
    Good,
    /// It was taken back.
    Bad {
        /// Why, in one sentence.
        why: String,
    },
}

impl ReleaseRecord {
    /// When it served last or was cut, in seconds.
    #[must_use]
    pub fn at(&self) -> i64 {
        self.served_at.unwrap_or(self.cut_at).as_second()
    }
}
