//! The tables of `tasks`, `tasks usage` and `tasks prune`.

use std::time::Duration;

use agentd_protocol::Timestamp;
use agentd_protocol::control::{TaskList, TaskState, TaskView, TasksUsage};

use super::bytes_time::{between, bytes, span};
use super::state;
use super::table::{Align, Cell, Column, NOTHING, Table};

const COLUMNS: &[Column] = &[
    Column { title: "TASK", align: Align::Left, rank: 0 },
    Column { title: "APP", align: Align::Left, rank: 4 },
    Column { title: "KIND", align: Align::Left, rank: 5 },
    Column { title: "STATE", align: Align::Left, rank: 0 },
    Column { title: "AGE", align: Align::Right, rank: 0 },
    Column { title: "P50", align: Align::Right, rank: 1 },
    Column { title: "P99", align: Align::Right, rank: 2 },
    Column { title: "TRY", align: Align::Right, rank: 6 },
    Column { title: "STEP", align: Align::Right, rank: 3 },
    Column { title: "WORKER", align: Align::Left, rank: 7 },
    Column { title: "SESSION", align: Align::Left, rank: 8 },
    Column { title: "RELEASE", align: Align::Left, rank: 9 },
];

const USAGE: &[Column] = &[
    Column { title: "APP", align: Align::Left, rank: 0 },
    Column { title: "OPEN", align: Align::Right, rank: 0 },
    Column { title: "ENDED", align: Align::Right, rank: 0 },
    Column { title: "CHECKPOINTS", align: Align::Right, rank: 1 },
    Column { title: "EFFECTS", align: Align::Right, rank: 2 },
    Column { title: "ITEMS", align: Align::Right, rank: 3 },
];

/// The tasks at `width`.
pub(crate) fn table(list: &TaskList, now: Timestamp, width: Option<usize>) -> String {
    if list.tasks.is_empty() {
        return "no such tasks\n".to_owned();
    }
    let mut table = Table::new(COLUMNS, 0);
    for task in &list.tasks {
        table.row(row(task), beneath(task, now));
    }
    let more = if list.more { "there are more: ask for them with --limit\n" } else { "" };
    table.render(width) + more
}

/// A task after something was done with it.
pub(crate) fn changed(task: &TaskView) -> String {
    let why = task.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    format!("{} is {}{why}\n", task.id, state::task(task.state).word)
}

/// What is kept, at `width`.
pub(crate) fn usage(usage: &TasksUsage, width: Option<usize>) -> String {
    let mut table = Table::new(USAGE, 0);
    for app in &usage.apps {
        let numbers = [app.open, app.ended, app.checkpoints, app.effects, app.items];
        let cells = numbers.iter().map(|number| Cell::plain(number.to_string()));
        table.row(std::iter::once(Cell::styled(&app.app, state::STRONG)).chain(cells).collect(), Vec::new());
    }
    let apps = if usage.apps.is_empty() { "no tasks are kept\n".to_owned() } else { table.render(width) };
    let (database, blobs) = (bytes(usage.database_bytes), bytes(usage.blob_bytes));
    format!("{apps}database {database}, {} payload files {blobs}\n", usage.blobs)
}

fn row(task: &TaskView) -> Vec<Cell> {
    let text = |text: &Option<String>| Cell::plain(text.as_deref().unwrap_or(NOTHING));
    let known = |ms: Option<u64>| Cell::plain(ms.map_or_else(|| NOTHING.to_owned(), shown));
    let open = task.state != TaskState::Ended;
    let late = open && task.p99_ms.is_some_and(|p99_ms| task.age_ms > p99_ms);
    vec![
        Cell::plain(&task.id),
        Cell::plain(&task.app),
        text(&task.kind),
        state::task(task.state).cell(),
        if late { Cell::styled(shown(task.age_ms), state::WARN) } else { Cell::plain(shown(task.age_ms)) },
        known(task.p50_ms),
        known(task.p99_ms),
        Cell::plain(task.attempt.to_string()),
        Cell::plain(task.step.map_or_else(|| NOTHING.to_owned(), |step| step.to_string())),
        text(&task.worker),
        text(&task.session),
        text(&task.release),
    ]
}

/// What is to be said of a task that does not simply run.
fn beneath(task: &TaskView, now: Timestamp) -> Vec<Cell> {
    let mut said = Vec::new();
    let style = state::task(task.state).style;
    if task.stuck {
        let since = task.checkpoint_at.map(|at| format!("; last checkpoint {} ago", span(between(at, now))));
        let line = format!("stuck: no safe point for longer than its kind usually takes{}", since.unwrap_or_default());
        said.push(Cell::styled(line, state::WARN));
    }
    let ended = task.ended_at.map(|at| format!(", {} ago", span(between(at, now)))).unwrap_or_default();
    // What is said below with the way out is not said twice.
    let told_below =
        |why: &&str| task.parked_effect.as_deref().is_some_and(|effect| why.contains(&format!("effect {effect} ")));
    if let Some(why) = task.why.as_deref().filter(|why| !told_below(why)) {
        said.push(Cell::styled(format!("{why}{ended}"), style));
    }
    if let Some(effect) = &task.parked_effect {
        let line =
            format!("nobody knows whether {effect:?} happened: agentctl tasks retry {} --effect redo|skip", task.id);
        said.push(Cell::styled(line, style));
    } else if task.open_effects > 0 && task.state != TaskState::Running {
        let effects = if task.open_effects == 1 { "effect" } else { "effects" };
        said.push(Cell::styled(format!("{} {effects} begun and not ended", task.open_effects), style));
    }
    said
}

fn shown(ms: u64) -> String {
    span(Duration::from_millis(ms))
}

#[cfg(test)]
mod tests {
    use agentd_protocol::control::AppUsage;
    use serde_json::json;

    use super::super::fixture::plain;
    use super::*;

    fn list() -> TaskList {
        let task = |changes: serde_json::Value| {
            let mut task = json!({
                "id": "0197f3a0-1c2b-7def-8123-00000000a001", "app": "support", "kind": "research", "session": "s-12",
                "key": null, "state": "running", "why": null, "stuck": false, "attempt": 1, "fence": 3,
                "worker": "support.0.17", "release": "1.4.0+ab12cd34", "traceparent": null, "age_ms": 41_000,
                "p50_ms": 38_000, "p99_ms": 290_000, "step": 7, "checkpoint_at": "2026-01-02T11:59:30Z",
                "open_effects": 0, "parked_effect": null, "begun_at": "2026-01-02T11:59:19Z", "ended_at": null,
                "figures": null,
            });
            for (name, value) in changes.as_object().expect("an object") {
                task[name] = value.clone();
            }
            serde_json::from_value(task).expect("a task")
        };
        let tasks = vec![
            task(json!({})),
            task(json!({"id": "0197f3a0-1c2b-7def-8123-00000000a002", "age_ms": 400_000, "stuck": true})),
            task(json!({
                "id": "0197f3a0-1c2b-7def-8123-00000000a003", "state": "parked", "why": "crashed 3 times", "attempt": 3,
                "parked_effect": "7:mail", "open_effects": 1, "worker": null,
            })),
            task(json!({
                "id": "0197f3a0-1c2b-7def-8123-00000000a004", "state": "ended", "why": "ok", "p50_ms": null, "kind": null,
                "p99_ms": null, "step": null, "ended_at": "2026-01-02T11:50:00Z",
            })),
        ];
        TaskList { tasks, more: true }
    }

    fn now() -> Timestamp {
        "2026-01-02T12:00:00Z".parse().expect("a time")
    }

    #[test]
    fn eighty_columns_hold_ids_states_and_ages_against_their_kind() {
        insta::assert_snapshot!("eighty", plain(&table(&list(), now(), Some(80))));
    }

    #[test]
    fn a_pipe_gets_every_column_of_tasks() {
        insta::assert_snapshot!("pipe", plain(&table(&list(), now(), None)));
    }

    #[test]
    fn what_was_changed_and_what_is_kept_are_said_in_a_line_each() {
        assert_eq!(changed(&list().tasks[2]), "0197f3a0-1c2b-7def-8123-00000000a003 is parked: crashed 3 times\n");
        let app = AppUsage { app: "support".into(), open: 3, ended: 900, effects: 40, checkpoints: 120, items: 2 };
        let kept = TasksUsage { apps: vec![app], database_bytes: 1 << 20, blobs: 4, ..TasksUsage::default() };
        insta::assert_snapshot!("usage", plain(&usage(&kept, Some(80))));
        assert_eq!(plain(&table(&TaskList::default(), now(), None)), "no such tasks\n");
    }
}
