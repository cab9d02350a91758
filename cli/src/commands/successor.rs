//! `daemon upgrade`.
//!
//! The daemon refuses, which is an answer; or the connection ends, which is the upgrade. Who connects then waits in the
//! socket's queue until the new program serves it, and that program tells what it took over.

use std::time::{Duration, Instant};

use agentd_protocol::control::{DaemonUpgradeParams, DaemonView, SupervisorEnd};
use agentd_protocol::exit;
use camino::Utf8PathBuf;
use serde_json::json;

use super::Context;
use super::daemon::view;
use crate::args::SuccessorArgs;
use crate::client::{Client, ClientError, Heard};
use crate::exit::Failure;
use crate::render;
use crate::render::operation::plural;
use crate::render::supervisors::gap;

/// How long the daemon may take to try the new binary, and to finish what it has in hand.
const REFUSED_WITHIN: Duration = Duration::from_secs(60);

/// Runs the command.
///
/// # Errors
/// When the daemon refuses, or no daemon answers any more.
pub(crate) fn run(context: &Context, args: SuccessorArgs) -> Result<u8, Failure> {
    let before = view(context)?;
    let mut client = Client::connect(&context.home)?;
    let binary = args.binary.map(|path| {
        Utf8PathBuf::from(
            std::path::absolute(&path)
                .map_or_else(|_| path.to_string_lossy().into_owned(), |path| path.to_string_lossy().into_owned()),
        )
    });
    client.send(DaemonUpgradeParams { binary: binary.map(Into::into) })?;
    let until = Instant::now() + REFUSED_WITHIN;
    loop {
        match client.next(Some(until)) {
            Ok(Heard::Answer(_, Err(error))) => return Err(ClientError::Refused(error).into()),
            Ok(Heard::Elapsed) => return Err(ClientError::Silent.into()),
            Ok(Heard::Answer(_, Ok(_)) | Heard::Notice(_) | Heard::Nothing | Heard::Interrupted) => {}
            Err(ClientError::Closed | ClientError::Line(_)) => break,
            Err(error) => return Err(error.into()),
        }
    }
    drop(client);
    told(context, &before, &view(context)?)
}

fn told(context: &Context, before: &DaemonView, now: &DaemonView) -> Result<u8, Failure> {
    let present = now.supervisors.last();
    let ends = now.supervisors.iter().rev().nth(1).and_then(|last| last.end);
    let in_place = ends == Some(SupervisorEnd::Upgraded) && now.pid == before.pid;
    let adopted = present.map_or(0, |supervisor| supervisor.adopted);
    let unwatched_us = present.and_then(|supervisor| supervisor.unwatched_us);
    if context.json {
        render::json(&json!({
            "from": before.version,
            "to": now.version,
            "pid": now.pid,
            "in_place": in_place,
            "adopted": adopted,
            "unwatched_us": unwatched_us,
        }))?;
    } else {
        let took = unwatched_us.map_or_else(String::new, |us| format!(", {} unwatched", gap(us)));
        let process = if in_place { format!("still process {}", now.pid) } else { format!("now process {}", now.pid) };
        render::print(&format!(
            "upgraded {} -> {}: {process}, {adopted} {} kept{took}\n",
            before.version,
            now.version,
            plural(adopted.into(), "worker"),
        ))?;
    }
    Ok(if in_place { exit::DONE } else { exit::FAILED })
}
