//! What the fleet does with workers, as far as the ledger can see it: in the real one's order of facts.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use agentd_core::id::{AppName, Generation, Launch};
use agentd_core::task::{Drain, Gone, Order, TaskPolicy, Usual};
use agentd_core::time::Moment;

/// All workers of one app.
#[derive(Debug)]
pub(super) struct Fleet {
    pub(super) app: AppName,
    pub(super) policy: TaskPolicy,
    pub(super) wanted: usize,
    pub(super) workers: BTreeMap<Launch, Stands>,
    pub(super) versioned: bool,
    generation: Generation,
    launches: u64,
    /// What the ledger is to be told, in order.
    pub(super) orders: VecDeque<Order>,
}

/// A process start.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stands {
    pub(super) generation: Generation,
    pub(super) phase: Phase,
}

/// How a process start stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Starting,
    Ready,
    Draining {
        deadline: Moment,
        latest: Moment,
    },
    /// It was told to end.
    Stopping {
        deadline: Moment,
    },
}

impl Fleet {
    pub(super) fn new(app: AppName, policy: TaskPolicy, wanted: usize, versioned: bool) -> Self {
        let orders = VecDeque::from([Order::Policy { app: app.clone(), policy: policy.clone() }]);
        let (generation, workers) = (Generation(1), BTreeMap::new());
        Self { app, policy, wanted, workers, versioned, generation, launches: 0, orders }
    }

    pub(super) fn next_generation(&mut self) {
        self.generation = self.generation.next();
    }

    pub(super) fn version(&self, generation: Generation) -> Option<u32> {
        self.versioned.then(|| u32::try_from(generation.0).unwrap_or(u32::MAX))
    }

    pub(super) fn start(&mut self) -> Launch {
        self.launches += 1;
        let launch = Launch(self.launches);
        let stands = Stands { generation: self.generation, phase: Phase::Starting };
        self.workers.insert(launch, stands);
        self.orders.push_back(self.born(launch, stands));
        launch
    }

    fn born(&self, launch: Launch, stands: Stands) -> Order {
        let state_version = self.version(stands.generation);
        Order::LaunchBorn { launch, app: self.app.clone(), generation: stands.generation, state_version }
    }

    /// It proved itself.
    pub(super) fn ready(&mut self, launch: Launch) {
        if let Some(stands) = self.workers.get_mut(&launch).filter(|stands| stands.phase == Phase::Starting) {
            stands.phase = Phase::Ready;
            self.orders.push_back(Order::LaunchReady { launch });
        }
    }

    pub(super) fn drain(&mut self, launch: Launch, deadline: Moment, latest: Moment) {
        if let Some(stands) = self.workers.get_mut(&launch) {
            stands.phase = Phase::Draining { deadline, latest };
            self.orders.push_back(drain_began(launch, deadline, latest));
        }
    }

    /// It serves again.
    pub(super) fn undrain(&mut self, launch: Launch) {
        if let Some(stands) = self.workers.get_mut(&launch) {
            stands.phase = Phase::Ready;
            self.orders.push_back(Order::LaunchReady { launch });
        }
    }

    /// The ledger moved its deadline.
    pub(super) fn moved(&mut self, launch: Launch, at: Moment) {
        if let Some(Stands { phase: Phase::Draining { deadline, .. }, .. }) = self.workers.get_mut(&launch) {
            *deadline = at;
        }
    }

    /// It was told to end, when it was still to be.
    pub(super) fn stop(&mut self, launch: Launch) -> bool {
        match self.workers.get_mut(&launch) {
            Some(Stands { phase: phase @ Phase::Draining { .. }, .. }) => {
                if let Phase::Draining { deadline, .. } = *phase {
                    *phase = Phase::Stopping { deadline };
                }
                true
            }
            Some(_) | None => false,
        }
    }

    /// Its processes are gone, and somebody noticed.
    pub(super) fn gone(&mut self, launch: Launch) {
        let Some(stands) = self.workers.remove(&launch) else { return };
        let gone = match stands.phase {
            Phase::Stopping { .. } => Gone::Asked,
            Phase::Starting | Phase::Ready | Phase::Draining { .. } => Gone::Crashed,
        };
        self.orders.push_back(Order::LaunchGone { launch, gone });
    }

    /// What a new supervisor tells the ledger. Datagrams waited; of the rest only what stands now is told.
    pub(super) fn tell_again(&mut self) {
        let told: Vec<Order> = self.orders.drain(..).filter(|order| matches!(order, Order::Told { .. })).collect();
        self.orders.push_back(Order::Policy { app: self.app.clone(), policy: self.policy.clone() });
        let workers: Vec<(Launch, Stands)> = self.workers.iter().map(|(&launch, &stands)| (launch, stands)).collect();
        for (launch, stands) in workers {
            self.orders.push_back(self.born(launch, stands));
            match stands.phase {
                Phase::Starting => {}
                Phase::Ready => self.orders.push_back(Order::LaunchReady { launch }),
                Phase::Draining { deadline, latest } => {
                    self.orders.push_back(drain_began(launch, deadline, latest));
                }
                Phase::Stopping { deadline } => self.orders.push_back(drain_began(launch, deadline, deadline)),
            }
        }
        self.orders.push_back(Order::AllTold);
        self.orders.extend(told);
    }

    pub(super) fn serving(&self) -> usize {
        self.workers.values().filter(|stands| matches!(stands.phase, Phase::Starting | Phase::Ready)).count()
    }
}

fn drain_began(launch: Launch, deadline: Moment, latest: Moment) -> Order {
    let usual = Usual { kinds: BTreeMap::new(), other: Duration::from_secs(3) };
    let reason = "reload".to_owned();
    let (to_release, asked_by, successor) = (None, None, None);
    let drain = Drain { reason, to_release, least: deadline, deadline, latest, asked_by, successor, usual };
    Order::DrainBegan { launch, drain }
}
