//! Every admitted task completes exactly once, whatever happens to its workers: reloads and kills under a load of short,
//! long and checkpointing tasks, judged by a service outside.
//!
//! The workers are `tests/apps/tasker.py`. A task's effects and its end are posted to [`Outside`] by their idempotency
//! keys; in the end every key of every admitted task must be there, and every task must have ended well.

use std::collections::BTreeSet;
use std::fmt;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use agentd_protocol::control::{EffectJudgement, TaskChange, TaskChangeParams, TaskState, TasksParams};
use serde_json::{Value, json};

use crate::e2e::{Daemon, Outside};

/// What a run does.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The daemon's program.
    pub agentd: PathBuf,
    /// The workers' program.
    pub tasker: PathBuf,
    /// Reloads, one after the other.
    pub reloads: u32,
    /// Workers killed by SIGKILL, spread over the run.
    pub kills: u32,
    /// Kills of the daemon itself, spread over the run.
    pub daemon_kills: u32,
    /// Clients that each begin one task after the other.
    pub clients: u32,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Tasks that were admitted.
    pub admitted: u64,
    /// Of these, those whose keys were all seen outside and that ended well.
    pub completed: u64,
    /// Tasks that a reload let finish, handed over and lost, by its own report.
    pub finished: u64,
    /// See `finished`.
    pub handed_over: u64,
    /// See `finished`.
    pub lost: u64,
    /// Tasks parked after three crashes in a row, which a person (this program) let go on.
    pub parked: u64,
    /// Keys that were posted more than once: by a worker that was killed before it could say that it had.
    pub repeated: u64,
    /// What is wrong, at most the first few.
    pub wrong: Vec<String>,
    /// How long it took.
    pub took: Duration,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { admitted, completed, finished, handed_over, lost, parked, repeated, wrong, took } = self;
        writeln!(f, "{admitted} tasks admitted, {completed} completed exactly once, in {:.1} s", took.as_secs_f64())?;
        writeln!(f, "reloads: {finished} finished, {handed_over} handed over, {lost} lost")?;
        write!(f, "{parked} parked after three crashes and let go on; {repeated} keys repeated to the outside")?;
        wrong.iter().try_for_each(|wrong| write!(f, "\n  {wrong}"))
    }
}

/// How long everything may take to come to its end after the last reload.
const END_WITHIN: Duration = Duration::from_secs(120);

/// Runs it.
///
/// # Panics
/// When the daemon does not do as it must; what is wrong with tasks is in the report.
#[must_use]
pub fn run(plan: &Plan) -> Report {
    let began = Instant::now();
    let outside = Outside::start();
    let mut daemon = Daemon::start(&plan.agentd);
    let doors = daemon.home.path().join("t");
    let config = daemon.config(
        "tasker.toml",
        &format!(
            "[agent.work]\ncommand = [\"python3\", \"{}\"]\nworkers = 2\nready = \"protocol\"\n\
             env = {{ TASKER_SOCKET = \"{}\" }}\nrestart = {{ backoff = \"10ms..100ms\", max = \"100000 in 1s\" }}\n\
             grace = {{ default = \"20s\", min = \"1s\", max = \"40s\" }}\nreload = {{ settle = \"20ms\" }}\n\
             tasks = {{ lease = \"5s\", effects = {{ post = \"retry\" }} }}\n",
            plan.tasker.display(),
            doors.display()
        ),
    );
    daemon.ctl_ok(&["start", config.to_str().expect("a UTF-8 path")]);
    let over = AtomicBool::new(false);
    let mut report = Report::default();
    let mut admitted = BTreeSet::new();
    thread::scope(|scope| {
        let clients: Vec<_> = (0..plan.clients)
            .map(|client| {
                let (over, doors, url) = (&over, &doors, outside.url());
                scope.spawn(move || begin_tasks(client, doors, url, over))
            })
            .collect();
        disturb(&mut daemon, plan, &mut report);
        over.store(true, Ordering::Relaxed);
        for client in clients {
            admitted.extend(client.join().expect("a client counts what goes wrong and does not panic"));
        }
        await_end(&daemon, &mut report);
    });
    judge(&daemon, &outside, &admitted, &mut report);
    report.took = began.elapsed();
    report
}

/// A task as its client knows it: its id and how many steps it has.
type Admitted = (String, u64);

/// Begins one task after the other until it is over; returns those that were admitted.
fn begin_tasks(client: u32, doors: &Path, url: &str, over: &AtomicBool) -> Vec<Admitted> {
    let mut admitted = Vec::new();
    for number in 0_u64.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let (kind, input, steps) = match (u64::from(client) + number) % 4 {
            0 | 1 => ("sleep", json!({"pause": 0.02, "ledger": url}), 0),
            2 => ("steps", json!({"steps": 8, "pause": 0.05, "ledger": url}), 8),
            _ => ("sleep", json!({"pause": 0.8, "ledger": url}), 0),
        };
        let id = format!("{client:02}-{number:06}");
        let request = json!({"task": id, "key": id, "kind": kind, "input": input});
        // An answer that was lost with its worker: the same key again, at another.
        if (0..200).any(|_| admit(doors, &request, over)) {
            admitted.push((id, steps));
        }
        thread::sleep(Duration::from_millis(20));
    }
    admitted
}

/// Whether any worker took it, or has it already.
fn admit(doors: &Path, request: &Value, over: &AtomicBool) -> bool {
    let folder = doors.parent().expect("a file in a folder");
    let prefix = format!("{}.", doors.file_name().and_then(|name| name.to_str()).expect("UTF-8"));
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("the home is there")
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(&prefix)))
        .collect();
    found.sort_by_key(|path| std::fs::metadata(path).and_then(|about| about.modified()).ok());
    for door in found.iter().rev() {
        let Ok(stream) = UnixStream::connect(door) else { continue };
        let _ = stream.set_read_timeout(Some(Duration::from_secs(10)));
        if writeln!(&stream, "{request}").is_err() {
            continue;
        }
        let mut line = String::new();
        if BufReader::new(&stream).read_line(&mut line).is_ok_and(|read| read > 0) {
            return serde_json::from_str::<Value>(&line).is_ok_and(|answer| answer.get("task").is_some());
        }
    }
    // A pause between two tries, not a wait for something; nobody is there when the run is over.
    if !over.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(10));
    }
    false
}

/// Reloads, kills workers, kills the daemon.
fn disturb(daemon: &mut Daemon, plan: &Plan, report: &mut Report) {
    let share = |of: u32, round: u32| (of * (round + 1) / plan.reloads) - (of * round / plan.reloads);
    for round in 0..plan.reloads {
        for _ in 0..share(plan.kills, round) {
            thread::sleep(Duration::from_millis(100 + u64::from(round % 7) * 30));
            let workers = daemon.app("work").workers;
            let pid = workers.iter().filter_map(|worker| worker.pid).nth(round as usize % workers.len().max(1));
            if let Some(pid) = pid.and_then(|pid| i32::try_from(pid).ok()) {
                // It may have ended meanwhile.
                let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
            }
        }
        for _ in 0..share(plan.daemon_kills, round) {
            daemon.kill();
            daemon.start_again();
        }
        let output = daemon.ctl(&["reload", "work", "--json", "--timeout", "60s"]);
        match serde_json::from_str::<Value>(output.stdout.lines().last().unwrap_or_default()) {
            Ok(result) if output.code == Some(0) => {
                let tasks = &result["results"][0]["tasks"];
                report.finished += tasks["finished"].as_u64().unwrap_or(0);
                report.handed_over += tasks["handed_over"].as_u64().unwrap_or(0);
                report.lost += tasks["lost"].as_u64().unwrap_or(0);
                for lost in result["results"][0]["lost_tasks"].as_array().into_iter().flatten() {
                    report.wrong.push(format!("reload {round} lost {lost}"));
                }
            }
            // A worker that a kill of ours took down with its deployment is no failure of the reload.
            Ok(_) | Err(_) if output.code == Some(5) || output.code == Some(1) => {}
            Ok(_) | Err(_) => report.wrong.push(format!("reload {round}: {output:?}")),
        }
    }
}

/// Waits until nothing is open; lets parked tasks go on.
fn await_end(daemon: &Daemon, report: &mut Report) {
    let deadline = Instant::now() + END_WITHIN;
    loop {
        let states = vec![TaskState::Running, TaskState::Waiting, TaskState::Parked];
        let open = daemon.request(TasksParams { states, ..TasksParams::default() }).expect("a list");
        if open.tasks.is_empty() {
            return;
        }
        for task in open.tasks.iter().filter(|task| task.state == TaskState::Parked) {
            report.parked += 1;
            let effect = task.parked_effect.is_some().then_some(EffectJudgement::Redo);
            let change = TaskChange::Retry { effect };
            if let Err(why) = daemon.request(TaskChangeParams { task: task.id.clone(), change }) {
                report.wrong.push(format!("{} was not retried: {why}", task.id));
            }
        }
        if Instant::now() > deadline {
            report
                .wrong
                .extend(open.tasks.iter().map(|task| format!("{} is still {:?}", task.id, task.state)).take(10));
            return;
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// What is to be seen outside of every task, and what the daemon says of it.
fn judge(daemon: &Daemon, outside: &Outside, admitted: &BTreeSet<Admitted>, report: &mut Report) {
    let posted = outside.posted();
    report.admitted = admitted.len() as u64;
    report.repeated = posted.values().filter(|&&count| count > 1).count() as u64;
    for (id, steps) in admitted {
        let mut keys: Vec<String> = (1..=*steps).map(|step| format!("{id}:{step}:post")).collect();
        keys.push(format!("{id}:end"));
        let missing: Vec<&String> = keys.iter().filter(|key| !posted.contains_key(*key)).collect();
        let found = daemon.request(TasksParams { task: Some(id.clone()), ..TasksParams::default() }).expect("a list");
        let ended: Vec<_> = found.tasks.iter().map(|task| task.why.as_deref().unwrap_or("open")).collect();
        if missing.is_empty() && ended == ["ok"] {
            report.completed += 1;
        } else if report.wrong.len() < 20 {
            report.wrong.push(format!("{id}: ended {ended:?}, missing outside: {missing:?}"));
        }
    }
}
