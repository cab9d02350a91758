//! The world around the ledger: a clock, processes, connections in both directions, and the shell's loop of batches.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use agentd_core::id::{Launch, Pid};
use agentd_core::task::{
    Answer, Begin, Boot, Doubt, End, Fact, Fence, Input, Judged, Key, Ledger, Link, Message, OnDeadline, Order,
    Outcome, ParkedFor, Refused, Request, Speaker, State, TaskId, TaskPolicy, Told, Word,
};
use agentd_core::time::{Moment, Tick};

use super::super::random::Random;
use super::super::report::Broken;
use super::Log;
use super::fleet::{Fleet, Phase};
use super::process::{Deed, Dialled, Process, Reply, kind_of};
use super::store::Store;
use super::witness::{Owner, Witness};

/// Short, so that a run of a virtual minute sees leases end.
const LEASE: Duration = Duration::from_secs(6);

/// Longest calm before everything must have come to its end.
const CALM_MAX: Duration = Duration::from_secs(600);

/// How long after a drain's latest moment its worker must have been told to end, deaths of supervisors included.
const DRAIN_SLACK: Duration = Duration::from_secs(30);

/// Most turns of a run.
const TURNS_MAX: u64 = 100_000;

/// The number under which hello is said.
const HELLO: u64 = u64::MAX;

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
enum Happening {
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
struct Up {
    speaker: Speaker,
    queue: VecDeque<(u64, Message)>,
    closed: bool,
}

/// What a worker was told and did not read yet.
#[derive(Debug)]
enum Down {
    Welcome,
    Reply(u64, Reply),
    Word(Word),
}

/// What is decided together and committed together.
#[derive(Default)]
struct Batch {
    orders: Vec<Order>,
    said: Vec<(Link, Speaker, u64, Message, Reply)>,
    out: Outcome,
}

/// How a commit went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Commit {
    Done,
    Full,
    DiedBefore,
    DiedAfter,
}

/// A run.
pub(super) struct Tasks {
    now: Moment,
    random: Random,
    calm: bool,
    pub(super) log: Log,
    pub(super) seen: Seen,
    due: BTreeMap<(Moment, u64), Happening>,
    sequence: u64,
    gathering: bool,
    fleet: Fleet,
    ledger: Ledger,
    store: Store,
    witness: Witness,
    processes: BTreeMap<Pid, Process>,
    up: BTreeMap<Link, Up>,
    down: BTreeMap<Link, VecDeque<Down>>,
    /// When a process last said something of a task; under no task, when it last said hello.
    heard: BTreeMap<(Pid, Option<TaskId>), Moment>,
    /// What draining workers were last said to have in hand.
    hands: BTreeMap<Launch, u32>,
    numbers: u64,
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

    fn schedule(&mut self, after: Duration, happening: Happening) {
        self.sequence += 1;
        self.due.insert((self.now + after, self.sequence), happening);
    }

    fn soon(&mut self, low_ms: u64, high_ms: u64, happening: Happening) {
        let after = self.random.millis(low_ms, high_ms);
        self.schedule(after, happening);
    }

    fn gather_soon(&mut self) {
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

    fn tick(&mut self) -> Tick {
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

    fn any_process(&mut self) -> Option<Pid> {
        let pids: Vec<Pid> = self.processes.keys().copied().collect();
        (!pids.is_empty()).then(|| self.random.pick(&pids))
    }

    fn any_launch(&mut self) -> Option<Launch> {
        let launches: Vec<Launch> = self.fleet.workers.keys().copied().collect();
        (!launches.is_empty()).then(|| self.random.pick(&launches))
    }

    // ---- workers ----

    fn start(&mut self) {
        let launch = self.fleet.start();
        let version = self.fleet.version(self.fleet.workers[&launch].generation);
        for _ in 0..if self.random.chance(20) { 2 } else { 1 } {
            self.numbers += 1;
            let pid = Pid(u32::try_from(self.numbers).expect("a run has few processes"));
            let max_tasks = if self.calm { 5 } else { self.random.count(0, 4) };
            self.processes.insert(pid, Process::new(launch, pid, max_tasks, version));
            self.soon(20, 300, Happening::Dial(pid));
            self.soon(500, 2_500, Happening::Beat(pid));
        }
        self.soon(100, 1_500, Happening::Ready(launch));
    }

    fn reload(&mut self) {
        self.fleet.next_generation();
        let old: Vec<Launch> =
            self.fleet.workers.iter().filter(|(_, w)| w.phase == Phase::Ready).map(|(&l, _)| l).collect();
        for _ in 0..self.fleet.wanted {
            self.start();
        }
        for launch in old {
            self.soon(300, 2_000, Happening::Drain(launch));
        }
    }

    fn drain(&mut self, launch: Launch) {
        if !self.fleet.workers.get(&launch).is_some_and(|worker| worker.phase == Phase::Ready) {
            return;
        }
        let deadline = self.now + self.random.millis(200, 8_000);
        let latest = deadline + self.random.millis(0, 8_000);
        self.hands.remove(&launch);
        self.fleet.drain(launch, deadline, latest);
        self.schedule(latest.since(self.now) + DRAIN_SLACK + Duration::from_secs(1), Happening::DrainLate(launch));
        if !self.calm && self.random.chance(15) {
            self.soon(0, 4_000, Happening::Undrain(launch));
        }
    }

    fn stop(&mut self, launch: Launch) {
        if self.hands.get(&launch) == Some(&0) && self.fleet.stop(launch) {
            self.soon(0, 1_500, Happening::End(launch));
        }
    }

    fn end(&mut self, launch: Launch) {
        let pids: Vec<Pid> = self.processes.values().filter(|p| p.launch == launch).map(|p| p.pid).collect();
        for pid in pids {
            self.leave(pid);
        }
        self.soon(0, 50, Happening::Noticed(launch));
    }

    /// One process ends; its worker does when it was the last.
    fn exit(&mut self, pid: Pid) {
        let Some(launch) = self.processes.get(&pid).map(|process| process.launch) else { return };
        self.leave(pid);
        if !self.processes.values().any(|process| process.launch == launch) {
            self.soon(0, 50, Happening::Noticed(launch));
        }
    }

    fn leave(&mut self, pid: Pid) {
        self.log.line(format!("{} process {pid} is gone", stamp(self.now)));
        self.hang_up(pid);
        self.processes.remove(&pid);
    }

    /// Its connection closes. What it said before may still be read.
    fn hang_up(&mut self, pid: Pid) {
        let Some(process) = self.processes.get_mut(&pid) else { return };
        match process.dialled {
            Dialled::No => {}
            Dialled::Greeting(link) | Dialled::Yes(link) => {
                self.down.remove(&link);
                if let Some(up) = self.up.get_mut(&link) {
                    up.closed = true;
                }
            }
        }
        process.disconnected();
        self.gather_soon();
    }

    fn disconnect(&mut self, pid: Pid) {
        self.hang_up(pid);
        self.soon(5, 800, Happening::Dial(pid));
    }

    fn dial(&mut self, pid: Pid) {
        let Some(process) = self.processes.get_mut(&pid) else { return };
        if process.dialled != Dialled::No {
            return;
        }
        self.numbers += 1;
        let link = Link(self.numbers);
        process.dialled = Dialled::Greeting(link);
        let speaker = Speaker { launch: process.launch, pid, link };
        let hello = (HELLO, Message::Hello { max_tasks: process.max_tasks });
        self.up.insert(link, Up { speaker, queue: VecDeque::from([hello]), closed: false });
        self.down.insert(link, VecDeque::new());
        self.gather_soon();
    }

    fn go_on(&mut self, pid: Pid) {
        let Some(process) = self.processes.get_mut(&pid) else { return };
        process.paused = false;
        match process.dialled {
            Dialled::No => self.soon(0, 100, Happening::Dial(pid)),
            Dialled::Greeting(link) | Dialled::Yes(link) => self.soon(0, 20, Happening::Read(link)),
        }
        let held: Vec<_> = self.processes[&pid].held.iter().map(|(id, held)| (id.clone(), held.fence)).collect();
        for (task, fence) in held {
            self.soon(0, 500, Happening::Work(pid, task, fence));
        }
    }

    fn begin(&mut self) -> Result<(), Broken> {
        self.soon(1_000, 40_000, Happening::Begin);
        let Some(pid) = self.any_process() else { return Ok(()) };
        self.numbers += 1;
        let name = self.random.between(1, 6);
        let key = self.random.chance(30).then(|| Key::new(&format!("key {name}")).expect("a short text is a key"));
        let task = Some(TaskId::new(&format!("task {}", self.numbers)).expect("a short text is an id"));
        let input = if self.random.chance(60) { Input::Kept } else { Input::Absent };
        let begin = Begin { task, key, kind: None, session: None, input };
        self.deed_of(pid, |process| (!process.paused).then(|| process.begin(begin)))
    }

    fn tell(&mut self) {
        let Some(launch) = self.any_launch() else { return };
        self.numbers += 1;
        let task = TaskId::told(launch, &self.numbers.to_string());
        self.fleet.orders.push_back(Order::Told { launch, task: task.clone(), word: Told::Began { kind: None } });
        self.soon(100, 10_000, Happening::TellEnd(launch, task));
    }

    fn deed_of(&mut self, pid: Pid, act: impl FnOnce(&mut Process) -> Option<Deed>) -> Result<(), Broken> {
        let deed = self.processes.get_mut(&pid).and_then(act);
        self.do_all(pid, deed.into_iter().collect())
    }

    fn work(&mut self, pid: Pid, task: &TaskId, fence: Fence) -> Result<(), Broken> {
        let yields = self.random.chance(80);
        self.deed_of(pid, |process| if process.paused { None } else { process.work(task, fence, yields) })
    }

    fn do_all(&mut self, pid: Pid, deeds: Vec<Deed>) -> Result<(), Broken> {
        for deed in deeds {
            match deed {
                Deed::Say(number, message) => self.say(pid, number, message),
                Deed::SayAgain(number) => self.soon(50, 500, Happening::Again(pid, number)),
                Deed::Work(task, fence) => {
                    let lasts = if self.random.chance(85) { (5, 1_500) } else { (1_500, 9_000) };
                    self.soon(lasts.0, lasts.1, Happening::Work(pid, task, fence));
                }
                Deed::Perform => self.seen.effects += 1,
                Deed::Exit => {
                    if self.processes.get(&pid).is_some_and(|process| !process.excused) {
                        let detail = format!("process {pid} was told that a task is not its own");
                        return Err(Broken::new("nobody who is at it is fenced", detail));
                    }
                    self.seen.fenced += 1;
                    self.exit(pid);
                    return Ok(());
                }
                Deed::Wrong(detail) => return Err(Broken::new("every answer makes sense to its worker", detail)),
            }
        }
        Ok(())
    }

    /// Sends a message, now and then twice; while it is not welcome anywhere it waits.
    fn say(&mut self, pid: Pid, number: u64, message: Message) {
        let Some(Dialled::Yes(link)) = self.processes.get(&pid).map(|process| process.dialled) else { return };
        let twice = !self.calm && self.random.chance(4);
        let Some(up) = self.up.get_mut(&link) else { return };
        if twice {
            up.queue.push_back((number, message.clone()));
        }
        up.queue.push_back((number, message));
        self.gather_soon();
    }

    fn read(&mut self, link: Link) -> Result<(), Broken> {
        let Some(pid) = self.up.get(&link).map(|up| up.speaker.pid) else { return Ok(()) };
        loop {
            let Some(process) = self.processes.get_mut(&pid).filter(|process| !process.paused) else { return Ok(()) };
            let Some(down) = self.down.get_mut(&link).and_then(VecDeque::pop_front) else { return Ok(()) };
            let deeds = match down {
                Down::Welcome => process.welcomed(link),
                Down::Reply(number, reply) => process.hear(number, reply),
                Down::Word(word) => process.told(word),
            };
            self.do_all(pid, deeds)?;
        }
    }

    // ---- the supervisor ----

    /// Takes up some of what arrived, in any order but each connection's own, and settles it as one batch.
    fn gather(&mut self) -> Result<(), Broken> {
        self.gathering = false;
        let mut batch = Batch::default();
        let orders = self.random.between(1, 3);
        while let Some(order) = self.fleet.orders.front().cloned() {
            // A new supervisor listens only when it has been told everything.
            let told = self.fleet.orders.iter().any(|order| *order == Order::AllTold);
            if !told && batch.orders.len() as u64 >= orders {
                break;
            }
            self.fleet.orders.pop_front();
            self.order(&mut batch, order)?;
        }
        for _ in 0..self.random.between(1, 6) {
            let ready: Vec<Link> =
                self.up.iter().filter(|(_, up)| up.closed || !up.queue.is_empty()).map(|(&link, _)| link).collect();
            if ready.is_empty() {
                break;
            }
            let link = self.random.pick(&ready);
            self.hear(&mut batch, link)?;
        }
        let more = !self.fleet.orders.is_empty() || self.up.values().any(|up| up.closed || !up.queue.is_empty());
        self.settle(batch)?;
        if more {
            self.gather_soon();
        }
        Ok(())
    }

    fn order(&mut self, batch: &mut Batch, order: Order) -> Result<(), Broken> {
        self.log.line(format!("{} {order:?}", stamp(self.now)));
        let tick = self.tick();
        self.ledger.order(tick, order.clone(), &mut batch.out);
        batch.orders.push(order);
        self.write(batch)
    }

    fn hear(&mut self, batch: &mut Batch, link: Link) -> Result<(), Broken> {
        let Some(up) = self.up.get_mut(&link) else { return Ok(()) };
        let speaker = up.speaker;
        let Some((number, message)) = up.queue.pop_front() else {
            self.up.remove(&link);
            return self.order(batch, Order::LinkClosed { launch: speaker.launch, link });
        };
        let known = self.store.known(&self.ledger.needs(speaker.launch, &message));
        let tick = self.tick();
        let answer = self.ledger.message(tick, speaker, message.clone(), known, &mut batch.out);
        for task in spoken_of(&message, &answer) {
            self.heard.insert((speaker.pid, task), self.now);
        }
        self.log.line(format!("{} {speaker:?} {number}: {message:?} -> {answer:?}", stamp(self.now)));
        batch.said.push((link, speaker, number, message, Reply::Said(answer)));
        self.write(batch)
    }

    /// Writes the rows of the last step into the open transaction.
    fn write(&mut self, batch: &mut Batch) -> Result<(), Broken> {
        for row in batch.out.rows.drain(..) {
            self.store
                .write(&self.ledger, &row)
                .map_err(|detail| Broken::new("every write is under the task's fence", detail))?;
        }
        Ok(())
    }

    fn settle(&mut self, batch: Batch) -> Result<(), Broken> {
        self.ledger
            .check_invariants()
            .map_err(|violation| Broken::new("the ledger is sound", violation.to_string()))?;
        let commit = match self.random.between(0, 999) {
            _ if self.calm || !self.store.is_dirty() => Commit::Done,
            0..=19 => Commit::Full,
            20..=24 => Commit::DiedBefore,
            25..=29 => Commit::DiedAfter,
            _ => Commit::Done,
        };
        match commit {
            Commit::Done => {
                self.seen.batches += 1;
                self.store.commit();
                self.store
                    .verify(&self.ledger)
                    .map_err(|detail| Broken::new("what lasts is written at once", detail))?;
                self.publish(batch)
            }
            Commit::Full => {
                self.log.line(format!("{} COMMIT FAILS", stamp(self.now)));
                self.seen.full += 1;
                self.store.undo();
                self.ledger.roll_back(self.now, self.store.tasks());
                self.ledger
                    .check_invariants()
                    .map_err(|violation| Broken::new("the ledger is sound", violation.to_string()))?;
                for order in batch.orders.into_iter().rev() {
                    self.fleet.orders.push_front(order);
                }
                for (link, speaker, number, _, _) in batch.said {
                    // What it would have been told on its hello is lost: it is to dial again.
                    if number == HELLO {
                        self.disconnect(speaker.pid);
                    }
                    self.send(link, Down::Reply(number, Reply::Store));
                }
                self.gather_soon();
                Ok(())
            }
            Commit::DiedBefore => {
                self.seen.died_before += 1;
                self.store.undo();
                self.restart()
            }
            Commit::DiedAfter => {
                self.seen.died_after += 1;
                self.store.commit();
                self.restart()
            }
        }
    }

    fn send(&mut self, link: Link, down: Down) {
        if let Some(queue) = self.down.get_mut(&link) {
            queue.push_back(down);
            self.soon(0, 5, Happening::Read(link));
        }
    }

    /// What was committed is seen: answers first, then words, then facts.
    fn publish(&mut self, batch: Batch) -> Result<(), Broken> {
        for (link, speaker, number, message, reply) in batch.said {
            if let Reply::Said(Ok(answer)) = &reply {
                self.see_answer(speaker, &message, answer)?;
            }
            let down = if number == HELLO && matches!(reply, Reply::Said(Ok(_))) {
                Down::Welcome
            } else {
                Down::Reply(number, reply)
            };
            self.send(link, down);
        }
        for told in batch.out.words {
            self.log.line(format!("{}   tell launch {}: {:?}", stamp(self.now), told.launch, told.word));
            if let Word::Run { task, fence, checkpoint, .. } = &told.word {
                self.seen.sent_on += 1;
                let pid = self.up.get(&told.link).map(|up| up.speaker.pid);
                self.see_grant(task, *fence, (told.launch, pid.unwrap_or(Pid(0))), *checkpoint)?;
            }
            self.send(told.link, Down::Word(told.word));
        }
        for fact in batch.out.facts {
            self.fact(fact);
        }
        for order in &batch.orders {
            if let Order::Told { task, word: Told::Began { .. }, .. } = order
                && self.ledger.task(task).is_some()
            {
                self.witness.admitted(task.clone());
            }
        }
        if self.seen.batches.is_multiple_of(64) {
            self.witness.check(&self.store, &self.ledger)?;
        }
        Ok(())
    }

    fn see_grant(
        &mut self,
        task: &TaskId,
        fence: Fence,
        to: (Launch, Pid),
        checkpoint: Option<u64>,
    ) -> Result<(), Broken> {
        let last = match self.witness.owner(task) {
            None => Owner::Gone,
            Some((_, pid, before)) => match self.processes.get(&pid) {
                None => Owner::Gone,
                Some(process) if process.held.get(task).is_none_or(|held| held.fence != before) => Owner::Without,
                Some(_) => Owner::AtIt,
            },
        };
        let released = self.ledger.task(task).and_then(|task| task.released);
        self.witness.granted(task, fence, to, checkpoint, last, released)
    }

    fn see_answer(&mut self, from: Speaker, message: &Message, answer: &Answer) -> Result<(), Broken> {
        match (message, answer) {
            (_, Answer::Begun { task, fence, checkpoint, .. }) => {
                self.seen.begun += 1;
                self.witness.admitted(task.clone());
                self.see_grant(task, *fence, (from.launch, from.pid), *checkpoint)
            }
            (Message::EffectBegin { own, key, kind }, Answer::Effect(answer)) => {
                self.seen.reused += u64::from(*answer == agentd_core::task::EffectAnswer::Done);
                self.seen.parked += u64::from(*answer == agentd_core::task::EffectAnswer::Parked);
                self.witness.effect(&own.task, key, own.fence, kind.as_str(), *answer)
            }
            (Message::EffectEnd { own, key, .. }, Answer::Ok) => {
                self.witness.done(own.task.clone(), key.clone());
                Ok(())
            }
            (Message::Checkpoint { own, step, .. }, Answer::Ok) => {
                self.witness.acknowledged(own.task.clone(), *step);
                Ok(())
            }
            (Message::End { own, outcome }, Answer::Ok) => {
                self.seen.ended += 1;
                self.witness.ended(own.task.clone(), End::from(*outcome));
                Ok(())
            }
            (Message::Yield { .. }, Answer::Ok) => {
                self.seen.yielded += 1;
                Ok(())
            }
            (
                Message::Hello { .. }
                | Message::Ready
                | Message::Begin(_)
                | Message::Checkpoint { .. }
                | Message::EffectBegin { .. }
                | Message::EffectEnd { .. }
                | Message::End { .. }
                | Message::Yield { .. }
                | Message::Beat { .. }
                | Message::Guard { .. },
                Answer::Welcome { .. } | Answer::Ok | Answer::Duplicate { .. } | Answer::Effect(_),
            ) => Ok(()),
        }
    }

    fn fact(&mut self, fact: Fact) {
        self.log.line(format!("{}   {fact:?}", stamp(self.now)));
        match fact {
            Fact::Ready { .. } => {}
            Fact::InHand { launch, tasks, .. } => {
                self.hands.insert(launch, tasks);
                if tasks == 0 {
                    self.soon(0, 100, Happening::Stop(launch));
                }
            }
            Fact::Deadline { launch, at } => self.fleet.moved(launch, at),
            Fact::TimeOver { launch } => {
                self.seen.time_over += 1;
                for process in self.processes.values_mut().filter(|process| process.launch == launch) {
                    process.excused = true;
                }
                if self.fleet.stop(launch) {
                    self.soon(0, 1_500, Happening::End(launch));
                }
            }
            Fact::Settled { tally, .. } => self.seen.lost += u64::from(tally.lost),
        }
    }

    /// The supervisor dies, every connection with it, and the next one starts from what was written.
    fn restart(&mut self) -> Result<(), Broken> {
        self.log.line(format!("{} SUPERVISOR DIES", stamp(self.now)));
        self.store.undo();
        self.up.clear();
        self.down.clear();
        self.hands.clear();
        let pids: Vec<Pid> = self.processes.keys().copied().collect();
        for pid in pids {
            if let Some(process) = self.processes.get_mut(&pid) {
                process.disconnected();
            }
            self.soon(10, 1_000, Happening::Dial(pid));
        }
        self.now = self.now + self.random.millis(0, 3_000);
        self.ledger = Ledger::restore(self.now, Boot::Same, self.store.tasks());
        self.ledger
            .check_invariants()
            .map_err(|violation| Broken::new("the ledger is sound", violation.to_string()))?;
        self.witness.check(&self.store, &self.ledger)?;
        self.fleet.tell_again();
        self.gather_soon();
        Ok(())
    }

    /// Somebody looks at what is there and does something about it.
    fn person(&mut self) -> Result<(), Broken> {
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

/// What a message is about, and what its answer gave: none is all that its process has.
fn spoken_of(message: &Message, answer: &Result<Answer, Refused>) -> Vec<Option<TaskId>> {
    match (message, answer) {
        (_, Ok(Answer::Begun { task, .. })) => vec![Some(task.clone())],
        (Message::Hello { .. }, _) => vec![None],
        (Message::Ready | Message::Begin(_), _) => Vec::new(),
        (Message::Beat { tasks }, _) => tasks.iter().map(|(own, _)| Some(own.task.clone())).collect(),
        (
            Message::Checkpoint { own, .. }
            | Message::EffectBegin { own, .. }
            | Message::EffectEnd { own, .. }
            | Message::End { own, .. }
            | Message::Yield { own }
            | Message::Guard { own },
            _,
        ) => vec![Some(own.task.clone())],
    }
}

fn stamp(now: Moment) -> String {
    let micros = now.as_micros();
    format!("{:>5}.{:06} s", micros / 1_000_000, micros % 1_000_000)
}
