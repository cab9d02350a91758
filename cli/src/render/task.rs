//! Everything about one task, in sections.

use std::fmt::Write as _;
use std::time::Duration;

use agentd_protocol::Timestamp;
use agentd_protocol::control::{EffectList, PayloadView, RunView, TaskDetails, TaskState, TaskView};

use super::bytes_time::{between, bytes, span};
use super::log::harmless;
use super::state::{self, BUSY, STRONG};
use super::table::{Align, Cell, Column, NOTHING, Table, wrap};

/// Width of the names at the left.
const NAME_WIDTH: usize = 11;

/// Checkpoints that are listed.
const CHECKPOINTS: usize = 5;

/// Characters of a payload that are shown; `--json` has all.
const SHOWN: usize = 1000;

const RUNS: &[Column] = &[
    Column { title: "TRY", align: Align::Right, rank: 0 },
    Column { title: "WORKER", align: Align::Left, rank: 0 },
    Column { title: "RELEASE", align: Align::Left, rank: 2 },
    Column { title: "HOW", align: Align::Left, rank: 0 },
    Column { title: "AGO", align: Align::Right, rank: 1 },
    Column { title: "ITS PROCESS", align: Align::Left, rank: 0 },
];

/// The task as text.
pub(crate) fn page(task: &TaskView, now: Timestamp, width: Option<usize>) -> String {
    let mut text = format!("{STRONG}{}{STRONG:#}  {}\n", task.id, state::task(task.state).text());
    for (name, value) in fields(task, now) {
        field(&mut text, name, &value, width);
    }
    if let Some(details) = &task.details {
        kept(&mut text, details, now, width);
    }
    if task.state == TaskState::Parked {
        let judged = if task.parked_effect.is_some() { " --effect redo|skip" } else { "" };
        let _ = writeln!(
            text,
            "\n{BUSY}help:{BUSY:#} agentctl tasks retry {id}{judged}, or: agentctl tasks discard {id}",
            id = task.id
        );
    }
    text
}

fn fields(task: &TaskView, now: Timestamp) -> Vec<(&'static str, String)> {
    let ago = |at: &Timestamp| format!("{} ago", span(between(*at, now)));
    let ms = |ms: u64| span(Duration::from_millis(ms));
    let usual = task.p50_ms.zip(task.p99_ms);
    let usual = usual
        .map_or_else(String::new, |(p50, p99)| format!("; half of its kind take {}, 99 in 100 {}", ms(p50), ms(p99)));
    let stuck = task.stuck.then(|| "stuck: no checkpoint for longer than its kind usually takes".to_owned());
    let worker = task.worker.as_ref().map(|worker| {
        let release = task.release.as_ref().map(|release| format!(", release {release}")).unwrap_or_default();
        let generation = task.generation.map(|number| format!(", generation {number}")).unwrap_or_default();
        format!("{worker}{generation}{release}")
    });
    let optional = [
        ("why", task.why.clone()),
        ("", stuck),
        ("app", Some(task.app.clone())),
        ("kind", task.kind.clone()),
        ("session", task.session.clone()),
        ("key", task.key.clone()),
        ("begun", task.begun_at.as_ref().map(ago)),
        ("ended", task.ended_at.as_ref().map(ago)),
        ("ran", Some(format!("{}{usual}", ms(task.age_ms)))),
        ("attempt", Some(format!("{}, fence {}", task.attempt, task.fence))),
        (if task.state == TaskState::Running { "worker" } else { "last worker" }, worker),
        ("traceparent", task.traceparent.clone()),
        ("figures", task.figures.as_ref().map(ToString::to_string)),
    ];
    optional.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

/// What is kept beside what lists show.
fn kept(text: &mut String, details: &TaskDetails, now: Timestamp, width: Option<usize>) {
    for (name, carried) in [("input", &details.input), ("result", &details.result)] {
        if let Some(carried) = carried {
            field(text, name, &payload(carried), width);
        }
    }
    for (index, mark) in details.checkpoints.iter().take(CHECKPOINTS).enumerate() {
        let version = mark.state_version.map(|version| format!(", state_version {version}")).unwrap_or_default();
        let safe = if mark.safe { "" } else { ", not safe" };
        let (size, ago) = (bytes(mark.bytes), span(between(mark.at, now)));
        let line = format!("step {}, {size}, {ago} ago, fence {}{version}{safe}", mark.step, mark.fence);
        field(text, if index == 0 { "checkpoint" } else { "" }, &line, width);
    }
    let more = details.checkpoints.len().saturating_sub(CHECKPOINTS);
    if more > 0 {
        field(text, "", &format!("and {more} before"), width);
    }
    if !details.runs.is_empty() {
        let mut table = Table::new(RUNS, 2);
        for run in &details.runs {
            table.row(run_row(run, now), Vec::new());
        }
        let _ = write!(text, "\nworkers that had it\n{}", table.render(width));
    }
    if !details.effects.is_empty() {
        let list = EffectList { effects: details.effects.clone(), more: false };
        let _ = write!(text, "\neffects\n{}", super::effects::table(&list, now, width));
    }
}

fn run_row(run: &RunView, now: Timestamp) -> Vec<Cell> {
    vec![
        Cell::plain(run.fence.to_string()),
        Cell::plain(&run.worker),
        Cell::plain(&run.release),
        Cell::plain(&run.how),
        Cell::plain(span(between(run.left_at, now))),
        Cell::plain(run.exit.as_deref().unwrap_or(NOTHING)),
    ]
}

/// JSON as it is, when that is short; else how large it is.
fn payload(view: &PayloadView) -> String {
    let json = view.json.as_ref().map(ToString::to_string);
    match json.filter(|json| json.chars().count() <= SHOWN) {
        Some(json) => json,
        None => format!("{}; --json has up to 64K of it", bytes(view.bytes)),
    }
}

fn field(text: &mut String, name: &str, value: &str, width: Option<usize>) {
    let room = width.map(|width| width.saturating_sub(NAME_WIDTH + 4).max(20));
    for (index, line) in wrap(&harmless(value), room).iter().enumerate() {
        let _ = writeln!(text, "  {:NAME_WIDTH$}  {line}", if index == 0 { name } else { "" });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::fixture::plain;
    use super::*;

    fn parked() -> TaskView {
        let run = |fence: u64, how: &str| {
            json!({
                "fence": fence, "worker": format!("support.0.{}", 14 + fence), "generation": 14 + fence,
                "release": "1.4.0+ab12cd34", "left_at": "2026-01-02T11:59:30Z", "how": how, "exit": "killed by SIGKILL",
            })
        };
        let mark = |step: u64| {
            json!({
                "step": step, "bytes": 8192, "at": "2026-01-02T11:59:30Z", "fence": 3, "safe": true, "state_version": 2,
            })
        };
        let steps: Vec<_> = (1..=7).rev().map(mark).collect();
        let effect = json!({
            "app": "support", "task": "0197f3a0-1c2b-7def-8123-00000000a001", "key": "7:mail", "kind": "mail",
            "state": "done", "release": "1.4.0+ab12cd34", "fence": 3, "description": "reply to the customer",
            "compensate": null, "error": null, "begun_at": "2026-01-02T11:59:00Z", "ended_at": null,
        });
        let details = json!({
            "input": {"bytes": 30, "json": {"question": "why is the sky blue?"}}, "result": null, "checkpoints": steps,
            "runs": [run(3, "parked"), run(2, "crashed"), run(1, "crashed")], "effects": [effect],
        });
        serde_json::from_value(json!({
            "id": "0197f3a0-1c2b-7def-8123-00000000a001", "app": "support", "kind": "research", "session": "s-12",
            "key": null, "state": "parked", "why": "it crashed its worker too often", "stuck": false, "attempt": 4,
            "fence": 4, "worker": "support.0.17", "generation": 17, "release": "1.4.0+ab12cd34", "traceparent": null,
            "age_ms": 41_000, "p50_ms": 38_000, "p99_ms": 290_000, "step": 7, "checkpoint_at": "2026-01-02T11:59:30Z",
            "open_effects": 1, "parked_effect": null, "begun_at": "2026-01-02T11:50:00Z", "ended_at": null,
            "figures": null, "details": details,
        }))
        .expect("a task")
    }

    #[test]
    fn a_parked_task_shows_all_that_is_needed_to_look_at_it() {
        let now = "2026-01-02T12:00:00Z".parse().expect("a time");
        insta::assert_snapshot!("parked", plain(&page(&parked(), now, Some(80))));
    }

    #[test]
    fn a_large_input_is_told_by_its_size() {
        assert_eq!(payload(&PayloadView { bytes: 1 << 20, json: None }), "1.0M; --json has up to 64K of it");
    }
}
