//! Tasks: what workers tell of their work, made durable, and handed on when a worker goes.
//!
//! Owns the worker socket, `tasks.db` with its blobs, and the thread that holds core's ledger of open tasks. Decides
//! nothing about tasks: that is [`agentd_core::task`]. Knows no processes: the dispatcher tells which there are, and
//! hears what the fleet must know of their tasks.
//!
//! | file | owns |
//! |---|---|
//! | [`thread`] | the handle: commands in, reports out |
//! | `desk` | the loop: gather, decide, commit once, answer |
//! | `serve` | one line, from bytes to rows and an answer |
//! | `orders` | what the daemon tells |
//! | `ask`, `lists`, `details` | what people ask |
//! | `measure` | what tasks take, learned |
//! | [`panels`], `figures` | the gates of deployments, fed with the ends of tasks |
//! | `link`, `listener` | connections and their bounds |
//! | `db`, `lookup`, `effects`, `kv`, `schema` | `tasks.db` |
//! | `renewing` | a refresh that workers are told of |
//! | `blob`, `payload` | what tasks carry |
//! | [`retention`] | how much is kept |
//! | [`versions`] | what two versions did, for the report of a deployment |
//! | [`token`] | what workers prove themselves by |

mod ask;
mod askers;
mod blob;
mod db;
mod desk;
mod details;
mod effects;
mod figures;
mod inspect;
mod kv;
mod link;
mod listener;
mod lists;
mod lookup;
mod measure;
mod orders;
pub mod panels;
mod payload;
mod renewing;
pub mod retention;
mod schema;
mod serve;
mod showing;
pub mod thread;
pub mod token;
pub mod versions;
mod wire;

pub use ask::Question;
pub use askers::AskedBy;
pub use blob::BlobError;
pub use db::DbError;
pub use inspect::{Inspect, Inspected};
pub use retention::Retention;
pub use thread::{
    Asker, Born, Command, Drain, Gauge, Governed, LedgerOpened, Opening, Parts, Report, TaskThread, TasksError,
};
