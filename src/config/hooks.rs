//! `hooks`: commands that are run when something happens to an app, so that somebody is told at 2 a.m.
//!
//! Owns their shape and reading. `[[hooks]]` of a file stand for every app of that file, before the app's own
//! (`[[agent.NAME.hooks]]`). Which event is which occasion, and running them, is `dispatcher::hooks`'; those that a
//! deployment waits for are `dispatcher::before`'s.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use agentd_core::rate::Rate;
use serde::{Deserialize, Serialize};

use super::document::words;
use super::keys::OCCASIONS;
use super::quantity;
use super::reader::{Field, TableReader, nearest};

/// How long a hook may take unless it says otherwise.
const TIMEOUT: Duration = Duration::from_secs(30);

/// How often one runs at most unless it says otherwise.
const RATE: Rate = Rate { count: 10, period: Duration::from_hours(1) };

/// A command that is run when something happens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// What has to happen; any one of these.
    pub on: BTreeSet<Occasion>,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// How long it may take before it is killed with all that it started.
    pub timeout: Duration,
    /// How often it runs at most.
    pub rate: Rate,
}

/// What a hook can wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Occasion {
    /// A worker ended by itself and not with success, or was ended for what it did.
    Crash,
    /// A worker failed too often and is not started again.
    Park,
    /// A probe was not answered as it must be.
    Unhealthy,
    /// A worker outgrew its memory.
    Memory,
    /// A deployment of something new is about to begin. It waits, and does not begin where this fails.
    BeforeDeployment,
    /// The new version is about to get a greater part of the new connections. Awaited likewise.
    BeforeStage,
    /// It got it.
    AfterStage,
    /// A deployment is done.
    Deployed,
    /// A deployment ended, whichever way.
    Reload,
    /// A deployment ended otherwise than done.
    Rollback,
    /// A worker did not renew what it knows, and so ended a refresh.
    RefreshFailed,
    /// The app as a whole serves less than it should.
    Degraded,
    /// The app as a whole serves again.
    Recovered,
    /// Log lines are being dropped.
    Logs,
}

const ALL: [Occasion; 14] = [
    Occasion::Crash,
    Occasion::Park,
    Occasion::Unhealthy,
    Occasion::Memory,
    Occasion::BeforeDeployment,
    Occasion::BeforeStage,
    Occasion::AfterStage,
    Occasion::Deployed,
    Occasion::Reload,
    Occasion::Rollback,
    Occasion::RefreshFailed,
    Occasion::Degraded,
    Occasion::Recovered,
    Occasion::Logs,
];

impl Occasion {
    /// As it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Crash => "crash",
            Self::Park => "park",
            Self::Unhealthy => "unhealthy",
            Self::Memory => "memory",
            Self::BeforeDeployment => "before_deployment",
            Self::BeforeStage => "before_stage",
            Self::AfterStage => "after_stage",
            Self::Deployed => "deployed",
            Self::Reload => "reload",
            Self::Rollback => "rollback",
            Self::RefreshFailed => "refresh_failed",
            Self::Degraded => "degraded",
            Self::Recovered => "recovered",
            Self::Logs => "logs",
        }
    }
}

/// The hooks of a file or an app.
pub(super) fn read(table: &TableReader<'_>) -> Vec<Hook> {
    let Some(field) = table.get("hooks") else { return Vec::new() };
    let tables = field.tables().unwrap_or_default();
    tables.iter().filter_map(|table| hook(table, &field)).collect()
}

fn hook(table: &TableReader<'_>, whole: &Field<'_>) -> Option<Hook> {
    let on = table.get("on").map(|field| occasions(&field));
    let command = table.get("command").map(|field| words(&field, &BTreeMap::new()));
    let timeout = table.get("timeout").and_then(|field| field.parsed(quantity::parse_duration)).unwrap_or(TIMEOUT);
    let mut rate = RATE;
    if let Some(field) = table.get("rate")
        && let Some((count, period)) = field.parsed(quantity::parse_rate)
    {
        if count == 0 || period.is_zero() {
            field.refuse("a hook of this rate would never run");
        }
        rate = Rate { count, period };
    }
    let missing = match (&on, &command) {
        (None, _) => Some("`on`, which says what has to happen"),
        (_, None) => Some("`command`, which says what to run"),
        (Some(_), Some(_)) => None,
    };
    if let Some(missing) = missing {
        whole.report.add(whole.report.at(&whole.key_span, format!("a hook needs {missing}")));
    }
    Some(Hook { on: on?, command: command?, timeout, rate })
}

fn occasions(field: &Field<'_>) -> BTreeSet<Occasion> {
    let items = if field.value.is_array() { field.texts().unwrap_or_default() } else { vec![field.clone()] };
    if items.is_empty() {
        field.refuse("a hook that waits for nothing never runs");
    }
    let mut found = BTreeSet::new();
    for item in items {
        let Some(text) = item.text() else { continue };
        if let Some(occasion) = ALL.into_iter().find(|occasion| occasion.as_str() == text) {
            found.insert(occasion);
            continue;
        }
        let names = || OCCASIONS.iter().map(|word| word.name);
        let diagnostic = item.diagnostic(format!("\"{text}\" is nothing that a hook can wait for"));
        let diagnostic = diagnostic.expected(format!("one of {}", names().collect::<Vec<_>>().join(", ")));
        item.report.add(match nearest(text, names()) {
            Some(near) => diagnostic.help(format!("did you mean \"{near}\"?")),
            None => diagnostic,
        });
    }
    found
}
