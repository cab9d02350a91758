//! `refresh`: how workers renew what they know without another process, and which files ask for it.
//!
//! Owns the shape and its reading. Whom to ask next is core's (`agentd_core::refresh`), asking is `dispatcher::refresh`'.

use std::time::Duration;

use camino::Utf8PathBuf;
use serde::{Deserialize, Serialize};

use super::app::{AppConfig, Balance};
use super::checks::{listener, one_of, refuse_strays};
use super::occasions;
use super::reader::{Field, TableReader};
use super::sections::pause;
use super::signal::StopSignal;
use crate::releases::Source;

/// Longest wait for one worker where nobody says otherwise.
const TIMEOUT: Duration = Duration::from_secs(120);

/// The ways in which a worker can be asked.
const WAYS: [&str; 3] = ["http", "signal", "protocol"];

/// The methods of a request that changes something, and the one that should not.
const METHODS: [&str; 5] = ["POST", "PUT", "PATCH", "DELETE", "GET"];

/// How an app's workers renew what they know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refresh {
    /// How each is asked.
    pub ask: Ask,
    /// Longest wait for one.
    pub timeout: Duration,
    /// Files whose change asks for it; none where no pattern was given.
    pub watch: Option<Knowledge>,
}

/// How a worker is asked to renew what it knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ask {
    /// By a request through its own socket; 200 to 299 is a yes.
    Http {
        /// In capitals.
        method: String,
        /// Path and query; starts with `/`.
        path: String,
        /// Name of the stream listener.
        on: String,
    },
    /// By a signal to its main process.
    Signal {
        /// Which.
        signal: StopSignal,
        /// Whether `RELOADING=1`, then `READY=1` are awaited; otherwise nothing is.
        notify: bool,
    },
    /// By `refresh` of the worker protocol; `refreshed` is the answer.
    Protocol {
        /// The word for what has changed.
        scope: String,
    },
}

/// Files that workers know things from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Knowledge {
    /// Where they are, absolute.
    pub folder: Utf8PathBuf,
    /// Patterns below it; with `!` of those whose change means nothing.
    pub patterns: Vec<String>,
}

impl std::fmt::Display for Ask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Http { method, path, on } => write!(f, "{method} {path} on {on}"),
            Self::Signal { signal, notify: true } => write!(f, "{}, then READY=1", signal.signal()),
            Self::Signal { signal, notify: false } => write!(f, "{}", signal.signal()),
            Self::Protocol { scope } => write!(f, "refresh of {scope} by the worker protocol"),
        }
    }
}

/// Reads it; none where the app has none.
pub(super) fn read(app: &TableReader<'_>, config: &AppConfig) -> Option<Refresh> {
    let field = app.get("refresh")?;
    let table = field.table()?;
    let timeout = pause(&table, "timeout").unwrap_or(TIMEOUT);
    let watch = knowledge(&table, config);
    let way = one_of(&table, &WAYS, &field);
    refuse_strays(&table, way.as_ref(), &["on"], &["http"]);
    refuse_strays(&table, way.as_ref(), &["notify"], &["signal"]);
    let way = way?;
    let ask = match way.name.as_str() {
        "http" => http(&way, &table, config)?,
        "signal" => Ask::Signal {
            signal: way.parsed(str::parse)?,
            notify: table.get("notify").and_then(|field| field.flag()).unwrap_or(false),
        },
        _ => Ask::Protocol { scope: scope(&way)? },
    };
    Some(Refresh { ask, timeout, watch })
}

fn http(field: &Field<'_>, table: &TableReader<'_>, config: &AppConfig) -> Option<Ask> {
    let text = field.text()?;
    let (method, path) = text.split_once(' ').unwrap_or(("POST", text));
    let sound = METHODS.contains(&method) && path.starts_with('/') && path.bytes().all(|b| b.is_ascii_graphic());
    if !sound {
        let diagnostic = field.diagnostic(format!("\"{text}\" is no request"));
        field.report.add(diagnostic.expected("a method and a path such as \"POST /admin/reindex\""));
        return None;
    }
    let on = listener(field, table, &config.listen)?;
    if config.balance == Balance::Shared && config.workers > 1 {
        let diagnostic = field.diagnostic("workers that share a queue cannot be asked one by one over it");
        field
            .report
            .add(diagnostic.help("take `signal` or `protocol`, or `balance = \"spread\"` on an address of TCP"));
    }
    Some(Ask::Http { method: method.to_owned(), path: path.to_owned(), on })
}

fn scope(field: &Field<'_>) -> Option<String> {
    let scope = field.text()?;
    if scope.is_empty() || scope.len() > 128 || scope.chars().any(char::is_control) {
        field.refuse("`protocol` is one word for what has changed, such as \"knowledge\"");
        return None;
    }
    Some(scope.to_owned())
}

/// Which files are watched: those that the user edits, which for an app that runs from releases are its source's.
fn knowledge(table: &TableReader<'_>, config: &AppConfig) -> Option<Knowledge> {
    let watch = table.get("watch")?;
    let folder = match config.releases.as_ref().map(|releases| &releases.source) {
        None => config.cwd.clone(),
        Some(Source::Folder(folder)) => folder.clone(),
        Some(Source::Archive(_) | Source::Git { .. }) => {
            watch.refuse("`watch` has nothing to watch: the app's `source` is no folder");
            return None;
        }
    };
    let patterns = occasions::watch(table, &folder);
    (!patterns.is_empty()).then_some(Knowledge { folder, patterns })
}
