//! What a key takes: the shapes in which `keys` is written.
//!
//! Owns how a form is told to a user ("expected …"), and which of several forms fits a value. Knows no key.

use super::reader::{COMPARED, apart};

/// As many keys are told in their own order: they are read at a glance.
const AT_A_GLANCE: usize = 8;

/// A table of the configuration.
#[derive(Debug)]
pub(super) struct Table {
    /// What it is called in a message: "an agent", "`ready`".
    pub(super) name: &'static str,
    /// Keys of its own, before those that it shares.
    pub(super) first: &'static [Key],
    /// Its other keys, in the order in which they are documented.
    pub(super) keys: &'static [Key],
}

/// One key of a table.
#[derive(Debug)]
pub(super) struct Key {
    /// As it is written.
    pub(super) name: &'static str,
    /// What it takes.
    pub(super) form: Form,
    /// What it is for, in one line.
    pub(super) about: &'static str,
    /// Whether this version acts on it.
    pub(super) support: Support,
}

/// Whether this version acts on a key or a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Support {
    /// It does.
    Now,
    /// It does not yet; the text says what to do until then, and may be empty.
    Later(&'static str),
}

/// What a key takes.
#[derive(Debug)]
pub(super) enum Form {
    /// `true` or `false`.
    Flag,
    /// A whole number within bounds, both included.
    Count(u32, u32),
    /// A list of whole numbers within bounds, both included; described.
    Counts(&'static str, u32, u32),
    /// A number between two others, neither included.
    Fraction(f64, f64),
    /// A text, described.
    Text(&'static str),
    /// A list of texts, described.
    Texts(&'static str),
    /// One of some words.
    Word(&'static [Word]),
    /// A table of its own.
    Table(&'static Table),
    /// A list of tables; described.
    Tables(&'static str, &'static Table),
    /// A table whose keys are the user's.
    Map(&'static str, &'static Form),
    /// Any one of several.
    Either(&'static [Form]),
}

/// A word that a key may take.
#[derive(Debug)]
pub(super) struct Word {
    /// As it is written.
    pub(super) name: &'static str,
    /// Whether this version acts on it.
    pub(super) support: Support,
}

impl Table {
    /// The key of this name.
    pub(super) fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys().find(|key| key.name == name)
    }

    /// All its keys, in the order in which they are documented.
    pub(super) fn keys(&self) -> impl Iterator<Item = &'static Key> {
        self.first.iter().chain(self.keys)
    }
}

impl Form {
    /// What it takes, in words that follow "expected".
    pub(super) fn expected(&self) -> String {
        match self {
            Self::Flag => "true or false".to_owned(),
            Self::Count(min, max) => format!("a whole number from {min} to {max}"),
            Self::Fraction(above, below) => format!("a number above {above} and below {below}"),
            Self::Counts(like, ..)
            | Self::Text(like)
            | Self::Texts(like)
            | Self::Tables(like, _)
            | Self::Map(like, _) => (*like).to_owned(),
            Self::Word(words) => listed(words.iter().map(|word| format!("\"{}\"", word.name)).collect()),
            Self::Table(table) => format!("a table with {}", table.expected()),
            Self::Either(forms) => listed(forms.iter().map(Self::expected).collect()),
        }
    }
}

impl Table {
    /// The keys that this version acts on, in words that follow "expected".
    pub(super) fn expected(&self) -> String {
        listed_keys(self.keys())
    }

    /// The same, where a key was written that it has not: of many, those first that are written most like it.
    pub(super) fn expected_near(&self, written: &str) -> String {
        let mut keys: Vec<&Key> = self.keys().collect();
        if keys.len() > AT_A_GLANCE && written.len() <= COMPARED {
            keys.sort_by_key(|key| apart(written, key.name));
        }
        listed_keys(keys.into_iter())
    }
}

fn listed_keys<'k>(keys: impl Iterator<Item = &'k Key>) -> String {
    let known = keys.filter(|key| key.support == Support::Now);
    let names: Vec<String> = known.map(|key| format!("`{}`", key.name)).collect();
    if names.is_empty() { "no key at all".to_owned() } else { listed(names) }
}

fn listed(mut items: Vec<String>) -> String {
    match items.pop() {
        Some(last) if items.is_empty() => last,
        Some(last) => format!("{} or {last}", items.join(", ")),
        None => String::new(),
    }
}

impl Form {
    /// The forms that a value may take, of which most keys have one.
    pub(super) fn alternatives(&'static self) -> &'static [Self] {
        match self {
            Self::Either(forms) => forms,
            Self::Flag
            | Self::Count(..)
            | Self::Counts(..)
            | Self::Fraction(..)
            | Self::Text(_)
            | Self::Texts(_)
            | Self::Word(_)
            | Self::Table(_)
            | Self::Tables(..)
            | Self::Map(..) => std::slice::from_ref(self),
        }
    }

    /// The bounds of the whole number that it may be.
    pub(super) fn bounds(&'static self) -> Option<(u32, u32)> {
        self.alternatives().iter().find_map(|form| {
            if let Self::Count(min, max) | Self::Counts(_, min, max) = form { Some((*min, *max)) } else { None }
        })
    }

    /// The words that it may be.
    pub(super) fn words(&'static self) -> &'static [Word] {
        let words = |form: &'static Self| if let Self::Word(words) = form { Some(*words) } else { None };
        self.alternatives().iter().find_map(words).unwrap_or_default()
    }

    /// The keys of the table that it may be.
    pub(super) fn table(&'static self) -> Option<&'static Table> {
        self.alternatives().iter().find_map(|form| if let Self::Table(table) = form { Some(*table) } else { None })
    }

    /// The keys of the tables that it may be a list of.
    pub(super) fn tables(&'static self) -> Option<&'static Table> {
        self.alternatives().iter().find_map(|form| if let Self::Tables(_, table) = form { Some(*table) } else { None })
    }

    /// The form of the values of the table that it may be.
    pub(super) fn map(&'static self) -> Option<&'static Self> {
        self.alternatives().iter().find_map(|form| if let Self::Map(_, of) = form { Some(*of) } else { None })
    }
}
