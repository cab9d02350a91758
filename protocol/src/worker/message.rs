//! What a worker is told without having asked.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::text::Text;

/// What a worker is told; `t` names the variant. One that a worker does not know it skips.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(tag = "t")]
pub enum Message<'a> {
    /// Do this. Only sent to workers with `max_tasks`, and never while they drain.
    #[serde(rename = "task.run")]
    Run(Resumed<'a>),
    /// Take nothing new; finish, or yield at the next safe point.
    #[serde(rename = "drain")]
    Drain {
        /// When the stop signal comes, whatever is in hand by then, counted from now.
        deadline_ms: u64,
        /// Why.
        reason: DrainReason,
        /// What takes its place, where something does.
        #[serde(skip_serializing_if = "Option::is_none")]
        to_release: Option<Text<'a>>,
    },
    /// The drain is called off: it serves again.
    #[serde(rename = "undrain")]
    Undrain,
    /// Make a checkpoint as soon as one can be made.
    #[serde(rename = "ckpt.now")]
    CkptNow {
        /// Of which task.
        task: Text<'a>,
    },
    /// Stop this task, and end it as `cancelled`.
    #[serde(rename = "cancel")]
    Cancel {
        /// Which.
        task: Text<'a>,
        /// Why.
        reason: Text<'a>,
    },
    /// This task is another's by now. A worker that learns it this way was not heard for a lease: it ends, with exit
    /// code 75.
    #[serde(rename = "fenced")]
    Fenced {
        /// Which.
        task: Text<'a>,
    },
    /// Something that the worker was started with has changed: renew it, then say `refreshed`.
    #[serde(rename = "refresh")]
    Refresh {
        /// What.
        scope: Text<'a>,
        /// Its number, which `refreshed` names. It may be said twice, after a redial.
        refresh: u64,
    },
    /// Nothing was heard for long: answer with a `beat`.
    #[serde(rename = "ping")]
    Ping,
}

impl Message<'_> {
    /// Writes its line.
    ///
    /// # Panics
    /// Never: it can be written as JSON.
    pub fn write(&self, out: &mut Vec<u8>) {
        serde_json::to_writer(&mut *out, self).expect("a message can be written as JSON");
        out.push(b'\n');
    }
}

/// Why a worker drains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DrainReason {
    /// A new generation takes its place.
    Reload,
    /// Its deployment is taken back.
    Rollback,
    /// Its app is stopped.
    Stop,
    /// Fewer workers are wanted.
    ScaleDown,
    /// A reason newer than this reader.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

/// A task to do, or to go on with.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Resumed<'a> {
    /// Which.
    #[serde(borrow)]
    pub task: Text<'a>,
    /// Its fence from now on.
    pub fence: u64,
    /// As it was begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Text<'a>>,
    /// As it was begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<Text<'a>>,
    /// As it was begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<Text<'a>>,
    /// As it was begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<serde_json::Value>")]
    pub input: Option<&'a RawValue>,
    /// As it was begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<Text<'a>>,
    /// 1 for the first time that it is run, and one more with each.
    pub attempt: u32,
    /// Where to go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ckpt: Option<Snapshot<'a>>,
}

/// A checkpoint as it is given back. Exactly one of `data` and `json`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Snapshot<'a> {
    /// The step that was done.
    pub step: u64,
    /// The state: bytes in base64.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub data: Option<Text<'a>>,
    /// The state: any JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<serde_json::Value>")]
    pub json: Option<&'a RawValue>,
    /// Version of the state's form.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_version: Option<u32>,
}
