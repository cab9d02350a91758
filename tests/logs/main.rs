//! Logs as their users meet them: put aside under load, packed, looked through, on a disk that is full, and across
//! daemons that are killed.

mod full;
mod keeping;
mod looking;
mod resuming;
mod site;
