//! The daemon that the demo starts, in a home of its own, with the apps of `etc/agentd.toml`.
//!
//! Owns the folder, the daemon and its end. The configuration is the example as it stands, but for its two ports (somebody
//! may have them) and for programs that this machine lacks, in whose place the Rust sample works. What the skill's
//! releases are cut from is copied into the folder, so that `etc/` stays as it is.

use std::fmt::{self, Display};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use agentd_protocol::control::{OperationState, TaskCounts, TaskList, TaskState, TaskView};
use agentd_protocol::events::{Event, EventKind};
use agentd_protocol::exit;
use agentd_protocol::status::{StatusDocument, WorkerState};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Deserialize;
use tempfile::TempDir;

use crate::failure::DemoError;

/// How long the daemon may take to end.
const END_WITHIN: Duration = Duration::from_secs(20);

/// How long a killed worker's successor may take to serve.
const RESTART_WITHIN: Duration = Duration::from_secs(20);

/// Where the example stands, from the checkout.
const EXAMPLE: &str = "etc/agentd.toml";

/// The folder that the skill's releases are cut from, beside the example and beside the daemon's copy of it.
const SKILL: &str = "skill";

/// How many steps the long task has: it outlasts a reload or two.
pub(crate) const CHAPTERS: usize = 60;

/// What the long task sends goes into this file of the home.
const OUTBOX: &str = "outbox";

/// Commands of the example, whether they are Python's or Node's, and what the sample is told to do in their place.
const STAND_INS: [(&str, bool, &str); 3] = [
    ("command = [\"python3\", \"agent.py\"", true, "agent <&{fd:http}"),
    ("command = [\"python3\", \"writer.py\"", true, "writer"),
    ("command = [\"node\"", false, "skill <&{fd:http}"),
];

/// The app that has releases.
pub(crate) const SKILL_APP: &str = "sample-skill";

/// The app that takes no requests, and works on one long task.
pub(crate) const WRITER_APP: &str = "sample-writer";

/// How long the long task may take, beyond everything else that is shown.
const TASK_WITHIN: Duration = Duration::from_secs(30);

/// One of the two apps that take requests.
#[derive(Clone, Debug)]
pub(crate) struct App {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    /// What it is written in.
    pub(crate) runtime: &'static str,
    /// What it does on SIGTERM.
    pub(crate) manner: &'static str,
}

/// What agentctl prints of operations.
#[derive(Debug, Deserialize)]
struct Changed {
    results: Vec<Reload>,
}

/// How one reload or upgrade of one app went.
#[derive(Debug, Deserialize)]
pub(crate) struct Reload {
    pub(crate) app: String,
    pub(crate) state: OperationState,
    pub(crate) duration_ms: u64,
    pub(crate) why: Option<String>,
    #[serde(default)]
    pub(crate) tasks: TaskCounts,
}

/// A long task when it is over, and what it did to the world outside.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) task: TaskView,
    /// What it sent, in order; by its effects' keys.
    pub(crate) sent: Vec<String>,
}

/// A worker that was killed, and how long it took until its slot had a process and a worker that serves.
#[derive(Debug)]
pub(crate) struct Killed {
    pub(crate) pid: i32,
    started: Duration,
    ready: Duration,
}

impl Display for Killed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (started, ready) = (self.started.as_millis(), self.ready.as_millis());
        write!(f, "new process after {started} ms, ready after {ready} ms")
    }
}

/// The daemon's home and its binaries.
pub(crate) struct Instance {
    home: TempDir,
    programs: PathBuf,
    /// Where the example stands.
    etc: PathBuf,
    config: PathBuf,
    apps: [App; 2],
    daemon: Mutex<Option<Child>>,
}

impl Instance {
    /// Writes the configuration into a folder of its own; starts nothing.
    pub(crate) fn new() -> Result<Self, DemoError> {
        let own = std::env::current_exe().map_err(DemoError::OwnFolder)?;
        let programs = own.parent().unwrap_or(Path::new(".")).to_owned();
        let home = tempfile::Builder::new().prefix("agentd-demo-").tempdir().map_err(DemoError::Folder)?;
        let example = PathBuf::from(EXAMPLE);
        let text = fs::read_to_string(&example).map_err(|source| DemoError::Read { path: example.clone(), source })?;
        let etc = fs::canonicalize("etc").map_err(|source| DemoError::Read { path: "etc".into(), source })?;
        let [agent, skill] = free_ports()?;
        let new_enough = "import asyncio, sys; sys.exit(sys.version_info < (3, 9))";
        let (python, node) = (runs("python3", &["-c", new_enough]), runs("node", &["--version"]));
        let apps = [
            App {
                name: "sample",
                address: agent,
                runtime: if python { "Python asyncio" } else { "Rust (no python3)" },
                manner: "drains itself on SIGTERM",
            },
            App {
                name: SKILL_APP,
                address: skill,
                runtime: if node { "Node http" } else { "Rust (no node)" },
                manner: "dies on SIGTERM",
            },
        ];
        let outbox = toml_text(&home.path().join(OUTBOX).display().to_string());
        let sample = programs.join("sample");
        let mut adapted = String::new();
        for line in text.lines() {
            let line = line.replace("127.0.0.1:8080", &agent.to_string()).replace("127.0.0.1:8081", &skill.to_string());
            let ours = format!("env = {{ OUTBOX = {outbox}, CHAPTERS = \"{CHAPTERS}\", PYTHONPATH");
            let line = line.replace("env = { PYTHONPATH", &ours);
            let stand_in = STAND_INS
                .iter()
                .find(|(command, python_s, _)| line.starts_with(command) && !(if *python_s { python } else { node }));
            match stand_in {
                None => adapted.push_str(&line),
                Some((_, _, arguments)) => {
                    let script = format!("exec '{}' {arguments}", sample.display());
                    adapted.push_str(&format!("command = [\"sh\", \"-c\", {}]", toml_text(&script)));
                }
            }
            adapted.push('\n');
            if line.starts_with("command = [\"python3\"") {
                adapted.push_str(&format!("cwd = {}\n", toml_text(&etc.display().to_string())));
            }
        }
        copy_files(&etc.join(SKILL), &home.path().join(SKILL))?;
        let config = home.path().join("agentd.toml");
        fs::write(&config, adapted).map_err(|source| DemoError::Write { path: config.clone(), source })?;
        Ok(Self { home, programs, etc, config, apps, daemon: Mutex::new(None) })
    }

    pub(crate) fn apps(&self) -> &[App] {
        &self.apps
    }

    /// Starts the daemon and both apps, and waits until they serve.
    pub(crate) fn start(&self) -> Result<(), DemoError> {
        let program = self.programs.join("agentd");
        let started = fs::File::create(self.log())
            .and_then(|log| {
                let mut command = Command::new(&program);
                command.arg("--home").arg(self.home.path()).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
                // Ctrl-C is for the demo, which ends the daemon in order.
                command.process_group(0).spawn()
            })
            .map_err(|source| DemoError::Program { program, source })?;
        *self.daemon() = Some(started);
        self.await_daemon()?;
        let config = self.config.display().to_string();
        self.agentctl(&["start", &config]).map(drop)
    }

    /// Reloads both apps at once.
    pub(crate) fn reload_all(&self) -> Result<Vec<Reload>, DemoError> {
        self.change(&["reload", "all", "--json"])
    }

    /// Puts a release of `etc/releases` over the skill's source, and ships what that makes.
    pub(crate) fn ship(&self, release: &str) -> Result<Vec<Reload>, DemoError> {
        copy_files(&self.etc.join("releases").join(release), &self.home.path().join(SKILL))?;
        self.change(&["upgrade", SKILL_APP, "--json"])
    }

    /// What became of the app of each operation; one that was taken back is an answer as well.
    fn change(&self, arguments: &[&str]) -> Result<Vec<Reload>, DemoError> {
        let said = self.agentctl_allowing(arguments, &[exit::DONE, exit::ROLLED_BACK])?;
        let changed: Changed = parse(&arguments.join(" "), said)?;
        Ok(changed.results)
    }

    /// Kills a worker that serves, and waits until the next process in its slot does.
    pub(crate) fn kill_one_worker(&self) -> Result<Killed, DemoError> {
        let document: StatusDocument = parse("ls --json", self.agentctl(&["ls", "--json"])?)?;
        let mut workers = document.apps.iter().flat_map(|app| &app.workers);
        let victim = workers.find(|worker| worker.state == WorkerState::Ready).ok_or(DemoError::NoVictim)?;
        let pid = victim.pid.and_then(|pid| i32::try_from(pid).ok()).ok_or(DemoError::NoVictim)?;
        let events = self.events_after(document.seq)?;
        kill(Pid::from_raw(pid), Signal::SIGKILL).map_err(|source| DemoError::Kill { pid, source })?;
        let killed_at = Instant::now();
        let mut started = None;
        for event in events.filter(|event| event.worker.as_deref() == Some(&victim.id)) {
            match (event.event, started) {
                (EventKind::WorkerStarting { .. }, _) => started = Some(killed_at.elapsed()),
                (EventKind::WorkerReady { .. }, Some(started)) => {
                    return Ok(Killed { pid, started, ready: killed_at.elapsed() });
                }
                // The exit, the wait before the restart, and whatever later versions tell.
                _ => {}
            }
        }
        Err(DemoError::NoRestart { seconds: RESTART_WITHIN.as_secs() })
    }

    /// Waits until the long task is over; what became of it.
    pub(crate) fn await_written(&self) -> Result<Written, DemoError> {
        let deadline = Instant::now() + TASK_WITHIN;
        loop {
            let command = ["tasks", WRITER_APP, "--json"];
            let list: TaskList = parse(&command.join(" "), self.agentctl(&command)?)?;
            let over = list.tasks.into_iter().find(|task| task.state == TaskState::Ended);
            if let Some(task) = over {
                let path = self.home.path().join(OUTBOX);
                let text = fs::read_to_string(&path).map_err(|source| DemoError::Read { path, source })?;
                return Ok(Written { task, sent: text.lines().map(str::to_owned).collect() });
            }
            if Instant::now() > deadline {
                return Err(DemoError::NoEnd { seconds: TASK_WITHIN.as_secs() });
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Ends the workers, then the daemon. Whoever comes second finds nothing to do.
    pub(crate) fn end(&self) -> Result<(), DemoError> {
        let mut daemon = self.daemon();
        let Some(mut child) = daemon.take() else { return Ok(()) };
        let asked = self.agentctl(&["daemon", "stop"]);
        let pid = child.id();
        let deadline = Instant::now() + END_WITHIN;
        while Instant::now() < deadline {
            if !matches!(child.try_wait(), Ok(None)) {
                let path = self.home.path().to_owned();
                // Here, not when the last owner goes: the thread that waits for signals outlives the story.
                fs::remove_dir_all(&path).map_err(|source| DemoError::Remove { path, source })?;
                return asked.map(drop);
            }
            thread::sleep(Duration::from_millis(10));
        }
        Err(DemoError::DaemonStays { pid, seconds: END_WITHIN.as_secs(), log: self.log() })
    }

    fn daemon(&self) -> std::sync::MutexGuard<'_, Option<Child>> {
        self.daemon.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn log(&self) -> PathBuf {
        self.home.path().join("agentd.log")
    }

    /// The status socket, once somebody listens there.
    fn await_daemon(&self) -> Result<(), DemoError> {
        let path = self.status_socket();
        let deadline = Instant::now() + END_WITHIN;
        loop {
            match UnixStream::connect(&path) {
                Ok(_) => return Ok(()),
                Err(_) if Instant::now() < deadline => thread::sleep(Duration::from_millis(5)),
                Err(source) => return Err(DemoError::Watch { path, source }),
            }
        }
    }

    fn status_socket(&self) -> PathBuf {
        self.home.path().join("run/status.sock")
    }

    /// The events that follow number `seq`, until none comes for [`RESTART_WITHIN`].
    fn events_after(&self, seq: u64) -> Result<impl Iterator<Item = Event>, DemoError> {
        let path = self.status_socket();
        let watched = UnixStream::connect(&path).and_then(|mut socket| {
            socket.set_read_timeout(Some(RESTART_WITHIN))?;
            socket.write_all(format!("{{\"watch\":true,\"since\":{seq}}}\n").as_bytes())?;
            Ok(socket)
        });
        let socket = watched.map_err(|source| DemoError::Watch { path, source })?;
        // The document comes first.
        let lines = BufReader::new(socket).lines().map_while(Result::ok).skip(1);
        Ok(lines.filter_map(|line| serde_json::from_str(&line).ok()))
    }

    fn agentctl(&self, arguments: &[&str]) -> Result<String, DemoError> {
        self.agentctl_allowing(arguments, &[exit::DONE])
    }

    /// What agentctl prints, if it ends with one of these codes.
    fn agentctl_allowing(&self, arguments: &[&str], codes: &[u8]) -> Result<String, DemoError> {
        let program = self.programs.join("agentctl");
        let output = Command::new(&program)
            .args(arguments)
            .env("AGENTD_HOME", self.home.path())
            .stdin(Stdio::null())
            .output()
            .map_err(|source| DemoError::Program { program, source })?;
        if output.status.code().is_some_and(|code| codes.iter().any(|allowed| i32::from(*allowed) == code)) {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(DemoError::Agentctl { command: arguments.join(" "), status: output.status.to_string(), said })
    }
}

fn parse<T: for<'de> Deserialize<'de>>(command: &str, said: String) -> Result<T, DemoError> {
    serde_json::from_str(&said).map_err(|source| DemoError::Answer { command: command.to_owned(), said, source })
}

/// Copies the files of a folder, not those of folders in it, over those of another.
fn copy_files(from: &Path, to: &Path) -> Result<(), DemoError> {
    let unread = |source| DemoError::Read { path: from.to_owned(), source };
    fs::create_dir_all(to).map_err(|source| DemoError::Write { path: to.to_owned(), source })?;
    for entry in fs::read_dir(from).map_err(unread)? {
        let entry = entry.map_err(unread)?;
        let path = to.join(entry.file_name());
        fs::copy(entry.path(), &path).map_err(|source| DemoError::Write { path, source })?;
    }
    Ok(())
}

/// Two ports that nobody listens on now.
fn free_ports() -> Result<[SocketAddr; 2], DemoError> {
    // Both are held before either is given back, so that they differ.
    let bind = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(DemoError::Port);
    let held = [bind()?, bind()?];
    let [first, second] = held.each_ref().map(TcpListener::local_addr);
    Ok([first.map_err(DemoError::Port)?, second.map_err(DemoError::Port)?])
}

fn runs(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// As a TOML basic string; JSON's escapes are a part of TOML's.
fn toml_text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
