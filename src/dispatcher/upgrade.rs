//! Requests about releases: put another one in an app's place, put one back, steer the deployment that runs.

use agentd_core::admission::Request as CoreRequest;
use agentd_core::app::Steer;
use agentd_core::effect::OperationKind as CoreKind;
use agentd_core::id::AppName;
use agentd_core::policy::AppPolicy;
use agentd_core::rollout::Strategy;
use agentd_protocol::control::{ErrorKind, ErrorObject, Reply, Steered, UpgradeParams};
use agentd_protocol::status::Strategy as WireStrategy;

use super::Dispatcher;
use super::control::{Answer, refusal};
use super::prepare::Prepared;

impl Dispatcher {
    /// The request that puts today's configuration in the place of the one that serves.
    pub(super) fn prepare_upgrade(&mut self, params: &UpgradeParams) -> Answer<Vec<Prepared>> {
        let names = self.named(std::slice::from_ref(&params.name))?;
        let mut prepared = self.prepare_anew(&names, CoreKind::Upgrade)?;
        let asked = params.strategy.map(core_strategy).transpose()?;
        for part in &mut prepared {
            let Some((_, record)) = &part.record else { continue };
            let upgrade = &record.config.upgrade;
            let strategy = asked.unwrap_or(upgrade.strategy);
            if let CoreRequest::Upgrade { policy, plan, .. } = &mut part.request {
                *plan = upgrade.plan(strategy);
                watched_for(policy, upgrade.min_uptime);
            }
        }
        Ok(prepared)
    }

    /// Says something to the deployment of an app.
    pub(super) fn steer(&mut self, name: &str, steer: Steer) -> Answer<Reply> {
        let app = self.one(name)?;
        let tick = self.tick();
        let request = CoreRequest::Steer { app: app.clone(), steer };
        let (admitted, outcome) = self.fleet.request(tick, request).map_err(|denied| refusal(&denied))?;
        self.carry_out(outcome);
        let deployment = match admitted {
            agentd_core::admission::Admitted::Steered(id) => Some(id.0),
            agentd_core::admission::Admitted::Begun(_) | agentd_core::admission::Admitted::AlreadySo => None,
        };
        let state = self.fleet.app(&app).ok_or_else(|| self.no_such_app(name))?;
        let view = self.app_view(state);
        Ok(Reply::Steered(Box::new(Steered { app: app.to_string(), deployment, view })))
    }

    fn one(&self, name: &str) -> Answer<AppName> {
        let known = name.parse::<AppName>().ok().filter(|name| self.fleet.app(name).is_some());
        known.ok_or_else(|| self.no_such_app(name))
    }

    /// That there is nothing to roll back to.
    pub(super) fn no_release_before(&self, name: &str) -> ErrorObject {
        match self.one(name) {
            Ok(app) => ErrorObject::new(ErrorKind::Refused, format!("{app} has no release before the present one"))
                .with_help("an app without a `source` is changed by its file and `agentctl upgrade`"),
            Err(error) => error,
        }
    }
}

/// A new release is watched for longer than a reload of the same one.
fn watched_for(policy: &mut AppPolicy, min_uptime: std::time::Duration) {
    policy.reload.settle = policy.reload.settle.max(min_uptime);
}

fn core_strategy(strategy: WireStrategy) -> Answer<Strategy> {
    match strategy {
        WireStrategy::Rolling => Ok(Strategy::Rolling),
        WireStrategy::BlueGreen => Ok(Strategy::BlueGreen),
        WireStrategy::Canary => Ok(Strategy::Canary),
        WireStrategy::Recreate => Ok(Strategy::Recreate),
        WireStrategy::Unknown => {
            let why = "this daemon does not know that strategy";
            Err(ErrorObject::new(ErrorKind::Usage, why).with_help("rolling, blue-green, canary or recreate"))
        }
    }
}
