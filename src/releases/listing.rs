//! What agentd keeps of a release inside of it: what it was cut from, file by file, and its manifest.
//!
//! In the folder `.agentd` of the release, written before the release gets its name and never after.

use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Write};

use camino::Utf8Path;
use serde::{Deserialize, Serialize};

use super::error::CutError;
use super::folder::OURS;
use super::tree::Tree;
use crate::config::Manifest;

/// The file in [`OURS`].
const FILE: &str = "release.json";

/// What a release was cut from.
#[derive(Debug, Serialize, Deserialize)]
pub struct Listing {
    /// What it said of itself.
    pub manifest: Manifest,
    /// What it held, before its build.
    pub tree: Tree,
}

impl Listing {
    /// Writes it into the release at `root`.
    ///
    /// # Errors
    /// It could not be written.
    pub fn write(&self, root: &Utf8Path) -> Result<(), CutError> {
        let folder = root.join(OURS);
        fs::create_dir_all(&folder).map_err(|source| CutError::Write { path: folder.clone(), source })?;
        let path = folder.join(FILE);
        let failed = |source| CutError::Write { path: path.clone(), source };
        let mut file = BufWriter::new(File::create(&path).map_err(failed)?);
        serde_json::to_writer(&mut file, self).map_err(|error| failed(error.into()))?;
        file.flush().map_err(failed)
    }

    /// Reads that of the release at `root`.
    ///
    /// # Errors
    /// It is not there, or was written by something else.
    pub fn read(root: &Utf8Path) -> Result<Self, CutError> {
        let path = root.join(OURS).join(FILE);
        let failed = |source| CutError::Read { path: path.clone(), source };
        let file = BufReader::new(File::open(&path).map_err(failed)?);
        serde_json::from_reader(file).map_err(|error| failed(error.into()))
    }
}
