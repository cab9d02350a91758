//! A refresh, from its admission to its end: whom it asks, in which order, and what ends it.

use std::time::Duration;

use agentd_core::admission::{Admitted, Denied, Request};
use agentd_core::effect::{Effect, News, OperationResult, Outcome};
use agentd_core::event::{Event, Exit, Proof, WorkerEvent};
use agentd_core::fleet::Fleet;
use agentd_core::id::{AppName, Launch, Operation, Pid, Revision};
use agentd_core::policy::{AppPolicy, Lanes, RefreshPolicy};
use agentd_core::refresh::{Ended, RefreshAnswer, RenewalOutcome};
use agentd_core::time::{Moment, Tick};

const WITHIN: Duration = Duration::from_secs(120);

/// A fleet of the one app `a`, and what it asked for in its last step.
struct Story {
    fleet: Fleet,
    now: Moment,
    last: Outcome,
}

impl Story {
    /// An app of three workers, which serve.
    fn serving() -> Self {
        let now = Moment::from_micros(1_000_000);
        let mut story = Self { fleet: Fleet::default(), now, last: Outcome::default() };
        story.ask(Request::Start { app: name(), revision: Revision(1), policy: policy() });
        for launch in 1..=3 {
            story.tell(launch, WorkerEvent::Spawned { pid: Pid(1), start_time: 1 });
            story.tell(launch, WorkerEvent::ReadyProven { proof: Proof::Http });
        }
        story
    }

    fn refreshing() -> (Self, Operation) {
        let mut story = Self::serving();
        let admitted = story.ask(Request::Refresh { app: name() });
        let Admitted::Begun(id) = admitted else { panic!("a refresh begins, {admitted:?}") };
        (story, id)
    }

    fn tick(&self) -> Tick {
        Tick { now: self.now, entropy: 0 }
    }

    fn ask(&mut self, request: Request) -> Admitted {
        let (admitted, outcome) =
            self.fleet.request(self.tick(), request).expect("the story asks for what is possible");
        self.took(outcome);
        admitted
    }

    fn tell(&mut self, launch: u64, event: WorkerEvent) {
        let outcome = self.fleet.step(self.tick(), Event::Worker { launch: Launch(launch), event });
        self.took(outcome);
    }

    fn answer(&mut self, launch: u64, id: Operation, after: Duration, result: Result<RefreshAnswer, String>) {
        self.now = self.now + after;
        self.tell(launch, WorkerEvent::Refreshed { id, result });
    }

    fn took(&mut self, outcome: Outcome) {
        self.fleet.check_invariants().expect("the fleet is sound after every step");
        self.last = outcome;
    }

    /// Who was asked in the last step.
    fn asked(&self) -> Vec<u64> {
        let asked = |effect: &Effect| if let Effect::Refresh { launch, .. } = effect { Some(launch.0) } else { None };
        self.last.act.iter().filter_map(asked).collect()
    }

    fn finished(&self) -> Option<(OperationResult, Option<String>)> {
        self.last.publish.iter().find_map(|notice| {
            if let News::Finished(finished) = &notice.news {
                Some((finished.result, finished.why.clone()))
            } else {
                None
            }
        })
    }

    fn ended(&self) -> Ended {
        let app = self.fleet.app(&name()).expect("the story has its app");
        app.head.refreshes.last.clone().expect("a refresh has ended")
    }

    fn outcomes(&self) -> Vec<RenewalOutcome> {
        self.ended().renewals.into_iter().map(|renewal| renewal.outcome).collect()
    }
}

fn name() -> AppName {
    "a".parse().expect("a is an app name")
}

fn policy() -> AppPolicy {
    let refresh = Some(RefreshPolicy { timeout: WITHIN });
    AppPolicy { workers: 3, lanes: Lanes::PerWorker, refresh, ..AppPolicy::default() }
}

#[test]
fn workers_are_asked_one_after_the_other_and_each_ones_time_is_kept() {
    let (mut story, id) = Story::refreshing();
    for launch in 1..=3 {
        assert_eq!(story.asked(), [launch]);
        story.answer(launch, id, Duration::from_millis(200), Ok(RefreshAnswer::Renewed));
    }
    assert_eq!(story.finished(), Some((OperationResult::Done, None)));
    assert_eq!(story.outcomes(), vec![RenewalOutcome::Renewed; 3]);
    let refreshes = &story.fleet.app(&name()).unwrap().head.refreshes;
    assert_eq!(refreshes.took_ms, [200, 200, 200]);
}

#[test]
fn the_first_that_refuses_ends_it_and_the_others_keep_what_they_know() {
    let (mut story, id) = Story::refreshing();
    story.answer(1, id, Duration::from_secs(1), Ok(RefreshAnswer::Told));
    story.answer(2, id, Duration::from_secs(1), Err("answered 500".to_owned()));
    assert_eq!(story.asked(), []);
    assert_eq!(story.finished(), Some((OperationResult::Failed, Some("a.1.1 answered 500".to_owned()))));
    let failed = RenewalOutcome::Failed { why: "answered 500".to_owned() };
    assert_eq!(story.outcomes(), [RenewalOutcome::Told, failed, RenewalOutcome::Spared]);
    let refreshes = &story.fleet.app(&name()).unwrap().head.refreshes;
    assert!(refreshes.took_ms.is_empty(), "of a signal nobody knows how long it took");
}

#[test]
fn one_that_does_not_answer_in_time_ends_it_and_what_it_says_later_is_not_heeded() {
    let (mut story, id) = Story::refreshing();
    story.now = story.now + WITHIN;
    assert!(story.fleet.next_wake().is_some_and(|at| at <= story.now));
    let outcome = story.fleet.step(story.tick(), Event::Woke);
    story.took(outcome);
    assert_eq!(story.finished(), Some((OperationResult::Failed, Some("a.0.1 did not answer within 120s".to_owned()))));
    story.answer(1, id, Duration::from_secs(1), Ok(RefreshAnswer::Renewed));
    assert_eq!((story.asked(), story.finished()), (vec![], None));
}

#[test]
fn one_that_dies_of_it_ends_it() {
    let (mut story, _) = Story::refreshing();
    story.tell(1, WorkerEvent::Exited { exit: Exit::Signal(1) });
    let (result, why) = story.finished().expect("it ends with its worker");
    assert_eq!(result, OperationResult::Failed);
    assert!(why.as_deref().is_some_and(|why| why.contains("ended before it answered")), "{why:?}");
}

#[test]
fn one_that_was_started_anew_before_its_turn_is_not_asked() {
    let (mut story, id) = Story::refreshing();
    story.tell(2, WorkerEvent::Exited { exit: Exit::Code(1) });
    story.answer(1, id, Duration::ZERO, Ok(RefreshAnswer::Renewed));
    assert_eq!(story.asked(), [3]);
    story.answer(3, id, Duration::ZERO, Ok(RefreshAnswer::Renewed));
    assert_eq!(story.finished(), Some((OperationResult::Done, None)));
}

#[test]
fn a_deployment_and_a_refresh_refuse_each_other_by_number() {
    let (mut story, id) = Story::refreshing();
    let reload = || Request::Reload { app: name(), revision: Revision(2), policy: policy() };
    let tick = story.tick();
    let refused = story.fleet.request(tick, reload()).unwrap_err();
    assert_eq!(refused, Denied::RefreshRunning { app: name(), id });
    assert_eq!(story.fleet.request(tick, Request::Refresh { app: name() }).unwrap_err(), refused);
    for launch in 1..=3 {
        story.answer(launch, id, Duration::ZERO, Ok(RefreshAnswer::Renewed));
    }
    let Admitted::Begun(deployment) = story.ask(reload()) else { panic!("nothing is in its way any more") };
    let refused = story.fleet.request(tick, Request::Refresh { app: name() }).unwrap_err();
    assert_eq!(refused, Denied::DeploymentRunning { app: name(), id: deployment });
}

#[test]
fn a_stop_takes_its_place() {
    let (mut story, _) = Story::refreshing();
    story.ask(Request::Stop { app: name() });
    assert_eq!(story.finished(), Some((OperationResult::Aborted, Some("the app was stopped".to_owned()))));
}

#[test]
fn the_next_supervisor_asks_the_one_again_that_was_being_asked_and_ends_it() {
    let (mut story, id) = Story::refreshing();
    story.answer(1, id, Duration::from_secs(1), Ok(RefreshAnswer::Renewed));
    let app = story.fleet.app(&name()).unwrap();
    let (head, workers) = (app.head.clone(), app.workers.values().map(|worker| (**worker).clone()).collect());
    story.fleet = Fleet::restore(story.fleet.counters(), vec![head], workers);
    let outcome = story.fleet.resume(story.tick());
    story.took(outcome);
    assert_eq!(story.asked(), [2]);
    for launch in [2, 3] {
        story.answer(launch, id, Duration::from_secs(1), Ok(RefreshAnswer::Renewed));
    }
    assert_eq!(story.finished(), Some((OperationResult::Done, None)));
    assert_eq!(story.outcomes(), vec![RenewalOutcome::Renewed; 3]);
}
