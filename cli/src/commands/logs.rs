//! `logs`: what workers printed, and with `-f` what they print.

use agentd_protocol::control::{ALL, LogLine, LogStream, LogsEnd, LogsParams, Notice, Request};
use agentd_protocol::exit;

use super::Context;
use crate::args::{LogsArgs, Stream};
use crate::client::{self, Client, ClientError, Heard};
use crate::exit::Failure;
use crate::render::{self, log::LogView};

/// Shows the lines.
///
/// # Errors
/// When the daemon refuses, goes away, or the lines cannot be shown.
pub(crate) fn run(context: &Context, args: LogsArgs) -> Result<u8, Failure> {
    let mut client = Client::connect(&context.home)?;
    client.ends_with_reader();
    let stream = args.stream.map(|stream| match stream {
        Stream::Out => LogStream::Stdout,
        Stream::Err => LogStream::Stderr,
    });
    let one_app = args.names.len() == 1 && args.names[0] != ALL;
    let params = LogsParams {
        names: args.names,
        follow: args.follow,
        lines: args.lines.unwrap_or(LogsParams::DEFAULT_LINES),
        stream,
        since: args.since,
        until: args.until,
        grep: args.grep,
        last: args.lines.is_some(),
    };
    let call = client.send(Request::Logs(params))?;
    let mut printer = Printer { json: context.json, view: LogView::new(args.timestamps), gathered: String::new() };
    // A follower cannot wait for the end to sort; the lines of one app are in order already.
    let mut held = (!args.follow && !one_app).then(Vec::new);
    let end = loop {
        if !client.has_heard() {
            printer.flush()?;
        }
        match client.next(None) {
            Ok(Heard::Notice(Notice::Log(line))) => match &mut held {
                Some(held) => held.push(line),
                None => printer.print(&line)?,
            },
            Ok(Heard::Answer(of, result)) if of == call => break result.map_err(ClientError::Refused),
            Ok(Heard::Answer(..) | Heard::Notice(_) | Heard::Nothing | Heard::Elapsed | Heard::Interrupted) => {}
            Err(error) => break Err(error),
        }
    };
    // What came is shown, whatever the end is.
    for line in in_order(held.unwrap_or_default()) {
        printer.print(&line)?;
    }
    printer.flush()?;
    let end: LogsEnd = client::read("logs", end?)?;
    if end.skipped > 0 {
        render::note(&format!("{} lines were left out: they were read too slowly", end.skipped));
    }
    end.elsewhere.iter().for_each(|where_and_how| render::note(where_and_how));
    Ok(exit::DONE)
}

/// Bytes that are printed at once where more lines are there already.
const AT_ONCE: usize = 64 << 10;

struct Printer {
    json: bool,
    view: LogView,
    /// Not printed yet.
    gathered: String,
}

impl Printer {
    fn print(&mut self, line: &LogLine) -> Result<(), Failure> {
        self.gathered += &if self.json { render::to_json(line) + "\n" } else { self.view.line(line) };
        if self.gathered.len() < AT_ONCE { Ok(()) } else { self.flush() }
    }

    fn flush(&mut self) -> Result<(), Failure> {
        let lines = std::mem::take(&mut self.gathered);
        match lines.strip_suffix('\n') {
            None => Ok(()),
            Some(json) if self.json => render::raw_line(json.as_bytes()),
            Some(_) => render::print(&lines),
        }
    }
}

/// The lines of several apps by time. A line of unknown time stays behind the one it was sent after.
fn in_order(lines: Vec<LogLine>) -> Vec<LogLine> {
    let mut latest = None;
    let mut timed: Vec<_> = lines
        .into_iter()
        .map(|line| {
            latest = line.at.or(latest);
            (latest, line)
        })
        .collect();
    timed.sort_by_key(|(at, _)| *at);
    timed.into_iter().map(|(_, line)| line).collect()
}

#[cfg(test)]
mod tests {
    use agentd_protocol::Timestamp;

    use super::*;

    #[test]
    fn several_apps_are_shown_in_the_order_of_time() {
        let line = |text: &str, second: Option<i64>| LogLine {
            app: "a".into(),
            worker: None,
            stream: LogStream::Stdout,
            at: second.map(|second| Timestamp::from_second(second).unwrap()),
            text: text.into(),
        };
        let lines =
            vec![line("2", Some(2)), line("2+", None), line("4", Some(4)), line("1", Some(1)), line("3", Some(3))];
        let texts: Vec<_> = in_order(lines).into_iter().map(|line| line.text).collect();
        assert_eq!(texts, ["1", "2", "2+", "3", "4"]);
    }
}
