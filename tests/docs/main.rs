//! What is written beside the code holds: examples run, configurations parse, links lead somewhere, floors bear.

mod benchmarks;
mod blocks;
mod floors;
mod links;
mod readme;
mod scripts;
mod units;
mod worker;

/// A file of the repository, as text.
fn text(path: &str) -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
