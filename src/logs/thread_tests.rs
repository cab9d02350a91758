//! The log thread at work: real FIFOs, real files, real writers. Where it or the disk is hurt: `survival_tests.rs`.

use std::io::Write;
use std::process::{Command as Program, Stdio};
use std::time::{Duration, Instant};

use agentd_core::id::Slot;

use super::super::fifo::{Fifo, capacity, reopen};
use super::super::follow::{Follower, PollAgain, Start};
use super::super::layout::{Source, StreamKind, rotated, rotated_path};
use super::super::read::tail;
use super::*;

const DEADLINE: Duration = Duration::from_secs(30);

struct Bench {
    _guard: tempfile::TempDir,
    dir: Utf8PathBuf,
    logs: LogThread,
    runtime: tokio::runtime::Runtime,
}

impl Bench {
    fn new() -> Self {
        let guard = tempfile::tempdir().expect("a temporary folder");
        let dir = Utf8PathBuf::from_path_buf(guard.path().to_owned()).expect("a UTF-8 temporary folder");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        Self { _guard: guard, dir, logs: LogThread::start().expect("start the log thread"), runtime }
    }

    fn log(&self) -> Utf8PathBuf {
        self.dir.join("logs/web/0.out.log")
    }

    fn source(&self) -> Source {
        Source::new(&self.dir.join("logs"), &"web".parse().expect("a good name"), Slot(0), StreamKind::Out)
    }

    fn read(&self) -> String {
        std::fs::read_to_string(self.log()).expect("read the log")
    }

    fn attach(&self, id: u64, rotation: Rotation) -> std::fs::File {
        self.attach_watched(id, rotation).0
    }

    fn attach_watched(&self, id: u64, rotation: Rotation) -> (std::fs::File, Arc<Inlet>) {
        let path = self.dir.join(format!("run/fifo/web.0.{id}.out"));
        let Fifo { supervisor, worker } = Fifo::create(&path).expect("create the FIFO");
        let inlet = self.attach_end(id, supervisor, path, rotation);
        (worker.into(), inlet)
    }

    fn attach_end(&self, id: u64, fifo: OwnedFd, path: Utf8PathBuf, rotation: Rotation) -> Arc<Inlet> {
        let (launch, id, fifo) = (Launch(id), StreamId(id), Inlet::new(fifo));
        let to = Target::File { path: self.log(), rotation };
        let stream = Stream { id, fifo: Arc::clone(&fifo), fifo_path: Some(path), launch, to };
        self.logs.attach(vec![stream]).expect("attach");
        fifo
    }

    fn finish(&self, id: u64) -> Finished {
        let answer = self.logs.finish(vec![StreamId(id)]).expect("finish");
        self.runtime
            .block_on(async { tokio::time::timeout(DEADLINE, answer).await })
            .expect("finishing takes less than the deadline")
            .expect("the thread answers")
    }

    /// Waits until the file holds what `done` wants, woken by `grew` alone.
    fn until(&self, done: impl Fn(&str) -> bool) {
        let mut grew = self.logs.grew();
        let waited = self.runtime.block_on(async {
            tokio::time::timeout(DEADLINE, async {
                while !std::fs::read_to_string(self.log()).is_ok_and(|text| done(&text)) {
                    grew.changed().await.expect("the thread lives");
                }
            })
            .await
        });
        waited.expect("the log holds what was printed before the deadline");
    }

    fn flush(&self) {
        let answer = self.logs.flush().expect("flush");
        let waited = self.runtime.block_on(async { tokio::time::timeout(DEADLINE, answer).await });
        waited.expect("flushing takes less than the deadline").expect("the thread answers");
    }

    fn cpu(&self) -> Duration {
        let id = self.logs.thread_id().expect("the thread runs");
        let text = std::fs::read_to_string(format!("/proc/self/task/{id}/schedstat")).expect("read schedstat");
        Duration::from_nanos(text.split(' ').next().and_then(|ns| ns.parse().ok()).expect("nanoseconds"))
    }
}

/// Prints `count` numbered lines of 100 bytes, one `write` each, as an unbuffered program does.
fn print_lines(to: Stdio, count: usize) -> std::process::Child {
    let script = format!("import os\nfor i in range({count}): os.write(1, b'%099d\\n' % i)");
    Program::new("python3").args(["-c", &script]).stdout(to).spawn().expect("python3 starts")
}

fn numbers(text: &str) -> Vec<usize> {
    text.lines().map(|line| line.parse().expect("a whole numbered line")).collect()
}

#[test]
fn a_hundred_thousand_lines_arrive_once_each_and_cost_the_thread_next_to_nothing() {
    let bench = Bench::new();
    let worker = bench.attach(1, Rotation::default());
    bench.flush();
    let before = bench.cpu();
    let start = Instant::now();
    assert!(print_lines(worker.into(), 100_000).wait().expect("wait").success());
    let through_fifo = start.elapsed();
    let finished = bench.finish(1);
    let cpu = bench.cpu() - before;

    let start = Instant::now();
    let file = std::fs::File::create(bench.dir.join("direct")).expect("create");
    assert!(print_lines(file.into(), 100_000).wait().expect("wait").success());
    eprintln!("100k lines: FIFO {through_fifo:?}, file {:?}, log thread {cpu:?}", start.elapsed());

    assert_eq!(finished, Finished { written: 10_000_000, dropped: 0 });
    assert!(numbers(&bench.read()).into_iter().eq(0..100_000));
    assert!(cpu < Duration::from_millis(200), "the log thread took {cpu:?}");
}

#[test]
fn what_is_said_to_be_moved_is_in_the_file() {
    let bench = Bench::new();
    let (mut worker, inlet) = bench.attach_watched(1, Rotation::default());
    let mut printed = String::new();
    for line in 0..200 {
        let line = format!("line {line}\n");
        worker.write_all(line.as_bytes()).expect("print");
        printed += &line;
        let began = Instant::now();
        while !inlet.is_moved() {
            assert!(began.elapsed() < DEADLINE, "it is never said");
            std::thread::yield_now();
        }
        assert_eq!(bench.read(), printed, "said too early");
        let last = tail(&[bench.source()], 1).expect("read back");
        assert_eq!((last[0].text.as_str(), last[0].launch), (line.trim_end(), Some(Launch(1))), "its index lacks it");
    }
}

#[test]
fn bytes_that_wait_or_are_on_their_way_are_not_moved() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = Utf8PathBuf::from_path_buf(dir.path().join("fifo")).expect("a UTF-8 temporary folder");
    let Fifo { supervisor, worker } = Fifo::create(&path).expect("create the FIFO");
    let inlet = Inlet::new(supervisor);
    assert!(inlet.is_moved(), "nothing was printed");
    inlet.set_moving(true);
    assert!(!inlet.is_moved(), "something is on its way");
    inlet.set_moving(false);
    rustix::io::write(&worker, b"x").expect("print");
    assert!(!inlet.is_moved(), "something waits");
}

#[test]
fn what_is_printed_without_a_newline_is_in_the_file_at_once() {
    let bench = Bench::new();
    let mut worker = bench.attach(1, Rotation::default());
    worker.write_all(b"ready? ").expect("print");
    bench.until(|text| text == "ready? ");
}

#[test]
fn the_last_lines_are_in_the_file_before_finish_answers_and_the_fifo_is_gone() {
    let bench = Bench::new();
    for round in 1..=50 {
        let mut worker = bench.attach(round, Rotation::default());
        writeln!(worker, "last words of {round}").expect("print");
        drop(worker);
        bench.finish(round);
        assert!(bench.read().ends_with(&format!("last words of {round}\n")));
        assert!(!bench.dir.join(format!("run/fifo/web.0.{round}.out")).exists());
    }
    assert_eq!(bench.finish(99), Finished::default());
}

#[test]
fn a_next_supervisor_goes_on_with_the_fifo_and_the_file_of_the_last() {
    let mut bench = Bench::new();
    let mut worker = bench.attach(1, Rotation::default());
    writeln!(worker, "first").expect("print");
    bench.until(|text| text == "first\n");
    bench.logs = LogThread::start().expect("start another");
    writeln!(worker, "second").expect("print");
    let path = bench.dir.join("run/fifo/web.0.1.out");
    bench.attach_end(1, reopen(&path).expect("reopen"), path, Rotation::default());
    bench.finish(1);
    assert_eq!(bench.read(), "first\nsecond\n");
}

#[test]
fn a_thread_that_is_dropped_moves_what_waits_first() {
    let mut bench = Bench::new();
    let mut worker = bench.attach(1, Rotation::default());
    writeln!(worker, "in time").expect("print");
    bench.logs = LogThread::start().expect("start another");
    assert_eq!(bench.read(), "in time\n");
}

#[test]
fn two_launches_print_into_one_file_and_none_of_their_lines_is_lost() {
    let bench = Bench::new();
    let mut children: Vec<_> =
        (1..=2).map(|id| print_lines(bench.attach(id, Rotation::default()).into(), 20_000)).collect();
    for child in &mut children {
        assert!(child.wait().expect("wait").success());
    }
    bench.finish(1);
    bench.finish(2);
    let mut seen = numbers(&bench.read());
    seen.sort_unstable();
    assert!(seen.into_iter().eq((0..20_000).flat_map(|number| [number, number])));
}

#[test]
fn a_program_that_prints_without_end_is_bounded_and_what_is_kept_is_the_newest_in_order() {
    let bench = Bench::new();
    let rotation = Rotation { max_size: 4 << 20, keep: 2, ..Rotation::default() };
    let worker = bench.attach(1, rotation);
    assert!(print_lines(worker.into(), 300_000).wait().expect("wait").success());
    assert_eq!(bench.finish(1), Finished { written: 30_000_000, dropped: 0 });
    let mut text = String::new();
    let numbers_kept = rotated(&bench.log()).expect("list");
    assert_eq!(numbers_kept.len(), 2);
    for path in numbers_kept.into_iter().map(|number| rotated_path(&bench.log(), number)).chain([bench.log()]) {
        text.push_str(&std::fs::read_to_string(path).expect("a kept file"));
    }
    let chunk = 1 << 20;
    assert!(text.len() as u64 <= 3 * (rotation.max_size + chunk));
    let kept = numbers(&text);
    assert!(kept.iter().copied().eq(kept[0]..300_000));
}

#[test]
fn a_log_that_somebody_empties_removes_or_renames_is_gone_on_with() {
    let bench = Bench::new();
    let mut worker = bench.attach(1, Rotation::default());
    let sabotages: [fn(&Utf8PathBuf) -> io::Result<()>; 3] = [
        |path| std::fs::write(path, ""),
        |path| std::fs::remove_file(path),
        |path| std::fs::rename(path, path.with_file_name("elsewhere")),
    ];
    for sabotage in sabotages {
        writeln!(worker, "before").expect("print");
        bench.until(|text| text.ends_with("before\n"));
        sabotage(&bench.log()).expect("sabotage");
        writeln!(worker, "after").expect("print");
        bench.until(|text| text == "after\n");
    }
}

#[test]
fn silence_costs_no_processor_time() {
    let bench = Bench::new();
    let mut worker = bench.attach(1, Rotation::default());
    writeln!(worker, "hello").expect("print");
    bench.until(|text| text == "hello\n");
    let switches = || {
        let id = bench.logs.thread_id().expect("the thread runs");
        let status = std::fs::read_to_string(format!("/proc/self/task/{id}/status")).expect("read status");
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.expect("the line").trim().parse::<u64>().expect("a number")
    };
    // Observed for a while, which is what this is about; nothing is waited for.
    let woken = |_| {
        let before = switches();
        bench.runtime.block_on(async { tokio::time::sleep(Duration::from_millis(200)).await });
        switches() - before
    };
    // The first span may still hold the pause after the last line.
    assert!((0..2).map(woken).any(|times| times == 0), "a timer runs while nothing is printed");
}

#[test]
fn a_pipe_of_the_smallest_size_moves_everything_too() {
    let bench = Bench::new();
    let worker = bench.attach(1, Rotation::default());
    rustix::pipe::fcntl_setpipe_size(&worker, 4096).expect("shrink");
    assert_eq!(capacity(&worker).expect("capacity"), 4096);
    assert!(print_lines(worker.into(), 5_000).wait().expect("wait").success());
    assert_eq!(bench.finish(1).written, 500_000);
    assert!(numbers(&bench.read()).into_iter().eq(0..5_000));
}

#[test]
fn an_index_that_cannot_be_written_costs_times_and_no_line() {
    let bench = Bench::new();
    std::fs::create_dir_all(super::super::layout::index_path(&bench.log())).expect("a folder in the index's place");
    let mut worker = bench.attach(1, Rotation::default());
    writeln!(worker, "all the same").expect("print");
    assert_eq!(bench.finish(1).written, 13);
    let source = bench.source();
    let lines = tail(&[source], 5).expect("read back");
    assert_eq!((lines.len(), lines[0].launch), (1, None));
}

#[test]
fn a_follower_sees_every_line_of_a_fast_program_across_its_rotations() {
    let bench = Bench::new();
    let source = bench.source();
    let mut grew = bench.logs.grew();
    let (_, mut follower) = Follower::start(&[source], Start::Last(0)).expect("follow");
    let worker = bench.attach(1, Rotation { max_size: 1 << 20, keep: 20, ..Rotation::default() });
    let mut child = print_lines(worker.into(), 100_000);
    let mut seen = Vec::new();
    let followed = bench.runtime.block_on(async {
        tokio::time::timeout(DEADLINE, async {
            while seen.len() < 100_000 {
                let batch = follower.poll(Instant::now()).expect("poll");
                seen.extend(batch.lines.iter().map(|line| line.text.parse::<usize>().expect("a numbered line")));
                match batch.again {
                    PollAgain::Now => {}
                    PollAgain::At(_) | PollAgain::OnGrowth => grew.changed().await.expect("the thread lives"),
                }
            }
        })
        .await
    });
    assert!(child.wait().expect("wait").success());
    followed.expect("every line comes before the deadline");
    assert!(seen.into_iter().eq(0..100_000));
    bench.finish(1);
    assert!(rotated(&bench.log()).expect("list").len() >= 4);
}

#[path = "survival_tests.rs"]
mod survival;
