//! The decisions of agentd, and nothing else.
//!
//! Owns: what a worker, an app, a rollout and the whole [`fleet`] do next. Pure: no clock, no randomness,
//! no descriptor, no file. Time comes in as a [`time::Moment`], chance as [`time::Tick::entropy`], facts as
//! [`event::Event`]s; what comes out is an [`effect::Outcome`]: what to *persist*, then what to *do*, then what to
//! *publish*, in that order.
//!
//! Start reading at [`worker::state`] (the life of one worker), then [`rollout`] (how a generation replaces
//! another), then [`fleet`] (which composes them and names the invariants). Tasks have a machine and an owner of their
//! own: [`task`].
#![forbid(unsafe_code)]

pub mod admission;
pub mod app;
pub mod breaker;
pub mod diff;
pub mod drain;
pub mod effect;
pub mod event;
pub mod fleet;
pub mod gate;
pub mod grace;
pub mod id;
pub mod limit;
pub mod needs;
pub mod policy;
pub mod rate;
pub mod refresh;
pub mod release;
pub mod restart;
pub mod rollout;
pub mod task;
pub mod time;
pub mod worker;
