//! Releases with the real daemon: cut from folders, archives and git, kept, gone back to; and everything that must leave
//! nothing behind.

mod archives;
mod dying;
mod keeping;
mod refusing;
mod site;
mod upgrading;
