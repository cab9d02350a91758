//! Bad days: what becomes of a fleet when the machine runs out of something, as docs/guides/bad-days.md promises.

mod clock;
mod diary;
mod disk;
mod exhausted;
mod floods;
mod gone;
mod joined;
mod site;
mod soak;
