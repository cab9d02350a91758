//! The table of `ls`: one row an app, and beneath it why it is not well.

use agentd_protocol::Timestamp;
use agentd_protocol::status::{AppState, AppView, StatusDocument};

use super::bytes_time::{between, bytes, percent, span};
use super::state;
use super::table::{Align, Cell, Column, Table};

const COLUMNS: &[Column] = &[
    Column { title: "NAME", align: Align::Left, rank: 0 },
    Column { title: "STATE", align: Align::Left, rank: 0 },
    Column { title: "READY", align: Align::Right, rank: 0 },
    Column { title: "RELEASE", align: Align::Left, rank: 7 },
    Column { title: "GEN", align: Align::Right, rank: 6 },
    Column { title: "IN FLIGHT", align: Align::Right, rank: 2 },
    Column { title: "RESTARTS", align: Align::Right, rank: 3 },
    Column { title: "CPU", align: Align::Right, rank: 5 },
    Column { title: "MEM", align: Align::Right, rank: 4 },
    Column { title: "UPTIME", align: Align::Right, rank: 1 },
    Column { title: "LISTEN", align: Align::Left, rank: 8 },
];

/// The table of all apps at `width`.
pub(crate) fn table(document: &StatusDocument, width: Option<usize>) -> String {
    if document.apps.is_empty() {
        return "no apps yet; start one with: agentctl start FILE\n".to_owned();
    }
    let mut table = Table::new(COLUMNS, 0);
    for app in &document.apps {
        table.row(row(app, document.now), beneath(app));
    }
    table.render(width)
}

fn row(app: &AppView, now: Timestamp) -> Vec<Cell> {
    let ready = format!("{}/{}", app.ready, app.desired);
    let short = app.ready < app.desired && app.state != AppState::Stopped;
    let restarts: u32 = app.workers.iter().map(|worker| worker.restarts).sum();
    vec![
        Cell::styled(&app.name, state::STRONG),
        state::app(app.state).cell(),
        if short { Cell::styled(ready, state::WARN) } else { Cell::plain(ready) },
        Cell::plain(&app.release),
        Cell::plain(generations(app)),
        Cell::plain(app.in_flight.to_string()),
        if restarts > 0 { Cell::styled(restarts.to_string(), state::WARN) } else { Cell::plain("0") },
        Cell::plain(cpu(app).map_or_else(dash, percent)),
        Cell::plain(memory(app).map_or_else(dash, bytes)),
        Cell::plain(uptime(app, now).unwrap_or_else(dash)),
        Cell::plain(app.listen.values().cloned().collect::<Vec<_>>().join(" ")),
    ]
}

/// What is to be said of an app that is not simply running.
fn beneath(app: &AppView) -> Vec<Cell> {
    let mut lines = Vec::new();
    if let Some(deployment) = &app.deployment {
        let mut line = format!(
            "deployment {}: {} {} of {}, {}",
            deployment.id,
            state::strategy(deployment.strategy),
            deployment.step,
            deployment.steps,
            state::deployment(deployment.state).word,
        );
        if let Some(why) = &deployment.why {
            line.push_str(": ");
            line.push_str(why);
        }
        lines.push(Cell::styled(line, state::FAINT));
    }
    if let Some(why) = &app.why {
        lines.push(Cell::styled(why, state::app(app.state).style));
    }
    lines
}

/// The generations that run, oldest first: `17`, or `16→17` while one replaces the other.
pub(crate) fn generations(app: &AppView) -> String {
    let mut numbers: Vec<u64> = app.workers.iter().map(|worker| worker.generation).collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers.iter().map(u64::to_string).collect::<Vec<_>>().join("→")
}

/// Processor time of all workers; none where none could be measured.
pub(crate) fn cpu(app: &AppView) -> Option<f64> {
    app.workers.iter().filter_map(|worker| worker.cpu_percent).reduce(|sum, more| sum + more)
}

/// Memory of all workers in bytes; none where none could be measured.
pub(crate) fn memory(app: &AppView) -> Option<u64> {
    app.workers.iter().filter_map(|worker| worker.memory_bytes).reduce(u64::saturating_add)
}

/// Since when the longest-running of its processes runs.
fn uptime(app: &AppView, now: Timestamp) -> Option<String> {
    let running = app.workers.iter().filter(|worker| worker.pid.is_some());
    let oldest = running.filter_map(|worker| worker.started_at).min()?;
    Some(span(between(oldest, now)))
}

fn dash() -> String {
    "-".to_owned()
}
