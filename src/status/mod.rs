//! `status.sock`: the document for who connects, every event for who watches.
//!
//! Owns: the events as they are kept and numbered ([`journal`]), and serving readers ([`server`]). Read only: nothing
//! that a client sends here changes anything.
//!
//! Does not own: what the document shows. The dispatcher, which owns all state, makes it when asked by a
//! [`StatusQuery`].

pub mod journal;
pub mod server;
#[cfg(test)]
mod tests;

pub use journal::{EventJournal, Subscription};
pub use server::{Snapshot, StatusQuery, serve};
