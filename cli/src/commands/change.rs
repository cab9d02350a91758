//! `stop`, `restart`, `delete`, `reload`, `refresh`, `scale`: they differ in what is asked for, not in how it is waited for.

use agentd_protocol::control::{
    DeleteParams, RefreshParams, ReloadParams, Request, RestartParams, ScaleParams, StopParams,
};

use super::{Context, wait};
use crate::args::{ChangeArgs, ReloadArgs, ScaleArgs};
use crate::exit::Failure;

/// Drains apps and stops them.
///
/// # Errors
/// As [`wait::change`].
pub(crate) fn stop(context: &Context, args: ChangeArgs) -> Result<u8, Failure> {
    let params = StopParams { names: args.names, wait: !args.wait.no_wait };
    wait::change(context, vec![Request::Stop(params)], args.wait)
}

/// Stops apps and starts them again.
///
/// # Errors
/// As [`wait::change`].
pub(crate) fn restart(context: &Context, args: ChangeArgs) -> Result<u8, Failure> {
    let params = RestartParams { names: args.names, wait: !args.wait.no_wait };
    wait::change(context, vec![Request::Restart(params)], args.wait)
}

/// Stops apps and forgets them.
///
/// # Errors
/// As [`wait::change`].
pub(crate) fn delete(context: &Context, args: ChangeArgs) -> Result<u8, Failure> {
    let params = DeleteParams { names: args.names, wait: !args.wait.no_wait };
    wait::change(context, vec![Request::Delete(params)], args.wait)
}

/// Replaces workers without a gap.
///
/// # Errors
/// As [`wait::change`].
pub(crate) fn reload(context: &Context, args: ReloadArgs) -> Result<u8, Failure> {
    let ReloadArgs { change: ChangeArgs { names, wait }, changed, task } = args;
    let params = ReloadParams { names, changed, task, wait: !wait.no_wait };
    wait::change(context, vec![Request::Reload(params)], wait)
}

/// Lets workers renew what they know.
///
/// # Errors
/// As [`wait::change`].
pub(crate) fn refresh(context: &Context, args: ChangeArgs) -> Result<u8, Failure> {
    let params = RefreshParams { names: args.names, wait: !args.wait.no_wait };
    wait::change(context, vec![Request::Refresh(params)], args.wait)
}

/// Wants another number of workers.
///
/// # Errors
/// As [`wait::change`].
pub(crate) fn scale(context: &Context, args: ScaleArgs) -> Result<u8, Failure> {
    let params = ScaleParams { name: args.name, workers: args.workers, wait: !args.wait.no_wait };
    wait::change(context, vec![Request::Scale(params)], args.wait)
}
