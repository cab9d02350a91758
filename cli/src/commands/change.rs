//! `stop`, `restart`, `delete`, `reload`, `refresh`, `scale`: they differ in what is asked for, not in how it is waited for.

use agentd_protocol::control::{
    ALL, DeleteParams, RefreshParams, ReloadParams, Request, RestartParams, ScaleParams, StopParams,
};
use agentd_protocol::exit;
use agentd_protocol::status::AppState;

use super::{Context, wait};
use crate::args::{ChangeArgs, ReloadArgs, ScaleArgs};
use crate::exit::Failure;
use crate::{render, status};

/// Drains apps and stops them.
///
/// # Errors
/// As [`wait::change`].
pub(crate) fn stop(context: &Context, args: ChangeArgs) -> Result<u8, Failure> {
    let params = StopParams { names: args.names.clone(), wait: !args.wait.no_wait };
    let code = wait::change(context, vec![Request::Stop(params)], args.wait)?;
    if code == exit::DONE && !context.json {
        tell_addresses(context, &args.names);
    }
    Ok(code)
}

/// A stopped app keeps its addresses: whoever connects waits for its next start.
fn tell_addresses(context: &Context, names: &[String]) {
    // Without a document there is still the manual.
    let Ok((document, _)) = status::document(&context.home) else { return };
    let asked = |name: &String| names.iter().any(|given| given == ALL || given == name);
    for app in document.apps.iter().filter(|app| app.state == AppState::Stopped && asked(&app.name)) {
        if !app.listen.is_empty() {
            let (name, listen) = (&app.name, app.listen.values().cloned().collect::<Vec<_>>().join(", "));
            render::note(&format!(
                "{name} keeps {listen}: connections wait there for its next start; agentctl delete {name} gives it back"
            ));
        }
    }
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
