//! A configuration as a list of fields, each a name and a text, as its user writes them: what a difference is told in.
//!
//! Owns the way from [`AppConfig`] to that list. It goes over everything that the configuration is stored as, so that a
//! field that somebody adds is compared without a word here; what is here only makes names and values more like the
//! file's. Values are whole, those that nobody may see (`env`) as well: whoever shows them leaves those out.

use std::collections::BTreeMap;

use agentd_core::diff::Description;
use serde_json::Value;

use super::app::{AppConfig, LiveCheck};
use super::quantity::format_duration;

/// What fields are called where the file has another word: the beginning of the stored name, and the file's.
const NAMES: [(&str, &str); 33] = [
    ("releases.source", "source"),
    ("releases.cwd", "cwd"),
    ("releases.changes", "changes"),
    ("releases.limits.bytes", "releases.max_size"),
    ("releases.limits.entries", "releases.max_files"),
    ("account.user", "user"),
    ("account.group", "group"),
    ("account.groups", "groups"),
    ("limits.cpu_seconds", "limits.cpu_time (seconds)"),
    ("restart.when", "restart.policy"),
    ("restart.backoff_min", "restart.backoff (first)"),
    ("restart.backoff_max", "restart.backoff (longest)"),
    ("restart.period", "restart.max (in)"),
    ("limits.cpu_percent", "limits.cpu"),
    ("ready.check.http.path", "ready.http"),
    ("ready.check.http", "ready.http"),
    ("ready.check.log", "ready.log"),
    ("ready.check.command", "ready.command"),
    ("ready.check", "ready"),
    ("live.check.http.path", "live.http"),
    ("live.check.http", "live.http"),
    ("live.check.tcp", "live.tcp"),
    ("live.check.command", "live.command"),
    ("live.check", "live"),
    ("kind.skill", "kind"),
    ("tasks.policy.on_deadline", "grace.on_deadline"),
    ("tasks.policy.doubts", "tasks.effects"),
    ("tasks.policy", "tasks"),
    ("tasks.retention.count", "tasks.keep"),
    ("tasks.retention.age", "tasks.keep_for"),
    ("tasks.retention.bytes", "tasks.keep_bytes"),
    ("upgrade.eval_timeout", "gates.eval_timeout"),
    ("upgrade.eval", "gates.eval"),
];

/// The fields of a configuration that is read again from `file`, if any.
#[must_use]
pub fn describe(config: &AppConfig, file: Option<&str>) -> Description {
    let mut fields = BTreeMap::new();
    match serde_json::to_value(config) {
        Ok(Value::Object(members)) => {
            for (name, value) in members.iter().filter(|(name, _)| *name != "name") {
                flatten(name, value, &mut fields);
            }
        }
        Ok(_) | Err(_) => unreachable!("a configuration is stored as an object"),
    }
    if let Some(live) = config.live.as_ref().filter(|live| live.check == LiveCheck::Watchdog) {
        fields.retain(|name, _| name != "live" && !name.starts_with("live."));
        fields.insert("live.watchdog".to_owned(), format_duration(live.every));
    }
    if let Some(file) = file {
        fields.insert("file".to_owned(), file.to_owned());
    }
    Description { fields, policy: config.policy() }
}

fn flatten(name: &str, value: &Value, fields: &mut BTreeMap<String, String>) {
    let text = match value {
        Value::Null => return,
        Value::Object(members) => match duration(value) {
            Some(text) => text,
            None => {
                for (key, value) in members {
                    flatten(&format!("{name}.{key}"), value, fields);
                }
                return;
            }
        },
        Value::Array(items) if items.is_empty() => return,
        Value::Array(_) => value.to_string(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
    };
    fields.insert(written(name), text);
}

/// A `Duration` as serde stores it.
fn duration(value: &Value) -> Option<String> {
    let (secs, nanos) = (value.get("secs")?.as_u64()?, value.get("nanos")?.as_u64()?);
    Some(format_duration(std::time::Duration::new(secs, u32::try_from(nanos).ok()?)))
}

fn written(name: &str) -> String {
    if name.starts_with("secret.") {
        return name.replacen(".from.", ".", 1).replacen(".road", ".as", 1);
    }
    let known = NAMES.iter().find_map(|(stored, file)| {
        let rest = name.strip_prefix(stored)?;
        (rest.is_empty() || rest.starts_with('.')).then(|| format!("{file}{rest}"))
    });
    known.unwrap_or_else(|| name.to_owned())
}
