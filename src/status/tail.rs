//! The last events on the disk, so that a client resumes across daemons, killed ones included.
//!
//! Owns one file: an event a line, as it was told, in the order of their numbers; appended before anybody is told. It is
//! written anew, beside and then renamed, when it has grown to twice what is kept. It is not synced: it outlives the
//! daemon, and after a power cut the numbers begin beyond those that may have been given out.
//!
//! Unhappy: an event that cannot be written (a full disk) ends the file: what is there must have no hole at its end. All
//! that is kept is written anew as soon as that works. A line that is torn or foreign ends what is read.

use std::fs::File;
use std::io::{self, BufWriter, Write};

use camino::Utf8PathBuf;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::journal::KEPT;

/// Lines after which the file is written anew.
const LINES_MAX: usize = 2 * KEPT;

/// Events between two tries to write a file that could not be written.
const TRY_EVERY: u64 = 64;

/// What an earlier daemon told.
#[derive(Debug, Default)]
pub struct Remembered {
    /// The last events, by number, oldest first.
    pub events: Vec<(u64, String)>,
    /// Whether no event can have been told after the last of these.
    pub whole: bool,
}

/// What is looked at of a line: it is told on as it is, and to understand eight thousand of them would take longer than
/// all else at a start.
#[derive(Deserialize)]
struct Numbered {
    seq: u64,
    #[serde(rename = "at")]
    _at: IgnoredAny,
    #[serde(rename = "event")]
    _event: IgnoredAny,
}

/// The file, for appending.
#[derive(Debug)]
pub struct EventTail {
    path: Utf8PathBuf,
    /// None while it cannot be written.
    file: Option<File>,
    lines: usize,
}

impl EventTail {
    /// Reads what is at `path`, and goes on there.
    #[must_use]
    pub fn open(path: Utf8PathBuf) -> (Self, Remembered) {
        let text = std::fs::read(&path).unwrap_or_default();
        let (mut events, mut good) = (Vec::<(u64, String)>::new(), 0);
        for line in text.split_inclusive(|&byte| byte == b'\n') {
            let Some(line) = line.strip_suffix(b"\n").and_then(|line| std::str::from_utf8(line).ok()) else { break };
            let Ok(event) = serde_json::from_str::<Numbered>(line) else { break };
            if events.last().is_some_and(|(last, _)| *last >= event.seq) {
                break;
            }
            good += line.len() + 1;
            events.push((event.seq, line.to_owned()));
        }
        let whole = good == text.len() && !events.is_empty();
        let lines = events.len();
        events.drain(..lines.saturating_sub(KEPT));
        let mut tail = Self { path, file: None, lines };
        if whole {
            tail.file = File::options().append(true).open(&tail.path).ok();
        }
        (tail, Remembered { events, whole })
    }

    /// Writes event `seq`. `kept` are all that are kept, this one included, oldest first.
    pub fn append<'k>(&mut self, seq: u64, line: &str, kept: impl Iterator<Item = &'k str>) {
        let written = match &mut self.file {
            Some(file) if self.lines < LINES_MAX => {
                let text = format!("{line}\n");
                self.lines += 1;
                file.write_all(text.as_bytes())
            }
            None if !seq.is_multiple_of(TRY_EVERY) && self.lines > 0 => return,
            Some(_) | None => self.write_anew(kept),
        };
        if let Err(error) = written {
            tracing::warn!(file = %self.path, %error, "events are not being written down");
            self.file = None;
            self.lines = self.lines.max(1);
            // No file says that there is a gap; one with a hole at its end would give numbers out twice.
            let _ = std::fs::remove_file(&self.path);
        }
    }

    fn write_anew<'k>(&mut self, kept: impl Iterator<Item = &'k str>) -> io::Result<()> {
        let part = Utf8PathBuf::from(format!("{}.part", self.path));
        // Piece by piece: a text of all of them would leave its megabyte with the allocator for good.
        let mut file = BufWriter::new(File::create(&part)?);
        let mut lines = 0;
        for line in kept {
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
            EventJournal::resume(tail, remembered, reserved)
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
        record(&mut journal, 3 * LINES_MAX);
        let lines = std::fs::read_to_string(dir.path()).expect("read").lines().count();
        assert!((KEPT..=LINES_MAX).contains(&lines), "{lines}");
        drop(journal);
        let journal = dir.journal(0);
        assert_eq!(journal.seq(), 3 * LINES_MAX as u64);
        assert_eq!(heard(&journal, journal.seq() - KEPT as u64).len(), KEPT);
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
