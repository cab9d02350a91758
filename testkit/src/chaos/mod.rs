//! The supervisor is killed, again and again, while everything that can be under way is: load, reloads, scaling, other
//! configurations, crashes of workers. After each death the next supervisor has to have all of it.
//!
//! ```text
//!           ┌──────────────────── load on the servers, lines from the printer, all the time ────────────────────┐
//!  phase 1  │  for each fault point: a daemon that dies exactly there, while it reloads; the next one           │
//!  phase 2  │  as often as asked for: something begins ─► a moment of random length ─► SIGKILL ─► the next one   │
//!           └──── after each: settle ─► invariants (see `invariants.rs`) ────────────────────────────────────────┘
//! ```
//!
//! Now and then the keeper dies instead of the daemon, and the daemon is upgraded or leaves by SIGTERM. A worker that is
//! killed takes the requests that it has accepted with it, and these alone (see `crash.rs`). Everything is drawn from one
//! seed.

mod crash;
mod fleet;
mod invariants;
mod report;

use std::time::{Duration, Instant};

use crate::e2e::{Daemon, Load, Loss, Mix, Outcome};
use crate::sim::Random;

pub use fleet::{Fleet, Servers};
pub use report::Summary;

/// Every point at which a debug build can be made to die (`src/fault.rs`), and whether it is one of the start.
pub const POINTS: [(&str, bool); 9] = [
    ("took", true),
    ("adopted", true),
    ("resumed", true),
    ("decided", false),
    ("committed", false),
    ("spawned", false),
    ("kept", false),
    ("weighed", false),
    ("told", false),
];
/// How long a doomed daemon may take to pass its point.
const DOOM_WITHIN: Duration = Duration::from_secs(20);

/// How long one that is to die as it starts may live on.
const AT_START_WITHIN: Duration = Duration::from_secs(2);

/// What to do, and how often.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Deaths at random moments.
    pub kills: u32,
    /// Passes of each fault point at which the daemon dies: 1, 2, …; none in a release build.
    pub passes: u32,
    /// Where everything is drawn from.
    pub seed: u64,
    /// Which servers take part.
    pub servers: Servers,
    /// The clients of each server.
    pub loads: Loads,
    /// Says what happens as it happens.
    pub verbose: bool,
}

/// The clients of each server that takes part.
#[derive(Clone, Debug)]
pub struct Loads {
    /// Of `uvicorn`, or of Python's own server in its place.
    pub web: Mix,
    /// Of Node.
    pub node: Mix,
    /// Of the server that costs little: where most of the load is to be.
    pub quick: Mix,
}

/// What is done to the fleet when the supervisor is about to die.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// Nothing: the same processes have to be there afterwards.
    Nothing,
    /// A reload of a server.
    Reload,
    /// A reload with another configuration.
    Reconfigure,
    /// Another number of workers.
    Scale,
    /// A worker is killed.
    Crash,
}

/// How the supervisor goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Death {
    /// SIGKILL.
    Killed,
    /// At a fault point.
    AtPoint(&'static str),
    /// SIGTERM.
    Left,
    /// Another program took its place.
    Upgraded,
    /// Its keeper was killed; it lives.
    KeeperKilled,
}

/// Runs the plan.
///
/// # Panics
/// When an invariant does not hold: with what was seen, and the seed.
pub fn run(agentd: &str, plan: &Plan) -> Summary {
    eprintln!("chaos: seed {}", plan.seed);
    let started = Instant::now();
    let mut fleet = Fleet::start(Daemon::start(agentd), plan.servers.clone());
    let mut summary = Summary::default();
    let mut random = Random::new(plan.seed);
    let ports = fleet.ports();
    let servers = [
        (ports.web, &plan.loads.web, true),
        (ports.node, &plan.loads.node, plan.servers.node.is_some()),
        (ports.quick, &plan.loads.quick, plan.servers.quick.is_some()),
    ];
    let loads: Vec<(u16, Mix)> =
        servers.into_iter().filter(|(.., takes_part)| *takes_part).map(|(port, mix, _)| (port, mix.clone())).collect();
    let report = Load::run_all(&loads, || {
        for pass in 1..=plan.passes {
            for (point, at_start) in POINTS {
                let action = die_at(&mut fleet, &mut random, point, pass, at_start);
                let death = if action.is_some() { Death::AtPoint(point) } else { Death::Killed };
                after(
                    &mut fleet,
                    &mut summary,
                    action.unwrap_or(Action::Reload),
                    death,
                    plan.verbose.then_some(started),
                );
            }
        }
        for _ in 0..plan.kills {
            let action = fleet.draw(&mut random);
            fleet.begin(action, &mut random);
            std::thread::sleep(random.millis(0, 150));
            let death = die(&mut fleet, &mut random);
            after(&mut fleet, &mut summary, action, death, plan.verbose.then_some(started));
        }
    });
    summary.requests = report.total();
    let taken_along = |loss: &&Loss| fleet.crashes.iter().any(|crash| crash.took(loss));
    let (excused, lost): (Vec<&Loss>, Vec<&Loss>) =
        report.losses.iter().filter(|loss| loss.outcome != Outcome::ResetIdle).partition(taken_along);
    for loss in &lost {
        eprintln!("chaos: lost {:.3} s after the start: {loss:?}", loss.ended.duration_since(started).as_secs_f64());
    }
    if !lost.is_empty() {
        eprintln!(
            "chaos: the daemons' log, whose last line is of {:.3} s after the start:",
            started.elapsed().as_secs_f64()
        );
        eprintln!("{}", fleet.daemon.log());
    }
    summary.taken_along = excused.len() as u64;
    summary.lost = report.lost_in_service() - summary.taken_along;
    summary.load = report.to_string();
    summary.lines = fleet.stop_and_count_lines();
    summary.took = started.elapsed();
    summary
}

/// A death at one fault point; none when the daemon lived past it, and was killed by hand.
fn die_at(fleet: &mut Fleet, random: &mut Random, point: &'static str, pass: u32, at_start: bool) -> Option<Action> {
    let fault = format!("{point}:{pass}");
    fleet.daemon.kill();
    let died = if at_start {
        fleet.daemon.start_doomed(&fault, AT_START_WITHIN)
    } else {
        let lives = !fleet.daemon.start_doomed(&fault, Duration::from_millis(1));
        let until = Instant::now() + DOOM_WITHIN;
        let mut died = !lives;
        while !died && Instant::now() < until {
            fleet.begin(Action::Reload, random);
            died = fleet.daemon.died_within(Duration::from_secs(2));
        }
        died
    };
    if !died {
        fleet.daemon.kill();
    }
    fleet.daemon.start_again();
    died.then_some(if at_start { Action::Nothing } else { Action::Reload })
}

fn die(fleet: &mut Fleet, random: &mut Random) -> Death {
    match random.between(0, 20) {
        0 => {
            fleet.daemon.terminate();
            let _code = fleet.daemon.await_end(DOOM_WITHIN);
            fleet.daemon.start_again();
            Death::Left
        }
        1 | 2 => {
            // A request under way makes it wait, and a refusal is as good here.
            let _output = fleet.daemon.ctl(&["daemon", "upgrade"]);
            Death::Upgraded
        }
        3 => {
            fleet.kill_keeper();
            Death::KeeperKilled
        }
        _ => {
            fleet.daemon.kill();
            fleet.daemon.start_again();
            Death::Killed
        }
    }
}

/// Looks at everything once it has settled; tells of it where it is given when the run began.
fn after(fleet: &mut Fleet, summary: &mut Summary, action: Action, death: Death, told_since: Option<Instant>) {
    let touched = fleet.touched.clone();
    let settled = invariants::hold(fleet, action, death);
    if let Some(started) = told_since {
        eprintln!(
            "chaos: {:>4}  {death:?} during {action:?} of {touched:?}: settled in {} ms, {:.3} s after the start",
            summary.deaths() + 1,
            settled.as_millis(),
            started.elapsed().as_secs_f64()
        );
    }
    summary.add(action, death, settled);
}
