//! `releases`: the versions of an app that are there.

use agentd_protocol::control::ReleasesParams;
use agentd_protocol::{Timestamp, exit};

use super::Context;
use crate::args::ReleasesArgs;
use crate::client::Client;
use crate::exit::Failure;
use crate::render;

/// Lists the releases of an app.
///
/// # Errors
/// When the daemon refuses or does not answer.
pub(crate) fn run(context: &Context, args: ReleasesArgs) -> Result<u8, Failure> {
    let releases = Client::connect(&context.home)?.call(ReleasesParams { name: args.name })?;
    if context.json {
        render::json(&releases)?;
    } else {
        render::print(&render::releases::table(&releases, Timestamp::now(), render::width()))?;
    }
    Ok(exit::DONE)
}
