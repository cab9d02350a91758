//! Runs the simulators by hand: many seeds of both, or of one; or one seed with all its steps.
//!
//! Exit codes: 0 when every invariant held, 1 when one did not, 2 for arguments that are not understood.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use agentd_testkit::sim::report::World;
use agentd_testkit::sim::tasks::{self, Seen};
use agentd_testkit::sim::{self, Failure, Summary, Trace};

const USAGE: &str = "usage: simulate [--world fleet|tasks] --seeds COUNT [--from SEED] | --seed SEED [--trace]";

struct Wanted {
    worlds: Vec<World>,
    from: u64,
    count: u64,
    trace: Trace,
}

fn main() -> ExitCode {
    let Some(wanted) = wanted(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    for world in &wanted.worlds {
        match runs(*world, &wanted) {
            Ok(seen) => println!("{}: every invariant held: {seen}", world.word()),
            Err(failure) => {
                println!("{failure}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

fn wanted(mut args: impl Iterator<Item = String>) -> Option<Wanted> {
    let (mut seed, mut from, mut count, mut trace) = (None, 0, 2_000, Trace::Off);
    let mut worlds = vec![World::Fleet, World::Tasks];
    while let Some(arg) = args.next() {
        let mut number = || args.next()?.parse::<u64>().ok();
        match arg.as_str() {
            "--world" => {
                let word = args.next()?;
                worlds.retain(|world| world.word() == word);
            }
            "--seeds" => count = number()?,
            "--from" => from = number()?,
            "--seed" => seed = Some(number()?),
            "--trace" => trace = Trace::On,
            _ => return None,
        }
    }
    let (from, count) = seed.map_or((from, count), |seed| (seed, 1));
    (!worlds.is_empty()).then_some(Wanted { worlds, from, count, trace })
}

/// Runs the seeds that are wanted in one world.
fn runs(world: World, wanted: &Wanted) -> Result<String, Box<Failure>> {
    let seeds = wanted.from..wanted.from.saturating_add(wanted.count);
    Ok(match world {
        World::Fleet => {
            let mut total = Summary::default();
            for seed in seeds {
                total += sim::run(seed, wanted.trace)?;
            }
            format!("{total:?}")
        }
        World::Tasks => {
            let mut total = Seen::default();
            for seed in seeds {
                total += tasks::run(seed, wanted.trace)?;
            }
            format!("{total:?}")
        }
    })
}
