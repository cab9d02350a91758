//! A task: its checkpoints, its effects and its end.
//!
//! ```text
//! begin ──► running ──► ended        the end of the closure (outcome ok, error or cancelled)
//!                   ├─► yielded      `save` while the worker drains: `Error::Drained`
//!                   └─► parked       an effect of which nobody knows whether it was done: `Error::Indeterminate`
//! ```

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use crate::Error;
use crate::worker::Shared;

/// What is said of a task when it begins.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// What sort of work it is: tasks of one kind take alike long.
    pub kind: Option<String>,
    /// What conversation it belongs to.
    pub session: Option<String>,
    /// An idempotency key: the task is done once.
    pub key: Option<String>,
    /// What it takes to do it from its start, elsewhere too.
    pub input: Option<Value>,
    /// W3C trace context.
    pub traceparent: Option<String>,
}

/// Where a task goes on.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// Its number; never goes back.
    pub step: u64,
    /// What was saved; null where it was bytes.
    pub state: Value,
    /// What was saved as bytes.
    pub bytes: Option<Vec<u8>>,
    /// The version of the state's form.
    pub state_version: Option<u32>,
}

/// What others say to a task while it runs.
#[derive(Debug, Default)]
pub(crate) struct Signs {
    pub(crate) cancelled: OnceLock<String>,
    pub(crate) checkpoint_wanted: AtomicBool,
}

/// How far a task is, as in the diagram above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    Left,
}

/// What agentd said when an effect was to begin.
pub(crate) enum Begun {
    /// It was done before, or is not to be: its result.
    Over(Value),
    /// It is to be run.
    Run { idempotency_key: String },
}

/// A task in hand.
#[derive(Debug)]
pub struct Task {
    shared: Arc<Shared>,
    /// Its id.
    pub id: String,
    /// What it was begun with.
    pub options: Options,
    /// How often it changed hands.
    pub fence: u64,
    /// 1 for the first worker that has it.
    pub attempt: u64,
    /// Where it goes on, when it was another's before.
    pub checkpoint: Option<Checkpoint>,
    signs: Arc<Signs>,
    step: Mutex<u64>,
    phase: Mutex<Phase>,
    figures: Mutex<Value>,
}

impl Task {
    pub(crate) fn begin(shared: &Arc<Shared>, options: Options) -> Result<Self, Error> {
        let mut body = json!({ "t": "task.begin", "task": new_id() });
        let texts = [
            ("kind", &options.kind),
            ("session", &options.session),
            ("key", &options.key),
            ("traceparent", &options.traceparent),
        ];
        for (name, text) in texts {
            if let Some(text) = text {
                body[name] = json!(text);
            }
        }
        if let Some(input) = &options.input {
            body["input"] = input.clone();
        }
        let signs = Arc::<Signs>::default();
        let (holder, held) = (Arc::clone(shared), Arc::clone(&signs));
        // Where it is read, since a `cancel` may stand right behind the answer.
        let heard = move |answer: &Value| {
            if let (None, Some(task), Some(fence)) =
                (answer["dup"].as_str(), answer["task"].as_str(), answer["fence"].as_u64())
            {
                holder.hold(task, fence, &held);
            }
        };
        let answer = shared.ask_hearing(body, None, Some(Box::new(heard)))?;
        if let Some(dup) = answer["dup"].as_str() {
            return Err(Error::Duplicate {
                state: dup.into(),
                outcome: answer["outcome"].as_str().map(Into::into),
                result: answer["result"].clone(),
            });
        }
        Self::take(shared, &answer, options, signs)
    }

    /// A task as agentd says that it is ours.
    pub(crate) fn take(shared: &Arc<Shared>, said: &Value, options: Options, signs: Arc<Signs>) -> Result<Self, Error> {
        let checkpoint = said.get("ckpt").filter(|ckpt| !ckpt.is_null()).map(|ckpt| Checkpoint {
            step: ckpt["step"].as_u64().unwrap_or_default(),
            state: ckpt["json"].clone(),
            bytes: ckpt["data"].as_str().and_then(|data| BASE64.decode(data).ok()),
            state_version: ckpt["state_version"].as_u64().and_then(|version| version.try_into().ok()),
        });
        let task = Self {
            shared: Arc::clone(shared),
            id: said["task"].as_str().ok_or(Error::Answer("task"))?.into(),
            options,
            fence: said["fence"].as_u64().ok_or(Error::Answer("fence"))?,
            attempt: said["attempt"].as_u64().unwrap_or(1),
            step: Mutex::new(checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.step)),
            checkpoint,
            signs,
            phase: Mutex::new(Phase::Running),
            figures: Mutex::new(json!({})),
        };
        task.shared.hold(&task.id, task.fence, &task.signs);
        Ok(task)
    }

    /// Whether the next [`save`](Self::save) hands the task over.
    #[must_use]
    pub fn should_yield(&self) -> bool {
        self.shared.is_draining()
    }

    /// Whether agentd asked for a checkpoint since the last one.
    #[must_use]
    pub fn checkpoint_wanted(&self) -> bool {
        self.signs.checkpoint_wanted.load(Ordering::Relaxed)
    }

    /// Whether it was cancelled: its next step is [`Error::Cancelled`].
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.signs.cancelled.get().is_some()
    }

    /// Keeps a checkpoint; returns when it is durable. It is a place to hand the task over at: [`Error::Drained`] when
    /// the worker is being replaced.
    pub fn save(&self, step: u64, state: &Value) -> Result<(), Error> {
        self.keep(step, json!({ "json": state, "safe": true }))
    }

    /// As [`save`](Self::save), with bytes.
    pub fn save_bytes(&self, step: u64, state: &[u8]) -> Result<(), Error> {
        self.keep(step, json!({ "data": BASE64.encode(state), "safe": true }))
    }

    /// Keeps a checkpoint for a crash only: it is no place to hand over at.
    pub fn save_unsafe(&self, step: u64, state: &Value) -> Result<(), Error> {
        self.keep(step, json!({ "json": state, "safe": false }))
    }

    fn keep(&self, step: u64, mut fields: Value) -> Result<(), Error> {
        self.look()?;
        let is_safe = fields["safe"] == true;
        fields["step"] = json!(step);
        self.ask("ckpt", fields, false)?;
        *self.step.lock().unwrap_or_else(PoisonError::into_inner) = step;
        self.signs.checkpoint_wanted.store(false, Ordering::Relaxed);
        if is_safe && self.shared.is_draining() { self.hand_over("drain") } else { Ok(()) }
    }

    /// Hands the task over from its last checkpoint: [`Error::Drained`], unless nobody could go on from here.
    pub fn hand_over(&self, reason: &str) -> Result<(), Error> {
        let step = *self.step.lock().unwrap_or_else(PoisonError::into_inner);
        match self.ask("task.yield", json!({ "step": step, "reason": reason }), true) {
            Ok(_) => {
                self.leave();
                Err(Error::Drained(reason.into()))
            }
            Err(error) if error.is_conflict() => {
                self.shared.hold(&self.id, self.fence, &self.signs);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Runs `run` with an idempotency key, once for this `key` of the task; gives its result every time.
    pub fn effect(
        &self,
        kind: &str,
        key: &str,
        run: impl FnOnce(&str) -> Result<Value, Error>,
    ) -> Result<Value, Error> {
        match self.begin_effect(kind, key)? {
            Begun::Over(result) => Ok(result),
            Begun::Run { idempotency_key } => self.end_effect(key, run(&idempotency_key)),
        }
    }

    /// Whether an effect is to be run.
    pub(crate) fn begin_effect(&self, kind: &str, key: &str) -> Result<Begun, Error> {
        self.look()?;
        let answer = self.ask("effect.begin", json!({ "key": key, "kind": kind }), false)?;
        match (answer["state"].as_str(), answer["policy"].as_str()) {
            (Some("done"), _) => Ok(Begun::Over(answer["result"].clone())),
            (Some("intent"), Some("skip")) => Ok(Begun::Over(Value::Null)),
            (Some("new"), _) | (Some("intent"), Some("retry")) => {
                let idempotency_key = answer["key"].as_str().ok_or(Error::Answer("key"))?.into();
                Ok(Begun::Run { idempotency_key })
            }
            (Some(_) | None, _) => {
                self.leave();
                Err(Error::Indeterminate { task: self.id.clone(), key: key.into() })
            }
        }
    }

    /// Tells what an effect gave, and gives it.
    pub(crate) fn end_effect(&self, key: &str, ran: Result<Value, Error>) -> Result<Value, Error> {
        let end = match &ran {
            Ok(result) => json!({ "key": key, "ok": true, "result": result }),
            Err(error) => json!({ "key": key, "ok": false, "error": error.to_string() }),
        };
        self.ask("effect.end", end, false)?;
        ran
    }

    /// Figures to be told at the end: `tokens_in`, `tokens_out`, `cost_usd`, `tool_calls`, `steps`, …
    pub fn figures(&self, figures: Value) {
        *self.figures.lock().unwrap_or_else(PoisonError::into_inner) = figures;
    }

    /// Ends the task as its work ended, when it is still ours, and hands the work's result on.
    pub(crate) fn end(&self, worked: Result<Value, Error>) -> Result<Value, Error> {
        if *self.phase.lock().unwrap_or_else(PoisonError::into_inner) == Phase::Running {
            let mut fields = self.figures.lock().unwrap_or_else(PoisonError::into_inner).clone();
            match &worked {
                Ok(result) => (fields["outcome"], fields["result"]) = (json!("ok"), result.clone()),
                Err(error) => {
                    let outcome = if matches!(error, Error::Cancelled(_)) { "cancelled" } else { "error" };
                    (fields["outcome"], fields["error"]) = (json!(outcome), json!(error.to_string()));
                }
            }
            self.ask("task.end", fields, true)?;
            self.leave();
        }
        worked
    }

    fn ask(&self, t: &str, mut fields: Value, is_last: bool) -> Result<Value, Error> {
        (fields["t"], fields["task"], fields["fence"]) = (json!(t), json!(self.id), json!(self.fence));
        self.shared.ask(fields, is_last.then_some(&self.id))
    }

    fn look(&self) -> Result<(), Error> {
        self.signs.cancelled.get().map_or(Ok(()), |reason| Err(Error::Cancelled(reason.clone())))
    }

    fn leave(&self) {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = Phase::Left;
        self.shared.release(&self.id);
    }
}

/// A `UUIDv7`: those of one time are kept beside each other.
fn new_id() -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
    // Its keys are drawn by the operating system, and differ at every call.
    let [a, b] = [0_u8, 1].map(|half| RandomState::new().hash_one((half, std::process::id())));
    let (top, a, b) = (now & 0xffff_ffff_ffff, a & 0xfff, b & 0x3fff_ffff_ffff_ffff | 0x8000_0000_0000_0000);
    let h = format!("{top:012x}7{a:03x}{b:016x}");
    format!("{}-{}-{}-{}-{}", &h[..8], &h[8..12], &h[12..16], &h[16..20], &h[20..])
}
