//! agentd: the daemon, and the shim that becomes a worker.
//!
//! `agentd` runs the daemon in the foreground; its home is `--home DIR` or `AGENTD_HOME`. `agentd exec` is the shim,
//! `agentd zygote` the process that workers are copies of, and `agentd keep` the keeper: all started by the daemon only.

use std::process::ExitCode;

use agentd::causes::in_full;
use agentd::daemon::DaemonError;
use agentd::diary::Diary;
use agentd::dispatcher::Departure;
use agentd::handover::{self, Handover};
use agentd::home::Home;
use agentd::process::zygote;
use camino::Utf8PathBuf;
use nix::sys::signal::Signal;

/// glibc's allocator keeps up to seven freed pieces of each of 64 sizes for each thread, in case they are wanted again, and gives
/// them to no other size: a quarter of a megabyte that fills up over the days (docs/adr/0017).
#[global_allocator]
static MEMORY: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

const USAGE: &str = "\
agentd: a process supervisor for AI agents (the daemon; agentctl is its command line)

usage: agentd [run] [--home DIR] [--check-state]
       agentd estimate          the drain-deadline estimator, in lines on stdin and stdout (docs/design/grace.md)
       agentd gate              the statistic of the gates, in lines of JSON likewise (docs/design/gates.md)

  --home DIR     keep state, sockets and logs below DIR (or set AGENTD_HOME)
  --check-state  say whether this binary can go on from the state there, and change nothing
  --version      print the version
  --help         print this

AGENTD_LOG sets what is logged to stderr: error, warn, info (default), debug, or tracing's filter syntax.";

fn main() -> ExitCode {
    // Before anything else: every start of a worker passes here.
    if std::env::args_os().nth(1).is_some_and(|command| command == "exec") {
        return agentd::process::shim::run();
    }
    if std::env::args_os().nth(1).is_some_and(|command| command == zygote::COMMAND) {
        return zygote::run();
    }
    if std::env::args_os().nth(1).is_some_and(|command| command == agentd::keeper::COMMAND) {
        return agentd::keeper::process::run();
    }
    if let Some(lines) = std::env::args_os().nth(1).and_then(|command| line_program(&command)) {
        return lines();
    }
    if std::env::args_os().nth(1).is_some_and(|command| command == "cut") {
        return agentd::releases::cut::run();
    }
    let (home, handed) = match arguments(std::env::args().skip(1)) {
        Ok(Asked::Run { home, handed }) => (home, handed),
        Ok(Asked::Check(home)) => return check(&Home::locate(home.as_deref())),
        Ok(Asked::Print(text)) => {
            println!("{text}");
            return ExitCode::SUCCESS;
        }
        Err(why) => {
            eprintln!("agentd: {why}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let home = Home::locate(home.as_deref());
    log_to_stderr(&home);
    match agentd::daemon::run(home, handed) {
        // A daemon that becomes another program does not come here.
        Ok(Departure::Stopped | Departure::Upgrade(..)) => ExitCode::SUCCESS,
        Ok(Departure::Left(signal)) => end_by(signal),
        Err(error) => fail(&error),
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

fn fail(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("agentd: {}", in_full(error));
    ExitCode::FAILURE
}

/// For the daemon that runs, before this binary may take its place.
fn check(home: &Home) -> ExitCode {
    let checked = agentd::daemon::check_state(home);
    match checked.map(|checked| serde_json::to_string(&checked)) {
        Ok(Ok(line)) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Ok(Err(error)) => fail(&error),
        Err(error) => {
            let code = fail(&error);
            if let DaemonError::Store(store) = &error
                && store.is_damage()
            {
                eprintln!(
                    "a start keeps the damaged file aside and goes on from what is readable of it and from what the \
                     living processes tell; none of them is stopped"
                );
            }
            code
        }
    }
}

/// Ends as one who has no handler for `signal` would: whoever waits for us (a shell, systemd) can tell a daemon that left
/// its workers from one that was asked to stop everything.
fn end_by(signal: Signal) -> ExitCode {
    let number = signal as i32;
    // Both of the signals that we leave by end the process here.
    let _ = signal_hook::low_level::emulate_default_handler(number);
    ExitCode::from(u8::try_from(128 + number).unwrap_or(u8::MAX))
}

enum Asked {
    Run {
        home: Option<Utf8PathBuf>,
        /// From the program before this one, in the same process.
        handed: Option<Handover>,
    },
    Check(Option<Utf8PathBuf>),
    Print(String),
}

fn arguments(given: impl Iterator<Item = String>) -> Result<Asked, String> {
    let (mut home, mut handed, mut check) = (None, None, false);
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
            handover::CHECK_FLAG => check = true,
            handover::FLAG => {
                let words = given.next().unwrap_or_default();
                handed = Some(Handover::take(&words).map_err(|error| error.to_string())?);
            }
            other => return Err(format!("{other:?} is not understood")),
        }
    }
    Ok(if check { Asked::Check(home) } else { Asked::Run { home, handed } })
}

fn log_to_stderr(home: &Home) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("AGENTD_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let diary = Diary::of(home);
    let needs_times = diary.needs_times();
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(diary)
        .with_target(false)
        // What cannot be logged, on a full disk above all, must not end what it is about.
        .log_internal_errors(false)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()));
    if needs_times { log.init() } else { log.without_time().init() }
}
