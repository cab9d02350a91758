//! From a path to apps: one file or a folder of them, all or nothing.
//!
//! Owns reading the files and what concerns several apps: a name twice, an address twice. Nothing that a file holds
//! can do more than become a diagnostic: sizes are bounded, and what is no regular file is never opened.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::ops::Range;

use agentd_core::id::AppName;
use camino::{Utf8Path, Utf8PathBuf};

use super::app::AppConfig;
use super::diagnostic::{Diagnostic, Place, Source};
use super::document::{self, Draft};
use super::needs;
use super::reader::REPORTED;
use crate::sockets::ListenAddr;

/// Apps that are known beside a configuration, with what each needs.
pub type Known = BTreeMap<AppName, BTreeSet<AppName>>;

/// Bytes of a configuration file at most.
const SIZE_MAX: u64 = 1 << 20;

/// Reads the configuration at `path`: a file, or every `*.toml` of a folder, in the order of their names, hidden ones
/// left out. Relative paths in a file are taken from the folder that it is in. The apps come in the order of the text.
///
/// # Errors
/// Everything that is wrong, in the order of files and lines; then nothing is to be started.
pub fn load(path: &Utf8Path) -> Result<Vec<AppConfig>, Vec<Diagnostic>> {
    load_among(path, &Known::new())
}

/// As [`load`], among apps that are known already, by name and with what they need: what the file says may need those.
///
/// # Errors
/// As [`load`].
pub fn load_among(path: &Utf8Path, known: &Known) -> Result<Vec<AppConfig>, Vec<Diagnostic>> {
    let files = files(path).map_err(|diagnostic| vec![*diagnostic])?;
    let (mut documents, mut found) = (Vec::new(), Vec::new());
    for file in files {
        match read(&file) {
            Ok((source, folder)) => {
                let (drafts, wrong) = document::read(&source, &folder);
                documents.push((source, drafts));
                found.extend(wrong);
            }
            Err(diagnostic) => found.push(*diagnostic),
        }
    }
    found.extend(names_twice(&documents));
    found.extend(addresses_twice(&documents));
    found.extend(needs::wrong(&documents, known, !found.is_empty()));
    if found.is_empty() {
        return Ok(documents.into_iter().flat_map(|(_, drafts)| drafts).map(|draft| draft.app).collect());
    }
    found.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
    Err(found)
}

fn files(path: &Utf8Path) -> Result<Vec<Utf8PathBuf>, Box<Diagnostic>> {
    let refuse = |why: String| Box::new(Diagnostic::at(Place::whole(path), why));
    let metadata = std::fs::metadata(path).map_err(|error| {
        let gone = error.kind() == std::io::ErrorKind::NotFound;
        refuse(if gone {
            "there is no such file or folder".to_owned()
        } else {
            format!("it cannot be looked at: {error}")
        })
    })?;
    if !metadata.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = path.read_dir_utf8().and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let entries = entries.map_err(|error| refuse(format!("the folder cannot be read: {error}")))?;
    let wanted = |name: &str| name.ends_with(".toml") && !name.starts_with('.');
    let mut files: Vec<_> =
        entries.iter().filter(|entry| wanted(entry.file_name())).map(|entry| entry.path().to_owned()).collect();
    files.sort();
    if files.is_empty() { Err(refuse("the folder holds no *.toml file".to_owned())) } else { Ok(files) }
}

/// A file's text, and the absolute folder that it is in.
pub(super) fn read(file: &Utf8Path) -> Result<(Source, Utf8PathBuf), Box<Diagnostic>> {
    let refuse = |why: String| Box::new(Diagnostic::at(Place::whole(file), why));
    let failed = |error: std::io::Error| refuse(format!("the file cannot be read: {error}"));
    // Before it is opened: opening a pipe without a writer would wait for ever.
    if !std::fs::metadata(file).map_err(failed)?.is_file() {
        return Err(refuse("it is not a regular file".to_owned()));
    }
    let mut bytes = Vec::new();
    std::fs::File::open(file).and_then(|file| file.take(SIZE_MAX + 1).read_to_end(&mut bytes)).map_err(failed)?;
    if bytes.len() as u64 > SIZE_MAX {
        return Err(refuse(format!("the file has more than {SIZE_MAX} bytes")));
    }
    let absolute = camino::absolute_utf8(file).map_err(failed)?;
    let folder = absolute.parent().unwrap_or(Utf8Path::new("/")).to_owned();
    match String::from_utf8(bytes) {
        Ok(text) => Ok((Source::new(file, text), folder)),
        Err(error) => {
            let at = error.utf8_error().valid_up_to();
            let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
            let place = Source::new(file, text).place(&(at..at + 1));
            Err(Box::new(Diagnostic::at(place, "the file is not UTF-8 from here on")))
        }
    }
}

/// Each app with the text that it stands in.
pub(super) fn drafts(documents: &[(Source, Vec<Draft>)]) -> impl Iterator<Item = (&Source, &Draft)> {
    documents.iter().flat_map(|(source, drafts)| drafts.iter().map(move |draft| (source, draft)))
}

fn names_twice(documents: &[(Source, Vec<Draft>)]) -> Vec<Diagnostic> {
    let mut seen: BTreeMap<&str, (&Source, &Draft)> = BTreeMap::new();
    let mut found = Vec::new();
    for (source, draft) in drafts(documents) {
        let name = draft.app.name.as_str();
        let Some((other, first)) = seen.get(name) else {
            seen.insert(name, (source, draft));
            continue;
        };
        let (kind, at) = (first.app.kind.as_str(), other.place(&first.header));
        let message = format!("the name `{name}` is taken by the {kind} at {at}");
        found.push(Diagnostic::at(source.place(&draft.header), message).help("agents and skills share their names"));
        if found.len() >= REPORTED {
            break;
        }
    }
    found
}

/// An address that an app listens on, and where that is written.
struct Claim<'d> {
    app: &'d AppName,
    address: &'d ListenAddr,
    source: &'d Source,
    range: &'d Range<usize>,
}

fn addresses_twice(documents: &[(Source, Vec<Draft>)]) -> Vec<Diagnostic> {
    // By port or path, so that thousands of apps are not each compared with every other.
    let mut seen: BTreeMap<_, Vec<Claim<'_>>> = BTreeMap::new();
    let mut found = Vec::new();
    for (source, draft) in drafts(documents) {
        for (name, address) in &draft.app.listen {
            let range = &draft.listeners[name];
            let near = seen.entry((address.port(), address.path())).or_default();
            if let Some(claim) = near.iter().find(|claim| address.overlaps(claim.address)) {
                let same = if claim.address == address { String::new() } else { format!(" as {}", claim.address) };
                let at = claim.source.place(claim.range);
                let message = format!("{address} is taken by `{}`{same} at {at}", claim.app);
                found.push(Diagnostic::at(source.place(range), message));
            } else {
                near.push(Claim { app: &draft.app.name, address, source, range });
            }
        }
        if found.len() >= REPORTED {
            break;
        }
    }
    found
}
