//! From a path to apps: one file or a folder of them, all or nothing.
//!
//! Owns reading the files and what concerns several apps: a name twice, an address twice. Nothing that a file holds
//! can do more than become a diagnostic: sizes are bounded, and what is no regular file is never opened.

use std::collections::BTreeMap;
use std::io::Read;

use camino::{Utf8Path, Utf8PathBuf};

use super::app::AppConfig;
use super::diagnostic::{Diagnostic, Place, Source};
use super::document::{self, Draft};
use super::listen::ListenAddr;

/// Bytes of a configuration file at most.
const SIZE_MAX: u64 = 1 << 20;

/// Reads the configuration at `path`: a file, or every `*.toml` of a folder, in the order of their names, hidden ones
/// left out. Relative paths in a file are taken from the folder that it is in. The apps come in the order of the text.
///
/// # Errors
/// Everything that is wrong, in the order of files and lines; then nothing is to be started.
pub fn load(path: &Utf8Path) -> Result<Vec<AppConfig>, Vec<Diagnostic>> {
    let files = files(path).map_err(|diagnostic| vec![*diagnostic])?;
    let (mut drafts, mut found) = (Vec::new(), Vec::new());
    for file in files {
        match read(&file) {
            Ok((source, folder)) => {
                let (new, wrong) = document::read(&source, &folder);
                drafts.extend(new);
                found.extend(wrong);
            }
            Err(diagnostic) => found.push(*diagnostic),
        }
    }
    found.extend(names_twice(&drafts));
    found.extend(addresses_twice(&drafts));
    if found.is_empty() {
        return Ok(drafts.into_iter().map(|draft| draft.app).collect());
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
fn read(file: &Utf8Path) -> Result<(Source, Utf8PathBuf), Box<Diagnostic>> {
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

fn names_twice(drafts: &[Draft]) -> Vec<Diagnostic> {
    let mut seen: BTreeMap<&str, &Draft> = BTreeMap::new();
    let mut found = Vec::new();
    for draft in drafts {
        let name = draft.app.name.as_str();
        match seen.get(name) {
            Some(first) => {
                let message =
                    format!("the name `{name}` is taken by the {} at {}", first.app.kind.as_str(), first.header);
                let help = "agents and skills share their names";
                found.push(Diagnostic::at(draft.header.clone(), message).help(help));
            }
            None => {
                seen.insert(name, draft);
            }
        }
    }
    found
}

fn addresses_twice(drafts: &[Draft]) -> Vec<Diagnostic> {
    // By port, so that thousands of apps are not each compared with every other.
    let mut seen: BTreeMap<Option<u16>, Vec<(&Draft, &ListenAddr, &Place)>> = BTreeMap::new();
    let mut found = Vec::new();
    for draft in drafts {
        for (name, address) in &draft.app.listen {
            let place = &draft.listeners[name];
            let near = seen.entry(address.port()).or_default();
            if let Some((first, other, at)) = near.iter().find(|(_, other, _)| address.overlaps(other)) {
                let same = if *other == address { String::new() } else { format!(" as {other}") };
                let message = format!("{address} is taken by `{}`{same} at {at}", first.app.name);
                found.push(Diagnostic::at(place.clone(), message));
            } else {
                near.push((draft, address, place));
            }
        }
    }
    found
}
