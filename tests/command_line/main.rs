//! Every command of `agentctl` against the real daemon: how it ends, what it prints, and what it does to who serves.

mod codes;
mod hinting;
mod serving;
mod site;
mod status_socket;
mod watching;
