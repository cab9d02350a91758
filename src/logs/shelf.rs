//! What lies in the logs folder: per live file, what was put aside.
//!
//! Owns the look at it only. Names that nobody here gives are passed over, as are folders that are no app's.

use std::collections::BTreeMap;
use std::io;
use std::time::SystemTime;

use agentd_core::id::AppName;
use camino::{Utf8Path, Utf8PathBuf};

use super::layout::{Aside, Number, parse_aside, parse_live_name};

/// One log that was put aside, in all its files.
#[derive(Debug)]
pub(super) struct Book {
    /// When its last line came.
    pub(super) written: SystemTime,
    /// Bytes of its files.
    pub(super) bytes: u64,
    /// Whether there are lines at all, packed or not.
    pub(super) has_log: bool,
    /// Whether there is something unpacked.
    pub(super) plain: bool,
}

/// One live file and what it put aside.
#[derive(Debug)]
pub(super) struct Shelf {
    /// The live file. It need not exist.
    pub(super) live: Utf8PathBuf,
    /// Bytes of the live file and its index.
    pub(super) live_bytes: u64,
    /// What it put aside.
    pub(super) books: BTreeMap<Number, Book>,
    /// What packing left half done.
    pub(super) leftovers: Vec<Utf8PathBuf>,
}

impl Shelf {
    /// Bytes of all its files.
    pub(super) fn bytes(&self) -> u64 {
        self.live_bytes + self.books.values().map(|book| book.bytes).sum::<u64>()
    }

    fn take(&mut self, own: &str, name: &str, path: &Utf8Path, meta: &std::fs::Metadata) {
        let Some((number, aside)) = parse_aside(own, name) else {
            self.live_bytes += meta.len();
            return;
        };
        let written = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        let fresh = Book { written, bytes: 0, has_log: false, plain: false };
        match aside {
            Aside::Part => {
                self.leftovers.push(path.to_owned());
                return;
            }
            Aside::Log | Aside::PackedLog => {
                let book = self.books.entry(number).or_insert(fresh);
                book.written = written;
                book.has_log = true;
                book.plain |= aside == Aside::Log;
            }
            // An index that its packed log left behind is packing that was cut short as well.
            Aside::Index => self.books.entry(number).or_insert(fresh).plain |= name.ends_with(".idx"),
        }
        if let Some(book) = self.books.get_mut(&number) {
            book.bytes += meta.len();
        }
    }
}

/// Everything in the folder `logs`, by app.
///
/// # Errors
/// When the folder cannot be read. What goes meanwhile is passed over.
pub(super) fn shelves(logs: &Utf8Path) -> io::Result<BTreeMap<AppName, Vec<Shelf>>> {
    let mut all = BTreeMap::new();
    for entry in logs.read_dir_utf8()? {
        let entry = entry?;
        let Ok(app) = entry.file_name().parse::<AppName>() else { continue };
        let Ok(files) = entry.path().read_dir_utf8() else { continue };
        let mut shelves: BTreeMap<String, Shelf> = BTreeMap::new();
        for file in files.filter_map(Result::ok) {
            let name = file.file_name();
            let Some(own) = live_name(name) else { continue };
            let Ok(meta) = std::fs::metadata(file.path()) else { continue };
            let shelf = shelves.entry(own.to_owned()).or_insert_with(|| Shelf {
                live: entry.path().join(own),
                live_bytes: 0,
                books: BTreeMap::new(),
                leftovers: Vec::new(),
            });
            shelf.take(own, name, file.path(), &meta);
        }
        all.insert(app, shelves.into_values().collect());
    }
    Ok(all)
}

/// The name of the live file that a file called `name` belongs to.
fn live_name(name: &str) -> Option<&str> {
    let end = name.find(".log")? + ".log".len();
    let own = &name[..end];
    parse_live_name(own).map(|_| own)
}
