//! `cron_reload` and `watch`: when an app is reloaded without anybody's asking.

use camino::Utf8Path;
use jiff::Timestamp;

use super::reader::TableReader;
use crate::schedule::Schedule;
use crate::watch;

/// Reads `cron_reload`. That it is ever due is found out here, where its line is known.
pub(super) fn cron(table: &TableReader<'_>) -> Option<Schedule> {
    let field = table.get("cron_reload")?;
    let schedule = if field.value.is_str() {
        Schedule { at: field.text()?.to_owned(), tz: None }
    } else {
        let parts = field.table()?;
        let Some(at) = parts.get("at") else {
            field.refuse("`cron_reload` has no `at`");
            return None;
        };
        let tz = parts.get("tz").and_then(|tz| tz.text()).map(str::to_owned);
        Schedule { at: at.text()?.to_owned(), tz }
    };
    match schedule.next_after(Timestamp::now()) {
        Ok(_) => Some(schedule),
        Err(why) => {
            field.refuse(format!("`cron_reload`: {why}"));
            None
        }
    }
}

/// Reads `watch`, of an app or of its `refresh`.
pub(super) fn watch(table: &TableReader<'_>, folder: &Utf8Path) -> Vec<String> {
    let Some(field) = table.get("watch") else { return Vec::new() };
    let mut patterns = Vec::new();
    for item in field.texts().unwrap_or_default() {
        let Some(pattern) = item.text() else { continue };
        match watch::check(folder, pattern) {
            Ok(()) => patterns.push(pattern.to_owned()),
            Err(why) => item.refuse(format!("`watch`: {why}")),
        }
    }
    if !patterns.is_empty() && patterns.iter().all(|pattern| pattern.starts_with('!')) {
        field.refuse("`watch` only says what is not watched");
    }
    patterns
}
