//! What `upgrade --dry-run` shows.

use std::fmt::Write as _;

use agentd_protocol::control::{PlannedRun, UpgradePlan};
use agentd_protocol::status::Strategy;

use super::table::wrap;

/// The whole of it at `width`.
pub(crate) fn page(plan: &UpgradePlan, width: Option<usize>) -> String {
    let to = plan.to.as_deref().unwrap_or("today's configuration");
    let mut text = format!("{}: {} → {to}\n", plan.app, plan.from);
    let mut line = |indent: usize, words: &str| {
        for part in wrap(words, width.map(|width| width.saturating_sub(indent).max(20))) {
            // Writing to a text cannot fail.
            let _ = writeln!(text, "{:indent$}{part}", "");
        }
    };
    if let Some(source) = &plan.source {
        line(2, &format!("from {source}"));
    }
    line(0, "changes");
    if plan.changes.is_empty() {
        line(2, "nothing");
    }
    for change in &plan.changes {
        line(if change.starts_with(' ') { 4 } else { 2 }, change.trim_start());
    }
    let would = plan.strategy.map_or("unknown", word);
    let because = plan.because.as_deref().unwrap_or_default();
    line(0, "strategy");
    match plan.advised {
        Some(advised) if Some(advised) == plan.strategy => {
            line(2, &format!("{would}, as such a change asks for: {because}"))
        }
        Some(advised) => {
            line(2, &format!("{would}, as configured or asked for"));
            line(2, &format!("advised: {} (--strategy {}): {because}", word(advised), word(advised)));
        }
        None => line(2, &format!("{would}; advised is none: {because}")),
    }
    if let Some(why) = &plan.taken_back {
        line(0, "taken back before, and only deployed again with --force");
        line(2, why);
    }
    line(0, "in flight");
    for sentence in &plan.in_flight {
        line(2, sentence);
    }
    if !plan.runs.is_empty() {
        line(0, "runs");
    }
    for run in &plan.runs {
        line(2, &run_line(run));
    }
    text
}

fn run_line(run: &PlannedRun) -> String {
    let at = match run.percents.as_slice() {
        [] => String::new(),
        percents => {
            let percents: Vec<String> = percents.iter().map(|percent| format!("{percent} %")).collect();
            format!(" at {}", percents.join(", "))
        }
    };
    let command = run.command.join(" ");
    match run.on.as_str() {
        "rollback" => format!("rollback, should it be taken back: {command}"),
        on if run.awaited => format!("{on}{at}, awaited: {command}"),
        on => format!("{on}{at}: {command}"),
    }
}

fn word(strategy: Strategy) -> &'static str {
    match strategy {
        Strategy::Rolling => "rolling",
        Strategy::BlueGreen => "blue-green",
        Strategy::Canary => "canary",
        Strategy::Recreate => "recreate",
        Strategy::Unknown => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_plan_says_what_differs_and_which_strategy_that_asks_for() {
        let plan = json!({"app": "support", "from": "1.4.0+ab12cd34", "to": "1.5.0+0011aabb", "source": "/srv/support",
            "changes": ["env.MODEL: (not shown)", "code: 2 files", "  ~ main.py", "  + prompts/a.txt"],
            "strategy": "rolling", "advised": "canary", "because": "model or prompt change in a minor version",
            "in_flight": ["3 in flight now: they finish"],
            "runs": [{"on": "before_deployment", "command": ["./migrate.sh"], "percents": [], "awaited": true},
                {"on": "eval", "command": ["python3", "eval.py"], "percents": [10, 100], "awaited": true},
                {"on": "deployed", "command": ["./tell.sh"], "percents": [], "awaited": false},
                {"on": "rollback", "command": ["./tell.sh"], "percents": [], "awaited": false}]});
        let plan: UpgradePlan = serde_json::from_value(plan).expect("a plan");
        insta::assert_snapshot!("eighty", page(&plan, Some(80)));
    }
}
