//! The long form of "every admitted task completes exactly once": 200 reloads, 100 kills of workers and 10 of the daemon
//! under load. Exit codes: 0 when it holds, 1 when it does not, 2 for arguments that are not understood.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use agentd_testkit::exactly_once::{Plan, run};

const USAGE: &str = "usage: exactly_once [--agentd PATH] [--reloads N] [--kills N] [--daemon-kills N] [--clients N]";

fn main() -> ExitCode {
    let Some(plan) = plan(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let report = run(&plan);
    println!("{report}");
    if report.admitted == report.completed && report.wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn plan(mut args: impl Iterator<Item = String>) -> Option<Plan> {
    // Beside this program, as cargo builds them.
    let beside = std::env::current_exe().ok()?.with_file_name("agentd");
    let tasker = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/apps/tasker.py"));
    let mut plan = Plan { agentd: beside, tasker, reloads: 200, kills: 100, daemon_kills: 10, clients: 8 };
    while let Some(arg) = args.next() {
        let value = args.next()?;
        match arg.as_str() {
            "--agentd" => plan.agentd = value.into(),
            "--reloads" => plan.reloads = value.parse().ok()?,
            "--kills" => plan.kills = value.parse().ok()?,
            "--daemon-kills" => plan.daemon_kills = value.parse().ok()?,
            "--clients" => plan.clients = value.parse().ok()?,
            _ => return None,
        }
    }
    (plan.reloads > 0).then_some(plan)
}
