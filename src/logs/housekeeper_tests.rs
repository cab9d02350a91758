//! Packing and bounding, over files made by the log's own writing side.

use agentd_core::id::Slot;

use super::super::layout::{Source, StreamKind, rotated};
use super::super::line::Line;
use super::super::read::tail;
use super::super::read::tests::Shelf as Writer;
use super::super::rotate::rotate;
use super::*;

const ONE: Number = Number::FIRST;

fn house(writer: &Writer, retention: Retention) -> House {
    House { logs: writer.logs.clone(), retentions: BTreeMap::from([(writer.app.clone(), retention)]), total: None }
}

/// Puts aside files of three lines each.
fn put_aside(writer: &Writer, source: &Source, files: u64) {
    for file in 0..files {
        for line in 0..3 {
            let number = file * 3 + line;
            writer.chunk(source, 1000 + number, 1 + file, format!("line {number}\n").as_bytes());
        }
        rotate(&source.path, 99).expect("rotate");
    }
    writer.chunk(source, 5000, 99, b"the live one\n");
}

fn all(source: &Source) -> Vec<Line> {
    tail(std::slice::from_ref(source), usize::MAX).expect("read")
}

fn names(writer: &Writer) -> Vec<String> {
    let entries = writer.logs.join("web").read_dir_utf8().expect("list");
    let mut names: Vec<_> = entries.map(|entry| entry.expect("an entry").file_name().to_owned()).collect();
    names.sort();
    names
}

#[test]
fn what_is_packed_reads_as_before_with_its_times_and_launches() {
    let writer = Writer::new();
    let source = writer.source(0);
    put_aside(&writer, &source, 3);
    let before = all(&source);
    assert_eq!(before.len(), 10);
    house(&writer, Retention::default()).tidy(None);
    assert_eq!(all(&source), before);
    let packed = names(&writer).iter().filter(|name| name.ends_with(".zst")).count();
    assert_eq!((packed, names(&writer).len()), (6, 8), "three logs and their indexes are packed, nothing else is left");
    let mut since = super::super::follow::Follower::start(
        std::slice::from_ref(&source),
        super::super::follow::Start::Since { time_us: 1004 },
    )
    .expect("start")
    .1;
    let lines = since.poll(std::time::Instant::now()).expect("poll").lines;
    assert_eq!(lines[0].text, "line 4");
    assert_eq!(tail(&[source], 3).expect("tail").first().map(|line| line.text.as_str()), Some("line 7"));
}

#[test]
fn a_kill_between_any_two_steps_of_packing_costs_no_line_and_is_finished_by_the_next_sweep() {
    for step in 1..=6 {
        let writer = Writer::new();
        let source = writer.source(0);
        put_aside(&writer, &source, 2);
        let before = all(&source);
        let log = rotated_path(&source.path, ONE);
        let index = index_path(&log);
        let copy = |from: &Utf8Path, to: &Utf8Path| {
            std::fs::copy(from, to).expect("copy");
        };
        let (kept_log, kept_index) = (writer.logs.join("log"), writer.logs.join("idx"));
        copy(&log, &kept_log);
        copy(&index, &kept_index);
        assert!(matches!(pack_one(&source.path, ONE), Ok(Packing::Done { .. })));
        let packed = [packed_path(&log), packed_path(&index)];
        // Back from the end to where the kill fell.
        if step < 6 {
            copy(&kept_index, &index);
        }
        if step < 5 {
            copy(&kept_log, &log);
        }
        if step < 4 {
            std::fs::rename(&packed[0], part_path(&packed[0])).expect("rename");
            File::options().write(true).open(part_path(&packed[0])).expect("open").set_len(9).expect("tear");
        }
        if step < 3 {
            std::fs::remove_file(part_path(&packed[0])).expect("remove");
        }
        if step < 2 {
            std::fs::rename(&packed[1], part_path(&packed[1])).expect("rename");
        }
        assert_eq!(all(&source), before, "after step {step}");
        house(&writer, Retention::default()).tidy(None);
        assert_eq!(all(&source), before, "swept after step {step}");
        let left = names(&writer).into_iter().filter(|name| !name.starts_with("0.out.log.00000")).count();
        assert_eq!((left, names(&writer).len()), (2, 6), "swept after step {step}: {:?}", names(&writer));
    }
}

#[test]
fn a_follower_goes_on_from_a_file_that_is_put_aside_and_packed_under_it() {
    use super::super::follow::{Follower, Start};
    let writer = Writer::new();
    let source = writer.source(0);
    writer.chunk(&source, 1, 1, b"one\n");
    let (lines, mut follower) = Follower::start(std::slice::from_ref(&source), Start::Last(9)).expect("start");
    assert_eq!(lines.len(), 1);
    for (number, text) in ["two\n", "three\n", "four\n"].into_iter().enumerate() {
        rotate(&source.path, 99).expect("rotate");
        writer.chunk(&source, 2 + number as u64, 1, text.as_bytes());
        house(&writer, Retention::default()).tidy(None);
    }
    let mut seen = Vec::new();
    for _ in 0..9 {
        let batch = follower.poll(std::time::Instant::now()).expect("poll");
        seen.extend(batch.lines.into_iter().map(|line| line.text));
    }
    assert_eq!(seen, ["two", "three", "four"]);
}

#[test]
fn a_file_that_a_worker_still_writes_is_packed_once_nobody_does() {
    let writer = Writer::new();
    let source = writer.source(0);
    writer.chunk(&source, 1, 1, b"one\n");
    let held = File::options().append(true).open(&source.path).expect("open");
    rotate(&source.path, 9).expect("rotate");
    assert_eq!(pack_one(&source.path, ONE).expect("look"), Packing::Busy);
    drop(held);
    assert!(matches!(pack_one(&source.path, ONE), Ok(Packing::Done { .. })));
}

#[test]
fn files_go_by_count_by_age_and_by_size_and_the_live_one_stays() {
    let retention = Retention { pack: false, keep: 9, ..Retention::default() };
    let kept = |retention: Retention, hurt: fn(&Source)| {
        let writer = Writer::new();
        let source = writer.source(0);
        put_aside(&writer, &source, 4);
        hurt(&source);
        house(&writer, retention).tidy(None);
        assert!(source.path.exists());
        rotated(&source.path).expect("list").len()
    };
    assert_eq!(kept(retention, |_| ()), 4);
    assert_eq!(kept(Retention { keep: 1, ..retention }, |_| ()), 1);
    let aged = kept(Retention { keep_for: Some(Duration::from_hours(1)), ..retention }, |source| {
        let old = File::options().write(true).open(rotated_path(&source.path, ONE)).expect("open");
        old.set_modified(SystemTime::now() - Duration::from_hours(2)).expect("set its time");
    });
    assert_eq!(aged, 3);
    // Three lines of 7 or 8 bytes and three records of 24 after a header of 16, for each.
    assert_eq!(kept(Retention { keep_bytes: Some(2 * (24 + 88) + 13 + 40), ..retention }, |_| ()), 2);
    assert_eq!(kept(Retention { keep_bytes: Some(1), ..retention }, |_| ()), 0);
}

#[test]
fn over_all_apps_the_oldest_goes_first_whosever_it_is() {
    let writer = Writer::new();
    let source = writer.source(0);
    put_aside(&writer, &source, 2);
    let other: AppName = "other".parse().expect("a good name");
    std::fs::create_dir(writer.logs.join("other")).expect("create");
    let others = Source::new(&writer.logs, &other, Slot(0), StreamKind::Out);
    put_aside(&writer, &others, 2);
    let old = File::options().write(true).open(rotated_path(&others.path, ONE.next())).expect("open");
    old.set_modified(SystemTime::now() - Duration::from_hours(2)).expect("set its time");
    let mut house = house(&writer, Retention { pack: false, ..Retention::default() });
    house.retentions.insert(other, Retention { pack: false, ..Retention::default() });
    let whole: u64 = shelves(&writer.logs).expect("look").values().flatten().map(Shelf::bytes).sum();
    house.total = Some(whole - 1);
    house.tidy(None);
    assert_eq!(rotated(&source.path).expect("list").len(), 2);
    assert!(rotated(&others.path).expect("list").into_iter().eq([ONE]));
}

#[test]
fn files_that_nobody_here_named_are_left_alone() {
    let writer = Writer::new();
    let source = writer.source(0);
    put_aside(&writer, &source, 1);
    for name in ["notes.txt", "0.out.log.gz", "0.out.log.old", "build.log.1", "x.part"] {
        std::fs::write(writer.logs.join("web").join(name), "mine").expect("write");
    }
    house(&writer, Retention { keep: 0, keep_bytes: Some(0), ..Retention::default() }).tidy(None);
    assert_eq!(names(&writer).len(), 2 + 5);
}
