//! `upgrade --dry-run`: what differs, by which road it should go, what would become of what is in flight.

use std::collections::BTreeSet;

use agentd_core::diff::{Difference, Work};
use agentd_core::id::AppName;
use agentd_core::release::Leap;
use agentd_core::release::advice::{Part, Road, Whose, advise};
use agentd_core::rollout::Strategy;
use agentd_protocol::control::{Reply, UpgradeParams, UpgradePlan};

use tokio::sync::oneshot;

use super::Dispatcher;
use super::control::Answer;
use super::planned;
use super::tell::strategy as wire_strategy;
use super::upgrade::core_strategy;
use super::wish::Wish;
use crate::config::{self, AppConfig, AppKind, Manifest, SkillKind};
use crate::control::ReplySink;
use crate::releases::Cut;
use crate::tasks::{Command, Inspect, Inspected};

/// Fields whose change is no change of what runs.
const NOT_OF_IT: [&str; 2] = ["cwd", "file"];

impl Dispatcher {
    /// Answers a dry run, now that its source was looked at.
    pub(super) fn show_plan(&mut self, wish: &Wish, reply: ReplySink, cut: &Cut) {
        let Wish::Upgrade(params) = wish else {
            // Nobody else looks.
            return;
        };
        let plan = match self.plan_upgrade(params, Some(cut)) {
            Ok(plan) => plan,
            Err(error) => return reply.finish(Err(error)),
        };
        self.with_checkpoints(plan, &cut.manifest, reply);
    }

    /// Answers a dry run with what would become of open checkpoints.
    fn with_checkpoints(&self, mut plan: UpgradePlan, manifest: &Manifest, reply: ReplySink) {
        let Ok(app) = plan.app.parse::<AppName>() else { return reply.finish(Ok(Reply::UpgradePlan(Box::new(plan)))) };
        let configured = self.current_record(&app).ok().and_then(|record| record.config.tasks.state_version);
        let (answer, inspected) = oneshot::channel();
        let reads = manifest.state_version.or(configured);
        self.tell_tasks(Command::Inspect(Box::new(Inspect { app, reads, copies: None, answer })));
        let checks = !manifest.check.is_empty();
        tokio::spawn(async move {
            // Without a ledger there are no checkpoints.
            if let Ok(Ok(found)) = inspected.await {
                plan.in_flight.extend(checkpoints(&found, checks));
            }
            reply.finish(Ok(Reply::UpgradePlan(Box::new(plan))));
        });
    }

    /// What an upgrade would do; `cut` is what its source holds, for an app that has one.
    pub(super) fn plan_upgrade(&self, params: &UpgradeParams, cut: Option<&Cut>) -> Answer<UpgradePlan> {
        let app = self.one(&params.name)?;
        let (mut config, current) = self.config_anew(&app)?;
        if config.command.is_empty() {
            config.command = cut.map(|cut| cut.manifest.command.clone()).unwrap_or_default();
        }
        let mut parts: BTreeSet<Part> = BTreeSet::new();
        let mut changes = changed_fields(&current.config, &config, &mut parts);
        let mut leap = Leap::Minor;
        if let Some(looked) = cut.and_then(|cut| Some((cut, cut.difference.as_ref()?))) {
            let (cut, looked) = looked;
            if let Some(before) = &looked.before {
                leap = before.version.leap(&cut.manifest.version);
                changes.extend(changed_manifest(before, &cut.manifest, &mut parts));
            }
            if looked.files > 0 {
                let files = if looked.files == 1 { "1 file".to_owned() } else { format!("{} files", looked.files) };
                changes.push(format!("code: {files}"));
                changes.extend(looked.shown.iter().map(|line| format!("  {line}")));
                let more = looked.files.saturating_sub(looked.shown.len() as u64);
                changes.extend((more > 0).then(|| format!("  and {more} more")));
            }
            parts.extend(&looked.parts);
        }
        let advice = advise(whose(&config, cut.map(|cut| &cut.manifest)), &parts, leap);
        let asked = params.strategy.map(core_strategy).transpose()?.unwrap_or(config.upgrade.strategy);
        let advised = match advice.road {
            Road::Deploy(strategy) => Some(strategy),
            Road::HotSwap => Some(Strategy::Rolling),
            Road::Refresh | Road::Stay => None,
        };
        let taken_back = cut.and_then(|cut| self.why_bad(&app, &cut.id));
        let generation = self.fleet.app(&app).map_or(0, |app| app.head.generation.0);
        Ok(UpgradePlan {
            app: app.to_string(),
            from: current.label(generation),
            to: cut.map(|cut| cut.id.to_string()),
            source: cut.map(|cut| cut.origin.clone()),
            changes,
            strategy: Some(wire_strategy(asked)),
            advised: advised.map(wire_strategy),
            because: Some(advice.because.to_owned()),
            taken_back,
            in_flight: self.in_flight_under(&app, asked, advice.sessions),
            runs: planned::runs(&config, asked, cut.map(|cut| &cut.manifest)),
        })
    }

    /// What would become of what is in flight, a sentence each.
    fn in_flight_under(&self, app: &AppName, strategy: Strategy, advised: &str) -> Vec<String> {
        let Some(state) = self.fleet.app(app) else { return Vec::new() };
        let view = self.app_view(state);
        let what = match strategy {
            Strategy::Rolling | Strategy::Recreate => {
                "the worker that has them finishes them, or hands them over, before it ends"
            }
            Strategy::BlueGreen => {
                "they stay with the old generation, which is kept until all of the new one has served"
            }
            Strategy::Canary => "they stay where they are; new ones are shared out by the steps",
        };
        let mut lines = vec![format!("{} in flight now: {what}", view.in_flight)];
        if strategy == Strategy::Recreate {
            lines.push(
                "connections wait in the queue from the end of the old workers to the start of the new".to_owned(),
            );
        }
        lines.push(format!("by the advised road: {advised}"));
        lines
    }
}

/// What would become of open checkpoints, in a sentence; none where there are none.
fn checkpoints(found: &Inspected, checks: bool) -> Option<String> {
    let newer = match found.newer.len() {
        0 => String::new(),
        newer => format!("{newer} newer than it reads, whose tasks stay with the old generation until they end; "),
    };
    let rest = if checks {
        "its check tells, before the cut-over, which others it cannot read"
    } else {
        "it is taken to read the rest"
    };
    (found.open > 0).then(|| format!("{} open checkpoints, {newer}{rest}", found.open))
}

/// Fields of the configuration that differ, as lines; and the parts that they belong to.
fn changed_fields(old: &AppConfig, new: &AppConfig, parts: &mut BTreeSet<Part>) -> Vec<String> {
    let [before, after] = [old, new].map(|config| config::describe(config, None));
    let mut lines = Vec::new();
    for change in Difference::between(Some(&before), Some(&after)).changes {
        if NOT_OF_IT.contains(&change.field.as_str()) {
            continue;
        }
        if let Some(name) = change.field.strip_prefix("env.") {
            parts.extend(parts_of_variable(new, name));
            lines.push(format!("{}: (not shown)", change.field));
            continue;
        }
        if change.work > Work::InPlace {
            parts.insert(Part::Code);
        }
        let shown = |value: Option<String>| value.unwrap_or_else(|| "(default)".to_owned());
        lines.push(format!("{}: {} → {}", change.field, shown(change.old), shown(change.new)));
    }
    lines
}

/// The parts that name this variable; code, where none does.
fn parts_of_variable(config: &AppConfig, name: &str) -> BTreeSet<Part> {
    let named = config.releases.iter().flat_map(|releases| &releases.changes);
    let mut parts: BTreeSet<Part> =
        named.filter(|(_, patterns)| patterns.iter().any(|pattern| pattern == name)).map(|(part, _)| *part).collect();
    if parts.is_empty() {
        parts.insert(Part::Code);
    }
    parts
}

/// Keys of the manifest that differ, as lines.
fn changed_manifest(old: &Manifest, new: &Manifest, parts: &mut BTreeSet<Part>) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = |key: &str, old: String, new: String| {
        if old != new {
            lines.push(format!("{key}: {old} → {new}"));
        }
    };
    let number = |version: Option<u32>| version.map_or_else(|| "none".to_owned(), |version| version.to_string());
    let words = |words: &[String]| if words.is_empty() { "none".to_owned() } else { words.join(" ") };
    let build =
        |manifest: &Manifest| manifest.build.as_ref().map_or_else(|| "none".to_owned(), |build| words(&build.command));
    line("version", old.version.to_string(), new.version.to_string());
    line("state_version", number(old.state_version), number(new.state_version));
    line("command", words(&old.command), words(&new.command));
    line("build", build(old), build(new));
    if old.state_version != new.state_version {
        parts.insert(Part::Core);
    }
    if old.command != new.command || old.build != new.build {
        parts.insert(Part::Code);
    }
    lines
}

fn whose(config: &AppConfig, manifest: Option<&Manifest>) -> Whose {
    match config.kind {
        AppKind::Agent => Whose::Agent,
        AppKind::Skill(SkillKind::Worker) => Whose::WorkerSkill,
        AppKind::Skill(SkillKind::Service) if manifest.is_some_and(|manifest| manifest.state_version.is_some()) => {
            Whose::StatefulSkill
        }
        AppKind::Skill(SkillKind::Service) => Whose::StatelessSkill,
    }
}
