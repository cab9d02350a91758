//! The log thread where it is killed, and where the disk refuses.

use std::io::BufRead;
use std::path::PathBuf;
use std::process::Child;

use super::super::super::housekeeper::{Housekeeper, Retention};
use super::super::LogNews;
use super::*;

#[test]
fn lines_that_the_disk_refuses_are_counted_and_told_of_once_it_takes_lines_again() {
    let bench = Bench::new();
    std::fs::write(bench.dir.join("logs"), "in the way").expect("put a file where the folder belongs");
    let mut worker = bench.attach(1, Rotation::default());
    // Far more than the pipe holds: a worker that blocked for ever would never end.
    assert!(print_lines(worker.try_clone().expect("clone").into(), 50_000).wait().expect("wait").success());
    bench.flush();
    assert_eq!(bench.logs.dropped(), 5_000_000);
    std::fs::remove_file(bench.dir.join("logs")).expect("make way");
    writeln!(worker, "again").expect("print");
    let finished = bench.finish(1);
    assert_eq!(finished, Finished { written: 6, dropped: 5_000_000 });
    let (first, rest) = bench.read().split_once('\n').map(|(a, b)| (a.to_owned(), b.to_owned())).expect("two lines");
    assert!(first.starts_with("[agentd] 50000 lines dropped (5000000 bytes): "), "{first}");
    assert_eq!(rest, "again\n");
}

#[test]
fn a_full_disk_blocks_no_worker_and_the_file_tells_how_much_is_missing() {
    let bench = Bench::new();
    let Some(disk) = TinyDisk::mount(&bench.dir.join("logs")) else {
        eprintln!("not run: mounting needs root");
        return;
    };
    let mut worker = bench.attach(1, Rotation::default());
    std::fs::write(bench.dir.join("logs/ballast"), vec![0; 128 << 10]).expect("fill the disk in part");
    assert!(print_lines(worker.try_clone().expect("clone").into(), 50_000).wait().expect("wait").success());
    bench.flush();
    let dropped = bench.logs.dropped();
    assert!(dropped > 4_000_000);
    std::fs::remove_file(bench.dir.join("logs/ballast")).expect("make room");
    writeln!(worker, "again").expect("print");
    let finished = bench.finish(1);
    assert_eq!((finished.dropped, finished.written + dropped), (dropped, 5_000_000 + 6));
    let text = bench.read();
    let words = text.lines().find(|line| line.starts_with("[agentd] ")).expect("it tells what is missing");
    assert!(words.ends_with(&format!(" lines dropped ({dropped} bytes): no space left on device")), "{words}");
    let lines: u64 = words.split(' ').nth(1).and_then(|lines| lines.parse().ok()).expect("a number of lines");
    // A line that fell half into the file counts where its end is.
    assert!((dropped / 100..=dropped / 100 + 1).contains(&lines), "{words}");
    assert!(text.ends_with("again\n"));
    drop(bench);
    drop(disk);
}

const VICTIM: &str = "AGENTD_TEST_LOGS_HOME";

#[test]
fn a_supervisor_for_the_tests_below_to_hurt_and_nothing_when_run_alone() {
    let Ok(home) = std::env::var(VICTIM) else { return };
    let home = Utf8PathBuf::from(home);
    let fifo_path = home.join("run/fifo/web.0.1.out");
    let housekeeper = Housekeeper::start(home.join("logs")).expect("start");
    housekeeper.keep(&"web".parse().expect("a good name"), Retention { keep: 99, ..Retention::default() });
    housekeeper.sweep();
    let doorbell = housekeeper.doorbell();
    let tell = move |news| {
        if let LogNews::Rotated { path } = news {
            doorbell.rotated(path);
        }
    };
    let logs = LogThread::start_telling(Box::new(tell)).expect("start");
    let rotation = Rotation { max_size: 2 << 20, keep: 99, ..Rotation::default() };
    let fifo = reopen(&fifo_path).expect("reopen");
    let path = home.join("logs/web/0.out.log");
    let to = Target::File { path, rotation };
    logs.attach(vec![Stream { id: StreamId(1), fifo: Inlet::new(fifo), fifo_path: None, launch: Launch(1), to }])
        .expect("attach");
    println!("attached");
    // Ends with the test that started it, should that fail before it kills.
    let _ = io::stdin().read_line(&mut String::new());
}

fn exe() -> PathBuf {
    std::env::current_exe().expect("this test")
}

/// Starts this test's program again as a supervisor of one stream; `program` names it last.
fn start_victim(mut program: Program, home: &Utf8PathBuf) -> Child {
    let name = "logs::thread::tests::survival::a_supervisor_for_the_tests_below_to_hurt_and_nothing_when_run_alone";
    program.args(["--exact", name, "--nocapture"]).env(VICTIM, home).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut victim = program.spawn().expect("start a supervisor");
    let mut output = io::BufReader::new(victim.stdout.take().expect("its output"));
    let mut line = String::new();
    while !line.contains("attached") {
        line.clear();
        assert!(output.read_line(&mut line).expect("read its output") > 0, "the supervisor ended early");
    }
    victim
}

#[test]
fn killing_the_supervisor_again_and_again_loses_doubles_and_garbles_no_line() {
    const LINES: usize = 300_000;
    let bench = Bench::new();
    let path = bench.dir.join("run/fifo/web.0.1.out");
    let Fifo { supervisor, worker } = Fifo::create(&path).expect("create the FIFO");
    let mut program = print_lines(worker.into(), LINES);
    let mut kills = 0u32;
    let start = Instant::now();
    while program.try_wait().expect("look at the program").is_none() {
        assert!(start.elapsed() < DEADLINE, "the program did not end in time");
        let mut victim = start_victim(Program::new(exe()), &bench.dir);
        // Not to wait for anything: so that each dies at another point of its work.
        std::thread::sleep(Duration::from_micros(u64::from(kills * 997 % 9000)));
        victim.kill().expect("kill -9");
        victim.wait().expect("wait");
        kills += 1;
    }
    bench.attach_end(1, supervisor, path, Rotation { max_size: 2 << 20, keep: 99, ..Rotation::default() });
    bench.finish(1);
    let source = bench.source();
    let lines = tail(&[source], usize::MAX).expect("read back");
    let entries = bench.dir.join("logs/web").read_dir_utf8().expect("list");
    let packed = entries.filter(|entry| entry.as_ref().is_ok_and(|entry| entry.path().extension() == Some("zst")));
    eprintln!("{kills} kills, {} lines, {} packed files", lines.len(), packed.count());
    assert!(lines.iter().map(|line| line.text.parse::<usize>().expect("a whole line")).eq(0..LINES));
    assert!(lines.iter().all(|line| line.launch == Some(Launch(1))));
    assert!(lines.is_sorted_by_key(|line| line.time_us));
}

#[test]
fn a_file_size_limit_ends_neither_the_supervisor_nor_the_worker() {
    let bench = Bench::new();
    let path = bench.dir.join("run/fifo/web.0.1.out");
    let Fifo { supervisor: _supervisor, worker } = Fifo::create(&path).expect("create the FIFO");
    let mut limited = Program::new("sh");
    // 64 blocks of 512 bytes.
    limited.args(["-c", "ulimit -f 64; exec \"$0\" \"$@\""]).arg(exe());
    let mut victim = start_victim(limited, &bench.dir);
    // More than the pipe and the limit together hold.
    assert!(print_lines(worker.into(), 20_000).wait().expect("wait").success());
    assert_eq!(victim.try_wait().expect("look at the supervisor"), None);
    victim.kill().expect("kill");
    victim.wait().expect("wait");
    assert_eq!(bench.read().len(), 64 * 512);
}

/// A file system of 256 KiB.
struct TinyDisk(Utf8PathBuf);

impl TinyDisk {
    fn mount(at: &Utf8PathBuf) -> Option<Self> {
        std::fs::create_dir(at).expect("make the mount point");
        let mounted = nix::mount::mount(
            Some("tmpfs"),
            at.as_std_path(),
            Some("tmpfs"),
            nix::mount::MsFlags::empty(),
            Some("size=256k"),
        );
        mounted.is_ok().then(|| Self(at.clone()))
    }
}

impl Drop for TinyDisk {
    fn drop(&mut self) {
        nix::mount::umount2(self.0.as_std_path(), nix::mount::MntFlags::MNT_DETACH).expect("unmount");
    }
}
