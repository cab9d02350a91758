//! One worker: a pure state machine.
//!
//! Owns the life of the process in one slot. Does not know its neighbours: whether a crash is followed by a restart,
//! by the end of a deployment or by nothing is told to it by its app (see [`After`]).

mod resume;
pub mod state;
mod step;
#[cfg(test)]
mod table;

pub use state::{KernelProcess, LastExit, Phase, Process, State, Task, Watchdog, Worker};
pub use step::{After, Crash};
