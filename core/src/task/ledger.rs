//! All open tasks of an instance and the workers that may run them: the one entry for messages, orders and time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::{AppName, Generation, Launch, Pid};
use crate::time::{Moment, Tick};

use super::drain::Draining;
use super::input::{Gone, Order, TaskPolicy};
use super::name::{Key, Kind, Link, TaskId};
use super::outcome::{Fact, InHand, Outcome, Tally};
use super::state::{Run, State, Task};

/// Pause before what could not be written is decided anew: a full disk does not empty itself at once.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Whether the moments in what was stored still mean anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Boot {
    /// Written since the machine was booted.
    Same,
    /// Written before.
    Other,
}

/// Every open task of an instance.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    pub(super) tasks: BTreeMap<TaskId, Box<Task>>,
    pub(super) apps: BTreeMap<AppName, AppTasks>,
    pub(super) workers: BTreeMap<Launch, Worker>,
    pub(super) due: BTreeSet<(Moment, Due)>,
}

/// What is due at a moment. An entry may be stale: what it is about is looked at again when it comes up.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    /// The first lease of a worker's tasks may be over.
    Leases(Launch),
    /// A task of this app need not wait any longer.
    Place(AppName),
    /// A drain's last call or deadline.
    Drain(Launch),
}

/// What is kept of an app.
#[derive(Clone, Debug, Default)]
pub(super) struct AppTasks {
    pub(super) policy: TaskPolicy,
    /// How many of its tasks are open.
    pub(super) open: usize,
    /// Open tasks by their key.
    pub(super) keys: BTreeMap<Key, TaskId>,
    /// Tasks that wait for nothing but a worker and a moment.
    pub(super) waiting: BTreeSet<(Moment, TaskId)>,
    /// Its process starts.
    pub(super) workers: BTreeSet<Launch>,
    /// Kinds that were seen, to keep each once.
    pub(super) kinds: BTreeSet<Kind>,
}

/// A process start, as far as tasks go.
#[derive(Clone, Debug)]
pub(super) struct Worker {
    pub(super) app: AppName,
    pub(super) generation: Generation,
    pub(super) state_version: Option<u32>,
    pub(super) phase: Phase,
    /// What became of its tasks since its drain began, or of those that it had when it ended.
    pub(super) tally: Option<Tally>,
    /// Connections that said hello.
    pub(super) dials: BTreeMap<Link, Dial>,
    /// Tasks that it owns or told of.
    pub(super) running: BTreeSet<TaskId>,
    /// Tasks that go on elsewhere once it has ended.
    pub(super) awaited: BTreeSet<TaskId>,
    /// When its leases are looked at next.
    pub(super) leases_at: Option<Moment>,
}

/// How a process start stands.
#[derive(Clone, Debug)]
pub(super) enum Phase {
    /// Stored tasks name it; whether it is still there was not told yet.
    Restored,
    /// It does not serve yet.
    Starting,
    /// It takes tasks.
    Ready,
    /// It finishes or yields what it has.
    Draining(Box<Draining>),
}

/// A connection that said hello.
#[derive(Clone, Debug)]
pub(super) struct Dial {
    pub(super) pid: Pid,
    pub(super) max_tasks: u32,
    /// Tasks that were last spoken of over it.
    pub(super) tasks: u32,
    pub(super) voice: Voice,
}

/// Whether somebody is at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Voice {
    /// As far as is known.
    Heard,
    /// A lease ran out, and nothing was heard since. It is sent no task.
    Silent,
}

impl Ledger {
    /// No task, no worker.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The open tasks as they were stored. Leases start anew, and nobody is connected. Afterwards give, in this order:
    /// policies, `LaunchBorn` and how it stands for every process that is there, `AllTold`; then messages.
    #[must_use]
    pub fn restore(now: Moment, boot: Boot, tasks: Vec<Task>) -> Self {
        let mut ledger = Self::default();
        ledger.take_in(now, boot, tasks);
        ledger
    }

    /// What was decided since the last commit could not be written: tasks are again as they are stored. Workers and
    /// policies stay. The orders of that batch are to be given again; its messages are to be refused.
    pub fn roll_back(&mut self, now: Moment, tasks: Vec<Task>) {
        self.tasks.clear();
        for app in self.apps.values_mut() {
            app.open = 0;
            app.keys.clear();
            app.waiting.clear();
        }
        let mut draining = Vec::new();
        for (&launch, worker) in &mut self.workers {
            worker.running.clear();
            worker.awaited.clear();
            for dial in worker.dials.values_mut() {
                dial.tasks = 0;
            }
            if let Phase::Draining(drain) = &mut worker.phase {
                drain.reopen();
                draining.push(launch);
            }
        }
        self.take_in(now, Boot::Same, tasks);
        for launch in draining {
            self.due.insert((now + AFTER_FAILURE, Due::Drain(launch)));
        }
        for app in self.apps.keys() {
            self.due.insert((now + AFTER_FAILURE, Due::Place(app.clone())));
        }
    }

    fn take_in(&mut self, now: Moment, boot: Boot, tasks: Vec<Task>) {
        for mut task in tasks {
            match &mut task.state {
                State::Running(run) => {
                    if boot == Boot::Other {
                        run.since = now;
                    }
                    run.lease_until = now + self.lease(&task.app);
                    run.sign = now;
                    run.safe_at = match (boot, task.checkpoint) {
                        (Boot::Other, _) => None,
                        // It began at a safe point, and was at none since that is known of.
                        (Boot::Same, None) => Some(run.since),
                        (Boot::Same, Some(mark)) => mark.safe.then_some(mark.at.max(run.since)),
                    };
                    run.link = self.link_of(run);
                }
                State::Told { since, safe_at, .. } if boot == Boot::Other => (*since, *safe_at) = (now, now),
                State::Waiting { not_before, .. } if boot == Boot::Other => *not_before = now,
                State::Parked { since, .. } if boot == Boot::Other => *since = now,
                State::Told { .. } | State::Waiting { .. } | State::Parked { .. } => {}
            }
            self.admit(now, task);
        }
    }

    /// Where the process of a run can be told something.
    fn link_of(&self, run: &Run) -> Option<Link> {
        let dials = &self.workers.get(&run.launch)?.dials;
        dials.iter().find(|(_, dial)| dial.pid == run.pid).map(|(&link, _)| link)
    }

    /// Takes in what the supervisor tells. One that was given before, or that is about a process that is gone,
    /// changes nothing.
    pub fn order(&mut self, tick: Tick, order: Order, out: &mut Outcome) {
        match order {
            Order::Policy { app, policy } => self.apps.entry(app).or_default().policy = policy,
            Order::LaunchBorn { launch, app, generation, state_version } => {
                let worker = self.worker_of(launch, &app);
                worker.generation = generation;
                worker.state_version = state_version;
                if matches!(worker.phase, Phase::Restored) {
                    worker.phase = Phase::Starting;
                }
            }
            Order::LaunchReady { launch } => self.launch_ready(tick.now, launch, out),
            Order::DrainBegan { launch, drain } => self.drain_began(tick.now, launch, drain, out),
            Order::LaunchGone { launch, gone } => self.launch_gone(tick, launch, gone, out),
            Order::Looked { app, deployment, generation, unread } => {
                self.looked(tick.now, &app, generation, &unread, out);
                out.facts.push(Fact::Looked { app, deployment });
            }
            Order::LinkClosed { launch, link } => self.link_closed(launch, link),
            Order::AllTold => {
                let restored = |worker: &Worker| matches!(worker.phase, Phase::Restored);
                let gone: Vec<Launch> =
                    self.workers.iter().filter(|(_, worker)| restored(worker)).map(|(&launch, _)| launch).collect();
                for launch in gone {
                    self.launch_gone(tick, launch, Gone::Crashed, out);
                }
                let apps: Vec<AppName> = self.apps.keys().cloned().collect();
                for app in apps {
                    self.place(tick.now, &app, out);
                }
            }
            Order::Told { launch, task, word } => self.told(tick.now, launch, task, word, out),
        }
    }

    /// Does what is due by now.
    pub fn wake(&mut self, tick: Tick, out: &mut Outcome) {
        while let Some((at, _)) = self.due.first().filter(|(at, _)| *at <= tick.now) {
            let at = *at;
            let Some((_, due)) = self.due.pop_first() else { return };
            match due {
                Due::Leases(launch) => self.look_at_leases(tick, launch, at, out),
                Due::Place(app) => self.place(tick.now, &app, out),
                Due::Drain(launch) => self.drain_due(tick.now, launch, out),
            }
        }
    }

    /// When [`Ledger::wake`] is due.
    #[must_use]
    pub fn next_wake(&self) -> Option<Moment> {
        self.due.first().map(|(at, _)| *at)
    }

    /// An open task.
    #[must_use]
    pub fn task(&self, id: &TaskId) -> Option<&Task> {
        self.tasks.get(id).map(AsRef::as_ref)
    }

    /// All open tasks, by id.
    pub fn tasks(&self) -> impl Iterator<Item = &Task> {
        self.tasks.values().map(AsRef::as_ref)
    }

    /// How many tasks of an app are open.
    #[must_use]
    pub fn open(&self, app: &AppName) -> usize {
        self.apps.get(app).map_or(0, |app| app.open)
    }

    /// The tasks that a worker has in hand.
    #[must_use]
    pub fn in_hand(&self, launch: Launch, now: Moment) -> Vec<InHand> {
        let Some(worker) = self.workers.get(&launch) else { return Vec::new() };
        let of = |task: &Task| InHand {
            task: task.id.clone(),
            kind: task.kind.clone(),
            age: task.age(now),
            since_safe: task.checkpoint.and_then(|_| task.since_safe(now)),
            checkpointed: task.checkpoint.is_some(),
            since_sign: match &task.state {
                State::Running(run) => now.since(run.sign),
                State::Told { safe_at, .. } => now.since(*safe_at),
                State::Waiting { .. } | State::Parked { .. } => Duration::ZERO,
            },
        };
        worker.running.iter().filter_map(|id| Some(of(self.tasks.get(id)?))).collect()
    }

    pub(super) fn wake_at(&mut self, at: Moment, due: Due) {
        self.due.insert((at, due));
    }
}
