//! The transitions of one worker.

use std::time::Duration;

use crate::drain::{self, Drain};
use crate::effect::{Effect, ExitCause, News, Outcome, StopReason, drain_by};
use crate::event::{Exit, InFlight, Proof, WorkerEvent};
use crate::grace;
use crate::id::Launch;
use crate::limit::LimitMet;
use crate::policy::AppPolicy;
use crate::restart::Verdict;
use crate::time::{Moment, Tick};

use super::state::{KernelProcess, LastExit, NextProbe, Probe, Process, State, Task, Watchdog, Worker};

/// How long a worker that is of no use (never ready, unhealthy, hung) has between the stop signal and the kill.
const USELESS_STOP: Duration = Duration::from_secs(5);

/// Pause before a killed tree that is still there is killed once more.
const KILL_AGAIN: Duration = Duration::from_secs(5);

/// A watchdog found this long after it was due says nothing: the machine slept or the supervisor did not run, and what
/// the worker said meanwhile is not read yet.
const NOT_WATCHING: Duration = Duration::from_secs(1);

/// How long after the moment at which the ledger takes a worker's tasks the worker is told to end all the same, should the
/// ledger be unable to say that it did.
const LEDGER_LATE: Duration = Duration::from_secs(5);

/// A deadline that differs by less from the one that was told is not told anew.
const DEADLINE_MOVED: Duration = Duration::from_millis(100);

/// Tasks remembered per worker; what is told beyond is not counted.
const TASKS_MAX: usize = 10_000;

/// What a step of one worker means to its app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum After {
    /// Nothing that others must know of.
    Same,
    /// It became ready, left readiness or is otherwise in another phase.
    Moved,
    /// It was told to end, with work still in hand.
    Cut {
        /// What it had; none when nobody could see.
        in_flight: Option<InFlight>,
    },
    /// It ended as it was asked to.
    Ended {
        /// Why it was asked.
        reason: StopReason,
        /// Tasks that it told of and did not end.
        tasks_lost: u32,
    },
    /// It ended, or could not start, and nobody had asked.
    Crashed(Crash),
}

/// An end that nobody asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crash {
    /// Which process start.
    pub launch: Launch,
    /// How it ended.
    pub exit: Exit,
    /// In words, as a fragment after the worker's name: "exited with code 1 before it was ready".
    pub why: String,
    /// How long it had served; none when it never was ready.
    pub served: Option<Duration>,
    /// A restart without a change cannot help.
    pub permanent: bool,
}

impl Worker {
    /// Starts a process for it. Only from a state without one.
    pub(crate) fn start(&mut self, tick: Tick, policy: &AppPolicy, launch: Launch, out: &mut Outcome) {
        debug_assert!(self.state.process().is_none(), "{} is started while it has a process", self.id);
        let process = Process {
            launch,
            kernel: None,
            started_at: tick.now,
            tasks: std::collections::BTreeMap::new(),
            in_hand: 0,
            drains_itself: false,
            watchdog: None,
        };
        self.state = State::Starting { process, ready_by: tick.now + policy.ready.timeout, refuted: None };
        out.save_worker(&self.id);
        out.act.push(Effect::Spawn { launch, worker: self.id.clone(), revision: self.revision, lane: self.lane });
        out.tell(&self.id, News::Starting { launch });
    }

    /// Takes in a fact about its present process.
    pub(crate) fn step(&mut self, tick: Tick, policy: &AppPolicy, event: WorkerEvent, out: &mut Outcome) -> After {
        match event {
            WorkerEvent::Spawned { pid, start_time } => self.spawned(KernelProcess { pid, start_time }, out),
            WorkerEvent::SpawnFailed { why, permanent } => self.spawn_failed(why, permanent, out),
            WorkerEvent::ReadyProven { proof } => self.ready_proven(tick, policy, proof, out),
            WorkerEvent::ReadyRefuted { why } => {
                if let State::Starting { refuted, .. } = &mut self.state {
                    *refuted = Some(why);
                }
                After::Same
            }
            WorkerEvent::ProbeAnswered { result } => self.probe_answered(tick, policy, result, out),
            WorkerEvent::DrainObserved(seen) => self.drain_observed(tick, policy, seen, out),
            WorkerEvent::Exited { exit } => self.exited(tick, exit, out),
            WorkerEvent::TimeoutExtended { by } => self.timeout_extended(tick, policy, by, out),
            WorkerEvent::StoppingSaid => self.stopping_said(tick, policy, out),
            WorkerEvent::DrainsItselfSaid => {
                if let Some(process) = self.state.process_mut() {
                    process.drains_itself = true;
                    out.save_worker(&self.id);
                }
                self.judge_drain(tick, policy, out)
            }
            WorkerEvent::WatchdogBeat => {
                self.set_watchdog(tick, None);
                After::Same
            }
            WorkerEvent::WatchdogSet { interval } => {
                self.set_watchdog(tick, Some(interval));
                out.save_worker(&self.id);
                After::Same
            }
            WorkerEvent::WatchdogTriggered => self.hung(tick, out),
            WorkerEvent::TaskBegan { id, kind } => {
                if let Some(process) = self.state.process_mut()
                    && process.tasks.len() < TASKS_MAX
                {
                    process.tasks.entry(id).or_insert(Task { since: tick.now, kind });
                }
                After::Same
            }
            WorkerEvent::TaskEnded { id } => self.task_ended(tick, policy, &id, out),
            WorkerEvent::TasksInHand { tasks } => {
                if let Some(process) = self.state.process_mut() {
                    process.in_hand = tasks;
                }
                self.judge_drain(tick, policy, out)
            }
            WorkerEvent::TasksDeadline { at } => self.tasks_deadline(at, out),
            WorkerEvent::TasksTaken { tasks } => self.tasks_taken(tick, policy, tasks, out),
            WorkerEvent::LimitMet(limit) => self.limit_met(tick, policy, limit, out),
            // Its app has taken it.
            WorkerEvent::Refreshed { .. } => After::Same,
            WorkerEvent::TasksSettled(_) => {
                if let Some(process) = self.state.process_mut() {
                    process.in_hand = 0;
                }
                After::Same
            }
        }
    }

    /// Does what is due at `tick.now`. [`State::Backoff`] is its app's to end.
    pub(crate) fn wake(&mut self, tick: Tick, policy: &AppPolicy, out: &mut Outcome) -> After {
        let now = tick.now;
        match &mut self.state {
            State::Starting { ready_by, refuted, .. } => {
                if now < *ready_by {
                    return After::Same;
                }
                let seen = refuted.as_deref().unwrap_or("nothing proved it");
                let why = format!("{seen} (waited {:?})", policy.ready.timeout);
                self.stop_useless(tick, StopReason::NotReady, Some(why), out)
            }
            State::Ready { process, probe, .. } => {
                if let Some(watchdog) = process.watchdog.as_mut().filter(|watchdog| watchdog.due <= now) {
                    if now.since(watchdog.due) < NOT_WATCHING {
                        return self.hung(tick, out);
                    }
                    watchdog.due = now + watchdog.interval;
                }
                if let Some(probe) = probe
                    && let NextProbe::At(at) = probe.next
                    && at <= now
                {
                    probe.next = NextProbe::UnderWay;
                    out.act.push(Effect::ProbeLive { launch: process.launch });
                }
                After::Same
            }
            State::Draining { warm_until, .. } => {
                if warm_until.is_some_and(|at| at <= now) {
                    *warm_until = None;
                }
                self.judge_drain(tick, policy, out)
            }
            State::Stopping { process, served_since, reason, kill_at } => {
                if now < *kill_at {
                    return After::Same;
                }
                out.act.push(Effect::Kill { launch: process.launch });
                self.state = State::Killed {
                    process: process.clone(),
                    served_since: *served_since,
                    reason: *reason,
                    again_at: now + KILL_AGAIN,
                };
                out.save_worker(&self.id);
                out.tell(&self.id, News::Killed);
                After::Same
            }
            State::Killed { process, again_at, .. } => {
                if now >= *again_at {
                    *again_at = now + KILL_AGAIN;
                    out.act.push(Effect::Kill { launch: process.launch });
                }
                After::Same
            }
            State::Backoff { .. } | State::Exited | State::Failed { .. } => After::Same,
        }
    }

    /// Takes it out of service: it gets nothing new, finishes what it has, and is then told to end. Not before
    /// `warm` is over, so that it can be taken back. A worker that never served is told to end at once.
    pub(crate) fn drain(
        &mut self,
        tick: Tick,
        policy: &AppPolicy,
        reason: StopReason,
        warm: Duration,
        out: &mut Outcome,
    ) -> After {
        match &mut self.state {
            State::Ready { process, since, .. } => {
                let deadline = tick.now + grace::bound(&policy.grace);
                let launch = process.launch;
                self.state = State::Draining {
                    process: process.clone(),
                    served_since: Some(*since),
                    reason,
                    deadline,
                    tasks_until: None,
                    warm_until: (!warm.is_zero()).then(|| tick.now + warm),
                    in_flight: None,
                };
                out.save_worker(&self.id);
                out.act.push(Effect::WatchDrain { launch });
                out.tell(&self.id, News::Draining { reason, deadline });
                After::Moved
            }
            State::Starting { .. } => {
                self.tell_to_end(tick, policy, reason, out);
                After::Moved
            }
            // It is on its way out already: only what follows its exit changes, and how long it is kept warm for.
            State::Draining { reason: present, deadline, tasks_until, warm_until, .. } => {
                *present = reason;
                let less = warm_until.map(|at| at.min(tick.now + warm));
                // Its time was over before, and to be taken back all that it was left for.
                if tasks_until.is_some_and(|at| at <= tick.now) {
                    *deadline = less.map_or(*deadline, |less| less.min(*deadline));
                }
                *warm_until = less;
                out.save_worker(&self.id);
                After::Same
            }
            State::Stopping { reason: present, .. } | State::Killed { reason: present, .. } => {
                *present = reason;
                out.save_worker(&self.id);
                After::Same
            }
            State::Backoff { .. } | State::Exited | State::Failed { .. } => {
                self.state = State::Exited;
                out.save_worker(&self.id);
                After::Ended { reason, tasks_lost: 0 }
            }
        }
    }

    /// Takes a draining worker back into service; whether it could be.
    pub(crate) fn undrain(&mut self, tick: Tick, policy: &AppPolicy, out: &mut Outcome) -> bool {
        let State::Draining { process, served_since: Some(since), .. } = &self.state else {
            return false;
        };
        let (launch, mut process) = (process.launch, process.clone());
        // Its silence while it drained is not held against it.
        if let Some(watchdog) = &mut process.watchdog {
            watchdog.due = tick.now + watchdog.interval;
        }
        self.state =
            State::Ready { process, since: *since, proof: Proof::Accepted, probe: first_probe(tick.now, policy) };
        out.save_worker(&self.id);
        out.act.push(Effect::UnwatchDrain { launch });
        out.tell(&self.id, News::Undrained);
        true
    }

    /// After a crash: another start after the policy's wait, or none. The app then starts it when it is due.
    pub(crate) fn follow_policy(&mut self, tick: Tick, policy: &AppPolicy, crash: &Crash, out: &mut Outcome) {
        if crash.permanent {
            return self.park(crash.why.clone(), out);
        }
        match self.restarts.after_exit(tick, &policy.restart, crash.exit, crash.served) {
            Verdict::Again { delay, attempt } => {
                self.state = State::Backoff { until: tick.now + delay };
                out.save_worker(&self.id);
                out.tell(&self.id, News::Backoff { delay, attempt });
            }
            Verdict::Stay => {
                self.state = State::Exited;
                out.save_worker(&self.id);
            }
            Verdict::Park { restarts } => {
                let window = policy.restart.period.as_secs();
                let why = format!("{}; {restarts} restarts within {window} s did not help", crash.why);
                self.park(why, out);
            }
        }
    }

    /// No more starts until somebody asks.
    pub(crate) fn park(&mut self, why: String, out: &mut Outcome) {
        out.tell(&self.id, News::Parked { why: why.clone() });
        self.state = State::Failed { why };
        out.save_worker(&self.id);
    }

    fn spawned(&mut self, kernel: KernelProcess, out: &mut Outcome) -> After {
        if let Some(process) = self.state.process_mut() {
            process.kernel = Some(kernel);
            let launch = process.launch;
            out.save_worker(&self.id);
            out.tell(&self.id, News::Spawned { pid: kernel.pid });
            if matches!(self.state, State::Starting { .. }) {
                out.act.push(Effect::ProveReady { launch });
            }
        }
        After::Same
    }

    fn spawn_failed(&mut self, why: String, permanent: bool, out: &mut Outcome) -> After {
        let Some(process) = self.state.process() else { return After::Same };
        let launch = process.launch;
        let asked = match &self.state {
            State::Draining { reason, .. } | State::Stopping { reason, .. } | State::Killed { reason, .. } => {
                Some(*reason)
            }
            State::Starting { .. } | State::Ready { .. } => None,
            State::Backoff { .. } | State::Exited | State::Failed { .. } => return After::Same,
        };
        let cause = ExitCause::StartFailed;
        self.last_exit = Some(LastExit { launch, exit: Exit::Unknown, cause, reason: why.clone() });
        self.state = State::Exited;
        out.save_worker(&self.id);
        match asked {
            Some(reason) => After::Ended { reason, tasks_lost: 0 },
            None => After::Crashed(Crash { launch, exit: Exit::Code(127), why, served: None, permanent }),
        }
    }

    fn ready_proven(&mut self, tick: Tick, policy: &AppPolicy, proof: Proof, out: &mut Outcome) -> After {
        let State::Starting { process, .. } = &mut self.state else { return After::Same };
        if process.watchdog.is_none() {
            process.watchdog = policy.watchdog.map(|interval| Watchdog { interval, due: tick.now });
        }
        if let Some(watchdog) = &mut process.watchdog {
            watchdog.due = tick.now + watchdog.interval;
        }
        let after = tick.now.since(process.started_at);
        self.state =
            State::Ready { process: process.clone(), since: tick.now, proof, probe: first_probe(tick.now, policy) };
        out.save_worker(&self.id);
        out.tell(&self.id, News::Ready { proof, after });
        After::Moved
    }

    /// Another policy governs it from now on: it is probed as that one wants it.
    pub(crate) fn regard(&mut self, tick: Tick, policy: &AppPolicy) {
        if let State::Ready { probe, .. } = &mut self.state {
            *probe = match (probe.take(), policy.live) {
                (Some(probe), Some(_)) => Some(probe),
                (None, Some(_)) => first_probe(tick.now, policy),
                (_, None) => None,
            };
        }
    }

    fn probe_answered(
        &mut self,
        tick: Tick,
        policy: &AppPolicy,
        result: Result<(), String>,
        out: &mut Outcome,
    ) -> After {
        let State::Ready { probe: Some(probe), .. } = &mut self.state else { return After::Same };
        let Some(live) = policy.live else { return After::Same };
        probe.next = NextProbe::At(tick.now + live.every);
        let Err(why) = result else {
            probe.failures = 0;
            return After::Same;
        };
        probe.failures = probe.failures.saturating_add(1);
        let failures = probe.failures;
        out.tell(&self.id, News::ProbeFailed { why: why.clone(), failures, of: live.failures });
        if failures < live.failures {
            return After::Same;
        }
        self.stop_useless(tick, StopReason::Unhealthy, Some(why), out)
    }

    fn drain_observed(&mut self, tick: Tick, policy: &AppPolicy, seen: InFlight, out: &mut Outcome) -> After {
        let tasks = self.tasks();
        let State::Draining { in_flight, .. } = &mut self.state else { return After::Same };
        if *in_flight != Some(seen) {
            *in_flight = Some(seen);
            let tasks = u32::try_from(tasks).unwrap_or(u32::MAX);
            out.tell(&self.id, News::DrainProgress { in_flight: seen, tasks });
        }
        self.judge_drain(tick, policy, out)
    }

    fn judge_drain(&mut self, tick: Tick, policy: &AppPolicy, out: &mut Outcome) -> After {
        let State::Draining { process, deadline, warm_until, in_flight, reason, .. } = &self.state else {
            return After::Same;
        };
        let drain = Drain {
            deadline: *deadline,
            warm_until: *warm_until,
            by: drain_by(policy.stop.drain, process.drains_itself),
            in_flight: *in_flight,
            tasks: process.tasks.len() + process.in_hand as usize,
        };
        match drain::verdict(&drain, tick.now) {
            drain::Verdict::Wait { until } => {
                if let State::Draining { deadline, tasks_until, .. } = &mut self.state
                    && *deadline <= tick.now
                {
                    tasks_until.get_or_insert(*deadline);
                    *deadline = until;
                    out.save_worker(&self.id);
                }
                After::Same
            }
            drain::Verdict::Terminate => {
                let (reason, cut) = (*reason, *in_flight);
                self.tell_to_end(tick, policy, reason, out);
                After::Cut { in_flight: cut }
            }
        }
    }

    /// Sends the stop signal; the kill follows at the end of the grace.
    fn tell_to_end(&mut self, tick: Tick, policy: &AppPolicy, reason: StopReason, out: &mut Outcome) {
        let (deadline, cut) = match &self.state {
            State::Draining { deadline, tasks_until, in_flight, .. } => {
                (tasks_until.unwrap_or(*deadline), in_flight.unwrap_or_default())
            }
            State::Starting { .. } | State::Ready { .. } => {
                (tick.now + grace::bound(&policy.grace), InFlight::default())
            }
            State::Stopping { .. }
            | State::Killed { .. }
            | State::Backoff { .. }
            | State::Exited
            | State::Failed { .. } => {
                return;
            }
        };
        // At its deadline a worker still gets time to act on the signal.
        let mut kill_at = deadline.max(tick.now + USELESS_STOP);
        if let Some(timeout) = policy.stop.timeout {
            kill_at = kill_at.min(tick.now + timeout);
        }
        let tasks_cut = u32::try_from(self.tasks()).unwrap_or(u32::MAX);
        self.signal(reason, kill_at, out);
        out.tell(&self.id, News::Stopping { reason, cut, tasks_cut });
    }

    /// Ends a worker that is of no use, without a drain: there is nothing to wait for.
    fn stop_useless(&mut self, tick: Tick, reason: StopReason, why: Option<String>, out: &mut Outcome) -> After {
        if let Some(process) = self.state.process() {
            let launch = process.launch;
            let reason_text = match (reason, why) {
                (StopReason::NotReady, Some(why)) => format!("was not ready in time: {why}"),
                (StopReason::Unhealthy, Some(why)) => format!("failed its liveness probes: {why}"),
                (other, Some(why)) => format!("{}: {why}", other.word()),
                (other, None) => format!("was stopped: {}", other.word()),
            };
            let cause = ExitCause::Asked(reason);
            self.last_exit = Some(LastExit { launch, exit: Exit::Unknown, cause, reason: reason_text });
        }
        self.signal(reason, tick.now + USELESS_STOP, out);
        out.tell(&self.id, News::Stopping { reason, cut: InFlight::default(), tasks_cut: 0 });
        After::Moved
    }

    fn signal(&mut self, reason: StopReason, kill_at: Moment, out: &mut Outcome) {
        let Some(process) = self.state.process() else { return };
        let launch = process.launch;
        let served_since = self.state.served_since();
        self.state = State::Stopping { process: process.clone(), served_since, reason, kill_at };
        out.save_worker(&self.id);
        out.act.push(if reason == StopReason::Watchdog {
            Effect::SendAbort { launch }
        } else {
            Effect::SendStop { launch }
        });
    }

    fn hung(&mut self, tick: Tick, out: &mut Outcome) -> After {
        match self.state {
            State::Starting { .. } | State::Ready { .. } => {
                let why = Some("no WATCHDOG=1 within its interval".to_owned());
                self.stop_useless(tick, StopReason::Watchdog, why, out)
            }
            // It is on its way out, and that has a deadline of its own.
            State::Draining { .. }
            | State::Stopping { .. }
            | State::Killed { .. }
            | State::Backoff { .. }
            | State::Exited
            | State::Failed { .. } => After::Same,
        }
    }

    fn set_watchdog(&mut self, tick: Tick, interval: Option<Duration>) {
        let Some(process) = self.state.process_mut() else { return };
        let interval = interval.or(process.watchdog.map(|watchdog| watchdog.interval));
        process.watchdog = interval
            .filter(|interval| !interval.is_zero())
            .map(|interval| Watchdog { interval, due: tick.now + interval });
    }

    fn timeout_extended(&mut self, tick: Tick, policy: &AppPolicy, by: Duration, out: &mut Outcome) -> After {
        let until = tick.now + by.min(policy.grace.max.max(policy.ready.timeout));
        match &mut self.state {
            State::Starting { ready_by: at, .. }
            | State::Draining { deadline: at, .. }
            | State::Stopping { kill_at: at, .. } => {
                *at = (*at).max(until);
                out.save_worker(&self.id);
            }
            State::Ready { .. }
            | State::Killed { .. }
            | State::Backoff { .. }
            | State::Exited
            | State::Failed { .. } => {}
        }
        After::Same
    }

    fn stopping_said(&mut self, tick: Tick, policy: &AppPolicy, out: &mut Outcome) -> After {
        let State::Ready { process, since, .. } = &self.state else { return After::Same };
        self.state = State::Stopping {
            process: process.clone(),
            served_since: Some(*since),
            reason: StopReason::Own,
            kill_at: tick.now + grace::bound(&policy.grace),
        };
        out.save_worker(&self.id);
        let cut = InFlight::default();
        out.tell(&self.id, News::Stopping { reason: StopReason::Own, cut, tasks_cut: 0 });
        After::Moved
    }

    fn task_ended(&mut self, tick: Tick, policy: &AppPolicy, id: &str, out: &mut Outcome) -> After {
        if let Some(process) = self.state.process_mut() {
            process.tasks.remove(id);
        }
        self.judge_drain(tick, policy, out)
    }

    /// The ledger told when it takes the tasks: by what such tasks take, where the first deadline knew nothing of them.
    fn tasks_deadline(&mut self, at: Moment, out: &mut Outcome) -> After {
        let State::Draining { deadline, tasks_until, .. } = &mut self.state else { return After::Same };
        if *tasks_until != Some(at) {
            let told = tasks_until.unwrap_or(*deadline);
            *tasks_until = Some(at);
            *deadline = at + LEDGER_LATE;
            out.save_worker(&self.id);
            // Of a worker without tasks the ledger knows what was told already.
            if told.max(at).since(told.min(at)) >= DEADLINE_MOVED {
                out.tell(&self.id, News::DrainDeadline { deadline: at });
            }
        }
        After::Same
    }

    fn tasks_taken(&mut self, tick: Tick, policy: &AppPolicy, tasks: u32, out: &mut Outcome) -> After {
        let State::Draining { deadline, warm_until, .. } = &mut self.state else { return After::Same };
        *deadline = (*deadline).min(tick.now);
        if tasks > 0 {
            // They go on at its end.
            *warm_until = None;
        }
        self.judge_drain(tick, policy, out)
    }

    /// Whether another one is to take its place though it serves.
    #[must_use]
    pub fn has_outgrown(&self) -> bool {
        let noted = self.last_exit.as_ref().filter(|noted| Some(noted.launch) == self.launch());
        matches!(self.state, State::Ready { .. })
            && noted.is_some_and(|noted| matches!(noted.cause, ExitCause::Limit(limit) if limit.lives_on()))
    }

    /// Noted as what will be said of its end. One that outgrew its ceiling soon after its start would do so again: it is
    /// replaced not more often than the longest wait of its restart policy.
    fn limit_met(&mut self, tick: Tick, policy: &AppPolicy, limit: LimitMet, out: &mut Outcome) -> After {
        let Some(process) = self.state.process() else { return After::Same };
        let (launch, ran) = (process.launch, tick.now.since(process.started_at));
        let serves = matches!(self.state, State::Ready { .. });
        if limit.lives_on() && (!serves || self.has_outgrown() || ran < policy.restart.backoff_max) {
            return After::Same;
        }
        // What it was told to end for is the reason, whatever came in between.
        let useless = self
            .last_exit
            .as_ref()
            .is_some_and(|noted| noted.launch == launch && matches!(noted.cause, ExitCause::Asked(_)));
        if useless {
            return After::Same;
        }
        let cause = ExitCause::Limit(limit);
        self.last_exit = Some(LastExit { launch, exit: Exit::Unknown, cause, reason: limit.to_string() });
        out.save_worker(&self.id);
        if limit.lives_on() {
            out.tell(&self.id, News::Outgrown { limit });
            return After::Moved;
        }
        After::Same
    }

    pub(super) fn exited(&mut self, tick: Tick, exit: Exit, out: &mut Outcome) -> After {
        let tasks_lost = u32::try_from(self.tasks()).unwrap_or(u32::MAX);
        let served = self.state.served_since().map(|since| tick.now.since(since));
        let Some(process) = self.state.process() else {
            // Doubled: its end is known.
            return After::Same;
        };
        let launch = process.launch;
        let uptime = tick.now.since(process.started_at);
        let noted = self.last_exit.take().filter(|noted| noted.launch == launch);
        let (asked, reason) = match &self.state {
            State::Starting { .. } => (None, format!("ended before it was ready ({exit})")),
            State::Ready { .. } => (None, format!("ended by itself ({exit})")),
            State::Draining { reason, .. } => (Some(*reason), format!("{}, ended while draining", reason.word())),
            State::Stopping { reason, .. } => (Some(*reason), reason.word().to_owned()),
            State::Killed { reason, .. } => (Some(*reason), format!("{}, killed: did not end in time", reason.word())),
            State::Backoff { .. } | State::Exited | State::Failed { .. } => return After::Same,
        };
        let cause = match &noted {
            Some(LastExit { cause: ExitCause::Limit(limit), .. }) => ExitCause::Limit(*limit),
            Some(_) | None => asked.map_or(ExitCause::Itself, ExitCause::Asked),
        };
        let reason = noted.map_or(reason, |noted| noted.reason);
        out.tell(&self.id, News::Exited { exit, cause, reason: reason.clone(), uptime });
        self.last_exit = Some(LastExit { launch, exit, cause, reason: reason.clone() });
        self.state = State::Exited;
        out.save_worker(&self.id);
        let crash = |why| After::Crashed(Crash { launch, exit, why, served, permanent: false });
        match asked {
            None => crash(reason),
            Some(StopReason::NotReady | StopReason::Unhealthy | StopReason::Watchdog | StopReason::Own) => {
                crash(reason)
            }
            Some(
                reason @ (StopReason::Stop | StopReason::ScaleDown | StopReason::Replaced | StopReason::RolledBack),
            ) => After::Ended { reason, tasks_lost },
        }
    }
}

pub(super) fn first_probe(now: Moment, policy: &AppPolicy) -> Option<Probe> {
    policy.live.map(|live| Probe { failures: 0, next: NextProbe::At(now + live.every) })
}
