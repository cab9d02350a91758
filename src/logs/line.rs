//! One line as it is shown, and how chunks of bytes become lines.
//!
//! A log file holds chunks of several launches one after another, and a chunk may end anywhere. So every launch has a
//! line of its own in the making:
//!
//! ```text
//!             bytes                    newline
//!   (none) ───────────► Gathering ─────────────────► (none)     a line that ended
//!                        │     │ 64 KiB
//!                  200 ms│     └──────► Skipping ──newline──► (none)     a cut line; its rest is not shown
//!                        ▼
//!                       Shown ──bytes──► Gathering              an open line; its rest becomes a line of its own
//!                         └────newline──► (none)
//! ```

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use agentd_core::id::{AppName, Launch, Slot};

use super::layout::{Source, StreamKind};

/// Longest line that is shown, in bytes. The file holds all of it.
pub const LINE_BYTES: usize = 64 << 10;

/// How long a line without its newline is held back by a follower.
pub const HOLD: Duration = Duration::from_millis(200);

/// So many launches may have a line in the making before those with nothing left to show are forgotten.
const OPEN_LINES: usize = 64;

/// How a line ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineEnd {
    /// With its newline.
    Newline,
    /// It was longer than [`LINE_BYTES`]; the rest is not shown.
    Cut,
    /// No newline has come yet. What comes later is shown as a line of its own.
    Open,
}

/// One line that a worker printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The app.
    pub app: AppName,
    /// The slot.
    pub slot: Slot,
    /// Which of its outputs.
    pub stream: StreamKind,
    /// When its first byte reached the log thread, in µs since 1970. Without an index, when its file was last written.
    pub time_us: u64,
    /// Which process printed it; none for the supervisor's own words and where the index is missing.
    pub launch: Option<Launch>,
    /// The text without its newline. What is no UTF-8 became U+FFFD; control characters are left as they are.
    pub text: String,
    /// How it ended.
    pub end: LineEnd,
}

impl Line {
    /// Whether the file holds more of this line than `text`.
    #[must_use]
    pub const fn truncated(&self) -> bool {
        match self.end {
            LineEnd::Cut => true,
            LineEnd::Newline | LineEnd::Open => false,
        }
    }
}

/// When a piece of a log came, and from whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) time_us: u64,
    pub(super) launch: Option<Launch>,
}

#[derive(Debug)]
enum Making {
    Gathering { time_us: u64, bytes: Vec<u8>, since: Instant },
    Shown,
    Skipping,
}

/// Makes lines of the chunks of one source.
#[derive(Debug)]
pub(super) struct Assembler {
    app: AppName,
    slot: Slot,
    stream: StreamKind,
    making: BTreeMap<Option<Launch>, Making>,
}

impl Assembler {
    pub(super) fn new(source: &Source) -> Self {
        Self { app: source.app.clone(), slot: source.slot, stream: source.stream, making: BTreeMap::new() }
    }

    /// Takes the next bytes of a chunk, seen at `now`.
    pub(super) fn push(&mut self, stamp: Stamp, bytes: &[u8], now: Instant, lines: &mut Vec<Line>) {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            match piece.strip_suffix(b"\n") {
                Some(last) => self.end(stamp, last, now, lines),
                None => self.gather(stamp, piece, now, lines),
            }
        }
    }

    /// Shows the lines in the making that began to wait at or before `before`.
    pub(super) fn flush(&mut self, before: Instant, lines: &mut Vec<Line>) {
        let due = |making: &Making| match making {
            Making::Gathering { since, .. } => *since <= before,
            Making::Shown | Making::Skipping => false,
        };
        let launches: Vec<_> =
            self.making.iter().filter(|(_, making)| due(making)).map(|(launch, _)| *launch).collect();
        for launch in launches {
            if let Some(Making::Gathering { time_us, bytes, .. }) = self.making.insert(launch, Making::Shown) {
                lines.push(self.line(Stamp { time_us, launch }, &bytes, LineEnd::Open));
            }
        }
        if self.making.len() > OPEN_LINES {
            self.making.retain(|_, making| matches!(making, Making::Gathering { .. }));
        }
    }

    /// Since when the oldest line in the making waits.
    pub(super) fn waiting_since(&self) -> Option<Instant> {
        let since = self.making.values().filter_map(|making| match making {
            Making::Gathering { since, .. } => Some(*since),
            Making::Shown | Making::Skipping => None,
        });
        since.min()
    }

    fn end(&mut self, stamp: Stamp, last: &[u8], now: Instant, lines: &mut Vec<Line>) {
        let fresh = !self.making.contains_key(&stamp.launch);
        if fresh && last.len() <= LINE_BYTES {
            // The common case: a whole line in one chunk.
            lines.push(self.line(stamp, last, LineEnd::Newline));
            return;
        }
        self.gather(stamp, last, now, lines);
        match self.making.remove(&stamp.launch) {
            Some(Making::Gathering { time_us, bytes, .. }) => {
                lines.push(self.line(Stamp { time_us, ..stamp }, &bytes, LineEnd::Newline));
            }
            Some(Making::Shown | Making::Skipping) | None => {}
        }
    }

    fn gather(&mut self, stamp: Stamp, piece: &[u8], now: Instant, lines: &mut Vec<Line>) {
        if piece.is_empty() {
            return;
        }
        let fresh = || Making::Gathering { time_us: stamp.time_us, bytes: Vec::new(), since: now };
        let making = self.making.entry(stamp.launch).or_insert_with(fresh);
        match making {
            Making::Skipping => return,
            Making::Shown => *making = fresh(),
            Making::Gathering { .. } => {}
        }
        let Making::Gathering { time_us, bytes, .. } = making else { return };
        let room = LINE_BYTES - bytes.len();
        if piece.len() <= room {
            bytes.extend_from_slice(piece);
            return;
        }
        bytes.extend_from_slice(&piece[..room]);
        let (stamp, bytes) = (Stamp { time_us: *time_us, ..stamp }, std::mem::take(bytes));
        *making = Making::Skipping;
        lines.push(self.line(stamp, &bytes, LineEnd::Cut));
    }

    fn line(&self, stamp: Stamp, bytes: &[u8], end: LineEnd) -> Line {
        Line {
            app: self.app.clone(),
            slot: self.slot,
            stream: self.stream,
            time_us: stamp.time_us,
            launch: stamp.launch,
            text: String::from_utf8_lossy(bytes).into_owned(),
            end,
        }
    }
}

/// One sequence in order of time. The order within each of `lists` is kept even where a clock went back.
pub(super) fn merge(lists: Vec<Vec<Line>>) -> Vec<Line> {
    let mut merged = Vec::with_capacity(lists.iter().map(Vec::len).sum());
    let mut lists: Vec<_> = lists.into_iter().map(|list| list.into_iter().peekable()).collect();
    loop {
        let heads = lists.iter_mut().enumerate().filter_map(|(at, list)| Some((list.peek()?.time_us, at)));
        let Some((_, first)) = heads.min() else { return merged };
        merged.extend(lists[first].next());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assembler() -> Assembler {
        let app = "web".parse().expect("a good name");
        Assembler::new(&Source::new("/logs".into(), &app, Slot(0), StreamKind::Out))
    }

    fn stamp(launch: u64) -> Stamp {
        Stamp { time_us: launch * 1000, launch: Some(Launch(launch)) }
    }

    fn texts(lines: &[Line]) -> Vec<(&str, LineEnd)> {
        lines.iter().map(|line| (line.text.as_str(), line.end)).collect()
    }

    #[test]
    fn lines_of_two_launches_are_not_glued_where_their_chunks_meet() {
        let (mut assembler, mut lines, now) = (assembler(), Vec::new(), Instant::now());
        assembler.push(stamp(1), b"old one\nold t", now, &mut lines);
        assembler.push(stamp(2), b"new one\nnew t", now, &mut lines);
        assembler.push(stamp(1), b"wo\n", now, &mut lines);
        assembler.push(stamp(2), b"wo\n", now, &mut lines);
        let expected = ["old one", "new one", "old two", "new two"].map(|text| (text, LineEnd::Newline));
        assert_eq!(texts(&lines), expected);
    }

    #[test]
    fn an_open_line_is_shown_after_its_wait_and_a_newline_alone_adds_nothing() {
        let (mut assembler, mut lines, now) = (assembler(), Vec::new(), Instant::now());
        assembler.push(stamp(1), b"password: ", now, &mut lines);
        assert_eq!(assembler.waiting_since(), Some(now));
        assembler.flush(now, &mut lines);
        assert_eq!(assembler.waiting_since(), None);
        assembler.push(stamp(1), b"\nthen\n", now, &mut lines);
        assert_eq!(texts(&lines), [("password: ", LineEnd::Open), ("then", LineEnd::Newline)]);
    }

    #[test]
    fn a_line_of_exactly_the_longest_length_is_whole_and_one_byte_more_is_cut() {
        let (mut assembler, mut lines, now) = (assembler(), Vec::new(), Instant::now());
        let long = [vec![b'x'; LINE_BYTES], b"\n".to_vec()].concat();
        assembler.push(stamp(1), &long, now, &mut lines);
        for byte in long[1..].iter().chain(b"x\nnext\n") {
            assembler.push(stamp(1), &[*byte], now, &mut lines);
        }
        assembler.push(stamp(1), &[&[b'y'][..], &long, b"end\n"].concat(), now, &mut lines);
        let shape: Vec<_> = lines.iter().map(|line| (line.text.len(), line.end)).collect();
        let (whole, cut) = ((LINE_BYTES, LineEnd::Newline), (LINE_BYTES, LineEnd::Cut));
        let short = |len| (len, LineEnd::Newline);
        assert_eq!(shape, [whole, short(LINE_BYTES - 1), short(1), short(4), cut, short(3)]);
    }

    #[test]
    fn merging_goes_by_time_and_keeps_each_lists_order() {
        let line = |time_us, text: &str| Line {
            time_us,
            text: text.into(),
            ..assembler().line(stamp(1), b"", LineEnd::Newline)
        };
        let merged =
            merge(vec![vec![line(1, "a"), line(5, "d"), line(4, "e")], vec![], vec![line(2, "b"), line(3, "c")]]);
        let order: String = merged.iter().map(|line| line.text.as_str()).collect();
        assert_eq!(order, "abcde");
    }
}
