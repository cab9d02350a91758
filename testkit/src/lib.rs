//! What the tests of agentd are built from; never shipped.
//!
//! Owns the [`sim`]ulator: the real `core` under a virtual clock, with seeded faults and named invariants.
#![forbid(unsafe_code)]

pub mod sim;
