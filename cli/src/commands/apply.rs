//! `apply`: shows how a configuration differs from what runs, then makes it so.
//!
//! Asked twice: first what would be done, which is shown, then to do it. Where the two differ, because somebody wrote
//! the file in between, what was done is shown as well. Nothing to do ends it after the first.

use agentd_protocol::control::{Applied, ApplyParams, OperationState, Request, Work};

use super::start::{environment, working_directory};
use super::{Context, wait};
use crate::args::{ApplyArgs, WaitArgs};
use crate::client::{self, ClientError};
use crate::exit::Failure;
use crate::launch;
use crate::render::{self, difference, operation};

/// Applies a configuration.
///
/// # Errors
/// As [`wait::answers`]; a configuration that is refused is [`ClientError::Refused`].
pub(crate) fn run(context: &Context, args: ApplyArgs) -> Result<u8, Failure> {
    let path = working_directory()?.join(&args.path);
    let env = environment(&[])?;
    if !args.dry_run {
        launch::ensure(&context.home)?;
    }
    let params = ApplyParams { path: path.into_string(), env, dry_run: true, prune: args.prune, wait: false };
    let plan = ask(context, params.clone(), WaitArgs { no_wait: true, timeout: None })?;
    let idle = plan.apps.iter().all(|app| matches!(app.work, Work::Nothing | Work::Left));
    if !context.json {
        render::print(&difference::page(&plan.apps, render::width()))?;
    }
    if args.dry_run || idle {
        if context.json {
            render::json(&plan)?;
        }
        return Ok(plan.exit_code());
    }
    let done = ask(context, ApplyParams { dry_run: false, wait: !args.wait.no_wait, ..params }, args.wait)?;
    if context.json {
        render::json(&done)?;
        return Ok(done.exit_code());
    }
    if done.apps != plan.apps {
        render::note("the configuration was written anew meanwhile; this is what was applied:");
        render::print(&difference::page(&done.apps, render::width()))?;
    }
    show(&done)?;
    Ok(done.exit_code())
}

fn ask(context: &Context, params: ApplyParams, wait: WaitArgs) -> Result<Applied, Failure> {
    let mut answers = wait::answers(context, vec![Request::Apply(params)], wait)?;
    match answers.pop() {
        Some(Ok(value)) => Ok(client::read("apply", value)?),
        Some(Err(error)) => Err(ClientError::Refused(error).into()),
        None => Err(ClientError::Silent.into()),
    }
}

/// What was done goes to stdout, what was not to stderr.
fn show(done: &Applied) -> Result<(), Failure> {
    let mut text = String::new();
    let good = |state: OperationState| state == OperationState::Done;
    text.extend(done.results.iter().filter(|result| good(result.state)).map(operation::result));
    if done.results.is_empty() {
        text.extend(done.operations.iter().map(operation::accepted));
    }
    render::print(&text)?;
    let (mut back, mut other) = (Vec::new(), 0);
    for result in done.results.iter().filter(|result| !good(result.state)) {
        render::note(operation::result(result).trim_end());
        if result.state == OperationState::RolledBack {
            back.push(result.app.as_str());
        } else {
            other += 1;
        }
    }
    if !back.is_empty() {
        let (is, rest) = if back.len() == 1 { ("is", "it") } else { ("are", "them") };
        let stays = if back.len() + other < done.results.len() { "; what else was applied stays" } else { "" };
        render::help(&format!("{} {is} as before{stays}; applying again tries {rest} again", back.join(", ")));
    }
    Ok(())
}
