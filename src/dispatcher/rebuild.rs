//! Taking up workers of which no record is left, from what their processes tell.
//!
//! A worker's environment names its app, slot, generation and launch; its command line, folder and remaining
//! environment are what it was started with; which of the keeper's sockets it holds says where it listens, and on which
//! lane. What a process cannot tell (how ready is proven, how it is stopped, limits) has its default until
//! somebody reloads it from its file. Only for a store that was damaged: otherwise a process without a record is one
//! whose start was never finished, and is ended.

use std::collections::BTreeMap;
use std::os::fd::AsFd;

use agentd_core::app::Head;
use agentd_core::event::Proof;
use agentd_core::id::{AppName, Generation, Lane, Launch, Revision, Slot, WorkerId};
use agentd_core::restart::RestartHistory;
use agentd_core::worker::{KernelProcess, Process, State, Worker};
use camino::Utf8PathBuf;

use super::restore::Takeover;
use crate::config::AppConfig;
use crate::keeper::Held;
use crate::process::stat::{self, Stat};
use crate::process::sys;
use crate::revision::{Origin, RevisionRecord};
use crate::sockets::ListenAddr;
use crate::store::Stored;

/// Variables that we set, by the beginning of their names.
const OURS: [&str; 5] = ["AGENTD_", "LISTEN_", "NOTIFY_SOCKET", "WATCHDOG_USEC", "OTEL_RESOURCE_ATTRIBUTES"];
/// Descriptors from 3 on that are looked at for what the worker was given.
const GIVEN_MAX: usize = 16;

/// Completes `stored` with the workers that live and are not in it; how many.
pub(super) fn from_processes(stored: &mut Stored, taken: &Takeover) -> u32 {
    // An app without its configuration is as good as none: its workers tell it again.
    let known: Vec<(AppName, Revision)> = stored.revisions.iter().map(|(app, id, _)| (app.clone(), *id)).collect();
    stored.heads.retain(|head| known.contains(&(head.name.clone(), head.revision)));
    let heads: Vec<AppName> = stored.heads.iter().map(|head| head.name.clone()).collect();
    stored.workers.retain(|worker| heads.contains(&worker.id.app));
    let mut found = 0;
    for (&launch, process) in taken.marked() {
        stored.counters.launch = stored.counters.launch.max(launch.next());
        if stored.workers.iter().any(|worker| worker.launch() == Some(launch)) {
            continue;
        }
        let Some(told) = Told::of(process, taken) else { continue };
        let same_place = |worker: &Worker| worker.id.app == told.id.app && worker.id.slot == told.id.slot;
        if stored.workers.iter().any(same_place) {
            continue;
        }
        let Some(revision) = told.revision(stored, &heads) else { continue };
        tracing::warn!(worker = %told.id, pid = %process.pid, "taken up from what its process tells; its record was lost");
        stored.workers.push(told.worker(launch, process, revision));
        found += 1;
    }
    found
}

/// What the process of a worker tells of it.
struct Told {
    id: WorkerId,
    lane: Option<Lane>,
    listen: BTreeMap<String, ListenAddr>,
    command: Vec<String>,
    cwd: Utf8PathBuf,
    env: BTreeMap<String, String>,
}

impl Told {
    fn of(process: &Stat, taken: &Takeover) -> Option<Self> {
        let text = |name: &str| std::fs::read(format!("/proc/{}/{name}", process.pid)).ok();
        let words = |bytes: Vec<u8>| -> Vec<String> {
            bytes.split(|&byte| byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
        };
        let all: BTreeMap<String, String> = words(text("environ")?)
            .into_iter()
            .filter_map(|variable| variable.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())))
            .collect();
        let number = |name: &str| all.get(name)?.parse::<u64>().ok();
        let id = WorkerId {
            app: all.get("AGENTD_APP")?.parse().ok()?,
            slot: Slot(u32::try_from(number("AGENTD_SLOT")?).ok()?),
            generation: Generation(number("AGENTD_GENERATION")?),
        };
        let mut command = words(text("cmdline")?);
        // Each argument ends with a zero byte.
        command.pop();
        command.first().filter(|program| !program.is_empty())?;
        let cwd = std::fs::read_link(format!("/proc/{}/cwd", process.pid)).ok()?;
        let (listen, lane) = sockets(&id.app, process, taken, all.get("LISTEN_FDNAMES").map_or("", String::as_str));
        let env = all.into_iter().filter(|(name, _)| !OURS.iter().any(|ours| name.starts_with(ours))).collect();
        Some(Self { id, lane, listen, command, cwd: Utf8PathBuf::from_path_buf(cwd).ok()?, env })
    }

    /// The configuration that it runs: its app's, or one made of what it tells.
    fn revision(&self, stored: &mut Stored, recorded: &[AppName]) -> Option<Revision> {
        if let Some(head) = stored.heads.iter_mut().find(|head| head.name == self.id.app) {
            if !recorded.contains(&head.name) {
                head.count += 1;
                head.generation = head.generation.max(self.id.generation);
                head.last_generation = head.generation;
            }
            return Some(head.revision);
        }
        let mut config = AppConfig::new(self.id.app.clone(), self.command.clone(), self.cwd.clone());
        config.ready.check = AppConfig::default_ready(&self.listen);
        config.balance = AppConfig::default_balance(&self.listen);
        config.listen.clone_from(&self.listen);
        config.env.clone_from(&self.env);
        let policy = config.policy();
        let record = RevisionRecord::new(config, Origin::CommandLine, BTreeMap::new(), None);
        let json = serde_json::to_string(&record).ok()?;
        let revision = Revision(1);
        stored.revisions.retain(|(app, _, _)| *app != self.id.app);
        stored.revisions.push((self.id.app.clone(), revision, json));
        stored.heads.push(Head::of_running(self.id.app.clone(), revision, policy, self.id.generation, 1));
        Some(revision)
    }

    fn worker(self, launch: Launch, process: &Stat, revision: Revision) -> Worker {
        let now = sys::boottime();
        let process = Process {
            launch,
            kernel: Some(KernelProcess { pid: process.pid, start_time: process.started.0 }),
            started_at: now,
            tasks: BTreeMap::new(),
            in_hand: 0,
            drains_itself: false,
            watchdog: None,
        };
        Worker {
            id: self.id,
            revision,
            lane: self.lane,
            state: State::Ready { process, since: now, proof: Proof::Running, probe: None },
            restarts: RestartHistory::default(),
            last_exit: None,
        }
    }
}

/// What a process was given of its app's sockets: under which names, and on which lane.
fn sockets(
    app: &AppName,
    process: &Stat,
    taken: &Takeover,
    names: &str,
) -> (BTreeMap<String, ListenAddr>, Option<Lane>) {
    let of_app = taken.held.iter().filter_map(|(held, fd)| match held {
        Held::Lane { app: of, lane, addr } if of == app => {
            Some((nix::sys::stat::fstat(fd.as_fd()).ok()?.st_ino, (*lane, addr)))
        }
        Held::Lane { .. } | Held::Fifo { .. } | Held::Notify { .. } => None,
    });
    let by_inode: BTreeMap<u64, (Lane, &ListenAddr)> = of_app.collect();
    let mut names = names.split(':').filter(|name| !name.is_empty());
    let (mut listen, mut lane) = (BTreeMap::new(), None);
    for number in 3..3 + GIVEN_MAX {
        let name = names.next().map_or_else(|| format!("fd{number}"), str::to_owned);
        let link = std::fs::read_link(format!("/proc/{}/fd/{number}", process.pid)).unwrap_or_default();
        let inode = link.to_str().and_then(|link| link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
        if let Some((its, addr)) = inode.and_then(|inode: u64| by_inode.get(&inode)) {
            listen.insert(name, (*addr).clone());
            lane = Some(*its);
        }
    }
    (listen, lane)
}

/// Whether the machine was not started anew since these processes were.
pub(super) fn lives_on(taken: &Takeover) -> bool {
    taken.marked().any(|(_, process)| stat::is_same(process.pid, process.started))
}
