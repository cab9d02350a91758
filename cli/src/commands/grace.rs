//! `grace`: what an app's tasks take, how long a drain may take now, and why.

use agentd_protocol::control::GraceParams;
use agentd_protocol::exit;

use super::Context;
use crate::args::GraceArgs;
use crate::client::Client;
use crate::exit::Failure;
use crate::render;

/// Draws the survival curve with the present tasks on it.
///
/// # Errors
/// When the daemon refuses or does not answer.
pub(crate) fn run(context: &Context, args: GraceArgs) -> Result<u8, Failure> {
    let grace = Client::connect(&context.home)?.call(GraceParams { name: args.name })?;
    if context.json {
        render::json(&grace)?;
    } else {
        render::print(&render::grace::page(&grace, args.kind.as_deref(), render::width()))?;
    }
    Ok(exit::DONE)
}
