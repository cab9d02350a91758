//! The pages of docs/guides, typed as they stand. The one of systemd is `tests/systemd`'s, as is the move from there:
//! they need a machine that boots.

#[path = "../docs/blocks.rs"]
mod blocks;
#[path = "../docs/guide.rs"]
mod guide;
mod pages;
mod place;
