//! Deployments as text: the list, one with its steps, and its gates.

use std::time::Duration;

use agentd_protocol::Timestamp;
use agentd_protocol::control::{DeploymentReport, Durations, EffectList, OperationKind};
use agentd_protocol::status::{GateVerdict, GateView};

use super::bytes_time::{between, span};
use super::event::operation;
use super::state;
use super::table::{Align, Cell, Column, NOTHING, Table};

const COLUMNS: &[Column] = &[
    Column { title: "ID", align: Align::Right, rank: 0 },
    Column { title: "APP", align: Align::Left, rank: 0 },
    Column { title: "STATE", align: Align::Left, rank: 0 },
    Column { title: "WHAT", align: Align::Left, rank: 2 },
    Column { title: "FROM → TO", align: Align::Left, rank: 1 },
    Column { title: "TOOK", align: Align::Right, rank: 3 },
    Column { title: "BEGUN", align: Align::Right, rank: 0 },
];

const GATES: &[Column] = &[
    Column { title: "GATE", align: Align::Left, rank: 0 },
    Column { title: "VERDICT", align: Align::Left, rank: 0 },
    Column { title: "TASKS", align: Align::Right, rank: 1 },
    Column { title: "OBSERVED", align: Align::Right, rank: 1 },
    Column { title: "BEFORE", align: Align::Right, rank: 1 },
    Column { title: "EVIDENCE", align: Align::Right, rank: 2 },
];

/// The list at `width`.
pub(crate) fn table(deployments: &[DeploymentReport], now: Timestamp, width: Option<usize>) -> String {
    if deployments.is_empty() {
        return "nothing was deployed yet\n".to_owned();
    }
    let mut table = Table::new(COLUMNS, 0);
    for report in deployments {
        let cells = vec![
            Cell::plain(report.id.to_string()),
            Cell::plain(&report.app),
            state::deployment(report.state).cell(),
            Cell::plain(what(report)),
            Cell::plain(format!("{} → {}", report.from, report.to)),
            Cell::plain(span(between(report.started_at, report.finished_at.unwrap_or(now)))),
            Cell::plain(format!("{} ago", span(between(report.started_at, now)))),
        ];
        table.row(cells, report.why.iter().map(|why| Cell::styled(why, state::WARN)).collect());
    }
    table.render(width)
}

fn what(report: &DeploymentReport) -> String {
    format!("{}, {}", operation(report.kind), state::strategy(report.strategy))
}

/// One deployment at `width`.
pub(crate) fn report(report: &DeploymentReport, now: Timestamp, width: Option<usize>) -> String {
    let end = report.finished_at.unwrap_or(now);
    let mark = state::deployment(report.state);
    let mut text =
        format!("deployment {} of {}: {}, {} → {}\n", report.id, report.app, what(report), report.from, report.to);
    text.push_str(&format!("  {} after {}\n", mark.text(), span(between(report.started_at, end))));
    for line in report.why.iter().flat_map(|why| super::table::wrap(why, width.map(|width| width.saturating_sub(2)))) {
        text.push_str(&format!("  {line}\n"));
    }
    text.push_str("\nsteps\n");
    for (index, stage) in report.stages.iter().enumerate() {
        let next = report.stages.get(index + 1).map_or(end, |next| next.at);
        let share = stage.percent.map_or_else(String::new, |percent| format!("{percent} %"));
        let (begun, lasted) = (span(between(report.started_at, stage.at)), span(between(stage.at, next)));
        text.push_str(&format!("  +{begun:<8} {:<10} {share:>5}  for {lasted}\n", stage.name));
    }
    if !report.hooks.is_empty() {
        text.push_str("\nhooks\n");
        text.push_str(&super::hooks::table(&report.hooks, width));
    }
    if !report.gates.is_empty() {
        text.push_str("\ngates\n");
        text.push_str(&gates(&report.gates, width));
    } else if matches!(report.kind, OperationKind::Upgrade | OperationKind::Rollback) {
        text.push_str("\ngates\n  none was evaluated: its workers alone were judged\n");
    }
    text.push_str("\ntasks\n");
    let counts = &report.tasks;
    text.push_str(&format!(
        "  {} finished, {} handed over, {} lost; {} connections cut\n",
        counts.finished, counts.handed_over, counts.lost, report.connections_cut
    ));
    for lost in &report.lost_tasks {
        text.push_str(&format!("  {} {}\n", lost.task, lost.why));
    }
    for (name, durations) in [("before", &report.before), ("after", &report.after)] {
        text.push_str(&durations_line(name, durations.as_ref()));
    }
    text.push_str(&checkpoints(report));
    if !report.effects.is_empty() {
        text.push_str("\neffects of the version that was taken back, which rollback does not undo\n");
        let list = EffectList { effects: report.effects.clone(), more: false };
        text.push_str(&super::effects::table(&list, now, width));
    }
    text
}

/// What the new version was shown of open checkpoints.
fn checkpoints(report: &DeploymentReport) -> String {
    let Some(seen) = report.checkpoints.as_ref().filter(|seen| seen.open > 0) else { return String::new() };
    let shown = if seen.shown > 0 { format!(", {} shown to its check", seen.shown) } else { String::new() };
    let mut text = format!("\ncheckpoints\n  {} open{shown}, {} not read by {}", seen.open, seen.unread, report.to);
    text.push_str(if seen.unread > 0 { ": their tasks stay with the old version until they end,\n  however long that takes; `agentctl tasks cancel ID` ends one\n" } else { "\n" });
    for unread in &seen.tasks {
        text.push_str(&format!("  {}: {}\n", unread.task, unread.why));
    }
    let more = seen.unread.saturating_sub(seen.tasks.len() as u64);
    if more > 0 {
        text.push_str(&format!("  and {more} more\n"));
    }
    text
}

fn durations_line(name: &str, durations: Option<&Durations>) -> String {
    match durations {
        Some(d) => {
            let few = if d.n < 500 { " (of few tasks)" } else { "" };
            format!("  {name:<6} {} tasks, p50 {}, p99 {}{few}\n", d.n, ms(d.p50_ms), ms(d.p99_ms))
        }
        None => format!("  {name:<6} no task was told of\n"),
    }
}

/// Milliseconds for people, with a tenth of a second where two versions might differ by that.
pub(crate) fn ms(ms: u64) -> String {
    let tenths = (ms + 50) / 100;
    match (tenths, tenths % 10) {
        (10..100, 0) => format!("{}s", tenths / 10),
        (10..100, tenth) => format!("{}.{tenth}s", tenths / 10),
        _ => span(Duration::from_millis(ms)),
    }
}

/// The gates as a table, those without figures in a line below it; nothing where there are none.
pub(crate) fn gates(gates: &[GateView], width: Option<usize>) -> String {
    if gates.is_empty() {
        return String::new();
    }
    let mut table = Table::new(GATES, 2);
    let (silent, told): (Vec<&GateView>, Vec<&GateView>) = gates.iter().partition(|gate| is_silent(gate.verdict));
    for gate in &told {
        let figure =
            |value: Option<f64>| Cell::plain(value.map_or_else(|| NOTHING.to_owned(), |v| figure(&gate.gate, v)));
        let style = match gate.verdict {
            GateVerdict::Rollback => state::BAD,
            GateVerdict::Hold => state::WARN,
            GateVerdict::Promote => state::GOOD,
            GateVerdict::TooFew | GateVerdict::NotEvaluated | GateVerdict::Off | GateVerdict::Unknown => state::FAINT,
        };
        table.row(
            vec![
                Cell::plain(gate.gate.replace('_', " ")),
                Cell::styled(verdict(gate.verdict), style),
                Cell::plain(if gate.n == 0 { NOTHING.to_owned() } else { gate.n.to_string() }),
                figure(gate.observed),
                figure(gate.baseline),
                Cell::plain(if gate.n == 0 { NOTHING.to_owned() } else { evidence(gate.log_e) }),
            ],
            Vec::new(),
        );
    }
    let mut text = if told.is_empty() { String::new() } else { table.render(width) };
    for (verdict, why) in [
        (GateVerdict::NotEvaluated, "not evaluated, for want of tasks that tell of it"),
        (GateVerdict::Off, "off"),
        (GateVerdict::Unknown, "unknown"),
    ] {
        let of: Vec<String> =
            silent.iter().filter(|gate| gate.verdict == verdict).map(|gate| gate.gate.replace('_', " ")).collect();
        if !of.is_empty() {
            let line = format!("{why}: {}", of.join(", "));
            for line in super::table::wrap(&line, width.map(|width| width.saturating_sub(2).max(20))) {
                text.push_str(&format!("  {line}\n"));
            }
        }
    }
    text
}

/// Whether a verdict comes without figures.
const fn is_silent(verdict: GateVerdict) -> bool {
    match verdict {
        GateVerdict::NotEvaluated | GateVerdict::Off | GateVerdict::Unknown => true,
        GateVerdict::Rollback | GateVerdict::Hold | GateVerdict::TooFew | GateVerdict::Promote => false,
    }
}

/// A gate in a few words; none where there is nothing to tell.
pub(crate) fn in_brief(gate: &GateView) -> Option<String> {
    let (observed, name) = (gate.observed?, gate.gate.replace('_', " "));
    let before = gate.baseline.map_or_else(|| "nothing".to_owned(), |value| figure(&gate.gate, value));
    let (now, e) = (figure(&gate.gate, observed), evidence(gate.log_e));
    Some(format!("{name} {now} of {} against {before}, evidence {e}", gate.n))
}

/// A verdict as a word.
pub(crate) const fn verdict(verdict: GateVerdict) -> &'static str {
    match verdict {
        GateVerdict::Rollback => "worse",
        GateVerdict::Hold => "hold",
        GateVerdict::TooFew => "too few tasks",
        GateVerdict::Promote => "good",
        GateVerdict::NotEvaluated => "not evaluated",
        GateVerdict::Off => "off",
        GateVerdict::Unknown => "unknown",
    }
}

/// A gate's figure in its unit.
pub(crate) fn figure(gate: &str, value: f64) -> String {
    match gate {
        "error_rate" | "context" => format!("{:.1} %", value * 100.0),
        "latency" => ms(u64::try_from(Duration::try_from_secs_f64(value).unwrap_or_default().as_millis()).unwrap_or(0)),
        "cost" => format!("${value:.4}"),
        "tokens" => format!("{value:.0}"),
        "quality" => format!("{value:.2}"),
        _ => format!("{value:.1}"),
    }
}

/// Evidence as a number: 1 says nothing, 160 is enough.
pub(crate) fn evidence(log_e: f64) -> String {
    match log_e.exp() {
        e if e > 9999.0 => "> 9999".to_owned(),
        e if e >= 10.0 => format!("{e:.0}"),
        e => format!("{e:.1}"),
    }
}

#[cfg(test)]
pub(super) fn sample() -> DeploymentReport {
    serde_json::from_value(serde_json::json!({
        "id": 17, "app": "support", "kind": "upgrade", "strategy": "canary", "from": "1.4.0+ab12cd34",
        "to": "1.5.0+cd34ef56", "from_generation": 3, "to_generation": 4, "state": "rolled_back",
        "why": "error_rate is 14.6 % over 41 tasks, it was 1.0 % (evidence 412, from 160 on it is worse)",
        "started_at": "2026-01-02T03:00:00Z", "finished_at": "2026-01-02T03:04:05Z",
        "stages": [
            {"name": "raising", "percent": 0, "at": "2026-01-02T03:00:00Z"},
            {"name": "verifying", "percent": 0, "at": "2026-01-02T03:00:02Z"},
            {"name": "sharing", "percent": 10, "at": "2026-01-02T03:00:12Z"},
            {"name": "back", "percent": null, "at": "2026-01-02T03:04:00Z"}
        ],
        "tasks": {"finished": 3, "handed_over": 1, "lost": 0}, "lost_tasks": [], "connections_cut": 0,
        "gates": [
            {"gate": "error_rate", "n": 41, "observed": 0.146, "baseline": 0.01, "log_e": 6.02, "verdict": "rollback"},
            {"gate": "latency", "n": 41, "observed": 3.1, "baseline": 3.0, "log_e": -0.4, "verdict": "promote"},
            {"gate": "cost", "n": 0, "observed": null, "baseline": null, "log_e": 0.0, "verdict": "not_evaluated"}
        ],
        "verdicts": [
            {"at": "2026-01-02T03:00:12Z", "verdict": "too_few", "why": "0 of the 30 tasks", "gates": []},
            {"at": "2026-01-02T03:04:00Z", "verdict": "rollback", "why": "error_rate is 14.6 %", "gates": []}
        ],
        "before": {"n": 600, "p50_ms": 2900, "p99_ms": 9000, "curve_ms": [500, 1500, 2900, 4000, 9500]},
        "after": {"n": 41, "p50_ms": 3000, "p99_ms": 9900, "curve_ms": [600, 1600, 3000, 4100, 9900]},
        "effects": [{"app": "support", "task": "t1", "key": "3:mail", "kind": "mail", "state": "done",
            "release": "1.5.0+cd34ef56", "fence": 1, "description": "a mail to <b>", "compensate": null, "error": null,
            "begun_at": "2026-01-02T03:01:00Z", "ended_at": "2026-01-02T03:01:01Z"}],
        "hooks": [{"on": "before_stage", "hook": 1, "percent": 10, "command": ["./approve.sh", "--within=1m"],
            "state": "done", "why": null, "begun_at": "2026-01-02T03:00:11Z", "took_ms": 800,
            "output": ["asked the desk", "yes"]}]
    }))
    .expect("a report")
}

#[cfg(test)]
mod tests {
    use super::super::fixture::plain;
    use super::*;

    #[test]
    fn a_report_tells_each_step_each_gate_and_what_stays_of_a_bad_version() {
        let now = "2026-01-02T04:00:00Z".parse().unwrap();
        let text = plain(&report(&sample(), now, Some(80)));
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        insta::assert_snapshot!(text);
    }

    #[test]
    fn the_list_has_a_line_for_each_and_says_why() {
        let now = "2026-01-02T04:00:00Z".parse().unwrap();
        insta::assert_snapshot!(plain(&table(&[sample()], now, Some(80))));
        assert_eq!(table(&[], now, None), "nothing was deployed yet\n");
    }
}
