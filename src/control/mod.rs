//! `control.sock`: who may ask, what they asked, and getting the answer back to them.
//!
//! Owns: binding the daemon's Unix sockets ([`socket`]), who the peer is and what it may do ([`access`]), one task a
//! connection (`connection`), the bounded way out to a client (`outbox`), and the promise that every call gets
//! exactly one answer ([`reply`]).
//!
//! Does not own: what a request leads to. Requests go to the dispatcher as [`ControlCall`]s; it answers, at once or
//! much later, through the [`ReplySink`] in each.
//!
//! What can go wrong is always one client's misfortune: it is answered with an error, or dropped. What it asked for
//! goes on without it. `docs/design/control.md` has each case.

pub mod access;
mod connection;
pub(crate) mod line;
mod outbox;
pub mod reply;
pub mod server;
pub mod socket;
#[cfg(test)]
mod tests;

pub use access::{Access, Peer};
pub use reply::{ClientGone, ControlCall, ReplySink};
pub use server::{Identity, serve};
pub use socket::{BindError, BoundSocket, adopt_bound, bind_private};
