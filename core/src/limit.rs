//! Limits that a worker met: what is said of its end, with figures.
//!
//! Owns the words. How a limit is held, and how it is known that one was met, is the shell's.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A limit that a worker met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitMet {
    /// The kernel killed it for want of memory.
    OutOfMemory {
        /// Its limit in bytes; none when the machine had no more.
        limit: Option<u64>,
    },
    /// It uses more memory than it is meant to, and serves still: another one takes its place.
    MemoryCeiling {
        /// What it was seen to use, in bytes.
        used: u64,
        /// The ceiling, in bytes.
        ceiling: u64,
    },
    /// It was refused another process or thread, and ended.
    Pids {
        /// Its limit.
        limit: u32,
    },
    /// It used up its processor time.
    CpuTime {
        /// Its limit, in seconds; none when it set one for itself.
        seconds: Option<u64>,
    },
    /// It wrote more into a file than it may.
    FileSize {
        /// Its limit, in bytes; none when it set one for itself.
        limit: Option<u64>,
    },
}

impl LimitMet {
    /// Whether its process lives on and is to be replaced.
    #[must_use]
    pub const fn lives_on(self) -> bool {
        match self {
            Self::MemoryCeiling { .. } => true,
            Self::OutOfMemory { .. } | Self::Pids { .. } | Self::CpuTime { .. } | Self::FileSize { .. } => false,
        }
    }
}

/// A fragment that follows the worker's name.
impl fmt::Display for LimitMet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfMemory { limit: Some(limit) } => {
                write!(f, "ran out of memory: the kernel killed it at limits.memory = {}", Bytes(*limit))
            }
            Self::OutOfMemory { limit: None } => f.write_str("ran out of memory: the machine had no more"),
            Self::MemoryCeiling { used, ceiling } => {
                write!(f, "used {} of memory, over its ceiling of {}", Bytes(*used), Bytes(*ceiling))
            }
            Self::Pids { limit } => write!(f, "was refused another process at limits.pids = {limit}"),
            Self::CpuTime { seconds: Some(seconds) } => {
                write!(f, "used up its processor time: limits.cpu_time = {seconds}s (SIGXCPU)")
            }
            Self::CpuTime { seconds: None } => f.write_str("used up its processor time (SIGXCPU)"),
            Self::FileSize { limit: Some(limit) } => {
                write!(f, "wrote a file beyond limits.file_size = {} (SIGXFSZ)", Bytes(*limit))
            }
            Self::FileSize { limit: None } => f.write_str("wrote a file beyond its limit of size (SIGXFSZ)"),
        }
    }
}

/// An amount of bytes, for people: `210.4 MiB`, `2 GiB`.
#[derive(Clone, Copy, Debug)]
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [("GiB", 1_u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
        let Some((unit, size)) = units.into_iter().find(|(_, size)| self.0 >= *size) else {
            return write!(f, "{} B", self.0);
        };
        // In tenths, rounded down: what is shown was really there.
        let tenths = u128::from(self.0) * 10 / u128::from(size);
        match tenths % 10 {
            0 => write!(f, "{} {unit}", tenths / 10),
            tenth => write!(f, "{}.{tenth} {unit}", tenths / 10),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_is_told_with_its_figures() {
        let mib = 1 << 20;
        for (limit, words) in [
            (
                LimitMet::MemoryCeiling { used: 220_620_390, ceiling: 200 * mib },
                "used 210.3 MiB of memory, over its ceiling of 200 MiB",
            ),
            (
                LimitMet::OutOfMemory { limit: Some(2 << 30) },
                "ran out of memory: the kernel killed it at limits.memory = 2 GiB",
            ),
            (LimitMet::Pids { limit: 64 }, "was refused another process at limits.pids = 64"),
            (LimitMet::CpuTime { seconds: Some(9) }, "used up its processor time: limits.cpu_time = 9s (SIGXCPU)"),
            (LimitMet::FileSize { limit: Some(1000) }, "wrote a file beyond limits.file_size = 1000 B (SIGXFSZ)"),
        ] {
            assert_eq!(limit.to_string(), words);
        }
    }
}
