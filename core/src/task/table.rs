//! The task machine as a table: every state meets everything that can happen to it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use super::*;
use crate::id::{AppName, Generation, Launch, Pid};
use crate::time::{Moment, Tick};

const OWNER: Speaker = Speaker { launch: Launch(1), pid: Pid(11), link: Link(1) };
const OTHER: Speaker = Speaker { launch: Launch(2), pid: Pid(12), link: Link(2) };

fn tick(secs: u64) -> Tick {
    Tick { now: Moment::from_micros(secs * 1_000_000), entropy: 7 }
}

fn app() -> AppName {
    "a".parse().expect("a is an app name")
}

fn id() -> TaskId {
    TaskId::new("t").expect("t is an id")
}

fn key(text: &str) -> EffectKey {
    EffectKey::new(text).expect("a short text is a key")
}

fn begin(input: Input) -> Message {
    Message::Begin(Begin { task: Some(id()), key: None, kind: None, session: None, input })
}

fn drain(deadline: Moment) -> Drain {
    let usual = Usual { kinds: BTreeMap::new(), other: Duration::from_secs(5) };
    Drain {
        reason: "reload".to_owned(),
        to_release: None,
        least: deadline,
        deadline,
        latest: deadline,
        successor: None,
        asked_by: None,
        usual,
    }
}

/// A ledger, and what its store would know.
#[derive(Clone)]
struct Desk {
    ledger: Ledger,
    effects: BTreeMap<EffectKey, EffectRecord>,
    steps: Vec<u64>,
    ended: Option<Ended>,
}

impl Desk {
    /// Two ready workers of one app; the second takes no tasks.
    fn new() -> Self {
        let mut desk = Self { ledger: Ledger::new(), effects: BTreeMap::new(), steps: Vec::new(), ended: None };
        for speaker in [OWNER, OTHER] {
            let launch = speaker.launch;
            desk.order(Order::LaunchBorn { launch, app: app(), generation: Generation(1), state_version: None });
            desk.order(Order::LaunchReady { launch });
            desk.say(speaker, Message::Hello { max_tasks: 0 }).0.expect("a known worker is welcome");
        }
        desk
    }

    fn note(&mut self, out: &Outcome) {
        for row in &out.rows {
            match row {
                Row::Effect { key, fence, state, .. } => {
                    self.effects.insert(key.clone(), EffectRecord { fence: *fence, state: *state });
                }
                Row::Checkpoint { mark, .. } => self.steps.push(mark.step),
                Row::Ended { ended, .. } => self.ended = Some(ended.clone()),
                Row::Task(_) => {}
            }
        }
        self.ledger.check_invariants().expect("the ledger is sound after every step");
    }

    fn say(&mut self, from: Speaker, message: Message) -> (Result<Answer, Refused>, Outcome) {
        self.say_at(tick(10), from, message)
    }

    fn say_at(&mut self, tick: Tick, from: Speaker, message: Message) -> (Result<Answer, Refused>, Outcome) {
        let needs = self.ledger.needs(from.launch, &message);
        let known = Known {
            task: needs.task.and(self.ended.clone()),
            key: None,
            checkpoint: needs.checkpoint.is_some_and(|(_, step)| self.steps.contains(&step)),
            effect: needs.effect.and_then(|(_, key)| self.effects.get(key).copied()),
        };
        let mut out = Outcome::default();
        let answer = self.ledger.message(tick, from, message, known, &mut out);
        self.note(&out);
        (answer, out)
    }

    fn order(&mut self, order: Order) -> Outcome {
        let mut out = Outcome::default();
        self.ledger.order(tick(10), order, &mut out);
        self.note(&out);
        out
    }

    fn wake(&mut self, secs: u64) -> Outcome {
        let mut out = Outcome::default();
        self.ledger.wake(tick(secs), &mut out);
        self.note(&out);
        out
    }

    fn own(&self) -> Own {
        let fence = self.ledger.task(&id()).map(|task| task.fence).or(self.ended.as_ref().map(|ended| ended.fence));
        Own { task: id(), fence: fence.unwrap_or(Fence::FIRST) }
    }

    /// The task is begun by the owner, with this much of a past.
    fn held(input: Input, checkpoint: bool, effect: bool) -> Self {
        let mut desk = Self::new();
        desk.say(OWNER, begin(input)).0.expect("a task is admitted");
        let own = desk.own();
        if checkpoint {
            for step in [2, 3] {
                let message = Message::Checkpoint { own: own.clone(), step, safe: true, state_version: None };
                desk.say(OWNER, message).0.expect("a checkpoint is taken");
            }
        }
        if effect {
            let message = Message::EffectBegin { own, key: key("mail"), kind: Kind::new("mail").expect("a kind") };
            desk.say(OWNER, message).0.expect("an effect is begun");
        }
        desk
    }

    fn crashed(times: u32) -> Self {
        let mut desk = Self::held(Input::Absent, true, false);
        for crash in 1..=times {
            desk.order(Order::LaunchGone { launch: OWNER.launch, gone: Gone::Crashed });
            desk.order(Order::LaunchBorn {
                launch: OWNER.launch,
                app: app(),
                generation: Generation(1),
                state_version: None,
            });
            desk.order(Order::LaunchReady { launch: OWNER.launch });
            desk.say(OWNER, Message::Hello { max_tasks: 0 }).0.expect("it is welcome again");
            if crash < times {
                desk.say(OWNER, begin(Input::Absent)).0.expect("it takes the task up again");
            }
        }
        desk
    }
}

fn states() -> Vec<(&'static str, Desk)> {
    let mut offered = Desk::held(Input::Kept, false, false);
    offered.order(Order::LaunchGone { launch: OWNER.launch, gone: Gone::Asked });
    offered.order(Order::LaunchBorn {
        launch: OWNER.launch,
        app: app(),
        generation: Generation(1),
        state_version: None,
    });
    offered.order(Order::LaunchReady { launch: OWNER.launch });
    offered.say(OWNER, Message::Hello { max_tasks: 1 }).0.expect("it is welcome, and sent the task");
    let mut cancelling = Desk::held(Input::Kept, false, false);
    let request = Request::Cancel { task: id(), reason: "no need".to_owned() };
    cancelling.ledger.request(tick(10), request, &mut Outcome::default()).expect("a running task is cancelled");
    let mut told = Desk::new();
    told.order(Order::Told { launch: OWNER.launch, task: id(), word: Told::Began { kind: None } });
    let mut after = Desk::held(Input::Absent, true, false);
    after.order(Order::DrainBegan { launch: OWNER.launch, drain: drain(tick(10).now) });
    after.wake(10);
    let mut yielded = Desk::held(Input::Absent, true, false);
    let own = yielded.own();
    yielded.say(OWNER, Message::Yield { own }).0.expect("it is given up");
    let mut doubt = Desk::crashed(1);
    doubt.effects.insert(key("mail"), EffectRecord { fence: Fence(1), state: EffectState::Intent });
    doubt.say(OWNER, begin(Input::Absent)).0.expect("it is taken up again");
    let mut parked = doubt.clone();
    let message =
        Message::EffectBegin { own: parked.own(), key: key("mail"), kind: Kind::new("mail").expect("a kind") };
    parked.say(OWNER, message).0.expect("it is parked");
    let mut ended = Desk::held(Input::Kept, true, false);
    let own = ended.own();
    ended.say(OWNER, Message::End { own, outcome: Ending::Ok }).0.expect("it ends");
    let mut lost = Desk::held(Input::Absent, false, false);
    lost.wake(40);
    vec![
        ("unknown", Desk::new()),
        ("offered", offered),
        ("held", Desk::held(Input::Absent, false, false)),
        ("held, input", Desk::held(Input::Kept, false, false)),
        ("held, checkpoint", Desk::held(Input::Absent, true, false)),
        ("held, at an effect", Desk::held(Input::Absent, true, true)),
        ("held, in doubt", doubt),
        ("cancelling", cancelling),
        ("told", told),
        ("waiting for an exit", after),
        ("yielded", yielded),
        ("backing off", Desk::crashed(1)),
        ("parked, crashes", Desk::crashed(3)),
        ("parked, effect", parked),
        ("ended", ended),
        ("lost", lost),
    ]
}

type Cause = (&'static str, fn(&mut Desk) -> (String, Outcome));

fn said(desk: &mut Desk, from: Speaker, message: Message) -> (String, Outcome) {
    let (answer, out) = desk.say(from, message);
    let text = match answer {
        Ok(Answer::Duplicate { of, .. }) => format!("duplicate: {of:?}"),
        Ok(Answer::Effect(answer)) => format!("effect: {answer:?}"),
        Ok(Answer::Welcome { resume, .. }) => format!("welcome, resumes {}", resume.len()),
        Ok(Answer::Begun { fence, attempt, checkpoint, .. }) => {
            format!(
                "begun: fence {fence}, attempt {attempt}, from {}",
                checkpoint.map_or("0".to_owned(), |s| s.to_string())
            )
        }
        Ok(Answer::Ok) => "ok".to_owned(),
        Err(refused) => format!("REFUSED {}", first_word(&refused)),
    };
    (text, out)
}

fn asked(desk: &mut Desk, request: Request) -> (String, Outcome) {
    let mut out = Outcome::default();
    let done = desk.ledger.request(tick(10), request, &mut out);
    desk.note(&out);
    (done.map_or_else(|denied| format!("DENIED {}", first_word(&denied)), |()| "ok".to_owned()), out)
}

fn first_word(value: &impl std::fmt::Debug) -> String {
    format!("{value:?}").split([' ', '(', '{']).next().unwrap_or_default().to_owned()
}

fn causes() -> Vec<Cause> {
    fn checkpoint(desk: &Desk, step: u64) -> Message {
        Message::Checkpoint { own: desk.own(), step, safe: true, state_version: None }
    }
    fn mail() -> (EffectKey, Kind) {
        (key("mail"), Kind::new("mail").expect("a kind"))
    }
    vec![
        ("begin, owner", |desk| said(desk, OWNER, begin(Input::Absent))),
        ("begin, other", |desk| said(desk, OTHER, begin(Input::Absent))),
        ("checkpoint 4", |desk| said(desk, OWNER, checkpoint(desk, 4))),
        ("checkpoint 2 (again)", |desk| said(desk, OWNER, checkpoint(desk, 2))),
        ("checkpoint 1 (behind)", |desk| said(desk, OWNER, checkpoint(desk, 1))),
        ("checkpoint 4, other", |desk| said(desk, OTHER, checkpoint(desk, 4))),
        ("checkpoint 4, old fence", |desk| {
            let own = Own { task: id(), fence: Fence(0) };
            said(desk, OWNER, Message::Checkpoint { own, step: 4, safe: true, state_version: None })
        }),
        ("effect begin", |desk| {
            let (key, kind) = mail();
            said(desk, OWNER, Message::EffectBegin { own: desk.own(), key, kind })
        }),
        ("effect end", |desk| said(desk, OWNER, Message::EffectEnd { own: desk.own(), key: mail().0, ok: true })),
        ("end", |desk| said(desk, OWNER, Message::End { own: desk.own(), outcome: Ending::Ok })),
        ("yield", |desk| said(desk, OWNER, Message::Yield { own: desk.own() })),
        ("yield (again)", |desk| {
            let own = Own { task: id(), fence: Fence(desk.own().fence.0.saturating_sub(1)) };
            said(desk, OWNER, Message::Yield { own })
        }),
        ("beat", |desk| said(desk, OWNER, Message::Beat { tasks: vec![(desk.own(), None)] })),
        ("beat, old fence", |desk| {
            let own = Own { task: id(), fence: Fence(0) };
            said(desk, OWNER, Message::Beat { tasks: vec![(own, None)] })
        }),
        ("beat, no such task", |desk| {
            let other = Own { task: TaskId::new("other").expect("an id"), fence: Fence(1) };
            said(desk, OWNER, Message::Beat { tasks: vec![(other, None), (desk.own(), None)] })
        }),
        ("guard", |desk| said(desk, OWNER, Message::Guard { own: desk.own() })),
        ("redial", |desk| {
            desk.order(Order::LinkClosed { launch: OWNER.launch, link: OWNER.link });
            said(desk, Speaker { link: Link(9), ..OWNER }, Message::Hello { max_tasks: 0 })
        }),
        ("lease over", |desk| ("-".to_owned(), desk.wake(40))),
        ("lease over, late", |desk| ("-".to_owned(), desk.wake(60))),
        ("owner crashed", |desk| {
            ("-".to_owned(), desk.order(Order::LaunchGone { launch: OWNER.launch, gone: Gone::Crashed }))
        }),
        ("owner ended", |desk| {
            ("-".to_owned(), desk.order(Order::LaunchGone { launch: OWNER.launch, gone: Gone::Asked }))
        }),
        ("deadline", |desk| {
            desk.order(Order::DrainBegan { launch: OWNER.launch, drain: drain(tick(10).now) });
            ("-".to_owned(), desk.wake(10))
        }),
        ("told: began", |desk| {
            let word = Told::Began { kind: None };
            ("-".to_owned(), desk.order(Order::Told { launch: OWNER.launch, task: id(), word }))
        }),
        ("told: ended", |desk| {
            let word = Told::Ended(Ending::Ok);
            ("-".to_owned(), desk.order(Order::Told { launch: OWNER.launch, task: id(), word }))
        }),
        ("cancel", |desk| asked(desk, Request::Cancel { task: id(), reason: "no need".to_owned() })),
        ("retry", |desk| asked(desk, Request::Retry { task: id(), effect: None })),
        ("retry, redo", |desk| asked(desk, Request::Retry { task: id(), effect: Some(Judged::Redo) })),
        ("discard", |desk| asked(desk, Request::Discard { task: id() })),
    ]
}

fn now(desk: &Desk) -> String {
    let Some(task) = desk.ledger.task(&id()) else {
        let end = desk.ended.as_ref().map_or("unknown".to_owned(), |ended| format!("{:?}", ended.end));
        return end.to_lowercase();
    };
    let state = match &task.state {
        State::Running(run) => first_word(&run.stage).to_lowercase(),
        State::Told { .. } => "told".to_owned(),
        State::Waiting { after, why, .. } => {
            format!("waiting ({why:?}{})", if after.is_some() { ", for an exit" } else { "" }).to_lowercase()
        }
        State::Parked { why, .. } => format!("parked ({})", first_word(why)).to_lowercase(),
    };
    format!("{state}, fence {}, attempt {}", task.fence, task.attempt)
}

fn written(out: &Outcome) -> String {
    let rows = out.rows.iter().map(|row| match row {
        Row::Task(_) => "task".to_owned(),
        Row::Checkpoint { mark, .. } => format!("checkpoint {}", mark.step),
        Row::Effect { state, .. } => format!("effect {state:?}").to_lowercase(),
        Row::Ended { .. } => "ended".to_owned(),
    });
    let words = out.words.iter().map(|told| format!("tell {} {}", told.launch, first_word(&told.word)));
    let spans = out.spans.iter().map(|span| format!("{:?}: {:?}", span.of, span.fate).to_lowercase());
    rows.chain(words).chain(spans).collect::<Vec<_>>().join("; ")
}

#[test]
fn every_state_of_a_task_meets_everything_that_happens_as_the_table_says() {
    let mut table = String::new();
    for (name, desk) in states() {
        for (cause, act) in causes() {
            let mut desk = desk.clone();
            let (answer, out) = act(&mut desk);
            writeln!(table, "{name} | {cause} | {answer} | {} | {}", now(&desk), written(&out))
                .expect("a String takes all");
        }
    }
    insta::assert_snapshot!("task_transitions", table);
}
