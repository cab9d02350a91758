//! Measures the task protocol of a running daemon: what `benches/bench.py tasks` runs. One line of JSON.
//!
//! Every worker is a process that sleeps; this program speaks for each with its token, from a thread of its own, so that
//! what is measured is the daemon and not somebody's SDK. What the SDKs reach is measured beside it, by `benches/workers`.
#![forbid(unsafe_code)]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use agentd_protocol::control::TasksParams;
use agentd_protocol::events::EventKind;
use agentd_testkit::e2e::{Daemon, Speaker};
use serde_json::{Value, json};

const USAGE: &str = "usage: tasks_bench [--agentd PATH] [--workers N] [--seconds N] [--tasks N] [--drains N]";
const PATIENCE: Duration = Duration::from_secs(60);
const TURN: Duration = Duration::from_millis(100);

/// Interpreters with the programs of `benches/workers` that begin and end tasks through an SDK.
const SDKS: [(&str, &str); 2] = [("node", "pairs.js"), ("python3", "pairs.py")];

struct Plan {
    agentd: PathBuf,
    workers: u32,
    seconds: u64,
    tasks: u32,
    drains: u32,
}

fn main() -> ExitCode {
    let Some(plan) = plan(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let (daemon, tokens) = start(&plan);
    // In turns: a disk that others use is not the same one a few seconds later.
    let (mut bare, mut one) = (Vec::new(), Vec::new());
    let mut beside = Bare::new();
    for _ in 0..10 * plan.seconds {
        bare.extend(beside.commits(TURN));
        one.extend(checkpoints(&daemon, &tokens[..1], TURN).0);
    }
    let (bare, one) = (summary(bare), summary(one));
    let all = of_all(&daemon, &tokens, plan.seconds);
    let pairs = pairs(&daemon, &tokens[0], plan.seconds);
    let memory = memory(&daemon, &tokens[0], plan.tasks);
    let drains = drains(&daemon, plan.drains);
    let sdks: Value =
        SDKS.map(|(sdk, program)| (sdk, through(&daemon, sdk, program, plan.seconds))).into_iter().collect();
    let ratio = one["p50_ms"].as_f64().zip(bare["p50_ms"].as_f64()).map(|(one, bare)| one / bare);
    println!(
        "{}",
        json!({
            "bare_sqlite_commit": bare, "one_worker_ckpt": one, "one_worker_over_bare_p50": ratio,
            "ckpt": all, "workers": plan.workers, "begin_end": pairs, "begin_end_through_the_sdk": sdks, "memory": memory, "drain_wasted": drains,
        })
    );
    ExitCode::SUCCESS
}

fn plan(mut args: impl Iterator<Item = String>) -> Option<Plan> {
    // Beside this program, as cargo builds them.
    let beside = std::env::current_exe().ok()?.with_file_name("agentd");
    let mut plan = Plan { agentd: beside, workers: 50, seconds: 5, tasks: 10_000, drains: 20 };
    while let Some(arg) = args.next() {
        let value = args.next()?;
        match arg.as_str() {
            "--agentd" => plan.agentd = value.into(),
            "--workers" => plan.workers = value.parse().ok()?,
            "--seconds" => plan.seconds = value.parse().ok()?,
            "--tasks" => plan.tasks = value.parse().ok()?,
            "--drains" => plan.drains = value.parse().ok()?,
            _ => return None,
        }
    }
    (plan.workers > 0).then_some(plan)
}

/// p50, p99 and the like of durations, in ms.
fn summary(mut took: Vec<Duration>) -> Value {
    took.sort();
    let at = |share: f64| {
        let index = ((took.len() as f64 * share) as usize).min(took.len().saturating_sub(1));
        took.get(index).map(|took| took.as_secs_f64() * 1000.0)
    };
    json!({"n": took.len(), "p50_ms": at(0.5), "p99_ms": at(0.99), "max_ms": at(1.0)})
}

/// 8 KiB of which no page is as at another step: SQLite does not write what is the same.
fn state(step: u64) -> String {
    format!("{step:08}").repeat(1024)
}

/// A database beside the daemon's, WAL and FULL, on the same disk and kept as long.
struct Bare {
    db: rusqlite::Connection,
    steps: std::ops::RangeFrom<u64>,
    _folder: tempfile::TempDir,
}

impl Bare {
    fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("agentd-bench-").tempdir_in("/tmp").expect("a folder");
        let db = rusqlite::Connection::open(folder.path().join("bare.db")).expect("a database");
        for (name, value) in [("journal_mode", "WAL"), ("synchronous", "FULL")] {
            db.pragma_update(None, name, value).expect("a pragma");
        }
        db.pragma_update(None, "wal_autocheckpoint", 4096).expect("a pragma");
        db.execute("CREATE TABLE ckpt (task TEXT, step INTEGER, value BLOB)", []).expect("a table");
        Self { db, steps: 1.., _folder: folder }
    }

    /// What SQLite itself takes for 8 KiB and a commit.
    fn commits(&mut self, time: Duration) -> Vec<Duration> {
        let (began, mut took) = (Instant::now(), Vec::new());
        for step in self.steps.by_ref() {
            let value = state(step).into_bytes();
            let asked = Instant::now();
            let mut statement = self.db.prepare_cached("INSERT INTO ckpt VALUES ('a', ?1, ?2)").expect("a statement");
            statement.execute((step.cast_signed(), &value)).expect("written");
            took.push(asked.elapsed());
            if began.elapsed() >= time {
                break;
            }
        }
        took
    }
}

/// A daemon with sleeping workers, and their tokens by slot.
fn start(plan: &Plan) -> (Daemon, Vec<String>) {
    let daemon = Daemon::start(&plan.agentd);
    let config = daemon.config(
        "bench.toml",
        &format!(
            "[agent.bench]\ncommand = [\"sh\", \"-c\", \"env > e.$AGENTD_SLOT; mv e.$AGENTD_SLOT env.$AGENTD_SLOT; exec sleep 100000\"]\n\
             workers = {}\n[agent.drain]\ncommand = [\"sh\", \"-c\", \"env > d; mv d env.drain.$AGENTD_GENERATION; exec sleep 100000\"]\n\
             reload = {{ settle = \"0s\" }}\n",
            plan.workers
        ),
    );
    daemon.ctl_ok(&["start", config.to_str().expect("a UTF-8 path")]);
    let tokens = (0..plan.workers).map(|slot| token(&daemon.home.path().join(format!("env.{slot}")))).collect();
    (daemon, tokens)
}

fn token(path: &Path) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let environment = std::fs::read_to_string(path).unwrap_or_default();
        if let Some(token) = environment.lines().find_map(|line| line.strip_prefix("AGENTD_WORKER_TOKEN=")) {
            return token.to_owned();
        }
        assert!(Instant::now() < deadline, "{} was not written", path.display());
        thread::sleep(Duration::from_millis(5));
    }
}

/// Acknowledged checkpoints of 8 KiB of all workers at the same time.
fn of_all(daemon: &Daemon, tokens: &[String], seconds: u64) -> Value {
    let before = cpu(daemon.pid());
    let (took, elapsed) = checkpoints(daemon, tokens, Duration::from_secs(seconds));
    let elapsed = elapsed.as_secs_f64();
    let mut figures = summary(took);
    figures["per_second"] = (figures["n"].as_f64().unwrap_or(0.0) / elapsed).into();
    figures["cpu_percent"] = ((cpu(daemon.pid()) - before) / elapsed * 100.0).into();
    figures
}

/// Acknowledged checkpoints of 8 KiB, one after the other for each worker: how long each took, and all.
fn checkpoints(daemon: &Daemon, tokens: &[String], time: Duration) -> (Vec<Duration>, Duration) {
    let (socket, began) = (daemon.worker_socket(), Instant::now());
    let until = began + time;
    let took = thread::scope(|scope| {
        let workers: Vec<_> = tokens
            .iter()
            .map(|token| {
                let socket = &socket;
                scope.spawn(move || {
                    let mut worker = Speaker::hello(socket, token, 0);
                    let begun = worker.ask(json!({"t":"task.begin","kind":"bench"}));
                    let task = begun["task"].as_str().expect("a task").to_owned();
                    let mut took = Vec::new();
                    for step in 1_u64.. {
                        if Instant::now() >= until {
                            break;
                        }
                        let line = format!(
                            "{{\"t\":\"ckpt\",\"n\":{},\"task\":\"{task}\",\"fence\":1,\"step\":{step},\"json\":\"{}\"}}\n",
                            step + 10,
                            state(step)
                        );
                        let asked = Instant::now();
                        worker.send(line.as_bytes());
                        let answer = worker.next().expect("an answer");
                        assert_eq!(answer["ok"], true, "{answer}");
                        took.push(asked.elapsed());
                    }
                    worker.ask(json!({"t":"task.end","task":task,"fence":1,"outcome":"ok"}));
                    took
                })
            })
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("a worker")).collect()
    });
    (took, began.elapsed())
}

/// `task.begin` and `task.end` of one worker that has many tasks at a time: how many a second, and the daemon's processor
/// time for 10,000 of them.
fn pairs(daemon: &Daemon, token: &str, seconds: u64) -> Value {
    const AT_ONCE: u64 = 256;
    let mut worker = Speaker::hello(&daemon.worker_socket(), token, 0);
    let (before, began) = (cpu(daemon.pid()), Instant::now());
    let mut done = 0_u64;
    while began.elapsed() < Duration::from_secs(seconds) {
        let mut lines = Vec::new();
        for number in done..done + AT_ONCE {
            let id = format!("{:08x}-{number:08x}", u32::from(began.elapsed().subsec_nanos() == 0));
            writeln!(lines, "{{\"t\":\"task.begin\",\"n\":{},\"task\":\"p{id}\",\"kind\":\"pair\"}}", 2 * number + 10)
                .expect("memory takes all");
            writeln!(
                lines,
                "{{\"t\":\"task.end\",\"n\":{},\"task\":\"p{id}\",\"fence\":1,\"outcome\":\"ok\",\"tokens_in\":10}}",
                2 * number + 11
            )
            .expect("memory takes all");
        }
        worker.send(&lines);
        for _ in 0..2 * AT_ONCE {
            let answer = worker.next().expect("an answer");
            assert_eq!(answer["ok"], true, "{answer}");
        }
        done += AT_ONCE;
    }
    let (elapsed, busy) = (began.elapsed().as_secs_f64(), cpu(daemon.pid()) - before);
    let per_second = done as f64 / elapsed;
    json!({
        "n": done, "per_second": per_second, "cpu_percent": busy / elapsed * 100.0,
        "cpu_percent_at_10000": busy / done as f64 * 10_000.0 * 100.0,
    })
}

/// `task.begin` and `task.end` of one worker through an SDK: how many a second, its own processor time, the daemon's.
fn through(daemon: &Daemon, interpreter: &str, program: &str, seconds: u64) -> Value {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("it is in the repository");
    let (program, library) = (root.join("benches/workers").join(program), root.join("sdk/python"));
    let result = daemon.home.path().join(format!("{interpreter}.json"));
    let config = daemon.config(
        &format!("{interpreter}.toml"),
        &format!(
            "[agent.{interpreter}]\ncommand = [{interpreter:?}, {program:?}]\nready = \"protocol\"\n\
             env = {{ SECONDS = \"{seconds}\", RESULT = {result:?}, PYTHONPATH = {library:?} }}\n"
        ),
    );
    let before = cpu(daemon.pid());
    daemon.ctl_ok(&["start", config.to_str().expect("a UTF-8 path")]);
    let deadline = Instant::now() + PATIENCE + Duration::from_secs(seconds);
    while !result.exists() {
        assert!(Instant::now() < deadline, "{} was not written", result.display());
        thread::sleep(Duration::from_millis(20));
    }
    let busy = cpu(daemon.pid()) - before;
    let mut figures: Value =
        serde_json::from_slice(&std::fs::read(&result).expect("it was written")).expect("the worker writes JSON");
    let done = figures["n"].as_f64().unwrap_or(1.0);
    figures["daemon_cpu_percent_at_10000"] = (busy / done * 10_000.0 * 100.0).into();
    daemon.ctl_ok(&["delete", interpreter]);
    figures
}

/// Memory that open tasks take.
fn memory(daemon: &Daemon, token: &str, tasks: u32) -> Value {
    let mut worker = Speaker::hello(&daemon.worker_socket(), token, 0);
    let before = resident(daemon.pid());
    for chunk in 0..tasks / 100 {
        let mut lines = Vec::new();
        for number in 0..100 {
            let id = chunk * 100 + number;
            writeln!(lines, "{{\"t\":\"task.begin\",\"n\":{},\"task\":\"0193fe00-0000-7000-8000-{id:012}\",\"kind\":\"open\",\"session\":\"s{id}\",\"input\":{{}}}}", id + 10)
                .expect("memory takes all");
        }
        worker.send(&lines);
        for _ in 0..100 {
            assert_eq!(worker.next().expect("an answer")["ok"], true);
        }
    }
    let grown = resident(daemon.pid()).saturating_sub(before);
    let listed = daemon.request(TasksParams { limit: 1, ..TasksParams::default() }).expect("a list").tasks.len();
    assert_eq!(listed, 1);
    json!({"tasks": tasks, "grown_bytes": grown, "mib_per_10000": grown as f64 / f64::from(tasks) * 10_000.0 / 1_048_576.0})
}

/// From the answer to the last task's end until the worker is told to end.
fn drains(daemon: &Daemon, rounds: u32) -> Value {
    let mut took = Vec::new();
    for round in 1..=rounds {
        let token = token(&daemon.home.path().join(format!("env.drain.{round}")));
        let mut worker = Speaker::hello(&daemon.worker_socket(), &token, 0);
        let begun = worker.ask(json!({"t":"task.begin","kind":"drained"}));
        let mut watch = daemon.watch();
        daemon.ctl_ok(&["reload", "drain", "--no-wait"]);
        worker.await_message("drain");
        thread::sleep(Duration::from_millis(150 + u64::from(round % 10) * 17));
        worker.ask(json!({"t":"task.end","task":begun["task"],"fence":1,"outcome":"ok"}));
        let ended = now_us();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let event = watch.next(deadline).expect("it is told to end");
            if matches!(event.event, EventKind::WorkerStopping { .. }) {
                let waited = event.at.as_microsecond() - ended;
                took.push(Duration::from_micros(u64::try_from(waited).unwrap_or(0)));
                break;
            }
        }
        daemon.wait_until(PATIENCE, |seen| {
            seen.apps.iter().any(|app| app.name == "drain" && app.deployment.is_none() && app.workers.len() == 1)
        });
    }
    summary(took)
}

fn now_us() -> i64 {
    agentd_protocol::Timestamp::now().as_microsecond()
}

/// Processor seconds that a process has used.
fn cpu(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the daemon runs");
    let fields: Vec<&str> = stat.rsplit(") ").next().expect("a name in brackets").split(' ').collect();
    let ticks: u64 = [11, 12].iter().map(|&at| fields[at].parse::<u64>().expect("ticks")).sum();
    // The kernel's unit for people, whatever its own tick.
    ticks as f64 / 100.0
}

/// Bytes of a process in memory.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the daemon runs");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("the kernel tells");
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().expect("a number") * 1024
}
