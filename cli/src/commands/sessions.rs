//! `sessions`: tasks that belong together.

use agentd_protocol::control::SessionsParams;
use agentd_protocol::{Timestamp, exit};

use super::Context;
use crate::args::SessionsArgs;
use crate::client::Client;
use crate::exit::Failure;
use crate::render;

/// Lists the sessions of an app.
///
/// # Errors
/// When the daemon refuses or does not answer.
pub(crate) fn run(context: &Context, args: SessionsArgs) -> Result<u8, Failure> {
    let SessionsArgs { name, limit } = args;
    let sessions = Client::connect(&context.home)?.call(SessionsParams { name, limit })?;
    if context.json {
        render::json(&sessions)?;
    } else {
        render::print(&render::sessions::table(&sessions, Timestamp::now(), render::width()))?;
    }
    Ok(exit::DONE)
}
