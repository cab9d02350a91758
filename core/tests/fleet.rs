//! What the simulator or a critical reading found once, each as a story of its own.

use std::time::Duration;

use proptest::prelude::*;

use agentd_core::admission::{Admitted, Denied, Request};
use agentd_core::effect::{Effect, ExitCause, News, Notice, OperationKind, OperationResult, Outcome};
use agentd_core::event::{Event, Exit, InFlight, Proof, RolloutEvent, WorkerEvent};
use agentd_core::fleet::Fleet;
use agentd_core::id::{AppName, Launch, Operation, Pid, Revision};
use agentd_core::limit::LimitMet;
use agentd_core::policy::{AppPolicy, Lanes, ReloadPolicy, RestartPolicy, RestartWhen};
use agentd_core::rollout::Plan;
use agentd_core::task::{Loss, Tally, TaskId};
use agentd_core::time::{Moment, Tick};
use agentd_core::worker::Phase;

/// A fleet of the one app `a`, and what it asked for in its last step.
struct Story {
    fleet: Fleet,
    now: Moment,
    last: Outcome,
    revision: Revision,
}

impl Story {
    fn new(policy: &AppPolicy) -> Self {
        let now = Moment::from_micros(1_000_000);
        let mut story = Self { fleet: Fleet::default(), now, last: Outcome::default(), revision: Revision(0) };
        let (app, revision, policy) = story.configured(policy);
        story.ask(Request::Start { app, revision, policy });
        story
    }

    /// An app whose workers are all ready.
    fn ready(policy: &AppPolicy) -> Self {
        let mut story = Self::new(policy);
        for launch in story.spawned() {
            story.prove(launch);
        }
        story
    }

    fn configured(&mut self, policy: &AppPolicy) -> (AppName, Revision, AppPolicy) {
        self.revision = self.revision.next();
        (name(), self.revision, policy.clone())
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

    fn reload(&mut self, policy: &AppPolicy) -> Admitted {
        let (app, revision, policy) = self.configured(policy);
        self.ask(Request::Reload { app, revision, policy })
    }

    fn restart(&mut self, policy: &AppPolicy) -> Admitted {
        let (app, revision, policy) = self.configured(policy);
        self.ask(Request::Restart { app, revision, policy })
    }

    fn tell(&mut self, launch: Launch, event: WorkerEvent) {
        let outcome = self.fleet.step(self.tick(), Event::Worker { launch, event });
        self.took(outcome);
    }

    fn prove(&mut self, launch: Launch) {
        self.tell(launch, WorkerEvent::Spawned { pid: Pid(1), start_time: 1 });
        self.tell(launch, WorkerEvent::ReadyProven { proof: Proof::Http });
    }

    fn exit(&mut self, launch: Launch, code: i32) {
        self.tell(launch, WorkerEvent::Exited { exit: Exit::Code(code) });
    }

    fn wake_after(&mut self, after: Duration) {
        self.now = self.now + after;
        let outcome = self.fleet.step(self.tick(), Event::Woke);
        self.took(outcome);
    }

    fn took(&mut self, outcome: Outcome) {
        self.fleet.check_invariants().expect("the fleet is sound after every step");
        self.last = outcome;
    }

    fn spawned(&self) -> Vec<Launch> {
        let spawned = |effect: &Effect| if let Effect::Spawn { launch, .. } = effect { Some(*launch) } else { None };
        self.last.act.iter().filter_map(spawned).collect()
    }

    fn result(&self) -> Option<OperationResult> {
        self.last
            .publish
            .iter()
            .find_map(|notice| if let News::Finished(finished) = &notice.news { Some(finished.result) } else { None })
    }

    fn phases(&self) -> Vec<Phase> {
        let app = self.fleet.app(&name()).expect("the story has its app");
        app.workers.values().map(|worker| worker.state.phase()).collect()
    }
}

fn name() -> AppName {
    "a".parse().expect("a is an app name")
}

fn policy(workers: u32, lanes: Lanes) -> AppPolicy {
    AppPolicy { workers, lanes, ..AppPolicy::default() }
}

#[test]
fn several_workers_that_fall_in_one_wake_leave_one_word_on_the_shares() {
    let silent = AppPolicy { watchdog: Some(Duration::from_secs(5)), ..policy(3, Lanes::PerWorker) };
    let mut story = Story::ready(&silent);
    story.tell(Launch(3), WorkerEvent::WatchdogSet { interval: Duration::from_secs(60) });
    story.wake_after(Duration::from_secs(5));
    let shares: Vec<&Effect> =
        story.last.act.iter().filter(|effect| matches!(effect, Effect::SetWeights { .. })).collect();
    assert_eq!(shares, [&Effect::SetWeights { app: name(), weights: vec![0, 0, 100, 0] }]);
    assert_eq!(story.last.act.first(), shares.first().copied(), "before all else");
}

#[test]
fn a_restart_begins_nothing_before_all_that_was_has_ended_even_where_more_are_wanted() {
    for lanes in [Lanes::None, Lanes::PerWorker, Lanes::PerGeneration] {
        let mut story = Story::ready(&policy(2, lanes));
        story.restart(&policy(4, lanes));
        assert_eq!(story.spawned(), [], "{lanes:?}");
        story.exit(Launch(1), 0);
        assert_eq!(story.spawned(), [], "{lanes:?}: one of two is still there");
        story.exit(Launch(2), 0);
        assert_eq!(story.spawned().len(), 4, "{lanes:?}");
        for launch in story.spawned() {
            story.prove(launch);
        }
        assert_eq!(story.result(), Some(OperationResult::Done), "{lanes:?}");
    }
}

#[test]
fn a_one_shot_that_completes_does_not_fail_its_restart_or_its_reload() {
    let restart = RestartPolicy { when: RestartWhen::Never, ..AppPolicy::default().restart };
    let once = AppPolicy { restart, ..policy(1, Lanes::None) };
    let mut story = Story::ready(&once);
    story.restart(&once);
    story.exit(Launch(1), 0);
    story.exit(Launch(2), 0);
    assert_eq!(story.result(), Some(OperationResult::Done), "it ended well before it said that it was ready");
    story.reload(&once);
    story.prove(Launch(3));
    story.tell(Launch(3), WorkerEvent::StoppingSaid);
    story.exit(Launch(3), 0);
    assert_eq!(story.phases(), [Phase::Exited]);
    assert!(story.fleet.app(&name()).is_some_and(|app| app.head.rollout.is_none() && app.head.generation.0 == 3));
}

#[test]
fn a_restart_ends_as_failed_when_its_worker_is_parked_after_it_had_served() {
    let restart = RestartPolicy { max: 0, ..AppPolicy::default().restart };
    let fragile = AppPolicy { restart, ..policy(2, Lanes::PerWorker) };
    let mut story = Story::ready(&fragile);
    story.restart(&fragile);
    story.exit(Launch(1), 0);
    story.exit(Launch(2), 0);
    story.prove(Launch(3));
    story.exit(Launch(3), 1);
    assert_eq!(story.result(), Some(OperationResult::Failed));
    let denied = story.fleet.check(&Request::Scale { app: name(), workers: 3 });
    assert_eq!(denied, Ok::<(), Denied>(()), "no deployment is in the way for ever");
}

#[test]
fn a_reload_with_room_neither_above_nor_under_still_moves() {
    let reload = ReloadPolicy { max_surge: 0, max_unavailable: 0, settle: Duration::ZERO };
    let tight = AppPolicy { reload, ..policy(1, Lanes::PerWorker) };
    let mut story = Story::ready(&tight);
    assert_eq!(story.reload(&tight), Admitted::Begun(Operation(2)));
    assert_eq!(story.spawned(), [Launch(2)]);
}

#[test]
fn a_deployment_is_not_held_up_by_new_workers_that_completed() {
    let restart = RestartPolicy { when: RestartWhen::OnFailure, ..AppPolicy::default().restart };
    for lanes in [Lanes::None, Lanes::PerGeneration] {
        let task = AppPolicy { restart, ..policy(1, lanes) };
        let mut story = Story::ready(&task);
        story.reload(&task);
        story.exit(Launch(2), 0);
        assert_eq!(story.phases(), [Phase::Draining, Phase::Exited], "{lanes:?}: the old one goes");
    }
}

#[test]
fn scaling_down_takes_whoever_does_not_serve_first() {
    let mut story = Story::new(&policy(2, Lanes::PerWorker));
    story.prove(Launch(2));
    story.ask(Request::Scale { app: name(), workers: 1 });
    assert_eq!(story.phases(), [Phase::Stopping, Phase::Ready]);
}

#[test]
fn a_worker_that_comes_back_keeps_the_lane_where_connections_wait() {
    let mut story = Story::ready(&policy(1, Lanes::PerWorker));
    story.tell(Launch(1), WorkerEvent::StoppingSaid);
    let head = || Effect::SetWeights { app: name(), weights: vec![100, 0] };
    assert!(!story.last.act.iter().any(|effect| matches!(effect, Effect::SetWeights { .. }) && *effect != head()));
    story.exit(Launch(1), 1);
    story.wake_after(Duration::from_secs(1));
    story.prove(Launch(2));
    let app = story.fleet.app(&name()).expect("the story has its app");
    assert_eq!((app.workers.len(), app.head.parked), (1, None));
}

#[test]
fn connections_left_behind_in_a_lane_get_a_relief_worker_that_goes_when_they_are_served() {
    let mut story = Story::new(&policy(1, Lanes::PerWorker));
    story.tell(Launch(1), WorkerEvent::Spawned { pid: Pid(1), start_time: 1 });
    // Connections wait in lane 0; its worker is replaced before it was ready, so the next one is in lane 1.
    story.reload(&policy(1, Lanes::PerWorker));
    story.exit(Launch(1), 0);
    story.prove(Launch(2));
    let relief = story.spawned();
    assert_eq!(relief, [Launch(3)]);
    assert_eq!(story.result(), Some(OperationResult::Done));
    story.prove(relief[0]);
    assert_eq!(story.phases(), [Phase::Draining, Phase::Ready], "one too many, and who served before serves on");
    story.tell(Launch(3), WorkerEvent::DrainObserved(InFlight::default()));
    story.exit(Launch(3), 0);
    assert_eq!((story.spawned(), story.phases()), (vec![], vec![Phase::Ready]));
}

#[test]
fn a_rolling_release_that_is_refused_before_it_had_anything_gets_nothing_on_its_way_out() {
    let mut story = Story::ready(&policy(2, Lanes::PerWorker));
    let (app, revision, policy) = story.configured(&policy(2, Lanes::PerWorker));
    let plan = Plan { verifies: true, ..Plan::rolling() };
    let request = Request::Upgrade { app: app.clone(), revision, policy, plan, kind: OperationKind::Upgrade };
    let Admitted::Begun(id) = story.ask(request) else { panic!("it begins") };
    assert_eq!(story.spawned(), [Launch(3)], "one beside the old ones");
    story.prove(Launch(3));
    let share = |story: &Story| story.fleet.app(&name()).expect("the story has its app").weights[2];
    assert_eq!((share(&story), story.phases()), (0, vec![Phase::Ready; 3]), "nobody goes before it was looked at");
    // It is needed for the number of those that serve, and serves nobody all the same.
    story.exit(Launch(1), 1);
    let event = RolloutEvent::Refused { step: 0, why: "no".to_owned() };
    let outcome = story.fleet.step(story.tick(), Event::Rollout { app, id, event });
    story.took(outcome);
    assert_eq!((share(&story), story.phases()[2]), (0, Phase::Ready));
}

#[test]
fn a_scale_down_beside_a_relief_worker_takes_the_wanted_number_away_at_once() {
    let reload = ReloadPolicy { max_surge: 2, ..AppPolicy::default().reload };
    let wide = AppPolicy { reload, ..policy(2, Lanes::PerWorker) };
    let mut story = Story::new(&wide);
    story.reload(&wide);
    story.exit(Launch(1), 0);
    story.exit(Launch(2), 0);
    story.prove(Launch(3));
    story.prove(Launch(4));
    let ready = |story: &Story| story.phases().iter().filter(|phase| **phase == Phase::Ready).count();
    assert_eq!((ready(&story), story.phases().len()), (2, 3), "two and a relief");
    story.ask(Request::Scale { app: name(), workers: 1 });
    assert_eq!(ready(&story), 1, "{:?}", story.phases());
}

#[test]
fn a_new_supervisor_makes_good_what_was_written_and_not_done() {
    let watched = AppPolicy { watchdog: Some(Duration::from_secs(5)), ..policy(2, Lanes::PerWorker) };
    let mut story = Story::new(&watched);
    story.prove(Launch(1));
    let app = story.fleet.app(&name()).expect("the story has its app");
    let (head, workers) = (app.head.clone(), app.workers.values().map(|worker| (**worker).clone()).collect());
    let mut next = Fleet::restore(story.fleet.counters(), vec![head], workers);
    let later = Tick { now: story.now + Duration::from_secs(600), entropy: 0 };
    let outcome = next.resume(later);
    assert!(matches!(&outcome.act[..], [Effect::SetWeights { .. }, Effect::Spawn { launch: Launch(2), .. }]));
    assert!(next.step(later, Event::Woke).act.is_empty(), "nobody is ended for a silence that was the supervisor's");
    assert!(next.next_wake().is_some_and(|at| at > later.now));
}

#[test]
fn a_fleet_that_winds_down_ends_its_workers_and_starts_none_in_their_place() {
    for lanes in [Lanes::None, Lanes::PerWorker, Lanes::PerGeneration] {
        let mut story = Story::ready(&policy(2, lanes));
        let outcome = story.fleet.wind_down(story.tick());
        story.took(outcome);
        assert_eq!(story.spawned(), [], "{lanes:?}");
        for launch in [Launch(1), Launch(2)] {
            story.tell(launch, WorkerEvent::DrainObserved(InFlight::default()));
            story.exit(launch, 0);
            assert_eq!(story.spawned(), [], "{lanes:?}");
        }
    }
}

#[test]
fn workers_that_share_a_queue_are_not_drained_one_by_one_whatever_comes_after_them() {
    let mut story = Story::ready(&policy(2, Lanes::PerGeneration));
    story.reload(&policy(2, Lanes::PerWorker));
    let new = story.spawned();
    assert_eq!(new.len(), 2);
    story.prove(new[0]);
    assert!(!story.phases().contains(&Phase::Draining), "the second new one is not ready");
    story.prove(new[1]);
    assert_eq!(story.phases().iter().filter(|phase| **phase == Phase::Draining).count(), 2);
}

/// Something that happens to the one app: a request, or a fact about one of its first launches.
fn moves() -> impl Strategy<Value = (u8, u64, u64)> {
    (0_u8..15, 1_u64..12, 0_u64..3_000)
}

proptest! {
    #[test]
    fn in_any_history_an_app_is_sound_and_a_new_supervisor_finds_it_as_it_was(
        lanes in prop::sample::select(vec![Lanes::None, Lanes::PerWorker, Lanes::PerGeneration]),
        moves in prop::collection::vec(moves(), 1..80),
    ) {
        let policy = policy(2, lanes);
        let mut story = Story::new(&policy);
        for (what, launch, later) in moves {
            story.now = story.now + Duration::from_millis(later);
            let (app, revision, policy) = story.configured(&policy);
            let count = u32::try_from(launch % 4 + 1).expect("a number up to four is a u32");
            let request = match what {
                0 => Some(Request::Start { app, revision, policy }),
                1 => Some(Request::Stop { app }),
                2 => Some(Request::Reload { app, revision, policy: AppPolicy { workers: count, ..policy } }),
                3 => Some(Request::Restart { app, revision, policy }),
                4 => Some(Request::Scale { app, workers: count }),
                _ => None,
            };
            if let Some(request) = request {
                if let Ok((_, outcome)) = story.fleet.request(story.tick(), request) {
                    story.took(outcome);
                }
                continue;
            }
            let launch = Launch(launch);
            match what {
                5 | 6 => story.prove(launch),
                7 => story.exit(launch, 0),
                8 => story.exit(launch, 1),
                9 => story.tell(launch, WorkerEvent::DrainObserved(InFlight::default())),
                10 => story.tell(launch, WorkerEvent::StoppingSaid),
                11 => story.tell(launch, WorkerEvent::SpawnFailed { why: "no".to_owned(), permanent: false }),
                12 => story.tell(launch, WorkerEvent::WatchdogTriggered),
                _ => story.wake_after(Duration::ZERO),
            }
            let Some(app) = story.fleet.app(&name()) else { continue };
            let (head, workers) = (app.head.clone(), app.workers.values().map(|worker| (**worker).clone()).collect());
            let next = Fleet::restore(story.fleet.counters(), vec![head], workers);
            next.check_invariants().expect("what was restored is sound");
            prop_assert_eq!(next.next_wake(), story.fleet.next_wake());
        }
    }
}

#[test]
fn nothing_is_started_any_more_once_the_daemon_is_ending() {
    let mut story = Story::ready(&policy(2, Lanes::PerWorker));
    let outcome = story.fleet.wind_down(story.tick());
    story.took(outcome);
    assert_eq!(story.phases(), [Phase::Draining, Phase::Draining]);
    for launch in [Launch(1), Launch(2)] {
        story.tell(launch, WorkerEvent::DrainObserved(InFlight::default()));
        story.exit(launch, 0);
        assert_eq!(story.spawned(), [], "in the place of {launch}");
    }
    assert!(story.fleet.app(&name()).is_some_and(|app| app.workers.values().all(|w| w.state.process().is_none())));
}

const TOO_MUCH: WorkerEvent = WorkerEvent::LimitMet(LimitMet::MemoryCeiling { used: 300 << 20, ceiling: 200 << 20 });

#[test]
fn a_worker_that_outgrew_its_memory_is_drained_once_another_is_ready_and_its_end_says_so() {
    let mut story = Story::ready(&policy(2, Lanes::PerWorker));
    story.tell(Launch(1), TOO_MUCH);
    assert_eq!(story.spawned(), [], "it has just been started: another would be no better");
    story.now = story.now + Duration::from_secs(60);
    story.tell(Launch(1), TOO_MUCH);
    assert_eq!((story.spawned(), story.phases()), (vec![Launch(3)], vec![Phase::Ready, Phase::Ready, Phase::Starting]));
    story.tell(Launch(2), TOO_MUCH);
    assert_eq!(story.spawned(), [], "one at a time");
    story.prove(Launch(3));
    assert_eq!(story.phases()[0], Phase::Draining);
    story.tell(Launch(1), WorkerEvent::DrainObserved(InFlight::default()));
    assert_eq!(story.spawned(), [Launch(4)], "then the next");
    story.exit(Launch(1), 0);
    let told = story.last.publish.iter().find_map(|notice| {
        let News::Exited { cause, reason, .. } = &notice.news else { return None };
        Some((*cause, reason.clone()))
    });
    let (cause, reason) = told.expect("its end is told");
    assert!(matches!(cause, ExitCause::Limit(LimitMet::MemoryCeiling { .. })), "{cause:?}");
    assert_eq!(reason, "used 300 MiB of memory, over its ceiling of 200 MiB");
    story.prove(Launch(4));
    story.tell(Launch(2), WorkerEvent::DrainObserved(InFlight::default()));
    story.exit(Launch(2), 0);
    assert_eq!(story.phases(), [Phase::Ready, Phase::Ready]);
}

#[test]
fn a_worker_that_outgrew_its_memory_beside_a_relief_is_the_next_to_go_and_nobody_is_started_for_it() {
    let mut story = Story::new(&policy(1, Lanes::PerWorker));
    story.tell(Launch(1), WorkerEvent::Spawned { pid: Pid(1), start_time: 1 });
    story.reload(&policy(1, Lanes::PerWorker));
    story.exit(Launch(1), 0);
    story.prove(Launch(2));
    assert_eq!(story.spawned(), [Launch(3)], "a relief, where connections were left behind");
    story.now = story.now + Duration::from_secs(60);
    story.tell(Launch(2), TOO_MUCH);
    assert_eq!(story.spawned(), [], "there is room for one more, and that is the relief");
    story.prove(Launch(3));
    assert_eq!(story.phases(), [Phase::Ready, Phase::Draining], "the relief is in its place");
}

#[test]
fn without_room_for_one_more_an_outgrown_worker_is_drained_first_and_where_a_queue_is_shared_not_at_all() {
    let narrow = ReloadPolicy { max_surge: 0, max_unavailable: 1, ..AppPolicy::default().reload };
    let mut story = Story::ready(&AppPolicy { reload: narrow, ..policy(2, Lanes::PerWorker) });
    story.now = story.now + Duration::from_secs(60);
    story.tell(Launch(1), TOO_MUCH);
    assert_eq!((story.spawned(), story.phases()), (vec![], vec![Phase::Draining, Phase::Ready]));
    story.tell(Launch(1), WorkerEvent::DrainObserved(InFlight::default()));
    story.exit(Launch(1), 0);
    assert_eq!(story.spawned(), [Launch(3)]);

    let mut shared = Story::ready(&policy(2, Lanes::PerGeneration));
    shared.now = shared.now + Duration::from_secs(60);
    shared.tell(Launch(1), TOO_MUCH);
    assert_eq!((shared.spawned(), shared.phases()), (vec![], vec![Phase::Ready, Phase::Ready]));
}

#[test]
fn a_worker_that_the_kernel_killed_for_its_memory_is_started_again_and_says_why_it_ended() {
    let mut story = Story::ready(&policy(1, Lanes::None));
    story.now = story.now + Duration::from_secs(60);
    story.tell(Launch(1), WorkerEvent::LimitMet(LimitMet::OutOfMemory { limit: Some(64 << 20) }));
    assert_eq!(story.phases(), [Phase::Ready]);
    story.tell(Launch(1), WorkerEvent::Exited { exit: Exit::Signal(9) });
    assert_eq!(story.spawned(), [Launch(2)]);
    let app = story.fleet.app(&name()).expect("it is there");
    let last = app.workers.values().next().and_then(|worker| worker.last_exit.clone()).expect("it ended");
    assert_eq!(last.cause, ExitCause::Limit(LimitMet::OutOfMemory { limit: Some(64 << 20) }));
    assert_eq!(last.reason, "ran out of memory: the kernel killed it at limits.memory = 64 MiB");
}

#[test]
fn what_became_of_a_leaving_workers_tasks_is_told_by_whoever_made_it_leave() {
    let mut story = Story::ready(&policy(3, Lanes::None));
    let finish = |story: &mut Story, launch: Launch, handed_over: u32| {
        story.tell(launch, WorkerEvent::DrainObserved(InFlight { idle: 1, ..InFlight::default() }));
        story.tell(launch, WorkerEvent::TasksSettled(Tally { handed_over, ..Tally::default() }));
        story.exit(launch, 0);
        let told = story.last.publish.iter();
        told.filter_map(|notice| if let News::Finished(done) = &notice.news { Some(done.clone()) } else { None }).next()
    };
    story.ask(Request::Scale { app: name(), workers: 2 });
    // A crash beside it is not the scale's doing.
    story.tell(Launch(1), WorkerEvent::TasksSettled(Tally { lost: 7, ..Tally::default() }));
    let scaled = finish(&mut story, Launch(3), 2).expect("it is over");
    assert_eq!((scaled.kind, scaled.toll.handed_over), (OperationKind::Scale, 2));
    assert_eq!((scaled.toll.lost, scaled.toll.idle_cut), (0, 1));
    story.ask(Request::Stop { app: name() });
    assert_eq!(finish(&mut story, Launch(1), 3), None, "the other one is there");
    let head = &story.fleet.app(&name()).expect("the story has its app").head;
    assert_eq!(head.pending[0].toll.handed_over, 3, "it is stored with the request");
    let stopped = finish(&mut story, Launch(2), 1).expect("it is over");
    assert_eq!((stopped.kind, stopped.toll.handed_over, stopped.toll.idle_cut), (OperationKind::Stop, 4, 2));
}

#[test]
fn a_deployment_tells_what_its_new_workers_lost_by_crashing_and_not_what_the_old_ones_did() {
    let served = Duration::from_secs(2);
    let mut story = Story::ready(&policy(2, Lanes::None));
    story.reload(&policy(2, Lanes::None));
    assert_eq!(story.spawned(), [Launch(3)]);
    story.prove(Launch(3));
    story.now = story.now + served;
    story.tell(Launch(2), WorkerEvent::TasksSettled(Tally { lost: 7, ..Tally::default() }));
    let named = vec![(TaskId::new("t").expect("a task id"), Loss::Crashed)];
    story.tell(Launch(3), WorkerEvent::TasksSettled(Tally { handed_over: 4, lost: 1, named, ..Tally::default() }));
    story.exit(Launch(3), 1);
    let finished = |notice: &Notice| if let News::Finished(done) = &notice.news { Some(done.clone()) } else { None };
    let done = story.last.publish.iter().find_map(finished).expect("its only new worker is gone");
    assert_eq!((done.result, done.toll.handed_over, done.toll.lost), (OperationResult::RolledBack, 4, 1));
    assert_eq!(done.toll.lost_tasks[0].0.as_str(), "t");
}
