//! The commands that an upgrade would run, in their order, for `upgrade --dry-run`.
//!
//! ```text
//!  build ─► before_deployment ─► check ─► (eval ─► before_stage ─► after_stage) a step ─► deployed, reload
//!                                                                                   └─ taken back ─► rollback, reload
//! ```
//!
//! A rolling one has no such steps: `eval` looks at its first new workers, once.
//!
//! Names them, decides nothing, and knows nothing of hooks for what is not the deployment's own, such as a crash.

use agentd_core::rollout::{Plan, Strategy};
use agentd_protocol::control::PlannedRun;

use crate::config::{AppConfig, Manifest, Occasion};

/// What a deployment of `config` by `strategy` runs; `manifest` is of its release, where there is one.
pub(super) fn runs(config: &AppConfig, strategy: Strategy, manifest: Option<&Manifest>) -> Vec<PlannedRun> {
    let plan = config.upgrade.plan(strategy);
    let steps = steps(&plan);
    let awaited = |on: &str, command: &[String], percents: &[u8]| PlannedRun {
        on: on.to_owned(),
        command: command.to_vec(),
        percents: percents.to_vec(),
        awaited: true,
    };
    let mut runs = Vec::new();
    runs.extend(
        manifest.and_then(|manifest| manifest.build.as_ref()).map(|build| awaited("build", &build.command, &[])),
    );
    runs.extend(hooks(config, Occasion::BeforeDeployment, &[]));
    let check = manifest.map(|manifest| &manifest.check).filter(|check| !check.is_empty());
    runs.extend(check.map(|check| awaited("check", check, &[])));
    if plan.verifies && config.reload.max_surge > 0 {
        runs.extend(config.upgrade.eval.iter().map(|command| awaited("eval", command, &[])));
    }
    if !steps.is_empty() {
        runs.extend(config.upgrade.eval.iter().map(|command| awaited("eval", command, &steps)));
        runs.extend(hooks(config, Occasion::BeforeStage, &steps));
        runs.extend(hooks(config, Occasion::AfterStage, &steps));
    }
    for on in [Occasion::Deployed, Occasion::Reload, Occasion::Rollback] {
        runs.extend(hooks(config, on, &[]));
    }
    runs
}

/// Percents of its steps; none where connections are not shared out by steps.
fn steps(plan: &Plan) -> Vec<u8> {
    match plan.strategy {
        Strategy::Canary if !plan.steps.is_empty() => plan.steps.clone(),
        Strategy::Canary | Strategy::BlueGreen => vec![100],
        Strategy::Rolling | Strategy::Recreate => Vec::new(),
    }
}

fn hooks(config: &AppConfig, on: Occasion, percents: &[u8]) -> impl Iterator<Item = PlannedRun> {
    let hooks = config.hooks.iter().filter(move |hook| hook.on.contains(&on));
    hooks.map(move |hook| PlannedRun {
        on: on.as_str().to_owned(),
        command: hook.command.clone(),
        percents: percents.to_vec(),
        awaited: matches!(on, Occasion::BeforeDeployment | Occasion::BeforeStage),
    })
}
