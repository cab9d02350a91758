//! Tell agentd about your tasks: they finish or go on elsewhere when it replaces your worker, and effects happen once.
//!
//! ```
//! use agentd_worker::{Error, Options, Worker};
//! use serde_json::json;
//!
//! let worker = Worker::new(); // without agentd everything gives the same results, and nothing is kept
//! let sent = worker.task(Options { kind: Some("mail".into()), ..Options::default() }, |task| {
//!     let sent = task.effect("send_email", "1:mail", |key| Ok(json!({ "idempotency_key": key })))?;
//!     task.save(1, &json!({ "sent": true }))?; // durable; `Error::Drained` when the worker is being replaced
//!     Ok(sent)
//! })?;
//! assert!(sent["idempotency_key"].is_string());
//! # Ok::<(), Error>(())
//! ```
//!
//! It is blocking, and has one thread that writes and one that reads; tasks in as many threads as you like share them.
//! [`Worker`] owns the connection, [`Task`] one task. A process whose task became another's ends with [`EXIT_FENCED`].

mod alone;
mod error;
mod link;
mod task;
mod worker;

pub use error::Error;
pub use task::{Checkpoint, Options, Task};
pub use worker::{Drain, Kv, Worker};

/// How a process ends that is told that a task of its is another worker's by now.
pub const EXIT_FENCED: i32 = 75;
