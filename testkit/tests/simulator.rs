//! Thousands of fleets, each with its own faults, in an ordinary test run.

use agentd_testkit::sim::{self, Summary, Trace};

const SEEDS: u64 = 2_000;

/// Runs `from..to` one after the other.
fn runs(from: u64, to: u64) -> Summary {
    let mut total = Summary::default();
    for seed in from..to {
        match sim::run(seed, Trace::Off) {
            Ok(summary) => total += summary,
            Err(failure) => panic!("{failure}"),
        }
    }
    total
}

#[test]
fn every_invariant_holds_in_two_thousand_fleets_and_everything_there_is_happens_in_them() {
    let half = std::thread::spawn(|| runs(0, SEEDS / 2));
    let mut total = runs(SEEDS / 2, SEEDS);
    total += half.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    let Summary { steps, operations, done, rolled_back, aborted, failed, denied, restarts, kills, undrained, stages } =
        total;
    let seen = [steps, operations, done, rolled_back, aborted, failed, denied, restarts, kills, undrained, stages];
    assert!(seen.iter().all(|&count| count > 50), "some kind of event hardly happens: {total:?}");
    assert_eq!(operations, done + rolled_back + aborted + failed, "every operation ends once");
}

#[test]
fn a_seed_is_one_run_whenever_it_is_run() {
    assert_eq!(runs(7, 8), runs(7, 8));
    assert_ne!(runs(7, 8), runs(8, 9));
}
