//! Programs: starting them, the processes they become, their ends.

pub mod sys;
