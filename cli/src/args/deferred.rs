//! Arguments that are defined when their command is called.
//!
//! Every command of `agentctl` defined for each call took a third of the time of `ls`, and so did the flags that every
//! command takes, defined for each of forty commands. Owns nothing; what the arguments are is their own struct's. Nothing
//! can go wrong here that could not there.

use clap::builder::Resettable;
use clap::{ArgMatches, Args, Command, Error, FromArgMatches, Id};

use super::Global;

/// The arguments of a command, unknown to the parser until it meets the command, or has to tell of it.
#[derive(Debug)]
pub(crate) struct Deferred<A>(pub(crate) A);

impl<A: Args> Args for Deferred<A> {
    fn group_id() -> Option<Id> {
        A::group_id()
    }

    fn augment_args(command: Command) -> Command {
        command.defer(|command| define(command, A::augment_args))
    }

    fn augment_args_for_update(command: Command) -> Command {
        command.defer(|command| define(command, A::augment_args_for_update))
    }
}

impl<A: FromArgMatches> FromArgMatches for Deferred<A> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        A::from_arg_matches(matches).map(Self)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        self.0.update_from_arg_matches(matches)
    }
}

/// Defines the flags that every command takes for a command that takes no other.
pub(super) fn with_global(command: Command) -> Command {
    define(command, |command| command)
}

fn define(command: Command, arguments: impl FnOnce(Command) -> Command) -> Command {
    let (about, long_about) = (command.get_about().cloned(), command.get_long_about().cloned());
    // What a struct says of itself is for who reads the source.
    Global::augment_args(arguments(command)).about(Resettable::from(about)).long_about(Resettable::from(long_about))
}
