//! What the tests of agentd are built from; never shipped.
//!
//! Owns the [`sim`]ulator: the real `core` under a virtual clock, with seeded faults and named invariants; and what
//! [`e2e`] tests share: the real daemon in a home of its own, and clients that count what was lost.
#![forbid(unsafe_code)]

pub mod chaos;
pub mod e2e;
pub mod exactly_once;
pub mod sim;
