//! Who workers run as, what they may use, what they are given in secret, and who may use the daemon: with the real
//! daemon, as root and as a user.

mod accounts;
mod limits;
mod paths;
mod roles;
mod secrets;
mod site;
