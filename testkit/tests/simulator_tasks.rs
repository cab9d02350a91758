//! Thousands of runs of tasks among workers, a store and a supervisor that fail, in an ordinary test run.

use agentd_testkit::sim::Trace;
use agentd_testkit::sim::tasks::{self, Seen};

const SEEDS: u64 = 2_000;

/// Runs `from..to` one after the other.
fn runs(from: u64, to: u64) -> Seen {
    let mut total = Seen::default();
    for seed in from..to {
        match tasks::run(seed, Trace::Off) {
            Ok(seen) => total += seen,
            Err(failure) => panic!("{failure}"),
        }
    }
    total
}

#[test]
fn every_invariant_holds_for_tasks_in_two_thousand_runs_and_everything_there_is_happens_in_them() {
    let half = std::thread::spawn(|| runs(0, SEEDS / 2));
    let mut total = runs(SEEDS / 2, SEEDS);
    total += half.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    let Seen { batches, full, died_before, died_after, begun, sent_on, yielded, ended, .. } = total;
    let Seen { lost, parked, effects, reused, fenced, time_over, crashes, .. } = total;
    let often = [batches, full, died_before, died_after, begun, sent_on, yielded, ended, lost, effects, fenced];
    assert!(
        often.iter().chain([&time_over, &crashes]).all(|&count| count > 500),
        "some of it hardly happens: {total:?}"
    );
    assert!(parked > 20 && reused > 20, "effects are hardly ever in doubt: {total:?}");
}

#[test]
fn a_seed_of_the_task_simulator_is_one_run_whenever_it_is_run() {
    assert_eq!(runs(7, 8), runs(7, 8));
    assert_ne!(runs(7, 8), runs(8, 9));
}
