//! What a gate promises: that it does not speak without cause, that it speaks soon, and that nothing passes silently.

use proptest::prelude::*;

use super::*;

mod score;

fn gate(measure: Measure) -> Gate {
    Gate::new(Settings::new(measure)).expect("valid settings")
}

fn binary(bad: usize, all: usize) -> Gate {
    let mut gate = gate(Measure::Binary { floor: 0.01 });
    let baseline: Vec<f64> = (0..all).map(|k| if k < bad { 1.0 } else { 0.0 }).collect();
    gate.baseline(&baseline).expect("a baseline");
    gate
}

fn feed(gate: &mut Gate, values: impl IntoIterator<Item = f64>) -> Reading {
    values.into_iter().fold(gate.reading(), |_, x| gate.observe(x).expect("in range"))
}

#[test]
fn the_evidence_of_a_binary_gate_is_the_formulas() {
    let mut gate = binary(0, 2000);
    let reading = feed(&mut gate, [1.0, 0.0, 0.0, 1.0, 0.0]);
    let (p0, s, f) = (0.01_f64, 2.0, 3.0);
    let bets = [1.5, 2.0, 3.0, 5.0, 10.0].map(|multiple: f64| {
        let odds = multiple * p0 / (1.0 - p0);
        let p = odds / (1.0 + odds);
        (s * (p / p0).ln() + f * ((1.0 - p) / (1.0 - p0)).ln()).exp()
    });
    let log_e = (bets.iter().sum::<f64>() / 5.0).ln();
    assert!((reading.log_e - log_e).abs() < 1e-12, "{} {log_e}", reading.log_e);
    assert_eq!((reading.n, reading.observed, reading.baseline), (5, Some(0.4), Some(0.0)));
}

#[test]
fn too_few_observations_never_pass_and_thirty_good_ones_do() {
    let mut gate = binary(1, 100);
    assert_eq!(gate.reading().verdict, Verdict::TooFew);
    assert_eq!(feed(&mut gate, [0.0; 29]).verdict, Verdict::TooFew);
    assert_eq!(feed(&mut gate, [0.0]).verdict, Verdict::Promote);
    gate.begin_stage();
    assert_eq!(gate.reading().verdict, Verdict::TooFew, "each stage counts anew");
}

#[test]
fn a_gate_without_a_baseline_never_passes() {
    let mut gate = gate(Measure::Binary { floor: 0.01 });
    gate.baseline(&[0.0; BASELINE_MIN - 1]).expect("in range");
    let reading = feed(&mut gate, [0.0; 100]);
    assert_eq!((reading.verdict, reading.baseline, reading.log_e), (Verdict::TooFew, None, 0.0));
}

#[test]
fn evidence_holds_first_and_then_rolls_back_for_good() {
    let mut gate = binary(1, 200);
    let mut seen = Vec::new();
    for _ in 0..10 {
        let verdict = feed(&mut gate, [1.0]).verdict;
        if seen.last() != Some(&verdict) {
            seen.push(verdict);
        }
    }
    assert_eq!(seen, [Verdict::TooFew, Verdict::Hold, Verdict::Rollback]);
    assert_eq!(feed(&mut gate, [0.0; 500]).verdict, Verdict::Rollback, "what was proven stays so");
}

#[test]
fn a_baseline_is_frozen_while_a_stage_runs() {
    let mut gate = binary(0, 100);
    feed(&mut gate, [0.0]);
    gate.baseline(&[1.0; 100]).expect("in range");
    assert_eq!(gate.reading().baseline, Some(0.0));
    gate.begin_stage();
    assert_eq!(gate.reading().baseline, Some(1.0));
}

#[test]
fn numbers_within_the_tolerance_are_no_evidence() {
    let mut gate = gate(Measure::Numeric { tol: 0.1 });
    let baseline: Vec<f64> = (1..=200).map(f64::from).collect();
    gate.baseline(&baseline).expect("in range");
    let reading = feed(&mut gate, (1..=200).map(|k| f64::from(k * 37 % 200 + 1) * 1.09));
    assert!(reading.log_e < 0.0 && reading.verdict == Verdict::Promote, "{reading:?}");
}

#[test]
fn settings_and_observations_out_of_range_are_refused_and_change_nothing() {
    let with = |measure, alpha| Gate::new(Settings { measure, alpha, n_min: 30 }).map(|_| ());
    assert_eq!(with(Measure::Binary { floor: 1.0 }, 0.1), Err(GateError::Floor(1.0)));
    assert_eq!(with(Measure::Numeric { tol: -1.0 }, 0.1), Err(GateError::Tolerance(-1.0)));
    assert_eq!(with(Measure::Mean { margin: 2.0 }, 0.1), Err(GateError::Margin(2.0)));
    assert_eq!(with(Measure::Mean { margin: 0.1 }, 1.0), Err(GateError::Alpha(1.0)));
    let mut gate = binary(1, 100);
    assert_eq!(gate.observe(0.5), Err(GateError::NotBinary(0.5)));
    assert_eq!(gate.baseline(&[0.0, 7.0]), Err(GateError::NotBinary(7.0)));
    assert_eq!(gate.reading().n, 0);
}

proptest! {
    #[test]
    fn a_worse_observation_never_lowers_the_evidence(values in prop::collection::vec(0.0_f64..1.0, 1..60), which in any::<prop::sample::Index>()) {
        let which = which.index(values.len());
        let baseline: Vec<f64> = (0..100).map(|k| f64::from(k) / 100.0).collect();
        for (measure, worse) in [(Measure::Numeric { tol: 0.1 }, 5.0), (Measure::Mean { margin: 0.03 }, 0.0)] {
            let mut changed = values.clone();
            changed[which] = worse;
            let evidence = |values: Vec<f64>| {
                let mut gate = gate(measure);
                gate.baseline(&baseline).expect("in range");
                feed(&mut gate, values).log_e
            };
            prop_assert!(evidence(changed) >= evidence(values.clone()) - 1e-9);
        }
    }

    #[test]
    fn the_order_within_a_stage_does_not_matter_to_the_evidence(values in prop::collection::vec(prop::bool::ANY, 1..60)) {
        let number = |bad: &bool| f64::from(u8::from(*bad));
        let (mut there, mut back) = (binary(3, 100), binary(3, 100));
        let there = feed(&mut there, values.iter().map(number));
        let back = feed(&mut back, values.iter().rev().map(number));
        prop_assert!((there.log_e - back.log_e).abs() < 1e-9);
    }

    #[test]
    fn nothing_makes_the_evidence_no_number(values in prop::collection::vec(0.0_f64..1e300, 1..200), same in any::<bool>()) {
        let mut gate = gate(Measure::Numeric { tol: 0.0 });
        gate.baseline(&if same { vec![1.0; 60] } else { values.iter().copied().cycle().take(60).collect() }).expect("in range");
        prop_assert!(feed(&mut gate, values).log_e.is_finite());
    }
}
