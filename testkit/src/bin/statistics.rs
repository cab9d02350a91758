//! What the estimator and a gate cost, in processor time of this thread: `cargo run --profile release -p agentd-testkit --bin statistics`.

use std::time::Duration;

use agentd_core::gate::{Gate, Measure, Settings};
use agentd_core::grace::{AppGrace, Ended, InFlight};
use agentd_core::policy::AppPolicy;
use agentd_core::time::Moment;

const ENDS: u64 = 2_000_000;
const QUERIES: u32 = 20_000;
const OBSERVATIONS: u32 = 1_000_000;

/// Time that this thread was on a processor: what others do on the machine does not count.
fn cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux tells");
    let on_cpu = text.split_whitespace().next().and_then(|first| first.parse().ok());
    Duration::from_nanos(on_cpu.expect("nanoseconds"))
}

fn main() {
    let mut app = AppGrace::default();
    let policy = AppPolicy::default().grace;
    let mut runs = std::collections::VecDeque::new();
    let began = cpu();
    for task in 0..ENDS {
        let now = Moment::from_micros(task * 100_000);
        runs.push_back(app.begin(Some("chat"), Duration::ZERO, now));
        // Sixteen run beside each other, each for 1 to 61 seconds.
        if runs.len() > 16 {
            let run = runs.pop_front().expect("sixteen");
            app.on_end(Some("chat"), &run, now + Duration::from_millis(task * 7919 % 60_000), Ended::Done);
        }
    }
    let ends = ENDS as f64 / (cpu() - began).as_secs_f64() / 1e6;
    println!("{ends:.2} million ends a second, each in four series: pool and kind, whole and gaps");

    let task = |k: u64| InFlight { kind: Some("chat"), age: Duration::from_secs(k * 3), since_safe: None };
    let tasks: Vec<_> = (0..16).map(task).collect();
    for (how, fresh) in [("nothing ended since", false), ("an end before each", true)] {
        let began = cpu();
        for _ in 0..QUERIES {
            if fresh {
                let run = app.begin(Some("chat"), Duration::ZERO, Moment::default());
                app.on_end(Some("chat"), &run, Moment::from_micros(9_000_000), Ended::Done);
            }
            std::hint::black_box(app.query(&tasks, &policy));
        }
        let spent = cpu() - began;
        println!("{:.1} µs a query with 16 tasks, {how}", spent.as_secs_f64() * 1e6 / f64::from(QUERIES));
    }

    let mut gate = Gate::new(Settings::new(Measure::Numeric { tol: 0.1 })).expect("valid settings");
    let baseline: Vec<f64> = (0..500_u32).map(|k| f64::from(k % 100)).collect();
    gate.baseline(&baseline).expect("in range");
    let began = cpu();
    for k in 0..OBSERVATIONS {
        if k % (OBSERVATIONS / 4) == 1 {
            gate.begin_stage();
        }
        std::hint::black_box(gate.observe(f64::from(k % 90)).expect("in range"));
    }
    let spent = (cpu() - began).as_secs_f64() * 1e6 / f64::from(OBSERVATIONS);
    println!("{spent:.2} µs an observation of a numeric gate, in four stages");
}
