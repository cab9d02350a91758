//! Following, over files that grow, rotate and are made while they are followed.

use super::super::line::LineEnd;
use super::super::read::tests::Shelf;
use super::super::rotate::rotate;
use super::*;

fn texts(lines: &[Line]) -> Vec<&str> {
    lines.iter().map(|line| line.text.as_str()).collect()
}

fn poll(follower: &mut Follower) -> Vec<String> {
    let batch = follower.poll(Instant::now()).expect("poll");
    batch.lines.into_iter().map(|line| line.text).collect()
}

#[test]
fn a_follower_goes_on_after_the_last_lines_and_interleaves_its_sources() {
    let shelf = Shelf::new();
    let (zero, one) = (shelf.source(0), shelf.source(1));
    shelf.chunk(&zero, 1, 1, b"a\nb\n");
    let (lines, mut follower) = Follower::start(&[zero.clone(), one.clone()], Start::Last(1)).expect("start");
    assert_eq!(texts(&lines), ["b"]);
    assert_eq!(follower.poll(Instant::now()).expect("poll"), Batch { lines: vec![], again: PollAgain::OnGrowth });
    shelf.chunk(&zero, 2, 1, b"c\n");
    shelf.chunk(&one, 3, 2, b"d\n");
    shelf.chunk(&zero, 4, 1, b"e\n");
    assert_eq!(poll(&mut follower), ["c", "d", "e"]);
    let two = shelf.source(2);
    shelf.chunk(&two, 5, 3, b"f\n");
    for _ in 0..2 {
        follower.add(&two).expect("add");
    }
    assert_eq!(poll(&mut follower), ["f"]);
    assert!(poll(&mut follower).is_empty());
}

#[test]
fn no_line_is_missed_or_doubled_across_any_number_of_rotations_between_polls() {
    let shelf = Shelf::new();
    let source = shelf.source(0);
    let (_, mut follower) = Follower::start(std::slice::from_ref(&source), Start::Last(0)).expect("start");
    let (mut seen, mut expected) = (Vec::new(), Vec::new());
    for round in 0..20 {
        for rotation in 0..round % 4 {
            for text in ["begins\n", "and go"] {
                shelf.chunk(&source, round, 1, text.as_bytes());
            }
            rotate(&source.path, 5).expect("rotate");
            shelf.chunk(&source, round, 1, format!("es on {round} {rotation}\n").as_bytes());
            expected.extend(["begins".to_owned(), format!("and goes on {round} {rotation}")]);
        }
        seen.extend(poll(&mut follower));
    }
    assert_eq!(seen, expected);
}

#[test]
fn a_follower_that_was_too_slow_goes_on_with_the_oldest_file_left() {
    let shelf = Shelf::new();
    let source = shelf.source(0);
    shelf.chunk(&source, 0, 1, b"seen\n");
    let (lines, mut follower) = Follower::start(std::slice::from_ref(&source), Start::Last(1)).expect("start");
    assert_eq!(texts(&lines), ["seen"]);
    for number in 1..6 {
        rotate(&source.path, 2).expect("rotate");
        shelf.chunk(&source, number, 1, format!("{number}\n").as_bytes());
    }
    assert_eq!(poll(&mut follower), ["3", "4", "5"]);
}

#[test]
fn a_line_without_its_newline_is_held_for_a_moment_and_then_shown() {
    let shelf = Shelf::new();
    let source = shelf.source(0);
    let (_, mut follower) = Follower::start(std::slice::from_ref(&source), Start::Last(0)).expect("start");
    shelf.chunk(&source, 1, 1, b"password: ");
    let now = Instant::now();
    assert_eq!(follower.poll(now).expect("poll"), Batch { lines: vec![], again: PollAgain::At(now + HOLD) });
    let batch = follower.poll(now + HOLD).expect("poll");
    assert_eq!((texts(&batch.lines), batch.again), (vec!["password: "], PollAgain::OnGrowth));
    assert_eq!(batch.lines[0].end, LineEnd::Open);
    shelf.chunk(&source, 2, 1, b"\nwelcome\nbye");
    assert_eq!(poll(&mut follower), ["welcome"]);
    assert_eq!(texts(&follower.finish()), ["bye"]);
}

#[test]
fn much_is_read_in_batches_and_the_last_says_that_it_is_the_last() {
    let shelf = Shelf::new();
    let source = shelf.source(0);
    let (_, mut follower) = Follower::start(std::slice::from_ref(&source), Start::Last(0)).expect("start");
    shelf.chunk(&source, 1, 1, "x\n".repeat(500_000).as_bytes());
    let (mut lines, mut batches) = (0, 0u64);
    loop {
        let batch = follower.poll(Instant::now()).expect("poll");
        lines += batch.lines.len();
        batches += 1;
        match batch.again {
            PollAgain::Now => {}
            PollAgain::At(_) | PollAgain::OnGrowth => break,
        }
    }
    assert_eq!((lines, batches), (500_000, 1_000_000 / BATCH_BYTES + 1));
}

#[test]
fn a_file_that_was_emptied_is_followed_from_its_new_beginning() {
    let shelf = Shelf::new();
    let source = shelf.source(0);
    let (_, mut follower) = Follower::start(std::slice::from_ref(&source), Start::Last(0)).expect("start");
    shelf.chunk(&source, 1, 1, b"before the flood\n");
    assert_eq!(poll(&mut follower), ["before the flood"]);
    std::fs::write(&source.path, "").expect("empty");
    shelf.chunk(&source, 2, 2, b"after\n");
    assert_eq!(poll(&mut follower), ["after"]);
}

#[test]
fn lines_since_a_time_come_in_order_however_unevenly_the_sources_print() {
    let shelf = Shelf::new();
    let (busy, quiet) = (shelf.source(0), shelf.source(1));
    for time_us in 0..400u64 {
        shelf.chunk(&busy, time_us * 10, 1, "much to tell\n".repeat(100).as_bytes());
        if time_us % 50 == 0 {
            shelf.chunk(&quiet, time_us * 10 + 5, 2, b"a word\n");
            rotate(&busy.path, 20).expect("rotate");
        }
    }
    let (lines, mut follower) = Follower::start(&[quiet, busy], Start::Since { time_us: 500 }).expect("start");
    assert!(lines.is_empty());
    let mut all = Vec::new();
    loop {
        let batch = follower.poll(Instant::now()).expect("poll");
        all.extend(batch.lines);
        match batch.again {
            PollAgain::Now => {}
            PollAgain::At(_) | PollAgain::OnGrowth => break,
        }
    }
    assert_eq!((all.len(), all[0].time_us), (350 * 100 + 7, 500));
    assert!(all.is_sorted_by_key(|line| line.time_us));
    assert!(follower.finish().is_empty());
}
