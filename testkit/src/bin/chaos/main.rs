//! Kills the supervisor as often as asked for, under load, and says what it cost.
//!
//! Exit codes: 0 when nothing was lost, 1 when something was, 2 for arguments that are not understood; a broken
//! invariant ends it at once (101), with what was seen.
#![forbid(unsafe_code)]

mod serve;

use std::process::ExitCode;

use agentd_testkit::chaos::{self, Loads, Plan, Servers};
use agentd_testkit::e2e::Mix;

const USAGE: &str = "\
usage: chaos [--agentd PATH] [--kills N] [--passes N] [--seed N] [--uvicorn PATH] [--node PATH] [--lines N] [--fast] [-v]
       chaos serve <LISTENING_SOCKET     the server that carries most of --fast

  --agentd PATH   the daemon to be killed, with agentctl beside it; beside this program when not given
  --kills N       deaths at random moments; 300
  --passes N      for each fault point: deaths at its 1st to Nth passing; 1 (a debug build's daemon only)
  --seed N        where everything is drawn from
  --lines N       lines that the printer writes each 10 ms; 200
  --fast          at least 5,000 requests a second: a server that costs little takes part, and clients ask in bursts";

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("serve") {
        return match serve::run() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("chaos: {error}");
                ExitCode::FAILURE
            }
        };
    }
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
    let slow = Mix { fresh: 4, keepalive: 2, long: 0, sse: 0, requests: u64::MAX, ..Mix::default() };
    let loads = Loads { web: slow.clone(), node: Mix { fresh: 2, keepalive: 1, ..slow.clone() }, quick: slow };
    let servers = Servers { burst: 200, ..Servers::default() };
    let passes = u32::from(cfg!(debug_assertions));
    let mut plan = Plan { kills: 300, passes, seed: u64::from(std::process::id()), servers, loads, verbose: false };
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
                plan.servers.quick = Some(own.to_str()?.to_owned());
                let loads = &mut plan.loads;
                (loads.web.fresh, loads.web.keepalive, loads.web.burst) = (2, 1, 10);
                (loads.node.fresh, loads.node.keepalive, loads.node.burst) = (1, 1, 10);
                (loads.quick.fresh, loads.quick.keepalive, loads.quick.burst) = (2, 2, 50);
            }
            "-v" => plan.verbose = true,
            _ => return None,
        }
    }
    Some((agentd, plan))
}
