//! agentd, the supervisor. A map for newcomers.
//!
//! Read in this order: `core/src/worker/state.rs` (the life of one worker), [`dispatcher`] (the loop that feeds it),
//! then one test in `tests/`. `docs/design/overview.md` has the picture.
//!
//! | module | owns |
//! |---|---|
//! | [`config`] | the user's TOML, parsed once into typed values or refused with line and reason |
//! | [`process`] | starting programs through the exec shim, their trees, their ends |
//! | [`sockets`] | the listening sockets, their lanes and weights, the steered probe |
//! | [`logs`] | what workers print, from FIFO to file and back |
//! | [`notify`] | what workers say over `NOTIFY_SOCKET` |
//! | [`probe`] | whether a worker answers: the HTTP and TCP checks, readiness proven on its own lane |
#![deny(unsafe_code)]

pub mod config;
pub mod logs;
pub mod notify;
pub mod probe;
pub mod process;
pub mod sockets;
