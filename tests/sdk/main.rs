//! The worker SDKs: their conformance vectors, and each against the real daemon. What they need is installed by
//! `tests/prepare`.

mod conformance;
mod programs;
mod real;
mod requests;
