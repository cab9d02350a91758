//! The whole estimator on simulated apps, small: coverage and cost against an oracle, and the loop in which every kill is
//! learned from. `benches/estimate.py` does the same in large.

use std::time::Duration;

use super::{AppGrace, Ended, InFlight, at, policy};

/// SplitMix64 (Steele, Lea, Flood 2014): a seed gives the same stream for ever.
struct Chance(u64);

impl Chance {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// A Weibull distribution: its quantiles and survival need no special function, and below 1 its shape has the long tail.
#[derive(Clone, Copy)]
struct Weibull {
    scale_s: f64,
    shape: f64,
}

impl Weibull {
    fn draw(self, chance: &mut Chance) -> f64 {
        self.scale_s * (-(1.0 - chance.uniform()).ln()).powf(1.0 / self.shape)
    }

    /// Seconds after which something of this age has ended with the probability 0.99.
    fn oracle(self, age_s: f64) -> f64 {
        let hazard = (age_s / self.scale_s).powf(self.shape) - 0.01_f64.ln();
        self.scale_s * hazard.powf(1.0 / self.shape) - age_s
    }
}

struct Outcome {
    covered: f64,
    cost: f64,
    /// Share of the tasks in flight at reloads that were killed.
    killed: f64,
}

/// One app after another: each runs a task at a time and is reloaded in the middle of every fourth. With `kills` a task
/// that does not end within the bound is killed there, and learned from as such.
fn simulate(sort: Weibull, apps: u64, tasks: u32, kills: bool) -> Outcome {
    let (mut reloads, mut covered, mut logs, mut killed) = (0.0, 0.0, 0.0, 0.0);
    for seed in 0..apps {
        let mut chance = Chance(seed);
        let mut app = AppGrace::default();
        for task in 0..tasks {
            let run = app.begin(None, Duration::ZERO, at(0.0));
            let lasts = sort.draw(&mut chance);
            if task % 4 != 3 {
                app.on_end(None, &run, at(lasts), Ended::Done);
                continue;
            }
            let age = lasts * chance.uniform();
            let in_flight = InFlight { kind: None, age: run.age(at(age)), since_safe: None };
            let bound = app.query(&[in_flight], &policy(0.99)).bound.as_secs_f64();
            let in_time = lasts <= age + bound;
            reloads += 1.0;
            covered += f64::from(u8::from(in_time));
            logs += (bound / sort.oracle(age)).ln();
            let dies = kills && !in_time;
            killed += f64::from(u8::from(dies));
            let (end, how) = if dies { (age + bound, Ended::Killed) } else { (lasts, Ended::Done) };
            app.on_end(None, &run, at(end), how);
        }
    }
    Outcome { covered: covered / reloads, cost: f64::exp(logs / reloads), killed: killed / reloads }
}

#[test]
fn all_end_in_time_nearly_always_at_a_bounded_price() {
    for (scale_s, shape) in [(20.0, 0.5), (60.0, 1.0), (900.0, 2.0)] {
        let Outcome { covered, cost, .. } = simulate(Weibull { scale_s, shape }, 40, 400, false);
        assert!(covered >= 0.985, "shape {shape}: coverage {covered}");
        assert!((0.9..2.7).contains(&cost), "shape {shape}: cost {cost}");
    }
}

#[test]
fn kills_that_are_learned_from_do_not_lead_to_more_kills() {
    let heavy = Weibull { scale_s: 30.0, shape: 0.4 };
    let outcome = simulate(heavy, 40, 800, true);
    assert!(outcome.killed <= 0.015, "killed {}", outcome.killed);
    assert!(outcome.cost < 2.7, "cost {}", outcome.cost);
}

/// The bound at an age after a history in which every `nth` end was cut where it ended, or left out; the geometric mean
/// over many histories.
fn mean_bound(nth: usize, of_those: impl Fn(f64) -> Option<Ended>) -> f64 {
    let sort = Weibull { scale_s: 60.0, shape: 0.7 };
    let logs = (0..200).map(|seed| {
        let mut chance = Chance(seed);
        let mut app = AppGrace::default();
        for task in 0..100 {
            let run = app.begin(None, Duration::ZERO, at(0.0));
            let lasts = sort.draw(&mut chance);
            let ended = if task % nth == 0 { of_those(lasts) } else { Some(Ended::Done) };
            if let Some(ended) = ended {
                app.on_end(None, &run, at(lasts), ended);
            }
        }
        let task = InFlight { kind: None, age: Duration::from_secs(30), since_safe: None };
        app.query(&[task], &policy(0.99)).bound.as_secs_f64().ln()
    });
    f64::exp(logs.sum::<f64>() / 200.0)
}

#[test]
fn over_many_histories_what_was_cut_lengthens_the_bound() {
    let ended = mean_bound(10, |_| Some(Ended::Done));
    let one_in_ten_cut = mean_bound(10, |_| Some(Ended::Killed));
    let one_in_three_cut = mean_bound(3, |_| Some(Ended::Crashed));
    assert!(ended * 1.05 < one_in_ten_cut && one_in_ten_cut * 1.05 < one_in_three_cut);
    let long_ones_left_out = mean_bound(1, |lasts| (lasts < 120.0).then_some(Ended::Done));
    let long_ones_cut = mean_bound(1, |lasts| Some(if lasts < 120.0 { Ended::Done } else { Ended::Killed }));
    assert!(long_ones_left_out * 1.5 < long_ones_cut, "{long_ones_left_out} {long_ones_cut}");
}
