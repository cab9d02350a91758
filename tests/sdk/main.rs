//! The worker SDKs: their conformance vectors, and each against the real daemon. What they need is installed by
//! `tests/prepare`.

#[path = "../docs/blocks.rs"]
mod blocks;
mod cancelling;
mod conformance;
mod guide;
mod langgraph;
mod programs;
mod readmes;
mod real;
mod requests;
