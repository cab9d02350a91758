//! One file a verb. Each returns its exit code, or what kept it from its end.

pub(crate) mod apply;
pub(crate) mod change;
pub(crate) mod daemon;
pub(crate) mod deployments;
pub(crate) mod describe;
pub(crate) mod doctor;
pub(crate) mod effects;
pub(crate) mod events;
pub(crate) mod generate;
pub(crate) mod grace;
pub(crate) mod init;
pub(crate) mod logs;
pub(crate) mod ls;
pub(crate) mod releases;
pub(crate) mod sessions;
pub(crate) mod signal;
pub(crate) mod start;
pub(crate) mod startup;
pub(crate) mod status;
pub(crate) mod successor;
pub(crate) mod tasks;
pub(crate) mod upgrade;
pub(crate) mod wait;

use agentd_protocol::control::ALL;
use agentd_protocol::status::StatusDocument;

use crate::args::{Cli, Command, Deferred};
use crate::exit::Failure;
use crate::home::Home;

/// What every command is given.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    /// Where the daemon is.
    pub(crate) home: Home,
    /// Nothing but JSON on stdout.
    pub(crate) json: bool,
}

/// Runs the command; returns its exit code.
///
/// # Errors
/// What kept it from its end, with an exit code of its own.
pub(crate) fn run(cli: Cli) -> Result<u8, Failure> {
    let context = Context { home: Home::find(cli.global.home)?, json: cli.global.json };
    match cli.command {
        Command::Start(Deferred(args)) => start::run(&context, args),
        Command::Stop(Deferred(args)) => change::stop(&context, args),
        Command::Restart(Deferred(args)) => change::restart(&context, args),
        Command::Delete(Deferred(args)) => change::delete(&context, args),
        Command::Scale(Deferred(args)) => change::scale(&context, args),
        Command::Signal(Deferred(args)) => signal::run(&context, args),
        Command::Apply(Deferred(args)) => apply::run(&context, args),
        Command::Reload(Deferred(args)) => change::reload(&context, args),
        Command::Refresh(Deferred(args)) => change::refresh(&context, args),
        Command::Upgrade(Deferred(args)) => upgrade::run(&context, args),
        Command::Rollback(Deferred(args)) => upgrade::rollback(&context, args),
        Command::Deployments(Deferred(args)) => deployments::list(&context, args),
        Command::Deployment(Deferred(args)) => deployments::show(&context, &args),
        Command::Releases(Deferred(args)) => releases::run(&context, args),
        Command::Promote(Deferred(args)) => upgrade::promote(&context, args),
        Command::Pause(Deferred(args)) => upgrade::pause(&context, args),
        Command::Resume(Deferred(args)) => upgrade::resume(&context, args),
        Command::Abort(Deferred(args)) => upgrade::abort(&context, args),
        Command::Ls => ls::run(&context),
        Command::Status(Deferred(args)) => status::run(&context, &args),
        Command::Describe(Deferred(args)) => describe::run(&context, args),
        Command::Logs(Deferred(args)) => logs::run(&context, args),
        Command::Events(Deferred(args)) => events::run(&context, &args),
        Command::Init(Deferred(args)) => init::run(&context, &args),
        Command::Doctor => doctor::run(&context),
        Command::Schema => generate::schema(),
        Command::Completions(Deferred(args)) => generate::completions(&args),
        Command::Man(Deferred(args)) => generate::man(&args),
        Command::Tasks(Deferred(args)) => tasks::run(&context, args),
        Command::Effects(Deferred(args)) => effects::run(&context, args),
        Command::Sessions(Deferred(args)) => sessions::run(&context, args),
        Command::Grace(Deferred(args)) => grace::run(&context, args),
        Command::Startup(Deferred(args)) => startup::run(&context, &args),
        Command::Daemon(Deferred(args)) => daemon::run(&context, args.command),
    }
}

/// Whether `app` is among `names`, where no name, or `all`, means every app.
fn is_named(names: &[String], app: &str) -> bool {
    names.is_empty() || names == [ALL] || names.iter().any(|name| name == app)
}

/// Leaves only the apps called `names` in the document.
///
/// # Errors
/// [`Failure::NoSuchApp`] for the first name that nobody has.
fn keep_named(document: &mut StatusDocument, names: &[String]) -> Result<(), Failure> {
    let known = |name: &str| name == ALL || document.apps.iter().any(|app| app.name == name);
    if let Some(name) = names.iter().find(|name| !known(name)) {
        let known = document.apps.iter().map(|app| app.name.clone()).collect();
        return Err(Failure::NoSuchApp { name: name.clone(), known });
    }
    document.apps.retain(|app| is_named(names, &app.name));
    Ok(())
}
