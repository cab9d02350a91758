//! A deployment as a table: what one pass does in each situation of one old and one new worker.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::*;
use crate::effect::{Effect, News, OperationKind};
use crate::event::Proof;
use crate::id::Operation;
use crate::restart::RestartHistory;
use crate::rollout::{BackBy, Direction, Plan, Side, Sides};
use crate::worker::Process;

const NOW: Tick = Tick { now: Moment::from_micros(100_000_000), entropy: 0 };

fn later() -> Moment {
    NOW.now + std::time::Duration::from_secs(10)
}

fn process(launch: u64) -> Process {
    Process {
        launch: Launch(launch),
        kernel: None,
        started_at: NOW.now,
        tasks: BTreeMap::new(),
        in_hand: 0,
        drains_itself: false,
        watchdog: None,
    }
}

fn state(name: &str, launch: u64) -> Option<State> {
    let (process, served_since) = (process(launch), Some(NOW.now));
    Some(match name {
        "-" => return None,
        "starting" => State::Starting { process, ready_by: later(), refuted: None },
        "ready" => State::Ready { process, since: NOW.now, proof: Proof::Http, probe: None },
        "draining" => State::Draining {
            process,
            served_since,
            reason: StopReason::Replaced,
            deadline: later(),
            tasks_until: None,
            warm_until: None,
            in_flight: None,
        },
        "stopping" => State::Stopping { process, served_since, reason: StopReason::Replaced, kill_at: later() },
        "backoff" => State::Backoff { until: later() },
        "failed" => State::Failed { why: "no such program".to_owned() },
        "exited" => State::Exited,
        other => panic!("{other} is no row of the table"),
    })
}

fn app(kind: OperationKind, direction: Direction, old: &str, new: &str) -> App {
    let policy = AppPolicy { workers: 1, lanes: Lanes::PerWorker, ..AppPolicy::default() };
    let mut app = App::new("a".parse().expect("a is an app name"), Revision(1), policy.clone());
    let side = |number| Side { generation: Generation(number), revision: Revision(number), count: 1 };
    app.head.desired = Desired::Running;
    app.head.rise = Rise::Served;
    (app.head.generation, app.head.last_generation) = (Generation(1), Generation(2));
    app.head.policies.insert(Revision(2), Box::new(policy.clone()));
    let plan = if kind == OperationKind::Restart { Plan::recreate() } else { Plan::rolling() };
    let sides = Sides { from: side(1), to: side(2) };
    let mut rollout = Rollout::begin(Operation(1), kind, sides, plan, &policy, NOW.now);
    rollout.direction = direction;
    app.head.rollout = Some(rollout);
    for (slot, generation, name) in [(0, 1, old), (1, 2, new)] {
        let Some(state) = state(name, generation) else { continue };
        let id = WorkerId { app: app.head.name.clone(), slot: Slot(slot), generation: Generation(generation) };
        let (revision, restarts) = (Revision(generation), RestartHistory::default());
        let worker = Worker { id, revision, lane: Some(Lane(slot)), state, restarts, last_exit: None };
        app.workers.insert(Slot(slot), Box::new(worker));
    }
    app
}

#[test]
fn one_pass_of_a_deployment_does_what_the_table_says() {
    let back = || Direction::Back { why: "it fell".to_owned(), culprit: None, by: BackBy::Failure };
    let mut table = String::new();
    for (name, kind, direction) in [
        ("reload forward", OperationKind::Reload, Direction::Forward),
        ("reload back", OperationKind::Reload, back()),
        ("restart", OperationKind::Restart, Direction::Forward),
    ] {
        for old in ["ready", "draining", "stopping", "starting", "backoff", "failed", "exited", "-"] {
            for new in ["-", "starting", "ready", "draining", "backoff", "failed", "exited"] {
                let mut app = app(kind, direction.clone(), old, new);
                let (mut next_launch, mut out) = (Launch(10), Outcome::default());
                app.reconcile(&mut Context {
                    tick: NOW,
                    next_launch: &mut next_launch,
                    out: &mut out,
                    winding_down: false,
                    held: false,
                });
                let mut does: Vec<String> = out.act.iter().map(effect).collect();
                does.extend(out.publish.iter().filter_map(|notice| {
                    if let News::Finished(finished) = &notice.news {
                        Some(format!("{:?}", finished.result).to_uppercase())
                    } else {
                        None
                    }
                }));
                let left: Vec<String> =
                    app.workers.values().map(|w| format!("{}:{:?}", w.id.generation, w.state.phase())).collect();
                writeln!(
                    table,
                    "{name:<14} | old {old:<8} new {new:<8} -> {:<60} | {}",
                    does.join(", "),
                    left.join(" ")
                )
                .expect("a String takes all text");
            }
        }
    }
    insta::assert_snapshot!("rollout_passes", table);
}

fn effect(effect: &Effect) -> String {
    match effect {
        Effect::Spawn { worker, .. } => format!("spawn {}", worker.generation),
        Effect::WatchDrain { launch } => format!("drain {launch}"),
        Effect::UnwatchDrain { launch } => format!("undrain {launch}"),
        Effect::SendStop { launch } => format!("stop {launch}"),
        Effect::SetWeights { weights, .. } => format!("shares {weights:?}"),
        Effect::ProveReady { .. }
        | Effect::ProbeLive { .. }
        | Effect::SendAbort { .. }
        | Effect::Kill { .. }
        | Effect::Prepare { .. }
        | Effect::Check { .. }
        | Effect::Verify { .. }
        | Effect::Judge { .. }
        | Effect::Refresh { .. }
        | Effect::Govern { .. }
        | Effect::Forget { .. } => format!("{effect:?}"),
    }
}
