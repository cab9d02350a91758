//! `tasks`: those in flight, parked and recent; and what a person does with one.

use agentd_protocol::control::{
    EffectJudgement, TaskChange, TaskChangeParams, TaskState, TasksParams, TasksPruneParams, TasksUsageParams,
};
use agentd_protocol::{Timestamp, exit};

use super::Context;
use crate::args::{InState, Judgement, PruneArgs, TasksArgs, TasksCommand};
use crate::client::Client;
use crate::exit::Failure;
use crate::render;

/// Lists tasks, or does what was asked with one.
///
/// # Errors
/// When the daemon refuses or does not answer.
pub(crate) fn run(context: &Context, args: TasksArgs) -> Result<u8, Failure> {
    match args.change {
        None => list(context, args),
        Some(TasksCommand::Retry(retry)) => {
            let effect = retry.effect.map(|judgement| match judgement {
                Judgement::Redo => EffectJudgement::Redo,
                Judgement::Skip => EffectJudgement::Skip,
            });
            change(context, retry.task, TaskChange::Retry { effect })
        }
        Some(TasksCommand::Discard(discard)) => change(context, discard.task, TaskChange::Discard),
        Some(TasksCommand::Cancel(cancel)) => {
            change(context, cancel.task, TaskChange::Cancel { reason: cancel.reason })
        }
        Some(TasksCommand::Prune(args)) => prune(context, args),
        Some(TasksCommand::Usage) => usage(context),
    }
}

fn list(context: &Context, args: TasksArgs) -> Result<u8, Failure> {
    let state = |state: InState| match state {
        InState::Running => TaskState::Running,
        InState::Waiting => TaskState::Waiting,
        InState::Parked => TaskState::Parked,
        InState::Ended => TaskState::Ended,
    };
    let whole = args.task.is_some();
    let params = TasksParams {
        names: args.names.into_iter().chain(args.app).collect(),
        kind: args.kind,
        session: args.session,
        task: args.task,
        states: args.state.into_iter().map(state).collect(),
        limit: args.limit,
    };
    let tasks = Client::connect(&context.home)?.call(params)?;
    if context.json {
        render::json(&tasks)?;
    } else if let (true, Some(task)) = (whole, tasks.tasks.first()) {
        render::print(&render::task::page(task, Timestamp::now(), render::width()))?;
    } else {
        render::print(&render::tasks::table(&tasks, Timestamp::now(), render::width()))?;
    }
    Ok(exit::DONE)
}

fn change(context: &Context, task: String, change: TaskChange) -> Result<u8, Failure> {
    let changed = Client::connect(&context.home)?.call(TaskChangeParams { task, change })?;
    if context.json {
        render::json(&changed)?;
    } else {
        render::print(&render::tasks::changed(&changed.task))?;
    }
    Ok(exit::DONE)
}

fn prune(context: &Context, args: PruneArgs) -> Result<u8, Failure> {
    let older_than = args.older_than.unwrap_or_default();
    let older_than_ms = u64::try_from(older_than.as_millis()).unwrap_or(u64::MAX);
    let usage = Client::connect(&context.home)?.call(TasksPruneParams { names: args.names, older_than_ms })?;
    if context.json {
        render::json(&usage)?;
    } else {
        let let_go = format!(
            "let go of {} ended tasks and of {} of payload files\n",
            usage.pruned,
            render::bytes_time::bytes(usage.freed_bytes)
        );
        render::print(&(let_go + &render::tasks::usage(&usage, render::width())))?;
    }
    Ok(exit::DONE)
}

fn usage(context: &Context) -> Result<u8, Failure> {
    let usage = Client::connect(&context.home)?.call(TasksUsageParams {})?;
    if context.json {
        render::json(&usage)?;
    } else {
        render::print(&render::tasks::usage(&usage, render::width()))?;
    }
    Ok(exit::DONE)
}
