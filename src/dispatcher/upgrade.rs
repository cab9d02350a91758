//! Requests about releases: put another one in an app's place, put one back, steer the deployment that runs.

use agentd_core::admission::Request as CoreRequest;
use agentd_core::app::Steer;
use agentd_core::effect::OperationKind as CoreKind;
use agentd_core::id::AppName;
use agentd_core::rollout::Strategy;
use agentd_core::worker::Phase;
use agentd_protocol::control::{
    Changed, ErrorKind, ErrorObject, OperationKind, OperationView, Reply, Steered, UpgradeParams,
};
use agentd_protocol::status::Strategy as WireStrategy;

use super::Dispatcher;
use super::control::{Answer, refusal};
use super::prepare::Prepared;

impl Dispatcher {
    /// The request that puts today's configuration in the place of the one that serves.
    pub(super) fn prepare_upgrade(&mut self, params: &UpgradeParams) -> Answer<Vec<Prepared>> {
        let mut prepared = self.prepare_anew(&[self.one(&params.name)?], CoreKind::Upgrade)?;
        let asked = params.strategy.map(core_strategy).transpose()?;
        self.watch_longer(&mut prepared, asked);
        // A release that serves already, with the configuration that it has.
        prepared.retain(|part| !self.serves_already(part));
        if !params.force {
            prepared.iter().try_for_each(|part| self.not_taken_back(part))?;
        }
        Ok(prepared)
    }

    /// That what is to be deployed was not taken back before.
    fn not_taken_back(&self, part: &Prepared) -> Answer<()> {
        let release = part.record.as_ref().and_then(|(_, record)| record.release.as_ref());
        let Some((release, why)) =
            release.and_then(|release| Some((release, self.why_bad(part.request.app(), &release.id)?)))
        else {
            return Ok(());
        };
        let app = part.request.app();
        let help = format!("change what it is cut from, or `agentctl upgrade {app} --force` to deploy it once more");
        Err(ErrorObject::new(ErrorKind::Refused, format!("{} was taken back before: {why}", release.id))
            .with_help(help))
    }

    /// Whether nothing would change: the same release, the same configuration. An app that runs in place is not known so
    /// well: its files may have changed.
    fn serves_already(&self, part: &Prepared) -> bool {
        let Some((revision, record)) = &part.record else { return false };
        let serving = self.fleet.app(part.request.app()).map(|app| app.head.revision);
        record.release.is_some() && serving == Some(*revision)
    }

    /// That an app has what was asked for; an error where nobody of it serves any more.
    pub(super) fn serves_it(&self, name: &str) -> Answer<Reply> {
        let app = self.one(name)?;
        let state = self.fleet.app(&app).ok_or_else(|| self.no_such_app(name))?;
        let release = self.current_record(&app)?.release.as_ref().map(|release| release.id.to_string());
        let has_failed = state.workers.values().any(|worker| worker.state.phase() == Phase::Failed);
        if has_failed && state.ready() == 0 {
            let what = release.as_deref().unwrap_or("it");
            let why = format!("{app} has {what} already, and its workers have failed");
            return Err(ErrorObject::new(ErrorKind::Refused, why).with_help(format!(
                "`agentctl describe {app}` says why; `agentctl rollback {app}` puts the release before in its place, \
                 `agentctl start {app}` tries this one again"
            )));
        }
        let view = OperationView {
            id: 0,
            app: name.to_owned(),
            kind: OperationKind::Upgrade,
            already: true,
            note: release.map(|release| format!("{release} serves")),
        };
        Ok(Reply::Changed(Changed { operations: vec![view], results: Vec::new() }))
    }

    /// Says something to the deployment of an app.
    pub(super) fn steer(&mut self, name: &str, steer: Steer) -> Answer<Reply> {
        let app = self.one(name)?;
        if steer == Steer::Abort
            && let Some(id) = self.abort_cut(&app, "it was aborted")
        {
            let state = self.fleet.app(&app).ok_or_else(|| self.no_such_app(name))?;
            let view = self.app_view(state);
            return Ok(Reply::Steered(Box::new(Steered { app: app.to_string(), deployment: Some(id.0), view })));
        }
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

    pub(super) fn one(&self, name: &str) -> Answer<AppName> {
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

pub(super) fn core_strategy(strategy: WireStrategy) -> Answer<Strategy> {
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
