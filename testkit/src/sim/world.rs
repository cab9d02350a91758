//! The world around the fleet: a clock that only the simulation moves, processes, connections, and the shell's part
//! of turning effects into deeds and deeds into facts.
//!
//! Knows no decision. Facts reach the fleet in the order of the queue, most at once, some late, some twice; a fact
//! may well outlive its process.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use agentd_core::effect::Effect;
use agentd_core::event::{Exit, InFlight, Proof, RolloutEvent, WorkerEvent};
use agentd_core::id::{AppName, Lane, Launch, Operation, Pid};
use agentd_core::limit::LimitMet;
use agentd_core::refresh::RefreshAnswer;
use agentd_core::rollout::Judgement;
use agentd_core::time::Moment;

use super::cause::{Act, Happening};
use super::process::{Life, Plan, Process, Saying, Watch};
use super::random::Random;

/// Pause between two looks at a draining process.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// All that is not the fleet.
#[derive(Debug)]
pub struct World {
    /// The virtual clock.
    pub now: Moment,
    /// Where chance comes from.
    pub random: Random,
    /// Processes that the supervisor may still have to hear of.
    pub processes: BTreeMap<Launch, Process>,
    /// The listening sockets of each app.
    pub listeners: BTreeMap<AppName, Listener>,
    /// Lanes that core gave up, because their relief would not run.
    pub given_up: BTreeSet<(AppName, Lane)>,
    /// Deployments whose new generation is being judged.
    pub judged: BTreeSet<(AppName, Operation)>,
    /// Faults and requests are over.
    pub calm: bool,
    due: BTreeMap<(Moment, u64), Happening>,
    sequence: u64,
    tasks: u64,
}

/// An app's listening sockets.
#[derive(Clone, Debug, Default)]
pub struct Listener {
    /// The shares in force.
    pub weights: Vec<u32>,
    /// Connections that wait in each lane's accept queue.
    pub queues: Vec<u32>,
}

impl World {
    /// An empty world.
    #[must_use]
    pub fn new(random: Random) -> Self {
        Self {
            now: Moment::from_micros(1_000_000),
            random,
            processes: BTreeMap::new(),
            listeners: BTreeMap::new(),
            given_up: BTreeSet::new(),
            judged: BTreeSet::new(),
            calm: false,
            due: BTreeMap::new(),
            sequence: 0,
            tasks: 0,
        }
    }

    /// Puts something into the queue.
    pub fn schedule(&mut self, after: Duration, happening: Happening) {
        self.sequence += 1;
        self.due.insert((self.now + after, self.sequence), happening);
    }

    /// When the next thing is due.
    #[must_use]
    pub fn next_due(&self) -> Option<Moment> {
        self.due.keys().next().map(|&(at, _)| at)
    }

    /// Takes the next thing out of the queue and moves the clock to it; the clock never goes back.
    pub fn take_due(&mut self) -> Option<Happening> {
        let ((at, _), happening) = self.due.pop_first()?;
        self.now = self.now.max(at);
        Some(happening)
    }

    /// Tells the supervisor of something: mostly at once, sometimes late, sometimes again.
    fn tell(&mut self, launch: Launch, event: WorkerEvent) {
        let late = match self.random.between(0, 99) {
            0..=9 if !self.calm => self.random.millis(0, 300),
            10..=11 if !self.calm => self.random.millis(300, 20_000),
            _ => Duration::ZERO,
        };
        if !self.calm && self.random.chance(5) {
            let again = late + self.random.millis(0, 30_000);
            self.schedule(again, Happening::Fact(launch, event.clone()));
        }
        self.schedule(late, Happening::Fact(launch, event));
    }

    /// Does what core asks for.
    ///
    /// # Errors
    /// What no shell could do: a process started twice, a signal to nobody.
    pub fn apply(&mut self, effect: &Effect) -> Result<(), String> {
        match effect {
            Effect::Spawn { launch, worker, lane, .. } => {
                let plan = if self.calm { Plan::calm(&mut self.random) } else { Plan::any(&mut self.random) };
                self.schedule(plan.spawn_in, Happening::Act(*launch, Act::Spawn));
                let process = Process::asked(worker.clone(), *lane, plan, self.now);
                if self.processes.insert(*launch, process).is_some() {
                    return Err(format!("launch {launch} is spawned twice"));
                }
            }
            Effect::ProveReady { launch } => self.prove_ready(*launch),
            Effect::ProbeLive { launch } => {
                let fails = self.processes.get(launch).map_or(100, |process| process.plan.probe_fails);
                let failed = !self.calm && self.random.chance(fails);
                let result = if failed { Err("no answer".to_owned()) } else { Ok(()) };
                let after = self.random.millis(1, 200);
                self.schedule(after, Happening::Fact(*launch, WorkerEvent::ProbeAnswered { result }));
            }
            Effect::WatchDrain { launch } => {
                if let Some(process) = self.processes.get_mut(launch) {
                    process.watch = Watch::On(None);
                    self.schedule(Duration::ZERO, Happening::Look(*launch));
                }
            }
            Effect::UnwatchDrain { launch } => {
                if let Some(process) = self.processes.get_mut(launch) {
                    process.watch = Watch::Off;
                }
            }
            Effect::SendStop { launch } => self.stop(*launch),
            Effect::SendAbort { launch } => {
                if let Some(process) = self.processes.get_mut(launch) {
                    process.told = Some(self.now);
                }
                let ends = self.random.millis(0, 50);
                self.end(*launch, ends, Exit::Signal(6));
            }
            Effect::Kill { launch } => self.kill(*launch),
            Effect::SetWeights { app, weights } => {
                let listener = self.listeners.entry(app.clone()).or_default();
                listener.queues.resize(listener.queues.len().max(weights.len()), 0);
                listener.weights.clone_from(weights);
            }
            Effect::Prepare { app, id } => self.prepare(app, *id),
            Effect::Check { app, id } => self.check(app, *id),
            Effect::Verify { app, id, step } => self.verify(app, *id, *step),
            Effect::Judge { app, id } => self.judge(app, *id),
            Effect::Refresh { launch, id } => self.refresh(*launch, *id),
            // What governs a process of the world is asked of the fleet each time.
            Effect::Govern { .. } => {}
            Effect::Forget { app } => {
                self.listeners.remove(app);
            }
        }
        Ok(())
    }

    fn find(&mut self, after: Duration, app: &AppName, id: Operation, event: RolloutEvent) {
        if !self.calm && self.random.chance(10) {
            let again = after + self.random.millis(0, 20_000);
            self.schedule(again, Happening::Finding(app.clone(), id, event.clone()));
        }
        self.schedule(after, Happening::Finding(app.clone(), id, event));
    }

    /// Most renew, some refuse, some never answer; some die of it.
    fn refresh(&mut self, launch: Launch, id: Operation) {
        let after = self.random.millis(1, 1_500);
        let chance = if self.calm { 99 } else { self.random.between(0, 99) };
        match chance {
            0..=9 => {}
            10..=14 => self.end(launch, after, Exit::Code(1)),
            15..=24 => {
                let result = Err("it cannot read it".to_owned());
                self.schedule(after, Happening::Fact(launch, WorkerEvent::Refreshed { id, result }));
            }
            _ => {
                let result = Ok(self.random.pick(&[RefreshAnswer::Renewed, RefreshAnswer::Told]));
                self.schedule(after, Happening::Fact(launch, WorkerEvent::Refreshed { id, result }));
            }
        }
    }

    fn prepare(&mut self, app: &AppName, id: Operation) {
        let after = self.random.millis(0, 2_000);
        let refused = !self.calm && self.random.chance(15);
        let event = if refused {
            RolloutEvent::Unprepared { why: "a hook ended with code 1".to_owned() }
        } else {
            RolloutEvent::Prepared
        };
        self.find(after, app, id, event);
    }

    fn check(&mut self, app: &AppName, id: Operation) {
        let after = self.random.millis(0, 2_000);
        if !self.calm && self.random.chance(8) {
            let later = after + Duration::from_millis(1);
            self.find(after, app, id, RolloutEvent::Unfit { why: "check ended with code 1".to_owned() });
            return self.find(later, app, id, RolloutEvent::Checked { last: true });
        }
        // One of them is about the other look, and late.
        for last in [false, true] {
            self.find(after, app, id, RolloutEvent::Checked { last });
        }
    }

    fn verify(&mut self, app: &AppName, id: Operation, step: usize) {
        let refused = !self.calm && self.random.chance(15);
        let event = if refused {
            RolloutEvent::Refused { step, why: "eval ended with code 1".to_owned() }
        } else {
            RolloutEvent::Verified { step }
        };
        let after = self.random.millis(0, 2_000);
        self.find(after, app, id, event);
    }

    fn judge(&mut self, app: &AppName, id: Operation) {
        self.judged.insert((app.clone(), id));
        let words = if self.calm { 0 } else { self.random.between(0, 4) };
        for _ in 0..words {
            let event = match self.random.between(0, 9) {
                0 => RolloutEvent::Condemned { why: "errors 9 of 50 against 1.0 %".to_owned() },
                1..=3 => RolloutEvent::Judged(Judgement::Hold { why: "latency may be worse".to_owned() }),
                4 => RolloutEvent::Judged(Judgement::TooFew),
                _ => RolloutEvent::Judged(Judgement::Promote),
            };
            let after = self.random.millis(0, 5_000);
            self.find(after, app, id, event);
        }
        if self.calm {
            self.find(Duration::from_millis(10), app, id, RolloutEvent::Judged(Judgement::Promote));
        }
    }

    /// Faults are over: whatever is being judged is found to be well.
    pub fn calm_down(&mut self) {
        self.calm = true;
        for (app, id) in std::mem::take(&mut self.judged) {
            self.find(Duration::from_millis(10), &app, id, RolloutEvent::Judged(Judgement::Promote));
        }
    }

    fn prove_ready(&mut self, launch: Launch) {
        let Some(process) = self.processes.get(&launch).filter(|process| process.life == Life::Alive) else { return };
        let lived = self.now.since(process.since);
        let (ready_in, refuted) = (process.plan.ready_in, process.plan.refuted);
        if refuted {
            let why = "connection refused".to_owned();
            let after = self.random.millis(1, 400);
            self.schedule(after, Happening::Fact(launch, WorkerEvent::ReadyRefuted { why }));
        }
        let Some(ready_in) = ready_in else { return };
        let after = ready_in.saturating_sub(lived) + self.random.millis(0, 20);
        self.schedule(after, Happening::Act(launch, Act::Open));
    }

    fn stop(&mut self, launch: Launch) {
        let calm = self.calm;
        let Some(process) = self.processes.get_mut(&launch) else { return };
        process.told = Some(self.now);
        let ends_in = if calm { Some(Duration::from_millis(10)) } else { process.plan.ends_in };
        if let (Life::Alive, Some(ends_in)) = (process.life, ends_in) {
            let exit = self.random.pick(&[Exit::Code(0), Exit::Signal(15), Exit::Code(1)]);
            self.end(launch, ends_in, exit);
        }
    }

    fn kill(&mut self, launch: Launch) {
        let calm = self.calm;
        let Some(process) = self.processes.get_mut(&launch) else { return };
        process.kills += 1;
        if process.plan.survives_a_kill && process.kills == 1 && !calm {
            return;
        }
        let after = self.random.millis(0, 30);
        self.end(launch, after, Exit::Signal(9));
    }

    fn end(&mut self, launch: Launch, after: Duration, exit: Exit) {
        self.schedule(after, Happening::Act(launch, Act::Exit { exit, fault: false }));
    }

    /// Lets a process do what it is about to do, if it is still there to do it.
    pub fn act(&mut self, launch: Launch, act: Act) {
        let calm = self.calm;
        let Some(process) = self.processes.get_mut(&launch) else { return };
        if let (Act::Spawn, Life::Asked) = (act, process.life) {
            return self.spawn(launch);
        }
        if process.life != Life::Alive && !matches!((act, process.life), (Act::Exit { .. }, Life::Asked)) {
            return;
        }
        match act {
            // Its second spawn: it was asked for once more by the next supervisor, and was there.
            Act::Spawn => {}
            Act::Open => {
                process.accepts = true;
                self.accept_what_waits(launch);
                let proof = self.random.pick(&[Proof::Notified, Proof::Http, Proof::Accepted]);
                self.tell(launch, WorkerEvent::ReadyProven { proof });
            }
            Act::Exit { fault: true, .. } if calm => {}
            Act::Exit { exit, .. } => {
                process.life = Life::Gone;
                self.tell(launch, WorkerEvent::Exited { exit });
            }
            Act::Answer { kept } => {
                process.busy -= 1;
                if kept {
                    process.idle += 1;
                    let after = self.random.millis(100, 30_000);
                    self.schedule(after, Happening::Act(launch, Act::Close));
                }
            }
            Act::Close => process.idle -= 1,
            Act::Beat => {
                let silent = process.plan.silent_after.is_some_and(|after| self.now.since(process.since) >= after);
                let beats = process.plan.beats;
                if calm || !silent {
                    self.schedule(Duration::ZERO, Happening::Fact(launch, WorkerEvent::WatchdogBeat));
                }
                self.schedule(beats, Happening::Act(launch, Act::Beat));
            }
            Act::Say(_) if calm => {}
            Act::Say(saying) => self.say(launch, saying),
        }
    }

    fn spawn(&mut self, launch: Launch) {
        let Some(process) = self.processes.get_mut(&launch) else { return };
        if let Some(permanent) = process.plan.spawn_fails {
            process.life = Life::Gone;
            let why = "entering directory: no such directory".to_owned();
            return self.tell(launch, WorkerEvent::SpawnFailed { why, permanent });
        }
        process.life = Life::Alive;
        process.since = self.now;
        let (plan, told, kills) = (process.plan.clone(), process.told, process.kills);
        let pid = Pid(1_000 + u32::try_from(launch.0 % 30_000).expect("a remainder under 30,000 is a u32"));
        self.tell(launch, WorkerEvent::Spawned { pid, start_time: launch.0 });
        self.schedule(plan.beats, Happening::Act(launch, Act::Beat));
        if let Some((after, exit)) = plan.falls {
            self.schedule(after, Happening::Act(launch, Act::Exit { exit, fault: true }));
        }
        for (after, saying) in plan.says {
            self.schedule(after, Happening::Act(launch, Act::Say(saying)));
        }
        // Signals that were sent to a process in the making reach it now.
        if told.is_some() {
            self.stop(launch);
            if let Some(process) = self.processes.get_mut(&launch) {
                process.told = told;
            }
        }
        if kills > 0 {
            self.end(launch, Duration::ZERO, Exit::Signal(9));
        }
    }

    fn say(&mut self, launch: Launch, saying: Saying) {
        match saying {
            Saying::Stopping => {
                self.tell(launch, WorkerEvent::StoppingSaid);
                let after = self.random.millis(0, 3_000);
                let exit = self.random.pick(&[Exit::Code(0), Exit::Code(1)]);
                self.end(launch, after, exit);
            }
            Saying::Extend(by) => self.tell(launch, WorkerEvent::TimeoutExtended { by }),
            Saying::DrainsItself => self.tell(launch, WorkerEvent::DrainsItselfSaid),
            Saying::Hung => self.tell(launch, WorkerEvent::WatchdogTriggered),
            Saying::Watchdog(interval) => self.tell(launch, WorkerEvent::WatchdogSet { interval }),
            Saying::Outgrown => {
                let limit = LimitMet::MemoryCeiling { used: 2, ceiling: 1 };
                self.tell(launch, WorkerEvent::LimitMet(limit));
            }
            Saying::Task(lasts) => {
                self.tasks += 1;
                let id = format!("task-{}", self.tasks);
                self.tell(launch, WorkerEvent::TaskBegan { id: id.clone(), kind: None });
                if let Some(lasts) = lasts {
                    self.schedule(lasts, Happening::Fact(launch, WorkerEvent::TaskEnded { id }));
                }
            }
        }
    }

    /// A connection arrives at some app; answers which, and in which lane.
    pub fn connect(&mut self) -> Option<(AppName, Lane)> {
        let listening = self.listeners.iter().filter(|(_, listener)| listener.weights.iter().any(|&share| share > 0));
        let apps: Vec<AppName> = listening.map(|(name, _)| name.clone()).collect();
        if apps.is_empty() {
            return None;
        }
        let index = usize::try_from(self.random.between(0, apps.len() as u64 - 1)).expect("an index is a usize");
        let app = apps[index].clone();
        let listener = self.listeners.get_mut(&app)?;
        let mut ticket =
            self.random.between(0, listener.weights.iter().map(|&share| u64::from(share)).sum::<u64>() - 1);
        let chosen = listener.weights.iter().position(|&share| {
            let here = ticket < u64::from(share);
            ticket = ticket.saturating_sub(u64::from(share));
            here
        })?;
        listener.queues[chosen] += 1;
        let lane = Lane(u32::try_from(chosen).expect("a lane is a u32"));
        let takers = self.takers(&app, lane);
        if !takers.is_empty() {
            let taker = self.random.pick(&takers);
            self.accept_what_waits(taker);
        }
        Some((app, lane))
    }

    /// Who accepts from a lane now.
    #[must_use]
    pub fn takers(&self, app: &AppName, lane: Lane) -> Vec<Launch> {
        let there = |process: &Process| process.worker.app == *app && process.lane == Some(lane) && process.takes();
        self.processes.iter().filter(|(_, process)| there(process)).map(|(&launch, _)| launch).collect()
    }

    fn accept_what_waits(&mut self, launch: Launch) {
        let Some(process) = self.processes.get_mut(&launch) else { return };
        let Some(lane) = process.lane else { return };
        let Some(listener) = self.listeners.get_mut(&process.worker.app) else { return };
        let Some(queue) = listener.queues.get_mut(lane.0 as usize) else { return };
        let count = std::mem::take(queue);
        process.busy += count;
        for _ in 0..count {
            let lasts =
                if self.random.chance(90) { self.random.millis(1, 900) } else { self.random.millis(900, 15_000) };
            let kept = self.random.chance(40);
            self.schedule(lasts, Happening::Act(launch, Act::Answer { kept }));
        }
    }

    /// Looks at a watched process, and tells what it has when that changed.
    pub fn look(&mut self, launch: Launch) -> Option<WorkerEvent> {
        let process = self.processes.get(&launch).filter(|process| process.life == Life::Alive)?;
        let Watch::On(last) = process.watch else { return None };
        let queued = self.queued(process);
        let seen = InFlight { queued, busy: process.busy, idle: process.idle, reused: 0 };
        self.schedule(LOOK_EVERY, Happening::Look(launch));
        if last == Some(seen) {
            return None;
        }
        if let Some(process) = self.processes.get_mut(&launch) {
            process.watch = Watch::On(Some(seen));
        }
        Some(WorkerEvent::DrainObserved(seen))
    }

    /// Connections that wait in the accept queue of a process.
    #[must_use]
    pub fn queued(&self, process: &Process) -> u32 {
        let queues = self.listeners.get(&process.worker.app).map(|listener| &listener.queues);
        process.lane.and_then(|lane| queues?.get(lane.0 as usize).copied()).unwrap_or(0)
    }

    /// The supervisor is gone: nobody watches any more. Everything else goes on.
    pub fn lose_supervisor(&mut self) {
        for process in self.processes.values_mut() {
            process.watch = Watch::Off;
        }
    }
}
