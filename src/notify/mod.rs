//! What workers say over `NOTIFY_SOCKET`, in systemd's protocol and our few words beside it.
//!
//! Owns one datagram socket a worker ([`NotifySocket`]), the reading of datagrams ([`parse`]), who is believed
//! ([`judge`]) and the descriptors that a worker leaves to its successor ([`FdStore`]). Decides nothing: what
//! follows from a [`Notice`] is core's.
//!
//! What can go wrong: anyone who may write to the socket can send anything. Nothing they send ends or delays the daemon:
//! sizes are capped, what is unknown or malformed is skipped, and the senders' ids come from the kernel.
//! `docs/design/notify.md` has the words and the rules in full.

mod fdstore;
mod notice;
mod sender;
mod socket;

pub use fdstore::{Admission, FD_STORE_MAX, FdName, FdStore};
pub use notice::{ID_MAX, Notice, STATUS_MAX, TaskId, TaskOutcome, parse};
pub use sender::{Sender, Standing, Unbelieved, judge};
pub use socket::{Datagram, NotifyError, NotifySocket};
