//! Tasks of all apps: who owns each, where it can go on from, and what became of it.
//!
//! Owns every open task (running, waiting, parked), the leases, the fences, and the choice of who runs what. Does not
//! own payloads (the shell stores them next to the rows), processes (the fleet's) or how long a drain may take (the
//! estimator's answer is an argument). Pure as all of core: [`Ledger`] takes messages, orders and time, and answers
//! with rows to write, words to workers and facts; none of them is seen by anybody before the rows are committed.
//!
//! Start at [`state`] (the life of one task), then [`input`] and [`outcome`] (what comes in and out), then [`Ledger`].
//! What can go wrong is in docs/design/tasks.md, path by path.

mod begin;
mod drain;
mod filing;
mod hear;
pub mod input;
mod lease;
mod ledger;
pub mod name;
pub mod outcome;
mod own;
mod place;
mod request;
mod sound;
pub mod state;
#[cfg(test)]
mod table;
mod taken;

pub use input::{
    Begin, Doubt, Drain, EffectRecord, EffectState, Ended, Ending, Gone, Judged, Known, LEASE, Message, Needs,
    OnDeadline, Order, Own, Request, Successor, TaskPolicy, Told, Usual,
};
pub use ledger::{Boot, Ledger};
pub use name::{EffectKey, Fence, Key, Kind, Link, NameError, Session, Speaker, TaskId};
pub use outcome::{
    Answer, Denied, Duplicate, EffectAnswer, Fact, Fate, InHand, Outcome, Refused, Resume, Row, Span, Stretch, Tally,
    ToWorker, Word,
};
pub use sound::Violation;
pub use state::{End, Input, Loss, Mark, ParkedFor, Paused, Released, Run, Stage, State, Task};
pub use taken::CRASHES;
