//! What workers print: from their standard output and error to files, and back.
//!
//! | part | owns |
//! |---|---|
//! | [`layout`] | names of files and FIFOs |
//! | [`sink`] | where a launch's output goes, and the descriptor it is given |
//! | [`fifo`] | the named FIFO between a launch and the log thread |
//! | [`thread`] | the log thread's handle; `pump` is its loop, `file` a live file, `index` its times, [`rotate`] its end |
//! | `journal` | journald instead of a file; `debt` counts what either does not take |
//! | [`housekeeper`] | packing and removing what was put aside; `shelf` looks at it, `packed` is its format |
//! | [`mod@line`] | one line as it is shown |
//! | [`read`] | the last lines; `reader` reads one source over its rotations, `part` one file, `body` its bytes |
//! | [`follow`] | lines as they come |
//!
//! It knows nothing of an app's state. A worker's output survives the supervisor (it waits in the FIFO), a full disk
//! costs lines and says how many, and a program that prints without end is bounded by its rotation.
//! `docs/design/logs.md` has the whole picture.

mod body;
mod debt;
pub mod fifo;
mod file;
pub mod follow;
pub mod housekeeper;
mod index;
mod journal;
pub mod layout;
pub mod line;
mod packed;
mod part;
mod pump;
pub mod read;
mod reader;
pub mod rotate;
mod shelf;
pub mod sink;
pub mod thread;
