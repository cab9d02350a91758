//! One TOML document: its apps, each read to the end whatever is wrong with it.
//!
//! A document that is not TOML yields only its syntax errors, because what follows a broken line cannot be told from
//! what was meant. Everything else is found in one go. What concerns several apps (names, addresses) is `load`'s.

use std::collections::BTreeMap;
use std::ops::Range;

use agentd_core::id::AppName;
use camino::{Utf8Path, Utf8PathBuf};
use toml::de::{DeTable, DeValue};

use super::app::{AppConfig, AppKind, Balance, Ipc, SkillKind};
use super::diagnostic::{Diagnostic, Source};
use super::env_file;
use super::keys;
use super::placeholder::{self, Piece, Wanted};
use super::reader::{Field, Report, TableReader, nearest};
use super::{account, checks, hooks, needs, occasions, quantity, refresh, releases, secrets, sections};
use crate::causes::in_full;
use crate::sockets::ListenAddr;

/// Variables that the daemon sets itself: what the user put there would be lost without a word.
pub(super) const OWN_VARIABLES: [&str; 7] =
    ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "NODE_CHANNEL_FD", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

/// Syntax errors shown of one file; later ones are mostly echoes.
const SYNTAX_SHOWN: usize = 5;

/// An app that was read, and where.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) app: AppConfig,
    /// Where its name stands in the text.
    pub(super) header: Range<usize>,
    /// Where each listener's address stands in the text.
    pub(super) listeners: BTreeMap<String, Range<usize>>,
    /// Where each name of what it needs stands in the text.
    pub(super) needs: BTreeMap<AppName, Range<usize>>,
}

/// Reads a whole document. `folder` is what relative paths are taken from.
pub(super) fn read(source: &Source, folder: &Utf8Path) -> (Vec<Draft>, Vec<Diagnostic>) {
    let report = Report::new(source);
    let (document, errors) = DeTable::parse_recoverable(source.text());
    if !errors.is_empty() {
        syntax_errors(&report, &errors);
        return (Vec::new(), report.into_found());
    }
    let reader = TableReader::new(&report, &keys::DOCUMENT, document.get_ref());
    let mut drafts = Vec::new();
    for section in ["agent", "skill"] {
        let entries = reader.get(section).and_then(|field| field.entries()).unwrap_or_default();
        drafts.extend(
            entries.iter().filter_map(|(name, field)| Some((field.key_span.start, app(section, name, field, folder)?))),
        );
    }
    if let Some(daemon) = reader.get("daemon")
        && let Some(table) = daemon.table()
        && !table.given(&["roles"]).is_empty()
    {
        let diagnostic = report.at(&daemon.key_span, "who may use the daemon is not said beside apps");
        let help = "write it into daemon.toml (docs/reference/paths.md), which the daemon reads when it starts";
        report.add(diagnostic.help(help));
    }
    let hooks = hooks::read(&reader);
    for (_, draft) in &mut drafts {
        let own = std::mem::replace(&mut draft.app.hooks, hooks.clone());
        draft.app.hooks.extend(own);
    }
    drafts.sort_by_key(|(start, _)| *start);
    (drafts.into_iter().map(|(_, draft)| draft).collect(), report.into_found())
}

pub(super) fn syntax_errors(report: &Report<'_>, errors: &[toml::de::Error]) {
    let span = |error: &toml::de::Error| error.span().unwrap_or(0..0);
    let mut errors: Vec<_> = errors.iter().map(|error| (span(error), error.message())).collect();
    errors.sort_by_key(|(span, _)| span.start);
    let (mut last_line, mut shown) = (None, 0);
    for (span, message) in errors {
        let (message, expected) = match message.split_once(", expected ") {
            Some((message, expected)) => (message, Some(expected)),
            None => (message, None),
        };
        let mut diagnostic = report.at(&span, format!("this is not TOML: {message}"));
        diagnostic.expected = expected.map(str::to_owned);
        // One slip, such as a bracket left open, makes the parser stumble over line after line: the first one of
        // such a run is the one to mend.
        let same_run = last_line.replace(diagnostic.line).is_some_and(|last| diagnostic.line <= last + 2);
        if !same_run && shown < SYNTAX_SHOWN {
            shown += 1;
            report.add(diagnostic);
        }
    }
}

fn app(section: &str, name: &str, field: &Field<'_>, folder: &Utf8Path) -> Option<Draft> {
    let report = field.report;
    let name: Option<AppName> = match name.parse() {
        Ok(name) => Some(name),
        Err(why) => {
            report.add(report.at(&field.key_span, format!("{why}")));
            None
        }
    };
    if !matches!(field.value, DeValue::Table(_)) {
        let help = format!("an app is a table of its own: write `[{section}.NAME]` above its keys");
        report.add(field.mismatch_diagnostic().help(help));
        return None;
    }
    let table = field.table()?;
    // Read under any name, so that a bad one does not hide what else is wrong.
    let stand_in = || "unnamed".parse().expect("a valid app name");
    let mut app = AppConfig::new(name.clone().unwrap_or_else(stand_in), Vec::new(), folder.to_owned());
    let listeners = fill(&mut app, &table, &field.key_span, folder);
    app.kind = kind(section, &table, &app);
    let needs = needs::read(&table);
    app.needs = needs.keys().cloned().collect();
    name.is_some().then(|| Draft { app, header: field.key_span.clone(), listeners, needs })
}

fn fill(
    app: &mut AppConfig,
    table: &TableReader<'_>,
    header: &Range<usize>,
    folder: &Utf8Path,
) -> BTreeMap<String, Range<usize>> {
    let listeners = listen(app, table, folder);
    app.releases = releases::read(table, folder);
    app.command = command(table, header, &app.listen);
    if table.get("source").is_none()
        && let Some(cwd) = table.get("cwd").and_then(|field| existing(&field, folder, PathKind::Folder))
    {
        app.cwd = cwd;
    }
    app.env = env(table, &app.listen);
    app.env_file = env_files(table, folder);
    if let Some(workers) = table.get("workers").and_then(|field| field.count()) {
        app.workers = workers;
    }
    if let Some(listen_pid) = table.get("listen_pid").and_then(|field| field.flag()) {
        app.listen_pid = listen_pid;
    }
    app.ipc = table.get("ipc").and_then(|field| field.word()).map(|_| Ipc::Node);
    if let Some(routing) = table.get("routing") {
        routing.word();
    }
    app.balance = balance(table, &app.listen);
    app.ready = checks::ready(table, &app.listen, app.ready.timeout);
    app.live = table.get("live").and_then(|field| checks::live(&field, &app.listen));
    if let Some(umask) = table.get("umask") {
        app.umask = umask.parsed(quantity::parse_mask);
    }
    app.account = account::read(table);
    app.secret = secrets::read(table, folder, &app.env);
    app.cron_reload = occasions::cron(table);
    app.watch = occasions::watch(table, &app.cwd);
    app.refresh = refresh::read(table, app);
    app.hooks = hooks::read(table);
    sections::fill(app, table);
    listeners
}

fn kind(section: &str, table: &TableReader<'_>, app: &AppConfig) -> AppKind {
    if section == "agent" {
        return AppKind::Agent;
    }
    let implied = if app.listen.is_empty() { SkillKind::Worker } else { SkillKind::Service };
    let Some(field) = table.get("kind") else { return AppKind::Skill(implied) };
    match field.word() {
        Some("service") => {
            if app.listen.is_empty() && table.get("listen").is_none() {
                let diagnostic = field.diagnostic("a skill of the kind \"service\" listens on nothing");
                field.report.add(diagnostic.help("give it an address with `listen`, or take the kind \"worker\""));
            }
            AppKind::Skill(SkillKind::Service)
        }
        Some(_) => AppKind::Skill(SkillKind::Worker),
        None => AppKind::Skill(implied),
    }
}

fn listen(app: &mut AppConfig, table: &TableReader<'_>, folder: &Utf8Path) -> BTreeMap<String, Range<usize>> {
    let mut places = BTreeMap::new();
    let Some(field) = table.get("listen") else { return places };
    let entries = if matches!(field.value, DeValue::Table(_)) {
        field.entries().unwrap_or_default()
    } else {
        vec![("http", field.clone())]
    };
    let mut variables = BTreeMap::new();
    for (name, field) in entries {
        let Some(address) = address(&field, folder) else { continue };
        if !placeholder::is_listener_name(name) {
            let message = format!("a listener cannot be called \"{name}\"");
            let expected = "a letter, then up to 63 of a-z, A-Z, 0-9, '_' and '-'";
            field.report.add(field.report.at(&field.key_span, message).expected(expected));
            continue;
        }
        let variable = super::environment::fd_variable(name);
        if let Some(other) = variables.insert(variable.clone(), name) {
            let message = format!("the listeners `{other}` and `{name}` would both be told to workers as {variable}");
            field.report.add(field.report.at(&field.key_span, message));
        }
        places.insert(name.to_owned(), field.span.clone());
        app.listen.insert(name.to_owned(), address);
    }
    places
}

fn address(field: &Field<'_>, folder: &Utf8Path) -> Option<ListenAddr> {
    // A bare port is a number to most people.
    let Some(port) = field.value.as_integer().filter(|port| port.radix() == 10) else {
        return field.parsed(|text| ListenAddr::parse_in(text, folder));
    };
    let address = ListenAddr::parse_in(port.as_str(), folder);
    address.map_err(|why| field.refuse(format!("`{}`: {why}", field.name))).ok()
}

fn command(table: &TableReader<'_>, header: &Range<usize>, listen: &BTreeMap<String, ListenAddr>) -> Vec<String> {
    let Some(field) = table.get("command") else {
        // Its releases bring their own, or are refused.
        if table.get("source").is_some() {
            return Vec::new();
        }
        let diagnostic = table.report.at(header, "there is no `command` to run");
        table.report.add(diagnostic.expected("`command = [\"PROGRAM\", \"ARGUMENT\", …]`"));
        return Vec::new();
    };
    if let Some(line) = field.value.as_str() {
        let plain =
            !line.trim().is_empty() && !line.contains(['"', '\'', '\\', '$', '`', '|', '&', ';', '<', '>', '*']);
        let split: Vec<String> = line.split_whitespace().map(|word| format!("\"{word}\"")).collect();
        let help = if plain { format!("write [{}]", split.join(", ")) } else { "no shell reads it".to_owned() };
        table.report.add(field.mismatch_diagnostic().help(help));
        return Vec::new();
    }
    words(&field, listen)
}

/// A program and its arguments, or nothing after a diagnostic.
pub(super) fn words(field: &Field<'_>, listen: &BTreeMap<String, ListenAddr>) -> Vec<String> {
    let Some(items) = field.texts() else { return Vec::new() };
    if items.first().and_then(|item| item.value.as_str()).is_none_or(|program| program.trim().is_empty()) {
        field.refuse(format!("`{}` names no program", field.name));
    }
    items.iter().filter_map(|item| placeholders_known(item, listen)).map(str::to_owned).collect()
}

/// The text, every placeholder in it being checked.
fn placeholders_known<'r>(field: &Field<'r>, listen: &BTreeMap<String, ListenAddr>) -> Option<&'r str> {
    let text = field.text()?;
    for problem in unknown_placeholders(text, listen) {
        let diagnostic = field.diagnostic(problem.message);
        field.report.add(match problem.help {
            Some(help) => diagnostic.help(help),
            None => diagnostic,
        });
    }
    Some(text)
}

/// A placeholder that cannot be filled in.
#[derive(Debug)]
pub(super) struct PlaceholderProblem {
    pub(super) message: String,
    pub(super) help: Option<String>,
}

/// Every placeholder of a text that names no listener, or one that has not what is asked for.
pub(super) fn unknown_placeholders(text: &str, listen: &BTreeMap<String, ListenAddr>) -> Vec<PlaceholderProblem> {
    let mut problems = Vec::new();
    for piece in placeholder::pieces(text) {
        let Piece::Placeholder(wanted, name) = piece else { continue };
        match (listen.get(name), wanted) {
            (None, _) => problems.push(PlaceholderProblem {
                message: format!("the placeholder names the listener \"{name}\", which the app has not"),
                help: listener_help(name, listen),
            }),
            (Some(address), Wanted::Host | Wanted::Port) if address.is_unix() => problems.push(PlaceholderProblem {
                message: format!("the listener \"{name}\" is a Unix socket and has neither host nor port"),
                help: Some(format!("take its descriptor: {{fd:{name}}}")),
            }),
            (Some(_), Wanted::Fd | Wanted::Host | Wanted::Port) => {}
        }
    }
    problems
}

/// Which listener was probably meant.
pub(super) fn listener_help(name: &str, listen: &BTreeMap<String, ListenAddr>) -> Option<String> {
    if listen.is_empty() {
        return Some(format!("the app listens on nothing: add `listen.{name} = \"0.0.0.0:8080\"`"));
    }
    nearest(name, listen.keys().map(String::as_str)).map(|near| format!("did you mean \"{near}\"?"))
}

fn env(table: &TableReader<'_>, listen: &BTreeMap<String, ListenAddr>) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    for (name, field) in table.get("env").and_then(|field| field.entries()).unwrap_or_default() {
        if name.is_empty() || name.contains(['=', '\0']) {
            field.report.add(field.report.at(&field.key_span, "an environment variable cannot be called so"));
        } else if OWN_VARIABLES.contains(&name) || name.starts_with("AGENTD_") {
            field
                .report
                .add(field.report.at(&field.key_span, format!("agentd sets `{name}` itself")).help("leave it out"));
        } else if let Some(value) = variable(&field, listen) {
            variables.insert(name.to_owned(), value);
        }
    }
    variables
}

fn variable(field: &Field<'_>, listen: &BTreeMap<String, ListenAddr>) -> Option<String> {
    if let Some(flag) = field.value.as_bool() {
        return Some(flag.to_string());
    }
    if let Some(integer) = field.value.as_integer().filter(|integer| integer.radix() == 10) {
        return Some(integer.as_str().to_owned());
    }
    if let Some(float) = field.value.as_float() {
        return Some(float.as_str().to_owned());
    }
    placeholders_known(field, listen).map(str::to_owned)
}

fn env_files(table: &TableReader<'_>, folder: &Utf8Path) -> Vec<Utf8PathBuf> {
    let Some(field) = table.get("env_file") else { return Vec::new() };
    let items = if field.value.is_str() { vec![field] } else { field.texts().unwrap_or_default() };
    let mut files = Vec::new();
    for item in items {
        let Some(file) = existing(&item, folder, PathKind::File) else { continue };
        match env_file::read(&file) {
            Ok(_) => files.push(file),
            Err(why) => item.refuse(format!("`env_file`: {}", in_full(&why))),
        }
    }
    files
}

/// What a path should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PathKind {
    Folder,
    File,
}

/// An absolute path to what exists and is of the right kind.
fn existing(field: &Field<'_>, folder: &Utf8Path, kind: PathKind) -> Option<Utf8PathBuf> {
    let path = folder.join(field.text()?);
    let name = if kind == PathKind::Folder { "cwd" } else { "env_file" };
    // `.` goes, `..` stays: it may lead out of a link.
    let path: Utf8PathBuf = path.components().collect();
    let found = match std::fs::metadata(&path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let diagnostic = field.diagnostic(format!("{name} does not exist: {path}"));
            let tilde = field.value.as_str().is_some_and(|text| text.starts_with('~'));
            field.report.add(if tilde {
                diagnostic.help("`~` is not expanded: write the whole path")
            } else {
                diagnostic
            });
            return None;
        }
        Err(error) => {
            field.refuse(format!("{name} {path} cannot be looked at: {error}"));
            return None;
        }
    };
    let right = match kind {
        PathKind::Folder => found.is_dir(),
        PathKind::File => found.is_file(),
    };
    if !right {
        let wanted = if kind == PathKind::Folder { "a folder" } else { "a file" };
        field.refuse(format!("{name} is not {wanted}: {path}"));
    }
    right.then_some(path)
}

fn balance(table: &TableReader<'_>, listen: &BTreeMap<String, ListenAddr>) -> Balance {
    let unix = listen.iter().find(|(_, address)| address.is_unix());
    let implied = AppConfig::default_balance(listen);
    let Some(field) = table.get("balance") else { return implied };
    match (field.word(), unix) {
        (Some("spread"), Some((name, address))) => {
            let message = format!("`balance` cannot be \"spread\" while the listener \"{name}\" is {address}");
            let help = "a Unix socket has one accept queue: take \"shared\", or leave `balance` out";
            field.report.add(field.diagnostic(message).help(help));
            implied
        }
        (Some("shared"), _) => Balance::Shared,
        (Some(_) | None, _) => implied,
    }
}
