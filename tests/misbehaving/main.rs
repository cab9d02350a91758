//! Workers that misbehave in every way there is: what becomes of them is defined, and their users notice nothing.
//!
//! The workers are one Python program of the standard library alone, `worker.py`, told by its arguments what to do.

mod fleet;
mod living;
mod notifying;
mod printing;
mod reloading;
mod restarting;
mod starting;
mod stopping;
