//! One app of misbehaving workers, and what is asked of it.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use agentd_protocol::control::{Changed, OperationResult};
use agentd_protocol::events::{Event, EventKind};
use agentd_protocol::status::{AppView, ExitView, WorkerView};
use agentd_testkit::e2e::{Daemon, Mix, Output, Watch, free_port};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Longest wait for anything that takes milliseconds on an idle machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

const WORKER: &str = include_str!("worker.py");

/// A daemon with one app called `web`.
pub(crate) struct Fleet {
    pub(crate) daemon: Daemon,
    pub(crate) port: u16,
}

impl Fleet {
    /// A daemon that knows no app yet.
    pub(crate) fn new() -> Self {
        let daemon = Daemon::start(env!("CARGO_BIN_EXE_agentd"));
        daemon.config("worker.py", WORKER);
        Self { daemon, port: free_port() }
    }

    /// A daemon whose app listens, does what `words` say, and has started.
    pub(crate) fn serving(words: &[&str], keys: &str) -> Self {
        let fleet = Self::new();
        fleet.listening(words, keys);
        fleet.daemon.ctl_ok(&["start", "./web.toml"]);
        fleet
    }

    /// The same with an app that listens on nothing.
    pub(crate) fn running(words: &[&str], keys: &str) -> Self {
        let fleet = Self::new();
        fleet.plain(words, keys);
        fleet.daemon.ctl_ok(&["start", "./web.toml"]);
        fleet
    }

    /// Writes the configuration of an app that listens.
    pub(crate) fn listening(&self, words: &[&str], keys: &str) {
        self.plain(words, &format!("listen = \"127.0.0.1:{}\"\n{keys}", self.port));
    }

    /// Writes the configuration of an app that listens on nothing.
    pub(crate) fn plain(&self, words: &[&str], keys: &str) {
        let mut command = vec!["python3", "worker.py"];
        command.extend(words);
        self.commanded(&command, keys);
    }

    /// Writes the configuration of an app with any command.
    pub(crate) fn commanded(&self, command: &[&str], keys: &str) {
        let mut text = format!("[agent.web]\ncommand = {command:?}\n");
        writeln!(text, "{keys}").expect("a text takes whatever is written");
        self.daemon.config("web.toml", &text);
    }

    /// Runs `agentctl VERB web --json`, and reads how the operation ended.
    pub(crate) fn result_of(&self, arguments: &[&str]) -> (Output, OperationResult) {
        let mut arguments = arguments.to_vec();
        arguments.push("--json");
        let output = self.daemon.ctl(&arguments);
        let mut changed: Changed = output.json();
        assert_eq!(changed.results.len(), 1, "{output:#?}");
        (output, changed.results.remove(0))
    }

    /// Starts what was configured, which must fail with exit code 1.
    pub(crate) fn failing_start(&self) -> OperationResult {
        let (output, result) = self.result_of(&["start", "./web.toml"]);
        assert_eq!(output.code, Some(1), "{output:#?}");
        result
    }

    pub(crate) fn app(&self) -> AppView {
        self.daemon.app("web")
    }

    /// Waits until the app is as wanted.
    pub(crate) fn until(&self, wanted: impl Fn(&AppView) -> bool) -> AppView {
        let is_web = |app: &&AppView| app.name == "web";
        let document =
            self.daemon.wait_until(PATIENCE, |document| document.apps.iter().find(is_web).is_some_and(&wanted));
        document.apps.into_iter().find(|app| app.name == "web").expect("it was just looked at")
    }

    /// Waits until its only worker is as wanted.
    pub(crate) fn worker_until(&self, wanted: impl Fn(&WorkerView) -> bool) -> WorkerView {
        self.until(|app| app.workers.first().is_some_and(&wanted)).workers.remove(0)
    }

    /// The process of its only worker.
    pub(crate) fn pid(&self) -> u32 {
        self.app().workers.first().and_then(|worker| worker.pid).expect("it runs")
    }

    /// A file in the home, for workers to leave or to find.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.daemon.home.path().join(name)
    }

    /// What `agentctl logs` shows.
    pub(crate) fn printed(&self) -> String {
        self.daemon.ctl_ok(&["logs", "web"]).stdout
    }
}

/// The processes of an app's workers.
pub(crate) fn pids(app: &AppView) -> BTreeSet<u32> {
    app.workers.iter().filter_map(|worker| worker.pid).collect()
}

/// Clients gentle enough for short tests: tasks and streams of a second.
pub(crate) fn mix() -> Mix {
    Mix { long: 1, sse: 1, task: Duration::from_secs(1), ..Mix::default() }
}

/// The next end of a worker.
pub(crate) fn next_exit(watch: &mut Watch) -> ExitView {
    let event = next(watch, |event| matches!(event.event, EventKind::WorkerExited { .. }));
    let EventKind::WorkerExited { code, signal, reason, .. } = event.event else { panic!("it was just looked at") };
    ExitView { code, signal, reason, why: None }
}

/// The next event that is wanted.
pub(crate) fn next(watch: &mut Watch, wanted: impl Fn(&Event) -> bool) -> Event {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let event = watch.next(deadline).expect("the awaited event came in time");
        if wanted(&event) {
            return event;
        }
    }
}

pub(crate) fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).expect("process ids are positive"));
    kill(pid, signal).expect("it was there to be signalled");
}
