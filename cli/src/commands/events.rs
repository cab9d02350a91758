//! `events`: what happened, oldest first.

use std::collections::VecDeque;
use std::time::Instant;

use agentd_protocol::events::{Event, EventKind};
use agentd_protocol::exit;

use super::Context;
use crate::args::EventsArgs;
use crate::client::ANSWER_WITHIN;
use crate::exit::Failure;
use crate::render::{self, event};
use crate::status::{StatusError, Watch, Watched};

/// How many of the newest events are shown when no beginning is given.
const RECENT: usize = 50;

/// One event, as it was read and as it came.
struct Line {
    event: Event,
    raw: Vec<u8>,
}

/// Shows the events after `--since`, or the newest; with `-f` also those to come.
///
/// # Errors
/// When they cannot be had or shown.
pub(crate) fn run(context: &Context, args: &EventsArgs) -> Result<u8, Failure> {
    let since = args.since.unwrap_or(0);
    let (mut watch, document, _) = Watch::begin(&context.home, Some(since))?;
    let newest = document.seq;
    let most = args.lines.or(args.since.is_none().then_some(RECENT));
    // A number that is yet to come is one of an earlier life of the journal: the daemon begins at its beginning.
    let mut seen = if since > newest { 0 } else { since };
    let mut kept = VecDeque::new();
    while seen < newest {
        // What happened already is on its way.
        let Watched::Event(event, raw) = watch.next(Some(Instant::now() + ANSWER_WITHIN))? else {
            return Err(StatusError::Silent.into());
        };
        seen = event.seq;
        kept.push_back(Line { event: *event, raw });
        if most.is_some_and(|most| kept.len() > most) {
            kept.pop_front();
        }
    }
    // That the oldest are not kept is no news to somebody who asked for the newest.
    if args.since.is_none() && kept.front().is_some_and(|line| is_gap(&line.event)) {
        kept.pop_front();
    }
    for (index, line) in kept.iter().enumerate() {
        show(context, line, kept.get(index + 1))?;
    }
    if !args.follow {
        return Ok(exit::DONE);
    }
    loop {
        let Watched::Event(event, raw) = watch.next(None)? else { return Err(StatusError::Silent.into()) };
        show(context, &Line { event: *event, raw }, None)?;
    }
}

fn show(context: &Context, line: &Line, next: Option<&Line>) -> Result<(), Failure> {
    if context.json {
        return render::raw_line(&line.raw);
    }
    let text = match (&line.event.event, next.map(|next| &next.event.event)) {
        (EventKind::EventsLost { from, to }, Some(EventKind::DaemonStarted { .. })) => event::after_a_death(*from, *to),
        _ => event::line(&line.event),
    };
    render::print(&format!("{text}\n"))
}

const fn is_gap(event: &Event) -> bool {
    matches!(event.event, EventKind::EventsLost { .. })
}
