//! Programs: starting them, the processes they become, their ends.
//!
//! Owns nothing but what the kernel calls a process; knows no apps and decides nothing. Read in this order: [`plan`]
//! (what is to be started), [`spawn`](mod@spawn) (the supervisor's half), [`zygote`] (what a child is a
//! copy of), [`shim`] (the child's half), [`tree`] (all that became of it), [`reaper`] (its end).
//! `docs/design/spawning.md` tells the story with its measurements.

pub mod account;
pub mod boot;
pub mod cgroup;
pub mod controllers;
pub mod descendants;
pub mod plan;
mod program;
pub mod reaper;
pub mod rest;
pub mod secret;
pub mod shim;
pub mod spawn;
pub mod stat;
pub mod sys;
pub mod tree;
pub mod usage;
pub mod zygote;

use agentd_core::id::Pid;

/// The environment variable that says which launch a process belongs to; its value is the launch's number.
pub const LAUNCH_VARIABLE: &str = "AGENTD_LAUNCH";
/// The environment variable that says which supervisor's launch that is: the number alone is not unique on a machine.
pub const INSTANCE_VARIABLE: &str = "AGENTD_INSTANCE";

fn our_pid(pid: rustix::process::Pid) -> Pid {
    Pid(pid.as_raw_nonzero().get().unsigned_abs())
}
