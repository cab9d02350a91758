//! The real daemon, as a child of the test.

use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use agentd_protocol::status::{AppView, StatusDocument};

use super::command::{self, Output, ended_within};
use super::home::Home;
use super::process::{ProcessEnd, command_line, processes_with};
use super::status::{self, Watch};

/// How long the daemon may take to listen, on a machine that is busy with other tests.
const LISTEN_WITHIN: Duration = Duration::from_secs(20);

/// How long any command may take.
const COMMAND_WITHIN: Duration = Duration::from_secs(60);

/// How long the daemon may take to end with all its workers.
const STOP_WITHIN: Duration = Duration::from_secs(40);

/// How long processes may take to be gone after the daemon said that they are.
const GONE_WITHIN: Duration = Duration::from_secs(5);

/// Most of the daemon's log that a failing test prints, in bytes from its end.
const LOG_SHOWN: usize = 64 * 1024;

/// A running daemon. Dropped, it is stopped, and the test fails when a process of its instance is left.
#[derive(Debug)]
pub struct Daemon {
    /// Where it keeps its things.
    pub home: Home,
    program: PathBuf,
    /// What starts it, such as `setpriv`: a program that becomes the next one.
    by: Vec<String>,
    agentctl: PathBuf,
    child: Option<Child>,
    instance: String,
}

impl Daemon {
    /// Starts `agentd` (a path: `env!("CARGO_BIN_EXE_agentd")`) in a fresh home and waits until it answers.
    ///
    /// # Panics
    /// When it does not answer in time, or no `agentctl` lies beside it.
    #[must_use]
    pub fn start(agentd: impl AsRef<Path>) -> Self {
        Self::start_in(agentd, Home::new())
    }

    /// Starts it in a home that was prepared before.
    ///
    /// # Panics
    /// As [`Daemon::start`].
    #[must_use]
    pub fn start_in(agentd: impl AsRef<Path>, home: Home) -> Self {
        Self::start_by(agentd, home, &[])
    }

    /// The same, started by a command that becomes the program named behind it (`env`, `setpriv`).
    ///
    /// # Panics
    /// As [`Daemon::start`].
    #[must_use]
    pub fn start_by(agentd: impl AsRef<Path>, home: Home, by: &[&str]) -> Self {
        let by = by.iter().map(|&word| word.to_owned()).collect();
        let program = fs::canonicalize(agentd.as_ref())
            .unwrap_or_else(|error| panic!("failed to find {}: {error}", agentd.as_ref().display()));
        let agentctl = program.with_file_name("agentctl");
        assert!(
            agentctl.is_file(),
            "{} is missing: end-to-end tests need the whole workspace built, run `cargo build --workspace`",
            agentctl.display()
        );
        let mut daemon = Self { home, program, by, agentctl, child: None, instance: String::new() };
        daemon.start_again();
        daemon
    }

    /// Starts it once more in the same home, after [`Daemon::kill`] or its own end.
    ///
    /// # Panics
    /// When it still runs, or does not answer in time.
    pub fn start_again(&mut self) {
        self.spawn(None);
        self.await_sockets();
        self.instance = self.status().instance;
    }

    /// Starts it so that it dies at a fault point (`src/fault.rs`); true when it did before it listened, or within
    /// `patience` after.
    ///
    /// # Panics
    /// When it still runs, or neither listens nor ends.
    pub fn start_doomed(&mut self, fault: &str, patience: Duration) -> bool {
        self.spawn(Some(fault));
        let deadline = Instant::now() + LISTEN_WITHIN;
        while UnixStream::connect(self.home.socket("control.sock")).is_err() {
            if self.died_within(Duration::from_millis(5)) {
                return true;
            }
            assert!(Instant::now() < deadline, "the daemon does not listen after {LISTEN_WITHIN:?}");
        }
        self.died_within(patience)
    }

    /// Whether it ends by itself within this time.
    ///
    /// # Panics
    /// When it does not run.
    pub fn died_within(&mut self, patience: Duration) -> bool {
        let mut child = self.child.take().expect("the daemon was ended by the test before");
        if !ended_within(&child, patience) {
            self.child = Some(child);
            return false;
        }
        child.wait().unwrap_or_else(|error| panic!("failed to wait for the daemon: {error}"));
        true
    }

    fn spawn(&mut self, fault: Option<&str>) {
        assert!(self.child.is_none(), "the daemon {} still runs", self.pid());
        let log = File::options().create(true).append(true).open(self.home.daemon_log());
        let log = log.unwrap_or_else(|error| panic!("failed to open the daemon's log: {error}"));
        let errors = log.try_clone().unwrap_or_else(|error| panic!("failed to share the daemon's log: {error}"));
        let mut command = match self.by.split_first() {
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(&self.program);
                command
            }
            None => Command::new(&self.program),
        };
        let child = command
            .env("AGENTD_HOME", self.home.path())
            .envs(fault.map(|fault| ("AGENTD_FAULT", fault)))
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn();
        self.child = Some(child.unwrap_or_else(|error| panic!("failed to start {}: {error}", self.program.display())));
    }

    fn await_sockets(&mut self) {
        let deadline = Instant::now() + LISTEN_WITHIN;
        let (status, control) = (self.home.socket("status.sock"), self.home.socket("control.sock"));
        while status::who_answers(&status) != Some(self.pid()) || UnixStream::connect(&control).is_err() {
            let child = self.child.as_ref().expect("it was just started");
            // Also the pause between two looks.
            assert!(!ended_within(child, Duration::from_millis(5)), "the daemon ended at once");
            assert!(Instant::now() < deadline, "the daemon does not listen after {LISTEN_WITHIN:?}");
        }
    }

    /// Its process id.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the daemon was ended by the test").id()
    }

    /// The name of its instance, which its workers carry as `AGENTD_INSTANCE`.
    #[must_use]
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// Ends it by SIGKILL; its workers are on their own until [`Daemon::start_again`].
    ///
    /// # Panics
    /// When it does not run, or does not end.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("the daemon was ended by the test before");
        child.kill().unwrap_or_else(|error| panic!("failed to kill the daemon: {error}"));
        child.wait().unwrap_or_else(|error| panic!("failed to wait for the daemon: {error}"));
    }

    /// Asks it to leave by SIGTERM; see [`Daemon::await_end`].
    ///
    /// # Panics
    /// When it does not run.
    pub fn terminate(&self) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.pid()).expect("process ids are positive"));
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)
            .unwrap_or_else(|error| panic!("failed to signal the daemon: {error}"));
    }

    /// Waits until it ends by itself, and returns its exit code.
    ///
    /// # Panics
    /// When it does not in time.
    pub fn await_end(&mut self, patience: Duration) -> Option<i32> {
        let mut child = self.child.take().expect("the daemon was ended by the test before");
        if !ended_within(&child, patience) {
            self.child = Some(child);
            panic!("the daemon did not end within {patience:?}");
        }
        child.wait().unwrap_or_else(|error| panic!("failed to wait for the daemon: {error}")).code()
    }

    /// Writes a configuration into the home; returns its path.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn config(&self, name: &str, text: &str) -> PathBuf {
        self.home.write(name, text)
    }

    /// Runs `agentctl` with these arguments, in the home's folder: `./web.toml` names what [`Daemon::config`] wrote.
    ///
    /// # Panics
    /// When it does not end within a minute.
    #[must_use]
    pub fn ctl(&self, arguments: &[&str]) -> Output {
        command::run(&mut self.agentctl(arguments), COMMAND_WITHIN)
    }

    /// Runs `agentctl`, which must succeed.
    ///
    /// # Panics
    /// When it does not.
    pub fn ctl_ok(&self, arguments: &[&str]) -> Output {
        let output = self.ctl(arguments);
        assert_eq!(output.code, Some(0), "{output:#?}");
        output
    }

    /// An `agentctl` for this home, to be run by the caller.
    #[must_use]
    pub fn agentctl(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.agentctl);
        command.args(arguments).env("AGENTD_HOME", self.home.path()).current_dir(self.home.path());
        command
    }

    /// The status document of now.
    ///
    /// # Panics
    /// When the daemon does not answer.
    #[must_use]
    pub fn status(&self) -> StatusDocument {
        status::document(&self.home.socket("status.sock"))
    }

    /// One app of the status document.
    ///
    /// # Panics
    /// When the daemon does not know it.
    #[must_use]
    pub fn app(&self, name: &str) -> AppView {
        let apps = self.status().apps;
        apps.into_iter().find(|app| app.name == name).unwrap_or_else(|| panic!("no app {name}"))
    }

    /// Begins to watch its events.
    ///
    /// # Panics
    /// When the daemon does not answer.
    #[must_use]
    pub fn watch(&self) -> Watch {
        Watch::begin(&self.home.socket("status.sock"))
    }

    /// Waits until the document is as wanted, and returns it. It is looked at again after every event.
    ///
    /// # Panics
    /// When it is not in time; prints the last one.
    pub fn wait_until(&self, patience: Duration, wanted: impl Fn(&StatusDocument) -> bool) -> StatusDocument {
        let deadline = Instant::now() + patience;
        let mut watch = self.watch();
        let mut document = watch.document.clone();
        while !wanted(&document) {
            let event = watch.next(deadline);
            document = self.status();
            assert!(event.is_some() || wanted(&document), "not as wanted after {patience:?}: {document:#?}");
        }
        document
    }

    /// What it has logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.home.daemon_log()).unwrap_or_default()
    }

    /// The processes that carry its instance's name, and itself with its helpers.
    #[must_use]
    pub fn processes(&self) -> Vec<u32> {
        let home = self.home.path().to_string_lossy();
        let mut pids = processes_with("AGENTD_INSTANCE", &self.instance);
        // A command that inherits both is one process.
        pids.extend(
            processes_with("AGENTD_HOME", &home).into_iter().filter(|pid| !pids.contains(pid)).collect::<Vec<_>>(),
        );
        pids
    }

    /// Stops it as a user would; what is wrong with that in words.
    fn stop(&mut self) -> Vec<String> {
        let mut wrong = Vec::new();
        let Some(mut child) = self.child.take() else { return wrong };
        let asked = match child.try_wait() {
            Ok(None) => {
                let output = command::run(&mut self.agentctl(&["daemon", "stop", "--timeout", "30s"]), STOP_WITHIN);
                (output.code != Some(0)).then(|| format!("`agentctl daemon stop` failed: {output:#?}"))
            }
            Ok(Some(status)) => Some(format!("the daemon had ended before it was stopped ({status})")),
            Err(error) => Some(format!("the daemon's state is unknown: {error}")),
        };
        wrong.extend(asked);
        if !ended_within(&child, GONE_WITHIN) {
            wrong.push(format!("the daemon still runs {GONE_WITHIN:?} after it was stopped"));
            // Our own child, not waited for: the number is still its own.
            let _ = child.kill();
        }
        let _ = child.wait();
        wrong
    }

    /// Ends what is left of the instance; what was left, in words.
    fn sweep(&self) -> Vec<String> {
        let deadline = Instant::now() + GONE_WITHIN;
        let left: Vec<(ProcessEnd, String)> =
            self.processes().into_iter().filter_map(|pid| Some((ProcessEnd::of(pid)?, command_line(pid)))).collect();
        left.into_iter()
            .filter(|(process, _)| !process.within(deadline.saturating_duration_since(Instant::now())))
            .map(|(process, what)| {
                process.kill();
                format!("left behind: process {what}")
            })
            .collect()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let was_killed = self.child.is_none();
        // A panic in here while another is under way would end the whole test binary without a word.
        let stopped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.stop()));
        let mut wrong = stopped.unwrap_or_else(|_| vec!["the daemon could not be stopped".to_owned()]);
        let left = self.sweep();
        // Workers of a daemon that the test killed for good are nobody's to end but ours.
        if !was_killed {
            wrong.extend(left);
        }
        if !wrong.is_empty() || thread::panicking() {
            let log = self.log();
            let shown = log.len().saturating_sub(LOG_SHOWN);
            let shown = (shown..=log.len()).find(|at| log.is_char_boundary(*at)).unwrap_or(log.len());
            eprintln!("--- the daemon's log:\n{}---", &log[shown..]);
        }
        if thread::panicking() {
            wrong.iter().for_each(|wrong| eprintln!("{wrong}"));
        } else {
            assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        }
    }
}
