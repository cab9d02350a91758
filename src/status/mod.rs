//! `status.sock`: the document for who connects, every event for who watches.
//!
//! Owns: the events as they are kept and numbered ([`journal`], on the disk [`tail`]), and serving readers ([`server`]). Read only: nothing
//! that a client sends here changes anything.
//!
//! Does not own: what the document shows. The dispatcher, which owns all state, makes it when asked by a
//! [`StatusQuery`].

pub mod journal;
pub mod server;
pub mod tail;
#[cfg(test)]
mod tests;

pub use journal::{EventJournal, Subscription};
pub use server::{Snapshot, StatusQuery, serve};
pub use tail::EventTail;
