//! Going on from what an earlier daemon wrote down and left running.
//!
//! In this order: what the keeper holds; the sockets, from the keeper or bound afresh; the workers, each verified (see
//! `adopt.rs`); then core goes on with every deployment and request where it was. Processes that carry our mark and
//! that nobody recorded are ended. After a reboot nothing is adopted: the apps start as they were wanted.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use agentd_core::app::{Desired, Head, Rise};
use agentd_core::effect::Effect;
use agentd_core::event::{Event, WorkerEvent};
use agentd_core::fleet::Fleet;
use agentd_core::id::{AppName, Launch, Revision};
use agentd_core::worker::{KernelProcess, Worker};

use super::Dispatcher;
use super::commit::in_full;
use crate::keeper::{Held, Keeper};
use crate::process::stat::{self, ProcessTable, Stat};
use crate::process::tree::{Identity, Tree};
use crate::revision::RevisionRecord;
use crate::sockets::ListenAddr;
use crate::store::{Change, Durability, StoreError, Stored};

/// What is there for the taking.
#[derive(Debug, Default)]
pub(super) struct Takeover {
    /// What the keeper held.
    pub(super) held: BTreeMap<Held, OwnedFd>,
    /// Living processes with our mark, by launch: the first that was started of each.
    marked: BTreeMap<Launch, Stat>,
}

impl Dispatcher {
    /// Takes up apps and workers as they were. To be called once, before the loop runs, within the runtime.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn restore(&mut self) -> Result<(), StoreError> {
        let Stored { counters, mut heads, mut workers, revisions, releases, boot } = self.store.load()?;
        let this_boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        if boot.as_deref() != Some(this_boot.trim()) {
            // Moments of another boot mean nothing, and neither do its processes.
            heads.iter_mut().for_each(forget_the_running);
            let gone = workers.drain(..).map(|worker| Change::WorkerGone(worker.id.app, worker.id.slot));
            let heads = heads.iter().map(|head| Change::App(Box::new(head.clone())));
            // Written before the new boot is: a record left behind would be taken for a worker of this boot next time.
            let changes: Vec<Change> = gone.chain(heads).collect();
            self.store.commit(&changes, Durability::Power)?;
            self.store.set_meta("boot", this_boot.trim())?;
        }
        let mut taken = self.take_over();
        self.know(revisions);
        heads.retain(|head| self.is_known(head));
        for head in &mut heads {
            self.regain_addresses(head, &workers, &mut taken);
        }
        self.fleet = Fleet::restore(counters, heads, workers);
        let adopted = self.adopt_all(&mut taken);
        self.end_strays(&taken);
        self.restore_releases(releases);
        for name in self.apps.keys().cloned().collect::<Vec<AppName>>() {
            self.remember_labels(&name);
        }
        self.give_back(taken);
        self.tell_all_told();
        let reserved = self.store.meta("events")?.and_then(|text| text.parse().ok()).unwrap_or(0);
        self.journal = crate::status::EventJournal::after(reserved);
        self.reserve_events();
        if self.keeper.is_none() {
            self.start_keeper();
        } else {
            for name in self.apps.keys().cloned().collect::<Vec<AppName>>() {
                self.keep_lanes(&name);
            }
        }
        self.record(
            None,
            None,
            agentd_protocol::events::EventKind::DaemonStarted {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                pid: std::process::id(),
                adopted,
            },
        );
        if adopted > 0 {
            tracing::info!(adopted, "took over workers of an earlier daemon");
        }
        let tick = self.tick();
        let mut outcome = self.fleet.resume(tick);
        outcome.act.retain(|effect| !self.was_told_already(effect));
        self.carry_out(outcome);
        for name in self.apps.keys().cloned().collect::<Vec<AppName>>() {
            self.tend(&name);
        }
        Ok(())
    }

    /// Looks for a keeper and for processes with our mark.
    fn take_over(&mut self) -> Takeover {
        let mut taken = Takeover::default();
        match Keeper::find(&Keeper::path(&self.home.run)) {
            Ok(keeper) => match keeper.take() {
                Ok(held) => {
                    tracing::info!(held = held.len(), "took over what the keeper held");
                    taken.held = held.into_iter().collect();
                    self.watch_keeper(&keeper);
                    self.keeper = Some(keeper);
                }
                Err(error) => tracing::error!(error = in_full(&error), "the keeper does not give back what it holds"),
            },
            Err(error) => tracing::debug!(error = in_full(&error), "no keeper of an earlier daemon"),
        }
        match ProcessTable::read() {
            Ok(table) => {
                for process in table.processes {
                    let mark = Identity::of(process.pid).filter(|mark| mark.instance == self.instance);
                    let Some(mark) = mark.filter(|_| !process.is_zombie) else { continue };
                    let earlier = taken.marked.get(&mark.launch).is_some_and(|first| first.started <= process.started);
                    if !earlier {
                        taken.marked.insert(mark.launch, process);
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "processes of an earlier daemon could not be looked for"),
        }
        taken
    }

    fn know(&mut self, revisions: Vec<(AppName, Revision, String)>) {
        for (app, revision, json) in revisions {
            match serde_json::from_str::<RevisionRecord>(&json) {
                Ok(record) => {
                    self.apps.entry(app).or_default().revisions.insert(revision, Arc::new(record));
                }
                Err(error) => tracing::error!(%app, %revision, %error, "its configuration cannot be understood"),
            }
        }
    }

    fn is_known(&mut self, head: &Head) -> bool {
        let known = self.apps.get(&head.name).is_some_and(|app| app.revisions.contains_key(&head.revision));
        if !known {
            tracing::error!(app = %head.name, "it is not taken up: its configuration is missing");
            self.notes.push(format!("{} was not taken up: its configuration is missing", head.name));
        }
        known
    }

    /// The app's sockets: from the keeper, else bound afresh.
    fn regain_addresses(&mut self, head: &mut Head, workers: &[Worker], taken: &mut Takeover) {
        let Some(app) = self.apps.get_mut(&head.name) else { return };
        let used = |revision: &Revision| {
            *revision == head.revision
                || head.policies.contains_key(revision)
                || workers.iter().any(|worker| worker.id.app == head.name && worker.revision == *revision)
        };
        app.revisions.retain(|revision, _| used(revision));
        let addresses: std::collections::BTreeSet<ListenAddr> =
            app.revisions.values().flat_map(|record| record.config.listen.values().cloned()).collect();
        for addr in addresses {
            let mut lanes = Vec::new();
            while let Some(fd) = taken.held.remove(&Held::Lane {
                app: head.name.clone(),
                lane: agentd_core::id::Lane(u32::try_from(lanes.len()).unwrap_or(u32::MAX)),
                addr: addr.clone(),
            }) {
                lanes.push(fd);
            }
            let count = u32::try_from(lanes.len()).unwrap_or(u32::MAX);
            let regained = if lanes.is_empty() {
                app.addresses.add(&BTreeMap::from([("it".to_owned(), addr.clone())]), 1)
            } else {
                app.kept.extend((0..count).map(|lane| (addr.clone(), lane)));
                app.addresses.adopt(&addr, lanes)
            };
            if let Err(error) = regained {
                tracing::error!(app = %head.name, error = in_full(&error), "it cannot listen; it is left stopped");
                self.notes.push(format!("{} cannot listen and is stopped: {}", head.name, in_full(&error)));
                head.desired = Desired::Stopped;
            }
        }
    }

    /// Every worker that had a process: taken over, or known to have ended, or never started.
    fn adopt_all(&mut self, taken: &mut Takeover) -> u32 {
        let with_process: Vec<Worker> = self
            .fleet
            .apps()
            .flat_map(|app| app.workers.values())
            .filter(|worker| worker.state.process().is_some())
            .cloned()
            .collect();
        let mut adopted = 0;
        for worker in with_process {
            let Some(process) = worker.state.process() else { continue };
            let launch = process.launch;
            let unrecorded =
                taken.marked.get(&launch).map(|found| KernelProcess { pid: found.pid, start_time: found.started.0 });
            let Some(kernel) = process.kernel.or(unrecorded) else {
                // Decided, and never done: core starts it when it goes on.
                continue;
            };
            if process.kernel.is_none() {
                let event = WorkerEvent::Spawned { pid: kernel.pid, start_time: kernel.start_time };
                let tick = self.tick();
                let outcome = self.fleet.step(tick, Event::Worker { launch, event });
                self.commit(&outcome.persist);
            }
            if self.adopt(&worker, kernel, taken) {
                taken.marked.remove(&launch);
                adopted += 1;
            } else {
                tracing::info!(worker = %worker.id, pid = %kernel.pid, "it ended while nobody watched");
                self.last_lines_of(&worker, taken);
            }
        }
        adopted
    }

    /// What the keeper held and nobody needs any more: of apps that were deleted, of workers that have ended.
    fn give_back(&mut self, taken: Takeover) {
        let names: Vec<Held> = taken.held.into_keys().collect();
        if let Some(keeper) = &self.keeper
            && !names.is_empty()
            && let Err(error) = keeper.release(&names)
        {
            tracing::warn!(error = in_full(&error), "the keeper goes on holding what nobody needs");
        }
    }

    /// Ends processes with our mark that belong to no worker.
    fn end_strays(&self, taken: &Takeover) {
        for (&launch, process) in &taken.marked {
            tracing::warn!(pid = %process.pid, %launch, "ending a process that an earlier daemon left and nobody recorded");
            let identity = Identity { instance: Arc::clone(&self.instance), launch };
            let cgroup = self.cgroups.as_ref().and_then(|all| all.of_process(process.pid, launch));
            let tree = Tree::recorded(identity, process.pid, process.started, cgroup);
            if let Err(error) = tree.kill() {
                tracing::warn!(pid = %process.pid, error = in_full(&error), "it could not be ended");
            }
        }
    }

    /// A stop signal that the earlier supervisor sent, most likely: a program with a handler of its own may take a
    /// second one for "at once". Without a handler it would be gone, had it been sent.
    fn was_told_already(&self, effect: &Effect) -> bool {
        let Effect::SendStop { launch } = effect else { return false };
        self.processes.get(launch).is_some_and(|process| {
            let signal = process.record.config.stop.signal.signal();
            stat::catches(process.tree.leader(), signal) == Some(true)
        })
    }
}

/// What a reboot leaves of an app: what is wanted of it.
fn forget_the_running(head: &mut Head) {
    head.rise = Rise::Waiting;
    head.rollout = None;
    head.pending.clear();
    head.parked = None;
    head.owed.clear();
    head.relief = None;
}
