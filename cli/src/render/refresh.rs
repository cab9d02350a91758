//! What came of a refresh: a line a worker.

use std::fmt::Write as _;
use std::time::Duration;

use agentd_protocol::Timestamp;
use agentd_protocol::status::{RefreshOutcome, RefreshState, RefreshView, RefreshedWorker};
use anstyle::Style;

use super::bytes_time::{between, span};
use super::state::{BAD, BUSY, FAINT, GOOD, STRONG, WARN};
use super::worker::printable;

/// One worker: `● renewed after 812ms`.
pub(crate) fn outcome(outcome: RefreshOutcome, why: Option<&str>, took_ms: u64) -> String {
    let took = span(Duration::from_millis(took_ms));
    let why = why.map(printable).unwrap_or_default();
    match outcome {
        RefreshOutcome::Renewed => format!("renewed in {took}"),
        RefreshOutcome::Told => "told; nothing says when it is done".to_owned(),
        RefreshOutcome::Gone => "on its way out; whoever took its place read it anew".to_owned(),
        RefreshOutcome::Failed => format!("failed after {took}: {why}"),
        RefreshOutcome::Spared => "not asked: it keeps what it knew".to_owned(),
        RefreshOutcome::Unknown => format!("asked for {took}"),
    }
}

/// A line for each of them.
pub(crate) fn workers(workers: &[RefreshedWorker]) -> String {
    let widest = workers.iter().map(|worker| worker.worker.len()).max().unwrap_or(0);
    let mut text = String::new();
    for RefreshedWorker { worker, outcome: how, why, took_ms } in workers {
        let (symbol, style) = mark(*how);
        let said = outcome(*how, why.as_deref(), *took_ms);
        let _ = writeln!(text, "  {style}{symbol}{style:#} {STRONG}{worker:widest$}{STRONG:#}  {said}");
    }
    text
}

/// The refresh that runs, or the last one.
pub(crate) fn section(view: &RefreshView, now: Timestamp) -> String {
    let (word, style) = match view.state {
        RefreshState::Running => ("running", BUSY),
        RefreshState::Done => ("done", GOOD),
        RefreshState::Failed => ("failed", BAD),
        RefreshState::Aborted => ("aborted", WARN),
        RefreshState::Unknown => ("unknown", WARN),
    };
    let when = view.finished_at.map(|at| format!(" {} ago", span(between(at, now)))).unwrap_or_default();
    let mut text = format!("  refresh {}  {style}{word}{style:#}{when}\n", view.id);
    if let Some(worker) = &view.asking {
        let _ = writeln!(text, "  asking {worker}");
    }
    if let Some(why) = view.why.as_ref().filter(|_| view.state == RefreshState::Aborted) {
        let _ = writeln!(text, "  {}", printable(why));
    }
    text.push_str(&workers(&view.workers));
    if let (Some(half), Some(longest)) = (view.p50_ms, view.max_ms) {
        let (half, longest) = (Duration::from_millis(half), Duration::from_millis(longest));
        let (n, half, longest) = (view.n, span(half), span(longest));
        let _ = writeln!(
            text,
            "  {FAINT}of the last {n} renewals half took at most {half}, the longest {longest}{FAINT:#}"
        );
    }
    text
}

const fn mark(outcome: RefreshOutcome) -> (char, Style) {
    match outcome {
        RefreshOutcome::Renewed => ('●', GOOD),
        RefreshOutcome::Told => ('●', BUSY),
        RefreshOutcome::Gone | RefreshOutcome::Spared => ('○', FAINT),
        RefreshOutcome::Failed => ('✗', BAD),
        RefreshOutcome::Unknown => ('?', WARN),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::fixture::plain;
    use super::*;

    #[test]
    fn a_refresh_that_failed_tells_who_knows_what() {
        let view = serde_json::from_value(json!({
            "id": 9, "state": "failed", "asking": null, "why": "web.1.1 answered 500", "n": 12,
            "p50_ms": 812, "max_ms": 4100, "finished_at": "2026-01-02T12:00:00Z",
            "workers": [
                { "worker": "web.0.1", "outcome": "renewed", "why": null, "took_ms": 790 },
                { "worker": "web.1.1", "outcome": "failed", "why": "answered 500", "took_ms": 40 },
                { "worker": "web.10.1", "outcome": "spared", "why": null, "took_ms": 0 },
            ],
        }));
        let shown = section(&view.expect("a view"), "2026-01-02T12:03:00Z".parse().expect("a time"));
        insta::assert_snapshot!(plain(&shown), @"
          refresh 9  failed 3m ago
          ● web.0.1   renewed in 790ms
          ✗ web.1.1   failed after 40ms: answered 500
          ○ web.10.1  not asked: it keeps what it knew
          of the last 12 renewals half took at most 812ms, the longest 4s
        ");
    }
}
