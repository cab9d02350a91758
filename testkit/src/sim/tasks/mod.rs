//! The task simulator: the real `core::task::Ledger` among workers, a store and a supervisor that fail at any message.
//!
//! Owns one run from its seed: [`run`]. A run has a time of faults and a calm, as the fleet's has. Messages arrive in
//! batches; a batch is committed, or its commit fails (full disk), or the supervisor dies before it or after it, with
//! every answer lost. Processes crash, are stopped and continued, lose their connections, dial again and send again
//! what was not acknowledged. A small fleet starts, replaces and ends workers, in the order of facts that the real one
//! has: told of, ready, draining, out of time or empty, told to end, gone.
//!
//! The invariants are the [`witness`]'s, held against what was seen from outside, and those of `sound.rs` in core.

mod fleet;
mod process;
mod store;
mod supervisor;
mod witness;
mod workers;
mod world;

use std::collections::VecDeque;

use super::Trace;
use super::report::{Broken, Failure, World};
pub use world::Seen;

/// Lines that are shown of a run that failed.
const SHOWN: usize = 60;

/// Runs one seed to its end.
///
/// # Errors
/// The first invariant that did not hold. A panic of core counts as one.
pub fn run(seed: u64, trace: Trace) -> Result<Seen, Box<Failure>> {
    let mut world = world::Tasks::new(seed, Log { lines: VecDeque::new(), trace });
    let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.run()));
    let broken = match ran {
        Ok(Ok(())) => return Ok(world.seen),
        Ok(Err(broken)) => broken,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Broken::new("core never panics", text.unwrap_or_default())
        }
    };
    let recent = world.log.lines.into_iter().collect();
    Err(Box::new(Failure { seed, world: World::Tasks, invariant: broken.invariant, detail: broken.detail, recent }))
}

/// The last lines of a run.
#[derive(Debug)]
struct Log {
    lines: VecDeque<String>,
    trace: Trace,
}

impl Log {
    fn line(&mut self, line: String) {
        if self.trace == Trace::On {
            println!("{line}");
        }
        self.lines.push_back(line);
        if self.lines.len() > SHOWN {
            self.lines.pop_front();
        }
    }
}
