//! Reading back, over files made by the log's own writing side.

use super::super::fifo::Fifo;
use super::super::file::{LogFile, Taken};
use super::super::follow::{Follower, Start};
use super::super::index::{IndexWriter, Record};
use super::super::layout::{index_path, rotated};
use super::super::line::{LINE_BYTES, LineEnd};
use super::super::rotate::{Rotation, rotate};
use super::*;

pub(in crate::logs) struct Shelf {
    _guard: tempfile::TempDir,
    pub(in crate::logs) logs: Utf8PathBuf,
    pub(in crate::logs) app: AppName,
}

impl Shelf {
    pub(in crate::logs) fn new() -> Self {
        let guard = tempfile::tempdir().expect("a temporary folder");
        let logs = Utf8PathBuf::from_path_buf(guard.path().to_owned()).expect("a UTF-8 temporary folder");
        std::fs::create_dir(logs.join("web")).expect("create the app's folder");
        Self { _guard: guard, logs, app: "web".parse().expect("a good name") }
    }

    pub(in crate::logs) fn source(&self, slot: u32) -> Source {
        Source::new(&self.logs, &self.app, Slot(slot), StreamKind::Out)
    }

    /// Appends a chunk as the log thread would.
    pub(in crate::logs) fn chunk(&self, source: &Source, time_us: u64, launch: u64, bytes: &[u8]) {
        use std::io::Write;
        let mut log = std::fs::File::options().append(true).create(true).open(&source.path).expect("open the log");
        let offset = log.metadata().expect("stat").len();
        let mut index = IndexWriter::open(&index_path(&source.path), offset).expect("open the index");
        index.announce(Record { offset, time_us, launch: Some(Launch(launch)) }).expect("announce");
        log.write_all(bytes).expect("write");
        index.settle();
    }
}

fn texts(lines: &[Line]) -> Vec<&str> {
    lines.iter().map(|line| line.text.as_str()).collect()
}

#[test]
fn the_last_lines_of_several_slots_are_interleaved_by_time() {
    let shelf = Shelf::new();
    let (zero, one) = (shelf.source(0), shelf.source(1));
    shelf.chunk(&zero, 10, 1, b"a\nb\n");
    shelf.chunk(&one, 20, 2, b"c\n");
    shelf.chunk(&zero, 30, 1, b"d\n");
    shelf.chunk(&one, 40, 2, b"e\nf");
    let sources = [zero, one, shelf.source(7)];
    let lines = tail(&sources, 4).expect("tail");
    assert_eq!(texts(&lines), ["c", "d", "e", "f"]);
    let stamps: Vec<_> = lines.iter().map(|line| (line.time_us, line.launch, line.slot.0, line.end)).collect();
    assert_eq!(stamps[1], (30, Some(Launch(1)), 0, LineEnd::Newline));
    assert_eq!(stamps[3], (40, Some(Launch(2)), 1, LineEnd::Open));
    assert_eq!(texts(&tail(&sources, 99).expect("tail")), ["a", "b", "c", "d", "e", "f"]);
    assert_eq!(texts(&tail(&sources, 0).expect("tail")), [""; 0]);
}

#[test]
fn lines_are_found_across_rotated_files_even_one_that_is_cut_by_a_rotation() {
    let shelf = Shelf::new();
    let source = shelf.source(0);
    for number in 0..5u64 {
        shelf.chunk(&source, number, 1, format!("{number} begins\n{number} goes").as_bytes());
        rotate(&source.path, 9).expect("rotate");
        shelf.chunk(&source, number, 1, b" on\n");
    }
    let all = tail(std::slice::from_ref(&source), 99).expect("tail");
    let expected: Vec<_> = (0..5).flat_map(|n| [format!("{n} begins"), format!("{n} goes on")]).collect();
    assert_eq!(texts(&all), expected);
    for count in 0..10 {
        assert_eq!(tail(std::slice::from_ref(&source), count).expect("tail"), all[10 - count..], "the last {count}");
    }
    let (_, mut since) = Follower::start(&[source], Start::Since { time_us: 3 }).expect("start");
    assert_eq!(since.poll(Instant::now()).expect("poll").lines, all[6..]);
}

#[test]
fn a_missing_torn_or_foreign_index_costs_times_and_no_line() {
    let shelf = Shelf::new();
    let source = shelf.source(0);
    for number in 1..4 {
        shelf.chunk(&source, number, number, format!("line {number}\n").as_bytes());
    }
    let index = index_path(&source.path);
    let whole = std::fs::read(&index).expect("read the index");
    let mut damaged: Vec<Vec<u8>> = (0..whole.len()).map(|length| whole[..length].to_vec()).collect();
    damaged.extend((0..whole.len()).map(|at| {
        let mut bytes = whole.clone();
        bytes[at] ^= 0xff;
        bytes
    }));
    damaged.push([whole.clone(), vec![0; 48]].concat());
    damaged.push([whole, vec![0xff; 31]].concat());
    for bytes in damaged {
        std::fs::write(&index, &bytes).expect("damage");
        let lines = tail(std::slice::from_ref(&source), 9).expect("tail");
        // A wrong chunk border may cut a line in two launches, but every byte is shown.
        assert_eq!(texts(&lines).concat().len(), 18, "{bytes:?}");
    }
    std::fs::remove_file(&index).expect("remove");
    assert_eq!(texts(&tail(&[source], 2).expect("tail")), ["line 2", "line 3"]);
}

#[test]
fn hostile_bytes_become_text_and_endless_lines_are_cut() {
    let shelf = Shelf::new();
    let source = shelf.source(0);
    let every: Vec<u8> = (0..=255).filter(|&byte| byte != b'\n').collect();
    shelf.chunk(&source, 1, 1, &[&every[..], b"\n\0\0\n\xff\xfe\n"].concat());
    shelf.chunk(&source, 2, 1, &[&vec![b'x'; LINE_BYTES * 3][..], b"\nafter\n"].concat());
    let lines = tail(std::slice::from_ref(&source), 9).expect("tail");
    assert_eq!(texts(&lines)[1..3], ["\0\0", "\u{fffd}\u{fffd}"]);
    assert_eq!((lines[3].text.len(), lines[3].truncated()), (LINE_BYTES, true));
    assert_eq!((texts(&lines)[4], lines.len()), ("after", 5));
}

#[test]
fn the_end_of_a_huge_file_is_read_without_its_beginning() {
    let shelf = Shelf::new();
    let source = shelf.source(0);
    let file = std::fs::File::create(&source.path).expect("create");
    // A hole with no newline in it: reading all of that would take minutes.
    std::os::unix::fs::FileExt::write_all_at(&file, b"\n", 1 << 40).expect("a sparse terabyte");
    drop(file);
    shelf.chunk(&source, 5, 1, b"last but one\nlast\n");
    assert_eq!(texts(&tail(std::slice::from_ref(&source), 2).expect("tail")), ["last but one", "last"]);
    let lines = tail(&[source], 3).expect("tail");
    assert_eq!((lines.len(), lines[0].end), (3, LineEnd::Cut));
}

#[test]
fn the_last_lines_of_a_launch_hold_no_other_launches_lines() {
    let shelf = Shelf::new();
    let source = shelf.source(0);
    shelf.chunk(&source, 1, 1, b"good morning\nfatal: no database\nTraceback");
    for number in 0..40 {
        shelf.chunk(&source, 2 + number, 2, b"the next one\n");
    }
    let lines = last_lines(&shelf.logs, &shelf.app, Slot(0), Launch(1), 2).expect("read");
    assert_eq!(texts(&lines), ["fatal: no database", "Traceback"]);
    assert!(last_lines(&shelf.logs, &shelf.app, Slot(0), Launch(9), 2).expect("read").is_empty());
}

#[test]
fn a_burst_is_shown_from_its_first_line_and_never_less_than_asked_for() {
    let shelf = Shelf::new();
    let source = shelf.source(0);
    shelf.chunk(&source, 1_000_000, 1, b"good morning\n");
    let stack: String = (0..15).map(|frame| format!("    at frame {frame}\n")).collect();
    shelf.chunk(&source, 9_000_000, 1, format!("Error: the cause\n{stack}").as_bytes());
    let lines = tail(&[source], 40).expect("tail");
    let shown = burst(lines.clone(), 10);
    assert_eq!((shown.len(), texts(&shown)[0]), (16, "Error: the cause"));
    assert_eq!(texts(&burst(lines.clone(), 17))[0], "good morning");
    assert_eq!(burst(lines, 3).len(), 16);
    assert!(burst(Vec::new(), 3).is_empty());
}

#[test]
fn what_the_writing_side_makes_of_a_restart_after_kill_9_is_read_with_the_right_launches() {
    let shelf = Shelf::new();
    let source = shelf.source(0);
    for launch in 1..4 {
        // A writer that is dropped without a word is what a kill leaves, but for a record of bytes that never came.
        let mut log = LogFile::new(source.path.clone(), Rotation::default());
        let fifo = Fifo::create(&shelf.logs.join(format!("{launch}.fifo"))).expect("create");
        rustix::io::write(&fifo.worker, format!("launch {launch}\n").as_bytes()).expect("print");
        assert_eq!(log.take(&fifo.supervisor, Launch(launch), 1 << 20), Taken::Written(9));
        assert_eq!(log.take(&fifo.supervisor, Launch(launch), 1 << 20), Taken::Nothing);
        drop(log);
        let index = index_path(&source.path);
        let mut bytes = std::fs::read(&index).expect("read");
        bytes.extend([&(launch * 9).to_le_bytes()[..], &[7; 16][..]].concat());
        bytes.extend([9; 5]);
        std::fs::write(&index, bytes).expect("leave what a kill leaves");
    }
    let lines = tail(std::slice::from_ref(&source), 9).expect("tail");
    let launches: Vec<_> = lines.iter().map(|line| (line.text.as_str(), line.launch)).collect();
    let expected = [1, 2, 3].map(|launch| (format!("launch {launch}"), Some(Launch(launch))));
    assert!(launches.into_iter().eq(expected.iter().map(|(text, launch)| (text.as_str(), *launch))));
    assert!(rotated(&source.path).expect("list").is_empty());
}
