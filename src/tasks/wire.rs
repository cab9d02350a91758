//! Between the wire and core: a request becomes a message, an answer or a word a line. No payload passes: those stay
//! borrowed from their line until they are written down.

use std::hash::{DefaultHasher, Hash, Hasher};

use agentd_core::task::{
    Begin, EffectKey, Ending, Fence, Input, Key, Kind, Message, NameError, Own, Refused, Session, TaskId,
};
use agentd_protocol::worker::{self, Code, DrainReason, Outcome, Request, Text};

/// A refusal: its code and why.
pub(super) type Refusal = (Code, String);

/// What a request says of tasks; none where it says nothing.
///
/// # Errors
/// What to answer, when a name in it is none.
pub(super) fn message(request: &Request<'_>) -> Result<Option<Message>, Refusal> {
    let message = match request {
        Request::Hello(hello) => Message::Hello { max_tasks: hello.max_tasks },
        Request::Ready => Message::Ready,
        Request::Begin(begin) => Message::Begin(Begin {
            task: name(begin.task.as_ref(), TaskId::new)?,
            key: name(begin.key.as_ref(), Key::new)?,
            kind: name(begin.kind.as_ref(), Kind::new)?,
            session: name(begin.session.as_ref(), Session::new)?,
            input: if begin.input.is_some() { Input::Kept } else { Input::Absent },
        }),
        Request::Ckpt(ckpt) => Message::Checkpoint {
            own: own(&ckpt.task, ckpt.fence)?,
            step: step(ckpt.step)?,
            safe: ckpt.safe,
            state_version: ckpt.state_version,
        },
        Request::EffectBegin(effect) => Message::EffectBegin {
            own: own(&effect.task, effect.fence)?,
            key: EffectKey::new(&effect.key).map_err(wrong)?,
            kind: Kind::new(&effect.kind).map_err(wrong)?,
        },
        Request::EffectEnd(effect) => Message::EffectEnd {
            own: own(&effect.task, effect.fence)?,
            key: EffectKey::new(&effect.key).map_err(wrong)?,
            ok: effect.ok,
        },
        Request::End(end) => Message::End { own: own(&end.task, end.fence)?, outcome: ending(end.outcome) },
        Request::Yield(given) => Message::Yield { own: own(&given.task, given.fence)? },
        Request::Beat(beat) => {
            let tasks = beat.tasks.iter().map(|at| {
                let progress = at.progress.map(|progress| {
                    let mut hash = DefaultHasher::new();
                    progress.get().hash(&mut hash);
                    hash.finish()
                });
                Ok((own(&at.task, at.fence)?, progress))
            });
            Message::Beat { tasks: tasks.collect::<Result<_, Refusal>>()? }
        }
        Request::KvPut(worker::KvPut { task, fence, .. }) | Request::KvDel(worker::KvDel { task, fence, .. }) => {
            match (task, fence) {
                (Some(task), Some(fence)) => Message::Guard { own: own(task, *fence)? },
                (None, None) => return Ok(None),
                (Some(_), None) | (None, Some(_)) => {
                    return Err((Code::Malformed, "task and fence come together".to_owned()));
                }
            }
        }
        Request::KvGet(_) | Request::KvScan(_) | Request::Refreshed(_) => return Ok(None),
    };
    Ok(Some(message))
}

/// A step is kept as a signed number, by whose order the last one is found.
fn step(step: u64) -> Result<u64, Refusal> {
    if i64::try_from(step).is_ok() {
        return Ok(step);
    }
    Err((Code::TooLarge, format!("ckpt: step is beyond {}", i64::MAX)))
}

fn own(task: &Text<'_>, fence: u64) -> Result<Own, Refusal> {
    Ok(Own { task: TaskId::new(task).map_err(wrong)?, fence: Fence(fence) })
}

fn name<T>(text: Option<&Text<'_>>, read: impl Fn(&str) -> Result<T, NameError>) -> Result<Option<T>, Refusal> {
    text.map(|text| read(text)).transpose().map_err(wrong)
}

pub(super) fn wrong(error: NameError) -> Refusal {
    let code = match error {
        NameError::TooLong { .. } => Code::TooLarge,
        NameError::Empty { .. } | NameError::Control { .. } => Code::Malformed,
    };
    (code, error.to_string())
}

fn ending(outcome: Outcome) -> Ending {
    match outcome {
        Outcome::Ok => Ending::Ok,
        Outcome::Error => Ending::Error,
        Outcome::Cancelled => Ending::Cancelled,
    }
}

/// The outcome that a stored word stands for, where a worker said it.
pub(super) fn outcome(word: &str) -> Option<Outcome> {
    match word {
        "ok" => Some(Outcome::Ok),
        "error" => Some(Outcome::Error),
        "cancelled" => Some(Outcome::Cancelled),
        _ => None,
    }
}

/// How core's refusal is said.
pub(super) fn refusal(refused: &Refused) -> Refusal {
    let code = match refused {
        Refused::UnknownWorker(_) => Code::Gone,
        Refused::NoHello => Code::Hello,
        Refused::UnknownTask(_) => Code::UnknownTask,
        Refused::Fenced { .. } => Code::Fenced,
        Refused::Ended { .. } => Code::Finished,
        Refused::Taken(_)
        | Refused::StepBack { .. }
        | Refused::NotResumable(_)
        | Refused::Unread(_)
        | Refused::EffectsOpen { .. } => Code::Conflict,
        Refused::TooMany { .. } => Code::Flood,
        Refused::UnknownEffect { .. } => Code::UnknownEffect,
    };
    (code, refused.to_string())
}

/// The words for why a worker drains, as an order carries them.
pub(super) const DRAIN_REASONS: [(&str, DrainReason); 4] = [
    ("reload", DrainReason::Reload),
    ("rollback", DrainReason::Rollback),
    ("stop", DrainReason::Stop),
    ("scale down", DrainReason::ScaleDown),
];

/// Why a worker drains, on the wire.
pub(super) fn drain_reason(word: &str) -> DrainReason {
    DRAIN_REASONS.iter().find(|(known, _)| *known == word).map_or(DrainReason::Stop, |(_, reason)| *reason)
}
