//! What the daemon tells the ledger thread: which processes there are, how they stand, what a person wants.

use std::sync::Arc;
use std::time::Duration;

use agentd_core::grace;
use agentd_core::id::{AppName, Launch, WorkerId};
use agentd_core::task::{Drain as CoreDrain, InHand, Link, Order, Outcome};
use agentd_core::time::{Moment, Tick};

use super::desk::{Desk, Next};
use super::thread::{Born, Command, Drain, Gauge, Governed};

/// A process start that is there.
#[derive(Debug)]
pub(super) struct Launched {
    pub(super) worker: WorkerId,
    /// `app.slot.generation`.
    pub(super) name: String,
    pub(super) release: String,
    pub(super) gauge: Arc<Gauge>,
    /// The user it runs as; none for the daemon's own.
    pub(super) uid: Option<u32>,
    /// Its connections.
    pub(super) links: u32,
}

impl Launched {
    /// Whether a peer of this user may be one of its processes.
    pub(super) fn takes(&self, uid: u32) -> bool {
        uid == self.uid.unwrap_or_else(|| nix::unistd::geteuid().as_raw()) || uid == 0
    }
}

impl Desk {
    /// Does what the daemon says.
    pub(super) fn obey(&mut self, tick: Tick, command: Command) -> Next {
        match command {
            Command::Govern(app, governed) => self.govern(tick, app, *governed),
            Command::Born(born) => self.born(tick, *born),
            Command::Asked(app, by) => self.asked(app, by),
            Command::Ready(launch) => self.order(tick, Order::LaunchReady { launch }),
            Command::Drain(drain) => self.drain(tick, *drain),
            Command::Gone(launch, gone, exit) => {
                self.order(tick, Order::LaunchGone { launch, gone });
                if let Err(error) = self.db.note_exit(launch, exit) {
                    self.fail(&error);
                }
                self.batch.gone.push(launch);
                self.launches.remove(&launch);
                self.unshown.remove(&launch);
                self.renewing.remove(&launch);
            }
            Command::Told(launch, task, word) => {
                self.unshown.insert(launch);
                self.order(tick, Order::Told { launch, task, word });
            }
            Command::Refresh { launch, id, scope } => self.tell_refresh(launch, id, scope),
            Command::Judge(judge) => self.panels.judge(&self.db, *judge),
            Command::Unjudge(app) => self.panels.forget(&app),
            Command::Inspect(inspect) => self.inspect(*inspect),
            Command::Looked { app, deployment, generation, unread } => {
                self.order(tick, Order::Looked { app, deployment, generation, unread });
            }
            Command::Measure(measure) => self.measure(*measure),
            Command::AllTold => {
                self.order(tick, Order::AllTold);
                self.open_doors();
            }
            Command::Ask(question, asker) => self.ask(tick, *question, asker),
            Command::Stop => return Next::Stop,
        }
        Next::Continue
    }

    /// Gives core an order; it counts with the round.
    pub(super) fn order(&mut self, tick: Tick, order: Order) {
        let mut out = Outcome::default();
        self.ledger.order(tick, order.clone(), &mut out);
        self.batch.orders.push(order);
        self.take_up(tick, out);
    }

    fn govern(&mut self, tick: Tick, app: AppName, governed: Governed) {
        let policy = governed.tasks.clone();
        self.governed.insert(app.clone(), governed);
        self.order(tick, Order::Policy { app, policy });
    }

    fn born(&mut self, tick: Tick, born: Born) {
        let Born { launch, worker, release, state_version, uid, gauge, governed } = born;
        let (app, generation) = (worker.app.clone(), worker.generation);
        self.govern(tick, app.clone(), governed);
        let launched = Launched { name: worker.to_string(), worker, release, gauge, uid, links: 0 };
        self.launches.insert(launch, launched);
        self.order(tick, Order::LaunchBorn { launch, app, generation, state_version });
    }

    fn drain(&mut self, tick: Tick, drain: Drain) {
        let Drain { launch, reason, to_release, successor, latest } = drain;
        let Some(app) = self.launches.get(&launch).map(|launched| launched.worker.app.clone()) else { return };
        let Some(governed) = self.governed.get(&app) else { return };
        let in_hand = self.ledger.in_hand(launch, tick.now);
        let usual = self.measures.usual(&app, &governed.grace, governed.tasks.lease);
        let asked_by = self.askers.get(&app).and_then(|by| by.task_in(launch, &in_hand));
        let counted = in_hand.iter().filter(|task| {
            // Whoever asked waits for nothing, and what does not get on is given its own deadline, not others' time.
            asked_by.as_ref() != Some(&task.task) && !task.stuck(usual.of(task.kind.as_ref()))
        });
        let grace = self.measures.query(&app, counted, &governed.grace);
        // Of a worker that told of no task nothing is known but its connections.
        let bound = if in_hand.is_empty() { grace::bound(&governed.grace) } else { grace.bound };
        let deadline = (tick.now + bound).min(latest);
        tracing::info!(worker = self.launches[&launch].name, %grace, "a drain begins");
        let least = (tick.now + governed.grace.min).min(deadline);
        let reason = reason.to_owned();
        let drain = CoreDrain { reason, to_release, least, deadline, latest, asked_by, successor, usual };
        self.order(tick, Order::DrainBegan { launch, drain });
    }

    /// A connection is gone.
    pub(super) fn link_closed(&mut self, launch: Launch, id: u64) {
        if let Some(launched) = self.launches.get_mut(&launch) {
            launched.links = launched.links.saturating_sub(1);
        }
        let tick = self.tick();
        self.order(tick, Order::LinkClosed { launch, link: Link(id) });
    }

    /// Shows what workers have in hand.
    pub(super) fn show_gauges(&mut self) {
        let now = crate::process::sys::boottime();
        for launch in std::mem::take(&mut self.unshown) {
            let Some(launched) = self.launches.get(&launch) else { continue };
            let Some(governed) = self.governed.get(&launched.worker.app) else { continue };
            let in_hand = self.ledger.in_hand(launch, now);
            let oldest = in_hand.iter().map(|task| task.age).max();
            let tasks = u32::try_from(in_hand.len()).unwrap_or(u32::MAX);
            let (app, policy) = (&launched.worker.app, &governed.grace);
            // What a drain that began now would wait for. Nobody is stuck who is silent for less than a lease.
            let lease = governed.tasks.lease;
            let usual = in_hand.iter().any(|task| task.stuck(lease)).then(|| self.measures.usual(app, policy, lease));
            let stuck = |task: &&InHand| usual.as_ref().is_some_and(|usual| task.stuck(usual.of(task.kind.as_ref())));
            let awaited = in_hand.iter().filter(|task| !stuck(task));
            let grace = self.measures.query(app, awaited, policy);
            let grace = (tasks > 0).then_some(grace.bound);
            launched.gauge.set(tasks, oldest.map(|age| began(now, age)), grace);
        }
    }
}

/// When something began that is so old now.
fn began(now: Moment, age: Duration) -> Moment {
    Moment::from_micros(now.as_micros().saturating_sub(u64::try_from(age.as_micros()).unwrap_or(u64::MAX)))
}
