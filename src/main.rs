//! agentd: the daemon, and the shim that becomes a worker.
//!
//! `agentd` runs the daemon in the foreground; its home is `--home DIR` or `AGENTD_HOME`. `agentd exec` is the shim and
//! `agentd keep` the keeper, both started by the daemon only.

use std::process::ExitCode;

use agentd::home::Home;
use camino::Utf8PathBuf;

const USAGE: &str = "\
agentd: a process supervisor for AI agents (the daemon; agentctl is its command line)

usage: agentd [run] [--home DIR]
       agentd estimate          the drain-deadline estimator, in lines on stdin and stdout (docs/design/grace.md)
       agentd gate              the statistic of the gates, in lines of JSON likewise (docs/design/gates.md)

  --home DIR   keep state, sockets and logs below DIR (or set AGENTD_HOME)
  --version    print the version
  --help       print this

AGENTD_LOG sets what is logged to stderr: error, warn, info (default), debug, or tracing's filter syntax.";

fn main() -> ExitCode {
    // Before anything else: every start of a worker passes here.
    if std::env::args_os().nth(1).is_some_and(|command| command == "exec") {
        return agentd::process::shim::run();
    }
    if std::env::args_os().nth(1).is_some_and(|command| command == "keep") {
        return agentd::keeper::process::run();
    }
    if let Some(lines) = std::env::args_os().nth(1).and_then(|command| line_program(&command)) {
        return lines();
    }
    if std::env::args_os().nth(1).is_some_and(|command| command == "cut") {
        return agentd::releases::cut::run();
    }
    let home = match arguments(std::env::args().skip(1)) {
        Ok(Asked::Run(home)) => home,
        Ok(Asked::Print(text)) => {
            println!("{text}");
            return ExitCode::SUCCESS;
        }
        Err(why) => {
            eprintln!("agentd: {why}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    log_to_stderr();
    match agentd::daemon::run(Home::locate(home.as_deref())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut text = error.to_string();
            let mut cause = std::error::Error::source(&error);
            while let Some(error) = cause {
                text = format!("{text}: {error}");
                cause = error.source();
            }
            eprintln!("agentd: {text}");
            ExitCode::FAILURE
        }
    }
}

/// The programs that answer lines on stdin; they need no home.
fn line_program(command: &std::ffi::OsStr) -> Option<fn() -> ExitCode> {
    match command.to_str()? {
        "estimate" => Some(agentd::lines::estimate::run),
        "gate" => Some(agentd::lines::gate::run),
        _ => None,
    }
}

enum Asked {
    Run(Option<Utf8PathBuf>),
    Print(String),
}

fn arguments(given: impl Iterator<Item = String>) -> Result<Asked, String> {
    let mut home = None;
    let mut given = given.peekable();
    given.next_if(|word| word == "run");
    while let Some(word) = given.next() {
        match word.as_str() {
            "--home" => {
                let folder = given.next().filter(|folder| !folder.is_empty());
                home = Some(folder.ok_or("--home needs a folder")?.into());
            }
            "--version" | "-V" => return Ok(Asked::Print(format!("agentd {}", env!("CARGO_PKG_VERSION")))),
            "--help" | "-h" => return Ok(Asked::Print(USAGE.to_owned())),
            other => return Err(format!("{other:?} is not understood")),
        }
    }
    Ok(Asked::Run(home))
}

fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("AGENTD_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        // What cannot be logged, on a full disk above all, must not end what it is about.
        .log_internal_errors(false)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .init();
}
