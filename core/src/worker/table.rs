//! The worker machine as a table, and what holds of any history.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use proptest::prelude::*;

use super::state::{KernelProcess, NextProbe, Probe, Process, State, Worker};
use super::step::{After, Crash};
use crate::effect::{Effect, Outcome, StopReason};
use crate::event::{Exit, InFlight, Proof, WorkerEvent};
use crate::id::{Generation, Launch, Pid, Revision, Slot, WorkerId};
use crate::policy::{AppPolicy, LivePolicy};
use crate::restart::RestartHistory;
use crate::task::Tally;
use crate::time::{Moment, Tick};

const LAUNCH: Launch = Launch(1);

fn policy() -> AppPolicy {
    AppPolicy {
        live: Some(LivePolicy { every: Duration::from_secs(1), failures: 1 }),
        watchdog: Some(Duration::from_secs(10)),
        ..AppPolicy::default()
    }
}

fn tick(secs: u64) -> Tick {
    Tick { now: Moment::from_micros(secs * 1_000_000), entropy: 0 }
}

fn worker(state: State) -> Worker {
    let app = "a".parse().expect("a is an app name");
    Worker {
        id: WorkerId { app, slot: Slot(0), generation: Generation(1) },
        revision: Revision(1),
        lane: None,
        state,
        restarts: RestartHistory::default(),
        last_exit: None,
    }
}

fn states() -> Vec<(&'static str, State)> {
    let now = tick(100).now;
    let process = Process {
        launch: LAUNCH,
        kernel: Some(KernelProcess { pid: Pid(10), start_time: 1 }),
        started_at: tick(50).now,
        tasks: BTreeMap::new(),
        in_hand: 0,
        drains_itself: false,
        watchdog: None,
    };
    let (served_since, reason, process) = (Some(tick(60).now), StopReason::Replaced, || process.clone());
    let probe = Some(Probe { failures: 0, next: NextProbe::At(now) });
    let stopping = |reason| State::Stopping { process: process(), served_since, reason, kill_at: now };
    vec![
        ("starting", State::Starting { process: process(), ready_by: now, refuted: None }),
        ("ready", State::Ready { process: process(), since: tick(60).now, proof: Proof::Http, probe }),
        (
            "draining",
            State::Draining {
                process: process(),
                served_since,
                reason,
                deadline: now,
                tasks_until: None,
                warm_until: None,
                in_flight: Some(InFlight { queued: 0, busy: 1, idle: 0, reused: 0 }),
            },
        ),
        ("stopping, replaced", stopping(StopReason::Replaced)),
        ("stopping, own", stopping(StopReason::Own)),
        ("killed", State::Killed { process: process(), served_since, reason, again_at: now }),
        ("backoff", State::Backoff { until: now }),
        ("exited", State::Exited),
        ("failed", State::Failed { why: "no such program".to_owned() }),
    ]
}

fn events() -> Vec<WorkerEvent> {
    let text = || "seen".to_owned();
    vec![
        WorkerEvent::Spawned { pid: Pid(10), start_time: 1 },
        WorkerEvent::SpawnFailed { why: text(), permanent: false },
        WorkerEvent::ReadyProven { proof: Proof::Notified },
        WorkerEvent::ReadyRefuted { why: text() },
        WorkerEvent::ProbeAnswered { result: Ok(()) },
        WorkerEvent::ProbeAnswered { result: Err(text()) },
        WorkerEvent::DrainObserved(InFlight { queued: 0, busy: 1, idle: 0, reused: 0 }),
        WorkerEvent::DrainObserved(InFlight::default()),
        WorkerEvent::Exited { exit: Exit::Code(1) },
        WorkerEvent::TimeoutExtended { by: Duration::from_secs(5) },
        WorkerEvent::StoppingSaid,
        WorkerEvent::DrainsItselfSaid,
        WorkerEvent::WatchdogBeat,
        WorkerEvent::WatchdogTriggered,
        WorkerEvent::WatchdogSet { interval: Duration::from_secs(3) },
        WorkerEvent::TaskBegan { id: text(), kind: None },
        WorkerEvent::TaskEnded { id: text() },
        WorkerEvent::TasksInHand { tasks: 1 },
        WorkerEvent::TasksInHand { tasks: 0 },
        WorkerEvent::TasksDeadline { at: tick(110).now },
        WorkerEvent::TasksTaken { tasks: 0 },
        WorkerEvent::TasksTaken { tasks: 1 },
        WorkerEvent::TasksSettled(Tally::default()),
    ]
}

fn row(table: &mut String, name: &str, cause: &str, worker: &Worker, after: &str, out: &Outcome) {
    let effects: Vec<String> = out
        .act
        .iter()
        .map(|effect| format!("{effect:?}").split([' ', '{']).next().unwrap_or_default().to_owned())
        .collect();
    let state = format!("{:?}", worker.state);
    let to = state.split([' ', '{']).next().unwrap_or_default();
    writeln!(table, "{name:<18} | {cause:<34} -> {to:<8} | {:<16} | {after}", effects.join(" "))
        .expect("a String takes all text");
}

fn short(after: &After) -> String {
    match after {
        After::Ended { reason, .. } => format!("ended: {}", reason.word()),
        After::Crashed(crash) => format!("crashed: {}", crash.why),
        After::Same => "-".to_owned(),
        After::Moved => "moved".to_owned(),
        After::Cut { .. } => "told to end".to_owned(),
    }
}

#[test]
fn every_state_meets_every_event_as_the_table_says() {
    // One second before the deadlines that the states above have, so that only a wake finds them due.
    let (before, due, policy) = (tick(99), tick(100), policy());
    let mut table = String::new();
    for (name, state) in states() {
        for event in events() {
            let (mut worker, mut out) = (worker(state.clone()), Outcome::default());
            let cause = format!("{event:?}");
            let after = worker.step(before, &policy, event, &mut out);
            let cause = cause.replace(" { ", "(").replace(" }", ")").chars().take(34).collect::<String>();
            row(&mut table, name, &cause, &worker, &short(&after), &out);
        }
        let (mut woken, mut out) = (worker(state.clone()), Outcome::default());
        let after = woken.wake(due, &policy, &mut out);
        row(&mut table, name, "(wake)", &woken, &short(&after), &out);
        let (mut drained, mut out) = (worker(state.clone()), Outcome::default());
        let after = drained.drain(before, &policy, StopReason::Stop, Duration::ZERO, &mut out);
        row(&mut table, name, "(drain)", &drained, &short(&after), &out);
        let (mut undrained, mut out) = (worker(state.clone()), Outcome::default());
        let after = if undrained.undrain(before, &policy, &mut out) { "serves again" } else { "-" };
        row(&mut table, name, "(undrain)", &undrained, after, &out);
        let (mut resumed, mut out) = (worker(state.clone()), Outcome::default());
        let after = resumed.resume(before, &policy, &mut out);
        row(&mut table, name, "(resume)", &resumed, &short(&after), &out);
    }
    insta::assert_snapshot!("worker_transitions", table);
}

#[test]
fn a_watchdog_set_before_readiness_does_not_wake_anybody() {
    let mut worker = worker(State::Exited);
    let (policy, mut out) = (policy(), Outcome::default());
    worker.start(tick(1), &policy, LAUNCH, &mut out);
    worker.step(tick(1), &policy, WorkerEvent::WatchdogSet { interval: Duration::from_secs(1) }, &mut out);
    assert_eq!(worker.state.wake(), Some(tick(1).now + policy.ready.timeout));
}

#[test]
fn a_watchdog_found_due_long_after_is_not_the_workers_silence() {
    let (mut policy, mut out) = (policy(), Outcome::default());
    policy.live = None;
    let mut worker = worker(State::Exited);
    worker.start(tick(1), &policy, LAUNCH, &mut out);
    worker.step(tick(1), &policy, WorkerEvent::ReadyProven { proof: Proof::Notified }, &mut out);
    assert_eq!(worker.wake(tick(500), &policy, &mut out), After::Same, "the machine slept");
    assert_eq!(worker.state.wake(), Some(tick(510).now));
    assert_eq!(worker.wake(tick(510), &policy, &mut out), After::Moved, "now it is");
    assert!(out.act.contains(&Effect::SendAbort { launch: LAUNCH }));
}

#[test]
fn a_stop_does_not_keep_a_drained_worker_warm() {
    let (policy, mut out) = (AppPolicy::default(), Outcome::default());
    let mut worker = worker(State::Exited);
    worker.start(tick(1), &policy, LAUNCH, &mut out);
    worker.step(tick(1), &policy, WorkerEvent::ReadyProven { proof: Proof::Http }, &mut out);
    worker.drain(tick(2), &policy, StopReason::Replaced, Duration::from_secs(60), &mut out);
    worker.step(tick(2), &policy, WorkerEvent::DrainObserved(InFlight::default()), &mut out);
    worker.drain(tick(3), &policy, StopReason::Stop, Duration::ZERO, &mut out);
    assert_eq!(worker.state.wake(), Some(tick(3).now));
    worker.wake(tick(3), &policy, &mut out);
    assert_eq!(out.act.last(), Some(&Effect::SendStop { launch: LAUNCH }));
}

#[test]
fn a_stop_leaves_what_is_in_hand_its_time_whatever_the_worker_was_kept_warm_for() {
    let (policy, mut out) = (AppPolicy::default(), Outcome::default());
    let mut worker = worker(State::Exited);
    worker.start(tick(1), &policy, LAUNCH, &mut out);
    worker.step(tick(1), &policy, WorkerEvent::ReadyProven { proof: Proof::Http }, &mut out);
    // As long as what it has in hand may take.
    worker.drain(tick(2), &policy, StopReason::Replaced, crate::grace::bound(&policy.grace), &mut out);
    let busy = InFlight { busy: 1, ..InFlight::default() };
    worker.step(tick(2), &policy, WorkerEvent::DrainObserved(busy), &mut out);
    worker.drain(tick(3), &policy, StopReason::Stop, Duration::ZERO, &mut out);
    worker.wake(tick(3), &policy, &mut out);
    assert!(!out.act.contains(&Effect::SendStop { launch: LAUNCH }), "it is busy, and its time is not over");
    worker.step(tick(4), &policy, WorkerEvent::DrainObserved(InFlight::default()), &mut out);
    assert_eq!(out.act.last(), Some(&Effect::SendStop { launch: LAUNCH }));
}

#[test]
fn a_stop_of_a_worker_that_was_kept_warm_beyond_its_time_kills_it_soon_if_it_does_not_go() {
    let (policy, mut out) = (AppPolicy::default(), Outcome::default());
    let mut worker = worker(State::Exited);
    worker.start(tick(1), &policy, LAUNCH, &mut out);
    worker.step(tick(1), &policy, WorkerEvent::ReadyProven { proof: Proof::Http }, &mut out);
    worker.drain(tick(2), &policy, StopReason::Replaced, Duration::from_secs(36_000), &mut out);
    worker.step(tick(2), &policy, WorkerEvent::DrainObserved(InFlight::default()), &mut out);
    let over = tick(2).now + crate::grace::bound(&policy.grace);
    let after = |seconds: u64| Tick { now: over + Duration::from_secs(seconds), entropy: 0 };
    worker.wake(after(0), &policy, &mut out);
    assert_eq!(worker.state.wake(), Some(tick(36_002).now), "it is kept warm");
    worker.forget_observations();
    worker.step(after(9), &policy, WorkerEvent::DrainObserved(InFlight::default()), &mut out);
    worker.drain(after(10), &policy, StopReason::Stop, Duration::ZERO, &mut out);
    worker.wake(after(10), &policy, &mut out);
    assert_eq!(out.act.last(), Some(&Effect::SendStop { launch: LAUNCH }));
    assert!(worker.state.wake().is_some_and(|kill_at| kill_at <= after(20).now), "{:?}", worker.state);
}

#[test]
fn a_drained_worker_without_tasks_is_kept_warm_beyond_their_deadline_and_one_whose_tasks_wait_for_its_end_is_not() {
    for (tasks, ended) in [(0, false), (1, true)] {
        let (policy, mut out) = (AppPolicy::default(), Outcome::default());
        let mut worker = worker(State::Exited);
        worker.start(tick(1), &policy, LAUNCH, &mut out);
        worker.step(tick(1), &policy, WorkerEvent::ReadyProven { proof: Proof::Http }, &mut out);
        worker.drain(tick(2), &policy, StopReason::Replaced, Duration::from_secs(60), &mut out);
        worker.step(tick(2), &policy, WorkerEvent::TasksDeadline { at: tick(3).now }, &mut out);
        worker.step(tick(2), &policy, WorkerEvent::DrainObserved(InFlight::default()), &mut out);
        worker.step(tick(3), &policy, WorkerEvent::TasksTaken { tasks }, &mut out);
        assert_eq!(out.act.contains(&Effect::SendStop { launch: LAUNCH }), ended, "{tasks} tasks");
        if !ended {
            assert_eq!(worker.state.wake(), Some(tick(62).now));
            worker.drain(tick(20), &policy, StopReason::Stop, Duration::ZERO, &mut out);
            worker.wake(tick(20), &policy, &mut out);
            assert_eq!(out.act.last(), Some(&Effect::SendStop { launch: LAUNCH }));
        }
    }
}

#[test]
fn a_new_supervisor_does_not_end_a_drain_by_what_its_predecessor_saw() {
    let (policy, mut out) = (AppPolicy::default(), Outcome::default());
    let mut worker = worker(State::Exited);
    worker.start(tick(1), &policy, LAUNCH, &mut out);
    worker.step(tick(1), &policy, WorkerEvent::Spawned { pid: Pid(9), start_time: 9 }, &mut out);
    worker.step(tick(1), &policy, WorkerEvent::ReadyProven { proof: Proof::Http }, &mut out);
    worker.drain(tick(2), &policy, StopReason::Replaced, Duration::from_secs(60), &mut out);
    worker.step(tick(2), &policy, WorkerEvent::DrainObserved(InFlight::default()), &mut out);
    worker.forget_observations();
    let mut out = Outcome::default();
    worker.resume(tick(100), &policy, &mut out);
    worker.wake(tick(100), &policy, &mut out);
    assert_eq!(out.act, [Effect::WatchDrain { launch: LAUNCH }], "it looks first");
}

/// What happens to a worker in a history: an event by its index, or something its app does.
#[derive(Clone, Copy, Debug)]
enum Turn {
    Event(usize),
    Wake,
    Drain,
    Undrain,
}

fn turns() -> impl Strategy<Value = Vec<(Turn, u64)>> {
    let turn = prop_oneof![
        6 => (0_usize..22).prop_map(Turn::Event),
        3 => Just(Turn::Wake),
        1 => Just(Turn::Drain),
        1 => Just(Turn::Undrain),
    ];
    prop::collection::vec((turn, 0_u64..20), 1..60)
}

proptest! {
    #[test]
    fn in_any_history_a_process_is_told_once_killed_in_time_and_dead_for_ever(turns in turns()) {
        let policy = policy();
        let mut worker = worker(State::Exited);
        let (mut now, mut told, mut gone) = (100, 0, false);
        worker.start(tick(now), &policy, LAUNCH, &mut Outcome::default());
        for (turn, later) in turns {
            now += later;
            let (before, mut out) = (worker.clone(), Outcome::default());
            let after = match turn {
                Turn::Event(index) => worker.step(tick(now), &policy, events()[index].clone(), &mut out),
                Turn::Wake => worker.wake(tick(now), &policy, &mut out),
                Turn::Drain => worker.drain(tick(now), &policy, StopReason::Stop, Duration::ZERO, &mut out),
                Turn::Undrain => {
                    worker.undrain(tick(now), &policy, &mut out);
                    After::Same
                }
            };
            if gone {
                prop_assert!(out.act.is_empty(), "{:?} for a process that is gone", out.act);
                prop_assert_eq!(worker.state.process(), None, "nobody started it again");
            }
            for effect in &out.act {
                told += u32::from(matches!(effect, Effect::SendStop { .. } | Effect::SendAbort { .. }));
                if matches!(effect, Effect::Kill { .. }) {
                    let due = before.state.wake();
                    prop_assert!(due.is_some_and(|due| due <= tick(now).now), "killed before {:?}", due);
                }
            }
            prop_assert!(told <= 1, "told to end {told} times");
            if let (After::Crashed(Crash { .. }) | After::Ended { .. }, true) = (&after, !gone) {
                prop_assert_eq!(worker.state.process(), None);
                gone = true;
            }
            let woken = worker.state.wake().is_none_or(|at| at > tick(now).now);
            prop_assert!(!matches!(turn, Turn::Wake) || woken, "a wake leaves {:?} due", worker.state);
        }
    }
}
