//! `./demo`: two apps under load and one with a long task, three reloads, two releases, one `kill -9`, and a table of what
//! came of it.
//!
//! Owns the story and nothing else: [`instance`] is the daemon with its apps, [`load`] the clients, [`report`] what is
//! printed. It ends with 0 when reloads and releases lost nothing, with 1 when something was lost or went wrong, and leaves no
//! process and no file behind, also on Ctrl-C.
#![forbid(unsafe_code)]

mod failure;
mod instance;
mod load;
mod report;

use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use agentd_protocol::control::OperationState;
use nix::sys::signal::{SigSet, Signal};

use failure::DemoError;
use instance::Instance;
use load::{Load, Work};
use report::{Report, Scene};

/// How many times everything is reloaded.
const RELOADS: u32 = 3;

/// What is shipped of `etc/releases`, the version it has, and how that ends.
const RELEASES: [(&str, &str, OperationState); 2] =
    [("good", "1.1.0", OperationState::Done), ("bad", "1.2.0", OperationState::RolledBack)];

/// What a long task and a stream take.
const TASK: Duration = Duration::from_secs(3);

/// How long the short requests go on after the killed worker's successor serves.
const AFTERMATH: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    // Blocked before any thread is made: one thread waits for them, and cleans up.
    let endings = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]);
    let outcome = endings
        .thread_block()
        .map_err(DemoError::Signals)
        .and_then(|()| Instance::new())
        .and_then(|instance| play(&Arc::new(instance), endings));
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("\ndemo: failed to {}", failure::with_causes(&error));
            ExitCode::FAILURE
        }
    }
}

fn play(instance: &Arc<Instance>, endings: SigSet) -> Result<bool, DemoError> {
    let interrupted = Arc::clone(instance);
    thread::spawn(move || {
        if endings.wait().is_ok() {
            eprintln!("\ndemo: interrupted; ending the daemon and its workers");
            drop(interrupted.end());
            std::process::exit(130);
        }
    });
    let told = tell(instance);
    // Also after a failure: nothing stays behind.
    let ended = instance.end();
    let lost_nothing = told?;
    ended?;
    Ok(lost_nothing)
}

fn tell(instance: &Instance) -> Result<bool, DemoError> {
    let scene = Scene::open(instance.apps());
    instance.start()?;
    scene.line("agentctl start", "both apps serve, a third writes a report");

    let mut report = Report::new(instance.apps());
    let load = Load::begin(instance.apps(), TASK);
    load.await_all_kinds();
    scene.line("load begins", "short requests, long tasks, streams");
    for _ in 0..RELOADS {
        let reloads = scene.during("agentctl reload all", || load.progress(), || instance.reload_all())?;
        scene.line("agentctl reload all", &report.reloaded(reloads));
    }
    for (release, version, ends) in RELEASES {
        let shipped = scene.during("agentctl upgrade", || load.progress(), || instance.ship(release))?;
        scene.line(&format!("agentctl upgrade {version}"), &report.shipped(version, ends, shipped));
    }
    report.under_changes(scene.during("load ends", || load.progress(), || load.end()));
    let written =
        scene.during("agentctl tasks", || "the report is being finished".to_owned(), || instance.await_written())?;
    scene.line("agentctl tasks", &report.written(written));

    let load = Load::of(instance.apps(), &[Work::Request], TASK);
    load.await_all_kinds();
    let killed = instance.kill_one_worker()?;
    scene.line(&format!("kill -9 {}", killed.pid), &killed.to_string());
    let until = Instant::now() + AFTERMATH;
    load.await_requests_until(until);
    report.under_kill(load.end());

    report.print(&scene);
    Ok(report.nothing_lost())
}
