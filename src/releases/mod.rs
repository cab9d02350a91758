//! Releases: immutable versions of an app, cut from a folder, an archive or a git reference.
//!
//! Owns what is in a release and how it comes to be: [`source`] (from what), [`folder`], [`archive`] and [`git`] (taking it
//! in), [`tree`] (what it is made of, its hash, its links), [`budget`] (how much of it there may be), [`cut`] (the
//! process `agentd cut` that does all of it), [`order`] (what is said to that process and what it answers),
//! [`record`] (what is kept of a release), [`store`] (its folders).
//!
//! Knows nothing of workers and deployments: the dispatcher asks for a release, records it, gives it its name, and lets
//! core put it in the place of the one before.
//!
//! What can go wrong is a [`CutError`]; each of them leaves nothing behind. See docs/design/releases.md.

pub mod archive;
pub mod budget;
pub mod cut;
pub mod error;
pub mod folder;
pub mod git;
pub mod listing;
pub mod order;
mod parts;
mod program;
pub mod record;
pub mod source;
pub mod store;
pub mod tree;

pub use budget::Limits;
pub use error::CutError;
pub use order::{Cut, Failed, Order, Report, Wanted};
pub use record::{Release, ReleaseRecord, Verdict};
pub use source::{Source, SourceError};
