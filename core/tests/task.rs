//! Tasks, each unhappy path as a story of its own, and what holds of any history.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use agentd_core::id::{AppName, Generation, Launch, Operation, Pid};
use agentd_core::task::{
    Answer, Begin, Boot, Denied, Drain, Duplicate, EffectAnswer, EffectKey, EffectRecord, Ended, Ending, Fact, Fate,
    Fence, Gone, Input, Judged, Key, Kind, Known, Ledger, Link, Loss, Mark, Message, OnDeadline, Order, Outcome, Own,
    ParkedFor, Refused, Request, Row, Speaker, State, Stretch, Successor, Task, TaskId, TaskPolicy, Usual, Word,
};
use agentd_core::time::{Moment, Tick};

fn app() -> AppName {
    "support".parse().expect("support is an app name")
}

fn id(text: &str) -> TaskId {
    TaskId::new(text).expect("a short text is an id")
}

fn mail() -> EffectKey {
    EffectKey::new("2:mail").expect("a short text is a key")
}

fn own(task: &str, fence: u64) -> Own {
    Own { task: id(task), fence: Fence(fence) }
}

/// A ledger, its store, and a clock.
struct Story {
    ledger: Ledger,
    now: Moment,
    open: BTreeMap<TaskId, Task>,
    marks: BTreeMap<TaskId, Mark>,
    ended: BTreeMap<TaskId, Ended>,
    keys: BTreeMap<Key, TaskId>,
    effects: BTreeMap<(TaskId, EffectKey), EffectRecord>,
    last: Outcome,
}

impl Story {
    fn new(policy: TaskPolicy) -> Self {
        let mut story = Self {
            ledger: Ledger::new(),
            now: Moment::from_micros(1_000_000),
            open: BTreeMap::new(),
            marks: BTreeMap::new(),
            ended: BTreeMap::new(),
            keys: BTreeMap::new(),
            effects: BTreeMap::new(),
            last: Outcome::default(),
        };
        story.order(Order::Policy { app: app(), policy });
        story
    }

    /// Workers of these launches are ready and connected, each of the generation of its number, with room for four.
    fn with(launches: &[u64]) -> Self {
        let mut story = Self::new(TaskPolicy::default());
        for &launch in launches {
            story.worker(launch, launch, 4);
        }
        story
    }

    fn worker(&mut self, launch: u64, generation: u64, max_tasks: u32) {
        let born = Order::LaunchBorn {
            launch: Launch(launch),
            app: app(),
            generation: Generation(generation),
            state_version: None,
        };
        self.order(born);
        self.order(Order::LaunchReady { launch: Launch(launch) });
        self.say(launch, Message::Hello { max_tasks }).expect("a worker is welcome");
    }

    fn tick(&self) -> Tick {
        Tick { now: self.now, entropy: u64::MAX / 3 }
    }

    fn speaker(launch: u64) -> Speaker {
        Speaker { launch: Launch(launch), pid: Pid(u32::try_from(launch).expect("a small number")), link: Link(launch) }
    }

    fn settle(&mut self) {
        self.ledger.check_invariants().expect("the ledger is sound after every step");
        for row in &self.last.rows {
            match row {
                Row::Task(id) => {
                    if let Some(task) = self.ledger.task(id) {
                        self.open.insert(id.clone(), task.clone());
                    }
                }
                Row::Checkpoint { task, mark, .. } => _ = self.marks.insert(task.clone(), *mark),
                Row::Effect { task, key, fence, state, .. } => {
                    let record = EffectRecord { fence: *fence, state: *state };
                    self.effects.insert((task.clone(), key.clone()), record);
                }
                Row::Ended { ended, .. } => {
                    if let Some(key) = self.open.remove(&ended.task).and_then(|task| task.key) {
                        self.keys.insert(key, ended.task.clone());
                    }
                    self.ended.insert(ended.task.clone(), ended.clone());
                }
            }
        }
    }

    fn say(&mut self, launch: u64, message: Message) -> Result<Answer, Refused> {
        self.say_as(Self::speaker(launch), message)
    }

    fn say_as(&mut self, from: Speaker, message: Message) -> Result<Answer, Refused> {
        let needs = self.ledger.needs(from.launch, &message);
        let known = Known {
            task: needs.task.and_then(|id| self.ended.get(id)).cloned(),
            key: needs.key.and_then(|(_, key)| self.ended.get(self.keys.get(key)?)).cloned(),
            checkpoint: needs.checkpoint.is_some(),
            effect: needs.effect.and_then(|(id, key)| self.effects.get(&(id.clone(), key.clone()))).copied(),
        };
        self.last = Outcome::default();
        let answer = self.ledger.message(self.tick(), from, message, known, &mut self.last);
        self.settle();
        answer
    }

    fn order(&mut self, order: Order) {
        self.last = Outcome::default();
        self.ledger.order(self.tick(), order, &mut self.last);
        self.settle();
    }

    fn request(&mut self, request: Request) -> Result<(), Denied> {
        self.last = Outcome::default();
        let done = self.ledger.request(self.tick(), request, &mut self.last);
        self.settle();
        done
    }

    /// Lets time pass, doing what is due when it is due.
    fn pass(&mut self, by: Duration) {
        let until = self.now + by;
        let mut all = Outcome::default();
        while let Some(wake) = self.ledger.next_wake().filter(|wake| *wake <= until) {
            self.now = self.now.max(wake);
            self.last = Outcome::default();
            self.ledger.wake(self.tick(), &mut self.last);
            self.settle();
            all.words.append(&mut self.last.words);
            all.facts.append(&mut self.last.facts);
            all.spans.append(&mut self.last.spans);
        }
        self.now = until;
        self.last = all;
    }

    fn begin(&mut self, launch: u64, task: &str, key: Option<&str>, input: Input) -> Result<Answer, Refused> {
        let key = key.map(|key| Key::new(key).expect("a short text is a key"));
        let begin = Begin { task: Some(id(task)), key, kind: None, session: None, input };
        self.say(launch, Message::Begin(begin))
    }

    fn checkpoint(&mut self, launch: u64, task: &str, fence: u64, step: u64) -> Result<Answer, Refused> {
        self.say(launch, Message::Checkpoint { own: own(task, fence), step, safe: true, state_version: None })
    }

    fn effect(&mut self, launch: u64, task: &str, fence: u64, kind: &str) -> Result<Answer, Refused> {
        let kind = Kind::new(kind).expect("a short text is a kind");
        self.say(launch, Message::EffectBegin { own: own(task, fence), key: mail(), kind })
    }

    fn beat(&mut self, launch: u64, task: &str, fence: u64) {
        self.say(launch, Message::Beat { tasks: vec![(own(task, fence), None)] }).expect("a beat is taken");
    }

    fn drain(&mut self, launch: u64, deadline: Duration, latest: Duration) {
        self.drain_for(launch, deadline, latest, None);
    }

    fn drain_for(&mut self, launch: u64, deadline: Duration, latest: Duration, successor: Option<Successor>) {
        let usual = Usual { kinds: BTreeMap::new(), other: Duration::from_secs(4) };
        let drain = Drain {
            reason: "reload".to_owned(),
            to_release: None,
            least: self.now + deadline.min(SECOND),
            deadline: self.now + deadline,
            latest: self.now + latest,
            successor,
            asked_by: None,
            usual,
        };
        self.order(Order::DrainBegan { launch: Launch(launch), drain });
    }

    fn gone(&mut self, launch: u64, gone: Gone) {
        self.order(Order::LaunchGone { launch: Launch(launch), gone });
    }

    /// Who was sent a task: launch, fence, attempt, the step to go on from.
    fn has_no_time(&self) -> bool {
        self.last.facts.iter().any(|fact| matches!(fact, Fact::TimeOver { launch: Launch(1), .. }))
    }

    fn sent(&self) -> Vec<(u64, u64, u32, Option<u64>)> {
        let run = |told: &agentd_core::task::ToWorker| match &told.word {
            Word::Run { fence, attempt, checkpoint, .. } => Some((told.launch.0, fence.0, *attempt, *checkpoint)),
            Word::Drain { .. }
            | Word::DrainEnded
            | Word::CheckpointNow { .. }
            | Word::Cancel { .. }
            | Word::Fenced { .. } => None,
        };
        self.last.words.iter().filter_map(run).collect()
    }

    fn sent_on(&self, task: &TaskId) -> bool {
        self.last.words.iter().any(|told| matches!(&told.word, Word::Run { task: sent, .. } if sent == task))
    }

    fn stored(&self) -> Vec<Task> {
        let with_mark = |task: &Task| Task { checkpoint: self.marks.get(&task.id).copied(), ..task.clone() };
        self.open.values().map(with_mark).collect()
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_reload_hands_a_task_over_at_its_checkpoint_and_its_effect_is_not_done_again() {
    let mut story = Story::with(&[1, 2]);
    story.begin(1, "t", None, Input::Absent).expect("it is admitted");
    assert_eq!(story.effect(1, "t", 1, "mail"), Ok(Answer::Effect(EffectAnswer::New)));
    story.say(1, Message::EffectEnd { own: own("t", 1), key: mail(), ok: true }).expect("it is noted");
    story.checkpoint(1, "t", 1, 7).expect("it is durable");
    story.drain(1, 60 * SECOND, 60 * SECOND);
    assert!(story.last.facts.contains(&Fact::InHand { launch: Launch(1), tasks: 1, asker: 0, stay: 0 }));
    story.say(1, Message::Yield { own: own("t", 1) }).expect("it is handed over");
    assert_eq!(story.sent(), [(2, 2, 2, Some(7))]);
    assert!(story.last.facts.contains(&Fact::InHand { launch: Launch(1), tasks: 0, asker: 0, stay: 0 }));
    assert!(matches!(story.checkpoint(1, "t", 1, 8), Err(Refused::Fenced { .. })), "the old owner cannot write");
    assert_eq!(story.effect(2, "t", 2, "mail"), Ok(Answer::Effect(EffectAnswer::Done)));
    story.gone(1, Gone::Asked);
    let settled = story.last.facts.iter().find_map(|fact| match fact {
        Fact::Settled { tally, .. } => Some((tally.finished, tally.handed_over, tally.lost)),
        Fact::Ready { .. }
        | Fact::InHand { .. }
        | Fact::Looked { .. }
        | Fact::Deadline { .. }
        | Fact::TimeOver { .. } => None,
    });
    assert_eq!(settled, Some((0, 1, 0)));
}

#[test]
fn a_worker_that_was_stopped_and_comes_back_cannot_write() {
    let mut story = Story::with(&[1, 2]);
    story.begin(1, "t", None, Input::Kept).expect("it is admitted");
    story.pass(31 * SECOND);
    assert_eq!(story.sent(), [(2, 2, 2, None)]);
    assert!(story.last.words.iter().any(|told| told.launch == Launch(1) && matches!(told.word, Word::Fenced { .. })));
    assert!(matches!(story.checkpoint(1, "t", 1, 1), Err(Refused::Fenced { .. })));
    assert!(story.checkpoint(2, "t", 2, 1).is_ok());
}

#[test]
fn a_silent_worker_is_sent_nothing_before_it_speaks() {
    let mut story = Story::with(&[1]);
    story.begin(1, "t", None, Input::Kept).expect("it is admitted");
    story.pass(31 * SECOND);
    assert_eq!(story.sent(), [], "nobody is awake");
    story.say(1, Message::Beat { tasks: Vec::new() }).expect("it is alive");
    assert_eq!(story.sent(), [(1, 2, 2, None)]);
}

#[test]
fn a_machine_that_slept_takes_no_task_from_anybody() {
    let mut story = Story::with(&[1, 2]);
    story.begin(1, "t", None, Input::Kept).expect("it is admitted");
    story.now = story.now + 3_600 * SECOND;
    story.pass(Duration::ZERO);
    assert_eq!(story.sent(), []);
    story.pass(20 * SECOND);
    assert!(story.checkpoint(1, "t", 1, 1).is_ok(), "its lease began anew");
}

#[test]
fn a_task_that_crashes_three_workers_is_parked_until_a_person_asks_for_it() {
    let mut story = Story::with(&[9]);
    story.say(9, Message::Hello { max_tasks: 0 }).expect("it takes no more");
    for launch in 1..=3 {
        story.worker(launch, 1, 1);
        if launch == 1 {
            story.begin(1, "t", None, Input::Kept).expect("it is admitted");
        } else {
            assert_eq!(story.sent(), []);
            story.pass(u32::try_from(launch).expect("a small number") * SECOND);
            assert_eq!(story.sent().len(), 1, "after its backoff it is sent on");
        }
        story.gone(launch, Gone::Crashed);
    }
    let parked = story.ledger.task(&id("t")).expect("it is open");
    assert!(matches!(parked.state, State::Parked { why: ParkedFor::Crashes, .. }), "{parked:?}");
    assert_eq!((parked.fence, parked.attempt), (Fence(4), 4));
    story.worker(4, 1, 1);
    assert_eq!(story.sent(), []);
    story.request(Request::Retry { task: id("t"), effect: None }).expect("it is retried");
    assert_eq!(story.sent(), [(4, 4, 4, None)]);
}

#[test]
fn a_worker_that_crashes_while_it_serves_leaves_word_of_what_it_had_in_hand() {
    let mut story = Story::with(&[1, 2]);
    story.begin(1, "kept", None, Input::Kept).expect("it is admitted");
    story.begin(1, "bare", None, Input::Absent).expect("it is admitted");
    story.gone(1, Gone::Crashed);
    let Some(Fact::Settled { launch, tally }) = story.last.facts.last() else { panic!("nothing was settled") };
    assert_eq!((*launch, tally.handed_over, tally.lost), (Launch(1), 1, 1));
    assert_eq!(tally.named, [(id("bare"), Loss::Crashed)]);
}

#[test]
fn an_effect_in_doubt_parks_its_task_until_a_person_judges() {
    let mut story = Story::with(&[1, 2]);
    story.begin(1, "t", None, Input::Kept).expect("it is admitted");
    story.effect(1, "t", 1, "mail").expect("it is begun");
    story.gone(1, Gone::Crashed);
    story.pass(2 * SECOND);
    assert_eq!(story.sent(), [(2, 2, 2, None)]);
    assert_eq!(story.effect(2, "t", 2, "mail"), Ok(Answer::Effect(EffectAnswer::Parked)));
    assert_eq!(story.effect(2, "t", 2, "mail"), Ok(Answer::Effect(EffectAnswer::Parked)), "asked again, the same");
    let denied = story.request(Request::Retry { task: id("t"), effect: None });
    assert_eq!(denied, Err(Denied::EffectUnjudged { task: id("t"), key: mail() }));
    story.request(Request::Retry { task: id("t"), effect: Some(Judged::Skip) }).expect("it is judged");
    assert_eq!(story.sent(), [(2, 3, 3, None)]);
    assert_eq!(story.effect(2, "t", 3, "mail"), Ok(Answer::Effect(EffectAnswer::Skip)));
}

#[test]
fn model_calls_and_reads_in_doubt_are_done_again() {
    for kind in ["model", "read"] {
        let mut story = Story::with(&[1, 2]);
        story.begin(1, "t", None, Input::Kept).expect("it is admitted");
        story.effect(1, "t", 1, kind).expect("it is begun");
        story.gone(1, Gone::Asked);
        assert_eq!(story.effect(2, "t", 2, kind), Ok(Answer::Effect(EffectAnswer::Retry)));
        assert_eq!(story.effect(2, "t", 2, kind), Ok(Answer::Effect(EffectAnswer::New)), "its answer was lost");
    }
}

#[test]
fn a_key_answers_for_its_task_while_it_runs_and_after_it_is_done() {
    let mut story = Story::with(&[1, 2]);
    story.begin(1, "t", Some("order 7"), Input::Absent).expect("it is admitted");
    let running = Answer::Duplicate { task: id("t"), of: Duplicate::Running };
    assert_eq!(story.begin(2, "u", Some("order 7"), Input::Absent), Ok(running));
    story.say(1, Message::End { own: own("t", 1), outcome: Ending::Ok }).expect("it ends");
    let done = Answer::Duplicate { task: id("t"), of: Duplicate::Done };
    assert_eq!(story.begin(2, "u", Some("order 7"), Input::Absent), Ok(done));
    story.begin(2, "v", Some("order 8"), Input::Absent).expect("it is admitted");
    story.say(2, Message::End { own: own("v", 1), outcome: Ending::Error }).expect("it fails");
    let again = story.begin(1, "w", Some("order 8"), Input::Absent);
    assert!(matches!(again, Ok(Answer::Begun { .. })), "what failed may be tried again: {again:?}");
}

#[test]
fn whoever_begins_the_key_of_a_task_that_waits_goes_on_with_it() {
    let mut story = Story::with(&[1]);
    story.begin(1, "t", Some("order 7"), Input::Absent).expect("it is admitted");
    story.checkpoint(1, "t", 1, 3).expect("it is durable");
    story.gone(1, Gone::Crashed);
    story.worker(2, 1, 0);
    let begun = story.begin(2, "u", Some("order 7"), Input::Absent);
    let expected = Answer::Begun { task: id("t"), fence: Fence(2), attempt: 2, checkpoint: Some(3) };
    assert_eq!(begun, Ok(expected));
}

#[test]
fn tasks_go_to_the_newest_generation_with_room_and_never_to_one_that_drains() {
    let mut story = Story::with(&[1]);
    for task in ["a", "b", "c", "d"] {
        story.begin(1, task, None, Input::Kept).expect("it is admitted");
    }
    story.worker(5, 5, 1);
    story.worker(3, 3, 1);
    story.worker(6, 6, 4);
    story.drain(6, SECOND, SECOND);
    story.gone(1, Gone::Asked);
    let launches: Vec<u64> = story.sent().iter().map(|sent| sent.0).collect();
    assert_eq!(launches, [5, 3], "five is newer than three, and both are full then");
    story.say(5, Message::End { own: own("a", 2), outcome: Ending::Ok }).expect("it ends");
    assert_eq!(story.sent().len(), 1, "room is used at once");
}

#[test]
fn a_checkpoint_of_a_newer_format_is_not_given_to_an_older_release() {
    let mut story = Story::new(TaskPolicy::default());
    for (launch, version) in [(1, Some(4)), (2, Some(3)), (3, None)] {
        let born =
            Order::LaunchBorn { launch: Launch(launch), app: app(), generation: Generation(1), state_version: version };
        story.order(born);
        story.order(Order::LaunchReady { launch: Launch(launch) });
    }
    story.say(1, Message::Hello { max_tasks: 0 }).expect("it is welcome");
    story.say(2, Message::Hello { max_tasks: 4 }).expect("it is welcome");
    story.begin(1, "t", None, Input::Kept).expect("it is admitted");
    let message = Message::Checkpoint { own: own("t", 1), step: 1, safe: true, state_version: Some(4) };
    story.say(1, message).expect("it is durable");
    story.gone(1, Gone::Asked);
    assert_eq!(story.sent(), []);
    story.say(3, Message::Hello { max_tasks: 4 }).expect("it is welcome");
    assert_eq!(story.sent(), [(3, 2, 2, Some(1))], "one that states no version is believed to read all");
}

/// Two workers whose first has `kept`, with a checkpoint of format 4, and is drained for a successor of format 3.
fn downgraded(waits: bool) -> Story {
    let mut story = Story::with(&[1, 2]);
    story.begin(1, "kept", None, Input::Kept).expect("it is admitted");
    let message = Message::Checkpoint { own: own("kept", 1), step: 1, safe: true, state_version: Some(4) };
    story.say(1, message).expect("it is durable");
    let successor = Successor { generation: Generation(2), state_version: Some(3), waits };
    story.drain_for(1, 8 * SECOND, 8 * SECOND, Some(successor));
    story
}

#[test]
fn what_the_next_release_does_not_read_stays_until_it_ends_and_the_rest_goes() {
    let mut story = downgraded(true);
    assert!(story.last.facts.contains(&Fact::InHand { launch: Launch(1), tasks: 1, asker: 0, stay: 1 }));
    story.begin(1, "goes", None, Input::Kept).expect("it is admitted");
    assert_eq!(story.say(1, Message::Yield { own: own("kept", 1) }), Err(Refused::Unread(id("kept"))));
    for _ in 0..20 {
        story.pass(8 * SECOND);
        story.beat(1, "kept", 1);
        assert!(!story.last.facts.iter().any(|fact| matches!(fact, Fact::TimeOver { .. })), "nobody is told to end");
    }
    assert!(matches!(story.checkpoint(1, "goes", 1, 1), Err(Refused::Fenced { .. })), "this one was cut in its time");
    story.checkpoint(1, "kept", 1, 2).expect("and this one is still its owner's");
    story.say(1, Message::End { own: own("kept", 1), outcome: Ending::Ok }).expect("it ends where it began");
    assert!(story.last.facts.contains(&Fact::InHand { launch: Launch(1), tasks: 0, asker: 0, stay: 0 }));
}

#[test]
fn what_a_rollback_cannot_hand_over_has_the_time_of_the_others_and_waits_then_for_whoever_reads_it() {
    let mut story = downgraded(false);
    assert_eq!(story.say(1, Message::Yield { own: own("kept", 1) }), Err(Refused::Unread(id("kept"))));
    story.pass(8 * SECOND);
    assert!(story.has_no_time());
}

#[test]
fn a_generation_that_looked_and_could_not_read_a_checkpoint_is_not_given_it_nor_is_the_one_after_it() {
    let mut story = Story::with(&[1, 2, 3]);
    story.begin(1, "t", None, Input::Kept).expect("it is admitted");
    story.checkpoint(1, "t", 1, 1).expect("it is durable");
    let looked = |unread: &[&str]| Order::Looked {
        app: app(),
        deployment: Operation(7),
        generation: Generation(2),
        unread: unread.iter().map(|text| id(text)).collect(),
    };
    story.order(looked(&["t", "of nobody"]));
    assert!(story.last.facts.contains(&Fact::Looked { app: app(), deployment: Operation(7) }));
    story.gone(1, Gone::Asked);
    assert_eq!(story.sent(), []);
    let mut next = Story::new(TaskPolicy::default());
    next.ledger = Ledger::restore(next.now, Boot::Same, story.stored());
    next.worker(3, 3, 4);
    assert_eq!(next.sent(), [], "the next supervisor knows it too");
    next.worker(4, 1, 4);
    assert_eq!(next.sent(), [(4, 2, 2, Some(1))], "the old release reads it");
    story.order(looked(&[]));
    assert_eq!(story.sent(), [(3, 2, 2, Some(1))], "another look found that it reads all");
}

#[test]
fn at_the_deadline_what_has_a_checkpoint_goes_on_after_the_exit_and_the_rest_is_lost_and_named() {
    let mut story = Story::with(&[1, 2]);
    story.begin(1, "kept", None, Input::Absent).expect("it is admitted");
    story.checkpoint(1, "kept", 1, 5).expect("it is durable");
    story.begin(1, "bare", None, Input::Absent).expect("it is admitted");
    story.drain(1, 8 * SECOND, 8 * SECOND);
    story.pass(7 * SECOND);
    let asked = story.last.words.iter().filter(|told| matches!(told.word, Word::CheckpointNow { .. })).count();
    assert_eq!(asked, 2, "each is asked for one more checkpoint");
    story.pass(SECOND);
    assert!(story.last.facts.contains(&Fact::TimeOver { launch: Launch(1), tasks: 2 }));
    assert_eq!(story.sent(), [], "its worker may still be at it");
    assert!(matches!(story.checkpoint(1, "kept", 1, 6), Err(Refused::Fenced { .. })), "fenced before the signal");
    story.gone(1, Gone::Asked);
    assert_eq!(story.sent(), [(2, 2, 2, Some(5))]);
    let Some(Fact::Settled { tally, .. }) = story.last.facts.last() else { panic!("nothing was settled") };
    assert_eq!((tally.handed_over, tally.lost), (1, 1));
    assert_eq!(tally.named, [(id("bare"), Loss::Cut)]);
}

#[test]
fn a_drain_is_extended_while_something_gets_on_and_no_longer_than_it_may() {
    let mut story = Story::new(TaskPolicy { on_deadline: OnDeadline::Extend, ..TaskPolicy::default() });
    story.worker(1, 1, 4);
    story.begin(1, "t", None, Input::Kept).expect("it is admitted");
    story.drain(1, 2 * SECOND, 12 * SECOND);
    let over = Story::has_no_time;
    for step in 1..=3 {
        story.checkpoint(1, "t", 1, step).expect("it is durable");
        story.pass(3 * SECOND);
        assert!(!over(&story), "it gets on after {step} steps");
    }
    story.beat(1, "t", 1);
    story.pass(2 * SECOND);
    assert!(over(&story), "a beat alone is no progress: it is stuck");
}

#[test]
fn tasks_that_are_to_be_killed_may_end_until_their_process_does() {
    let mut story = Story::new(TaskPolicy { on_deadline: OnDeadline::Kill, ..TaskPolicy::default() });
    story.worker(1, 1, 4);
    for task in ["quick", "slow"] {
        story.begin(1, task, None, Input::Kept).expect("it is admitted");
        story.checkpoint(1, task, 1, 1).expect("it is durable");
    }
    story.drain(1, SECOND, SECOND);
    story.pass(2 * SECOND);
    story.say(1, Message::End { own: own("quick", 1), outcome: Ending::Ok }).expect("it made it");
    story.gone(1, Gone::Asked);
    assert_eq!(story.ended[&id("slow")].end, agentd_core::task::End::Lost(Loss::Cut));
    let fates: Vec<Fate> = story.last.spans.iter().filter(|s| s.of == Stretch::Task).map(|span| span.fate).collect();
    assert_eq!(fates, [Fate::Killed], "what was cut is censored");
}

#[test]
fn the_age_of_a_task_goes_with_it() {
    let mut story = Story::with(&[1, 2]);
    story.begin(1, "t", None, Input::Kept).expect("it is admitted");
    story.pass(5 * SECOND);
    story.say(1, Message::Yield { own: own("t", 1) }).expect("it is handed over");
    story.pass(2 * SECOND);
    story.say(2, Message::End { own: own("t", 2), outcome: Ending::Ok }).expect("it ends");
    let span = story.last.spans.iter().find(|span| span.of == Stretch::Task).expect("a run is over");
    assert_eq!((span.age0, span.age, span.fate), (5 * SECOND, 7 * SECOND, Fate::Done));
}

#[test]
fn a_commit_that_failed_leaves_what_was_stored_and_what_was_due_is_done_anew() {
    let mut story = Story::with(&[1, 2]);
    story.begin(1, "t", None, Input::Kept).expect("it is admitted");
    story.drain(1, 5 * SECOND, 5 * SECOND);
    let stored = story.stored();
    story.pass(5 * SECOND);
    assert!(story.has_no_time());
    story.ledger.roll_back(story.now, stored);
    story.open.insert(id("t"), story.ledger.task(&id("t")).expect("it is open again").clone());
    assert_eq!(story.ledger.task(&id("t")).map(|task| task.fence), Some(Fence(1)));
    assert!(story.checkpoint(1, "t", 1, 1).is_ok(), "nobody was told that its time is over");
    story.pass(2 * SECOND);
    assert!(story.has_no_time(), "it is decided once more");
}

#[test]
fn a_task_that_was_placed_in_a_commit_that_failed_is_placed_again() {
    let mut story = Story::with(&[1]);
    story.begin(1, "t", None, Input::Kept).expect("it is admitted");
    story.gone(1, Gone::Asked);
    let stored = story.stored();
    story.worker(2, 1, 1);
    story.ledger.roll_back(story.now, stored);
    story.pass(2 * SECOND);
    assert_eq!(story.sent(), [(2, 2, 2, None)]);
}

#[test]
fn a_new_supervisor_knows_every_task_and_sends_again_what_was_not_taken_up() {
    let mut story = Story::with(&[1, 2]);
    story.begin(1, "held", None, Input::Kept).expect("it is admitted");
    story.checkpoint(1, "held", 1, 4).expect("it is durable");
    story.begin(1, "sent", None, Input::Kept).expect("it is admitted");
    story.say(1, Message::Yield { own: own("sent", 1) }).expect("it is handed over");
    story.ledger = Ledger::restore(story.now, Boot::Same, story.stored());
    assert!(matches!(story.checkpoint(1, "held", 1, 5), Err(Refused::UnknownWorker(_))), "nobody was told of yet");
    for launch in [1, 2] {
        let born = Order::LaunchBorn {
            launch: Launch(launch),
            app: app(),
            generation: Generation(launch),
            state_version: None,
        };
        story.order(born);
        story.order(Order::LaunchReady { launch: Launch(launch) });
    }
    story.order(Order::AllTold);
    let child = Speaker { pid: Pid(77), link: Link(77), ..Story::speaker(2) };
    story.say_as(child, Message::Hello { max_tasks: 4 }).expect("a second process of the worker is welcome");
    assert_eq!(story.sent(), [], "another process never was sent it");
    story.say(2, Message::Hello { max_tasks: 4 }).expect("it dials again");
    assert_eq!(story.sent(), [(2, 2, 2, None)]);
    story.say(1, Message::Hello { max_tasks: 4 }).expect("it dials again");
    assert!(story.checkpoint(1, "held", 1, 5).is_ok());
}

#[test]
fn owners_that_a_new_supervisor_is_not_told_of_crashed() {
    let mut story = Story::with(&[1]);
    story.begin(1, "t", None, Input::Kept).expect("it is admitted");
    story.ledger = Ledger::restore(story.now, Boot::Other, story.stored());
    story.order(Order::AllTold);
    let task = story.ledger.task(&id("t")).expect("it is open");
    assert!(matches!(task.state, State::Waiting { .. }) && task.fence == Fence(2), "{task:?}");
}

#[test]
fn what_is_begun_beyond_the_most_is_refused_and_costs_nothing() {
    let mut story = Story::new(TaskPolicy { max_open: 2, ..TaskPolicy::default() });
    story.worker(1, 1, 0);
    for task in ["a", "b"] {
        story.begin(1, task, None, Input::Absent).expect("there is room");
    }
    assert_eq!(story.begin(1, "c", None, Input::Absent), Err(Refused::TooMany { app: app(), open: 2 }));
    assert_eq!(story.ledger.open(&app()), 2);
    story.say(1, Message::End { own: own("a", 1), outcome: Ending::Ok }).expect("it ends");
    assert!(story.begin(1, "c", None, Input::Absent).is_ok());
}

/// What happens in a history.
#[derive(Clone, Debug)]
enum Turn {
    Begin(u64, u8, bool),
    Checkpoint(u64, u8, u64, u64),
    Effect(u64, u8, u64),
    End(u64, u8, u64),
    Yield(u64, u8, u64),
    Beat(u64, u8, u64),
    Hello(u64),
    Hangup(u64),
    Gone(u64, bool),
    Drain(u64),
    Ready(u64),
    Retry(u8),
    Cancel(u8),
    Pass(u64),
    Restart,
}

fn turns() -> impl Strategy<Value = Vec<Turn>> {
    let (launch, task, fence) = (1_u64..4, 0_u8..4, 1_u64..5);
    let turn = prop_oneof![
        6 => (launch.clone(), task.clone(), any::<bool>()).prop_map(|(l, t, input)| Turn::Begin(l, t, input)),
        4 => (launch.clone(), task.clone(), fence.clone(), 1_u64..6).prop_map(|(l, t, f, s)| Turn::Checkpoint(l, t, f, s)),
        3 => (launch.clone(), task.clone(), fence.clone()).prop_map(|(l, t, f)| Turn::Effect(l, t, f)),
        3 => (launch.clone(), task.clone(), fence.clone()).prop_map(|(l, t, f)| Turn::End(l, t, f)),
        3 => (launch.clone(), task.clone(), fence.clone()).prop_map(|(l, t, f)| Turn::Yield(l, t, f)),
        2 => (launch.clone(), task.clone(), fence).prop_map(|(l, t, f)| Turn::Beat(l, t, f)),
        2 => launch.clone().prop_map(Turn::Hello),
        1 => launch.clone().prop_map(Turn::Hangup),
        2 => (launch.clone(), any::<bool>()).prop_map(|(l, asked)| Turn::Gone(l, asked)),
        1 => launch.clone().prop_map(Turn::Drain),
        2 => launch.prop_map(Turn::Ready),
        1 => task.clone().prop_map(Turn::Retry),
        1 => task.prop_map(Turn::Cancel),
        4 => (1_u64..40_000).prop_map(Turn::Pass),
        1 => Just(Turn::Restart),
    ];
    prop::collection::vec(turn, 1..80)
}

fn play(story: &mut Story, turn: Turn) -> Option<Result<Answer, Refused>> {
    let name = |task: u8| format!("t{task}");
    match turn {
        Turn::Begin(launch, task, input) => {
            let input = if input { Input::Kept } else { Input::Absent };
            return Some(story.begin(launch, &name(task), Some(&format!("k{}", task / 2)), input));
        }
        Turn::Checkpoint(launch, task, fence, step) => return Some(story.checkpoint(launch, &name(task), fence, step)),
        Turn::Effect(launch, task, fence) => return Some(story.effect(launch, &name(task), fence, "mail")),
        Turn::End(launch, task, fence) => {
            return Some(story.say(launch, Message::End { own: own(&name(task), fence), outcome: Ending::Ok }));
        }
        Turn::Yield(launch, task, fence) => {
            return Some(story.say(launch, Message::Yield { own: own(&name(task), fence) }));
        }
        Turn::Beat(launch, task, fence) => {
            let tasks = vec![(own(&name(task), fence), None)];
            return Some(story.say(launch, Message::Beat { tasks }));
        }
        Turn::Hello(launch) => return Some(story.say(launch, Message::Hello { max_tasks: 2 })),
        Turn::Hangup(launch) => story.order(Order::LinkClosed { launch: Launch(launch), link: Link(launch) }),
        Turn::Gone(launch, asked) => story.gone(launch, if asked { Gone::Asked } else { Gone::Crashed }),
        Turn::Drain(launch) => story.drain(launch, 3 * SECOND, 9 * SECOND),
        Turn::Ready(launch) => {
            let launch = Launch(launch);
            let born = Order::LaunchBorn { launch, app: app(), generation: Generation(1), state_version: None };
            story.order(born);
            story.order(Order::LaunchReady { launch });
        }
        Turn::Retry(task) => _ = story.request(Request::Retry { task: id(&name(task)), effect: Some(Judged::Redo) }),
        Turn::Cancel(task) => {
            _ = story.request(Request::Cancel { task: id(&name(task)), reason: "no need".to_owned() });
        }
        Turn::Pass(millis) => story.pass(Duration::from_millis(millis)),
        Turn::Restart => {
            story.ledger = Ledger::restore(story.now, Boot::Same, story.stored());
            story.order(Order::AllTold);
        }
    }
    None
}

proptest! {
    #[test]
    fn in_any_history_fences_never_fall_nothing_stays_due_and_a_refusal_changes_nothing(turns in turns()) {
        let mut story = Story::with(&[1, 2, 3]);
        let mut fences: BTreeMap<TaskId, Fence> = BTreeMap::new();
        for turn in turns {
            let before: Vec<(TaskId, Fence)> = story.ledger.tasks().map(|task| (task.id.clone(), task.fence)).collect();
            let said = play(&mut story, turn.clone());
            let after: Vec<(TaskId, Fence)> = story.ledger.tasks().map(|task| (task.id.clone(), task.fence)).collect();
            if let Some(Err(_)) = said {
                prop_assert_eq!(&before, &after, "refused, and yet changed: {:?}", turn);
let placed = |row: &Row| matches!(row, Row::Task(id) if story.sent_on(id));
                // That it spoke may have had tasks sent to it, when it was silent.
                prop_assert!(story.last.rows.iter().all(placed), "refused, and yet written: {:?}", story.last.rows);
            }
            for (id, fence) in after {
                let ended = story.ended.get(&id).map(|ended| ended.fence);
                let last = fences.insert(id.clone(), fence).filter(|_| ended.is_none());
                prop_assert!(last.is_none_or(|last| last <= fence), "{id}: {last:?} to {fence}");
            }
            if matches!(turn, Turn::Pass(_)) {
                prop_assert!(story.ledger.next_wake().is_none_or(|at| at > story.now), "{:?} is due", story.ledger.next_wake());
            }
        }
    }
}

#[test]
fn a_begin_sent_again_does_not_bring_back_what_another_process_of_the_worker_was_sent_meanwhile() {
    let mut story = Story::with(&[1]);
    story.begin(1, "t", None, Input::Kept).expect("it is admitted");
    let child = Speaker { pid: Pid(77), link: Link(77), ..Story::speaker(1) };
    story.say_as(child, Message::Hello { max_tasks: 4 }).expect("a second process of the worker is welcome");
    // The first never heard its answer, so it does not beat; the child is sent the task.
    story.pass(40 * SECOND);
    assert_eq!(story.sent(), [(1, 2, 2, None)]);
    let again = story.begin(1, "t", None, Input::Kept);
    assert_eq!(again, Ok(Answer::Duplicate { task: id("t"), of: Duplicate::Running }));
    let sent = Message::Begin(Begin { task: Some(id("t")), key: None, kind: None, session: None, input: Input::Kept });
    let child_again = story.say_as(child, sent);
    assert!(matches!(child_again, Ok(Answer::Begun { fence: Fence(2), .. })), "{child_again:?}");
}

#[test]
fn a_begin_sent_again_is_a_sign_of_life() {
    let mut story = Story::with(&[1, 2]);
    story.begin(1, "t", None, Input::Kept).expect("it is admitted");
    story.pass(25 * SECOND);
    story.begin(1, "t", None, Input::Kept).expect("the answer was lost");
    story.pass(25 * SECOND);
    assert_eq!(story.sent(), [], "its lease began anew");
    assert!(story.checkpoint(1, "t", 1, 1).is_ok());
}

#[test]
fn a_drain_leaves_nothing_due_once_its_worker_is_gone_or_serves_again() {
    let mut story = Story::with(&[1, 2]);
    let hour = 3600 * SECOND;
    story.drain(1, hour, hour);
    story.drain(2, hour, hour);
    assert!(story.ledger.next_wake().is_some());
    story.gone(1, Gone::Asked);
    story.order(Order::LaunchReady { launch: Launch(2) });
    assert_eq!(story.ledger.next_wake(), None);
    story.drain(2, hour, hour);
    story.pass(50 * SECOND);
    story.drain(2, 2 * hour, 2 * hour);
    story.gone(2, Gone::Crashed);
    assert_eq!(story.ledger.next_wake(), None, "of neither drain");
}

#[test]
fn a_drain_waits_for_whoever_asked_for_it_no_longer_than_for_the_others() {
    let mut story = Story::with(&[1, 2]);
    for task in ["asks", "other"] {
        story.begin(1, task, None, Input::Kept).expect("it is admitted");
    }
    let usual = Usual { kinds: BTreeMap::new(), other: 90 * SECOND };
    let drain = Drain {
        reason: "reload".to_owned(),
        to_release: None,
        least: story.now + 2 * SECOND,
        deadline: story.now + 20 * SECOND,
        latest: story.now + 60 * SECOND,
        successor: None,
        asked_by: Some(id("asks")),
        usual,
    };
    story.order(Order::DrainBegan { launch: Launch(1), drain });
    story.pass(5 * SECOND);
    assert!(!story.has_no_time(), "the other has its time");
    story.say(1, Message::End { own: own("other", 1), outcome: Ending::Ok }).expect("it is done");
    story.pass(Duration::ZERO);
    assert!(story.has_no_time(), "{:?}", story.last.facts);
    assert_eq!(story.ledger.task(&id("asks")).map(|task| task.fence), Some(Fence(2)), "it goes on elsewhere");
}

#[test]
fn a_drain_does_not_wait_for_the_stuck_and_does_for_the_slow_that_never_made_a_checkpoint() {
    for (checkpointed, cut) in [(true, true), (false, false)] {
        let mut story = Story::with(&[1, 2]);
        story.begin(1, "t", None, Input::Kept).expect("it is admitted");
        if checkpointed {
            story.checkpoint(1, "t", 1, 1).expect("it is durable");
        }
        story.pass(10 * SECOND);
        story.drain(1, 20 * SECOND, 60 * SECOND);
        story.pass(2 * SECOND);
        let over = story.has_no_time();
        assert_eq!(over, cut, "silent for more than its usual gap, checkpoint: {checkpointed}");
    }
}
