//! The hooks that ran for a deployment, with what they printed.

use std::time::Duration;

use agentd_protocol::control::{HookRun, HookState};

use super::bytes_time::span;
use super::state::{self, Mark};
use super::table::{Align, Cell, Column, NOTHING, Table};
use super::worker::printable;

const COLUMNS: &[Column] = &[
    Column { title: "ON", align: Align::Left, rank: 0 },
    Column { title: "STATE", align: Align::Left, rank: 0 },
    Column { title: "TOOK", align: Align::Right, rank: 0 },
];

/// How a hook's state looks.
pub(crate) const fn mark(of: HookState) -> Mark {
    match of {
        HookState::Running => Mark::new('◐', "running", state::BUSY),
        HookState::Done => Mark::new('●', "done", state::GOOD),
        HookState::Failed => Mark::new('✗', "failed", state::BAD),
        HookState::Cut => Mark::new('▲', "cut", state::WARN),
        HookState::Unknown => Mark::new('?', "unknown", state::WARN),
    }
}

/// For what it ran: the occasion, and the stage where there is one.
pub(crate) fn occasion(run: &HookRun) -> String {
    let stage = run.percent.map_or_else(String::new, |percent| format!(" {percent} %"));
    format!("{}{stage}", run.on)
}

/// A table of them at `width`, each with its command, why it failed and its last lines below it.
pub(crate) fn table(runs: &[HookRun], width: Option<usize>) -> String {
    let mut table = Table::new(COLUMNS, 2);
    for run in runs {
        let took = run.took_ms.map_or_else(|| NOTHING.to_owned(), |ms| span(Duration::from_millis(ms)));
        let cells = vec![Cell::plain(occasion(run)), mark(run.state).cell(), Cell::plain(took)];
        let mut beneath = vec![Cell::plain(format!("$ {}", printable(&run.command.join(" "))))];
        beneath.extend(run.why.iter().map(|why| Cell::styled(printable(why), state::WARN)));
        beneath.extend(run.output.iter().map(|line| Cell::styled(format!("│ {}", printable(line)), state::FAINT)));
        table.row(cells, beneath);
    }
    table.render(width)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::plain;
    use super::*;

    #[test]
    fn hooks_are_told_with_their_last_lines() {
        let runs: Vec<HookRun> = serde_json::from_value(serde_json::json!([
            {"on": "before_deployment", "hook": 1, "percent": null, "command": ["./migrate.sh", "--all"], "state": "done",
             "why": null, "begun_at": "2026-01-02T03:00:00Z", "took_ms": 1200, "output": ["3 tables"]},
            {"on": "before_stage", "hook": 2, "percent": 10, "command": ["./approve.sh"], "state": "failed",
             "why": "exited with status 3", "begun_at": "2026-01-02T03:00:02Z", "took_ms": 40,
             "output": ["asking the desk", "nobody is \u{1b}[31mthere"]},
            {"on": "rollback", "hook": 3, "percent": null, "command": ["./tell.sh"], "state": "running",
             "why": null, "begun_at": "2026-01-02T03:00:03Z", "took_ms": null, "output": []}
        ]))
        .unwrap();
        insta::assert_snapshot!(plain(&table(&runs, Some(80))));
    }
}
