//! Whether a worker answers: the HTTP and TCP checks, and readiness proven on the worker's own lane.
//!
//! Owns the checks, each an async function that ends by its deadline. Knows nothing of what follows from the answer,
//! nor when to ask: that is core's. Probes by command are the dispatcher's.
//!
//! | file | owns |
//! |---|---|
//! | `http.rs` | one `GET` over a connection that is there already |
//! | `tcp.rs` | connecting, and nothing more |
//! | `ready.rs` | the proof that this worker, and no other, accepted |

mod http;
mod ready;
mod tcp;

pub use http::{HttpCheck, HttpError, get};
pub use ready::{NotReady, Proof, ReadyCheck, steered};
pub use tcp::{ConnectError, Target, connect};
