//! The user's configuration: TOML in, [`AppConfig`]s or everything that is wrong out.
//!
//! Owns the keys, the forms of their values, the defaults, the diagnostics, and what a worker's command and
//! environment become. Knows nothing of what runs, and starts nothing.
//!
//! The way of a file: [`load()`] reads it into a [`Source`]; `document` walks its tables with `reader`, which checks
//! them against the lists in `keys`; `checks`, `sections` and `listen` turn values into types. Every problem is
//! recorded and reading goes on, so that one run shows all of them, each with its line, what was expected there and
//! the nearest known key. A file with any problem yields no app at all.
//!
//! What can go wrong is only that: a [`Diagnostic`]. Later, at a worker's start, a file of variables may have gone
//! ([`EnvFileError`]).

mod account;
mod adhoc;
mod app;
mod checks;
mod diagnostic;
mod document;
mod env_file;
mod environment;
mod fields;
mod form;
mod gates;
mod hooks;
mod keys;
mod limits;
mod listen;
mod load;
mod logs;
mod manifest;
mod needs;
mod occasions;
mod placeholder;
pub mod quantity;
mod reader;
mod reference;
mod refresh;
mod releases;
mod runtime;
mod schema;
mod secrets;
mod sections;
mod settings;
mod signal;
mod upgrade;

#[cfg(test)]
mod tests;

pub use adhoc::{AdhocStart, adhoc};
pub use app::{AppConfig, AppKind, Balance, HttpCheck, Ipc, Live, LiveCheck, Ready, ReadyCheck, SkillKind, Stop};
pub use diagnostic::{Diagnostic, Place, Source};
pub use env_file::{EnvFileError, LineProblem};
pub use environment::fd_variable;
pub use fields::describe;
pub use hooks::{Hook, Occasion};
pub use limits::Limits;
pub use listen::AddressError;
pub use load::{Known, load, load_among};
pub use logs::{LogConfig, LogSink};
pub use manifest::{Build, Manifest};
pub use quantity::QuantityError;
pub use reference::reference;
pub use refresh::{Ask, Knowledge, Refresh};
pub use releases::Releases;
pub use runtime::{Advice, advise};
pub use schema::schema;
pub use secrets::{NoCredential, SecretPlace, SecretSource};
pub use settings::{Settings, settings};
pub use signal::{StopSignal, StopSignalError};
pub use upgrade::Upgrade;
