//! Where something is wrong in a configuration, what was expected there, and how it is shown.
//!
//! Owns the text of a file for as long as it is read ([`Source`]), the translation of byte offsets to lines and
//! columns, and the rendering. A [`Diagnostic`] holds everything that a terminal needs, so it can travel to the
//! client as it is. What it shows comes from a file that anybody may have written: control characters are replaced
//! and long lines cut before they reach a terminal.

use std::fmt;
use std::ops::Range;

use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};

/// Characters of a source line that a diagnostic keeps at most.
const LINE_SHOWN: usize = 240;

/// Characters of a message that a diagnostic keeps at most: messages quote what the file holds.
const TEXT_SHOWN: usize = 600;

/// A configuration file's text, kept while it is read so that diagnostics can show the line.
#[derive(Debug)]
pub struct Source {
    file: Utf8PathBuf,
    text: String,
    line_starts: Vec<usize>,
}

impl Source {
    /// Wraps the text of `file`.
    #[must_use]
    pub fn new(file: impl Into<Utf8PathBuf>, text: String) -> Self {
        let line_starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { file: file.into(), text, line_starts }
    }

    /// The path as the user gave it.
    #[must_use]
    pub fn file(&self) -> &Utf8Path {
        &self.file
    }

    /// The whole text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The line and columns of a range of byte offsets. A range over several lines is cut at the end of its first;
    /// offsets beyond the text or within a character are moved back to one that exists.
    #[must_use]
    pub fn place(&self, range: &Range<usize>) -> Place {
        let start = self.boundary(range.start);
        let line = self.line_starts.partition_point(|&at| at <= start) - 1;
        let line_start = self.line_starts[line];
        let next_start = self.line_starts.get(line + 1).copied().unwrap_or(self.text.len());
        let line_text = self.text[line_start..next_start].trim_end_matches(['\n', '\r']);
        let line_end = line_start + line_text.len();
        let start = start.min(line_end);
        let end = self.boundary(range.end).clamp(start, line_end);
        let column = self.text[line_start..start].chars().count() + 1;
        Place {
            file: self.file.clone(),
            line: line + 1,
            column,
            end_column: (column + self.text[start..end].chars().count()).max(column + 1),
            source_line: shown(line_text, LINE_SHOWN),
        }
    }

    /// The last character boundary at or before `at`.
    fn boundary(&self, at: usize) -> usize {
        let at = at.min(self.text.len());
        (0..=at).rev().find(|&at| self.text.is_char_boundary(at)).unwrap_or(0)
    }
}

/// A stretch of one line of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    file: Utf8PathBuf,
    line: usize,
    column: usize,
    end_column: usize,
    source_line: String,
}

/// Stands for a line that is not shown.
const CONCEALED: &str = "(not shown: a secret may stand there)";

impl Place {
    /// A file as a whole, or what stands in its place (a command line).
    #[must_use]
    pub fn whole(file: impl Into<Utf8PathBuf>) -> Self {
        Self { file: file.into(), line: 0, column: 0, end_column: 0, source_line: String::new() }
    }
}

/// `file:line`, as another diagnostic's text refers to it.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// One thing that is wrong with a configuration. [`fmt::Display`] renders it over several lines, without a newline
/// at the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    /// The file, as the user named it.
    pub file: Utf8PathBuf,
    /// Line, from 1; 0 when the file as a whole is meant.
    pub line: usize,
    /// First character that is meant, from 1; 0 when the file as a whole is meant.
    pub column: usize,
    /// The column after the last character that is meant.
    pub end_column: usize,
    /// The line's text, safe to print; empty when the file as a whole is meant.
    pub source_line: String,
    /// What is wrong; one line, safe to print, as are the others.
    pub message: String,
    /// What would be right.
    pub expected: Option<String>,
    /// What to do about it.
    pub help: Option<String>,
}

impl Diagnostic {
    /// A diagnostic with nothing but its message.
    #[must_use]
    pub fn at(place: Place, message: impl Into<String>) -> Self {
        let Place { file, line, column, end_column, source_line } = place;
        let message = shown(&message.into(), TEXT_SHOWN);
        Self { file, line, column, end_column, source_line, message, expected: None, help: None }
    }

    /// Leaves the line's text out, which may hold what nobody is to see.
    pub(super) fn conceal(&mut self) {
        if self.line > 0 {
            self.source_line = CONCEALED.to_owned();
            (self.column, self.end_column) = (1, CONCEALED.len() + 1);
        }
    }

    /// Says what would be right.
    #[must_use]
    pub fn expected(mut self, expected: impl Into<String>) -> Self {
        self.expected = Some(shown(&expected.into(), TEXT_SHOWN));
        self
    }

    /// Says what to do.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(shown(&help.into(), TEXT_SHOWN));
        self
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        let number = if self.line == 0 { String::new() } else { self.line.to_string() };
        let gutter = " ".repeat(number.len());
        if self.line == 0 {
            write!(f, "\n --> {}", shown(self.file.as_str(), TEXT_SHOWN))?;
        } else {
            let marks = "^".repeat(self.end_column.saturating_sub(self.column).max(1));
            write!(f, "\n{gutter}--> {}:{}:{}", shown(self.file.as_str(), TEXT_SHOWN), self.line, self.column)?;
            write!(f, "\n{gutter} |\n{number} | {}", self.source_line)?;
            if self.end_column <= LINE_SHOWN + 1 {
                write!(f, "\n{gutter} | {}{marks}", " ".repeat(self.column.saturating_sub(1)))?;
            }
        }
        if let Some(expected) = &self.expected {
            write!(f, "\n{gutter} = expected: {}", expected)?;
        }
        if let Some(help) = &self.help {
            write!(f, "\n{gutter} = help: {}", help)?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostic {}

/// `text` as one printable line: a character stays one character, so columns keep their meaning.
fn shown(text: &str, limit: usize) -> String {
    let printable = |c: char| match c {
        '\t' | '\n' => ' ',
        c if c.is_control() || is_direction(c) => char::REPLACEMENT_CHARACTER,
        c => c,
    };
    let mut line: String = text.chars().take(limit).map(printable).collect();
    if text.chars().nth(limit).is_some() {
        line.push('…');
    }
    line
}

/// Characters that reorder the text around them, and so could make a line read as what it is not.
fn is_direction(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_counts_characters_and_stays_on_its_line() {
        let source = Source::new("a.toml", "ü = 1\r\nkey = \"äö\" # x\nlast".to_owned());
        let at = source.text().find('"').expect("the text above");
        let place = source.place(&(at..at + 6));
        assert_eq!((place.line, place.column, place.end_column), (2, 7, 11));
        assert_eq!(place.source_line, "key = \"äö\" # x");
        let over = source.place(&(at..4000));
        assert_eq!((over.line, over.end_column), (2, 15));
        let beyond = source.place(&(4000..4001));
        assert_eq!((beyond.line, beyond.column, beyond.end_column), (3, 5, 6));
        let inside = source.place(&(1..2));
        assert_eq!((inside.line, inside.column), (1, 1));
    }

    #[test]
    fn a_diagnostic_marks_what_it_means() {
        let source = Source::new("a.toml", "\n\n\n\n\n\n\n\n\n\tworker = 2".to_owned());
        let diagnostic = Diagnostic::at(source.place(&(10..16)), "unknown key `worker`")
            .expected("a key")
            .help("did you mean `workers`?");
        let lines = [
            "error: unknown key `worker`",
            "  --> a.toml:10:2",
            "   |",
            "10 |  worker = 2",
            "   |  ^^^^^^",
            "   = expected: a key",
            "   = help: did you mean `workers`?",
        ];
        assert_eq!(diagnostic.to_string(), lines.join("\n"));
    }

    #[test]
    fn nothing_in_a_file_reaches_the_terminal_as_a_control_sequence() {
        let source = Source::new("a\u{1b}.toml", format!("\u{1b}[31mx = \u{202e}{}", "y".repeat(9000)));
        let text = Diagnostic::at(source.place(&(0..3)), "bad \u{7}").to_string();
        assert!(!text.contains(['\u{1b}', '\u{7}', '\u{202e}']), "{text:?}");
        assert!(text.len() < 1000, "{}", text.len());
    }
}
