//! To be written.

pub mod sys;
