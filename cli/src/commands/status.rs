//! `status`: the workers of each app; with `--watch` redrawn on a terminal, a line for each event elsewhere.

use std::time::{Duration, Instant};

use agentd_protocol::exit;
use agentd_protocol::status::StatusDocument;

use super::{Context, is_named, keep_named};
use crate::args::StatusArgs;
use crate::exit::Failure;
use crate::render::{self, event, worker};
use crate::status::{self, Watch, Watched};

/// How often a watched picture is redrawn without news: tasks in flight and memory change unannounced.
const REDRAW_EVERY: Duration = Duration::from_secs(1);

/// Least time between two pictures: a burst of events is one change to the eye.
const REDRAW_AFTER: Duration = Duration::from_millis(50);

/// Puts the cursor at the top left and clears what is below it.
const FROM_TOP: &str = "\x1b[H\x1b[J";

/// Shows the workers.
///
/// # Errors
/// When the status cannot be had or shown, or a name is nobody's.
pub(crate) fn run(context: &Context, args: &StatusArgs) -> Result<u8, Failure> {
    if args.watch && !context.json && render::redraws() {
        return redraw(context, args);
    }
    if args.watch {
        return follow(context, args);
    }
    let (mut document, raw) = status::document(&context.home)?;
    keep_named(&mut document, &args.names)?;
    show(context, &document, &raw, args, render::width())?;
    Ok(exit::DONE)
}

fn show(
    context: &Context,
    document: &StatusDocument,
    raw: &[u8],
    args: &StatusArgs,
    width: Option<usize>,
) -> Result<(), Failure> {
    match (context.json, args.names.is_empty()) {
        // As it came: a newer daemon may say more than this program knows.
        (true, true) => render::raw_line(raw),
        (true, false) => render::json(document),
        (false, _) => render::print(&page(document, width)),
    }
}

fn page(document: &StatusDocument, width: Option<usize>) -> String {
    if document.apps.is_empty() {
        return render::apps::table(document, width);
    }
    let sections: Vec<String> = document.apps.iter().map(|app| worker::section(app, document.now, width)).collect();
    sections.join("\n")
}

/// A picture that follows what happens, until Ctrl-C or the daemon's end.
fn redraw(context: &Context, args: &StatusArgs) -> Result<u8, Failure> {
    let (mut watch, mut document, _) = Watch::begin(&context.home, None)?;
    loop {
        keep_named(&mut document, &args.names)?;
        render::print(&format!("{FROM_TOP}{}", page(&document, render::width())))?;
        let mut until = Instant::now() + REDRAW_EVERY;
        let mut changed = false;
        // After the first news wait only a little for more of it.
        while let Watched::Event(..) = watch.next(Some(until))? {
            if !changed {
                changed = true;
                until = Instant::now() + REDRAW_AFTER;
            }
            if Instant::now() >= until {
                break;
            }
        }
        document = status::document(&context.home)?.0;
    }
}

/// The page, or the document, and then a line for each event.
fn follow(context: &Context, args: &StatusArgs) -> Result<u8, Failure> {
    let (mut watch, mut document, raw) = Watch::begin(&context.home, None)?;
    keep_named(&mut document, &args.names)?;
    show(context, &document, &raw, args, None)?;
    loop {
        let Watched::Event(happened, raw) = watch.next(None)? else { continue };
        if !happened.app.as_ref().is_none_or(|app| is_named(&args.names, app)) {
            continue;
        }
        if context.json {
            render::raw_line(&raw)?;
        } else {
            render::print(&format!("{}\n", event::line(&happened)))?;
        }
    }
}
