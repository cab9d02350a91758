//! `events`: what happened, oldest first.

use std::time::Instant;

use agentd_protocol::exit;

use super::Context;
use crate::args::EventsArgs;
use crate::client::ANSWER_WITHIN;
use crate::exit::Failure;
use crate::render::{self, event};
use crate::status::{self, StatusError, Watch, Watched};

/// How many of the newest events are shown when no beginning is given.
const RECENT: u64 = 50;

/// Shows the events after `--since`, or the newest; with `-f` also those to come.
///
/// # Errors
/// When they cannot be had or shown.
pub(crate) fn run(context: &Context, args: &EventsArgs) -> Result<u8, Failure> {
    let since = match args.since {
        Some(since) => since,
        None => status::document(&context.home)?.0.seq.saturating_sub(RECENT),
    };
    let (mut watch, document, _) = Watch::begin(&context.home, Some(since))?;
    let newest = document.seq;
    // A number that is yet to come is one of an earlier life of the journal: the daemon begins at its beginning.
    let mut shown = if since > newest { 0 } else { since };
    while args.follow || shown < newest {
        // What happened already is on its way; what is to come may take for ever.
        let until = (shown < newest).then(|| Instant::now() + ANSWER_WITHIN);
        let Watched::Event(happened, raw) = watch.next(until)? else { return Err(StatusError::Silent.into()) };
        shown = happened.seq;
        if context.json {
            render::raw_line(&raw)?;
        } else {
            render::print(&format!("{}\n", event::line(&happened)))?;
        }
    }
    Ok(exit::DONE)
}
