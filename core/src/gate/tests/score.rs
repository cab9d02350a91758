//! The gates on simulated deployments, small and seeded. `benches/gate.py` does the same in large.

use super::*;

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Chance(u64);

impl Chance {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Twelve uniforms: normal enough.
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.uniform()).sum::<f64>() - 6.0
    }

    fn lognormal(&mut self, median: f64, sigma: f64) -> f64 {
        median * (sigma * self.normal()).exp()
    }

    fn count(&mut self, mean: f64) -> f64 {
        let (limit, mut product, mut count) = ((-mean).exp(), self.uniform(), 0.0);
        while product > limit {
            product *= self.uniform();
            count += 1.0;
        }
        count
    }

    fn score(&mut self, mean: f64) -> f64 {
        (mean + 0.15 * self.normal()).clamp(0.0, 1.0)
    }
}

type Draw = fn(&mut Chance, bool) -> f64;

/// Each measure, as it is and as the bad version does it.
const MEASURES: [(Measure, Draw); 8] = [
    (Measure::Binary { floor: 0.01 }, |c, bad| f64::from(u8::from(c.uniform() < if bad { 0.1 } else { 0.01 }))),
    (Measure::Numeric { tol: 0.1 }, |c, bad| c.lognormal(if bad { 30.0 } else { 20.0 }, 0.5)),
    (Measure::Numeric { tol: 0.1 }, |c, bad| c.count(if bad { 9.0 } else { 3.0 })),
    (Measure::Mean { margin: 0.03 }, |c, bad| c.score(if bad { 0.7 } else { 0.8 })),
    (Measure::Numeric { tol: 0.1 }, |c, bad| c.lognormal(if bad { 3000.0 } else { 2000.0 }, 0.8)),
    (Measure::Numeric { tol: 0.1 }, |c, bad| c.lognormal(if bad { 0.03 } else { 0.02 }, 0.8)),
    (Measure::Numeric { tol: 0.1 }, |c, bad| c.count(if bad { 12.0 } else { 8.0 })),
    (Measure::Numeric { tol: 0.1 }, |c, bad| c.lognormal(if bad { 0.45 } else { 0.3 }, 0.4)),
];

fn begun((measure, draw): (Measure, Draw), baseline: usize, chance: &mut Chance) -> Gate {
    let mut gate = gate(measure);
    let values: Vec<f64> = (0..baseline).map(|_| draw(chance, false)).collect();
    gate.baseline(&values).expect("in range");
    gate
}

/// Tasks until the rollback, after `good` tasks as before and a new stage; at most 2,000.
fn detected(which: usize, baseline: usize, good: usize, seed: u64) -> u64 {
    let mut chance = Chance(seed);
    let mut gate = begun(MEASURES[which], baseline, &mut chance);
    for _ in 0..good {
        gate.observe(MEASURES[which].1(&mut chance, false)).expect("in range");
    }
    if good > 0 {
        gate.begin_stage();
    }
    let mut tasks = 0;
    while tasks < 2000 {
        tasks += 1;
        if gate.observe(MEASURES[which].1(&mut chance, true)).expect("in range").verdict == Verdict::Rollback {
            break;
        }
    }
    tasks
}

fn median(which: usize, baseline: usize, good: usize) -> u64 {
    let mut tasks: Vec<u64> = (0..101).map(|seed| detected(which, baseline, good, seed)).collect();
    tasks.sort_unstable();
    tasks[50]
}

/// Whether any of the eight rolls back over four stages of 100 tasks with no change at all.
fn false_rollback(baseline: usize, seed: u64) -> bool {
    MEASURES.iter().enumerate().any(|(which, measure)| {
        let mut chance = Chance(seed * 8 + which as u64);
        let mut gate = begun(*measure, baseline, &mut chance);
        (0..4).any(|stage| {
            if stage > 0 {
                gate.begin_stage();
            }
            (0..100)
                .any(|_| gate.observe(measure.1(&mut chance, false)).expect("in range").verdict == Verdict::Rollback)
        })
    })
}

#[test]
fn without_a_change_hardly_ever_one_of_eight_gates_rolls_back() {
    let wrong = (0..400).filter(|seed| false_rollback(300, *seed)).count();
    assert!(wrong <= 6, "{wrong} of 400");
}

#[test]
fn what_is_worse_is_found_after_a_few_dozen_tasks() {
    let found: Vec<u64> = (0..4).map(|which| median(which, 500, 0)).collect();
    for (found, most) in found.iter().zip([60, 58, 14, 65]) {
        assert!(*found <= most, "{found}, at most {most}: errors, latency, tool calls, quality");
    }
}

#[test]
fn a_version_that_turns_bad_late_is_found_nearly_as_soon() {
    let (fresh, late) = (median(0, 500, 0), median(0, 500, 150));
    assert!(late <= fresh + 15, "{late} after 150 good tasks, {fresh} without");
}
