//! The releases of an app.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::status::CuttingView;

/// Parameters of `releases`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReleasesParams {
    /// The app.
    pub name: String,
}

/// Answer to `releases`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Releases {
    /// The app.
    pub app: String,
    /// What `ls` calls the one that serves: its name, or the number of its deployment where the app runs in place.
    #[serde(default)]
    pub serves: Option<String>,
    /// The one that is being cut.
    #[serde(default)]
    pub cutting: Option<CuttingView>,
    /// Those that are kept, the one that was cut last first. None for an app that runs in place.
    pub releases: Vec<ReleaseView>,
}

/// What became of a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReleaseState {
    /// It has not served yet.
    Untried,
    /// A deployment of it was done.
    Good,
    /// It was taken back.
    Bad,
    /// A state newer than this reader.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

/// One release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReleaseView {
    /// What it is called: its version and the beginning of its hash.
    pub id: String,
    /// Its version.
    pub version: String,
    /// The hash of what it was cut from, in hexadecimal.
    pub hash: String,
    /// What became of it.
    pub state: ReleaseState,
    /// Why it was taken back.
    pub why: Option<String>,
    /// It is the one that serves.
    pub serving: bool,
    /// It is the one that `rollback` goes back to.
    pub rollback: bool,
    /// Something wants it to stay.
    pub pinned: bool,
    /// Tasks that stay with its workers until they end: what takes over does not read their checkpoints.
    #[serde(default)]
    pub staying: u32,
    /// The workers that run it.
    pub workers: Vec<String>,
    /// The version of its checkpoints or of the state that it keeps.
    pub state_version: Option<u32>,
    /// What it was cut from.
    pub origin: String,
    /// Where it lies.
    pub folder: String,
    /// Bytes of its files.
    pub bytes: u64,
    /// Files, folders and links that it was cut from.
    pub entries: u64,
    /// When it was cut.
    pub cut_at: Timestamp,
    /// How long its build took, in milliseconds; none when it has none.
    pub build_ms: Option<u64>,
    /// When it began to serve last; none when it never did.
    pub served_at: Option<Timestamp>,
}
