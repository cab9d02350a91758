//! From values to what is read: on stdout what was asked for, on stderr everything else.
//!
//! Rendering is pure: a value and a width give a text with styles. Only this file writes, through streams that leave
//! styles out where they are not wanted (`--color`, `NO_COLOR`, a pipe).

pub(crate) mod apps;
mod breaker;
pub(crate) mod bytes_time;
pub(crate) mod deployment;
pub(crate) mod describe;
pub(crate) mod diagnostic;
pub(crate) mod difference;
pub(crate) mod effects;
pub(crate) mod event;
pub(crate) mod examination;
#[cfg(test)]
mod fixture;
pub(crate) mod grace;
pub(crate) mod hint;
mod hooks;
pub(crate) mod log;
pub(crate) mod operation;
pub(crate) mod page;
pub(crate) mod plan;
pub(crate) mod progress;
pub(crate) mod refresh;
pub(crate) mod releases;
pub(crate) mod sessions;
pub(crate) mod state;
pub(crate) mod supervisors;
pub(crate) mod table;
pub(crate) mod task;
pub(crate) mod tasks;
pub(crate) mod worker;

use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;

use anstream::adapter::strip_str;
use anstream::{AutoStream, ColorChoice};
use serde::Serialize;

use crate::args::Color;
use crate::exit::Failure;

/// Columns of a terminal that does not know its size.
const USUAL_WIDTH: usize = 80;

/// What is drawn on: how wide it is, and whether colours show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Canvas {
    /// Columns; none where lines may be as long as they are.
    pub(crate) width: Option<usize>,
    /// Whether styles are shown.
    pub(crate) color: bool,
}

impl Canvas {
    /// Standard error as it is.
    pub(crate) fn stderr() -> Self {
        let stderr = io::stderr();
        Self { width: width_of(&stderr), color: AutoStream::choice(&stderr) != ColorChoice::Never }
    }
}

/// Sets for the whole process when styles are shown.
pub(crate) fn choose_color(color: Color) {
    match color {
        Color::Auto => ColorChoice::Auto,
        Color::Always => ColorChoice::Always,
        Color::Never => ColorChoice::Never,
    }
    .write_global();
}

/// Columns of the terminal that stdout is; none when it is none.
pub(crate) fn width() -> Option<usize> {
    width_of(&io::stdout())
}

fn width_of<S: IsTerminal + AsFd>(stream: &S) -> Option<usize> {
    // A terminal that does not know its size is taken for the usual one, not for a pipe.
    let size = || terminal_size::terminal_size_of(stream).map_or(USUAL_WIDTH, |(width, _)| usize::from(width.0));
    stream.is_terminal().then(size)
}

/// Whether stdout is a terminal, so that a picture may be redrawn on it.
pub(crate) fn redraws() -> bool {
    io::stdout().is_terminal()
}

/// Writes `text` to stdout.
///
/// # Errors
/// [`Failure::Output`]; quiet when its reader is gone.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    // All of it in one write: a stream that strips would write what stands between two styles.
    let plain = (AutoStream::choice(&stdout) == ColorChoice::Never).then(|| strip_str(text).to_string());
    let shown = plain.as_deref().unwrap_or(text);
    stdout.write_all(shown.as_bytes()).and_then(|()| stdout.flush()).map_err(Failure::Output)
}

/// Writes bytes to stdout as they are, and ends the line.
///
/// # Errors
/// [`Failure::Output`]; quiet when its reader is gone.
pub(crate) fn raw_line(line: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(line).and_then(|()| stdout.write_all(b"\n")).and_then(|()| stdout.flush()).map_err(Failure::Output)
}

/// Writes `value` to stdout as one line of JSON.
///
/// # Errors
/// [`Failure::Output`]; quiet when its reader is gone.
pub(crate) fn json<T: Serialize>(value: &T) -> Result<(), Failure> {
    raw_line(to_json(value).as_bytes())
}

/// `value` as one line of JSON, without its end.
pub(crate) fn to_json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("wire types have text keys and no failing serializer")
}

/// Writes a line to stderr. What cannot be said there cannot be said at all.
pub(crate) fn note(text: &str) {
    let _ = writeln!(anstream::stderr().lock(), "{text}");
}

/// Writes `error: …` to stderr.
pub(crate) fn error(text: &str) {
    let style = state::BAD;
    note(&format!("{style}error:{style:#} {text}"));
}

/// Writes `  help: …` to stderr.
pub(crate) fn help(text: &str) {
    let style = state::BUSY;
    note(&format!("  {style}help:{style:#} {text}"));
}
