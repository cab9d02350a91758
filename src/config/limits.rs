//! `limits`: what one worker may use.
//!
//! Owns the amounts and their reading. Which of them a machine can hold a worker to, and by which means, is
//! `dispatcher::limits`.

use serde::{Deserialize, Serialize};

use super::quantity;
use super::reader::TableReader;

/// Least memory that a program is given, in bytes.
const MEMORY_LEAST: u64 = 1 << 20;

/// What one worker may use; none means the system's own limit. The first three are of the worker with all its processes,
/// the others of each process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u32>,
    /// Processor time a second; 100 is one whole processor.
    pub cpu_percent: Option<u32>,
    /// Open files.
    pub files: Option<u32>,
    /// Bytes of a file written.
    #[serde(default)]
    pub file_size: Option<u64>,
    /// Processor time in all, in seconds.
    #[serde(default)]
    pub cpu_seconds: Option<u64>,
    /// Bytes of a core file.
    #[serde(default)]
    pub core: Option<u64>,
    /// Bytes of the main thread's stack.
    #[serde(default)]
    pub stack: Option<u64>,
    /// Bytes of address space.
    #[serde(default)]
    pub address_space: Option<u64>,
    /// Bytes of locked memory.
    #[serde(default)]
    pub locked_memory: Option<u64>,
}

/// Reads the table.
pub(super) fn read(table: &TableReader<'_>) -> Limits {
    let size = |name| table.get(name).and_then(|field| field.parsed(quantity::parse_size));
    let memory = table.get("memory").and_then(|field| {
        let bytes = field.parsed(quantity::parse_size)?;
        if bytes < MEMORY_LEAST {
            let diagnostic = field.diagnostic(format!("no program runs in {bytes} bytes of memory"));
            field.report.add(diagnostic.expected("at least \"1M\""));
        }
        Some(bytes)
    });
    let cpu_seconds = table.get("cpu_time").and_then(|field| {
        let time = field.parsed(quantity::parse_duration)?;
        if time.as_secs() == 0 || time.subsec_nanos() != 0 {
            field.refuse("`cpu_time` is counted in whole seconds");
        }
        Some(time.as_secs())
    });
    Limits {
        memory,
        pids: table.get("pids").and_then(|field| field.count()),
        cpu_percent: table.get("cpu").and_then(|field| field.parsed(quantity::parse_percent)),
        files: table.get("files").and_then(|field| field.count()),
        file_size: size("file_size"),
        cpu_seconds,
        core: size("core"),
        stack: size("stack"),
        address_space: size("address_space"),
        locked_memory: size("locked_memory"),
    }
}
