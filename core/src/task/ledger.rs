//! All open tasks of an instance and the workers that may run them: the one entry for messages, orders and time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::{AppName, Generation, Launch, Pid};
use crate::time::{Moment, Tick};

use super::drain::Draining;
use super::input::{Gone, Known, LEASE, Message, Needs, Order, Own, TaskPolicy};
use super::name::{Fence, Key, Kind, Link, Speaker, TaskId};
use super::outcome::{Answer, Fact, InHand, Outcome, Refused, Word};
use super::state::{Input, Run, Stage, State, Task};

/// A lease found this long after it was over says nothing: the machine slept, or the supervisor did not run, and what
/// its owner said meanwhile is not read yet. A whole lease, where that is less.
const NOT_WATCHING: Duration = Duration::from_secs(3);

/// Pause before what could not be written is decided anew: a full disk does not empty itself at once.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Kinds that are kept once for all their tasks, per app.
const KINDS_SHARED: usize = 256;

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
    due: BTreeSet<(Moment, Due)>,
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
    kinds: BTreeSet<Kind>,
}

/// A process start, as far as tasks go.
#[derive(Clone, Debug)]
pub(super) struct Worker {
    pub(super) app: AppName,
    pub(super) generation: Generation,
    pub(super) state_version: Option<u32>,
    pub(super) phase: Phase,
    /// Connections that said hello.
    pub(super) dials: BTreeMap<Link, Dial>,
    /// Tasks that it owns or told of.
    pub(super) running: BTreeSet<TaskId>,
    /// Tasks that go on elsewhere once it has ended.
    pub(super) awaited: BTreeSet<TaskId>,
    /// When its leases are looked at next.
    leases_at: Option<Moment>,
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

    /// Which names in a message the store is to look up for it.
    #[must_use]
    pub fn needs<'a>(&'a self, from: Launch, message: &'a Message) -> Needs<'a> {
        let unless_open = |own: &'a Own| (!self.tasks.contains_key(&own.task)).then_some(&own.task);
        match message {
            Message::Hello { .. } | Message::Ready | Message::Beat { .. } => Needs::default(),
            Message::Begin(begin) => {
                let Some(worker) = self.workers.get(&from) else { return Needs::default() };
                let open = |key: &Key| self.apps.get(&worker.app).is_some_and(|app| app.keys.contains_key(key));
                Needs {
                    task: begin.task.as_ref().filter(|id| !self.tasks.contains_key(*id)),
                    key: begin.key.as_ref().filter(|key| !open(key)).map(|key| (&worker.app, key)),
                    ..Needs::default()
                }
            }
            Message::Checkpoint { own, step, .. } => {
                let behind = |task: &Task| task.checkpoint.is_some_and(|mark| *step < mark.step);
                let behind = self.tasks.get(&own.task).is_some_and(|task| behind(task));
                Needs { task: unless_open(own), checkpoint: behind.then_some((&own.task, *step)), ..Needs::default() }
            }
            Message::EffectBegin { own, key, .. } | Message::EffectEnd { own, key, .. } => {
                Needs { task: unless_open(own), effect: Some((&own.task, key)), ..Needs::default() }
            }
            Message::End { own, .. } | Message::Yield { own } | Message::Guard { own } => {
                Needs { task: unless_open(own), ..Needs::default() }
            }
        }
    }

    /// Takes in what a worker says.
    ///
    /// # Errors
    /// Why it is refused; then no task changed.
    pub fn message(
        &mut self,
        tick: Tick,
        from: Speaker,
        message: Message,
        known: Known,
        out: &mut Outcome,
    ) -> Result<Answer, Refused> {
        let worker = self.workers.get_mut(&from.launch).filter(|worker| !matches!(worker.phase, Phase::Restored));
        let worker = worker.ok_or(Refused::UnknownWorker(from.launch))?;
        if let Message::Hello { max_tasks } = message {
            let tasks = worker.dials.get(&from.link).map_or(0, |dial| dial.tasks);
            worker.dials.insert(from.link, Dial { pid: from.pid, max_tasks, tasks, voice: Voice::Heard });
            return Ok(self.hello(tick, from, out));
        }
        let dial = worker.dials.get_mut(&from.link).ok_or(Refused::NoHello)?;
        if dial.voice == Voice::Silent {
            dial.voice = Voice::Heard;
            let app = worker.app.clone();
            let answer = self.spoken(tick, from, message, known, out);
            self.place(tick.now, &app, out);
            return answer;
        }
        self.spoken(tick, from, message, known, out)
    }

    fn spoken(
        &mut self,
        tick: Tick,
        from: Speaker,
        message: Message,
        known: Known,
        out: &mut Outcome,
    ) -> Result<Answer, Refused> {
        match message {
            // Answered before it came here.
            Message::Hello { .. } => Ok(Answer::Ok),
            Message::Ready => {
                if matches!(self.workers[&from.launch].phase, Phase::Starting) {
                    out.facts.push(Fact::Ready { launch: from.launch });
                }
                Ok(Answer::Ok)
            }
            Message::Begin(begin) => self.begin(tick, from, begin, known, out),
            Message::Checkpoint { own, step, safe, state_version } => self.checkpoint(
                tick.now,
                from,
                &own,
                super::Mark { step, safe, state_version, at: tick.now },
                &known,
                out,
            ),
            Message::EffectBegin { own, key, kind } => self.effect_begin(tick.now, from, &own, key, kind, &known, out),
            Message::EffectEnd { own, key, ok } => self.effect_end(tick.now, from, &own, key, ok, &known, out),
            Message::End { own, outcome } => self.end(tick.now, from, &own, outcome.into(), &known, out),
            Message::Yield { own } => self.give_up(tick.now, from, &own, &known, out),
            Message::Beat { tasks } => Ok(self.beat(tick.now, from, tasks, out)),
            Message::Guard { own } => self.owned(tick.now, from, &own, &known).map(|_| Answer::Ok),
        }
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
            since_sign: match &task.state {
                State::Running(run) => now.since(run.sign),
                State::Told { safe_at, .. } => now.since(*safe_at),
                State::Waiting { .. } | State::Parked { .. } => Duration::ZERO,
            },
        };
        worker.running.iter().filter_map(|id| Some(of(self.tasks.get(id)?))).collect()
    }

    fn hello(&mut self, tick: Tick, from: Speaker, out: &mut Outcome) -> Answer {
        let worker = &self.workers[&from.launch];
        if let Phase::Draining(draining) = &worker.phase {
            out.say(from.launch, from.link, Word::drain(&draining.drain));
        }
        let app = worker.app.clone();
        let lease = self.lease(&app);
        let ids: Vec<TaskId> = worker.running.iter().cloned().collect();
        let mut resume = Vec::new();
        for id in ids {
            let Some(task) = self.tasks.get_mut(&id) else { continue };
            let checkpoint = task.checkpoint.map(|mark| mark.step);
            let again = match &task.state {
                State::Running(run) if run.link.is_none() && run.pid == from.pid => match &run.stage {
                    Stage::Offered => Some(task.word_run()),
                    Stage::Held => None,
                    Stage::Cancelling { reason } => Some(Word::Cancel { task: id.clone(), reason: reason.clone() }),
                },
                State::Running(_) => None,
                State::Told { .. } | State::Waiting { .. } | State::Parked { .. } => continue,
            };
            resume.push(super::Resume { task: id.clone(), fence: task.fence, checkpoint });
            if let State::Running(run) = &mut task.state
                && run.pid == from.pid
            {
                run.lease_until = tick.now + lease;
                if run.link.is_none() {
                    run.link = Some(from.link);
                    self.count(from.launch, from.link, 1);
                }
            }
            if let Some(word) = again {
                out.say(from.launch, from.link, word);
            }
        }
        self.place(tick.now, &app, out);
        Answer::Welcome { resume, lease }
    }

    fn link_closed(&mut self, launch: Launch, link: Link) {
        let Some(worker) = self.workers.get_mut(&launch) else { return };
        worker.dials.remove(&link);
        for id in &worker.running {
            if let Some(State::Running(run)) = self.tasks.get_mut(id).map(|task| &mut task.state)
                && run.link == Some(link)
            {
                run.link = None;
            }
        }
    }

    /// The open task that the speaker owns under the fence that it names. Its word renews the lease.
    pub(super) fn owned(&mut self, now: Moment, from: Speaker, own: &Own, known: &Known) -> Result<&mut Task, Refused> {
        let lease = self.lease(&self.workers[&from.launch].app);
        let Some(task) = self.tasks.get_mut(&own.task) else { return Err(not_open(own, known)) };
        let fenced = Refused::Fenced { task: own.task.clone(), said: own.fence, now: task.fence };
        if task.fence != own.fence {
            return Err(fenced);
        }
        let State::Running(run) = &mut task.state else { return Err(fenced) };
        if run.launch != from.launch {
            return Err(fenced);
        }
        run.lease_until = now + lease;
        if run.stage == Stage::Offered {
            run.stage = Stage::Held;
        }
        if run.link != Some(from.link) {
            let before = run.link.replace(from.link);
            run.pid = from.pid;
            if let Some(worker) = self.workers.get_mut(&from.launch) {
                if let Some(dial) = before.and_then(|link| worker.dials.get_mut(&link)) {
                    dial.tasks = dial.tasks.saturating_sub(1);
                }
                if let Some(dial) = worker.dials.get_mut(&from.link) {
                    dial.tasks += 1;
                }
            }
        }
        Ok(task)
    }

    fn beat(&mut self, now: Moment, from: Speaker, tasks: Vec<(Own, Option<u64>)>, out: &mut Outcome) -> Answer {
        for (own, progress) in tasks {
            let released = super::Released { launch: from.launch, fence: own.fence };
            match self.tasks.get(&own.task) {
                // It crossed its end or its release on the way; what it may still write is refused anyway.
                None => continue,
                Some(task) if task.released == Some(released) => continue,
                Some(_) => {}
            }
            match self.owned(now, from, &own, &Known::default()) {
                Ok(task) => {
                    if let State::Running(run) = &mut task.state
                        && progress.is_some()
                        && run.progress != progress
                    {
                        run.progress = progress;
                        run.sign = now;
                    }
                }
                Err(_) => out.say(from.launch, from.link, Word::Fenced { task: own.task }),
            }
        }
        Answer::Ok
    }

    fn look_at_leases(&mut self, tick: Tick, launch: Launch, at: Moment, out: &mut Outcome) {
        let Self { workers, apps, .. } = self;
        let Some(worker) = workers.get_mut(&launch).filter(|worker| worker.leases_at == Some(at)) else {
            // The worker is gone.
            return;
        };
        worker.leases_at = None;
        let ids: Vec<TaskId> = worker.running.iter().cloned().collect();
        let mut first: Option<Moment> = None;
        let lease = apps.get(&worker.app).map_or(LEASE, |app| app.policy.lease);
        let watched = tick.now.since(at) < NOT_WATCHING.min(lease);
        for (index, id) in ids.iter().enumerate() {
            let Some(State::Running(run)) = self.tasks.get_mut(id).map(|task| &mut task.state) else { continue };
            if !watched {
                run.lease_until = run.lease_until.max(tick.now + lease);
            }
            let until = run.lease_until;
            if until <= tick.now {
                let entropy = tick.entropy.rotate_left(u32::try_from(index % 64).unwrap_or(0));
                self.silent(Tick { entropy, ..tick }, id, out);
            } else {
                first = Some(first.map_or(until, |first| first.min(until)));
            }
        }
        if let Some(first) = first {
            self.watch_leases(launch, first);
        }
    }

    /// How long an owner may keep silent.
    pub(super) fn lease(&self, app: &AppName) -> Duration {
        self.apps.get(app).map_or(LEASE, |app| app.policy.lease)
    }

    /// Looks at a worker's leases at `at`, unless it does so earlier.
    pub(super) fn watch_leases(&mut self, launch: Launch, at: Moment) {
        if let Some(worker) = self.workers.get_mut(&launch)
            && worker.leases_at.is_none()
        {
            worker.leases_at = Some(at);
            self.due.insert((at, Due::Leases(launch)));
        }
    }

    /// Whether a worker's leases are looked at again.
    pub(super) fn watches(&self, launch: Launch) -> bool {
        let at = self.workers.get(&launch).and_then(|worker| worker.leases_at);
        at.is_some_and(|at| self.due.contains(&(at, Due::Leases(launch))))
    }

    pub(super) fn wake_at(&mut self, at: Moment, due: Due) {
        self.due.insert((at, due));
    }

    /// Counts a task to a connection, or away from it.
    pub(super) fn count(&mut self, launch: Launch, link: Link, by: i32) {
        if let Some(dial) = self.workers.get_mut(&launch).and_then(|worker| worker.dials.get_mut(&link)) {
            dial.tasks = dial.tasks.saturating_add_signed(by);
        }
    }

    pub(super) fn worker_of(&mut self, launch: Launch, app: &AppName) -> &mut Worker {
        self.apps.entry(app.clone()).or_default().workers.insert(launch);
        self.workers.entry(launch).or_insert_with(|| Worker {
            app: app.clone(),
            generation: Generation::default(),
            state_version: None,
            phase: Phase::Restored,
            dials: BTreeMap::new(),
            running: BTreeSet::new(),
            awaited: BTreeSet::new(),
            leases_at: None,
        })
    }

    /// Puts a task among the open ones.
    pub(super) fn admit(&mut self, now: Moment, mut task: Task) {
        let app = self.apps.entry(task.app.clone()).or_default();
        app.open += 1;
        if let Some(kind) = &task.kind {
            match app.kinds.get(kind) {
                Some(shared) => task.kind = Some(shared.clone()),
                None if app.kinds.len() < KINDS_SHARED => _ = app.kinds.insert(kind.clone()),
                None => {}
            }
        }
        if let Some(key) = &task.key {
            app.keys.insert(key.clone(), task.id.clone());
        }
        self.file(now, &task);
        self.tasks.insert(task.id.clone(), Box::new(task));
    }

    /// Notes a task where its state belongs.
    pub(super) fn file(&mut self, now: Moment, task: &Task) {
        match &task.state {
            State::Running(run) => {
                let (launch, link, until) = (run.launch, run.link, run.lease_until);
                self.worker_of(launch, &task.app).running.insert(task.id.clone());
                if let Some(link) = link {
                    self.count(launch, link, 1);
                }
                self.watch_leases(launch, until);
            }
            State::Told { launch, .. } => _ = self.worker_of(*launch, &task.app).running.insert(task.id.clone()),
            State::Waiting { after: Some(launch), .. } => {
                self.worker_of(*launch, &task.app).awaited.insert(task.id.clone());
            }
            State::Waiting { not_before, after: None, .. } => {
                let app = self.apps.entry(task.app.clone()).or_default();
                app.waiting.insert((*not_before, task.id.clone()));
                if *not_before > now {
                    self.due.insert((*not_before, Due::Place(task.app.clone())));
                }
            }
            State::Parked { .. } => {}
        }
    }

    /// Takes a task out of where its state belongs.
    pub(super) fn unfile(&mut self, task: &Task) {
        match &task.state {
            State::Running(run) => {
                if let Some(worker) = self.workers.get_mut(&run.launch) {
                    worker.running.remove(&task.id);
                }
                if let Some(link) = run.link {
                    self.count(run.launch, link, -1);
                }
            }
            State::Told { launch, .. } => {
                if let Some(worker) = self.workers.get_mut(launch) {
                    worker.running.remove(&task.id);
                }
            }
            State::Waiting { after: Some(launch), .. } => {
                if let Some(worker) = self.workers.get_mut(launch) {
                    worker.awaited.remove(&task.id);
                }
            }
            State::Waiting { not_before, after: None, .. } => {
                if let Some(app) = self.apps.get_mut(&task.app) {
                    app.waiting.remove(&(*not_before, task.id.clone()));
                }
            }
            State::Parked { .. } => {}
        }
    }
}

/// Why a word about a task that is not open is refused.
pub(super) fn not_open(own: &Own, known: &Known) -> Refused {
    match &known.task {
        None => Refused::UnknownTask(own.task.clone()),
        Some(ended) if ended.fence == own.fence => Refused::Ended { task: own.task.clone(), end: ended.end },
        Some(ended) => Refused::Fenced { task: own.task.clone(), said: own.fence, now: ended.fence },
    }
}

impl Task {
    /// What sends it to its owner.
    pub(super) fn word_run(&self) -> Word {
        Word::Run {
            task: self.id.clone(),
            fence: self.fence,
            kind: self.kind.clone(),
            session: self.session.clone(),
            attempt: self.attempt,
            checkpoint: self.checkpoint.map(|mark| mark.step),
        }
    }

    /// A new one.
    pub(super) fn new(id: TaskId, app: AppName, state: State) -> Self {
        Self {
            id,
            app,
            kind: None,
            session: None,
            key: None,
            input: Input::Absent,
            fence: Fence::FIRST,
            attempt: 1,
            crashes: 0,
            ran: Duration::ZERO,
            checkpoint: None,
            intents: 0,
            released: None,
            state,
        }
    }
}
