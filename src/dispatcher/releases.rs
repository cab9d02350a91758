//! The releases of all apps: recorded, installed, told of, let go of.

use std::collections::{BTreeMap, BTreeSet};

use agentd_core::admission::Request as CoreRequest;
use agentd_core::app::Desired;
use agentd_core::effect::{OperationKind as CoreKind, OperationResult};
use agentd_core::id::{AppName, Operation, Revision};
use agentd_core::policy::AppPolicy;
use agentd_core::release::ReleaseId;
use agentd_core::release::retention::{Kept, superfluous};
use agentd_core::rollout::StepName;
use agentd_core::worker::Worker;
use agentd_protocol::control::{
    ErrorKind, ErrorObject, ReleaseState, ReleaseView, Releases as ReleasesView, RollbackParams, StartTarget,
};
use agentd_protocol::events::EventKind;
use camino::Utf8PathBuf;
use jiff::Timestamp;

use super::Dispatcher;
use super::control::Answer;
use super::cutting::{Cutting, Need, Waiting};
use super::launch::release_name;
use super::postponed::Postponed;
use super::prepare::{Prepared, invalid};
use super::wish::Wish;
use crate::causes::in_full;
use crate::config::{self, AppConfig};
use crate::fault;
use crate::releases::store::{ReleaseFolders, is_passing, remove_aside};
use crate::releases::{Cut, Release, ReleaseRecord, Source, Verdict};
use crate::revision::{Origin, RevisionRecord};
use crate::store::{Change, Durability};

/// What the loop keeps of releases.
#[derive(Debug)]
pub(super) struct Releases {
    pub(super) folders: ReleaseFolders,
    known: BTreeMap<AppName, BTreeMap<ReleaseId, ReleaseRecord>>,
    /// What is being cut, by number.
    pub(super) cuts: BTreeMap<u64, Cutting>,
    pub(super) next_cut: u64,
    /// Requests that wait for it.
    pub(super) waiting: Vec<Waiting>,
    /// Upgrades among them, as they are written down.
    pub(super) postponed: Vec<Postponed>,
    /// What was cut for the request that is being carried out at this moment.
    pub(super) fresh: BTreeMap<AppName, Fresh>,
}

/// A release that was just cut.
#[derive(Clone, Debug)]
pub(super) struct Fresh {
    pub(super) release: Release,
    /// The number of what it was cut for.
    pub(super) operation: Operation,
}

impl Releases {
    pub(super) fn new(folders: ReleaseFolders) -> Self {
        Self {
            folders,
            known: BTreeMap::new(),
            cuts: BTreeMap::new(),
            next_cut: 0,
            waiting: Vec::new(),
            postponed: Vec::new(),
            fresh: BTreeMap::new(),
        }
    }

    /// The releases of an app.
    pub(super) fn of(&self, app: &AppName) -> impl Iterator<Item = &ReleaseRecord> {
        self.known.get(app).into_iter().flat_map(BTreeMap::values)
    }

    fn get_mut(&mut self, app: &AppName, id: &ReleaseId) -> Option<&mut ReleaseRecord> {
        self.known.get_mut(app)?.get_mut(id)
    }
}

impl Dispatcher {
    /// Takes up what an earlier daemon kept, and removes what one that died left behind: half a cut, half a removal, a
    /// folder that was never recorded, a record whose folder is gone.
    ///
    /// After damage to the database nothing that has a name is removed: its record may be what was lost.
    pub(super) fn restore_releases(&mut self, stored: Vec<(AppName, ReleaseRecord)>, damaged: bool) {
        let (mut gone, mut changes) = (Vec::new(), Vec::new());
        for (app, record) in stored {
            let known = self.fleet.app(&app).is_some();
            if known && record.release.folder.is_dir() {
                if damaged {
                    // The database was begun anew.
                    changes.push(Change::Release(app.clone(), Box::new(record.clone())));
                }
                self.releases.known.entry(app).or_default().insert(record.release.id.clone(), record);
            } else {
                tracing::info!(%app, release = %record.release.id, "a release is gone or nobody's");
                changes.push(Change::ReleaseGone(app, record.release.id));
            }
        }
        for (app, names) in self.releases.folders.found() {
            let known = app.parse::<AppName>().ok().and_then(|app| self.releases.known.get(&app));
            for name in names {
                let recorded = known.is_some_and(|known| known.keys().any(|id| id.as_str() == name));
                if is_passing(&name) || !(recorded || damaged) {
                    gone.push(self.releases.folders.path(&app, &name));
                }
            }
        }
        self.write_down(&changes, Durability::Process);
        remove_aside(gone);
    }

    /// Which releases have to be cut before a request can be carried out.
    pub(super) fn needs_of(&self, wish: &Wish) -> Answer<Vec<Need>> {
        let cuts = |configs: Vec<AppConfig>, env: &BTreeMap<String, String>| -> Vec<Need> {
            let first = |config: &AppConfig| config.releases.is_some() && self.release_for(&config.name).is_none();
            configs.into_iter().filter(first).filter_map(|config| need(config, env.clone())).collect()
        };
        match wish {
            Wish::Start(params) => match &params.target {
                StartTarget::File { path } => {
                    let configs = config::load_among(path.as_str().into(), &self.known()).map_err(invalid)?;
                    let idle = configs.into_iter().filter(|config| {
                        self.fleet.app(&config.name).is_none_or(|app| app.head.desired != Desired::Running)
                    });
                    Ok(cuts(idle.collect(), &params.env))
                }
                StartTarget::Script { .. } | StartTarget::Names { .. } => Ok(Vec::new()),
            },
            Wish::Apply(params) if params.dry_run => Ok(Vec::new()),
            Wish::Apply(params) => {
                let configs = config::load_among(params.path.as_str().into(), &self.known()).map_err(invalid)?;
                Ok(cuts(configs, &params.env))
            }
            Wish::Upgrade(params) => {
                let app = self.one(&params.name)?;
                let needs = self.needs_again(&app, params)?;
                if !params.dry_run && !needs.is_empty() {
                    self.may_upgrade(&app)?;
                }
                Ok(needs)
            }
        }
    }

    /// Whether an upgrade would be admitted just now: nobody shall wait for a release for nothing.
    pub(super) fn may_upgrade(&self, app: &AppName) -> Answer<()> {
        if let Some(denied) = self.cut_runs(app) {
            return Err(denied);
        }
        let (config, _) = self.config_anew(app)?;
        let (revision, policy) = (Revision(0), config.policy());
        let plan = config.upgrade.plan(config.upgrade.strategy);
        let request = CoreRequest::Upgrade { app: app.clone(), revision, policy, plan, kind: CoreKind::Upgrade };
        self.fleet.check(&request).map_err(|denied| super::control::refusal(&denied))
    }

    /// What an upgrade needs that was admitted already, or is yet to be.
    pub(super) fn needs_again(
        &self,
        app: &AppName,
        params: &agentd_protocol::control::UpgradeParams,
    ) -> Answer<Vec<Need>> {
        if self.releases.fresh.contains_key(app) {
            return Ok(Vec::new());
        }
        let (config, current) = self.config_anew(app)?;
        let Some(releases) = &config.releases else {
            if params.from.is_some() {
                let why = format!("{app} runs in place: nothing of it is cut into releases");
                let help = "give it a `source` in its configuration; what is there is upgraded without --from";
                return Err(ErrorObject::new(ErrorKind::Usage, why).with_help(help));
            }
            return Ok(Vec::new());
        };
        let asked = params.from.as_deref().map(str::parse::<Source>).transpose();
        let asked = asked.map_err(|why| ErrorObject::new(ErrorKind::Usage, format!("--from: {why}")))?;
        let source = asked.unwrap_or_else(|| releases.source.clone());
        if params.sha256.is_some() && !matches!(source, Source::Archive(_)) {
            let why = format!("--sha256 goes with an archive, and {source} is none");
            return Err(ErrorObject::new(ErrorKind::Usage, why));
        }
        let look = params.dry_run.then(|| current.release.as_ref().map(|release| release.folder.clone()));
        let (sha256, environment) = (params.sha256.clone(), current.environment.clone());
        Ok(vec![Need { app: app.clone(), config, environment, source, sha256, look }])
    }

    /// An app's configuration as its file has it now, and the one that it runs with.
    pub(super) fn config_anew(&self, app: &AppName) -> Answer<(AppConfig, std::sync::Arc<RevisionRecord>)> {
        let current = self.current_record(app)?;
        let config = match &current.origin {
            Origin::CommandLine => current.config.clone(),
            Origin::File { path } => {
                let configs = config::load_among(path, &self.known()).map_err(invalid)?;
                let found = configs.into_iter().find(|config| config.name == *app);
                found.ok_or_else(|| super::prepare::gone_from(app, path))?
            }
        };
        Ok((config, current))
    }

    /// The release that an app is to run: the one just cut for it, else the one that it has.
    pub(super) fn release_for(&self, app: &AppName) -> Option<Release> {
        if let Some(fresh) = self.releases.fresh.get(app) {
            return Some(fresh.release.clone());
        }
        self.fleet.app(app)?;
        self.current_record(app).ok()?.release.clone()
    }

    /// A configuration with the release that it is to run.
    pub(super) fn with_release(
        &self,
        config: AppConfig,
        origin: Origin,
        environment: BTreeMap<String, String>,
    ) -> Answer<RevisionRecord> {
        if config.releases.is_none() {
            return Ok(RevisionRecord::new(config, origin, environment, None));
        }
        let app = config.name.clone();
        let Some(release) = self.release_for(&app) else {
            let why = format!("{app} has a `source` now, and no release of it was cut yet");
            let help = format!("`agentctl upgrade {app}` cuts its first one");
            return Err(ErrorObject::new(ErrorKind::Usage, why).with_help(help));
        };
        self.fits(RevisionRecord::new(config, origin, environment, Some(release)))
    }

    /// That a release brings what its configuration leaves to it.
    fn fits(&self, record: RevisionRecord) -> Answer<RevisionRecord> {
        let (app, config) = (&record.config.name, &record.config);
        let refuse =
            |why: String| Err(ErrorObject::new(ErrorKind::Refused, why).with_help("nothing was started or changed"));
        if config.command.is_empty() {
            return refuse(format!("there is no command: neither the configuration of {app} nor its release has one"));
        }
        if let Some(problem) = config.placeholder_problem() {
            return refuse(format!("the command of {app}: {problem}"));
        }
        if let Some(release) = &record.release {
            let told = release.kind.map(config::AppKind::Skill);
            if told.is_some_and(|kind| kind != config.kind) && matches!(config.kind, config::AppKind::Skill(_)) {
                return refuse(format!("{app} is configured as another kind of skill than {} says", release.id));
            }
            if !config.cwd.is_dir() {
                return refuse(format!("{} has no folder {}", release.id, config.cwd));
            }
        }
        Ok(record)
    }

    /// Records what was cut and gives it its name.
    pub(super) fn install(&mut self, app: &AppName, cut: Cut) -> Result<Release, String> {
        if let Some(record) = self.releases.of(app).find(|record| record.release.id == cut.id) {
            return Ok(record.release.clone());
        }
        let Some(folder) = cut.folder else { return Err(format!("find {}, which was there a moment ago", cut.id)) };
        let release = Release {
            id: cut.id.clone(),
            folder: self.releases.folders.release(app, &cut.id),
            command: cut.manifest.command,
            state_version: cut.manifest.state_version,
            check: cut.manifest.check,
            kind: cut.manifest.kind,
        };
        let record = ReleaseRecord {
            release: release.clone(),
            hash: cut.hash,
            origin: cut.origin,
            cut_at: Timestamp::now(),
            bytes: cut.bytes,
            entries: cut.entries,
            build_ms: cut.build.map(super::view::milliseconds),
            verdict: Verdict::Untried,
            served_at: None,
            pinned: false,
            deployed: None,
        };
        self.write_down(&[Change::Release(app.clone(), Box::new(record.clone()))], Durability::Power);
        fault::point("recorded");
        if let Err(error) = self.releases.folders.install(&folder, app, &cut.id) {
            self.write_down(&[Change::ReleaseGone(app.clone(), cut.id)], Durability::Process);
            return Err(in_full(&error));
        }
        fault::point("named");
        let told =
            EventKind::ReleaseCut { release: cut.id.to_string(), origin: record.origin.clone(), bytes: cut.bytes };
        self.releases.known.entry(app.clone()).or_default().insert(cut.id, record);
        self.record(Some(app), None, told);
        Ok(release)
    }

    /// Lets go of the releases of an app that nobody needs any more; of all, when nobody knows the app.
    pub(super) fn retire_releases(&mut self, app: &AppName) {
        let Some(records) = self.releases.known.get(app) else { return };
        let shell = self.apps.get(app).filter(|_| self.fleet.app(app).is_some());
        let used: BTreeSet<&ReleaseId> = shell
            .iter()
            .flat_map(|shell| shell.revisions.values())
            .filter_map(|record| Some(&record.release.as_ref()?.id))
            .collect();
        let newest = shell.and_then(|shell| shell.revisions.values().next_back());
        let keep = match (shell, newest.and_then(|record| record.config.releases.as_ref())) {
            (Some(_), Some(releases)) => releases.keep,
            // Runs in place by now; the way back is by its configuration.
            (Some(_), None) => agentd_core::release::retention::KEEP,
            (None, _) => 0,
        };
        let kept: Vec<Kept> = records
            .values()
            .map(|record| Kept {
                id: record.release.id.clone(),
                runs: used.contains(&record.release.id),
                pinned: record.pinned && shell.is_some(),
                good: record.verdict == Verdict::Good && shell.is_some(),
                at: record.at(),
            })
            .collect();
        let gone = superfluous(&kept, keep);
        self.remove_releases(app, &gone);
    }

    /// Why a release was taken back; none where it was not.
    pub(super) fn why_bad(&self, app: &AppName, id: &ReleaseId) -> Option<String> {
        match &self.releases.of(app).find(|record| record.release.id == *id)?.verdict {
            Verdict::Bad { why } => Some(why.clone()),
            Verdict::Untried | Verdict::Good => None,
        }
    }

    /// Removes a release that was cut for something that then was refused: nothing is left of that.
    pub(super) fn drop_unused(&mut self, app: &AppName, id: &ReleaseId) {
        let of = |record: &RevisionRecord| record.release.as_ref().is_some_and(|release| release.id == *id);
        let used = self.apps.get(app).is_some_and(|shell| shell.revisions.values().any(|record| of(record)));
        let tried = self.releases.of(app).any(|record| {
            record.release.id == *id && (record.verdict != Verdict::Untried || record.deployed.is_some())
        });
        if !used && !tried {
            self.remove_releases(app, std::slice::from_ref(id));
        }
    }

    /// Nothing of the app is left.
    pub(super) fn forget_releases(&mut self, app: &AppName) {
        let all: Vec<ReleaseId> = self.releases.of(app).map(|record| record.release.id.clone()).collect();
        self.remove_releases(app, &all);
        self.releases.known.remove(app);
        // Gone already when it had none.
        let _ = std::fs::remove_file(self.home.logs.join("build").join(format!("{app}.log")));
    }

    fn remove_releases(&mut self, app: &AppName, gone: &[ReleaseId]) {
        if gone.is_empty() {
            return;
        }
        let changes: Vec<Change> = gone.iter().map(|id| Change::ReleaseGone(app.clone(), id.clone())).collect();
        self.write_down(&changes, Durability::Process);
        let mut aside: Vec<Utf8PathBuf> = Vec::new();
        for id in gone {
            tracing::info!(%app, release = %id, "nobody needs it any more");
            if let Some(records) = self.releases.known.get_mut(app) {
                records.remove(id);
            }
            match self.releases.folders.put_aside(app, id.as_str()) {
                Ok(path) => aside.push(path),
                Err(error) => tracing::warn!(error = in_full(&error), "a release stays on the disk"),
            }
        }
        remove_aside(aside);
    }

    /// What a worker's release is called.
    pub(super) fn release_label(&self, app: &AppName, revision: Revision, generation: u64) -> String {
        let record = self.apps.get(app).and_then(|shell| shell.revisions.get(&revision));
        record.map_or_else(|| release_name(generation), |record| record.label(generation))
    }

    /// What the release of a generation is called, for as long as somebody may ask.
    pub(super) fn label_of(&self, app: &AppName, generation: u64) -> String {
        let label = self.apps.get(app).and_then(|shell| shell.labels.get(&generation));
        label.cloned().unwrap_or_else(|| release_name(generation))
    }

    /// Remembers what both sides of a deployment are called: it is told of when they are gone.
    pub(super) fn remember_labels(&mut self, app: &AppName) {
        let Some(head) = self.fleet.app(app).map(|app| &app.head) else { return };
        let mut labels =
            BTreeMap::from([(head.generation.0, self.release_label(app, head.revision, head.generation.0))]);
        for side in head.rollout.iter().flat_map(|rollout| [rollout.from, rollout.to]) {
            labels.insert(side.generation.0, self.release_label(app, side.revision, side.generation.0));
        }
        if let Some(shell) = self.apps.get_mut(app) {
            shell.labels = labels;
        }
    }

    /// Notes what became of a release when what it was deployed by is over.
    pub(super) fn judge_release(&mut self, app: &AppName, finished: &agentd_core::effect::Finished) {
        let Some(state) = self.fleet.app(app) else { return };
        let serving = state.head.revision;
        let record = self.apps.get(app).and_then(|shell| shell.revisions.get(&serving)).cloned();
        let served = record.as_ref().and_then(|record| Some(record.release.as_ref()?.id.clone()));
        let mut changes = Vec::new();
        match (finished.kind, finished.result) {
            (
                CoreKind::Start
                | CoreKind::Reload
                | CoreKind::Restart
                | CoreKind::Adopt
                | CoreKind::Upgrade
                | CoreKind::Rollback,
                OperationResult::Done,
            ) => {
                let (Some(id), Some(revision)) = (served, record) else { return };
                let before = self.served_release(app, &id);
                if finished.kind == CoreKind::Rollback
                    && let Some(before) = before.and_then(|before| self.releases.get_mut(app, &before))
                {
                    before.verdict = Verdict::Bad { why: "somebody rolled it back".to_owned() };
                    changes.push(Change::Release(app.clone(), Box::new(before.clone())));
                }
                let Some(record) = self.releases.get_mut(app, &id) else { return };
                let anew =
                    record.verdict != Verdict::Good || matches!(finished.kind, CoreKind::Upgrade | CoreKind::Rollback);
                record.verdict = Verdict::Good;
                if anew || record.served_at.is_none() {
                    record.served_at = Some(Timestamp::now());
                }
                record.deployed = Some((*revision).clone());
                changes.push(Change::Release(app.clone(), Box::new(record.clone())));
            }
            (CoreKind::Upgrade | CoreKind::Rollback, OperationResult::RolledBack | OperationResult::Failed) => {
                let Some((_, to)) = finished.deployment else { return };
                let label = self.label_of(app, to.0);
                let Ok(id) = label.parse::<ReleaseId>() else { return };
                // The same release with another configuration is no worse for it, nor is one that was never begun with.
                let begun =
                    finished.steps.iter().any(|step| !matches!(step.name, StepName::Preparing | StepName::Back));
                if served.as_ref() == Some(&id) || !begun {
                    return;
                }
                let Some(record) = self.releases.get_mut(app, &id) else { return };
                record.verdict =
                    Verdict::Bad { why: finished.why.clone().unwrap_or_else(|| "it was taken back".to_owned()) };
                changes.push(Change::Release(app.clone(), Box::new(record.clone())));
            }
            (
                CoreKind::Start
                | CoreKind::Stop
                | CoreKind::Delete
                | CoreKind::Scale
                | CoreKind::Reload
                | CoreKind::Restart
                | CoreKind::Adopt
                | CoreKind::Upgrade
                | CoreKind::Rollback
                | CoreKind::Refresh,
                _,
            ) => {}
        }
        self.write_down(&changes, Durability::Power);
    }

    /// The release that served last before `now`, good ones only.
    fn served_release(&self, app: &AppName, now: &ReleaseId) -> Option<ReleaseId> {
        let good = self.releases.of(app).filter(|record| record.verdict == Verdict::Good && record.release.id != *now);
        good.max_by_key(|record| record.served_at).map(|record| record.release.id.clone())
    }

    /// The request that puts a release back that served before.
    pub(super) fn prepare_rollback(&mut self, params: &RollbackParams) -> Answer<Vec<Prepared>> {
        let app = self.one(&params.name)?;
        let current = self.current_record(&app)?;
        let Some(now) = current.release.as_ref().map(|release| release.id.clone()) else {
            return Err(self.no_release_before(&params.name));
        };
        if let Some(denied) = self.cut_runs(&app) {
            return Err(denied);
        }
        let refuse = |why: String| {
            let help = format!("`agentctl releases {app}` lists what is there");
            ErrorObject::new(ErrorKind::Refused, why).with_help(help)
        };
        let wanted = match &params.to {
            Some(text) => {
                let matching: Vec<&ReleaseRecord> =
                    self.releases.of(&app).filter(|record| named_by(&record.release.id, text)).collect();
                match matching.as_slice() {
                    [only] => only.release.id.clone(),
                    [] => return Err(refuse(format!("{app} has no release {text}"))),
                    [_, ..] => return Err(refuse(format!("{text} names several releases of {app}"))),
                }
            }
            None => self
                .served_release(&app, &now)
                .ok_or_else(|| refuse(format!("{app} has no good release before {now}")))?,
        };
        if wanted == now {
            return Err(refuse(format!("{app} runs {now} already")));
        }
        let record = self.releases.of(&app).find(|record| record.release.id == wanted).cloned();
        let Some(record) = record else { return Err(refuse(format!("{wanted} is gone"))) };
        // As it was deployed last; one that never was is deployed as the present one is.
        let revision = match record.deployed {
            Some(deployed) => RevisionRecord { environment: current.environment.clone(), ..deployed },
            None => {
                let (config, current) = self.config_anew(&app)?;
                let (origin, environment) = (current.origin.clone(), current.environment.clone());
                self.fits(RevisionRecord::new(config, origin, environment, Some(record.release)))?
            }
        };
        let mut prepared = vec![self.prepared(CoreKind::Rollback, revision)];
        self.watch_longer(&mut prepared, None);
        Ok(prepared)
    }

    /// The releases of an app, newest first.
    pub(super) fn list_releases(&self, name: &str) -> Answer<ReleasesView> {
        let app = self.one(name)?;
        let state = self.fleet.app(&app).ok_or_else(|| self.no_such_app(name))?;
        let current = self.current_record(&app)?;
        let serving = current.release.as_ref().map(|release| release.id.clone());
        let way_back = serving.as_ref().and_then(|now| self.served_release(&app, now));
        let shell = self.apps.get(&app);
        let runs = |id: &ReleaseId| -> Vec<&Worker> {
            let of = state.workers.values().filter(|worker| worker.state.process().is_some());
            let its = of.filter(|worker| {
                let record = shell.and_then(|shell| shell.revisions.get(&worker.revision));
                record.and_then(|record| record.release.as_ref()).is_some_and(|release| release.id == *id)
            });
            its.map(AsRef::as_ref).collect()
        };
        let staying = |worker: &&Worker| worker.launch().and_then(|launch| Some(self.processes.get(&launch)?.stay));
        let mut records: Vec<&ReleaseRecord> = self.releases.of(&app).collect();
        records.sort_by_key(|record| std::cmp::Reverse(record.cut_at));
        let releases = records.into_iter().map(|record| {
            let id = &record.release.id;
            let (state, why) = match &record.verdict {
                Verdict::Untried => (ReleaseState::Untried, None),
                Verdict::Good => (ReleaseState::Good, None),
                Verdict::Bad { why } => (ReleaseState::Bad, Some(why.clone())),
            };
            let workers = runs(id);
            let staying: u32 = workers.iter().filter_map(staying).fold(0, u32::saturating_add);
            ReleaseView {
                id: id.to_string(),
                version: id.version().to_string(),
                hash: record.hash.clone(),
                state,
                why,
                serving: serving.as_ref() == Some(id),
                rollback: way_back.as_ref() == Some(id),
                pinned: record.pinned || staying > 0,
                staying,
                workers: workers.into_iter().map(|worker| worker.id.to_string()).collect(),
                state_version: record.release.state_version,
                origin: record.origin.clone(),
                folder: record.release.folder.to_string(),
                bytes: record.bytes,
                entries: record.entries,
                cut_at: record.cut_at,
                build_ms: record.build_ms,
                served_at: record.served_at,
            }
        });
        let serves = Some(current.label(state.head.generation.0));
        let cutting = self.cutting_view(&app);
        Ok(ReleasesView { app: app.to_string(), serves, cutting, releases: releases.collect() })
    }

    /// Where agents find skills that listen: a variable a skill, whose value stays over upgrades.
    pub(super) fn skill_addresses(&self, but: &AppName) -> Vec<(String, String)> {
        let mut found = Vec::new();
        for app in self.fleet.apps().filter(|app| app.head.name != *but) {
            let name = &app.head.name;
            let Some(shell) = self.apps.get(name) else { continue };
            let Some(record) = shell.revisions.get(&app.head.revision) else { continue };
            if record.config.kind != config::AppKind::Skill(config::SkillKind::Service) {
                continue;
            }
            let listener = record.config.first_stream_listener();
            let Some(addr) = listener.and_then(|listener| record.config.listen.get(&listener)) else { continue };
            let local = shell.addresses.local(addr).unwrap_or_else(|| addr.clone());
            let variable = format!("AGENTD_SKILL_{}", name.as_str().to_ascii_uppercase().replace(['-', '.'], "_"));
            found.push((variable, local.reachable()));
        }
        found
    }

    /// Asks core for another policy where a new release is to be watched for longer.
    pub(super) fn watch_longer(&self, prepared: &mut [Prepared], strategy: Option<agentd_core::rollout::Strategy>) {
        for part in prepared {
            let Some((_, record)) = &part.record else { continue };
            let upgrade = &record.config.upgrade;
            if let CoreRequest::Upgrade { policy, plan, .. } = &mut part.request {
                *plan = upgrade.plan(strategy.unwrap_or(upgrade.strategy));
                // Where nobody says what its checkpoints are, there is nothing to find out.
                plan.checks = record.check().is_some() || record.state_version().is_some();
                let policy: &mut AppPolicy = policy;
                policy.reload.settle = policy.reload.settle.max(upgrade.min_uptime);
            }
        }
    }
}

/// Whether a person means this release by a text: its whole name, its version, or the beginning of its hash.
fn named_by(id: &ReleaseId, text: &str) -> bool {
    let hash = id.as_str().rsplit_once('+').map_or("", |(_, hash)| hash);
    id.as_str() == text || id.version().as_str() == text || (text.len() >= 4 && hash.starts_with(text))
}

fn need(config: AppConfig, environment: BTreeMap<String, String>) -> Option<Need> {
    let source = config.releases.as_ref()?.source.clone();
    Some(Need { app: config.name.clone(), config, environment, source, sha256: None, look: None })
}
