//! Records that somebody else wrote: whatever they hold, they are refused, or gone on from without a panic.

use agentd_core::admission::Request;
use agentd_core::app::{Head, Steer, Undo};
use agentd_core::effect::OperationKind;
use agentd_core::event::{Event, Exit, Proof, RolloutEvent, WorkerEvent};
use agentd_core::fleet::{Counters, Fleet};
use agentd_core::id::{AppName, Launch, Pid, Revision};
use agentd_core::policy::{AppPolicy, Lanes};
use agentd_core::rollout::{Plan, Strategy as Road};
use agentd_core::time::{Moment, Tick};
use agentd_core::worker::Worker;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::tests::home;
use super::*;

fn tick(seconds: u64) -> Tick {
    Tick { now: Moment::from_micros(seconds * 1_000_000), entropy: seconds }
}

fn web() -> AppName {
    "web".parse().expect("a name")
}

/// Two workers that are ready, then whatever `ask` asks for.
fn fleet(lanes: Lanes, ask: impl FnOnce(AppName, AppPolicy) -> Option<Request>) -> Fleet {
    let policy = AppPolicy { workers: 2, lanes, ..AppPolicy::default() };
    let mut fleet = Fleet::default();
    let start = Request::Start { app: web(), revision: Revision(1), policy: policy.clone() };
    fleet.request(tick(1), start).expect("it is admitted");
    for launch in [1, 2].map(Launch) {
        for event in
            [WorkerEvent::Spawned { pid: Pid(4242), start_time: 9 }, WorkerEvent::ReadyProven { proof: Proof::Running }]
        {
            fleet.step(tick(2), Event::Worker { launch, event });
        }
    }
    if let Some(request) = ask(web(), policy) {
        fleet.request(tick(3), request).expect("it is admitted");
    }
    fleet
}

/// States as a supervisor leaves them: at rest, and in the middle of things.
fn states() -> Vec<Value> {
    let revision = Revision(2);
    let canary = Plan { strategy: Road::Canary, steps: vec![25, 100], ..Plan::default() };
    let fleets = [
        fleet(Lanes::PerWorker, |_, _| None),
        fleet(Lanes::PerWorker, |app, policy| Some(Request::Reload { app, revision, policy })),
        fleet(Lanes::PerGeneration, |app, policy| Some(Request::Reload { app, revision, policy })),
        fleet(Lanes::PerWorker, |app, policy| {
            Some(Request::Upgrade { app, revision, policy, plan: canary, kind: OperationKind::Upgrade })
        }),
        fleet(Lanes::None, |app, _| Some(Request::Scale { app, workers: 4 })),
        fleet(Lanes::PerWorker, |app, _| Some(Request::Stop { app })),
    ];
    let state = |fleet: &Fleet| {
        let app = fleet.apps().next().expect("one app");
        let workers: Vec<&Worker> = app.workers.values().map(|worker| &**worker).collect();
        json!({ "counters": fleet.counters(), "head": app.head, "workers": workers })
    };
    fleets.iter().map(state).collect()
}

/// What a place is overwritten with.
fn nonsense() -> impl Strategy<Value = Value> {
    let numbers = [0, 1, 2, 101, 4096, 4097, 20_000, u64::from(u32::MAX), (1 << 60) - 1, 1 << 60, u64::MAX];
    prop_oneof![
        8 => prop::sample::select(numbers.to_vec()).prop_map(Value::from),
        1 => Just(Value::Null),
        1 => Just(json!(-1)),
        1 => Just(json!(1e300)),
        1 => Just(json!([])),
        1 => Just(json!({})),
        1 => ".{0,8}".prop_map(Value::from),
    ]
}

/// How many values there are, containers included.
fn size(value: &Value) -> usize {
    1 + match value {
        Value::Array(inner) => inner.iter().map(size).sum(),
        Value::Object(inner) => inner.values().map(size).sum::<usize>(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

/// The value at a place, counted from the root.
fn at(value: &mut Value, place: usize) -> Option<&mut Value> {
    if place == 0 {
        return Some(value);
    }
    let mut left = place - 1;
    let inner: Box<dyn Iterator<Item = &mut Value>> = match value {
        Value::Array(inner) => Box::new(inner.iter_mut()),
        Value::Object(inner) => Box::new(inner.values_mut()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => return None,
    };
    for value in inner {
        let size = size(value);
        if left < size {
            return at(value, left);
        }
        left -= size;
    }
    None
}

/// A fleet of these records, if they make sense.
fn understood(state: &Value) -> Option<Fleet> {
    let counters: Counters = serde_json::from_value(state["counters"].clone()).ok()?;
    let head: Head = serde_json::from_value(state["head"].clone()).ok()?;
    let workers: Vec<Worker> = serde_json::from_value(state["workers"].clone()).ok()?;
    counters.check_sound().ok()?;
    head.check_sound().ok()?;
    workers.iter().try_for_each(Worker::check_sound).ok()?;
    Some(Fleet::restore(counters, vec![head], workers))
}

/// All that may happen to a fleet, one after the other.
fn go_on(mut fleet: Fleet) {
    fleet.resume(tick(10));
    for (round, now) in [20, 40, 4_000].into_iter().enumerate() {
        fleet.step(tick(now), Event::Woke);
        let launches: Vec<Launch> =
            fleet.apps().flat_map(|app| app.workers.values()).filter_map(|worker| worker.launch()).take(20).collect();
        for launch in launches {
            for event in [
                WorkerEvent::Spawned { pid: Pid(1), start_time: 1 },
                WorkerEvent::ReadyProven { proof: Proof::Running },
                WorkerEvent::Exited { exit: Exit::Code(1) },
            ] {
                fleet.step(tick(now + 1), Event::Worker { launch, event });
            }
        }
        let rollouts: Vec<_> = fleet
            .apps()
            .filter_map(|app| Some((app.head.name.clone(), app.head.rollout.as_ref()?.id, app.head.revision)))
            .collect();
        for (app, id, _) in rollouts {
            for step in 0..2 {
                let event = RolloutEvent::Verified { step };
                fleet.step(tick(now + 2), Event::Rollout { app: app.clone(), id, event });
            }
            // Refused where there is nothing to promote.
            let _ = fleet.request(tick(now + 3), Request::Steer { app, steer: Steer::Promote });
        }
        let names: Vec<AppName> = fleet.apps().map(|app| app.head.name.clone()).collect();
        for app in names {
            let policy = AppPolicy { workers: 3, ..AppPolicy::default() };
            let request = match round {
                0 => Request::Reload { app, revision: Revision(77), policy },
                1 => Request::Scale { app, workers: 1 },
                _ => Request::Stop { app },
            };
            // Refused while something else is under way.
            let _ = fleet.request(tick(now + 4), request);
        }
    }
    fleet.wind_down(tick(5_000));
}

#[test]
fn what_a_supervisor_leaves_makes_sense_to_the_next_whatever_was_under_way() {
    for state in states() {
        go_on(understood(&state).unwrap_or_else(|| panic!("refused: {state:#}")));
    }
}

#[test]
fn a_record_that_names_what_is_not_there_or_beyond_all_bounds_is_damage() {
    for (place, value) in [
        ("/count", json!(4_000_000_000_u32)),
        ("/revision", json!(9)),
        ("/parked", json!(4_000_000_000_u32)),
        ("/last_generation", json!(u64::MAX)),
        ("/policies/1/restart/backoff_max/secs", json!(u64::MAX)),
        (
            "/pending",
            json!([{ "id": 1, "kind": "adopt", "started_at": 1, "failure": null,
                     "undo": Undo::Adopt { revision: Revision(5), count: 1 } }]),
        ),
    ] {
        let (_dir, path) = home();
        let mut head = states()[0]["head"].clone();
        *head.pointer_mut(place).expect(place) = value;
        let store = Store::open(&path).expect("it opens");
        let sql = "INSERT INTO app (name, head) VALUES ('web', ?1)";
        store.connection.execute(sql, [head.to_string()]).expect("inserted");
        let error = store.load().expect_err(place);
        assert!(matches!(error, StoreError::Unsound { what: "app", .. }) && error.is_damage(), "{place}: {error}");
        drop(store);
        let opened = open(&path).expect("a damaged one is set aside");
        assert!(opened.damage.is_some() && opened.stored.heads.is_empty(), "{place}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_stored_state_makes_the_core_panic(
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), nonsense()), 1..4),
    ) {
        let states = states();
        let mut state = which.get(&states).clone();
        for (place, value) in changes {
            let place = place.index(size(&state));
            if let Some(changed) = at(&mut state, place) {
                *changed = value;
            }
        }
        if let Some(fleet) = understood(&state) {
            go_on(fleet);
        }
    }
}
