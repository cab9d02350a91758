//! `agentctl apply` and what belongs to it, with the real daemon: differences, needs, the clock, watched files, and the
//! commands that write configurations.

mod applying;
mod generating;
mod needing;
mod occasions;
mod site;
