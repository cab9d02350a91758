//! What may be typed about tasks, effects, sessions and grace.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::duration;

/// `tasks [NAME...]`, `tasks retry|discard|cancel ID`, `tasks prune`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct TasksArgs {
    /// What to do with one; a list without it.
    #[command(subcommand)]
    pub(crate) change: Option<TasksCommand>,
    /// Apps; all when none is named
    #[arg(value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// Only of this app, whatever it is called
    #[arg(long, value_name = "NAME")]
    pub(crate) app: Vec<String>,
    /// Only of this kind
    #[arg(long)]
    pub(crate) kind: Option<String>,
    /// Only of this session
    #[arg(long)]
    pub(crate) session: Option<String>,
    /// Only this one, with all that is kept of it: input, checkpoints, effects, the workers that had it and how they ended
    #[arg(long, value_name = "ID")]
    pub(crate) task: Option<String>,
    /// Only in this state
    #[arg(long, value_name = "STATE")]
    pub(crate) state: Vec<InState>,
    /// At most so many
    #[arg(short = 'n', long, value_name = "N", default_value_t = 100)]
    pub(crate) limit: u32,
}

/// A state to look for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum InState {
    /// A worker has it
    Running,
    /// It goes on as soon as a worker takes it
    Waiting,
    /// It waits for a person
    Parked,
    /// It is over
    Ended,
}

/// What is done with tasks.
#[derive(Debug, Subcommand)]
pub(crate) enum TasksCommand {
    /// Let a parked task run again
    Retry(RetryArgs),
    /// Give up a task that waits or is parked
    Discard(TaskArgs),
    /// Tell a running task to end
    Cancel(CancelArgs),
    /// Let go of tasks that are over, and of payload files that nothing names
    Prune(PruneArgs),
    /// Show what is kept of tasks, and how large it is
    Usage,
}

/// `tasks discard ID`.
#[derive(Debug, Args)]
pub(crate) struct TaskArgs {
    /// The task
    #[arg(value_name = "ID")]
    pub(crate) task: String,
}

/// `tasks retry ID`.
#[derive(Debug, Args)]
pub(crate) struct RetryArgs {
    /// The task
    #[arg(value_name = "ID")]
    pub(crate) task: String,
    /// What became of the effect that it is parked over: do it again, or leave it
    #[arg(long, value_name = "WHAT")]
    pub(crate) effect: Option<Judgement>,
}

/// What a person says of an effect that nobody knows the end of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Judgement {
    /// It did not happen, or may happen twice: do it again
    Redo,
    /// It happened, or must not happen: leave it
    Skip,
}

/// `tasks cancel ID`.
#[derive(Debug, Args)]
pub(crate) struct CancelArgs {
    /// The task
    #[arg(value_name = "ID")]
    pub(crate) task: String,
    /// Who or why, for the worker
    #[arg(long)]
    pub(crate) reason: Option<String>,
}

/// `tasks prune [NAME...]`.
#[derive(Debug, Args)]
pub(crate) struct PruneArgs {
    /// Apps; all when none is named
    #[arg(value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// Only those that ended so long ago (7d is 168h)
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) older_than: Option<Duration>,
}

/// `effects [NAME...]`.
#[derive(Debug, Args)]
pub(crate) struct EffectsArgs {
    /// Apps; all when none is named
    #[arg(value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// Only of this task
    #[arg(long, value_name = "ID")]
    pub(crate) task: Option<String>,
    /// Only what this release did
    #[arg(long)]
    pub(crate) release: Option<String>,
    /// At most so many
    #[arg(short = 'n', long, value_name = "N", default_value_t = 100)]
    pub(crate) limit: u32,
}

/// `sessions NAME`.
#[derive(Debug, Args)]
pub(crate) struct SessionsArgs {
    /// The app
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// At most so many
    #[arg(short = 'n', long, value_name = "N", default_value_t = 100)]
    pub(crate) limit: u32,
}

/// `grace NAME`.
#[derive(Debug, Args)]
pub(crate) struct GraceArgs {
    /// The app
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// The curve of this kind
    #[arg(long)]
    pub(crate) kind: Option<String>,
}
