//! Starting real programs through the real shim, and ending them.

mod bench;
mod containment;
mod notifying;
mod spawning;
mod stage;
mod zygote;
