//! What a command that changes apps has to say in the end, an operation a line.

use std::time::Duration;

use agentd_protocol::control::{LostTask, OperationKind, OperationResult, OperationState, OperationView, TaskCounts};

use super::bytes_time::span;
use super::event::{operation, operation_state};
use super::log::harmless;
use super::state::{BAD, BUSY, FAINT, GOOD, STRONG, WARN};

/// Lost tasks that are named.
const NAMED: usize = 10;

/// What was admitted, for those who do not wait: `reload of support accepted as operation 17`.
pub(crate) fn accepted(view: &OperationView) -> String {
    let kind = operation(view.kind);
    let mut line = if view.already && view.id == 0 {
        format!("{STRONG}{}{STRONG:#}: nothing to do, it is so already", view.app)
    } else if view.already {
        format!("{STRONG}{}{STRONG:#}: nothing to do, operation {} has or will have done it", view.app, view.id)
    } else {
        format!("{kind} of {STRONG}{}{STRONG:#} accepted as operation {}", view.app, view.id)
    };
    if let Some(note) = &view.note {
        line.push_str(&format!(" ({note})"));
    }
    line.push('\n');
    line
}

/// What became of tasks, to be put behind a sentence; nothing where there were none.
pub(crate) fn tasks(counts: &TaskCounts) -> String {
    let counts = [(counts.finished, "finished"), (counts.handed_over, "handed over"), (counts.lost, "lost")];
    let some = counts.into_iter().filter(|(count, _)| *count > 0);
    some.map(|(count, what)| format!(", {count} {} {what}", plural(count, "task"))).collect()
}

/// How it ended: `● support: reload done in 12s, release 1.4.0 → 1.5.0, 3 tasks finished`.
pub(crate) fn result(result: &OperationResult) -> String {
    let (symbol, style) = match result.state {
        OperationState::Done => ('●', GOOD),
        OperationState::RolledBack => ('↺', BAD),
        OperationState::Aborted => ('○', WARN),
        OperationState::Failed => ('✗', BAD),
        OperationState::Unknown => ('?', WARN),
    };
    let mut line = format!(
        "{style}{symbol}{style:#} {STRONG}{}{STRONG:#}: {} {style}{}{style:#} in {}",
        result.app,
        operation(result.kind),
        operation_state(result.state),
        span(Duration::from_millis(result.duration_ms)),
    );
    if let (Some(from), Some(to)) = (&result.from, &result.to)
        && from != to
    {
        line.push_str(&format!(", {from} → {to}"));
    }
    line.push_str(&tasks(&result.tasks));
    if result.connections.cut > 0 {
        let cut = result.connections.cut;
        line.push_str(&format!(", {WARN}{cut} {} cut{WARN:#}", plural(cut, "connection")));
    }
    if let Some(why) = &result.why {
        line.push_str(&format!(": {why}"));
    }
    line.push('\n');
    line.push_str(&lost(&result.lost_tasks));
    line.push_str(&super::refresh::workers(&result.refreshed));
    for text in &result.log_tail {
        line.push_str(&format!("  {FAINT}│{FAINT:#} {}\n", harmless(text)));
    }
    for hint in hints(result) {
        line.push_str(&format!("  {BUSY}help:{BUSY:#} {hint}\n"));
    }
    line
}

/// The tasks that are lost, each with why.
fn lost(tasks: &[LostTask]) -> String {
    let mut text = String::new();
    for LostTask { task, why } in tasks.iter().take(NAMED) {
        text.push_str(&format!("  {WARN}lost{WARN:#} {task}: {why}\n"));
    }
    if tasks.len() > NAMED {
        text.push_str("  and more: agentctl tasks --state ended lists them\n");
    }
    text
}

/// What to do about it, where that is known.
fn hints(result: &OperationResult) -> Vec<String> {
    let of_lines = super::hint::of_lines(&result.log_tail).map(str::to_owned);
    let failed = matches!((result.kind, result.state), (OperationKind::Start, OperationState::Failed));
    let listed = failed.then(|| {
        let app = &result.app;
        format!(
            "{app} stays listed: start it again when it is mended (agentctl start {app}), or: agentctl delete {app}"
        )
    });
    of_lines.into_iter().chain(listed).collect()
}

/// `word`, in the plural unless there is one.
pub(crate) fn plural(count: u64, word: &str) -> String {
    if count == 1 { word.to_owned() } else { format!("{word}s") }
}

#[cfg(test)]
mod tests {
    use agentd_protocol::control::ConnectionCounts;

    use super::*;

    fn reload(state: OperationState) -> OperationResult {
        let at = "2026-01-02T03:04:05Z".parse().unwrap();
        OperationResult {
            id: 17,
            app: "support".into(),
            kind: OperationKind::Reload,
            state,
            why: None,
            log_tail: vec![],
            started_at: at,
            finished_at: at,
            duration_ms: 12_400,
            tasks: TaskCounts { finished: 3, handed_over: 0, lost: 1 },
            lost_tasks: vec![LostTask { task: "a1".into(), why: "its worker was ended before it was done".into() }],
            connections: ConnectionCounts { cut: 1 },
            deployment: Some(17),
            from: Some("r1".into()),
            to: Some("r2".into()),
            refreshed: Vec::new(),
        }
    }

    #[test]
    fn what_is_so_already_names_an_operation_only_when_there_is_one() {
        let view = |id| OperationView { id, app: "web".into(), kind: OperationKind::Start, already: true, note: None };
        let text = |id| anstream::adapter::strip_str(&accepted(&view(id))).to_string();
        assert_eq!(text(0), "web: nothing to do, it is so already\n");
        assert_eq!(text(7), "web: nothing to do, operation 7 has or will have done it\n");
    }

    #[test]
    fn a_finished_reload_counts_what_became_of_tasks_and_connections() {
        insta::assert_snapshot!(anstream::adapter::strip_str(&result(&reload(OperationState::Done))), @"
        ● support: reload done in 12s, r1 → r2, 3 tasks finished, 1 task lost, 1 connection cut
          lost a1: its worker was ended before it was done
        ");
    }

    #[test]
    fn a_rollback_says_why_and_shows_the_worker_s_last_lines() {
        let rolled_back = OperationResult {
            why: Some("support.0.18 exited with code 1 before it was ready".into()),
            log_tail: vec!["Traceback".into(), "KeyError: 'MODEL'".into()],
            tasks: TaskCounts::default(),
            lost_tasks: Vec::new(),
            connections: ConnectionCounts::default(),
            ..reload(OperationState::RolledBack)
        };
        insta::assert_snapshot!(anstream::adapter::strip_str(&result(&rolled_back)), @"
        ↺ support: reload rolled back in 12s, r1 → r2: support.0.18 exited with code 1 before it was ready
          │ Traceback
          │ KeyError: 'MODEL'
        ");
    }

    #[test]
    fn a_start_that_failed_says_how_to_go_on_and_how_to_forget_it() {
        let failed = OperationResult {
            kind: OperationKind::Start,
            from: None,
            to: None,
            log_tail: vec!["Error: listen EADDRINUSE: address already in use :::3000".into()],
            tasks: TaskCounts::default(),
            lost_tasks: Vec::new(),
            connections: ConnectionCounts::default(),
            ..reload(OperationState::Failed)
        };
        let text = anstream::adapter::strip_str(&result(&failed)).to_string();
        assert!(text.contains("  help: it binds its port itself") && text.contains("--listen"), "{text}");
        assert!(text.ends_with("(agentctl start support), or: agentctl delete support\n"), "{text}");
    }
}
