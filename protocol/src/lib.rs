//! The wire types of agentd's three Unix sockets, and nothing that does I/O.
//!
//! Owns: what a line on `status.sock` ([`status`], [`events`]), on `control.sock` ([`control`]) and on `worker.sock`
//! ([`worker`]) looks like, how lines are cut from bytes ([`frame`]), what an exit code of `agentctl` means ([`exit`]), and the JSON schemas of
//! all of it ([`schema`]).
//!
//! Does not own: what a request leads to (the daemon's dispatcher), or how a document is shown (`agentctl`).
//!
//! # What both sides may rely on
//! - Fields are added, never removed or given another meaning, within one version.
//! - A reader ignores fields that it does not know, and reads an enum value that it does not know as `unknown`.
//! - A field that an older writer did not send reads as its default.
//! - Times are RFC 3339 in UTC; durations are whole milliseconds and end in `_ms`; sizes are bytes.
#![forbid(unsafe_code)]

pub mod control;
pub mod events;
pub mod exit;
pub mod frame;
pub mod schema;
pub mod status;
pub mod worker;

pub use jiff::Timestamp;
