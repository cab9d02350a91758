//! `daemon start|stop|status|run`.

use agentd_protocol::control::{DaemonStatusParams, DaemonStop, DaemonStopParams, DaemonView, Request};
use agentd_protocol::{Timestamp, exit};
use serde_json::json;

use super::{Context, successor, wait};
use crate::args::{DaemonCommand, DaemonStopArgs, RunArgs};
use crate::client::{self, Client, ClientError};
use crate::exit::Failure;
use crate::home::HomeError;
use crate::render::bytes_time::{between, bytes, span};
use crate::render::operation::plural;
use crate::render::supervisors;
use crate::systemctl::{Job, Scope};
use crate::{launch, render};

/// Runs the command.
///
/// # Errors
/// When the daemon cannot be started, reached or stopped.
pub(crate) fn run(context: &Context, command: DaemonCommand) -> Result<u8, Failure> {
    match command {
        DaemonCommand::Start => start(context),
        DaemonCommand::Stop(args) => stop(context, &args),
        DaemonCommand::Status => status(context),
        DaemonCommand::Upgrade(args) => successor::run(context, args),
        DaemonCommand::Run(RunArgs { detach, args }) => Err(launch::become_daemon(&context.home, detach, &args).into()),
    }
}

fn start(context: &Context) -> Result<u8, Failure> {
    let started = launch::ensure(&context.home)?;
    let view = view(context)?;
    if context.json {
        render::json(&json!({ "started": started, "daemon": view }))?;
    } else if started {
        render::print(&format!("daemon started as {}\n", view.pid))?;
    } else {
        render::print(&format!("the daemon runs already, as {}\n", view.pid))?;
    }
    Ok(exit::DONE)
}

fn stop(context: &Context, args: &DaemonStopArgs) -> Result<u8, Failure> {
    if let Some(unit) = &args.unless_restarting
        && is_restarting(unit, if args.user { Scope::User } else { Scope::System })
    {
        render::print(&format!("{unit} is restarted: the workers stay, and the next daemon takes them over\n"))?;
        return Ok(exit::DONE);
    }
    let request = Request::DaemonStop(DaemonStopParams { wait: !args.wait.no_wait });
    let answer = match wait::answers(context, vec![request], args.wait) {
        Ok(mut answers) => answers.remove(0),
        // Both are what was asked for.
        Err(Failure::Client(ClientError::Home(HomeError::NoDaemon { .. }))) => return stopped(context, None),
        Err(failure) => return Err(failure),
    };
    let reply = client::read("daemon.stop", answer.map_err(ClientError::Refused)?)?;
    stopped(context, Some(reply))
}

/// Whether systemd is about to start `unit` again. Where it does not tell, no: a stop that leaves workers behind is worse
/// than a restart that drains them.
fn is_restarting(unit: &str, scope: Scope) -> bool {
    scope.job(unit).map_or_else(
        |error| {
            render::note(&format!(
                "every worker is drained, since systemd does not tell whether this is a restart: {error}"
            ));
            false
        },
        |job| job == Job::Restart,
    )
}

fn stopped(context: &Context, reply: Option<DaemonStop>) -> Result<u8, Failure> {
    if context.json {
        render::json(&reply.unwrap_or(DaemonStop { workers: 0, cut: Some(0) }))?;
        return Ok(exit::DONE);
    }
    let text = reply.map_or_else(
        || "no daemon runs".to_owned(),
        |DaemonStop { workers, cut }| {
            let workers = format!("{workers} {}", plural(workers.into(), "worker"));
            match cut {
                None => format!("the daemon stops, and {workers} with it"),
                Some(0) => format!("daemon stopped, and {workers} with it"),
                Some(cut) => {
                    format!("daemon stopped, and {workers} with it; {cut} {} cut", plural(cut, "connection"))
                }
            }
        },
    );
    render::print(&format!("{text}\n"))?;
    Ok(exit::DONE)
}

fn status(context: &Context) -> Result<u8, Failure> {
    let view = view(context)?;
    if context.json {
        render::json(&view)?;
    } else {
        render::print(&page(&view))?;
    }
    Ok(exit::DONE)
}

pub(super) fn view(context: &Context) -> Result<DaemonView, Failure> {
    Ok(Client::connect(&context.home)?.call(DaemonStatusParams {})?)
}

fn page(view: &DaemonView) -> String {
    let up = span(between(view.started_at, Timestamp::now()));
    let mut rows = vec![
        ("daemon", format!("running as {} for {up}", view.pid)),
        ("version", format!("{} (control protocol {})", view.version, view.protocol)),
        ("instance", view.instance.clone()),
        ("apps", view.apps.to_string()),
        ("workers", view.workers.to_string()),
        ("memory", view.memory_bytes.map_or_else(|| "-".to_owned(), bytes)),
        ("events", view.seq.to_string()),
        ("state", view.state_dir.clone()),
        ("sockets", view.runtime_dir.clone()),
        ("logs", view.log_dir.clone()),
    ];
    rows.extend(view.notes.iter().map(|note| ("note", note.clone())));
    let page: String = rows.iter().map(|(name, value)| format!("{name:8}  {value}\n")).collect();
    if view.supervisors.is_empty() { page } else { format!("{page}\n{}", supervisors::table(&view.supervisors)) }
}
