//! A line that a worker printed, behind who printed it.

use agentd_protocol::control::{LogLine, LogStream};
use anstyle::{AnsiColor, Style};

use super::state::{BAD, FAINT};

/// Colours that tell workers apart; red is kept for errors.
const COLORS: [AnsiColor; 5] =
    [AnsiColor::Cyan, AnsiColor::Green, AnsiColor::Yellow, AnsiColor::Blue, AnsiColor::Magenta];

/// Lines one after another, their prefixes aligned as far as they are known.
#[derive(Debug, Default)]
pub(crate) struct LogView {
    timestamps: bool,
    widest: usize,
}

impl LogView {
    /// A view with or without the time of each line.
    pub(crate) const fn new(timestamps: bool) -> Self {
        Self { timestamps, widest: 0 }
    }

    /// The line as text, with its end: `support.0 │ text`.
    pub(crate) fn line(&mut self, line: &LogLine) -> String {
        let who = who(line);
        self.widest = self.widest.max(who.len());
        let (style, width) = (color(who), self.widest);
        let time = match (self.timestamps, line.at) {
            (false, _) => String::new(),
            (true, Some(at)) => format!("{FAINT}{}{FAINT:#} ", at.strftime("%Y-%m-%dT%H:%M:%S%.3fZ")),
            (true, None) => format!("{FAINT}{:24}{FAINT:#} ", "-"),
        };
        let bar = match line.stream {
            LogStream::Stderr => BAD,
            LogStream::Stdout | LogStream::Unknown => style,
        };
        format!("{time}{style}{who:width$}{style:#} {bar}│{bar:#} {}\n", harmless(&line.text))
    }
}

/// `support.0` of `support.0.17`: which generation printed it is rarely of interest.
fn who(line: &LogLine) -> &str {
    let Some(worker) = &line.worker else { return &line.app };
    worker.rsplit_once('.').map_or(worker, |(slot, _)| slot)
}

/// The same worker gets the same colour in every call, neighbours get different ones.
fn color(who: &str) -> Style {
    let sum: usize = who.bytes().map(usize::from).sum();
    COLORS[sum % COLORS.len()].on_default()
}

/// The text with its own colours, and without what would steer the terminal: a worker prints what its users send.
pub(crate) fn harmless(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    let mut colored = false;
    while let Some(at) = rest.find(char::is_control) {
        shown.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(length) = color_sequence(rest) {
            shown.push_str(&rest[..length]);
            rest = &rest[length..];
            colored = true;
        } else {
            let control = rest.chars().next().unwrap_or('\u{fffd}');
            // A tab is layout. The rest is shown as a mark that something was there.
            shown.push(if control == '\t' { '\t' } else { '\u{fffd}' });
            rest = &rest[control.len_utf8()..];
        }
    }
    shown.push_str(rest);
    if colored {
        shown.push_str("\x1b[0m");
    }
    shown
}

/// Length of the colour sequence (`ESC [ digits m`) that `text` begins with.
fn color_sequence(text: &str) -> Option<usize> {
    let inner = text.strip_prefix("\x1b[")?;
    let end = inner.find(|c: char| !c.is_ascii_digit() && c != ';' && c != ':')?;
    (inner.as_bytes()[end] == b'm').then_some(2 + end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(worker: &str, text: &str) -> LogLine {
        LogLine {
            app: "support".into(),
            worker: Some(worker.into()),
            stream: LogStream::Stdout,
            at: Some("2026-01-02T03:04:05.678Z".parse().unwrap()),
            text: text.into(),
        }
    }

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn prefixes_name_the_slot_and_align() {
        let mut view = LogView::new(false);
        assert_eq!(plain(&view.line(&line("support.0.17", "a"))), "support.0 │ a\n");
        assert_eq!(plain(&view.line(&line("web.11.3", "b"))), "web.11    │ b\n");
        assert_eq!(plain(&view.line(&LogLine { worker: None, ..line("", "c") })), "support   │ c\n");
    }

    #[test]
    fn the_time_stands_first_when_it_is_asked_for() {
        let shown = LogView::new(true).line(&line("a.0.1", "x"));
        assert_eq!(plain(&shown), "2026-01-02T03:04:05.678Z a.0 │ x\n");
    }

    #[test]
    fn a_worker_may_colour_its_lines_but_not_steer_the_terminal() {
        assert_eq!(harmless("\x1b[1;31mred\x1b[0m\tx"), "\x1b[1;31mred\x1b[0m\tx\x1b[0m");
        assert_eq!(harmless("\x1b[2Jgone\x1b]0;title\x07"), "\u{fffd}[2Jgone\u{fffd}]0;title\u{fffd}");
        assert_eq!(harmless("\x1b["), "\u{fffd}[");
    }
}
