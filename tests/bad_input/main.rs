//! Whatever is put in wrongly has a defined outcome (`docs/reference/bad-input.md`), and no worker that serves is
//! stopped by it.

mod configuration;
mod daemons;
mod deployments;
mod names;
mod site;
mod sockets;
