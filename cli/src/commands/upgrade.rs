//! `upgrade`, and what is said to a deployment that runs: `promote`, `pause`, `resume`, `abort`.

use agentd_protocol::control::{
    AbortParams, Command, PauseParams, PromoteParams, Request, ResumeParams, Steered, UpgradeParams,
};
use agentd_protocol::exit;

use super::{Context, wait};
use crate::args::{SteerArgs, UpgradeArgs};
use crate::client::Client;
use crate::exit::Failure;
use crate::render::{self, apps};

/// Puts another release in an app's place.
///
/// # Errors
/// As [`wait::change`].
pub(crate) fn run(context: &Context, args: UpgradeArgs) -> Result<u8, Failure> {
    let params = UpgradeParams {
        name: args.name,
        from: None,
        sha256: None,
        strategy: args.strategy.map(Into::into),
        dry_run: false,
        wait: !args.wait.no_wait,
    };
    wait::change(context, vec![Request::Upgrade(params)], args.wait)
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
