//! Apps that need others, and changes that are taken back, each as a story of its own.

use std::collections::{BTreeMap, BTreeSet};

use agentd_core::admission::{Admitted, Request};
use agentd_core::effect::{Effect, News, OperationKind, OperationResult, Outcome};
use agentd_core::event::{Event, Exit, InFlight, Proof, WorkerEvent};
use agentd_core::fleet::Fleet;
use agentd_core::id::{AppName, Launch, Pid, Revision};
use agentd_core::needs::{self, Circle, Lack, order};
use agentd_core::policy::{AppPolicy, RestartWhen};
use agentd_core::time::{Moment, Tick};

const TICK: Tick = Tick { now: Moment::from_micros(1_000_000), entropy: 0 };

fn app(name: &str) -> AppName {
    name.parse().expect("an app's name")
}

/// One worker that is never started again, and what it needs.
fn policy(needs: &[&str]) -> AppPolicy {
    let mut policy = AppPolicy { needs: needs.iter().map(|name| app(name)).collect(), ..AppPolicy::default() };
    policy.restart.when = RestartWhen::Never;
    policy
}

#[derive(Default)]
struct Story {
    fleet: Fleet,
    /// Who has which process.
    processes: BTreeMap<AppName, Vec<Launch>>,
    finished: Vec<(AppName, OperationKind, OperationResult, Option<String>)>,
}

impl Story {
    fn ask(&mut self, request: Request) -> Admitted {
        let (admitted, outcome) = self.fleet.request(TICK, request).expect("the story asks for what is possible");
        self.took(outcome);
        admitted
    }

    fn start(&mut self, name: &str, needs: &[&str]) {
        self.ask(Request::Start { app: app(name), revision: Revision(1), policy: policy(needs) });
    }

    fn tell(&mut self, launch: Launch, event: WorkerEvent) {
        let outcome = self.fleet.step(TICK, Event::Worker { launch, event });
        self.took(outcome);
    }

    fn took(&mut self, outcome: Outcome) {
        self.fleet.check_invariants().expect("the fleet is sound after every step");
        for effect in outcome.act {
            if let Effect::Spawn { launch, worker, .. } = effect {
                self.processes.entry(worker.app).or_default().push(launch);
            }
        }
        for notice in outcome.publish {
            if let News::Finished(finished) = notice.news {
                self.finished.push((notice.app, finished.kind, finished.result, finished.why));
            }
        }
    }

    fn launches(&self, name: &str) -> Vec<Launch> {
        self.processes.get(&app(name)).cloned().unwrap_or_default()
    }

    fn rise(&mut self, name: &str) {
        for launch in self.launches(name) {
            self.tell(launch, WorkerEvent::Spawned { pid: Pid(1), start_time: 1 });
            self.tell(launch, WorkerEvent::ReadyProven { proof: Proof::Http });
        }
    }

    fn exit(&mut self, name: &str, code: i32) {
        for launch in self.launches(name) {
            self.tell(launch, WorkerEvent::DrainObserved(InFlight::default()));
            self.tell(launch, WorkerEvent::Exited { exit: Exit::Code(code) });
        }
    }

    fn lacks(&self, name: &str) -> Vec<(AppName, Lack)> {
        self.fleet.lacks(self.fleet.app(&app(name)).expect("it is known"))
    }

    fn ended(&self, name: &str) -> Vec<(OperationKind, OperationResult)> {
        let of = self.finished.iter().filter(|(of, ..)| *of == app(name));
        of.map(|(_, kind, result, _)| (*kind, *result)).collect()
    }
}

#[test]
fn names_come_after_what_they_need_and_a_circle_is_named() {
    let names = ["c", "b", "a", "d"].map(app);
    let needs = |pairs: &[(&str, &[&str])]| -> BTreeMap<AppName, BTreeSet<AppName>> {
        pairs.iter().map(|(name, needs)| (app(name), needs.iter().map(|need| app(need)).collect())).collect()
    };
    let chain = needs(&[("c", &["b", "nobody"]), ("b", &["a"]), ("d", &["a", "c"])]);
    assert_eq!(order(&names, &chain), Ok(["a", "b", "c", "d"].map(app).to_vec()));
    assert_eq!(order(&names, &BTreeMap::new()), Ok(names.to_vec()));
    let circle = needs(&[("d", &["a"]), ("a", &["b"]), ("b", &["c"]), ("c", &["a"])]);
    let Err(Circle(round)) = order(&names, &circle) else { panic!("there is a circle") };
    assert_eq!(round, ["c", "a", "b"].map(app));
}

#[test]
fn whoever_needs_another_starts_after_it_was_ready_and_outlives_its_crash() {
    let mut story = Story::default();
    story.start("base", &[]);
    story.start("web", &["base"]);
    assert_eq!((story.launches("web").len(), story.lacks("web")), (0, vec![(app("base"), Lack::Starting)]));
    story.rise("base");
    assert_eq!((story.launches("web").len(), story.lacks("web")), (1, vec![]));
    story.rise("web");
    story.exit("base", 1);
    assert_eq!(story.ended("web"), [(OperationKind::Start, OperationResult::Done)]);
    assert!(story.fleet.app(&app("web")).is_some_and(|web| web.ready() == 1));
}

#[test]
fn waiting_for_what_will_not_come_is_told_and_goes_on_when_it_comes() {
    let mut story = Story::default();
    story.start("base", &[]);
    story.start("web", &["base"]);
    story.exit("base", 3);
    assert_eq!(story.ended("web"), [(OperationKind::Start, OperationResult::Failed)]);
    let why = story.finished.iter().find(|(of, ..)| *of == app("web")).and_then(|(.., why)| why.clone());
    assert!(why.as_deref().is_some_and(|why| why.starts_with("it waits for base, which failed")), "{why:?}");
    story.processes.clear();
    story.start("base", &[]);
    story.rise("base");
    assert_eq!(story.launches("web").len(), 1);
    assert_eq!(needs::sentence(&[(app("a"), Lack::Stopped)]), "waits for a, which is stopped");
}

#[test]
fn a_one_shot_that_ended_well_is_a_need_that_is_met() {
    let mut story = Story::default();
    story.start("migrate", &[]);
    story.start("web", &["migrate"]);
    story.exit("migrate", 0);
    assert_eq!(story.launches("web").len(), 1);
}

#[test]
fn what_is_needed_goes_on_serving_until_whoever_needs_it_is_gone() {
    let mut story = Story::default();
    story.start("base", &[]);
    story.start("web", &["base"]);
    story.rise("base");
    story.rise("web");
    story.ask(Request::Stop { app: app("web") });
    story.ask(Request::Stop { app: app("base") });
    assert!(story.fleet.app(&app("base")).is_some_and(|base| base.ready() == 1), "web has not ended yet");
    story.exit("web", 0);
    assert!(story.fleet.app(&app("base")).is_some_and(|base| base.ready() == 0));
    story.exit("base", 0);
    assert_eq!(story.ended("base").last(), Some(&(OperationKind::Stop, OperationResult::Done)));
}

#[test]
fn a_new_app_that_does_not_come_up_is_forgotten_again() {
    let mut story = Story::default();
    story.ask(Request::Create { app: app("web"), revision: Revision(1), policy: policy(&[]) });
    story.exit("web", 1);
    assert_eq!(story.ended("web"), [(OperationKind::Start, OperationResult::RolledBack)]);
    assert!(story.fleet.app(&app("web")).is_none());
}

#[test]
fn another_configuration_governs_the_workers_that_run_and_goes_back_when_more_do_not_come() {
    let mut story = Story::default();
    story.start("web", &[]);
    story.rise("web");
    let first = story.launches("web");
    let mut patient = policy(&[]);
    patient.grace.default = std::time::Duration::from_secs(7);
    story.ask(Request::Adopt { app: app("web"), revision: Revision(2), policy: patient.clone() });
    assert_eq!(story.ended("web").last(), Some(&(OperationKind::Adopt, OperationResult::Done)));
    let web = story.fleet.app(&app("web")).expect("it is known");
    assert_eq!(
        (story.launches("web"), web.head.revision, &web.policy_now().grace),
        (first.clone(), Revision(2), &patient.grace)
    );
    story.ask(Request::Adopt {
        app: app("web"),
        revision: Revision(3),
        policy: AppPolicy { workers: 2, ..policy(&[]) },
    });
    let second = story.launches("web")[1];
    story.tell(second, WorkerEvent::Exited { exit: Exit::Code(1) });
    assert_eq!(story.ended("web").last(), Some(&(OperationKind::Adopt, OperationResult::RolledBack)));
    let web = story.fleet.app(&app("web")).expect("it is known");
    assert_eq!((web.head.count, web.head.revision, web.ready()), (1, Revision(2), 1));
    assert!(web.workers.values().all(|worker| worker.launch() == Some(first[0])));
}
