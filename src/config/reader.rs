//! Typed reading of a TOML table against its list of keys: every problem is recorded, and reading goes on.
//!
//! Nothing here fails: what cannot be read yields `None` after a diagnostic, so that one run finds everything that
//! is wrong. Whoever reads takes a default in its place and looks at [`Report`] in the end.

use std::cell::RefCell;
use std::fmt::Display;
use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::diagnostic::{Diagnostic, Place, Source};
use super::form::{Form, Key, Support, Table, Word};

/// Diagnostics kept for one file: enough to work on, and a bound for a file that is all wrong.
pub(super) const REPORTED: usize = 100;

/// Longest key that is compared with the known ones; no slip of the pen is longer.
pub(super) const COMPARED: usize = 40;

/// What other supervisors call a key, and what it is called here.
const FOREIGN: [(&str, &str); 20] = [
    ("args", "command"),
    ("cmd", "command"),
    ("directory", "cwd"),
    ("environment", "env"),
    ("envs", "env"),
    ("environment_file", "env_file"),
    ("exec", "command"),
    ("exec_start", "command"),
    ("health", "live"),
    ("health_check", "live"),
    ("healthcheck", "live"),
    ("instances", "workers"),
    ("kill_timeout", "stop"),
    ("max_memory_restart", "limits"),
    ("max_restarts", "restart"),
    ("port", "listen"),
    ("processes", "workers"),
    ("replicas", "workers"),
    ("script", "command"),
    ("working_directory", "cwd"),
];

/// Everything found wrong in one file so far.
#[derive(Debug)]
pub(super) struct Report<'r> {
    source: &'r Source,
    found: RefCell<Vec<Diagnostic>>,
}

impl<'r> Report<'r> {
    pub(super) fn new(source: &'r Source) -> Self {
        Self { source, found: RefCell::default() }
    }

    /// A diagnostic about a range of the file, not yet recorded.
    pub(super) fn at(&self, span: &Range<usize>, message: impl Into<String>) -> Diagnostic {
        // Finding a place in a long line takes time, which a file that is all wrong would take without end.
        let place = if self.is_full() { Place::whole(self.source.file()) } else { self.source.place(span) };
        Diagnostic::at(place, message)
    }

    /// Records a problem. Those beyond the first hundred of a file are dropped.
    pub(super) fn add(&self, diagnostic: Diagnostic) {
        if !self.is_full() {
            self.found.borrow_mut().push(diagnostic);
        }
    }

    /// Whether further problems would be dropped, so that nobody need look for them.
    pub(super) fn is_full(&self) -> bool {
        self.found.borrow().len() >= REPORTED
    }

    /// How many problems were recorded.
    pub(super) fn count(&self) -> usize {
        self.found.borrow().len()
    }

    /// Takes the lines out of the problems recorded since there were `count`: they may hold what is not to be shown.
    pub(super) fn conceal_since(&self, count: usize) {
        for diagnostic in self.found.borrow_mut().iter_mut().skip(count) {
            diagnostic.conceal();
        }
    }

    pub(super) fn into_found(self) -> Vec<Diagnostic> {
        self.found.into_inner()
    }
}

/// A table whose keys are known.
#[derive(Debug)]
pub(super) struct TableReader<'r> {
    pub(super) report: &'r Report<'r>,
    keys: &'static Table,
    table: &'r DeTable<'r>,
}

impl<'r> TableReader<'r> {
    /// Starts to read; every key that is unknown or that this version does not act on is recorded at once.
    pub(super) fn new(report: &'r Report<'r>, keys: &'static Table, table: &'r DeTable<'r>) -> Self {
        for key in table.keys() {
            if report.is_full() {
                break;
            }
            let name: &str = key.get_ref();
            match keys.key(name).map(|known| known.support) {
                Some(Support::Now) => {}
                Some(Support::Later(instead)) => {
                    let message = format!("`{name}` is not supported by this version of agentd");
                    report.add(with_help(report.at(&key.span(), message), instead));
                }
                None => {
                    let message = format!("unknown key `{name}` in {}", keys.name);
                    let diagnostic = report.at(&key.span(), message).expected(keys.expected_near(name));
                    report.add(with_help(diagnostic, &key_help(keys, name)));
                }
            }
        }
        Self { report, keys, table }
    }

    /// The value of a key, if the user wrote it.
    pub(super) fn get(&self, name: &'static str) -> Option<Field<'r>> {
        let key = self.keys.key(name).expect("readers ask only for keys that their table lists");
        let (written, value) = self.table.get_key_value(name)?;
        let Key { name, form, .. } = key;
        let field = Field {
            report: self.report,
            name: (*name).to_owned(),
            form,
            key_span: written.span(),
            span: value.span(),
            value: value.get_ref(),
        };
        (key.support == Support::Now).then_some(field)
    }

    /// Those of some keys that the user wrote.
    pub(super) fn given(&self, names: &[&'static str]) -> Vec<Field<'r>> {
        names.iter().filter_map(|name| self.get(name)).collect()
    }
}

/// A value that the user wrote.
#[derive(Clone, Debug)]
pub(super) struct Field<'r> {
    pub(super) report: &'r Report<'r>,
    /// How messages call it.
    pub(super) name: String,
    form: &'static Form,
    pub(super) key_span: Range<usize>,
    pub(super) span: Range<usize>,
    pub(super) value: &'r DeValue<'r>,
}

impl<'r> Field<'r> {
    /// Records a problem with the value.
    pub(super) fn refuse(&self, message: impl Into<String>) {
        self.report.add(self.diagnostic(message));
    }

    /// A problem with the value, not yet recorded.
    pub(super) fn diagnostic(&self, message: impl Into<String>) -> Diagnostic {
        self.report.at(&self.span, message)
    }

    /// Records that the value is of the wrong type.
    pub(super) fn mismatch<T>(&self) -> Option<T> {
        self.report.add(self.mismatch_diagnostic());
        None
    }

    /// That the value is of the wrong type, not yet recorded.
    pub(super) fn mismatch_diagnostic(&self) -> Diagnostic {
        let given = match self.value.type_str() {
            "string" => "a text",
            "integer" => "a whole number",
            "float" => "a number",
            "boolean" => "true or false",
            "array" => "a list",
            "datetime" => "a date",
            _ => "a table",
        };
        let diagnostic = self.diagnostic(format!("`{}` cannot be {given}", self.name)).expected(self.form.expected());
        let unquoted = self.value.is_integer() && matches!(self.form, Form::Text(_));
        if unquoted { diagnostic.help("put it into quotes, with its unit if it has one") } else { diagnostic }
    }

    pub(super) fn text(&self) -> Option<&'r str> {
        let Some(text) = self.value.as_str() else { return self.mismatch() };
        if text.contains('\0') {
            self.refuse(format!("`{}` holds a zero byte, which no program can be given", self.name));
            return None;
        }
        Some(text)
    }

    /// A text that `parse` turns into a value.
    pub(super) fn parsed<T, E: Display>(&self, parse: impl FnOnce(&str) -> Result<T, E>) -> Option<T> {
        match parse(self.text()?) {
            Ok(value) => Some(value),
            Err(why) => {
                let diagnostic = self.diagnostic(format!("`{}`: {why}", self.name));
                // It is a text already: what else it might have been is no help.
                let texts = self.form.alternatives().iter().find(|form| matches!(form, Form::Text(_)));
                self.report.add(diagnostic.expected(texts.unwrap_or(self.form).expected()));
                None
            }
        }
    }

    pub(super) fn flag(&self) -> Option<bool> {
        self.value.as_bool().or_else(|| self.mismatch())
    }

    /// A flag that can only be set: `false` is as if nothing were written, and so is probably not what was meant.
    pub(super) fn set(&self) -> Option<()> {
        if self.flag()? {
            return Some(());
        }
        self.report.add(self.diagnostic(format!("`{}` can only be true", self.name)).help("leave it out instead"));
        None
    }

    /// A whole number within the bounds that its list of keys gives.
    pub(super) fn count(&self) -> Option<u32> {
        let Some((min, max)) = self.form.bounds() else { return self.mismatch() };
        let Some(integer) = self.value.as_integer() else { return self.mismatch() };
        let number = u32::from_str_radix(integer.as_str(), integer.radix()).ok();
        let within = number.filter(|number| (min..=max).contains(number));
        if within.is_none() {
            let diagnostic = self.diagnostic(format!("`{}` cannot be {integer}", self.name));
            self.report.add(diagnostic.expected(self.form.expected()));
        }
        within
    }

    /// A list of whole numbers within the bounds that its list of keys gives.
    pub(super) fn counts(&self) -> Option<Vec<u32>> {
        let Some(array) = self.value.as_array() else { return self.mismatch() };
        let item = |value: &'r toml::Spanned<DeValue<'r>>| Field {
            span: value.span(),
            value: value.get_ref(),
            name: format!("an item of {}", self.name),
            ..self.clone()
        };
        let counts: Vec<_> = array.iter().map(|value| item(value).count()).collect();
        counts.into_iter().collect()
    }

    /// A number strictly between the bounds that its list of keys gives, to six decimals: those survive JSON
    /// unchanged, and a configuration that was stored must equal the one it was read from.
    pub(super) fn fraction(&self) -> Option<f64> {
        let bounds = |form: &Form| if let Form::Fraction(above, below) = form { Some((*above, *below)) } else { None };
        let Some((above, below)) = self.form.alternatives().iter().find_map(bounds) else { return self.mismatch() };
        let text = match (self.value.as_float(), self.value.as_integer()) {
            (Some(float), _) => float.as_str(),
            (None, Some(integer)) => integer.as_str(),
            (None, None) => return self.mismatch(),
        };
        let number = text.parse().ok().map(|number: f64| (number * 1e6).round() / 1e6);
        let within = number.filter(|number| (above < *number) && (*number < below));
        if within.is_none() {
            let diagnostic = self.diagnostic(format!("`{}` cannot be {text}", self.name));
            self.report.add(diagnostic.expected(self.form.expected()));
        }
        within
    }

    /// One of the words that its list of keys gives.
    pub(super) fn word(&self) -> Option<&'static str> {
        let (words, text) = (self.form.words(), self.text()?);
        match words.iter().find(|word| word.name == text) {
            Some(Word { name, support: Support::Now }) => Some(name),
            Some(Word { support: Support::Later(instead), .. }) => {
                let message = format!("`{}` = \"{text}\" is not supported by this version of agentd", self.name);
                self.report.add(with_help(self.diagnostic(message), instead));
                None
            }
            None => {
                let message = format!("`{}` cannot be \"{text}\"", self.name);
                let near = nearest(text, words.iter().map(|word| word.name));
                let help = near.map_or_else(String::new, |near| format!("did you mean \"{near}\"?"));
                self.report.add(with_help(self.diagnostic(message).expected(self.form.expected()), &help));
                None
            }
        }
    }

    /// A list of texts, each as a field of its own.
    pub(super) fn texts(&self) -> Option<Vec<Field<'r>>> {
        let Some(array) = self.value.as_array() else { return self.mismatch() };
        let item = |value: &'r toml::Spanned<DeValue<'r>>| Field {
            span: value.span(),
            value: value.get_ref(),
            form: &Form::Text("a text"),
            name: format!("an item of {}", self.name),
            ..self.clone()
        };
        let items: Vec<_> = array.iter().map(item).collect();
        // Not `all`: every bad item is to be recorded.
        let good = items.iter().filter(|item| item.text().is_some()).count();
        (good == items.len()).then_some(items)
    }

    /// A table with known keys.
    pub(super) fn table(&self) -> Option<TableReader<'r>> {
        let (Some(keys), Some(table)) = (self.form.table(), self.value.as_table()) else { return self.mismatch() };
        Some(TableReader::new(self.report, keys, table))
    }

    /// A list of tables with known keys.
    pub(super) fn tables(&self) -> Option<Vec<TableReader<'r>>> {
        let (Some(keys), Some(array)) = (self.form.tables(), self.value.as_array()) else { return self.mismatch() };
        let mut tables = Vec::new();
        for item in array {
            match item.get_ref().as_table() {
                Some(table) => tables.push(TableReader::new(self.report, keys, table)),
                None => return Field { span: item.span(), value: item.get_ref(), ..self.clone() }.mismatch(),
            }
        }
        Some(tables)
    }

    /// A table whose keys are the user's: each as a field of its own, in the order of the file.
    pub(super) fn entries(&self) -> Option<Vec<(&'r str, Field<'r>)>> {
        let (Some(form), Some(table)) = (self.form.map(), self.value.as_table()) else { return self.mismatch() };
        let mut entries: Vec<_> = table
            .iter()
            .map(|(key, value)| {
                let name = format!("{}.{}", self.name, key.get_ref());
                let (key_span, span) = (key.span(), value.span());
                let value = value.get_ref();
                (key.get_ref().as_ref(), Field { report: self.report, name, form, key_span, span, value })
            })
            .collect();
        entries.sort_by_key(|(_, field)| field.key_span.start);
        Some(entries)
    }
}

/// How many letters two names are apart, whatever their dashes.
pub(super) fn apart(one: &str, other: &str) -> usize {
    strsim::damerau_levenshtein(&one.to_lowercase().replace('-', "_"), &other.replace('-', "_"))
}

/// The known word that `text` was probably meant to be.
pub(super) fn nearest<'w>(text: &str, known: impl Iterator<Item = &'w str>) -> Option<&'w str> {
    if text.len() > COMPARED {
        return None;
    }
    let apart = |word: &&str| apart(text, word);
    known.min_by_key(apart).filter(|word| apart(word) <= (word.len() / 3).max(1))
}

fn key_help(keys: &Table, name: &str) -> String {
    let below = keys.keys().find(|key| matches!(&key.form, Form::Table(table) if table.key(name).is_some()));
    if let Some(Key { name: table, .. }) = below {
        return format!("`{name}` is a key of `{table}`: write `{table}.{name} = …`");
    }
    let foreign = FOREIGN.iter().find(|(theirs, ours)| *theirs == name && keys.key(ours).is_some());
    if let Some((_, ours)) = foreign {
        return format!("agentd calls it `{ours}`");
    }
    let known = keys.keys().map(|key| key.name);
    nearest(name, known).map_or_else(String::new, |near| format!("did you mean `{near}`?"))
}

fn with_help(diagnostic: Diagnostic, help: &str) -> Diagnostic {
    if help.is_empty() { diagnostic } else { diagnostic.help(help) }
}
