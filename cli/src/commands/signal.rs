//! `signal`: a signal for every worker of an app.

use std::fmt::Write as _;

use agentd_protocol::control::SignalParams;
use agentd_protocol::exit;

use super::Context;
use crate::args::SignalArgs;
use crate::client::Client;
use crate::exit::Failure;
use crate::render;

/// Sends the signal, and says who received it.
///
/// # Errors
/// When the daemon refuses or does not answer.
pub(crate) fn run(context: &Context, args: SignalArgs) -> Result<u8, Failure> {
    let params = SignalParams { names: vec![args.name], signal: args.signal };
    let sent = Client::connect(&context.home)?.call(params)?;
    if context.json {
        render::json(&sent)?;
        return Ok(exit::DONE);
    }
    let mut text = String::new();
    for worker in &sent.workers {
        let _ = writeln!(text, "{} sent to {} (pid {})", sent.signal, worker.id, worker.pid);
    }
    if text.is_empty() {
        let _ = writeln!(text, "no worker runs that could receive {}", sent.signal);
    }
    render::print(&text)?;
    Ok(exit::DONE)
}
