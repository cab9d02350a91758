//! The small durable store of an app's own: `kv.put`, `kv.get`, `kv.scan`, `kv.del`.

use agentd_core::id::AppName;
use agentd_protocol::worker::{KvScan, Text};
use rusqlite::params;

use super::db::{Db, DbError};
use super::payload::Payload;

/// Items of a page, when not said and at most.
const PAGE: u32 = 100;
const PAGE_MAX: u32 = 1000;
/// Bytes of values after which a page is full.
const PAGE_BYTES: usize = 1024 * 1024;

/// A page of items.
#[derive(Debug, Default)]
pub(super) struct Items {
    pub(super) items: Vec<(String, Option<Payload<'static>>)>,
    pub(super) more: bool,
}

impl Db {
    /// Writes an item; whether its value is there now.
    pub(super) fn put(
        &self,
        app: &AppName,
        ns: &str,
        key: &str,
        value: &Payload<'_>,
        if_absent: bool,
    ) -> Result<bool, DbError> {
        if if_absent && let Some(there) = self.get(app, ns, key)? {
            return Ok(there == *value);
        }
        self.begin()?;
        let kept = value.keep(&self.blobs)?;
        self.run(
            "an item",
            "INSERT INTO kv (app, ns, key, form, value) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT DO UPDATE SET form = excluded.form, value = excluded.value",
            params![app.as_str(), ns, key, kept.form, kept],
        )?;
        Ok(true)
    }

    /// Reads an item.
    pub(super) fn get(&self, app: &AppName, ns: &str, key: &str) -> Result<Option<Payload<'static>>, DbError> {
        let sql = "SELECT form, value FROM kv WHERE app = ?1 AND ns = ?2 AND key = ?3";
        self.payload("an item", sql, params![app.as_str(), ns, key])
    }

    /// Removes an item, or all whose keys begin alike; how many.
    pub(super) fn del(&self, app: &AppName, ns: &str, key: &Deleting<'_>) -> Result<u64, DbError> {
        self.begin()?;
        match key {
            Deleting::Key(key) => {
                let sql = "DELETE FROM kv WHERE app = ?1 AND ns = ?2 AND key = ?3";
                self.run("an item", sql, params![app.as_str(), ns, key])?;
            }
            Deleting::Prefix(prefix) => {
                let sql = "DELETE FROM kv WHERE app = ?1 AND ns = ?2 AND key >= ?3 AND (?4 IS NULL OR key < ?4)";
                self.run("items", sql, params![app.as_str(), ns, prefix, after_all(prefix)])?;
            }
        }
        Ok(self.connection.changes())
    }

    /// Reads items in the order of their keys.
    pub(super) fn scan(&self, app: &AppName, scan: &KvScan<'_>) -> Result<Items, DbError> {
        let limit = scan.limit.unwrap_or(PAGE).clamp(1, PAGE_MAX);
        let (from, to) = (&*scan.prefix, after_all(&scan.prefix));
        let after = scan.after.as_deref();
        let sql = if scan.reverse {
            "SELECT key, form, value FROM kv WHERE app = ?1 AND ns = ?2 AND key >= ?3 AND (?4 IS NULL OR key < ?4)
             AND (?5 IS NULL OR key < ?5) ORDER BY key DESC LIMIT ?6"
        } else {
            "SELECT key, form, value FROM kv WHERE app = ?1 AND ns = ?2 AND key >= ?3 AND (?4 IS NULL OR key < ?4)
             AND (?5 IS NULL OR key > ?5) ORDER BY key LIMIT ?6"
        };
        let read = |source| DbError::Read { what: "items", source };
        let mut statement = self.connection.prepare_cached(sql).map_err(read)?;
        let mut rows = statement.query(params![app.as_str(), &*scan.ns, from, to, after, limit + 1]).map_err(read)?;
        let (mut page, mut bytes) = (Items::default(), 0);
        while let Some(row) = rows.next().map_err(read)? {
            if page.items.len() == limit as usize || bytes > PAGE_BYTES {
                page.more = true;
                break;
            }
            let key: String = row.get(0).map_err(read)?;
            let value = if scan.keys_only {
                None
            } else {
                let (form, value) = (row.get(1).map_err(read)?, row.get(2).map_err(read)?);
                Some(Payload::of_kept(form, value, &self.blobs)?)
            };
            bytes += key.len() + value.as_ref().map_or(0, |value| value.bytes.len());
            page.items.push((key, value));
        }
        Ok(page)
    }
}

/// What is to be removed.
#[derive(Debug)]
pub(super) enum Deleting<'a> {
    Key(&'a str),
    Prefix(&'a str),
}

impl<'a> Deleting<'a> {
    /// The one of two fields that is there; none when it is not one.
    pub(super) fn of_fields(key: Option<&'a Text<'_>>, prefix: Option<&'a Text<'_>>) -> Option<Self> {
        match (key, prefix) {
            (Some(key), None) => Some(Self::Key(key)),
            (None, Some(prefix)) => Some(Self::Prefix(prefix)),
            (None, None) | (Some(_), Some(_)) => None,
        }
    }
}

/// The first text after all that begin with `prefix`, in the order of bytes; none when there is none.
fn after_all(prefix: &str) -> Option<String> {
    let mut chars: Vec<char> = prefix.chars().collect();
    while let Some(last) = chars.pop() {
        // Code points and their bytes in UTF-8 have the same order. The gap of the surrogates is stepped over.
        let next = if last == '\u{d7ff}' { Some('\u{e000}') } else { char::from_u32(last as u32 + 1) };
        if let Some(next) = next {
            chars.push(next);
            return Some(chars.into_iter().collect());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_is_after_everything_that_begins_with_it() {
        assert_eq!(after_all("").as_deref(), None);
        assert_eq!(after_all("a").as_deref(), Some("b"));
        assert_eq!(after_all("a\u{10ffff}").as_deref(), Some("b"));
        assert_eq!(after_all("\u{d7ff}").as_deref(), Some("\u{e000}"));
        assert_eq!(after_all("\u{10ffff}"), None);
    }
}
