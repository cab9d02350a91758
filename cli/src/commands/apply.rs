//! `apply`: shows how a configuration differs from what runs, then makes it so.
//!
//! Asked twice: first what would be done, which is shown, then to do it. Where the two differ, because somebody wrote
//! the file in between, what was done is shown as well. Nothing to do ends it after the first. What `--prune` deletes goes
//! last, in a third request, and only when all else came to be: it may be what the new apps were to take the place of.

use agentd_protocol::control::{AppDifference, Applied, ApplyParams, OperationState, Request, Work};
use agentd_protocol::exit;

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
    let params = ApplyParams { dry_run: false, wait: !args.wait.no_wait, ..params };
    let done = if params.wait && is_gone_and_more(&plan) {
        last_prune(context, params, args.wait)?
    } else {
        ask(context, params, args.wait)?
    };
    if context.json {
        render::json(&done)?;
        return Ok(done.exit_code());
    }
    let stays: Vec<&str> =
        plan.apps.iter().filter(|app| app.work == Work::Gone && kept(app, &done)).map(|app| app.app.as_str()).collect();
    if !stays.is_empty() {
        return stayed(&done, &stays);
    }
    if done.apps != plan.apps {
        render::note("the configuration was written anew meanwhile; this is what was applied:");
        render::print(&difference::page(&done.apps, render::width()))?;
    }
    show(&done)?;
    Ok(done.exit_code())
}

/// Whether apps are to go and something else is to be done.
fn is_gone_and_more(plan: &Applied) -> bool {
    let does = |app: &AppDifference| !matches!(app.work, Work::Nothing | Work::Left | Work::Gone);
    plan.apps.iter().any(|app| app.work == Work::Gone) && plan.apps.iter().any(does)
}

/// Does all else, and then, if that came to be, deletes what is to go.
fn last_prune(context: &Context, params: ApplyParams, wait: WaitArgs) -> Result<Applied, Failure> {
    let mut done = ask(context, ApplyParams { prune: false, ..params.clone() }, wait)?;
    if done.exit_code() != exit::DONE {
        return Ok(done);
    }
    let pruned = ask(context, params, wait)?;
    done.apps.retain(|app| app.work != Work::Left);
    done.apps.extend(pruned.apps.into_iter().filter(|app| app.work != Work::Nothing));
    done.operations.extend(pruned.operations);
    done.results.extend(pruned.results);
    Ok(done)
}

/// Whether an app that was to go was left.
fn kept(app: &AppDifference, done: &Applied) -> bool {
    done.apps.iter().any(|other| other.app == app.app && other.work == Work::Left)
}

/// Not all came to be, so that nothing was deleted.
fn stayed(done: &Applied, stays: &[&str]) -> Result<u8, Failure> {
    show(done)?;
    let verb = if stays.len() == 1 { "was" } else { "were" };
    render::help(&format!("{} {verb} not deleted, because not all else came to be", stays.join(", ")));
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
