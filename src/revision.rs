//! One resolved configuration of an app: what a worker is started with, whatever the file says by then.

use std::collections::BTreeMap;

use camino::Utf8PathBuf;
use serde::{Deserialize, Serialize};

use crate::config::AppConfig;
use crate::releases::Release;

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
    /// The release that they run; none where the app runs in place.
    #[serde(default)]
    pub release: Option<Release>,
}

impl RevisionRecord {
    /// A configuration with the release that it is to run: what it leaves to the release is filled in.
    #[must_use]
    pub fn new(
        mut config: AppConfig,
        origin: Origin,
        environment: BTreeMap<String, String>,
        release: Option<Release>,
    ) -> Self {
        if let (Some(releases), Some(release)) = (&config.releases, &release) {
            config.cwd = releases.cwd.as_ref().map_or_else(|| release.folder.clone(), |cwd| release.folder.join(cwd));
            if config.command.is_empty() {
                config.command.clone_from(&release.command);
            }
        }
        Self { config, origin, environment, release }
    }

    /// What is told of its release: its name, or the generation's where the app runs in place.
    #[must_use]
    pub fn label(&self, generation: u64) -> String {
        self.release.as_ref().map_or_else(|| format!("g{generation}"), |release| release.id.to_string())
    }

    /// The version of the checkpoints that its workers read: the release's, else the configuration's.
    #[must_use]
    pub fn state_version(&self) -> Option<u32> {
        self.release.as_ref().and_then(|release| release.state_version).or(self.config.tasks.state_version)
    }

    /// What says which open checkpoints its release cannot read.
    #[must_use]
    pub fn check(&self) -> Option<&[String]> {
        self.release.as_ref().map(|release| release.check.as_slice()).filter(|check| !check.is_empty())
    }

    /// A text of the configuration with the release's folder in the place of `{release}`.
    #[must_use]
    pub fn in_release(&self, text: &str) -> String {
        match &self.release {
            Some(release) => text.replace(RELEASE, release.folder.as_str()),
            None => text.to_owned(),
        }
    }
}

/// What stands for the folder of the release in a command or a variable.
const RELEASE: &str = "{release}";

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
