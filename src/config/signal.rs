//! The signal that asks a worker to end, by name.

use std::fmt;
use std::str::FromStr;

use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A signal by its name: `SIGTERM` or `TERM`, in any case. Written with `SIG`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StopSignal(Signal);

/// Why a text is no signal to stop a worker with.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum StopSignalError {
    /// Linux has no such signal.
    #[error("there is no signal {0:?}")]
    Unknown(String),
    /// It would halt the worker, which could then neither finish nor end.
    #[error("SIGSTOP freezes a worker and never ends it")]
    Freezes,
}

impl StopSignal {
    /// What workers are stopped with unless the configuration says otherwise.
    pub const TERM: Self = Self(Signal::SIGTERM);

    /// The signal, to send.
    #[must_use]
    pub fn signal(self) -> Signal {
        self.0
    }
}

impl FromStr for StopSignal {
    type Err = StopSignalError;

    fn from_str(text: &str) -> Result<Self, StopSignalError> {
        let upper = text.to_ascii_uppercase();
        let name = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
        match name.parse() {
            Ok(Signal::SIGSTOP) => Err(StopSignalError::Freezes),
            Ok(signal) => Ok(Self(signal)),
            Err(_) => Err(StopSignalError::Unknown(text.to_owned())),
        }
    }
}

impl TryFrom<String> for StopSignal {
    type Error = StopSignalError;

    fn try_from(text: String) -> Result<Self, StopSignalError> {
        text.parse()
    }
}

impl From<StopSignal> for String {
    fn from(signal: StopSignal) -> Self {
        signal.to_string()
    }
}

impl fmt::Display for StopSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_known_with_and_without_its_prefix() {
        for text in ["SIGTERM", "TERM", "term", "SigTerm"] {
            assert_eq!(text.parse(), Ok(StopSignal::TERM), "{text}");
        }
        assert_eq!("usr2".parse::<StopSignal>().map(|s| s.to_string()), Ok("SIGUSR2".to_owned()));
        assert_eq!("STOP".parse::<StopSignal>(), Err(StopSignalError::Freezes));
        for text in ["", "SIG", "15", "TERMINATE"] {
            assert_eq!(text.parse::<StopSignal>(), Err(StopSignalError::Unknown(text.to_owned())));
        }
    }
}
