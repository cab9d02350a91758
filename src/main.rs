//! The daemon's entry.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Before anything else: every start of a worker passes here.
    if std::env::args_os().nth(1).is_some_and(|command| command == "exec") {
        return agentd::process::shim::run();
    }
    ExitCode::SUCCESS
}
