//! `upgrade`, and what is said to a deployment that runs: `promote`, `pause`, `resume`, `abort`.

use agentd_protocol::control::{
    AbortParams, Command, PauseParams, PromoteParams, Request, ResumeParams, RollbackParams, Steered, UpgradeParams,
    UpgradePlan,
};
use agentd_protocol::exit;

use super::start::working_directory;
use super::{Context, wait};
use crate::args::{RollbackArgs, SteerArgs, UpgradeArgs, WaitArgs};
use crate::client::{self, Client, ClientError};
use crate::exit::Failure;
use crate::render::{self, apps};

/// Puts another release in an app's place.
///
/// # Errors
/// As [`wait::change`].
pub(crate) fn run(context: &Context, args: UpgradeArgs) -> Result<u8, Failure> {
    let from = args.from.map(|from| absolute(&from)).transpose()?;
    let params = UpgradeParams {
        name: args.name,
        from,
        sha256: args.sha256,
        strategy: args.strategy.map(Into::into),
        dry_run: args.dry_run,
        force: args.force,
        wait: !args.wait.no_wait && !args.dry_run,
    };
    if !args.dry_run {
        return wait::change(context, vec![Request::Upgrade(params)], args.wait);
    }
    // Looking at a source takes as long as reading it.
    let wait = WaitArgs { no_wait: false, ..args.wait };
    match wait::answers(context, vec![Request::Upgrade(params)], wait)?.pop() {
        Some(Ok(value)) => {
            let plan: UpgradePlan = client::read("upgrade", value)?;
            if context.json {
                render::json(&plan)?;
            } else {
                render::print(&render::plan::page(&plan, render::width()))?;
            }
            Ok(exit::DONE)
        }
        Some(Err(error)) => Err(ClientError::Refused(error).into()),
        None => Err(ClientError::Silent.into()),
    }
}

/// A source as it is told to the daemon, which has another working directory. What names nothing stays so: it is refused
/// there, and is not this folder.
fn absolute(from: &str) -> Result<String, Failure> {
    let here = working_directory()?;
    Ok(match from.strip_prefix("git:") {
        // What has a colon is a URL, or HOST:PATH.
        Some(repository) if repository.contains(':') => from.to_owned(),
        Some(repository) if repository.is_empty() || repository.starts_with('#') => from.to_owned(),
        Some(repository) => format!("git:{}", here.join(repository)),
        None if from.trim().is_empty() => from.to_owned(),
        None => here.join(from).into_string(),
    })
}

/// Puts a release back that served before.
///
/// # Errors
/// As [`wait::change`].
pub(crate) fn rollback(context: &Context, args: RollbackArgs) -> Result<u8, Failure> {
    let params = RollbackParams { name: args.name, to: args.to, wait: !args.wait.no_wait };
    wait::change(context, vec![Request::Rollback(params)], args.wait)
}

/// Lets a deployment take its next step now.
///
/// # Errors
/// When the daemon refuses or does not answer.
pub(crate) fn promote(context: &Context, args: SteerArgs) -> Result<u8, Failure> {
    steer(context, PromoteParams { name: args.name }, "promoted")
}

/// Lets a deployment stand where it is.
///
/// # Errors
/// When the daemon refuses or does not answer.
pub(crate) fn pause(context: &Context, args: SteerArgs) -> Result<u8, Failure> {
    steer(context, PauseParams { name: args.name }, "paused")
}

/// Lets a deployment go on.
///
/// # Errors
/// When the daemon refuses or does not answer.
pub(crate) fn resume(context: &Context, args: SteerArgs) -> Result<u8, Failure> {
    steer(context, ResumeParams { name: args.name }, "goes on")
}

/// Takes a deployment back.
///
/// # Errors
/// When the daemon refuses or does not answer.
pub(crate) fn abort(context: &Context, args: SteerArgs) -> Result<u8, Failure> {
    steer(context, AbortParams { name: args.name }, "goes back")
}

fn steer(context: &Context, params: impl Command<Reply = Steered>, did: &str) -> Result<u8, Failure> {
    let steered = Client::connect(&context.home)?.call(params)?;
    if context.json {
        render::json(&steered)?;
        return Ok(exit::DONE);
    }
    let mut text = match steered.deployment {
        Some(id) => format!("{}: deployment {id} {did}\n", steered.app),
        None => format!("{}: nothing to do, it is so already\n", steered.app),
    };
    if let Some(deployment) = &steered.view.deployment {
        text.push_str(&format!("  {}\n", apps::deployment(deployment)));
    }
    render::print(&text)?;
    Ok(exit::DONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_that_names_nothing_is_not_the_folder_that_we_are_in() {
        for nothing in ["", " ", "git:", "git:#main"] {
            assert_eq!(absolute(nothing).expect("there is a folder"), nothing);
        }
        assert!(absolute("search").expect("there is a folder").ends_with("/search"));
    }
}
