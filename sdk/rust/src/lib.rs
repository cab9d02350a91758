#![doc = include_str!("../README.md")]

mod alone;
mod error;
#[cfg(feature = "tokio")]
mod futures;
mod link;
mod task;
mod worker;

pub use error::Error;
#[cfg(feature = "tokio")]
pub use futures::AsyncTask;
pub use task::{Checkpoint, Options, Task};
pub use worker::{Drain, Kv, Worker};

/// How a process ends that is told that a task of its is another worker's by now.
pub const EXIT_FENCED: i32 = 75;
