//! Real sockets on loopback: what the kernel does with what we tell it.

mod given;
mod lanes;
mod probes;
mod processes;
mod unix;
