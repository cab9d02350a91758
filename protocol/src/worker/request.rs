//! What a worker says.
//!
//! Requests borrow from their line: none of their texts and payloads is copied before it is written down. A line is read
//! in two passes, its type first, so that no field is held in a general form on the way; serde's own tagged
//! enums would copy all of it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::error::{Code, Rejected};
use super::text::Text;
use super::{KEY_MAX, KIND_MAX, TASK_MAX, WORDS_MAX};

/// A request under its number.
#[derive(Clone, Debug)]
pub struct Line<'a> {
    /// Named again by the answer; none when no answer is wanted.
    pub n: Option<u64>,
    /// What is said.
    pub request: Request<'a>,
}

/// What a worker says; `t` names the variant.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(tag = "t")]
pub enum Request<'a> {
    /// Who is there: the first line of every connection. Answered with [`Welcome`](super::Welcome).
    #[serde(rename = "hello")]
    Hello(Hello<'a>),
    /// It serves: as `READY=1` does.
    #[serde(rename = "ready")]
    Ready,
    /// A task is taken up. Answered with [`Begun`](super::Begun).
    #[serde(rename = "task.begin")]
    Begin(Begin<'a>),
    /// A state of a task to go on from. Answered once it is durable.
    #[serde(rename = "ckpt")]
    Ckpt(Ckpt<'a>),
    /// Something with consequences outside is about to be done. Answered with [`Effected`](super::Effected).
    #[serde(rename = "effect.begin")]
    EffectBegin(EffectBegin<'a>),
    /// It was done, or failed.
    #[serde(rename = "effect.end")]
    EffectEnd(EffectEnd<'a>),
    /// A task is over.
    #[serde(rename = "task.end")]
    End(End<'a>),
    /// A task is given back, to be gone on with elsewhere from its last checkpoint.
    #[serde(rename = "task.yield")]
    Yield(Yield<'a>),
    /// Sign of life: every third of a lease, and as the answer to `ping`.
    #[serde(rename = "beat")]
    Beat(Beat<'a>),
    /// What a `refresh` asked for is done, or cannot be.
    #[serde(rename = "refreshed")]
    Refreshed(Refreshed<'a>),
    /// Items are written. Answered with [`Put`](super::Put).
    #[serde(rename = "kv.put")]
    KvPut(KvPut<'a>),
    /// An item is read. Answered with [`Found`](super::Found).
    #[serde(rename = "kv.get")]
    KvGet(KvGet<'a>),
    /// Items are read in the order of their keys. Answered with [`Page`](super::Page).
    #[serde(rename = "kv.scan")]
    KvScan(KvScan<'a>),
    /// Items are removed. Answered with [`Deleted`](super::Deleted).
    #[serde(rename = "kv.del")]
    KvDel(KvDel<'a>),
}

/// Fields of `hello`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Hello<'a> {
    /// The newest version that the worker speaks: `agentd/1`.
    #[serde(borrow)]
    pub proto: Text<'a>,
    /// `AGENTD_WORKER_TOKEN` as it is.
    pub token: Text<'a>,
    /// Name and version of what speaks for the worker: `python/0.1.0`.
    pub sdk: Option<Text<'a>>,
    /// The process that the work is done in.
    pub pid: Option<u32>,
    /// What it can: `checkpoint`, `drain`, `kv`, `refresh`. Others are skipped.
    #[serde(default)]
    pub caps: Vec<Text<'a>>,
    /// How many tasks it takes at once by `task.run`; 0, the default, for none.
    #[serde(default)]
    pub max_tasks: u32,
}

/// Fields of `refreshed`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Refreshed<'a> {
    /// The number that `refresh` came with.
    pub refresh: u64,
    /// Whether it is done.
    pub ok: bool,
    /// Why not.
    #[serde(borrow)]
    pub error: Option<Text<'a>>,
}

/// Fields of `task.begin`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Begin<'a> {
    /// Its id, to 128 bytes: unlike any other's, drawn by the worker, so that the request can be sent twice. Best one that
    /// begins with the time (UUIDv7). Drawn by the daemon when there is none.
    #[serde(borrow)]
    pub task: Option<Text<'a>>,
    /// What makes it the same work as another: a second one with this key is answered `dup`.
    pub key: Option<Text<'a>>,
    /// What sort of work it is; tasks of a kind take alike long.
    pub kind: Option<Text<'a>>,
    /// The conversation that it belongs to.
    pub session: Option<Text<'a>>,
    /// What it takes to do it from the start elsewhere, any JSON. A task with neither input nor checkpoint is lost with
    /// its worker.
    #[schemars(with = "Option<serde_json::Value>")]
    pub input: Option<&'a RawValue>,
    /// W3C trace context that it belongs to.
    pub traceparent: Option<Text<'a>>,
}

/// A value that is there, be it `null`.
fn present<'a, 'de: 'a, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&'de RawValue>::deserialize(deserializer).map(Some)
}

/// Fields of `ckpt`. Exactly one of `data` and `json`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Ckpt<'a> {
    /// Which task.
    #[serde(borrow)]
    pub task: Text<'a>,
    /// Its fence, as it was given.
    pub fence: u64,
    /// Number of the step that is done; a second one of a step takes the place of the first.
    pub step: u64,
    /// The state: bytes in base64.
    pub data: Option<Text<'a>>,
    /// The state: any JSON.
    #[serde(default, borrow, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<serde_json::Value>")]
    pub json: Option<&'a RawValue>,
    /// Whether the task may be handed over here. True when not said.
    #[serde(default = "yes")]
    pub safe: bool,
    /// Version of the state's form, rising: a release is taken to read its own and older ones.
    pub state_version: Option<u32>,
}

const fn yes() -> bool {
    true
}

/// Fields of `effect.begin`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct EffectBegin<'a> {
    /// Which task.
    #[serde(borrow)]
    pub task: Text<'a>,
    /// Its fence.
    pub fence: u64,
    /// The effect's name within the task, the same at every attempt: `7:mail`.
    pub key: Text<'a>,
    /// What sort of effect: what is done about one that was begun and never ended depends on it.
    pub kind: Text<'a>,
    /// For people.
    pub desc: Option<Text<'a>>,
    /// How it could be undone, any JSON. Only ever run when a person says so.
    #[schemars(with = "Option<serde_json::Value>")]
    pub compensate: Option<&'a RawValue>,
}

/// Fields of `effect.end`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct EffectEnd<'a> {
    /// Which task.
    #[serde(borrow)]
    pub task: Text<'a>,
    /// Its fence.
    pub fence: u64,
    /// As it was begun.
    pub key: Text<'a>,
    /// Whether it was done. One that was not may be begun again.
    pub ok: bool,
    /// What it gave, any JSON; given to whoever begins it again.
    #[schemars(with = "Option<serde_json::Value>")]
    pub result: Option<&'a RawValue>,
    /// What went wrong, any JSON.
    #[schemars(with = "Option<serde_json::Value>")]
    pub error: Option<&'a RawValue>,
}

/// How a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// As it should.
    Ok,
    /// It failed, and is not to be tried again.
    Error,
    /// Somebody did not want it any more.
    Cancelled,
}

/// Fields of `task.end`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct End<'a> {
    /// Which task.
    #[serde(borrow)]
    pub task: Text<'a>,
    /// Its fence.
    pub fence: u64,
    /// How.
    pub outcome: Outcome,
    /// What it gave, any JSON; given to whoever begins a task with its key.
    #[schemars(with = "Option<serde_json::Value>")]
    pub result: Option<&'a RawValue>,
    /// What went wrong, any JSON.
    #[schemars(with = "Option<serde_json::Value>")]
    pub error: Option<&'a RawValue>,
    /// Tokens read by models.
    pub tokens_in: Option<u64>,
    /// Tokens written by models.
    pub tokens_out: Option<u64>,
    /// What it cost, in US dollars.
    pub cost_usd: Option<f64>,
    /// Calls of tools.
    pub tool_calls: Option<u64>,
    /// Steps taken.
    pub steps: Option<u64>,
    /// Tokens of context at the end.
    pub ctx_used: Option<u64>,
    /// Tokens of context that there is room for.
    pub ctx_max: Option<u64>,
    /// How good the result is, from 0 to 1, where something judges it.
    pub quality: Option<f64>,
    /// Time to the first token, in ms.
    pub ttft_ms: Option<u64>,
}

/// Fields of `task.yield`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Yield<'a> {
    /// Which task.
    #[serde(borrow)]
    pub task: Text<'a>,
    /// Its fence.
    pub fence: u64,
    /// The step after which it can be gone on with: that of its last checkpoint.
    #[serde(default)]
    pub step: u64,
    /// Why.
    pub reason: Option<Text<'a>>,
}

/// Fields of `beat`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Beat<'a> {
    /// What the worker has in hand. Each prolongs its lease. One that is another's by now is answered by `fenced`.
    #[serde(borrow)]
    pub tasks: Vec<BeatTask<'a>>,
}

/// A task that lives.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct BeatTask<'a> {
    /// Which.
    #[serde(borrow)]
    pub task: Text<'a>,
    /// Its fence.
    pub fence: u64,
    /// How far it is, for people: a few words, or a number from 0 to 1.
    #[schemars(with = "Option<serde_json::Value>")]
    pub progress: Option<&'a RawValue>,
}

/// An item to write. Exactly one of `data` and `json`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct KvItem<'a> {
    /// Its key, in the order of whose bytes items are scanned.
    #[serde(borrow)]
    pub key: Text<'a>,
    /// The value: bytes in base64.
    pub data: Option<Text<'a>>,
    /// The value: any JSON.
    #[serde(default, borrow, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<serde_json::Value>")]
    pub json: Option<&'a RawValue>,
    /// Not when there is another value under this key already.
    #[serde(default)]
    pub if_absent: bool,
}

/// Fields of `kv.put`: all items are written, or none.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct KvPut<'a> {
    /// Namespace, of the app's own.
    #[serde(borrow)]
    pub ns: Text<'a>,
    /// What to write.
    pub items: Vec<KvItem<'a>>,
    /// On behalf of this task: refused when it is another's by now.
    pub task: Option<Text<'a>>,
    /// Its fence; needed with `task`.
    pub fence: Option<u64>,
}

/// Fields of `kv.get`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct KvGet<'a> {
    /// Namespace.
    #[serde(borrow)]
    pub ns: Text<'a>,
    /// Which.
    pub key: Text<'a>,
}

/// Fields of `kv.scan`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct KvScan<'a> {
    /// Namespace.
    #[serde(borrow)]
    pub ns: Text<'a>,
    /// What keys begin with; empty for all.
    #[serde(default)]
    pub prefix: Text<'a>,
    /// Only keys after this one (before it, when `reverse`): the last of the page before.
    pub after: Option<Text<'a>>,
    /// At most so many; 100 when not said, 1000 at most. A page may hold fewer: it is sent when it has 1 MiB.
    pub limit: Option<u32>,
    /// The last key first.
    #[serde(default)]
    pub reverse: bool,
    /// Keys without values.
    #[serde(default)]
    pub keys_only: bool,
}

/// Fields of `kv.del`. Exactly one of `key` and `prefix`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct KvDel<'a> {
    /// Namespace.
    #[serde(borrow)]
    pub ns: Text<'a>,
    /// This one.
    pub key: Option<Text<'a>>,
    /// All whose keys begin so; empty for all of the namespace.
    pub prefix: Option<Text<'a>>,
    /// On behalf of this task: refused when it is another's by now.
    pub task: Option<Text<'a>>,
    /// Its fence; needed with `task`.
    pub fence: Option<u64>,
}

impl<'a> Request<'a> {
    /// Every `t` of this version.
    pub const TYPES: [&'static str; 14] = [
        "hello",
        "ready",
        "task.begin",
        "ckpt",
        "effect.begin",
        "effect.end",
        "task.end",
        "task.yield",
        "beat",
        "refreshed",
        "kv.put",
        "kv.get",
        "kv.scan",
        "kv.del",
    ];

    /// The line, without its end.
    ///
    /// # Panics
    /// Never: every field can be written as JSON.
    #[must_use]
    pub fn encode(&self, n: Option<u64>) -> String {
        #[derive(Serialize)]
        struct Numbered<'r, 'a> {
            #[serde(flatten)]
            request: &'r Request<'a>,
            #[serde(skip_serializing_if = "Option::is_none")]
            n: Option<u64>,
        }
        serde_json::to_string(&Numbered { request: self, n }).expect("every field can be written as JSON")
    }

    fn read(t: &str, line: &'a [u8]) -> Result<Option<Self>, serde_json::Error> {
        let read = match t {
            "hello" => Self::Hello(serde_json::from_slice(line)?),
            "ready" => Self::Ready,
            "task.begin" => Self::Begin(serde_json::from_slice(line)?),
            "ckpt" => Self::Ckpt(serde_json::from_slice(line)?),
            "effect.begin" => Self::EffectBegin(serde_json::from_slice(line)?),
            "effect.end" => Self::EffectEnd(serde_json::from_slice(line)?),
            "task.end" => Self::End(serde_json::from_slice(line)?),
            "task.yield" => Self::Yield(serde_json::from_slice(line)?),
            "beat" => Self::Beat(serde_json::from_slice(line)?),
            "refreshed" => Self::Refreshed(serde_json::from_slice(line)?),
            "kv.put" => Self::KvPut(serde_json::from_slice(line)?),
            "kv.get" => Self::KvGet(serde_json::from_slice(line)?),
            "kv.scan" => Self::KvScan(serde_json::from_slice(line)?),
            "kv.del" => Self::KvDel(serde_json::from_slice(line)?),
            _ => return Ok(None),
        };
        Ok(Some(read))
    }

    /// The first field that is beyond its bound, with the bound in bytes.
    fn beyond(&self) -> Option<(&'static str, usize)> {
        type Field<'f> = (&'static str, Option<&'f Text<'f>>, usize);
        let first = |fields: &[Field<'_>]| {
            let long = |(_, text, max): &&Field<'_>| text.is_some_and(|text| text.len() > *max);
            fields.iter().find(long).map(|(name, _, max)| (*name, *max))
        };
        match self {
            Self::Hello(f) => first(&[("sdk", f.sdk.as_ref(), KEY_MAX), ("token", Some(&f.token), KEY_MAX)]),
            Self::Ready => None,
            Self::Begin(f) => first(&[
                ("task", f.task.as_ref(), TASK_MAX),
                ("key", f.key.as_ref(), KEY_MAX),
                ("kind", f.kind.as_ref(), KIND_MAX),
                ("session", f.session.as_ref(), KEY_MAX),
                ("traceparent", f.traceparent.as_ref(), KEY_MAX),
            ]),
            Self::Ckpt(f) => first(&[("task", Some(&f.task), TASK_MAX)]),
            Self::EffectBegin(f) => first(&[
                ("key", Some(&f.key), KEY_MAX),
                ("kind", Some(&f.kind), KIND_MAX),
                ("desc", f.desc.as_ref(), WORDS_MAX),
            ])
            .or_else(|| f.compensate.filter(|how| how.get().len() > WORDS_MAX).map(|_| ("compensate", WORDS_MAX))),
            Self::EffectEnd(f) => first(&[("key", Some(&f.key), KEY_MAX)]),
            Self::End(_) => None,
            Self::Yield(f) => first(&[("reason", f.reason.as_ref(), WORDS_MAX)]),
            Self::Beat(_) => None,
            Self::Refreshed(f) => first(&[("error", f.error.as_ref(), WORDS_MAX)]),
            Self::KvPut(f) => {
                let key = f.items.iter().map(|item| ("items.key", Some(&item.key), KEY_MAX));
                let all: Vec<_> = key.chain([("ns", Some(&f.ns), KEY_MAX)]).collect();
                first(&all)
            }
            Self::KvGet(f) => first(&[("ns", Some(&f.ns), KEY_MAX), ("key", Some(&f.key), KEY_MAX)]),
            Self::KvScan(f) => first(&[("ns", Some(&f.ns), KEY_MAX), ("prefix", Some(&f.prefix), KEY_MAX)]),
            Self::KvDel(f) => first(&[("ns", Some(&f.ns), KEY_MAX), ("key", f.key.as_ref(), KEY_MAX)]),
        }
    }
}

impl<'a> Line<'a> {
    /// Reads a line.
    ///
    /// # Errors
    /// What to answer, when it is no request of this version, or has a field beyond its bound.
    pub fn decode(line: &'a [u8]) -> Result<Self, Box<Rejected>> {
        #[derive(Deserialize)]
        struct Head<'a> {
            #[serde(borrow)]
            t: Text<'a>,
            n: Option<u64>,
        }
        let reject = |n, code, msg| Box::new(Rejected { n, code, msg });
        let head: Head<'_> = serde_json::from_slice(line)
            .map_err(|error| reject(None, Code::Malformed, format!("the line is no message: {error}")))?;
        let request = match Request::read(&head.t, line) {
            Ok(Some(request)) => request,
            Ok(None) => {
                let msg = format!("no message has the type {:.64?}", &*head.t);
                return Err(reject(head.n, Code::Malformed, msg));
            }
            Err(error) => return Err(reject(head.n, Code::Malformed, format!("{}: {error}", head.t))),
        };
        match request.beyond() {
            None => Ok(Self { n: head.n, request }),
            Some((field, max)) => {
                Err(reject(head.n, Code::TooLarge, format!("{}: {field} is longer than {max} bytes", head.t)))
            }
        }
    }
}
