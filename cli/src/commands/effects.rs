//! `effects`: what tasks did to the outside, first what nobody knows the end of.

use agentd_protocol::control::EffectsParams;
use agentd_protocol::{Timestamp, exit};

use super::Context;
use crate::args::EffectsArgs;
use crate::client::Client;
use crate::exit::Failure;
use crate::render;

/// Lists the effects.
///
/// # Errors
/// When the daemon refuses or does not answer.
pub(crate) fn run(context: &Context, args: EffectsArgs) -> Result<u8, Failure> {
    let EffectsArgs { names, task, release, limit } = args;
    let effects = Client::connect(&context.home)?.call(EffectsParams { names, task, release, limit })?;
    if context.json {
        render::json(&effects)?;
    } else {
        render::print(&render::effects::table(&effects, Timestamp::now(), render::width()))?;
    }
    Ok(exit::DONE)
}
