//! The last events on the disk, so that a client resumes across daemons, killed ones included.
//!
//! Owns two files: an event a line, as it was told, in the order of their numbers; appended before anybody is told. When
//! the one that is written to holds [`KEPT`] of them it takes the place of the older one, and another begins. Neither is
//! synced: they outlive the daemon, and after a power cut the numbers begin beyond those that may have been given out.
//!
//! Unhappy: an event that cannot be written (a full disk) ends the file, which is removed: one without its last events
//! would give numbers out twice. Once it works again it begins with what is still in memory, and what lies between is a gap
//! that is told. What is torn at its end is cut off; a foreign line ends what is read of its file.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::os::unix::fs::FileExt;

use camino::{Utf8Path, Utf8PathBuf};
use memchr::{memchr_iter, memrchr_iter};
use serde::Deserialize;

use super::journal::{KEPT, RECENT};

/// Events between two tries to write a file that could not be written: the file then lacks none of those since.
const TRY_EVERY: u64 = RECENT as u64;

/// As much of a file is read at a time, in bytes: mostly all of its end that is kept in memory. A start waits for it.
const BLOCK: usize = 16 << 10;

/// What an earlier daemon told.
#[derive(Debug, Default)]
pub struct Remembered {
    /// The newest events, at most [`RECENT`], by number, oldest first.
    pub events: Vec<(u64, String)>,
    /// Whether no event can have been told after the last of these.
    pub whole: bool,
}

/// The files, for appending.
#[derive(Debug)]
pub struct EventTail {
    path: Utf8PathBuf,
    /// None while it cannot be written.
    file: Option<File>,
    lines: usize,
}

/// Events read from the files, oldest first.
#[derive(Debug)]
pub struct Older {
    files: VecDeque<BufReader<File>>,
    since: u64,
    before: u64,
}

/// What is read of a line to know whether it is wanted. What it tells is for those who ask, and not read at a start.
#[derive(Deserialize)]
struct Numbered {
    seq: u64,
}

impl EventTail {
    /// Reads what is at `path`, and goes on there.
    #[must_use]
    pub fn open(path: Utf8PathBuf) -> (Self, Remembered) {
        let End { mut events, good, lines, torn } = End::of(&path);
        let whole = !torn && !events.is_empty();
        if events.is_empty() {
            events = End::of(&older_of(&path)).events;
        }
        let file = File::options().append(true).create(true).open(&path).and_then(|file| {
            file.set_len(good)?;
            Ok(file)
        });
        (Self { path, file: file.ok(), lines }, Remembered { events, whole })
    }

    /// Appends event `seq`. `recent` are those in memory, this one included, oldest first.
    pub fn append<'k>(&mut self, seq: u64, line: &str, recent: impl Iterator<Item = &'k str>) {
        let written = match &mut self.file {
            Some(file) if self.lines < KEPT => {
                self.lines += 1;
                file.write_all(format!("{line}\n").as_bytes())
            }
            Some(_) => self.turn(line),
            None if !seq.is_multiple_of(TRY_EVERY) => return,
            None => self.write_anew(recent),
        };
        if let Err(error) = written {
            tracing::warn!(file = %self.path, %error, "events are not being written down");
            self.file = None;
            // No file says that there is a gap; one with a hole at its end would give numbers out twice.
            let _ = std::fs::remove_file(&self.path);
        }
    }

    /// The events after number `since` and before number `before`, as far as they are on the disk. They are read as they
    /// are asked for, whatever becomes of the files' names meanwhile.
    #[must_use]
    pub fn older(&self, since: u64, before: u64) -> Older {
        let files = [older_of(&self.path), self.path.clone()].into_iter().filter_map(|path| File::open(path).ok());
        Older { files: files.map(BufReader::new).collect(), since, before }
    }

    /// The file is full: another one begins with this event.
    fn turn(&mut self, line: &str) -> io::Result<()> {
        std::fs::rename(&self.path, older_of(&self.path))?;
        let mut file = File::options().append(true).create_new(true).open(&self.path)?;
        file.write_all(format!("{line}\n").as_bytes())?;
        (self.file, self.lines) = (Some(file), 1);
        Ok(())
    }

    fn write_anew<'k>(&mut self, recent: impl Iterator<Item = &'k str>) -> io::Result<()> {
        let part = Utf8PathBuf::from(format!("{}.part", self.path));
        let mut file = BufWriter::new(File::create(&part)?);
        let mut lines = 0;
        for line in recent {
            file.write_all(line.as_bytes())?;
            file.write_all(b"\n")?;
            lines += 1;
        }
        file.flush()?;
        std::fs::rename(&part, &self.path)?;
        self.file = Some(File::options().append(true).open(&self.path)?);
        self.lines = lines;
        Ok(())
    }
}

/// Where the older file is.
fn older_of(path: &Utf8Path) -> Utf8PathBuf {
    Utf8PathBuf::from(format!("{path}.1"))
}

/// The end of one file, as far as it can be believed.
#[derive(Debug, Default)]
struct End {
    events: Vec<(u64, String)>,
    /// Bytes up to the end of the last of them.
    good: u64,
    /// Lines up to there.
    lines: usize,
    /// Whether anything follows that is no event.
    torn: bool,
}

impl End {
    fn of(path: &Utf8Path) -> Self {
        // One that cannot be read holds nothing.
        Self::read(path).unwrap_or_default()
    }

    fn read(path: &Utf8Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let (begin, text) = last_lines(&file)?;
        let mut good = 0;
        let mut events = Vec::<(u64, String)>::new();
        for line in text.split_inclusive(|&byte| byte == b'\n') {
            let Some(line) = line.strip_suffix(b"\n").and_then(|line| std::str::from_utf8(line).ok()) else { break };
            let Ok(Numbered { seq }) = serde_json::from_str(line) else { break };
            if events.last().is_some_and(|(last, _)| *last >= seq) {
                break;
            }
            good += line.len() + 1;
            events.push((seq, line.to_owned()));
        }
        let lines = lines_before(&file, begin)? + memchr_iter(b'\n', &text[..good]).count();
        Ok(Self { events, good: begin + good as u64, lines, torn: good < text.len() })
    }
}

/// The last [`RECENT`] lines of a file, with what follows the last of them, and where they begin.
fn last_lines(file: &File) -> io::Result<(u64, Vec<u8>)> {
    let length = file.metadata()?.len();
    let mut wanted = BLOCK as u64;
    loop {
        let begin = length.saturating_sub(wanted);
        let mut text = vec![0; usize::try_from(length - begin).map_err(io::Error::other)?];
        file.read_exact_at(&mut text, begin)?;
        match memrchr_iter(b'\n', &text).nth(RECENT) {
            Some(end) => return Ok((begin + end as u64 + 1, text.split_off(end + 1))),
            None if begin == 0 => return Ok((0, text)),
            None => wanted *= 2,
        }
    }
}

/// How many lines end before `until`.
fn lines_before(file: &File, until: u64) -> io::Result<usize> {
    let mut block = [0; BLOCK];
    let (mut at, mut lines) = (0, 0);
    while at < until {
        let part = &mut block[..usize::try_from(until - at).map_or(BLOCK, |left| left.min(BLOCK))];
        file.read_exact_at(part, at)?;
        lines += memchr_iter(b'\n', part).count();
        at += part.len() as u64;
    }
    Ok(lines)
}

impl Iterator for Older {
    type Item = (u64, String);

    fn next(&mut self) -> Option<Self::Item> {
        let mut line = String::new();
        while let Some(file) = self.files.front_mut() {
            line.clear();
            let read = file.read_line(&mut line).unwrap_or(0);
            let numbered = line.strip_suffix('\n').and_then(|line| serde_json::from_str::<Numbered>(line).ok());
            let Some(Numbered { seq }) = numbered.filter(|_| read > 0) else {
                self.files.pop_front();
                continue;
            };
            if seq >= self.before {
                self.files.clear();
            } else if seq > self.since {
                line.pop();
                return Some((seq, line));
            }
        }
        None
    }
}

#[cfg(test)]
impl EventTail {
    /// A descriptor that takes nothing in the file's place.
    pub(super) fn close_for_a_test(&mut self) {
        self.file = File::open(&self.path).ok();
    }
}

#[cfg(test)]
mod tests {
    use agentd_protocol::Timestamp;
    use agentd_protocol::events::{Event, EventKind};

    use super::*;
    use crate::status::EventJournal;

    struct Dir(tempfile::TempDir);

    impl Dir {
        fn new() -> Self {
            Self(tempfile::tempdir().expect("a temporary folder"))
        }

        fn path(&self) -> Utf8PathBuf {
            Utf8PathBuf::from_path_buf(self.0.path().join("events")).expect("a UTF-8 temporary folder")
        }

        /// A journal as a daemon makes it that finds `reserved` in its store.
        fn journal(&self, reserved: u64) -> EventJournal {
            let (tail, remembered) = EventTail::open(self.path());
            let mut journal = EventJournal::after(0);
            journal.resume(tail, remembered, reserved);
            journal
        }
    }

    fn record(journal: &mut EventJournal, count: usize) {
        for _ in 0..count {
            journal.record(Timestamp::UNIX_EPOCH, Some("web"), None, EventKind::AppDeleted);
        }
    }

    fn heard(journal: &EventJournal, since: u64) -> Vec<(u64, bool)> {
        let lines = journal.subscribe(since, Timestamp::UNIX_EPOCH).into_backlog();
        let events = lines.iter().map(|line| serde_json::from_str::<Event>(line).expect("an event"));
        events.map(|event| (event.seq, matches!(event.event, EventKind::EventsLost { .. }))).collect()
    }

    #[test]
    fn the_next_daemon_goes_on_with_the_numbers_and_has_the_events_of_the_last() {
        let dir = Dir::new();
        record(&mut dir.journal(10_000), 5);
        // Dropped without a word, as by kill -9.
        let mut journal = dir.journal(20_000);
        record(&mut journal, 2);
        assert_eq!(heard(&journal, 10_003), [10_004, 10_005, 10_006, 10_007].map(|seq| (seq, false)));
    }

    #[test]
    fn a_torn_or_missing_file_means_numbers_beyond_those_given_out_and_the_gap_is_said() {
        let dir = Dir::new();
        record(&mut dir.journal(0), 5);
        let whole = std::fs::read(dir.path()).expect("read");
        std::fs::write(dir.path(), &whole[..whole.len() - 3]).expect("tear");
        let mut journal = dir.journal(10_000);
        record(&mut journal, 1);
        assert_eq!(heard(&journal, 2), [(3, false), (4, false), (10_000, true), (10_001, false)]);
        std::fs::remove_file(dir.path()).expect("remove");
        let journal = dir.journal(20_000);
        assert_eq!(heard(&journal, 10_001), [(20_000, true)]);
    }

    #[test]
    fn the_file_is_bounded_and_holds_all_that_is_kept() {
        let dir = Dir::new();
        let mut journal = dir.journal(0);
        record(&mut journal, 6 * KEPT);
        let lines = |path: &Utf8Path| std::fs::read_to_string(path).expect("read").lines().count();
        let held = lines(&dir.path()) + lines(&older_of(&dir.path()));
        assert!((KEPT..=2 * KEPT).contains(&held), "{held}");
        drop(journal);
        let journal = dir.journal(0);
        assert_eq!(journal.seq(), 6 * KEPT as u64);
        let first = journal.seq() - KEPT as u64 + 1;
        assert_eq!(heard(&journal, first - 1), (first..=journal.seq()).map(|seq| (seq, false)).collect::<Vec<_>>());
    }

    #[test]
    fn events_that_fill_more_than_a_block_are_remembered_and_counted_all_the_same() {
        let dir = Dir::new();
        let mut journal = dir.journal(0);
        let long = "x".repeat(BLOCK / 8);
        for _ in 0..2 * RECENT {
            journal.record(Timestamp::UNIX_EPOCH, Some(&long), None, EventKind::AppDeleted);
        }
        record(&mut journal, 3);
        let end = End::of(&dir.path());
        let numbers: Vec<u64> = end.events.iter().map(|(seq, _)| *seq).collect();
        let newest = 2 * RECENT as u64 + 3;
        assert_eq!(numbers, (newest - RECENT as u64 + 1..=newest).collect::<Vec<_>>());
        let length = std::fs::metadata(dir.path()).expect("it is there").len();
        assert_eq!((end.lines as u64, end.good, end.torn), (newest, length, false));
    }

    #[test]
    fn who_reads_older_events_slowly_gets_them_while_the_files_turn_and_those_after_them() {
        let dir = Dir::new();
        let mut journal = dir.journal(0);
        record(&mut journal, KEPT + 10);
        let mut asked = journal.subscribe(5, Timestamp::UNIX_EPOCH);
        record(&mut journal, RECENT);
        let mut numbers = Vec::new();
        while let Ok(Some(line)) = asked.next_at_once() {
            numbers.push(serde_json::from_str::<Event>(&line).expect("an event").seq);
            if numbers.len() == 1 {
                std::fs::remove_file(dir.path()).expect("the newer file is there");
                std::fs::remove_file(older_of(&dir.path())).expect("the older file is there");
            }
        }
        assert_eq!(numbers, (6..=journal.seq()).collect::<Vec<_>>());
    }

    #[test]
    fn a_death_between_the_two_steps_of_turning_costs_numbers_and_no_event() {
        let dir = Dir::new();
        record(&mut dir.journal(0), 5);
        std::fs::rename(dir.path(), older_of(&dir.path())).expect("rename");
        let mut journal = dir.journal(1_000);
        record(&mut journal, 1);
        assert_eq!(heard(&journal, 4), [(5, false), (1_000, true), (1_001, false)]);
    }

    #[test]
    fn what_could_not_be_written_leaves_no_hole_at_the_end_of_the_file() {
        let dir = Dir::new();
        let mut journal = dir.journal(0);
        record(&mut journal, 3);
        journal.break_tail();
        record(&mut journal, 1);
        assert!(!dir.path().exists());
        record(&mut journal, TRY_EVERY as usize);
        let journal = dir.journal(0);
        assert!(journal.seq() >= TRY_EVERY);
        assert_eq!(heard(&journal, 0).first(), Some(&(1, false)));
    }
}
