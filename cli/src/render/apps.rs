//! The table of `ls`: one row an app, and beneath it why it is not well.

use agentd_protocol::Timestamp;
use agentd_protocol::status::{AppState, AppView, DeploymentView, StatusDocument};

use super::bytes_time::{between, bytes, percent, span};
use super::state;
use super::table::{Align, Cell, Column, NOTHING, Table};

const COLUMNS: &[Column] = &[
    Column { title: "NAME", align: Align::Left, rank: 0 },
    Column { title: "STATE", align: Align::Left, rank: 0 },
    Column { title: "READY", align: Align::Right, rank: 0 },
    Column { title: "RELEASE", align: Align::Left, rank: 7 },
    Column { title: "GEN", align: Align::Right, rank: 8 },
    Column { title: "IN FLIGHT", align: Align::Right, rank: 2 },
    Column { title: "RESTARTS", align: Align::Right, rank: 3 },
    Column { title: "CPU", align: Align::Right, rank: 6 },
    Column { title: "MEM", align: Align::Right, rank: 5 },
    Column { title: "UPTIME", align: Align::Right, rank: 4 },
    Column { title: "LISTEN", align: Align::Left, rank: 1 },
];

/// The table of all apps at `width`.
pub(crate) fn table(document: &StatusDocument, width: Option<usize>) -> String {
    if document.apps.is_empty() {
        return "no apps yet; start one with: agentctl start FILE\n".to_owned();
    }
    let mut table = Table::new(COLUMNS, 0);
    for app in &document.apps {
        table.row(row(app, document.now), beneath(app, document.now));
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
        Cell::plain(or_nothing(generations(app))),
        Cell::plain(app.in_flight.to_string()),
        if restarts > 0 { Cell::styled(restarts.to_string(), state::WARN) } else { Cell::plain("0") },
        Cell::plain(cpu(app).map_or_else(nothing, percent)),
        Cell::plain(memory(app).map_or_else(nothing, bytes)),
        Cell::plain(uptime(app, now).unwrap_or_else(nothing)),
        Cell::plain(or_nothing(app.listen.values().cloned().collect::<Vec<_>>().join(","))),
    ]
}

/// A deployment in one line: how far it is, and what it waits for.
pub(crate) fn deployment(deployment: &DeploymentView) -> String {
    let mut line = format!(
        "deployment {}: {} {} of {}, ",
        deployment.id,
        state::strategy(deployment.strategy),
        deployment.step,
        deployment.steps,
    );
    if let Some(percent) = deployment.percent {
        line.push_str(&format!("{percent} % of new connections, "));
    }
    line.push_str(state::deployment(deployment.state).word);
    if let Some(why) = &deployment.why {
        line.push_str(": ");
        line.push_str(why);
    }
    line
}

/// What is to be said of an app that is not simply running.
fn beneath(app: &AppView, now: Timestamp) -> Vec<Cell> {
    let mut lines = standing(app, now);
    if let Some(words) = super::breaker::words(&app.breaker, now) {
        lines.push(Cell::styled(words, state::WARN));
    }
    if let Some(hint) = super::hint::of_app(app) {
        lines.push(Cell::styled(format!("help: {hint}"), state::BUSY));
    }
    lines
}

/// What is being done with an app, and why it is not well.
pub(crate) fn standing(app: &AppView, now: Timestamp) -> Vec<Cell> {
    let mut lines = Vec::new();
    if let Some(view) = &app.deployment {
        lines.push(Cell::styled(deployment(view), state::FAINT));
    }
    if let Some(view) = &app.cutting {
        lines.push(Cell::styled(super::releases::cutting(view, now), state::FAINT));
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

fn nothing() -> String {
    NOTHING.to_owned()
}

fn or_nothing(text: String) -> String {
    if text.is_empty() { nothing() } else { text }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{document, plain};
    use super::*;

    fn at(width: Option<usize>) -> String {
        plain(&table(&document(), width))
    }

    #[test]
    fn eighty_columns_hold_what_matters_most() {
        insta::assert_snapshot!(at(Some(80)), @"
        NAME        STATE        READY  IN FLIGHT  RESTARTS   MEM  UPTIME  LISTEN
        support     ↻ deploying    1/2          3         0  286M   1d12h  0.0.0.0:8080
          deployment 17: rolling 0 of 2, running: support.0.17 is not ready yet
        triage      ✗ failed       0/1          0        10     -       -  -
          triage.0 exited with code 1, 10 times within 5m; start it again with: agentctl
          start triage
        web-search  ● running      1/1          0         1   38M      2h  -
        zero        ○ stopped      0/1          0         0     -       -  -
        ");
    }

    #[test]
    fn sixty_columns_hold_less() {
        insta::assert_snapshot!(at(Some(60)), @"
        NAME        STATE        READY  IN FLIGHT  LISTEN
        support     ↻ deploying    1/2          3  0.0.0.0:8080
          deployment 17: rolling 0 of 2, running: support.0.17 is
          not ready yet
        triage      ✗ failed       0/1          0  -
          triage.0 exited with code 1, 10 times within 5m; start it
          again with: agentctl start triage
        web-search  ● running      1/1          0  -
        zero        ○ stopped      0/1          0  -
        ");
    }

    #[test]
    fn a_hundred_and_twenty_columns_hold_everything() {
        insta::assert_snapshot!(at(Some(120)), @"
        NAME        STATE        READY  RELEASE           GEN  IN FLIGHT  RESTARTS   CPU   MEM  UPTIME  LISTEN
        support     ↻ deploying    1/2  1.5.0+ef56ab78  16→17          3         0   90%  286M   1d12h  0.0.0.0:8080
          deployment 17: rolling 0 of 2, running: support.0.17 is not ready yet
        triage      ✗ failed       0/1  r1                  3          0        10     -     -       -  -
          triage.0 exited with code 1, 10 times within 5m; start it again with: agentctl start triage
        web-search  ● running      1/1  r1                  1          0         1  0.2%   38M      2h  -
        zero        ○ stopped      0/1  r1                  -          0         0     -     -       -  -
        ");
    }

    #[test]
    fn a_pipe_gets_every_column() {
        assert!(at(None).starts_with("NAME        STATE        READY  RELEASE           GEN  "), "{}", at(None));
    }

    #[test]
    fn colour_adds_nothing_but_colour() {
        let colored = table(&document(), Some(80));
        assert!(colored.contains("\x1b[1m\x1b[31m✗ failed\x1b[0m"), "{colored:?}");
        assert_eq!(plain(&colored), at(Some(80)));
    }

    #[test]
    fn nothing_to_list_says_how_to_begin() {
        let empty = StatusDocument { apps: vec![], ..document() };
        assert_eq!(table(&empty, None), "no apps yet; start one with: agentctl start FILE\n");
    }
}
