//! agentd as `agentctl startup` makes it a service, and what tests ask of it.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use agentd_protocol::status::{StatusDocument, WorkerState};
use agentd_testkit::e2e::{Debian, Load, Machine, Mix, Report};

/// Longest wait for anything that takes milliseconds on an idle machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Two servers on a port that only root, or who was given it, may have; and one that prints.
pub(crate) const FLEET: &str = r#"
[agent.web]
command = ["sh", "-c", "exec sample agent <&3"]
cwd = "/tmp"
workers = 2
listen.http = "127.0.0.1:80"
ready = { http = "/health" }

[agent.printer]
command = ["sh", "-c", "i=0; while :; do echo $i; i=$((i+1)); sleep 0.05; done"]
cwd = "/tmp"
"#;

/// A machine on which agentd is to be a service.
pub(crate) struct Service {
    pub(crate) machine: Machine,
}

impl Service {
    pub(crate) fn fresh(debian: Debian) -> Option<Self> {
        Some(Self { machine: Machine::boot(debian, env!("CARGO_BIN_EXE_agentd"))? })
    }

    /// Makes it a service, and starts [`FLEET`].
    pub(crate) fn with_fleet(self) -> Self {
        self.machine.ok(&["agentctl", "startup"]);
        self.start("/etc/agentd/agents.toml", FLEET);
        self
    }

    pub(crate) fn start(&self, path: &str, config: &str) {
        self.machine.write(path, config);
        self.machine.ok(&["agentctl", "start", path]);
    }

    /// Settings of the unit for this machine, in force from its next start.
    pub(crate) fn drop_in(&self, text: &str) {
        self.machine.write("/etc/systemd/system/agentd.service.d/test.conf", &format!("[Service]\n{text}"));
        self.machine.ok(&["systemctl", "daemon-reload"]);
    }

    pub(crate) fn property(&self, name: &str) -> String {
        self.machine.ok(&["systemctl", "show", "agentd", "--value", "--property", name])
    }

    /// The daemon's process, or zero.
    pub(crate) fn main_pid(&self) -> u32 {
        self.property("MainPID").parse().expect("a number")
    }

    pub(crate) fn keeper_pid(&self) -> String {
        self.machine.ok(&["pgrep", "-xf", "/usr/local/bin/agentd keep"])
    }

    pub(crate) fn await_another_daemon(&self, than: u32) {
        self.until("another daemon", || (![0, than].contains(&self.main_pid())).then_some(()));
        self.until("its sockets", || (self.machine.run(&["agentctl", "ls"]).code == Some(0)).then_some(()));
    }

    /// Looks until there is something.
    pub(crate) fn until<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = look() {
                return found;
            }
            assert!(Instant::now() < deadline, "there never was {what}; {}", self.machine.journal());
            thread::sleep(LOOK_EVERY);
        }
    }

    pub(crate) fn status(&self) -> StatusDocument {
        let text = self.machine.ok(&["agentctl", "status", "--json"]);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// The process of every worker that is ready, once all are.
    pub(crate) fn ready_workers(&self) -> BTreeMap<String, u32> {
        self.until("a fleet that is ready", || {
            let workers = self.status().apps.into_iter().flat_map(|app| app.workers);
            // Those of a stopped app are shown as what they were.
            let workers: Vec<_> = workers.filter(|worker| worker.state != WorkerState::Exited).collect();
            let ready = !workers.is_empty() && workers.iter().all(|worker| worker.state == WorkerState::Ready);
            ready.then(|| workers.into_iter().filter_map(|worker| Some((worker.id, worker.pid?))).collect())
        })
    }

    /// Processes of workers, by the cgroup that each is started in.
    pub(crate) fn left_over(&self) -> String {
        self.machine.run(&["pgrep", "-af", "sample|echo|agentd"]).stdout
    }

    /// Has clients ask the port 80 while something is done.
    pub(crate) fn under_load(&self, work: impl FnOnce() + Send) -> Report {
        self.machine.on_its_network(|| {
            Load::run(
                80,
                Mix { keepalive: 0, long: 1, sse: 0, task: Duration::from_millis(500), ..Mix::default() },
                work,
            )
        })
    }

    /// The numbers that the printer printed follow each other without a gap.
    pub(crate) fn assert_no_line_lost(&self) {
        let printed = self.machine.ok(&["agentctl", "logs", "printer", "-n", "100000", "--json"]);
        let numbers: Vec<u64> = printed
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("a line is JSON"))
            .filter_map(|line| line["text"].as_str()?.trim().parse().ok())
            .collect();
        assert!(numbers.len() > 5, "{printed}");
        assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{numbers:?}");
    }
}
