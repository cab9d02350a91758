//! Waiting for what the daemon was asked to do.
//!
//! The happy path: every call is sent at once, their notices are shown as they come, their answers are collected.
//! The unhappy ones: `--timeout` or Ctrl-C end the waiting and nothing else, for the daemon goes on without us; a
//! refused call does not keep the others from their end; a daemon that goes away ends the command with what is known.

use std::time::Instant;

use agentd_protocol::Timestamp;
use agentd_protocol::control::{
    Changed, EffectsParams, ErrorObject, Notice, OperationKind, OperationResult, OperationState, OperationView, Request,
};
use serde_json::Value;

use super::Context;
use crate::args::WaitArgs;
use crate::client::{self, ANSWER_WITHIN, Client, ClientError, Heard};
use crate::exit::{Failure, tell_refusal};
use crate::line::Interrupt;
use crate::render::{self, operation, progress::Progress};

/// How one call ended.
pub(crate) type Answer = Result<Value, Box<ErrorObject>>;

/// What ended the waiting.
enum End {
    /// Every call was answered.
    Answered,
    /// The deadline passed; with what was admitted by then.
    Elapsed(Vec<OperationView>),
    /// Ctrl-C; with what was admitted by then.
    Interrupted(Vec<OperationView>),
    /// The daemon is gone; with what was admitted by then, which is something.
    Orphaned(Vec<OperationView>),
}

/// A call on its way.
struct Pending {
    call: u64,
    answer: Option<Answer>,
}

/// Sends `requests` and waits as `wait` says; the answers are in their order.
///
/// # Errors
/// [`Failure::TimedOut`], [`Failure::Detached`], or a conversation that broke.
pub(crate) fn answers(context: &Context, requests: Vec<Request>, wait: WaitArgs) -> Result<Vec<Answer>, Failure> {
    let mut client = Client::connect(&context.home)?;
    if !wait.no_wait {
        client.interrupted_by(Interrupt::hold().map_err(Failure::Interrupt)?);
    }
    let within = if wait.no_wait { Some(ANSWER_WITHIN) } else { wait.timeout };
    let deadline = within.map(|within| Instant::now() + within);
    let mut pending = Vec::new();
    for request in requests {
        pending.push(Pending { call: client.send(request)?, answer: None });
    }
    let mut progress = Progress::on_stderr();
    let end = collect(&mut client, &mut pending, deadline, &mut progress);
    progress.end();
    match end? {
        End::Answered => Ok(pending.into_iter().filter_map(|pending| pending.answer).collect()),
        End::Elapsed(_) if wait.no_wait => Err(ClientError::Silent.into()),
        End::Elapsed(operations) => Err(Failure::TimedOut { operations }),
        End::Interrupted(operations) => Err(Failure::Detached { operations }),
        End::Orphaned(operations) => Err(Failure::Orphaned { operations }),
    }
}

fn collect(
    client: &mut Client,
    pending: &mut [Pending],
    deadline: Option<Instant>,
    progress: &mut Progress,
) -> Result<End, ClientError> {
    let mut operations = Vec::new();
    while pending.iter().any(|pending| pending.answer.is_none()) {
        let redraw = progress.redraw_every().map(|every| Instant::now() + every);
        let heard = match client.next(deadline.into_iter().chain(redraw).min()) {
            Err(ClientError::Closed)
                if !operations.is_empty() && pending.iter().all(|pending| pending.answer.is_none()) =>
            {
                return Ok(End::Orphaned(operations));
            }
            heard => heard?,
        };
        match heard {
            Heard::Answer(of, result) => {
                if let Some(pending) = pending.iter_mut().find(|pending| pending.call == of) {
                    pending.answer = Some(result);
                }
            }
            Heard::Notice(Notice::Accepted(accepted)) => {
                // One that had to be prepared first is told of twice.
                let known = |view: &OperationView| operations.iter().any(|own: &OperationView| own.id == view.id);
                let new: Vec<OperationView> = accepted.operations.into_iter().filter(|view| !known(view)).collect();
                progress.accepted(&new);
                operations.extend(new);
            }
            Heard::Notice(Notice::Progress(changed)) => progress.app(changed.app),
            Heard::Notice(Notice::Event(event)) => progress.event(&event),
            Heard::Notice(Notice::Log(_)) | Heard::Nothing => {}
            Heard::Interrupted => return Ok(End::Interrupted(operations)),
            Heard::Elapsed => progress.tick(),
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Ok(End::Elapsed(operations));
        }
    }
    Ok(End::Answered)
}

/// Sends requests that change apps, waits, and shows what came of them.
///
/// # Errors
/// As [`answers`]; a refusal that leaves nothing done is [`ClientError::Refused`].
pub(crate) fn change(context: &Context, requests: Vec<Request>, wait: WaitArgs) -> Result<u8, Failure> {
    let method = requests.first().map_or("start", Request::method);
    let mut whole = Changed::default();
    let mut refused = Vec::new();
    for answer in answers(context, requests, wait)? {
        match answer {
            Ok(value) => {
                let changed: Changed = client::read(method, value)?;
                whole.operations.extend(changed.operations);
                whole.results.extend(changed.results);
            }
            Err(error) => refused.push(error),
        }
    }
    if refused.len() == 1 && whole.operations.is_empty() {
        return Err(ClientError::Refused(refused.remove(0)).into());
    }
    refused.iter().for_each(|error| tell_refusal(error));
    match show(context, &whole, &refused) {
        // Nobody reads what became of it; the exit code still says so.
        Err(failure) if failure.is_quiet() => {}
        shown => shown?,
    }
    if !context.json {
        tell_effects(context, &whole);
    }
    Ok(refused.first().map_or(whole.exit_code(), |error| error.exit_code()))
}

/// What versions that were taken back did to the outside: a rollback does not undo it.
fn tell_effects(context: &Context, whole: &Changed) {
    let taken_back =
        |result: &&OperationResult| result.kind == OperationKind::Upgrade && result.state == OperationState::RolledBack;
    for result in whole.results.iter().filter(taken_back) {
        let params =
            EffectsParams { names: vec![result.app.clone()], release: result.to.clone(), ..EffectsParams::default() };
        // Without an answer there is still `agentctl effects`: the result itself was told.
        let asked = Client::connect(&context.home).ok().and_then(|mut client| client.call(params).ok());
        if let Some(list) = asked.filter(|list| !list.effects.is_empty()) {
            render::note("effects of the version that was taken back, which the rollback does not undo:");
            render::note(render::effects::table(&list, Timestamp::now(), render::width()).trim_end());
        }
    }
}

/// What was done goes to stdout, what was not to stderr; under `--json` all of it is one document on stdout.
fn show(context: &Context, whole: &Changed, refused: &[Box<ErrorObject>]) -> Result<(), Failure> {
    for result in whole.results.iter().filter(|result| result.state != OperationState::Done) {
        render::note(operation::result(result).trim_end());
    }
    if context.json {
        let mut document = serde_json::json!(whole);
        if !refused.is_empty() {
            document["errors"] = serde_json::json!(refused);
        }
        return render::json(&document);
    }
    let mut text = String::new();
    for result in whole.results.iter().filter(|result| result.state == OperationState::Done) {
        text.push_str(&operation::result(result));
    }
    if whole.results.is_empty() {
        text.extend(whole.operations.iter().map(operation::accepted));
    }
    if whole.operations.is_empty() && whole.results.is_empty() && refused.is_empty() {
        text.push_str("nothing to do\n");
    }
    render::print(&text)
}
