//! Real runtimes under load: each is reloaded several times while clients of four sorts talk to it, and nothing may be
//! lost. What they need is installed by `tests/prepare`.

mod apps;
mod changes;
mod cooperating;
mod node;
mod python;
mod rust;
