//! The short run: every input that is kept, and some thousand near them. What breaks a target is kept in `found/`.

use std::panic::catch_unwind;

use agentd_fuzz::{TARGETS, folder, mutation, target};
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

fn inputs(kind: &str, name: &str) -> Vec<Vec<u8>> {
    let entries = folder(kind, name).read_dir().into_iter().flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).expect("it can be read")).collect()
}

/// Runs a target on what is kept of it, and on inputs near that.
fn search(name: &str) {
    let target = target(name).expect("there is one of that name");
    let mut seeds = inputs("corpus", name);
    assert!(!seeds.is_empty(), "corpus/{name} holds nothing to begin with");
    seeds.extend(inputs("found", name));
    seeds.iter().for_each(|seed| (target.run)(seed));
    // The same inputs every time: a test that finds something new on somebody else's change helps nobody.
    let inputs = std::env::var("AGENTD_FUZZ_INPUTS").ok().and_then(|text| text.parse().ok()).unwrap_or(target.inputs);
    let config = Config { cases: inputs, failure_persistence: None, ..Config::default() };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let result = TestRunner::new_with_rng(config, rng).run(&mutation::near(seeds), |input| {
        catch_unwind(|| (target.run)(&input)).map_err(|_| TestCaseError::fail("it panicked"))
    });
    if let Err(TestError::Fail(why, input)) = result {
        let kept = folder("found", name);
        std::fs::create_dir_all(&kept).expect("the repository takes folders");
        let path = kept
            .join(format!("short-{:08x}", input.iter().fold(7u32, |sum, byte| sum.rotate_left(5) ^ u32::from(*byte))));
        std::fs::write(&path, &input).expect("the repository takes files");
        panic!("{why}; kept as {path}: {:?}", String::from_utf8_lossy(&input));
    }
}

macro_rules! short_runs {
    ($($name:ident;)*) => {
        $(#[test]
        fn $name() {
            search(stringify!($name));
        })*

        #[test]
        fn every_target_has_its_short_run() {
            assert_eq!(TARGETS.map(|target| target.name), [$(stringify!($name)),*]);
        }
    };
}

short_runs! {
    config;
    control;
    held;
    log_index;
    notify;
    status;
    stored;
    worker;
}
