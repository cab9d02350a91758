//! `needs`: names of other apps, each of which must exist, and which may not need each other in a circle.
//!
//! Owns what concerns one list, and what concerns all apps of a configuration together with those that are known beside
//! it. What follows from a need is core's.

use std::collections::BTreeMap;
use std::ops::Range;

use agentd_core::id::AppName;
use agentd_core::needs::{Circle, order};

use super::diagnostic::{Diagnostic, Source};
use super::document::Draft;
use super::load::{Known, drafts};
use super::reader::{TableReader, nearest};

/// Reads the list: each name, and where it stands.
pub(super) fn read(table: &TableReader<'_>) -> BTreeMap<AppName, Range<usize>> {
    let mut needs = BTreeMap::new();
    for item in table.get("needs").and_then(|field| field.texts()).unwrap_or_default() {
        let Some(text) = item.text() else { continue };
        match text.parse::<AppName>() {
            Ok(name) => {
                if needs.insert(name, item.span.clone()).is_some() {
                    item.refuse(format!("`needs` names {text} twice"));
                }
            }
            Err(why) => item.refuse(format!("`needs`: {why}")),
        }
    }
    needs
}

/// Names that nobody has, and circles. In a configuration that is `broken` otherwise an app may be missing only because
/// it could not be read, so only circles are told.
pub(super) fn wrong(documents: &[(Source, Vec<Draft>)], known: &Known, broken: bool) -> Vec<Diagnostic> {
    let mut all = known.clone();
    all.extend(drafts(documents).map(|(_, draft)| (draft.app.name.clone(), draft.app.needs.clone())));
    let mut found = Vec::new();
    for (source, draft) in drafts(documents).filter(|_| !broken) {
        for (need, range) in draft.needs.iter().filter(|(need, _)| !all.contains_key(need)) {
            let message = format!("`{}` needs `{need}`, which nobody has configured", draft.app.name);
            let diagnostic = Diagnostic::at(source.place(range), message);
            found.push(match nearest(need.as_str(), all.keys().map(AppName::as_str)) {
                Some(near) => diagnostic.help(format!("did you mean \"{near}\"?")),
                None => {
                    diagnostic.help("an app that another needs is in the same configuration, or was started before")
                }
            });
        }
    }
    found.extend(circle(documents, &all));
    found
}

fn circle(documents: &[(Source, Vec<Draft>)], all: &Known) -> Option<Diagnostic> {
    let Err(Circle(names)) = order(all.keys(), all) else { return None };
    let at = |name: &AppName| drafts(documents).find(|(_, draft)| draft.app.name == *name);
    // The first of them that this configuration can be blamed for.
    let (index, (source, draft)) = names.iter().enumerate().find_map(|(index, name)| Some((index, at(name)?)))?;
    let next = &names[(index + 1) % names.len()];
    let path: Vec<&str> =
        names[index..].iter().chain(&names[..index]).chain([&names[index]]).map(AppName::as_str).collect();
    let message = if names.len() == 1 {
        format!("`{}` needs itself", names[0])
    } else {
        format!("apps need each other in a circle: {}", path.join(" → "))
    };
    let range = draft.needs.get(next).unwrap_or(&draft.header);
    Some(
        Diagnostic::at(source.place(range), message).help("take one of these needs out: none of them could ever start"),
    )
}
