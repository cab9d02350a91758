//! agentd, the supervisor. A map for newcomers.
//!
//! Read in this order: `core/src/worker/state.rs` (the life of one worker), [`dispatcher`] (the loop that feeds it),
//! then one test in `tests/`. `docs/design/overview.md` has the picture.
//!
//! | module | owns |
//! |---|---|
//! | [`causes`] | an error with all that is behind it, in one line |
//! | [`config`] | the user's TOML, parsed once into typed values or refused with line and reason |
//! | [`handover`] | what passes to the next program when the daemon is upgraded in place |
//! | [`supervisors`] | who supervised this instance before, and how each ended |
//! | [`fault`] | deaths at chosen moments, for tests |
//! | [`home`] | where an instance keeps its things, and the lock that makes it the only one there |
//! | [`process`] | starting programs through the exec shim, their trees, their ends |
//! | [`sockets`] | the listening sockets, their lanes and weights, the steered probe |
//! | [`keeper`] | a second holder of every descriptor that must outlive us |
//! | [`lines`] | the statistics by themselves, in lines, to be scored from outside |
//! | [`logs`] | what workers print, from FIFO to file and back |
//! | [`notify`] | what workers say over `NOTIFY_SOCKET` |
//! | [`probe`] | asking a worker whether it is well |
//! | [`releases`] | cutting immutable releases from folders, archives and git, in a process of their own |
//! | [`revision`] | one resolved configuration, kept as long as a worker runs it |
//! | [`diary`] | what the daemon says of itself, and that its file stays bounded |
//! | [`daemon`] | the daemon from its first breath to the loop |
//! | [`dispatcher`] | the loop that ties all of it to core |
//! | [`schedule`], [`watch`] | when the clock, or a changed file, asks for a reload or a refresh |
//! | [`standing`] | the daemon's settings in force: roles, and what follows from them |
//! | [`store`] | what survives the supervisor |
//! | [`systemd`] | what systemd is told when it started us, and the descriptors that it keeps for us |
//! | [`tasks`] | what workers tell of their work, their socket and their database |
//! | [`control`], [`status`] | the two sockets that people and scripts talk to |
#![deny(unsafe_code)]

pub mod causes;
pub mod config;
pub mod control;
pub mod daemon;
pub mod diary;
pub mod dispatcher;
pub mod fault;
pub mod handover;
pub mod home;
pub mod keeper;
pub mod lines;
pub mod logs;
pub mod notify;
pub mod probe;
pub mod process;
pub mod releases;
pub mod revision;
pub mod schedule;
pub mod sockets;
pub mod standing;
pub mod status;
pub mod store;
pub mod supervisors;
pub mod systemd;
pub mod tasks;
pub mod watch;
