//! Kills the supervisor as often as asked for, under load, and says what it cost.
//!
//! Exit codes: 0 when nothing was lost, 1 when something was, 2 for arguments that are not understood; a broken
//! invariant ends it at once (101), with what was seen.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use agentd_testkit::chaos::{self, Plan, Servers};
use agentd_testkit::e2e::Mix;

const USAGE: &str = "\
usage: chaos [--agentd PATH] [--kills N] [--passes N] [--seed N] [--uvicorn PATH] [--node PATH] [--lines N] [--fast] [-v]

  --agentd PATH   the daemon to be killed, with agentctl beside it; beside this program when not given
  --kills N       deaths at random moments; 300
  --passes N      for each fault point: deaths at its 1st to Nth passing; 1 (a debug build's daemon only)
  --seed N        where everything is drawn from
  --lines N       lines that the printer writes each 10 ms; 200
  --fast          clients ask in bursts of 20 requests, as fast as they are answered";

fn main() -> ExitCode {
    let Some((agentd, plan)) = arguments(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let summary = chaos::run(&agentd, &plan);
    println!("{summary}");
    if summary.lost == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn arguments(mut given: impl Iterator<Item = String>) -> Option<(String, Plan)> {
    let own = std::env::current_exe().ok()?;
    let mut agentd = own.with_file_name("agentd").to_string_lossy().into_owned();
    let mix = Mix { fresh: 4, keepalive: 2, long: 0, sse: 0, ..Mix::default() };
    let servers = Servers { uvicorn: None, node: None, burst: 200 };
    let passes = u32::from(cfg!(debug_assertions));
    let mut plan = Plan { kills: 300, passes, seed: u64::from(std::process::id()), servers, mix, verbose: false };
    while let Some(word) = given.next() {
        match word.as_str() {
            "--agentd" => agentd = given.next()?,
            "--kills" => plan.kills = given.next()?.parse().ok()?,
            "--passes" => plan.passes = given.next()?.parse().ok()?,
            "--seed" => plan.seed = given.next()?.parse().ok()?,
            "--uvicorn" => plan.servers.uvicorn = Some(given.next()?),
            "--node" => plan.servers.node = Some(given.next()?),
            "--lines" => plan.servers.burst = given.next()?.parse().ok()?,
            "--fast" => {
                plan.mix.burst = 20;
                plan.mix.requests = u64::MAX;
            }
            "-v" => plan.verbose = true,
            _ => return None,
        }
    }
    Some((agentd, plan))
}
