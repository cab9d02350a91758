//! Files of environment variables, as `.env` files are written.
//!
//! Each line is `NAME=value`, with `export ` before it or not; `#` starts a comment at a line's start or after a
//! space. `'…'` is taken as it is, `"…"` knows `\n`, `\r`, `\t`, `\\`, `\"` and `\$`; both may span lines. Nothing
//! is substituted. What such a file holds is often secret, so no error shows any of it.

use std::io::{self, Read};

use camino::{Utf8Path, Utf8PathBuf};
use thiserror::Error;

/// Bytes of such a file that are read at most.
const SIZE_MAX: u64 = 1 << 20;

/// Why a file of environment variables cannot be used. Tells lines, never what they hold.
#[derive(Debug, Error)]
pub enum EnvFileError {
    /// It cannot be opened or read.
    #[error("read {path}")]
    Read {
        /// The file.
        path: Utf8PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A folder, a pipe or a device.
    #[error("read {path}: it is not a regular file")]
    NotAFile {
        /// The file.
        path: Utf8PathBuf,
    },
    /// More than a file of variables ever has.
    #[error("read {path}: it has more than {SIZE_MAX} bytes")]
    TooLarge {
        /// The file.
        path: Utf8PathBuf,
    },
    /// Bytes that are no text.
    #[error("read {path}: it is not UTF-8")]
    NotUtf8 {
        /// The file.
        path: Utf8PathBuf,
    },
    /// A line that is no `NAME=value`.
    #[error("read {path}: line {line}: {problem}")]
    Syntax {
        /// The file.
        path: Utf8PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        problem: LineProblem,
    },
}

/// What is wrong with a line of a file of variables.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum LineProblem {
    /// Neither a comment nor an assignment.
    #[error("there is no '=' after a name")]
    NoAssignment,
    /// Not letters, digits, `_`, `.` and `-`, or a digit first.
    #[error("the name is no name of a variable")]
    Name,
    /// A quote is opened and not closed.
    #[error("the quote is not closed")]
    Unclosed,
    /// Something follows a closed quote.
    #[error("something follows the closed quote")]
    AfterQuote,
    /// A zero byte.
    #[error("the value holds a zero byte")]
    Nul,
}

/// Reads a file's variables, in its order; a name may come twice, and the last one counts.
///
/// # Errors
/// The file cannot be read, is no regular file, too large, no text, or has a line that is no assignment.
pub(super) fn read(path: &Utf8Path) -> Result<Vec<(String, String)>, EnvFileError> {
    let failed = |source| EnvFileError::Read { path: path.to_owned(), source };
    // Before it is opened: opening a pipe without a writer would wait for ever.
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(EnvFileError::NotAFile { path: path.to_owned() });
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path).and_then(|file| file.take(SIZE_MAX + 1).read_to_end(&mut bytes)).map_err(failed)?;
    if bytes.len() as u64 > SIZE_MAX {
        return Err(EnvFileError::TooLarge { path: path.to_owned() });
    }
    let text = String::from_utf8(bytes).map_err(|_| EnvFileError::NotUtf8 { path: path.to_owned() })?;
    let syntax = |(line, problem)| EnvFileError::Syntax { path: path.to_owned(), line, problem };
    parse(&text).map_err(syntax)
}

/// Reads variables from a text; the error tells the line, from 1.
fn parse(text: &str) -> Result<Vec<(String, String)>, (usize, LineProblem)> {
    let mut variables = Vec::new();
    let mut rest = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut line = 1;
    while !rest.is_empty() {
        let (this, after) = rest.split_once('\n').unwrap_or((rest, ""));
        let entry = this.trim();
        if entry.is_empty() || entry.starts_with('#') {
            (rest, line) = (after, line + 1);
            continue;
        }
        let entry = entry.strip_prefix("export ").unwrap_or(entry);
        let (name, _) = entry.split_once('=').ok_or((line, LineProblem::NoAssignment))?;
        let name = name.trim();
        if !is_name(name) {
            return Err((line, LineProblem::Name));
        }
        let (_, value) = rest.split_once('=').ok_or((line, LineProblem::NoAssignment))?;
        let value = value.trim_start_matches([' ', '\t']);
        let (value, after) = match value.chars().next() {
            Some(quote @ ('"' | '\'')) => quoted(&value[1..], quote).map_err(|problem| (line, problem))?,
            Some(_) | None => {
                let (value, after) = value.split_once('\n').unwrap_or((value, ""));
                (plain(value).to_owned(), after)
            }
        };
        if value.contains('\0') {
            return Err((line, LineProblem::Nul));
        }
        line += rest[..rest.len() - after.len()].matches('\n').count();
        rest = after;
        variables.push((name.to_owned(), value));
    }
    Ok(variables)
}

fn is_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    !name.is_empty() && name.bytes().all(allowed) && !name.as_bytes()[0].is_ascii_digit()
}

/// A value without quotes: up to a `#` at its start or after a space.
fn plain(value: &str) -> &str {
    let begins = |(at, _): &(usize, &str)| value[..*at].chars().next_back().is_none_or(char::is_whitespace);
    let end = value.match_indices('#').find(begins).map_or(value.len(), |(at, _)| at);
    value[..end].trim()
}

/// The value up to its closing quote, and what follows the line.
fn quoted(text: &str, quote: char) -> Result<(String, &str), LineProblem> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    let end = loop {
        match chars.next().ok_or(LineProblem::Unclosed)? {
            (at, c) if c == quote => break at + 1,
            (_, '\\') if quote == '"' => match chars.next().ok_or(LineProblem::Unclosed)?.1 {
                'n' => value.push('\n'),
                'r' => value.push('\r'),
                't' => value.push('\t'),
                same @ ('\\' | '"' | '$') => value.push(same),
                other => value.extend(['\\', other]),
            },
            (_, c) => value.push(c),
        }
    };
    let (tail, after) = text[end..].split_once('\n').unwrap_or((&text[end..], ""));
    let tail = tail.trim();
    if tail.is_empty() || tail.starts_with('#') { Ok((value, after)) } else { Err(LineProblem::AfterQuote) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lines_read_as_other_tools_read_them() {
        let text = "\u{feff}# comment\n\nA=1\r\nexport B = two words # note\nC='$x # y'\nD=\"a\\nb\\q\\\"\" # note\n\
                    E=\nF=a#b\nG=\"-----\nkey\n-----\"\nH=#x\nI=a=b";
        let read = parse(text).expect("it is sound");
        let read: Vec<_> = read.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let expected = [
            ("A", "1"),
            ("B", "two words"),
            ("C", "$x # y"),
            ("D", "a\nb\\q\""),
            ("E", ""),
            ("F", "a#b"),
            ("G", "-----\nkey\n-----"),
            ("H", ""),
            ("I", "a=b"),
        ];
        assert_eq!(read, expected);
    }

    #[test]
    fn a_bad_line_is_told_by_its_number_and_never_by_what_it_holds() {
        for (text, expected) in [
            ("A=1\nsk-secret", (2, LineProblem::NoAssignment)),
            ("A='x\ny'\n1B=2", (3, LineProblem::Name)),
            ("A=1\n\nB='sk-secret", (3, LineProblem::Unclosed)),
            ("A=\"x\" y", (1, LineProblem::AfterQuote)),
            ("A=x\0y", (1, LineProblem::Nul)),
            ("=x", (1, LineProblem::Name)),
        ] {
            assert_eq!(parse(text), Err(expected), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(text in "([A-Z=#'\"\\\\ \n\r]|export |.)*") {
            let _ = parse(&text);
        }

        #[test]
        fn a_value_in_single_quotes_is_taken_as_it_is(value in "[^'\0]*") {
            prop_assert_eq!(parse(&format!("A='{value}'")), Ok(vec![("A".to_owned(), value)]));
        }
    }
}
