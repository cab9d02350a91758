//! What a folder holds that can be run: for `agentctl init`.
//!
//! Owns finding it and what it takes to run it ([`Finding`]); [`crate::commands::init`] asks and writes. Reads files and
//! runs nothing, but for a PM2 file in JavaScript or YAML, which only its own runtime can read. Every guess is told in a
//! comment, so that whoever reads the configuration can mend it. First comes what says most: a PM2 file, then a server
//! in Python, then a package of Node, then a single script.

mod ecosystem;
mod node;
mod pm2;
mod port;
mod python;
mod script;

use std::fs;

use camino::{Utf8Path, Utf8PathBuf};
use thiserror::Error;

/// Bytes of a source file that are looked at.
const SOURCE_MAX: u64 = 256 << 10;

/// Paths that a check of health usually has.
const HEALTH: [&str; 4] = ["/health", "/healthz", "/readyz", "/ready"];

/// Loaded by Node before a program that binds its port itself, so that it takes the daemon's socket instead.
pub(crate) const PRELOAD: &str = include_str!("agentd-listen.cjs");

/// The file that it is written to, beside the configuration.
pub(crate) const PRELOAD_NAME: &str = "agentd-listen.cjs";

/// An app that was found, ready to be written down.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Finding {
    /// Its name, as an app may be called.
    pub(crate) name: String,
    /// What it is, in a few words, and why it is written as it is: a line each.
    pub(crate) about: Vec<String>,
    /// Program and arguments.
    pub(crate) command: Vec<String>,
    /// How it comes by its address.
    pub(crate) listens: Listens,
    /// Keys beside `command` and `listen`, as they are written, with what is said behind them.
    pub(crate) keys: Vec<(String, Option<&'static str>)>,
    /// What is worth knowing and not in force: commented out.
    pub(crate) ideas: Vec<String>,
    /// What could not be carried over from where it ran before, a sentence each.
    pub(crate) lost: Vec<String>,
    /// Whether values of it are nobody else's business.
    pub(crate) private: bool,
    /// Whether its command loads [`PRELOAD`].
    pub(crate) preload: bool,
}

/// How an app comes by its address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Listens {
    /// It takes a descriptor: the daemon binds the address.
    Given,
    /// The same, at the port that it had before.
    GivenAt {
        /// Where it is reached: "127.0.0.1", "0.0.0.0".
        host: &'static str,
        /// Its port.
        port: u16,
    },
    /// It binds by itself, or on nothing.
    #[default]
    Itself,
}

/// What stands in the way.
#[derive(Debug, Error)]
pub(crate) enum ScanError {
    /// The folder cannot be looked at.
    #[error("looking into {folder}: {source}")]
    Folder {
        /// The folder.
        folder: Utf8PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// A PM2 file cannot be read.
    #[error("reading {path}: {why}")]
    Pm2 {
        /// The file.
        path: Utf8PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Nothing that can be run was found.
    #[error("{folder} holds nothing that is known to run")]
    Nothing {
        /// The folder.
        folder: Utf8PathBuf,
    },
}

/// What the folder holds; at least one app.
///
/// # Errors
/// [`ScanError`].
pub(crate) fn scan(folder: &Utf8Path) -> Result<Vec<Finding>, ScanError> {
    let failed = |source| ScanError::Folder { folder: folder.to_owned(), source };
    let entries = folder.read_dir_utf8().and_then(Iterator::collect::<Result<Vec<_>, _>>).map_err(failed)?;
    let mut files: Vec<String> =
        entries.iter().filter(|entry| entry.path().is_file()).map(|entry| entry.file_name().to_owned()).collect();
    files.sort();
    if let Some(found) = pm2::find(folder, &files)? {
        return Ok(found);
    }
    let found = python::find(folder).or_else(|| node::find(folder, &files)).or_else(|| script::find(folder, &files));
    found.map(|finding| vec![finding]).ok_or_else(|| ScanError::Nothing { folder: folder.to_owned() })
}

/// The beginning of a file of text; nothing of one that is none.
fn source(path: &Utf8Path) -> Option<String> {
    use std::io::Read;
    let mut bytes = Vec::new();
    fs::File::open(path).ok()?.take(SOURCE_MAX).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// The path of the program's check of health, if it has one with a usual name.
fn health(code: &str) -> Option<&'static str> {
    HEALTH.into_iter().find(|path| ['"', '\''].iter().any(|quote| code.contains(&format!("{quote}{path}{quote}"))))
}

/// A program of this name on `PATH`.
fn on_path(program: &str) -> Option<Utf8PathBuf> {
    let path = std::env::var("PATH").ok()?;
    path.split(':')
        .filter(|folder| folder.starts_with('/'))
        .map(|folder| Utf8Path::new(folder).join(program))
        .find(|at| at.is_file())
}

/// A name that an app may have, made of any text.
pub(crate) fn app_name(text: &str) -> String {
    let plain: String = text.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' }).collect();
    let name: String = plain.trim_matches(['-', '_']).chars().take(40).collect();
    match name.as_str() {
        "" | "all" => "app".to_owned(),
        _ => name,
    }
}

/// The name of the folder, as an app may be called.
fn folder_name(folder: &Utf8Path) -> String {
    app_name(folder.canonicalize_utf8().ok().as_deref().and_then(Utf8Path::file_name).unwrap_or("app"))
}

/// A text as TOML writes it.
pub(crate) fn quoted(text: &str) -> String {
    // JSON's escapes are among TOML's; only DEL, which TOML forbids, is left as it is by JSON.
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

/// Texts as TOML writes them.
pub(crate) fn list(texts: &[String]) -> String {
    format!("[{}]", texts.iter().map(|text| quoted(text)).collect::<Vec<_>>().join(", "))
}
