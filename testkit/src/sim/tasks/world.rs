//! The world around the ledger: a clock, processes, connections in both directions, and the shell's loop of batches.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use agentd_core::id::{Launch, Pid};
use agentd_core::task::{
    Doubt, Fence, Judged, Ledger, Link, Message, OnDeadline, Order, Outcome, ParkedFor, Request, Speaker, State,
    TaskId, TaskPolicy, Told, Word,
};
use agentd_core::time::{Moment, Tick};

use super::super::random::Random;
use super::super::report::Broken;
use super::Log;
use super::fleet::{Fleet, Phase};
use super::process::{Process, Reply, kind_of};
use super::store::Store;
use super::witness::Witness;

/// Short, so that a run of a virtual minute sees leases end.
pub(super) const LEASE: Duration = Duration::from_secs(6);

/// Longest calm before everything must have come to its end.
const CALM_MAX: Duration = Duration::from_secs(600);

/// How long after a drain's latest moment its worker must have been told to end, deaths of supervisors, failed commits
/// and a jump of the clock included.
pub(super) const DRAIN_SLACK: Duration = Duration::from_secs(40);

/// Most turns of a run.
const TURNS_MAX: u64 = 100_000;

/// The number under which hello is said.
pub(super) const HELLO: u64 = u64::MAX;

/// What a run saw, so that a test can tell that all there is to see is seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Batches that were committed.
    pub batches: u64,
    /// Commits that failed.
    pub full: u64,
    /// Supervisors that died before a commit.
    pub died_before: u64,
    /// Supervisors that died after a commit, with every answer lost.
    pub died_after: u64,
    /// Tasks that were begun.
    pub begun: u64,
    /// Tasks that were sent to a worker to go on with.
    pub sent_on: u64,
    /// Tasks that were given up at a safe point.
    pub yielded: u64,
    /// Tasks that ended by their worker's word.
    pub ended: u64,
    /// Tasks that were lost.
    pub lost: u64,
    /// Tasks that were parked.
    pub parked: u64,
    /// Effects that the world felt.
    pub effects: u64,
    /// Effects that were not done again.
    pub reused: u64,
    /// Processes that ended themselves because a task was taken from them.
    pub fenced: u64,
    /// Drains that ran out of time.
    pub time_over: u64,
    /// Workers that crashed.
    pub crashes: u64,
}

impl std::ops::AddAssign for Seen {
    fn add_assign(&mut self, other: Self) {
        self.batches += other.batches;
        self.full += other.full;
        self.died_before += other.died_before;
        self.died_after += other.died_after;
        self.begun += other.begun;
        self.sent_on += other.sent_on;
        self.yielded += other.yielded;
        self.ended += other.ended;
        self.lost += other.lost;
        self.parked += other.parked;
        self.effects += other.effects;
        self.reused += other.reused;
        self.fenced += other.fenced;
        self.time_over += other.time_over;
        self.crashes += other.crashes;
    }
}

/// Something that is due in the world.
#[derive(Clone, Debug)]
pub(super) enum Happening {
    /// The supervisor takes up what arrived.
    Gather,
    /// A process reads what was sent to it.
    Read(Link),
    /// A process has done a part of a task.
    Work(Pid, TaskId, Fence),
    /// A process says something again that the store refused.
    Again(Pid, u64),
    Beat(Pid),
    Dial(Pid),
    /// A client wants something done.
    Begin,
    /// A worker without a library tells of a task, and of its end.
    Tell,
    TellEnd(Launch, TaskId),
    Reload,
    Ensure,
    Ready(Launch),
    Drain(Launch),
    Undrain(Launch),
    /// A drained worker is told to end, if it is still empty.
    Stop(Launch),
    /// The processes of a worker end.
    End(Launch),
    /// The supervisor notices.
    Noticed(Launch),
    /// By now a drain must have come to its end.
    DrainLate(Launch),
    Crash,
    CrashOne,
    Pause,
    Continue(Pid),
    Break,
    Die,
    Jump(Duration),
    Person,
    Calm,
}

/// What a worker said and nobody read yet.
#[derive(Debug)]
pub(super) struct Up {
    pub(super) speaker: Speaker,
    pub(super) queue: VecDeque<(u64, Message)>,
    pub(super) closed: bool,
}

/// What a worker was told and did not read yet.
#[derive(Debug)]
pub(super) enum Down {
    Welcome,
    Reply(u64, Reply),
    Word(Word),
}

/// What is decided together and committed together.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) orders: Vec<Order>,
    pub(super) said: Vec<(Link, Speaker, u64, Message, Reply)>,
    pub(super) out: Outcome,
}

/// A run.
pub(super) struct Tasks {
    pub(super) now: Moment,
    pub(super) random: Random,
    pub(super) calm: bool,
    pub(super) log: Log,
    pub(super) seen: Seen,
    pub(super) due: BTreeMap<(Moment, u64), Happening>,
    pub(super) sequence: u64,
    pub(super) gathering: bool,
    pub(super) fleet: Fleet,
    pub(super) ledger: Ledger,
    pub(super) store: Store,
    pub(super) witness: Witness,
    pub(super) processes: BTreeMap<Pid, Process>,
    pub(super) up: BTreeMap<Link, Up>,
    pub(super) down: BTreeMap<Link, VecDeque<Down>>,
    /// When a process last said something of a task; under no task, when it last said hello.
    pub(super) heard: BTreeMap<(Pid, Option<TaskId>), Moment>,
    /// What draining workers were last said to have in hand.
    pub(super) hands: BTreeMap<Launch, u32>,
    pub(super) numbers: u64,
}

impl Tasks {
    pub(super) fn new(seed: u64, log: Log) -> Self {
        let mut random = Random::new(seed);
        let doubts = [("log", Doubt::Skip)].map(|(kind, doubt)| (kind_of(kind), doubt));
        let policy = TaskPolicy {
            on_deadline: random.pick(&[
                OnDeadline::Checkpoint,
                OnDeadline::Checkpoint,
                OnDeadline::Extend,
                OnDeadline::Kill,
            ]),
            doubts: doubts.into(),
            max_open: 40,
            lease: LEASE,
        };
        let app = "alpha".parse().expect("alpha is an app name");
        let wanted = usize::try_from(random.between(1, 3)).expect("three is a usize");
        let fleet = Fleet::new(app, policy, wanted, random.chance(50));
        let mut world = Self {
            now: Moment::from_micros(1_000_000),
            random,
            calm: false,
            log,
            seen: Seen::default(),
            due: BTreeMap::new(),
            sequence: 0,
            gathering: false,
            fleet,
            ledger: Ledger::new(),
            store: Store::default(),
            witness: Witness::default(),
            processes: BTreeMap::new(),
            up: BTreeMap::new(),
            down: BTreeMap::new(),
            heard: BTreeMap::new(),
            hands: BTreeMap::new(),
            numbers: 0,
        };
        world.draw_schedule();
        world
    }

    fn draw_schedule(&mut self) {
        let length = self.random.between(5_000, 40_000);
        let mut draw = |low: u64, high: u64, happening: fn(&mut Random) -> Happening| {
            for _ in 0..self.random.between(low, high) {
                let (at, what) = (self.random.millis(0, length), happening(&mut self.random));
                self.sequence += 1;
                self.due.insert((self.now + at, self.sequence), what);
            }
        };
        draw(3, 25, |_| Happening::Begin);
        draw(0, 3, |_| Happening::Tell);
        draw(0, 3, |_| Happening::Reload);
        draw(0, 3, |_| Happening::Crash);
        draw(0, 2, |_| Happening::CrashOne);
        draw(0, 2, |_| Happening::Pause);
        draw(0, 4, |_| Happening::Break);
        draw(0, 2, |_| Happening::Die);
        draw(0, 6, |_| Happening::Person);
        draw(0, 1, |random| Happening::Jump(random.millis(100, 20_000)));
        self.schedule(Duration::ZERO, Happening::Ensure);
        self.schedule(Duration::from_millis(length), Happening::Calm);
    }

    pub(super) fn schedule(&mut self, after: Duration, happening: Happening) {
        self.sequence += 1;
        self.due.insert((self.now + after, self.sequence), happening);
    }

    pub(super) fn soon(&mut self, low_ms: u64, high_ms: u64, happening: Happening) {
        let after = self.random.millis(low_ms, high_ms);
        self.schedule(after, happening);
    }

    pub(super) fn gather_soon(&mut self) {
        if !self.gathering {
            self.gathering = true;
            self.soon(0, 4, Happening::Gather);
        }
    }

    pub(super) fn run(&mut self) -> Result<(), Broken> {
        let mut calm_since: Option<Moment> = None;
        for _ in 0..TURNS_MAX {
            self.turn()?;
            if !self.calm {
                continue;
            }
            let since = *calm_since.get_or_insert(self.now);
            let at_rest = self.ledger.tasks().all(|task| matches!(task.state, State::Parked { .. }));
            let idle = self.processes.values().all(|process| process.held.is_empty() && !process.asks());
            if at_rest && idle && self.fleet.orders.is_empty() {
                self.witness.check(&self.store, &self.ledger)?;
                return Ok(());
            }
            if self.now.since(since) > CALM_MAX {
                let left: Vec<_> = self.ledger.tasks().collect();
                return Err(Broken::new(
                    "in a calm every task comes to its end",
                    format!("{left:?}, {:?}", self.processes),
                ));
            }
        }
        Err(Broken::new("a run comes to its end", format!("{TURNS_MAX} turns were not enough")))
    }

    /// Lets the next thing happen: what is due in the ledger or in the world, whichever is first.
    fn turn(&mut self) -> Result<(), Broken> {
        let due = self.due.keys().next().map(|(at, _)| *at);
        if let Some(wake) = self.ledger.next_wake().filter(|wake| due.is_none_or(|due| *wake <= due)) {
            self.now = self.now.max(wake);
            let tick = self.tick();
            let mut batch = Batch::default();
            self.ledger.wake(tick, &mut batch.out);
            self.note_silence();
            self.write(&mut batch)?;
            self.log.line(format!("{} woke", stamp(self.now)));
            return self.settle(batch);
        }
        let Some(((at, _), happening)) = self.due.pop_first() else {
            self.now = self.now + Duration::from_secs(1);
            return Ok(());
        };
        self.now = self.now.max(at);
        self.happen(happening)
    }

    /// Leases end when the ledger wakes: who lost a task then had better been silent.
    fn note_silence(&mut self) {
        let since = |name: (Pid, Option<TaskId>)| self.heard.get(&name).is_none_or(|&at| self.now.since(at) >= LEASE);
        let silent = |task: &TaskId, pid: Pid| since((pid, None)) && since((pid, Some(task.clone())));
        let taken = self.witness.taken(&self.ledger).filter(|(task, pid, _)| silent(task, *pid));
        let taken: Vec<_> = taken.map(|(task, _, fence)| (task.clone(), fence)).collect();
        for (task, fence) in taken {
            self.witness.was_silent(task, fence);
        }
    }

    pub(super) fn tick(&mut self) -> Tick {
        Tick { now: self.now, entropy: self.random.number() }
    }

    fn happen(&mut self, happening: Happening) -> Result<(), Broken> {
        match happening {
            Happening::Gather => return self.gather(),
            Happening::Read(link) => return self.read(link),
            Happening::Work(pid, task, fence) => self.work(pid, &task, fence)?,
            Happening::Again(pid, number) => {
                if let Some(message) = self.processes.get(&pid).and_then(|process| process.unanswered(number)) {
                    self.say(pid, number, message);
                }
            }
            Happening::Beat(pid) => {
                self.soon(1_800, 2_200, Happening::Beat(pid));
                self.deed_of(pid, |process| (!process.paused).then(|| process.beat()))?;
            }
            Happening::Dial(pid) => self.dial(pid),
            Happening::Noticed(launch) => {
                self.fleet.gone(launch);
                self.hands.remove(&launch);
                self.soon(50, 500, Happening::Ensure);
            }
            Happening::End(launch) => self.end(launch),
            Happening::Ready(launch) => self.fleet.ready(launch),
            Happening::Ensure => {
                while self.fleet.serving() < self.fleet.wanted {
                    self.start();
                }
            }
            Happening::Stop(launch) => self.stop(launch),
            Happening::Drain(launch) => self.drain(launch),
            Happening::Undrain(launch) => {
                let draining =
                    self.fleet.workers.get(&launch).is_some_and(|w| matches!(w.phase, Phase::Draining { .. }));
                if draining {
                    self.fleet.undrain(launch);
                }
            }
            Happening::DrainLate(launch) => {
                let late = match self.fleet.workers.get(&launch).map(|worker| worker.phase) {
                    Some(Phase::Draining { latest, .. }) => self.now > latest + DRAIN_SLACK,
                    Some(Phase::Starting | Phase::Ready | Phase::Stopping { .. }) | None => false,
                };
                if late {
                    let detail = format!("launch {launch} still drains, in hand {:?}", self.hands.get(&launch));
                    return Err(Broken::new("a drain ends by its deadline", detail));
                }
            }
            Happening::Continue(pid) => self.go_on(pid),
            Happening::TellEnd(launch, task) => {
                let word = Told::Ended(agentd_core::task::Ending::Ok);
                self.fleet.orders.push_back(Order::Told { launch, task, word });
            }
            Happening::Calm => self.become_calm(),
            fault if self.calm => drop(fault),
            Happening::Begin => self.begin()?,
            Happening::Tell => self.tell(),
            Happening::Reload => self.reload(),
            Happening::Crash => {
                if let Some(launch) = self.any_launch() {
                    self.log.line(format!("{} launch {launch} CRASHES", stamp(self.now)));
                    self.seen.crashes += 1;
                    self.end(launch);
                }
            }
            Happening::CrashOne => {
                if let Some(pid) = self.any_process() {
                    self.exit(pid);
                }
            }
            Happening::Pause => {
                if let Some(process) = self.any_process().and_then(|pid| self.processes.get_mut(&pid)) {
                    (process.paused, process.excused) = (true, true);
                    let pid = process.pid;
                    self.log.line(format!("{} process {} STOPS", stamp(self.now), pid));
                    self.soon(100, 20_000, Happening::Continue(pid));
                }
            }
            Happening::Break => {
                if let Some(pid) = self.any_process() {
                    self.disconnect(pid);
                }
            }
            Happening::Die => return self.restart(),
            Happening::Jump(by) => {
                self.now = self.now + by;
                for process in self.processes.values_mut() {
                    process.excused = true;
                }
            }
            Happening::Person => return self.person(),
        }
        if !self.fleet.orders.is_empty() {
            self.gather_soon();
        }
        Ok(())
    }

    fn become_calm(&mut self) {
        self.calm = true;
        let paused: Vec<Pid> = self.processes.values().filter(|p| p.paused).map(|process| process.pid).collect();
        for pid in paused {
            self.go_on(pid);
        }
        // Whatever format checkpoints have, the newest release reads it.
        self.reload();
    }

    pub(super) fn any_process(&mut self) -> Option<Pid> {
        let pids: Vec<Pid> = self.processes.keys().copied().collect();
        (!pids.is_empty()).then(|| self.random.pick(&pids))
    }

    pub(super) fn any_launch(&mut self) -> Option<Launch> {
        let launches: Vec<Launch> = self.fleet.workers.keys().copied().collect();
        (!launches.is_empty()).then(|| self.random.pick(&launches))
    }

    /// Somebody looks at what is there and does something about it.
    pub(super) fn person(&mut self) -> Result<(), Broken> {
        let ids: Vec<TaskId> = self.ledger.tasks().map(|task| task.id.clone()).collect();
        if ids.is_empty() {
            return Ok(());
        }
        let index = usize::try_from(self.random.between(0, ids.len() as u64 - 1)).expect("an index is a usize");
        let task = ids[index].clone();
        let parked_for = match self.ledger.task(&task).map(|task| &task.state) {
            Some(State::Parked { why: ParkedFor::Effect(key), .. }) => Some(key.clone()),
            Some(State::Parked { .. } | State::Running(_) | State::Told { .. } | State::Waiting { .. }) | None => None,
        };
        let judged = self.random.pick(&[Judged::Redo, Judged::Skip]);
        let request = match self.random.between(0, 9) {
            0 => Request::Discard { task: task.clone() },
            1..=2 => Request::Cancel { task: task.clone(), reason: "a person".to_owned() },
            _ => Request::Retry { task: task.clone(), effect: parked_for.is_some().then_some(judged) },
        };
        let retry = matches!(request, Request::Retry { .. });
        self.log.line(format!("{} a person: {request:?}", stamp(self.now)));
        let mut batch = Batch::default();
        let tick = self.tick();
        let done = self.ledger.request(tick, request, &mut batch.out);
        if let (Ok(()), true, Some(key), Judged::Redo) = (&done, retry, parked_for, judged) {
            self.witness.judged(task, key);
        }
        self.write(&mut batch)?;
        self.settle(batch)
    }
}

pub(super) fn stamp(now: Moment) -> String {
    let micros = now.as_micros();
    format!("{:>5}.{:06} s", micros / 1_000_000, micros % 1_000_000)
}
