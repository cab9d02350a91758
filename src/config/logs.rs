//! `log`: what becomes of a worker's output.
//!
//! Owns the choices and their reading. How files are put aside, packed and removed is [`crate::logs`]'.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::quantity;
use super::reader::TableReader;
use crate::logs::housekeeper::Retention;
use crate::logs::rotate::Rotation;

/// Smallest file that is put aside for its size, in bytes.
const SIZE_MIN: u64 = 64 << 10;

/// Youngest file that is put aside for its age.
const AGE_MIN: Duration = Duration::from_secs(1);

/// What becomes of a worker's output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogConfig {
    /// The way that it takes.
    pub sink: LogSink,
    /// Bytes after which a log file is put aside.
    pub max_size: u64,
    /// Age of its first line after which a log file is put aside.
    #[serde(default)]
    pub max_age: Option<Duration>,
    /// How many files put aside are kept of each stream.
    pub keep: u32,
    /// How long they are kept.
    #[serde(default)]
    pub keep_for: Option<Duration>,
    /// Bytes that all logs of the app may take.
    #[serde(default)]
    pub keep_bytes: Option<u64>,
    /// Whether what is put aside is packed.
    #[serde(default = "yes")]
    pub compress: bool,
}

const fn yes() -> bool {
    true
}

impl Default for LogConfig {
    fn default() -> Self {
        let Rotation { max_size, max_age, keep } = Rotation::default();
        let sink = LogSink::Fifo;
        Self { sink, max_size, max_age, keep, keep_for: None, keep_bytes: None, compress: true }
    }
}

impl LogConfig {
    /// When the files of a stream are put aside.
    #[must_use]
    pub const fn rotation(&self) -> Rotation {
        Rotation { max_size: self.max_size, max_age: self.max_age, keep: self.keep }
    }

    /// How much of them is kept.
    #[must_use]
    pub const fn retention(&self) -> Retention {
        let Self { keep, keep_for, keep_bytes, compress: pack, .. } = *self;
        Retention { keep, keep_for, keep_bytes, pack }
    }
}

/// The way that a worker's output takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogSink {
    /// Through a FIFO to a file, with an index of times. A full disk costs lines, which are counted.
    Fifo,
    /// Straight to a file: the worker never waits for the daemon, and the file is put aside only when a worker starts.
    File,
    /// To journald, an entry a line. What bounds files bounds nothing there; journald has bounds of its own.
    Journald,
    /// Nowhere.
    None,
}

pub(super) fn read(table: &TableReader<'_>) -> LogConfig {
    let mut log = LogConfig::default();
    match table.get("sink").and_then(|field| field.word()) {
        Some("fifo") => log.sink = LogSink::Fifo,
        Some("file") => log.sink = LogSink::File,
        Some("journald") => log.sink = LogSink::Journald,
        Some(_) => log.sink = LogSink::None,
        None => {}
    }
    if let Some(field) = table.get("max_size")
        && let Some(bytes) = field.parsed(quantity::parse_size)
    {
        if bytes < SIZE_MIN {
            let diagnostic = field.diagnostic(format!("a log file of {bytes} bytes would be put aside all the time"));
            field.report.add(diagnostic.expected("at least \"64K\""));
        }
        log.max_size = bytes;
    }
    if let Some(field) = table.get("max_age")
        && let Some(age) = field.parsed(quantity::parse_duration)
    {
        if age < AGE_MIN {
            let diagnostic = field.diagnostic(format!("a log file of {age:?} would be put aside all the time"));
            field.report.add(diagnostic.expected("at least \"1s\""));
        }
        log.max_age = Some(age);
    }
    if let Some(keep) = table.get("keep").and_then(|field| field.count()) {
        log.keep = keep;
    }
    log.keep_for = table.get("keep_for").and_then(|field| field.parsed(quantity::parse_duration));
    log.keep_bytes = table.get("keep_bytes").and_then(|field| field.parsed(quantity::parse_size));
    if let Some(compress) = table.get("compress").and_then(|field| field.flag()) {
        log.compress = compress;
    }
    if let Some(field) = table.get("format") {
        field.word();
    }
    log
}
