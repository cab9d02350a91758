//! What a worker is answered: `{"re":n,"ok":true,…}` or `{"re":n,"ok":false,"err":code,"msg":…}`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::error::Code;
use super::message::Snapshot;
use super::text::Text;

/// Writes the line of an answer that is not a refusal: the fields of `body` beside `re` and `ok`.
///
/// # Panics
/// Never: bodies can be written as JSON.
pub fn answer<T: Serialize>(out: &mut Vec<u8>, re: u64, body: &T) {
    #[derive(Serialize)]
    struct Answer<'b, T> {
        re: u64,
        ok: bool,
        #[serde(flatten)]
        body: &'b T,
    }
    serde_json::to_writer(&mut *out, &Answer { re, ok: true, body }).expect("a body can be written as JSON");
    out.push(b'\n');
}

/// Writes the line of a refusal.
///
/// # Panics
/// Never: it can be written as JSON.
pub fn refuse(out: &mut Vec<u8>, re: Option<u64>, err: Code, msg: &str) {
    let refusal = Refusal { re, ok: false, err, msg: msg.into() };
    serde_json::to_writer(&mut *out, &refusal).expect("a refusal can be written as JSON");
    out.push(b'\n');
}

/// A refusal. Nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Refusal<'a> {
    /// The request's `n`; null when it had none that could be read.
    pub re: Option<u64>,
    /// Always false.
    pub ok: bool,
    /// Why, for programs.
    pub err: Code,
    /// Why, in words.
    #[serde(borrow)]
    pub msg: Text<'a>,
}

/// Answer to `ckpt`, `effect.end`, `task.end`, `task.yield`, `ready`, `refreshed` and `beat`: it counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Nothing {}

/// Answer to `hello`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Welcome<'a> {
    /// The version that is spoken from here on.
    #[serde(borrow)]
    pub proto: Text<'a>,
    /// Who the worker is: `app.slot.generation`.
    pub worker: Text<'a>,
    /// The deployment that started it.
    pub generation: u64,
    /// What it runs.
    pub release: Text<'a>,
    /// How long a task stays its own without a sign of life. Beat every third of it.
    pub lease_ms: u64,
    /// Tasks that are this worker's already: those it had when its connection was lost. What it does not know of any
    /// more it yields.
    #[serde(default)]
    pub resume: Vec<Held<'a>>,
}

/// A task that is the worker's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Held<'a> {
    /// Which.
    #[serde(borrow)]
    pub task: Text<'a>,
    /// Its fence.
    pub fence: u64,
    /// The step of its last checkpoint, if it has one.
    pub step: Option<u64>,
}

/// Whose work it was that has the same key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Dup {
    /// It is under way, or waits.
    Running,
    /// It is over: `result` has what it gave.
    Done,
    /// A word newer than this reader.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

/// Answer to `task.begin`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Begun<'a> {
    /// The task; with `dup` the one that has the key.
    #[serde(borrow)]
    pub task: Text<'a>,
    /// Its fence: named by everything that is said of it. 0 with `dup`: it is not the worker's.
    pub fence: u64,
    /// Which run of it this is, from 1: more than 1 when a task that waited was taken up by its key.
    pub attempt: u32,
    /// There is such a task already; nothing was begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dup: Option<Dup>,
    /// How that one ended, when it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<super::Outcome>,
    /// What that one gave.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<serde_json::Value>")]
    pub result: Option<&'a RawValue>,
    /// Where to go on, when it was begun before and has a checkpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ckpt: Option<Snapshot<'a>>,
}

/// What is done about an effect that was begun and never ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum IntentPolicy {
    /// Do it again: whoever it is done to takes our key.
    Retry,
    /// Take it as done, without a result.
    Skip,
    /// A person decides. The task is parked: stop working on it.
    Ask,
    /// A policy newer than this reader: as [`Ask`](Self::Ask).
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

/// Answer to `effect.begin`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Effected<'a> {
    /// Do it. Pass `key` on where the other side takes an idempotency key.
    New {
        /// Unlike any other effect's: `task:key`.
        #[serde(borrow)]
        key: Text<'a>,
    },
    /// It was done: reuse what it gave.
    Done {
        /// What it gave; null when nothing was said.
        #[serde(borrow)]
        #[schemars(with = "serde_json::Value")]
        result: &'a RawValue,
    },
    /// It was begun and never ended: whether it was done is not known.
    Intent {
        /// As in `new`.
        #[serde(borrow)]
        key: Text<'a>,
        /// What to do.
        policy: IntentPolicy,
    },
}

/// Answer to `kv.put`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Put {
    /// For each item whether its value is there now: false for one that was `if_absent` and found another.
    pub put: Vec<bool>,
}

/// Answer to `kv.get`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Found<'a> {
    /// Whether there is one. Then exactly one of the others is there.
    pub found: bool,
    /// The value, as it was put.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub data: Option<Text<'a>>,
    /// The value, as it was put.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<serde_json::Value>")]
    pub json: Option<&'a RawValue>,
}

/// An item of a page.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Item<'a> {
    /// Its key.
    #[serde(borrow)]
    pub key: Text<'a>,
    /// The value, as it was put.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<Text<'a>>,
    /// The value, as it was put.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<serde_json::Value>")]
    pub json: Option<&'a RawValue>,
}

/// Answer to `kv.scan`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Page<'a> {
    /// In order.
    #[serde(borrow)]
    pub items: Vec<Item<'a>>,
    /// There are others after the last.
    pub more: bool,
}

/// Answer to `kv.del`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Deleted {
    /// How many were removed.
    pub deleted: u64,
}
