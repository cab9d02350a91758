//! `deployments` and `deployment`: what was deployed, and how it went.

use agentd_protocol::control::{DeploymentParams, DeploymentsParams};
use agentd_protocol::{Timestamp, exit};

use super::Context;
use crate::args::{DeploymentArgs, DeploymentsArgs};
use crate::client::Client;
use crate::exit::Failure;
use crate::render;

/// Lists deployments.
///
/// # Errors
/// When the daemon refuses or does not answer.
pub(crate) fn list(context: &Context, args: DeploymentsArgs) -> Result<u8, Failure> {
    let list = Client::connect(&context.home)?.call(DeploymentsParams { name: args.name })?;
    if context.json {
        render::json(&list)?;
    } else {
        render::print(&render::deployment::table(&list.deployments, Timestamp::now(), render::width()))?;
    }
    Ok(exit::DONE)
}

/// Shows one deployment.
///
/// # Errors
/// When the daemon refuses or does not answer, or the page cannot be written.
pub(crate) fn show(context: &Context, args: &DeploymentArgs) -> Result<u8, Failure> {
    let report = Client::connect(&context.home)?.call(DeploymentParams { id: args.id })?;
    if let Some(path) = &args.html {
        let page = render::page::page(&report);
        std::fs::write(path, page).map_err(|error| Failure::Write { path: path.clone(), source: error })?;
        render::print(&format!("{path}\n"))?;
    } else if context.json {
        render::json(&report)?;
    } else {
        render::print(&render::deployment::report(&report, Timestamp::now(), render::width()))?;
    }
    Ok(exit::DONE)
}
