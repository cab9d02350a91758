//! `secret`: where the secrets of an app are, and by which road they reach its workers.
//!
//! Owns the reading and the way from a place to a file. What a secret is never comes here: it is read by the process
//! that becomes the worker (`process::secret`). Whoever writes the secret itself into the configuration is told so
//! without the line being shown.

use std::collections::BTreeMap;

use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::document::OWN_VARIABLES;
use super::reader::{Field, TableReader};
use crate::causes::in_full;
use crate::process::secret::{self, Road, Secret};

/// Where systemd puts the credentials of its services.
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

/// Where one secret is, and its road.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretSource {
    /// Where it is.
    pub from: SecretPlace,
    /// How it reaches the worker.
    pub road: Road,
}

/// Where a secret is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SecretPlace {
    /// In this file, absolute.
    File(Utf8PathBuf),
    /// In systemd's credential of this name.
    Credential(String),
}

/// Why a secret's file cannot be told.
#[derive(Debug, Error)]
pub enum NoCredential {
    /// Not a service, or one without credentials.
    #[error("find credential \"{0}\": systemd gave this daemon none (LoadCredential= in its unit)")]
    NoneGiven(String),
}

impl SecretSource {
    /// As a plan names it.
    ///
    /// # Errors
    /// A credential, and nobody gave us any.
    pub fn planned(&self, name: &str) -> Result<Secret, NoCredential> {
        let (from, guarded) = match &self.from {
            SecretPlace::File(path) => (path.clone(), true),
            SecretPlace::Credential(credential) => {
                let folder = std::env::var(CREDENTIALS).ok().filter(|folder| folder.starts_with('/'));
                let folder = folder.ok_or_else(|| NoCredential::NoneGiven(credential.clone()))?;
                (Utf8PathBuf::from(folder).join(credential), false)
            }
        };
        Ok(Secret { name: name.to_owned(), from, guarded, road: self.road })
    }
}

impl std::fmt::Display for SecretSource {
    /// For people: `file /etc/keys/openai, in the environment`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.from {
            SecretPlace::File(path) => write!(f, "file {path}, ")?,
            SecretPlace::Credential(name) => write!(f, "credential {name}, ")?,
        }
        f.write_str(match self.road {
            Road::Environment => "in the environment",
            Road::File => "as a file",
        })
    }
}

/// Reads them all. `env` is what the app sets openly.
pub(super) fn read(
    table: &TableReader<'_>,
    folder: &Utf8Path,
    env: &BTreeMap<String, String>,
) -> BTreeMap<String, SecretSource> {
    let Some(field) = table.get("secret") else { return BTreeMap::new() };
    let before = table.report.count();
    let mut secrets = BTreeMap::new();
    for (name, field) in field.entries().unwrap_or_default() {
        if let Some(source) = one(name, &field, folder, env) {
            secrets.insert(name.to_owned(), source);
        }
    }
    // The line may be the secret.
    table.report.conceal_since(before);
    secrets
}

fn one(name: &str, field: &Field<'_>, folder: &Utf8Path, env: &BTreeMap<String, String>) -> Option<SecretSource> {
    let refuse_name = |why: String| field.report.add(field.report.at(&field.key_span, why));
    if !is_name(name) || OWN_VARIABLES.contains(&name) || name.starts_with("AGENTD_") {
        refuse_name(format!("a secret cannot be called \"{name}\": it is to be an environment variable of its own"));
    } else if env.contains_key(name) {
        refuse_name(format!("`{name}` is a secret and stands in `env` as well"));
    }
    if !field.value.is_table() {
        let expected = "`{ file = \"…\" }` or `{ credential = \"…\" }`";
        let diagnostic = field.diagnostic(format!("`{}` says where a secret is, not what it is", field.name));
        field.report.add(diagnostic.expected(expected));
        return None;
    }
    let table = field.table()?;
    let road = match table.get("as").and_then(|field| field.word()) {
        Some("file") => Road::File,
        Some(_) | None => Road::Environment,
    };
    let (file, credential) = (table.get("file"), table.get("credential"));
    let (from, place) = match (&file, &credential) {
        (Some(at), None) => {
            let path: Utf8PathBuf = folder.join(at.text()?).components().collect();
            (SecretPlace::File(path), at)
        }
        (None, Some(at)) => (SecretPlace::Credential(credential_name(at)?), at),
        (Some(_), Some(_)) | (None, None) => {
            field.refuse(format!("`{}` is one of `file` and `credential`", field.name));
            return None;
        }
    };
    let source = SecretSource { from, road };
    let checked = match source.planned(name) {
        Ok(planned) => secret::check(&planned.from, planned.guarded).map_err(|error| in_full(&error)),
        Err(error) => Err(in_full(&error)),
    };
    if let Err(why) = checked {
        place.refuse(format!("`{}`: failed to {why}", field.name));
    }
    Some(source)
}

fn credential_name(field: &Field<'_>) -> Option<String> {
    let name = field.text()?;
    if name.is_empty() || name.contains('/') || name.starts_with('.') {
        field.refuse("a credential is named by one word, as in LoadCredential=WORD:PATH");
        return None;
    }
    Some(name.to_owned())
}

/// What shells take for a variable's name: it may be read by a script.
fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}
