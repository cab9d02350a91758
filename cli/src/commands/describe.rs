//! `describe`: everything about one app.

use agentd_protocol::control::DescribeParams;
use agentd_protocol::{Timestamp, exit};

use super::Context;
use crate::args::DescribeArgs;
use crate::client::Client;
use crate::exit::Failure;
use crate::render;

/// Shows the app.
///
/// # Errors
/// When the daemon does not know it, or does not answer.
pub(crate) fn run(context: &Context, args: DescribeArgs) -> Result<u8, Failure> {
    let details = Client::connect(&context.home)?.call(DescribeParams { name: args.name })?;
    if context.json {
        render::json(&details)?;
    } else {
        render::print(&render::describe::page(&details, Timestamp::now(), render::width()))?;
    }
    Ok(exit::DONE)
}
