//! `ready` and `live`: which proof, asked on which listener, waited for how long.

use std::collections::BTreeMap;
use std::time::Duration;

use super::app::{AppConfig, HttpCheck, Live, LiveCheck, Ready, ReadyCheck};
use super::document::{listener_help, words};
use super::reader::{Field, TableReader};
use super::sections::pause;
use crate::sockets::ListenAddr;

type Listeners = BTreeMap<String, ListenAddr>;

/// The proofs that `ready` may name, of which it takes one.
const READY_PROOFS: [&str; 7] = ["http", "notify", "protocol", "log", "command", "listening", "running"];

/// The proofs that `live` may name, of which it takes one.
const LIVE_PROOFS: [&str; 4] = ["http", "tcp", "command", "watchdog"];

/// Reads `ready`, or takes what is right where it is not written.
pub(super) fn ready(app: &TableReader<'_>, listen: &Listeners, timeout: Duration) -> Ready {
    let mut ready = Ready { check: AppConfig::default_ready(listen), timeout };
    let Some(field) = app.get("ready") else { return ready };
    if field.value.is_str() {
        match field.word() {
            Some("listening") => ready.check = listening(&field, listen),
            Some("notify") => ready.check = ReadyCheck::Notify,
            Some("protocol") => ready.check = ReadyCheck::Protocol,
            Some(_) => ready.check = ReadyCheck::Running,
            None => {}
        }
        return ready;
    }
    let Some(table) = field.table() else { return ready };
    if let Some(timeout) = pause(&table, "timeout") {
        ready.timeout = timeout;
    }
    // With nothing but a timeout, the proof is the one that is right where none is written.
    let only_timeout = table.given(&READY_PROOFS).is_empty() && !table.given(&["timeout"]).is_empty();
    let proof = if only_timeout { None } else { one_of(&table, &READY_PROOFS, &field) };
    refuse_strays(&table, proof.as_ref(), &["on", "status"], &["http"]);
    let Some(proof) = proof else { return ready };
    let check = match proof.name.as_str() {
        "http" => http(&proof, &table, listen).map(ReadyCheck::Http),
        "notify" => proof.set().map(|()| ReadyCheck::Notify),
        "protocol" => proof.set().map(|()| ReadyCheck::Protocol),
        "log" => log_text(&proof).map(ReadyCheck::Log),
        "command" => Some(ReadyCheck::Command(words(&proof, listen))),
        "listening" => proof.set().map(|()| listening(&proof, listen)),
        _ => proof.set().map(|()| ReadyCheck::Running),
    };
    ready.check = check.unwrap_or(ready.check);
    ready
}

/// Reads `live`.
pub(super) fn live(field: &Field<'_>, listen: &Listeners) -> Option<Live> {
    let table = field.table()?;
    let every = pause(&table, "every").unwrap_or(Duration::from_secs(10));
    let timeout = pause(&table, "timeout").unwrap_or(Duration::from_secs(5));
    let failures = table.get("failures").and_then(|field| field.count()).unwrap_or(3);
    let proof = one_of(&table, &LIVE_PROOFS, field);
    refuse_strays(&table, proof.as_ref(), &["status"], &["http"]);
    refuse_strays(&table, proof.as_ref(), &["on"], &["http", "tcp"]);
    refuse_strays(&table, proof.as_ref(), &["every", "timeout", "failures"], &["http", "tcp", "command"]);
    let proof = proof?;
    let check = match proof.name.as_str() {
        "http" => LiveCheck::Http(http(&proof, &table, listen)?),
        "tcp" => {
            proof.set()?;
            LiveCheck::Tcp { on: listener(&proof, &table, listen)? }
        }
        "command" => LiveCheck::Command(words(&proof, listen)),
        _ => {
            let every = pause(&table, "watchdog")?;
            return Some(Live { check: LiveCheck::Watchdog, every, timeout: every, failures: 1 });
        }
    };
    Some(Live { check, every, timeout, failures })
}

pub(super) fn one_of<'r>(table: &TableReader<'r>, proofs: &[&'static str], whole: &Field<'r>) -> Option<Field<'r>> {
    let mut given = table.given(proofs);
    let known = || format!("one of `{}`", proofs.join("`, `"));
    if given.is_empty() {
        whole.report.add(whole.diagnostic(format!("`{}` names no proof", whole.name)).expected(known()));
        return None;
    }
    let first = given.remove(0);
    for other in given {
        let message = format!("`{}` asks for `{}` and for `{}`", whole.name, first.name, other.name);
        whole.report.add(whole.report.at(&other.key_span, message).expected(known()));
    }
    Some(first)
}

/// Refuses keys that mean nothing beside the proof that was taken.
pub(super) fn refuse_strays(
    table: &TableReader<'_>,
    proof: Option<&Field<'_>>,
    keys: &[&'static str],
    beside: &[&str],
) {
    let Some(proof) = proof.filter(|proof| !beside.contains(&proof.name.as_str())) else { return };
    for stray in table.given(keys) {
        let message = format!("`{}` means nothing beside `{}`", stray.name, proof.name);
        let help = format!("it goes with `{}`", beside.join("`, `"));
        stray.report.add(stray.report.at(&stray.key_span, message).help(help));
    }
}

fn listening(field: &Field<'_>, listen: &Listeners) -> ReadyCheck {
    if listen.is_empty() {
        let diagnostic = field.diagnostic("the app listens on nothing, so it can never be seen listening");
        field.report.add(diagnostic.help("add `listen`, or take \"running\" or \"notify\""));
    }
    ReadyCheck::Listening
}

fn log_text(field: &Field<'_>) -> Option<String> {
    let text = field.text()?;
    if text.is_empty() || text.contains('\n') {
        field.refuse("`log` is one text within a line, and every line contains nothing");
        return None;
    }
    Some(text.to_owned())
}

fn http(field: &Field<'_>, table: &TableReader<'_>, listen: &Listeners) -> Option<HttpCheck> {
    let path = field.text().filter(|path| {
        // It goes into a request line as it is.
        let sound = path.starts_with('/') && path.bytes().all(|b| b.is_ascii_graphic());
        if !sound {
            let diagnostic = field.diagnostic(format!("\"{path}\" is no path of a request"));
            field.report.add(diagnostic.expected("a path such as \"/health\", without spaces, host or method"));
        }
        sound
    });
    let status = table.get("status").map_or(Some((200, 399)), |field| status(&field));
    let on = listener(field, table, listen);
    let (status_min, status_max) = status?;
    Some(HttpCheck { path: path?.to_owned(), on: on?, status_min, status_max })
}

fn status(field: &Field<'_>) -> Option<(u16, u16)> {
    if field.value.is_integer() {
        let status = u16::try_from(field.count()?).ok()?;
        return Some((status, status));
    }
    let text = field.text()?;
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    let known = |text: &str| text.trim().parse().ok().filter(|status| (100..=599).contains(status));
    let range = known(low).zip(known(high)).filter(|(low, high)| low <= high);
    if range.is_none() {
        let diagnostic = field.diagnostic(format!("`status` cannot be \"{text}\""));
        field.report.add(diagnostic.expected("a range such as \"200-399\" within 100 to 599"));
    }
    range
}

/// The listener to ask on: the one that `on` names, else "http", else the only one.
pub(super) fn listener(proof: &Field<'_>, table: &TableReader<'_>, listen: &Listeners) -> Option<String> {
    if let Some(on) = table.get("on") {
        let name = on.text()?;
        let diagnostic = match listen.get(name) {
            Some(address) if address.is_stream() => return Some(name.to_owned()),
            Some(_) => on.diagnostic(format!("the listener \"{name}\" takes datagrams, not connections")),
            None => on.diagnostic(format!("the app has no listener \"{name}\"")),
        };
        on.report.add(match listener_help(name, listen).filter(|_| !listen.contains_key(name)) {
            Some(help) => diagnostic.help(help),
            None => diagnostic,
        });
        return None;
    }
    let mut streams = listen.iter().filter(|(_, address)| address.is_stream()).map(|(name, _)| name);
    let (first, second) = (streams.next(), streams.next());
    if listen.get("http").is_some_and(ListenAddr::is_stream) {
        return Some("http".to_owned());
    }
    match (first, second) {
        (Some(only), None) => return Some(only.clone()),
        (Some(_), Some(_)) => proof.report.add(
            proof
                .diagnostic(format!("`{}` could be asked on several listeners", proof.name))
                .help("say which: `on = \"NAME\"`"),
        ),
        (None, _) => {
            proof.refuse(format!("`{}` has no listener to ask on: the app accepts no connections", proof.name))
        }
    }
    None
}
