//! How a new release takes the place of the old one, and what it must hold to: `upgrade` and `gates`.

use std::collections::BTreeMap;
use std::time::Duration;

use agentd_core::rollout::{JudgedBy, Plan, Strategy};
use serde::{Deserialize, Serialize};

use super::document::words;
use super::reader::TableReader;
use super::sections;
use crate::sockets::ListenAddr;

/// How a new release is rolled out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Upgrade {
    /// By which road, where nobody says otherwise.
    pub strategy: Strategy,
    /// Percent of new connections at each step of a canary; rising, the last is 100.
    pub steps: Vec<u8>,
    /// Least time at each step.
    pub dwell: Duration,
    /// How long the old generation stays at hand after the last step.
    pub stability: Duration,
    /// In a rolling upgrade, how long a new worker is watched before the one that it replaces is told to end.
    pub min_uptime: Duration,
    /// What lets a canary take its next step.
    pub judged_by: JudgedBy,
    /// Commands that look at the new generation before it gets anything; a code other than 0 refuses it.
    #[serde(default)]
    pub eval: Vec<Vec<String>>,
    /// Longest run of one of them.
    pub eval_timeout: Duration,
}

impl Default for Upgrade {
    fn default() -> Self {
        Self {
            strategy: Strategy::Rolling,
            steps: vec![10, 25, 50, 100],
            dwell: Duration::from_secs(600),
            stability: Duration::from_secs(900),
            min_uptime: Duration::from_secs(10),
            judged_by: JudgedBy::Gates,
            eval: Vec::new(),
            eval_timeout: Duration::from_secs(300),
        }
    }
}

impl Upgrade {
    /// The plan of a deployment by `strategy`.
    #[must_use]
    pub fn plan(&self, strategy: Strategy) -> Plan {
        let staged = matches!(strategy, Strategy::BlueGreen | Strategy::Canary);
        Plan {
            strategy,
            steps: if strategy == Strategy::Canary { self.steps.clone() } else { Vec::new() },
            dwell: self.dwell,
            stability: if staged { self.stability } else { Duration::ZERO },
            judged_by: self.judged_by,
            checks: false,
            prepares: false,
            verifies: strategy == Strategy::Rolling && !self.eval.is_empty(),
        }
    }
}

pub(super) fn fill(upgrade: &mut Upgrade, table: &TableReader<'_>) {
    match table.get("strategy").and_then(|field| field.word()) {
        Some("rolling") => upgrade.strategy = Strategy::Rolling,
        Some("blue-green") => upgrade.strategy = Strategy::BlueGreen,
        Some("canary") => upgrade.strategy = Strategy::Canary,
        Some(_) => upgrade.strategy = Strategy::Recreate,
        None => {}
    }
    if let Some(field) = table.get("steps")
        && let Some(steps) = field.counts()
    {
        let steps: Vec<u8> = steps.into_iter().filter_map(|step| u8::try_from(step).ok()).collect();
        let rising = steps.windows(2).all(|pair| pair[0] < pair[1]);
        if !rising || steps.last() != Some(&100) {
            let diagnostic = field.diagnostic("`steps` are percents of new connections that do not rise to 100");
            field.report.add(diagnostic.expected("such as [10, 25, 50, 100]"));
        }
        upgrade.steps = steps;
    }
    for (name, place) in
        [("dwell", &mut upgrade.dwell), ("stability", &mut upgrade.stability), ("min_uptime", &mut upgrade.min_uptime)]
    {
        if let Some(duration) = sections::duration(table, name) {
            *place = duration;
        }
    }
    match table.get("judged_by").and_then(|field| field.word()) {
        Some("time") => upgrade.judged_by = JudgedBy::Time,
        Some(_) => upgrade.judged_by = JudgedBy::Gates,
        None => {}
    }
}

/// The part of `gates` that is commands.
pub(super) fn fill_eval(upgrade: &mut Upgrade, gates: &TableReader<'_>, listen: &BTreeMap<String, ListenAddr>) {
    if let Some(field) = gates.get("eval") {
        let command = words(&field, listen);
        if !command.is_empty() {
            upgrade.eval = vec![command];
        }
    }
    if let Some(timeout) = sections::pause(gates, "eval_timeout") {
        upgrade.eval_timeout = timeout;
    }
}
