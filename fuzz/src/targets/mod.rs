//! One module a reader.

pub(crate) mod config;
pub(crate) mod control;
pub(crate) mod held;
pub(crate) mod log_index;
pub(crate) mod notify;
pub(crate) mod status;
pub(crate) mod stored;
pub(crate) mod worker;
