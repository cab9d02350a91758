//! `source`, `releases` and `changes`: where an app's releases are cut from, how many stay, and which part of the app
//! is what.

use std::collections::BTreeMap;
use std::time::Duration;

use agentd_core::release::advice::Part;
use agentd_core::release::retention::KEEP;
use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};

use super::quantity;
use super::reader::TableReader;
use super::sections::pause;
use crate::releases::{Limits, Source};

/// Longest cut where nobody says otherwise.
const TIMEOUT: Duration = Duration::from_secs(1800);

/// An app that runs from releases.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Releases {
    /// Where they are cut from.
    pub source: Source,
    /// Where in a release its workers run; its top without it. An absolute path is outside of it.
    pub cwd: Option<Utf8PathBuf>,
    /// How many are kept, beside those that run or could be gone back to.
    pub keep: u32,
    /// How large one may be.
    pub limits: Limits,
    /// Longest cut, its build included.
    pub timeout: Duration,
    /// Which files and variables are which part of it.
    pub changes: BTreeMap<Part, Vec<String>>,
}

/// Reads them; none for an app that runs in place.
pub(super) fn read(table: &TableReader<'_>, folder: &Utf8Path) -> Option<Releases> {
    let Some(field) = table.get("source") else {
        for stray in table.given(&["releases", "changes"]) {
            let message = format!("`{}` means nothing without `source`", stray.name);
            stray.report.add(stray.report.at(&stray.key_span, message).help("the app runs in place, in `cwd`"));
        }
        return None;
    };
    if let Some(watch) = table.get("watch") {
        let message = "`watch` means nothing beside `source`: what runs is a release, which never changes";
        watch.report.add(watch.report.at(&watch.key_span, message).help("leave one of the two out"));
    }
    if let Some(user) = table.get("user") {
        let message = "`user` cannot stand beside `source` yet: a release can be read by the daemon's user only";
        user.report.add(user.report.at(&user.key_span, message).help("leave one of the two out"));
    }
    let source = field.parsed(|text| Source::parse_in(text, folder));
    let cwd = table.get("cwd").and_then(|field| {
        let path = Utf8PathBuf::from(field.text()?);
        if path.components().any(|part| part == camino::Utf8Component::ParentDir) {
            field.refuse("beside `source`, `cwd` is a folder in the release, or an absolute one");
        }
        Some(path)
    });
    let mut releases = Releases {
        source: source?,
        cwd,
        keep: KEEP,
        limits: Limits::default(),
        timeout: TIMEOUT,
        changes: BTreeMap::new(),
    };
    if let Some(table) = table.get("releases").and_then(|field| field.table()) {
        amounts(&mut releases, &table);
    }
    if let Some(table) = table.get("changes").and_then(|field| field.table()) {
        releases.changes = changes(&table);
    }
    Some(releases)
}

fn amounts(releases: &mut Releases, table: &TableReader<'_>) {
    if let Some(keep) = table.get("keep").and_then(|field| field.count()) {
        releases.keep = keep;
    }
    if let Some(bytes) = table.get("max_size").and_then(|field| field.parsed(quantity::parse_size)) {
        releases.limits.bytes = bytes;
    }
    if let Some(entries) = table.get("max_files").and_then(|field| field.count()) {
        releases.limits.entries = entries.into();
    }
    if let Some(timeout) = pause(table, "timeout") {
        releases.timeout = timeout;
    }
}

fn changes(table: &TableReader<'_>) -> BTreeMap<Part, Vec<String>> {
    let parts =
        [("model", Part::Model), ("prompt", Part::Prompt), ("core", Part::Core), ("knowledge", Part::Knowledge)];
    let mut changes = BTreeMap::new();
    for (name, part) in parts {
        let Some(items) = table.get(name).and_then(|field| field.texts()) else { continue };
        let mut patterns = Vec::new();
        for item in items {
            let Some(pattern) = item.text() else { continue };
            if let Err(why) = crate::watch::check(Utf8Path::new("/"), pattern) {
                item.refuse(format!("it is no pattern: {why}"));
            }
            patterns.push(pattern.to_owned());
        }
        changes.insert(part, patterns);
    }
    changes
}
