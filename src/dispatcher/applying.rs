//! `apply`: a configuration against what runs. Told first, then done as one request: all of it is admitted, or none.
//!
//! What each app needs is judged by core (`diff`), and each is a transaction of its own: it comes to be as the
//! configuration says, or goes back to what it was, by its deployment's own way back or by core's undo. Nobody has to
//! wait for that: a client that goes away, or a supervisor that dies, changes nothing about it.

use std::sync::Arc;

use agentd_core::admission::Request as CoreRequest;
use agentd_core::app::{App, Desired, Rise};
use agentd_core::diff::{Difference, Work};
use agentd_core::id::{AppName, Revision};
use agentd_core::rollout::Direction;
use agentd_protocol::control::{
    AppDifference, Applied, ApplyParams, ErrorKind, ErrorObject, FieldChange, Reply, Work as WireWork,
};
use camino::{Utf8Path, Utf8PathBuf};

use super::Dispatcher;
use super::control::{Answer, refusal};
use super::prepare::{Prepared, invalid};
use crate::config::{self, AppConfig};
use crate::control::ReplySink;
use crate::revision::{Origin, RevisionRecord};

/// Fields whose values are nobody's business.
const SECRET: [&str; 1] = ["env."];

impl Dispatcher {
    pub(super) fn apply_configuration(&mut self, params: &ApplyParams, reply: ReplySink) {
        let (prepared, apps) = match self.prepare_apply(params) {
            Ok(both) => both,
            Err(error) => return reply.finish(Err(error)),
        };
        if params.dry_run {
            let denied = prepared.iter().find_map(|part| self.fleet.check(&part.request).err());
            let applied = Applied { apps, ..Applied::default() };
            return reply.finish(match denied {
                Some(denied) => Err(refusal(&denied)),
                None => Ok(Reply::Applied(Box::new(applied))),
            });
        }
        self.begin(Ok(prepared), params.wait, reply, Some(apps));
    }

    fn prepare_apply(&self, params: &ApplyParams) -> Answer<(Vec<Prepared>, Vec<AppDifference>)> {
        let path: Utf8PathBuf = Utf8Path::new(&params.path).components().collect();
        let configs = config::load_among(&path, &self.known()).map_err(invalid)?;
        if configs.is_empty() {
            let error = ErrorObject::new(ErrorKind::Usage, format!("{path} names no app"));
            return Err(
                error.with_help("an empty configuration is taken for a mistake: `agentctl delete` removes apps")
            );
        }
        let (mut prepared, mut apps) = (Vec::new(), Vec::new());
        let left: Vec<AppName> = self
            .fleet
            .apps()
            .map(|app| app.head.name.clone())
            .filter(|name| self.comes_from(name, &path) && configs.iter().all(|config| config.name != *name))
            .collect();
        for config in configs {
            let (difference, request) = self.prepare_one(config, &path, params)?;
            apps.push(difference);
            prepared.extend(request);
        }
        for name in left {
            let (work, notes) = if params.prune {
                let request = CoreRequest::Delete { app: name.clone() };
                prepared.push(Prepared { request, record: None, advice: Vec::new() });
                (WireWork::Gone, Vec::new())
            } else {
                (WireWork::Left, vec![format!("{path} does not name it any more; --prune deletes it")])
            };
            apps.push(AppDifference { app: name.to_string(), work, changes: Vec::new(), notes });
        }
        Ok((prepared, apps))
    }

    /// Whether an app was configured by this file, or by one in this folder.
    fn comes_from(&self, name: &AppName, path: &Utf8Path) -> bool {
        let Ok(record) = self.current_record(name) else { return false };
        match &record.origin {
            Origin::File { path: origin } => {
                let origin: Utf8PathBuf = origin.components().collect();
                origin == path || origin.parent() == Some(path)
            }
            Origin::CommandLine => false,
        }
    }

    fn prepare_one(
        &self,
        config: AppConfig,
        path: &Utf8Path,
        params: &ApplyParams,
    ) -> Answer<(AppDifference, Option<Prepared>)> {
        let (name, origin) = (config.name.clone(), Origin::File { path: path.to_owned() });
        let app = self.fleet.app(&name);
        let current = app.and_then(|app| self.heading_for(app));
        let environment = current.as_ref().map_or_else(|| params.env.clone(), |(_, record)| record.environment.clone());
        let first_cut = config.releases.is_some() && self.release_for(&name).is_none();
        let record = if first_cut && params.dry_run {
            RevisionRecord::new(config, origin, environment, None)
        } else {
            self.with_release(config, origin, environment)?
        };
        let (Some(app), Some((_, current))) = (app, current) else {
            let difference = AppDifference {
                app: name.to_string(),
                work: WireWork::New,
                changes: Vec::new(),
                notes: config::advise(&record.config).into_iter().map(|advice| advice.text).collect(),
            };
            return Ok((difference, Some(self.asked(record, Work::New))));
        };
        let mut notes = remarks(app, &record.config);
        if same(&current, &record) {
            let work = WireWork::Nothing;
            return Ok((AppDifference { app: name.to_string(), work, changes: Vec::new(), notes }, None));
        }
        let [old, new] = [&*current, &record].map(|side| config::describe(&side.config, file(&side.origin).as_deref()));
        let mut difference = Difference::between(Some(&old), Some(&new));
        if current.config.releases.is_some() != record.config.releases.is_some() {
            // From its folder into a release, or back.
            difference.work = difference.work.max(Work::Reload);
        }
        let idle = app.head.desired != Desired::Running || app.head.rise == Rise::Waiting;
        if idle && difference.work != Work::Nothing {
            // Nothing of it runs that could be replaced.
            difference.work = Work::InPlace;
            notes.push("nothing of it runs: it takes this when it starts".to_owned());
        }
        notes.extend(config::advise(&record.config).into_iter().map(|advice| advice.text));
        notes.extend(self.unenforced(&record.config));
        let told = AppDifference {
            app: name.to_string(),
            work: wire(difference.work),
            changes: difference.changes.into_iter().map(wire_change).collect(),
            notes,
        };
        Ok((told, (difference.work != Work::Nothing).then(|| self.asked(record, difference.work))))
    }

    /// The configuration that an app is on its way to, or has.
    fn heading_for(&self, app: &App) -> Option<(Revision, Arc<RevisionRecord>)> {
        let forward = app.head.rollout.as_ref().filter(|rollout| rollout.direction == Direction::Forward);
        let revision = forward.map_or(app.head.revision, |rollout| rollout.to.revision);
        Some((revision, Arc::clone(self.apps.get(&app.head.name)?.revisions.get(&revision)?)))
    }

    fn asked(&self, record: RevisionRecord, work: Work) -> Prepared {
        let app = record.config.name.clone();
        let policy = record.config.policy();
        let revision = self.apps.get(&app).map_or(Revision(1), |shell| shell.revision_of(&record));
        let request = match work {
            Work::New => CoreRequest::Create { app, revision, policy },
            Work::Nothing | Work::InPlace => CoreRequest::Adopt { app, revision, policy },
            Work::Reload | Work::Restart => CoreRequest::Reload { app, revision, policy },
            Work::Gone => CoreRequest::Delete { app },
        };
        Prepared { request, record: Some((revision, Arc::new(record))), advice: Vec::new() }
    }
}

/// Whether two records are of one configuration from one file. What the shell had set when they were made is no part of
/// a configuration.
fn same(one: &RevisionRecord, other: &RevisionRecord) -> bool {
    one.config == other.config && one.release == other.release && file(&one.origin) == file(&other.origin)
}

fn file(origin: &Origin) -> Option<String> {
    match origin {
        Origin::File { path } => Some(path.components().collect::<Utf8PathBuf>().into_string()),
        Origin::CommandLine => None,
    }
}

/// What differs from the configuration without being written in one.
fn remarks(app: &App, config: &AppConfig) -> Vec<String> {
    let mut notes = Vec::new();
    let name = &app.head.name;
    if app.head.desired == Desired::Stopped {
        notes.push(format!("it was stopped and stays so: agentctl start {name}"));
    }
    if app.head.count != config.workers && app.policy_now().workers == config.workers {
        notes.push(format!("it was scaled to {} workers and stays so", app.head.count));
    }
    if app.state() == agentd_core::app::AppState::Failed {
        notes.push(format!("it failed and waits for somebody: agentctl start {name}"));
    }
    notes
}

fn wire(work: Work) -> WireWork {
    match work {
        Work::Nothing => WireWork::Nothing,
        Work::InPlace => WireWork::InPlace,
        Work::Reload => WireWork::Reload,
        Work::Restart => WireWork::Restart,
        Work::New => WireWork::New,
        Work::Gone => WireWork::Gone,
    }
}

fn wire_change(change: agentd_core::diff::Change) -> FieldChange {
    let secret = SECRET.iter().any(|prefix| change.field.starts_with(prefix));
    let shown = |value: Option<String>| if secret { value.map(|_| "(not shown)".to_owned()) } else { value };
    FieldChange { old: shown(change.old), new: shown(change.new), work: wire(change.work), field: change.field }
}
