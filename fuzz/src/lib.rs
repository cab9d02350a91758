//! Everything that reads what others wrote, given any bytes at all.
//!
//! | part | owns |
//! |---|---|
//! | `targets` | one function a reader: it panics where a promise is broken |
//! | [`mutation`] | inputs near those of the corpus, for the short run among the tests |
//! | `libfuzzer.rs` | the same functions under libFuzzer, guided by coverage; `fuzz/run TARGET` builds and runs it |
//!
//! Inputs that begin a search lie in `corpus/TARGET`, those that broke something in `found/TARGET`; `cargo test -p agentd-fuzz`
//! runs both, and some thousand inputs near them.

pub mod mutation;
mod scratch;
mod served;
mod targets;

use camino::Utf8PathBuf;

/// Something that reads what others wrote.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, and that of its folder of inputs.
    pub name: &'static str,
    /// Reads an input, and panics where it is not read as promised.
    pub run: fn(&[u8]),
    /// Inputs of the short run: as many as take about a second.
    pub inputs: u32,
}

/// All of them.
pub const TARGETS: [Target; 8] = [
    Target { name: "config", run: targets::config::run, inputs: 1_500 },
    Target { name: "control", run: targets::control::run, inputs: 1_500 },
    Target { name: "held", run: targets::held::run, inputs: 20_000 },
    Target { name: "log_index", run: targets::log_index::run, inputs: 1_500 },
    Target { name: "notify", run: targets::notify::run, inputs: 20_000 },
    Target { name: "status", run: targets::status::run, inputs: 1_500 },
    Target { name: "stored", run: targets::stored::run, inputs: 150 },
    Target { name: "worker", run: targets::worker::run, inputs: 20_000 },
];

/// The target of this name.
#[must_use]
pub fn target(name: &str) -> Option<Target> {
    TARGETS.into_iter().find(|target| target.name == name)
}

/// Where the inputs of a target lie: `corpus` or `found`.
#[must_use]
pub fn folder(kind: &str, target: &str) -> Utf8PathBuf {
    [env!("CARGO_MANIFEST_DIR"), kind, target].iter().collect()
}
