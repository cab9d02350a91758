//! A machine of its own for a test: Debian with a real systemd as its first process, in a container.
//!
//! ```text
//! target/test-env/debian-12      made once by tests/prepare (debootstrap), never changed
//!        └─ overlayfs ─► root    of this machine alone, gone with it
//!              └─ systemd-nspawn --boot, in a cgroup of its own ─► leader, entered by nsenter for each command
//! ```
//!
//! Owns the overlay, the cgroup and the container; all of it goes when it is dropped. It boots in a third of a second, so
//! that each test has its own. It needs root, systemd-nspawn, and what `tests/prepare` made: where one of them is
//! missing, [`Machine::boot`] says so and there is none. What fails beyond that is a panic with the container's own words.

mod cgroup;

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::kill;
use nix::unistd::Pid;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::command::{self, Output, ended_within};
use cgroup::OwnCgroup;

/// How long a machine may take to boot beside other tests.
const BOOT_WITHIN: Duration = Duration::from_secs(30);
/// How long it may take to shut down, workers drained.
const OFF_WITHIN: Duration = Duration::from_secs(60);
/// How long a command in it may take.
const COMMAND_WITHIN: Duration = Duration::from_secs(60);
/// Between two looks at something that is awaited.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The programs that a machine has beside Debian's.
pub(super) const PROGRAMS: [&str; 3] = ["agentd", "agentctl", "sample"];

/// Which Debian, and with it which systemd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Debian {
    /// bookworm: systemd 252, Python with FastAPI, Node.
    Twelve,
    /// trixie: systemd 257.
    Thirteen,
}

impl Debian {
    pub(super) const fn folder(self) -> &'static str {
        match self {
            Self::Twelve => "debian-12",
            Self::Thirteen => "debian-13",
        }
    }
}

/// A machine that runs.
#[derive(Debug)]
pub struct Machine {
    name: String,
    programs: PathBuf,
    folder: tempfile::TempDir,
    cgroup: OwnCgroup,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    nspawn: Child,
    leader: Pid,
}

impl Machine {
    /// A fresh machine with the programs that lie beside `agentd` (`env!("CARGO_BIN_EXE_agentd")`); none, and the reason
    /// printed, where there can be none.
    ///
    /// # Panics
    /// When it should boot and does not.
    #[must_use]
    pub fn boot(debian: Debian, agentd: impl AsRef<Path>) -> Option<Self> {
        let agentd = fs::canonicalize(agentd.as_ref()).unwrap_or_else(|error| panic!("failed to find agentd: {error}"));
        let target = agentd.ancestors().nth(2).unwrap_or(Path::new("/"));
        let base = target.join("test-env").join(debian.folder());
        let missing = if !nix::unistd::geteuid().is_root() {
            Some("it needs root".to_owned())
        } else if !base.join(".stamp").exists() {
            Some(format!("there is no {}: run tests/prepare as root, with debootstrap", base.display()))
        } else if Command::new("systemd-nspawn").arg("--version").output().is_err() {
            Some("there is no systemd-nspawn".to_owned())
        } else {
            None
        };
        if let Some(why) = missing {
            eprintln!("not tested with a real systemd: {why}");
            return None;
        }
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("agentd-test-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let folder = tempfile::tempdir_in(target.join("test-env")).expect("a folder beside the base");
        overlay(&base, folder.path());
        let programs = agentd.parent().unwrap_or(Path::new("/")).to_owned();
        let mut machine = Self { cgroup: OwnCgroup::make(&name), name, programs, folder, running: None };
        machine.power_on();
        if machine.run(&["agentd", "--version"]).code != Some(0) {
            eprintln!(
                "not tested with a real systemd: what was built here does not run on {debian:?} (an older libc?)"
            );
            return None;
        }
        Some(machine)
    }

    /// Starts it, again after [`power_off`](Self::power_off) or [`cut_power`](Self::cut_power); as after each boot of a
    /// container, its boot id is another one.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn power_on(&mut self) {
        assert!(self.running.is_none(), "it runs");
        let log = File::create(self.folder.path().join("console")).expect("the console's file");
        let mut nspawn = Command::new("sh");
        // Ends with the test, should the test be killed.
        nspawn.args(["-c", "echo $$ >\"$0/cgroup.procs\" && exec setpriv --pdeathsig KILL systemd-nspawn \"$@\""]);
        nspawn.arg(self.cgroup.path());
        nspawn.args([
            "--quiet",
            "--settings=no",
            "--register=no",
            "--keep-unit",
            "--private-network",
            "--console=pipe",
        ]);
        nspawn.arg("--machine").arg(&self.name).arg("--directory").arg(self.root());
        for program in PROGRAMS {
            let from = self.programs.join(program);
            assert!(from.is_file(), "{} is missing: run `cargo build --workspace`", from.display());
            nspawn.arg(format!("--bind-ro={}:/usr/local/bin/{program}", from.display()));
        }
        nspawn.arg("--boot").env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1");
        nspawn.stdin(Stdio::null()).stdout(log.try_clone().expect("a second descriptor")).stderr(log);
        let mut nspawn = nspawn.spawn().unwrap_or_else(|error| panic!("failed to start systemd-nspawn: {error}"));
        let deadline = Instant::now() + BOOT_WITHIN;
        loop {
            if let Some(leader) = leader_of(&nspawn) {
                let mut asked = self.inside(leader, &["systemctl", "is-system-running"]);
                let state = command::run(&mut asked, COMMAND_WITHIN);
                if matches!(state.stdout.trim(), "running" | "degraded") {
                    self.running = Some(Running { nspawn, leader });
                    return;
                }
            }
            let over = nspawn.try_wait().ok().flatten().is_some() || Instant::now() > deadline;
            assert!(!over, "it did not boot; its console: {}", self.console());
            thread::sleep(LOOK_EVERY);
        }
    }

    /// Shuts it down in order.
    ///
    /// # Panics
    /// When it does not run, or does not end in time.
    pub fn power_off(&mut self) {
        let Running { mut nspawn, leader } = self.running.take().expect("it runs");
        // SIGRTMIN+4 asks systemd for a power-off; there is no name for it in nix.
        let asked = Command::new("sh").arg("-c").arg(format!("kill -s RTMIN+4 {leader}")).status();
        assert!(asked.is_ok_and(|status| status.success()), "failed to signal {leader}");
        let in_time = ended_within(&nspawn, OFF_WITHIN);
        if !in_time {
            let _ = kill(leader, nix::sys::signal::Signal::SIGKILL);
        }
        let _ = nspawn.wait();
        assert!(in_time, "it did not shut down within {OFF_WITHIN:?}; its console: {}", self.console());
    }

    /// Ends it as a power cut does: nothing in it hears of it.
    ///
    /// # Panics
    /// When it does not run.
    pub fn cut_power(&mut self) {
        let Running { mut nspawn, leader } = self.running.take().expect("it runs");
        let _ = kill(leader, nix::sys::signal::Signal::SIGKILL);
        let _ = nspawn.wait();
    }

    /// Runs a command in it, as root.
    ///
    /// # Panics
    /// When it does not end within a minute, or the machine does not run.
    pub fn run(&self, words: &[&str]) -> Output {
        command::run(&mut self.command(words), COMMAND_WITHIN)
    }

    /// Runs a command that must succeed, and returns what it printed.
    ///
    /// # Panics
    /// When it does not.
    pub fn ok(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert_eq!(output.code, Some(0), "{output:#?}\n{}", self.journal());
        output.stdout.trim_end().to_owned()
    }

    /// A command in it, to be run by the caller.
    ///
    /// # Panics
    /// When the machine does not run.
    pub fn command(&self, words: &[&str]) -> Command {
        self.inside(self.running.as_ref().expect("it runs").leader, words)
    }

    /// Writes a file in it, with the folders above.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write(&self, path: &str, text: &str) {
        let path = self.root().join(path.trim_start_matches('/'));
        let written = fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).and_then(|()| fs::write(&path, text));
        written.unwrap_or_else(|error| panic!("failed to write {}: {error}", path.display()));
    }

    /// Does something where its network is, on a thread of its own and those that it starts.
    ///
    /// # Panics
    /// When its network cannot be entered, or the work panics.
    pub fn on_its_network<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let leader = self.running.as_ref().expect("it runs").leader;
        let done = thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let network = File::open(format!("/proc/{leader}/ns/net")).expect("its network");
                move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network)).expect("entering it");
                work()
            });
            thread.join()
        });
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// What agentd, and systemd of it, wrote into the journal.
    #[must_use]
    pub fn journal(&self) -> String {
        let words = ["journalctl", "--no-pager", "--output=short-monotonic", "-u", "agentd", "-n", "200"];
        self.run(&words).stdout
    }

    /// In its cgroups too, which `nsenter` alone does not enter: logind has no word with somebody from outside.
    fn inside(&self, leader: Pid, words: &[&str]) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", "echo $$ >\"$0/cgroup.procs\" && exec nsenter \"$@\""]).arg(self.cgroup.of_the_leader());
        command.args(["--all", "--target", &leader.to_string(), "env", "-i", "HOME=/root", "LANG=C.UTF-8"]);
        command.arg("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin").args(words);
        command
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    fn console(&self) -> String {
        fs::read_to_string(self.folder.path().join("console")).unwrap_or_default()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if self.running.is_some() {
            self.cut_power();
        }
        // What is still busy goes when the last process of it does.
        if let Err(error) = umount2(&self.root(), MntFlags::MNT_DETACH) {
            eprintln!("{} stays mounted: {error}", self.root().display());
        }
    }
}

/// A root of its own at `folder/root`: what is in `base`, and every change in `folder`.
pub(super) fn overlay(base: &Path, folder: &Path) {
    for name in ["root", "changes", "work"] {
        fs::create_dir(folder.join(name)).expect("a folder of ours");
    }
    let [root, changes, work] = ["root", "changes", "work"].map(|name| folder.join(name));
    let options = format!("lowerdir={},upperdir={},workdir={}", base.display(), changes.display(), work.display());
    mount(Some("overlay"), &root, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
        .unwrap_or_else(|error| panic!("failed to mount {options}: {error}"));
}

/// The container's first process, once it is systemd.
fn leader_of(nspawn: &Child) -> Option<Pid> {
    let pid = nspawn.id();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    let leader = children.split_whitespace().next()?;
    let name = fs::read_to_string(format!("/proc/{leader}/comm")).ok()?;
    (name.trim() == "systemd").then_some(Pid::from_raw(leader.parse().ok()?))
}
