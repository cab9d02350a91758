//! The real `agentctl` against a daemon that is played by a thread: what is printed where, and the exit codes.
#![expect(clippy::wildcard_enum_match_arm, reason = "a played daemon knows the requests of its own test only")]

mod changing;
mod fake;
mod launching;
mod reading;
