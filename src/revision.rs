//! One resolved configuration of an app: what a worker is started with, whatever the file says by then.

use std::collections::BTreeMap;

use camino::Utf8PathBuf;
use serde::{Deserialize, Serialize};

use crate::config::AppConfig;

/// A configuration, where it came from, and the environment of whoever asked for it. Kept, as JSON, as long as a
/// worker runs it; equal ones are one revision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RevisionRecord {
    /// The configuration.
    pub config: AppConfig,
    /// Where it is read again at the next reload.
    pub origin: Origin,
    /// The base environment of its workers: what `agentctl start` was called with (`PATH`, `HOME`, `LANG` and their
    /// like), not what the daemon happens to have.
    pub environment: BTreeMap<String, String>,
}

/// Where a configuration came from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// A file or folder; read again at each reload.
    File {
        /// Where, absolute.
        path: Utf8PathBuf,
    },
    /// `agentctl start SCRIPT …`: there is nothing to read again.
    CommandLine,
}
