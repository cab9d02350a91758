//! `apply`: what a configuration would change, app by app, and what came of changing it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::reply::{Changed, OperationResult, OperationView};

/// Parameters of `apply`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ApplyParams {
    /// A configuration file, or a folder of them; absolute.
    pub path: String,
    /// What apps that are new inherit from the client: `PATH`, `VIRTUAL_ENV`, `HOME`, `LANG` and the like.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Only tell what would be done.
    #[serde(default)]
    pub dry_run: bool,
    /// Delete the apps that came from this file or folder before and are not in it any more.
    #[serde(default)]
    pub prune: bool,
    /// Answer when all of it is done, or taken back, instead of when it is accepted.
    #[serde(default)]
    pub wait: bool,
}

/// What has to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// It is as wanted.
    Nothing,
    /// It changes under the workers that run.
    InPlace,
    /// New workers take the place of those that run, without a gap.
    Reload,
    /// The same with a gap: its `reload` leaves no room for both.
    Restart,
    /// The app was not there.
    New,
    /// The app is not in the configuration any more, and is deleted.
    Gone,
    /// The app is not in the configuration any more, and stays because nobody asked to prune.
    Left,
    /// A kind newer than this reader.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

/// A field that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FieldChange {
    /// Its name, as in the configuration.
    pub field: String,
    /// What it is now; none when it is not written. Values of `env` are never told.
    pub old: Option<String>,
    /// What it is to be; none when it is not written any more.
    pub new: Option<String>,
    /// What this change alone takes.
    pub work: Work,
}

/// How one app differs from the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AppDifference {
    /// The app.
    pub app: String,
    /// What is done about it.
    pub work: Work,
    /// What differs, by field.
    #[serde(default)]
    pub changes: Vec<FieldChange>,
    /// What a person should know beside.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// Answer to `apply`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Applied {
    /// What differed, one entry an app, those without a difference too.
    pub apps: Vec<AppDifference>,
    /// What was admitted; none for a dry run.
    #[serde(default)]
    pub operations: Vec<OperationView>,
    /// How each ended. Empty without `wait`.
    #[serde(default)]
    pub results: Vec<OperationResult>,
}

impl Applied {
    /// The exit code for the whole, as for any other change.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        Changed { operations: Vec::new(), results: self.results.clone() }.exit_code()
    }
}
