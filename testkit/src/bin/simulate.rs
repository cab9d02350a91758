//! Runs the fleet simulator by hand: many seeds, or one with all its steps.
//!
//! Exit codes: 0 when every invariant held, 1 when one did not, 2 for arguments that are not understood.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use agentd_testkit::sim::{self, Summary, Trace};

const USAGE: &str = "usage: simulate --seeds COUNT [--from SEED] | --seed SEED [--trace]";

enum Wanted {
    Many { from: u64, count: u64 },
    One { seed: u64, trace: Trace },
}

fn main() -> ExitCode {
    match wanted(std::env::args().skip(1)) {
        Some(Wanted::Many { from, count }) => many(from, count),
        Some(Wanted::One { seed, trace }) => report(sim::run(seed, trace).map_err(|failure| failure.to_string())),
        None => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn wanted(mut args: impl Iterator<Item = String>) -> Option<Wanted> {
    let (mut seed, mut from, mut count, mut trace) = (None, 0, 2_000, Trace::Off);
    while let Some(arg) = args.next() {
        let mut number = || args.next()?.parse::<u64>().ok();
        match arg.as_str() {
            "--seeds" => count = number()?,
            "--from" => from = number()?,
            "--seed" => seed = Some(number()?),
            "--trace" => trace = Trace::On,
            _ => return None,
        }
    }
    Some(match seed {
        Some(seed) => Wanted::One { seed, trace },
        None => Wanted::Many { from, count },
    })
}

fn many(from: u64, count: u64) -> ExitCode {
    let mut total = Summary::default();
    for seed in from..from.saturating_add(count) {
        match sim::run(seed, Trace::Off) {
            Ok(summary) => total += summary,
            Err(failure) => return report(Err(failure.to_string())),
        }
    }
    report(Ok(total))
}

fn report(result: Result<Summary, String>) -> ExitCode {
    match result {
        Ok(summary) => {
            println!("every invariant held: {summary:?}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            println!("{failure}");
            ExitCode::FAILURE
        }
    }
}
