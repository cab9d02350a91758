//! Going on from what an earlier daemon wrote down and left running.
//!
//! In this order: what the keeper holds, and what systemd does beyond it; the sockets, from there or bound afresh; the workers, each verified (see
//! `adopt.rs`); then core goes on with every deployment and request where it was. Processes that carry our mark and
//! that nobody recorded are ended. After a reboot nothing is adopted: the apps start as they were wanted.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use agentd_core::app::{Desired, Head, Rise};
use agentd_core::effect::Effect;
use agentd_core::event::{Event, Exit, WorkerEvent};
use agentd_core::fleet::Fleet;
use agentd_core::id::{AppName, Lane, Launch, Revision};
use agentd_core::time::Moment;
use agentd_core::worker::{KernelProcess, Worker};
use agentd_protocol::control::SocketOrigins;

use super::adopt::{exit_of_remains, hold_process};
use super::launch::core_exit;
use super::strays::{Marked, Past, may_be_unrecorded};
use super::{Dispatcher, rebuild};
use crate::causes::in_full;
use crate::fault;
use crate::keeper::{Held, Keeper, KeeperError, Taken};
use crate::process::boot::Boot;
use crate::process::stat::{self, Stat};
use crate::process::sys;
use crate::revision::RevisionRecord;
use crate::sockets::{self, ListenAddr};
use crate::status::EventTail;
use crate::store::{Change, Damage, Durability, StoreError, Stored};
use crate::supervisors::{Found, Supervisors};

/// Lanes that one address may have had: twice the workers that an app may have.
const LANES_MAX: u32 = 8192;

/// What is there for the taking.
#[derive(Debug, Default)]
pub(super) struct Takeover {
    /// What the keeper held, or systemd.
    pub(super) held: BTreeMap<Held, OwnedFd>,
    /// Living processes with our mark, where all were looked at.
    pub(super) marked: Option<Marked>,
    /// Since when nobody watched, if the keeper noticed.
    alone_since: Option<Moment>,
    /// Where sockets came from.
    origins: SocketOrigins,
}

impl Dispatcher {
    /// Takes up apps and workers as they were. To be called once, before the loop runs, within the runtime.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn restore(&mut self) -> Result<(), StoreError> {
        let (stored, damage) = self.found.take().expect("restore is called once");
        let mut taken = self.take_over();
        fault::point("took");
        let damaged = damage.is_some();
        let this_boot = Boot::current().map_err(StoreError::Boot)?;
        let rebooted = !stored.boot.as_deref().is_some_and(|written| this_boot.is(written));
        if damaged || rebooted || stored.workers.iter().any(may_be_unrecorded) {
            taken.marked = Some(self.look_for_marked());
        }
        let stored = self.complete(stored, damage.as_ref(), &taken);
        let Stored { counters, mut heads, mut workers, revisions, releases, boot } = stored;
        let history = self.store.meta("supervisors")?;
        self.supervisors = Supervisors::from_stored(history.as_deref());
        // Where a damaged state named no boot, the processes did.
        let rebooted = !boot.is_some_and(|written| this_boot.is(&written));
        if rebooted {
            // Moments of another boot mean nothing, and neither do its processes.
            heads.iter_mut().for_each(forget_the_running);
            let gone = workers.drain(..).map(|worker| Change::WorkerGone(worker.id.app, worker.id.slot));
            let heads = heads.iter().map(|head| Change::App(Box::new(head.clone())));
            // Written before the new boot is: a record left behind would be taken for a worker of this boot next time.
            let changes: Vec<Change> = gone.chain(heads).collect();
            self.store.commit(&changes, Durability::Power)?;
            self.store.set_meta("boot", this_boot.as_str())?;
        }
        self.know(revisions);
        heads.retain(|head| self.is_known(head));
        self.recall_orders();
        for head in &mut heads {
            self.regain_addresses(head, &workers, &mut taken);
            self.remember_order(&head.name);
        }
        self.fleet = Fleet::restore(counters, heads, workers);
        let past = Past::of(&self.fleet, &self.marks);
        tracing::debug!("the sockets are there");
        let (adopted, ended) = self.adopt_all(&mut taken);
        tracing::debug!(adopted, ended = ended.len(), "the workers are taken over");
        self.end_remains(&ended, &taken);
        self.restore_releases(releases, damaged);
        for name in self.apps.keys().cloned().collect::<Vec<AppName>>() {
            self.remember_labels(&name);
        }
        self.forget_secrets_of_the_gone();
        self.begin_measuring();
        let Takeover { alone_since, origins: sockets, .. } = taken;
        self.give_back(taken);
        self.tell_all_told();
        let reserved = self.store.meta("events")?.and_then(|text| text.parse().ok()).unwrap_or(0);
        let (tail, mut remembered) = EventTail::open(self.home.state.join("events"));
        // After a power cut the last of what was told may be missing.
        remembered.whole &= !rebooted;
        self.journal.resume(tail, remembered, reserved);
        self.reserve_events();
        if self.keeper.is_none() {
            // What is had is systemd's: the new keeper has nothing.
            self.apps.values_mut().for_each(|app| app.kept.clear());
            self.start_keeper();
        } else {
            for name in self.apps.keys().cloned().collect::<Vec<AppName>>() {
                self.keep_lanes(&name);
            }
        }
        self.store_everything();
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
        self.restore_reports();
        tracing::debug!("what was told is there");
        // Last of all: from here on processes are started, which are told where it is.
        self.await_ledger();
        let tick = self.tick();
        let mut outcome = self.fleet.resume(tick);
        let told: Vec<Launch> = outcome.act.iter().filter_map(|effect| self.told_already(effect)).collect();
        outcome.act.retain(|effect| self.told_already(effect).is_none());
        fault::point("resumed");
        self.carry_out(outcome);
        for launch in told {
            self.signal_should_it_stay(launch);
        }
        for name in self.apps.keys().cloned().collect::<Vec<AppName>>() {
            self.tend(&name);
        }
        self.bound_all_logs();
        self.housekeeper.sweep();
        if damage.is_some() {
            self.store.replace(&self.everything())?;
            self.store.set_meta("boot", this_boot.as_str())?;
        }
        let found = Found { adopted, sockets, alone_since, rebooted };
        let version = env!("CARGO_PKG_VERSION");
        self.supervisors.begin(std::process::id(), version, self.started_at, sys::boottime(), found);
        self.save_supervisors();
        tracing::debug!("everything is taken over");
        self.ended_before.clear();
        self.end_strays_later(past);
        self.resume_postponed(rebooted);
        Ok(())
    }

    /// Where the store was damaged: what is left of it, and what the processes tell beside it.
    fn complete(&mut self, mut stored: Stored, damage: Option<&Damage>, taken: &Takeover) -> Stored {
        let Some(Damage { why, aside }) = damage else { return stored };
        let rebuilt = rebuild::from_processes(&mut stored, taken);
        if rebuild::lives_on(taken) {
            stored.boot = Boot::current().ok().map(|boot| boot.as_str().to_owned());
        }
        let kept = aside.as_ref().map_or_else(String::new, |aside| format!(" and is kept as {aside}"));
        let note = format!(
            "the state was damaged ({why}){kept}; {} apps were readable, {rebuilt} workers were taken up \
             from what their processes tell: `agentctl start FILE` for what is missing, `agentctl reload NAME` for its \
             configuration",
            stored.heads.len()
        );
        tracing::error!("{note}");
        self.notes.push(note);
        stored
    }

    pub(super) fn save_supervisors(&mut self) {
        let history = Change::Meta { key: "supervisors", value: self.supervisors.to_stored() };
        self.write_down(&[history], Durability::Process);
    }

    /// Looks for a keeper.
    fn take_over(&mut self) -> Takeover {
        let mut taken = Takeover::default();
        match Keeper::take_over(&Keeper::path(&self.home.run)) {
            Ok((keeper, Taken { held, alone_since })) => {
                tracing::info!(held = held.len(), "took over what the keeper held");
                taken.held = held.into_iter().collect();
                taken.alone_since = alone_since;
                self.watch_keeper(&keeper);
                self.keeper = Some(keeper);
            }
            Err(error @ KeeperError::Absent { .. }) => {
                tracing::debug!(error = in_full(&error), "no keeper of an earlier daemon");
            }
            Err(error) => {
                let why = in_full(&error);
                tracing::error!(why, "the keeper does not give back what it holds, and is given up");
                self.notes.push(format!("the keeper of the daemon before did not give back what it held: {why}"));
            }
        }
        let stored = std::mem::take(&mut self.kept_by_systemd);
        let missing: BTreeMap<_, _> = stored.into_iter().filter(|(held, _)| !taken.held.contains_key(held)).collect();
        if !missing.is_empty() {
            tracing::info!(held = missing.len(), "took over what systemd held and no keeper");
        }
        taken.held.extend(missing);
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
            let kept = taken.lanes(&head.name, &addr);
            let order = self.orders.of(&head.name, &addr);
            let own = workers.iter().filter(|worker| worker.id.app == head.name);
            let regained = if !kept.is_empty() {
                taken.origins.keeper += count(&kept);
                app.kept.extend(kept.keys().map(|lane| (addr.clone(), *lane)));
                app.addresses.adopt(&addr, in_order(kept), &order)
            } else {
                let rescued = rescue(&addr, own.clone());
                if rescued.is_empty() {
                    taken.origins.fresh += 1;
                    app.addresses.add(&BTreeMap::from([("it".to_owned(), addr.clone())]), 1)
                } else {
                    tracing::warn!(app = %head.name, %addr, sockets = rescued.len(), "nobody kept its sockets: taken back out of its workers");
                    taken.origins.workers += count(&rescued);
                    app.addresses.adopt(&addr, in_order(rescued), &order)
                }
            };
            let Err(error) = regained else { continue };
            let why = in_full(&error);
            if own.clone().any(|worker| kernel_of(worker).is_some_and(|kernel| hold_process(kernel).is_some())) {
                // To stop them because we lost hold of their sockets would make the loss complete.
                tracing::error!(app = %head.name, why, "its sockets are its workers' alone; they serve on");
                self.notes.push(format!(
                    "{} serves on and cannot be reloaded until its workers have ended: its sockets were lost with the \
                     keeper ({why})",
                    head.name
                ));
            } else {
                tracing::error!(app = %head.name, why, "it cannot listen; it is left stopped");
                self.notes.push(format!("{} cannot listen and is stopped: {why}", head.name));
                head.desired = Desired::Stopped;
            }
        }
    }

    /// Every worker that had a process: taken over, or known to have ended, or never started. How many were taken over,
    /// and which had ended.
    fn adopt_all(&mut self, taken: &mut Takeover) -> (u32, Vec<Launch>) {
        let with_process: Vec<Box<Worker>> = self
            .fleet
            .apps()
            .flat_map(|app| app.workers.values())
            .filter(|worker| worker.state.process().is_some())
            .cloned()
            .collect();
        let (mut adopted, mut ended) = (0, Vec::new());
        for worker in with_process {
            let Some(process) = worker.state.process() else { continue };
            let launch = process.launch;
            let found = taken.marked.as_ref().and_then(|marked| marked.get(launch));
            let unrecorded = found.map(|found| KernelProcess { pid: found.pid, start_time: found.started.0 });
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
                fault::point("adopted");
                taken.marked.iter_mut().for_each(|marked| marked.remove(launch));
                adopted += 1;
            } else {
                ended.push(launch);
                // Known where it was our child all the time, under the program before us in this process.
                let exit = self.ended_before.get(&kernel.pid).copied().map(core_exit);
                let exit = exit.or_else(|| exit_of_remains(kernel)).unwrap_or(Exit::Unknown);
                tracing::info!(worker = %worker.id, pid = %kernel.pid, %exit, "it ended while nobody watched");
                self.last_lines_of(&worker, exit, taken);
            }
        }
        (adopted, ended)
    }

    /// What the keeper held and nobody needs any more: of apps that were deleted, of workers that have ended.
    fn give_back(&mut self, taken: Takeover) {
        let names: Vec<Held> = taken.held.into_keys().collect();
        self.systemd.unstore(&names);
        if let Some(keeper) = &self.keeper
            && !names.is_empty()
            && let Err(error) = keeper.release(&names)
        {
            tracing::warn!(error = in_full(&error), "the keeper goes on holding what nobody needs");
        }
    }

    /// Whom the earlier supervisor told to end, most likely, if it did not die just before: a program with a handler of its own may take a second word
    /// for "at once". Without a handler it would be gone, had the signal been sent.
    fn told_already(&self, effect: &Effect) -> Option<Launch> {
        let Effect::SendStop { launch } = effect else { return None };
        let process = self.processes.get(launch)?;
        let stop = process.record.config.stop;
        let caught = || stat::catches(process.tree.leader(), stop.signal.signal()) == Some(true);
        (stop.message || caught()).then_some(*launch)
    }
}

impl Takeover {
    /// Living processes with our mark.
    pub(super) fn marked(&self) -> impl Iterator<Item = (&Launch, &Stat)> {
        self.marked.iter().flat_map(Marked::iter)
    }

    /// The sockets of one address of an app that the keeper held, by lane.
    fn lanes(&mut self, app: &AppName, at: &ListenAddr) -> BTreeMap<u32, OwnedFd> {
        let of_it = |held: &Held| matches!(held, Held::Lane { app: of, addr, .. } if of == app && addr == at);
        let names: Vec<Held> = self.held.keys().filter(|held| of_it(held)).cloned().collect();
        let taken = names.into_iter().filter_map(|name| match (&name, self.held.remove(&name)) {
            (Held::Lane { lane, .. }, Some(fd)) => Some((lane.0, fd)),
            (_, _) => None,
        });
        taken.collect()
    }
}

/// The sockets of an address that live workers hold, by lane.
fn rescue<'w>(addr: &ListenAddr, workers: impl Iterator<Item = &'w Worker>) -> BTreeMap<u32, OwnedFd> {
    let mut rescued = BTreeMap::new();
    for worker in workers {
        let (Some(Lane(lane)), Some(kernel)) = (worker.lane, kernel_of(worker)) else { continue };
        let Some(pidfd) = hold_process(kernel).filter(|_| !rescued.contains_key(&lane)) else { continue };
        match sockets::lane_of(addr, lane, kernel.pid, pidfd.as_fd()) {
            Ok(Some(socket)) => drop(rescued.insert(lane, socket)),
            Ok(None) => tracing::debug!(worker = %worker.id, %addr, "it does not hold its socket any more"),
            Err(error) => tracing::warn!(worker = %worker.id, %addr, %error, "its socket cannot be had"),
        }
    }
    rescued
}

fn kernel_of(worker: &Worker) -> Option<KernelProcess> {
    worker.state.process().and_then(|process| process.kernel)
}

fn count(lanes: &BTreeMap<u32, OwnedFd>) -> u32 {
    u32::try_from(lanes.len()).unwrap_or(u32::MAX)
}

/// Every lane from 0 to the last that there is, with its socket if that is left.
fn in_order(mut lanes: BTreeMap<u32, OwnedFd>) -> Vec<Option<OwnedFd>> {
    // A number that no app has would be no lane of ours.
    let last = lanes.keys().next_back().copied().unwrap_or(0).min(LANES_MAX);
    (0..=last).map(|lane| lanes.remove(&lane)).collect()
}

/// What a reboot leaves of an app: what is wanted of it.
fn forget_the_running(head: &mut Head) {
    head.rise = Rise::Waiting;
    head.rollout = None;
    head.pending.clear();
    head.parked = None;
    head.owed.clear();
    head.relief = None;
    head.refreshes.forget_the_running();
}
