//! One event as one line: when, who, what.

use std::time::Duration;

use agentd_protocol::control::{OperationKind, OperationState};
use agentd_protocol::events::{Event, EventKind, TaskOutcome};
use agentd_protocol::status::{AppState, DeploymentState, ExitView, RefreshOutcome};
use anstyle::Style;

use super::bytes_time::{between, bytes, span};
use super::operation::tasks as tasks_became;
use super::state::{self, BAD, BUSY, FAINT, GOOD, WARN};
use super::worker::{exit, printable, reason};

/// The event with its time of day and number: `12:04:05.123Z  #17  support.0.3  ready after 812ms (http)`.
pub(crate) fn line(event: &Event) -> String {
    let time = event.at.strftime("%H:%M:%S%.3fZ");
    format!("{FAINT}{time}  #{}{FAINT:#}  {}", event.seq, sentence(event))
}

/// What stands for the numbers that a daemon had taken for events to come when it died: few of them were ever given.
pub(crate) fn after_a_death(from: u64, to: u64) -> String {
    format!(
        "{FAINT}-- the daemon before died: it had set numbers #{from} to #{to} aside; counting goes on behind them{FAINT:#}"
    )
}

/// The event without time and number: `support.0.3  ready after 812ms (http)`.
pub(crate) fn sentence(event: &Event) -> String {
    let who = event.worker.as_deref().or(event.app.as_deref()).unwrap_or("agentd");
    let style = style(&event.event);
    format!("{}{who}{:#}  {style}{}{style:#}", state::STRONG, state::STRONG, what(event))
}

fn ms(count: u64) -> String {
    span(Duration::from_millis(count))
}

fn because(why: Option<&str>) -> String {
    why.map(|why| format!(": {}", printable(why))).unwrap_or_default()
}

fn what(event: &Event) -> String {
    match &event.event {
        EventKind::DaemonStarted { version, pid, adopted } => {
            format!("daemon {version} started as {pid}, {adopted} workers adopted")
        }
        EventKind::DaemonStopping { why } => format!("daemon stops: {why}"),
        EventKind::AppAdded { kind: _, release } => format!("added with release {release}"),
        EventKind::AppDeleted => "deleted".to_owned(),
        EventKind::AppState { from, to, why } => {
            format!("{} → {}{}", state::app(*from).word, state::app(*to).word, because(why.as_deref()))
        }
        EventKind::AppScaled { from, to } => format!("scaled from {from} to {to}"),
        EventKind::ReleaseCutting { id } => format!("a release is being cut for {id}"),
        EventKind::ReleaseCut { release, origin, bytes: size } => {
            format!("release {release} was cut from {}, {}", printable(origin), bytes(*size))
        }
        EventKind::ReleaseFailed { id: _, why, log_tail: _ } => printable(why),
        EventKind::NotifyStatus { text } => printable(text),
        EventKind::ProbeFailed { probe, why, failures, allowed } => {
            format!("{probe} probe failed, {failures} of {allowed}{}", because(Some(why)))
        }
        EventKind::Weights { weights } => {
            let shares: Vec<_> = weights.iter().map(|(worker, share)| format!("{worker} {share}%")).collect();
            format!("new connections: {}", shares.join(", "))
        }
        EventKind::TaskBegun { task, kind } => {
            format!("task {task} begun{}", kind.as_ref().map(|kind| format!(" ({kind})")).unwrap_or_default())
        }
        EventKind::TaskEnded { task, outcome, duration_ms } => {
            format!("task {task} {} after {}", task_outcome(*outcome), ms(*duration_ms))
        }
        EventKind::ConfigRejected { file, why } => format!("configuration {file} rejected{}", because(Some(why))),
        EventKind::LogsDropping { file, why } => {
            format!("log lines are being dropped: {} ({})", printable(why), printable(file))
        }
        EventKind::LogsResumed { file, lines, bytes: size } => {
            format!("{lines} log lines were dropped ({}); {} takes lines again", bytes(*size), printable(file))
        }
        EventKind::HookFailed { on, command, why, output: _ } => {
            let program = command.first().map_or("", String::as_str);
            format!("hook for {} failed: {}: {}", printable(on), printable(program), printable(why))
        }
        EventKind::EventsLost { from, to } => format!("events {from} to {to} are no longer kept"),
        EventKind::Unknown => "an event that this agentctl does not know".to_owned(),
        EventKind::WorkerStarting { pid } => format!("starting as {pid}"),
        EventKind::WorkerReady { how, after_ms } => format!("ready after {} ({how})", ms(*after_ms)),
        EventKind::WorkerDraining { reason: why, deadline } => {
            format!("draining for {}, at most {}", reason(*why), span(between(event.at, *deadline)))
        }
        EventKind::WorkerDrainDeadline { deadline } => {
            format!("its tasks have {} at most", span(between(event.at, *deadline)))
        }
        EventKind::WorkerDrained { connections_cut: 0 } => "drained".to_owned(),
        EventKind::WorkerDrained { connections_cut } => format!("drained, {connections_cut} connections cut"),
        EventKind::WorkerStopping { signal } => format!("stopping by {signal}"),
        EventKind::WorkerOutgrown { why } => format!("{why}: another is to take its place"),
        EventKind::WorkerExited { code, signal, reason, uptime_ms, why } => {
            let view = ExitView { code: *code, signal: signal.clone(), reason: *reason, why: why.clone() };
            format!("exited after {}: {}", ms(*uptime_ms), exit(&view))
        }
        EventKind::WorkerRefreshed { outcome, why, took_ms } => {
            super::refresh::outcome(*outcome, why.as_deref(), *took_ms)
        }
        EventKind::WorkerRestarting { in_ms, attempt } => format!("restart {attempt} in {}", ms(*in_ms)),
        EventKind::WorkerFailed { why, log_tail: _ } => format!("failed{}", because(Some(why))),
        EventKind::DeploymentStarted { id, strategy, from, to, steps } => {
            let strategy = state::strategy(*strategy);
            format!("deployment {id} started: {strategy}, {from} → {to}, {steps} steps")
        }
        EventKind::DeploymentStep { id, state, step, steps, why, .. } => {
            let word = state::deployment(*state).word;
            format!("deployment {id} {word}, step {step} of {steps}{}", because(why.as_deref()))
        }
        EventKind::DeploymentJudged { id, verdict, why, gates } => {
            let word = super::deployment::verdict(*verdict);
            let shown: Vec<String> = gates.iter().filter_map(super::deployment::in_brief).collect();
            let shown = if shown.is_empty() { String::new() } else { format!(" [{}]", shown.join("; ")) };
            format!("deployment {id}, gates: {word}{}{shown}", because(why.as_deref()))
        }
        EventKind::DeploymentFinished { id, state, why, duration_ms, tasks } => {
            let word = state::deployment(*state).word;
            format!(
                "deployment {id} {word} after {}{}{}",
                ms(*duration_ms),
                tasks_became(tasks),
                because(why.as_deref())
            )
        }
        EventKind::OperationStarted { id, kind } => format!("operation {id} started: {}", operation(*kind)),
        EventKind::OperationFinished { id, kind, state, why, duration_ms } => {
            let (kind, word) = (operation(*kind), operation_state(*state));
            format!("operation {id} ({kind}) {word} after {}{}", ms(*duration_ms), because(why.as_deref()))
        }
    }
}

const fn task_outcome(outcome: TaskOutcome) -> &'static str {
    match outcome {
        TaskOutcome::Ok => "done",
        TaskOutcome::Error => "failed",
        TaskOutcome::Cancelled => "cancelled",
        TaskOutcome::Yielded => "handed over",
        TaskOutcome::Lost => "lost",
        TaskOutcome::Unknown => "ended",
    }
}

/// An operation's kind as a verb.
pub(crate) const fn operation(kind: OperationKind) -> &'static str {
    match kind {
        OperationKind::Start => "start",
        OperationKind::Stop => "stop",
        OperationKind::Restart => "restart",
        OperationKind::Delete => "delete",
        OperationKind::Scale => "scale",
        OperationKind::Reload => "reload",
        OperationKind::Upgrade => "upgrade",
        OperationKind::Rollback => "rollback",
        OperationKind::Adopt => "change in place",
        OperationKind::Refresh => "refresh",
        OperationKind::Unknown => "change",
    }
}

/// How an operation ended, as a word.
pub(crate) const fn operation_state(state: OperationState) -> &'static str {
    match state {
        OperationState::Done => "done",
        OperationState::RolledBack => "rolled back",
        OperationState::Aborted => "aborted",
        OperationState::Failed => "failed",
        OperationState::Unknown => "ended",
    }
}

/// The colour of an event: quiet unless it is good or bad news.
fn style(kind: &EventKind) -> Style {
    match kind {
        EventKind::AppState { to: AppState::Failed, .. }
        | EventKind::WorkerFailed { .. }
        | EventKind::ConfigRejected { .. }
        | EventKind::ReleaseFailed { .. }
        | EventKind::WorkerRefreshed { outcome: RefreshOutcome::Failed, .. }
        | EventKind::DeploymentFinished { state: DeploymentState::Failed | DeploymentState::RolledBack, .. }
        | EventKind::OperationFinished { state: OperationState::Failed | OperationState::RolledBack, .. } => BAD,
        EventKind::AppState { to: AppState::Degraded, .. }
        | EventKind::DaemonStopping { .. }
        | EventKind::WorkerRestarting { .. }
        | EventKind::ProbeFailed { .. }
        | EventKind::WorkerOutgrown { .. }
        | EventKind::LogsDropping { .. }
        | EventKind::LogsResumed { .. }
        | EventKind::HookFailed { .. }
        | EventKind::EventsLost { .. } => WARN,
        EventKind::AppState { to: AppState::Running, .. }
        | EventKind::WorkerReady { .. }
        | EventKind::WorkerRefreshed { .. }
        | EventKind::DaemonStarted { .. }
        | EventKind::DeploymentFinished { .. }
        | EventKind::OperationFinished { .. } => GOOD,
        EventKind::WorkerDrained { connections_cut } if *connections_cut > 0 => WARN,
        EventKind::WorkerStarting { .. }
        | EventKind::ReleaseCutting { .. }
        | EventKind::WorkerDraining { .. }
        | EventKind::WorkerDrainDeadline { .. }
        | EventKind::DeploymentStarted { .. }
        | EventKind::DeploymentStep { .. }
        | EventKind::DeploymentJudged { .. } => BUSY,
        EventKind::WorkerDrained { .. }
        | EventKind::WorkerStopping { .. }
        | EventKind::WorkerExited { .. }
        | EventKind::AppState { .. }
        | EventKind::AppAdded { .. }
        | EventKind::AppDeleted
        | EventKind::ReleaseCut { .. }
        | EventKind::AppScaled { .. }
        | EventKind::Weights { .. }
        | EventKind::OperationStarted { .. }
        | EventKind::NotifyStatus { .. }
        | EventKind::TaskBegun { .. }
        | EventKind::TaskEnded { .. }
        | EventKind::Unknown => Style::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::fixture::plain;
    use super::*;

    fn event(worker: Option<&str>, event: Value) -> Event {
        let whole =
            json!({ "seq": 7, "at": "2026-01-02T12:00:00.5Z", "app": "support", "worker": worker, "event": event });
        serde_json::from_value(whole).expect("a whole event")
    }

    #[test]
    fn an_event_reads_as_when_who_what() {
        let worker = Some("support.0.17");
        let shown: Vec<String> = [
            event(worker, json!({ "type": "worker_ready", "how": "http", "after_ms": 812 })),
            event(worker, json!({ "type": "worker_draining", "reason": "reload", "deadline": "2026-01-02T12:05:00.5Z" })),
            event(worker, json!({ "type": "worker_drained", "connections_cut": 0 })),
            event(worker, json!({ "type": "worker_exited", "code": null, "signal": "SIGKILL", "reason": "out_of_memory", "uptime_ms": 65_000 })),
            event(None, json!({ "type": "app_state", "from": "running", "to": "degraded", "why": "support.0.17 crashed" })),
            event(None, json!({ "type": "deployment_finished", "id": 3, "state": "rolled_back", "why": "not ready", "duration_ms": 9000, "tasks": { "finished": 2, "handed_over": 1, "lost": 0 } })),
            event(None, json!({ "type": "what_comes_later" })),
        ]
        .iter()
        .map(|event| plain(&line(event)))
        .collect();
        insta::assert_snapshot!(shown.join("\n"), @"
        12:00:00.500Z  #7  support.0.17  ready after 812ms (http)
        12:00:00.500Z  #7  support.0.17  draining for reload, at most 5m
        12:00:00.500Z  #7  support.0.17  drained
        12:00:00.500Z  #7  support.0.17  exited after 1m5s: out of memory, SIGKILL
        12:00:00.500Z  #7  support  running → degraded: support.0.17 crashed
        12:00:00.500Z  #7  support  deployment 3 rolled back after 9s, 2 tasks finished, 1 task handed over: not ready
        12:00:00.500Z  #7  support  an event that this agentctl does not know
        ");
    }
}
