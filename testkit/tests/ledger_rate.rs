//! What the task machine costs, measured by hand:
//! `cargo test --release -p agentd-testkit --test ledger_rate -- --ignored --nocapture`.

use std::time::{Duration, Instant};

use agentd_core::id::{AppName, Generation, Launch, Pid};
use agentd_core::task::{
    Begin, Ending, Fence, Input, Key, Kind, Known, Ledger, Link, Message, Order, Outcome, Own, Session, Speaker, TaskId,
};
use agentd_core::time::{Moment, Tick};

const OPEN: u64 = 10_000;
const ROUNDS: u64 = 200_000;
const FROM: Speaker = Speaker { launch: Launch(1), pid: Pid(1), link: Link(1) };

fn tick(n: u64) -> Tick {
    Tick { now: Moment::from_micros(1_000_000 + n * 10), entropy: n.wrapping_mul(0x9e37_79b9_7f4a_7c15) }
}

fn say(ledger: &mut Ledger, out: &mut Outcome, n: u64, message: Message) {
    let answer = ledger.message(tick(n), FROM, message, Known::default(), out);
    answer.expect("every message of this measurement is taken");
    out.rows.clear();
    out.spans.clear();
}

fn begin(n: u64) -> Message {
    let text = |what: &str| format!("{what}-{n:016x}-{n:016x}");
    Message::Begin(Begin {
        task: Some(TaskId::new(&text("t")).expect("a short text is an id")),
        key: Some(Key::new(&text("k")).expect("a short text is a key")),
        kind: Some(Kind::new("chat").expect("chat is a kind")),
        session: Some(Session::new(&text("s")).expect("a short text is a session")),
        input: Input::Absent,
    })
}

fn end(n: u64) -> Message {
    let task = TaskId::new(&format!("t-{n:016x}-{n:016x}")).expect("a short text is an id");
    Message::End { own: Own { task, fence: Fence::FIRST }, outcome: Ending::Ok }
}

fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux tells its own memory");
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).expect("the second field is pages") * 4096
}

#[test]
#[ignore = "a measurement, for an otherwise idle machine"]
fn ten_thousand_open_tasks_and_what_beginning_and_ending_one_costs() {
    let app: AppName = "support".parse().expect("support is an app name");
    let (mut ledger, mut out) = (Ledger::new(), Outcome::default());
    let launch = FROM.launch;
    ledger.order(tick(0), Order::LaunchBorn { launch, app, generation: Generation(1), state_version: None }, &mut out);
    ledger.order(tick(0), Order::LaunchReady { launch }, &mut out);
    say(&mut ledger, &mut out, 0, Message::Hello { max_tasks: 4 });
    let before = resident();
    for n in 0..OPEN {
        say(&mut ledger, &mut out, n, begin(n));
    }
    let bytes = (resident() - before) / OPEN;
    let start = Instant::now();
    for n in OPEN..OPEN + ROUNDS {
        say(&mut ledger, &mut out, n, begin(n));
        say(&mut ledger, &mut out, n, end(n));
    }
    let each = start.elapsed() / u32::try_from(ROUNDS).expect("a round number");
    println!("{bytes} bytes an open task; begin and end: {each:?}, among {OPEN} open tasks");
    assert!(bytes < 1_000 && each < Duration::from_micros(20), "{bytes} bytes, {each:?}");
}
