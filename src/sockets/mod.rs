//! The listening sockets of an app, their lanes and weights, the steered probe, and who holds what.
//!
//! The daemon binds every address before the first worker starts and keeps it until the app is deleted, so a
//! connection finds a queue at any time, with or without workers. A **lane** is one socket of each address; a worker
//! is given the sockets of its lane. `docs/design/sockets.md` tells the whole story.
//!
//! | file | owns |
//! |---|---|
//! | `addr.rs` | the text form of an address |
//! | `listeners.rs` | all sockets of one app, by name and lane |
//! | `tcp.rs`, `unix.rs` | one address: its sockets, and how new connections find a lane |
//! | `shares.rs`, `program.rs` | weights, and the kernel's program made of them |
//! | `steer.rs` | the prober's end of a connection that reaches one lane only |
//! | `diag.rs`, `procfs.rs` | the kernel's socket tables, and whose descriptors are in them |
//! | `connections.rs`, `owner.rs` | what processes do with sockets; who is in our way |
//!
//! Nothing here knows what a worker is or when one is due.

mod addr;
mod connections;
mod diag;
mod error;
mod listeners;
mod owner;
mod procfs;
mod program;
mod rescue;
mod shares;
mod steer;
mod tcp;
mod unix;

#[cfg(test)]
mod tests;

pub use addr::{ListenAddr, ListenAddrError, UNIX_PATH_MAX};
pub use connections::{Acceptance, Connection, ConnectionState, Traffic};
pub use diag::SockDiag;
pub use error::{BindError, StartProbeError, WeightError};
pub use listeners::Listeners;
pub use owner::{Holder, PortHolder, holder_of};
pub use procfs::sockets_of;
pub use rescue::lane_of;
pub use shares::Pick;
pub use steer::{ProbeConnection, ProbeEnds, ProbeId, ProbeStream};
