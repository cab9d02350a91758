//! From the names and files of a request to what core is asked: looked up, read, resolved. Nothing changes here.

use std::collections::BTreeMap;
use std::sync::Arc;

use agentd_core::admission::Request as CoreRequest;
use agentd_core::app::Desired;
use agentd_core::effect::OperationKind as CoreKind;
use agentd_core::id::{AppName, Revision};
use agentd_core::needs::order;
use agentd_core::policy::AppPolicy;
use agentd_protocol::control::{ALL, ErrorKind, ErrorObject, StartParams, StartTarget};
use camino::{Utf8Path, Utf8PathBuf};

use super::Dispatcher;
use super::control::Answer;
use crate::config::{self, AdhocStart, AppConfig, Diagnostic};
use crate::revision::{Origin, RevisionRecord};

/// One app's part of a request, checked and ready to begin.
pub(super) struct Prepared {
    pub(super) request: CoreRequest,
    /// The configuration that the request names, when it is new.
    pub(super) record: Option<(Revision, Arc<RevisionRecord>)>,
    /// What the user should know, though nothing is wrong.
    pub(super) advice: Vec<String>,
}

impl Dispatcher {
    pub(super) fn prepare_start(&mut self, params: &StartParams) -> Answer<Vec<Prepared>> {
        let (configs, origin) = match &params.target {
            StartTarget::File { path } => {
                let path = Utf8PathBuf::from(path);
                (config::load_among(&path, &self.known()).map_err(invalid)?, Origin::File { path })
            }
            StartTarget::Script { script, name, workers, listen, args } => {
                if listen.len() > 1 {
                    let why = "one --listen is possible without a file; name several listeners in a file";
                    return Err(ErrorObject::new(ErrorKind::Usage, why));
                }
                let start = AdhocStart {
                    script: script.clone(),
                    name: name.clone(),
                    workers: *workers,
                    listen: listen.first().cloned(),
                    args: args.clone(),
                    cwd: params.cwd.clone().into(),
                    path_env: params.env.get("PATH").cloned().unwrap_or_default(),
                    virtual_env: params.env.get("VIRTUAL_ENV").map(Into::into),
                };
                (vec![config::adhoc(start).map_err(invalid)?], Origin::CommandLine)
            }
            StartTarget::Names { names } => {
                let apps = self.named(names)?;
                return self.prepare_anew(&apps, CoreKind::Start);
            }
        };
        if configs.is_empty() {
            let help = "an app is a table [agent.NAME] or [skill.NAME]";
            return Err(ErrorObject::new(ErrorKind::Usage, "the configuration names no app").with_help(help));
        }
        configs
            .into_iter()
            .map(|config| {
                // A running app is not changed by a start, whatever its file says of releases by now.
                let running = self.fleet.app(&config.name).filter(|app| app.head.desired == Desired::Running);
                let record = match running {
                    Some(app) if self.release_for(&app.head.name).is_none() => {
                        RevisionRecord::new(config, origin.clone(), params.env.clone(), None)
                    }
                    Some(_) | None => self.with_release(config, origin.clone(), params.env.clone())?,
                };
                Ok(self.prepared(CoreKind::Start, record))
            })
            .collect()
    }

    /// A request for known apps with their configuration as it is now: read again where it came from a file.
    pub(super) fn prepare_anew(&self, apps: &[AppName], kind: CoreKind) -> Answer<Vec<Prepared>> {
        let mut files: BTreeMap<Utf8PathBuf, Vec<AppConfig>> = BTreeMap::new();
        let mut prepared = Vec::new();
        for name in apps {
            let current = self.current_record(name)?;
            let config = match &current.origin {
                Origin::CommandLine => current.config.clone(),
                Origin::File { path } => {
                    if !files.contains_key(path) {
                        files.insert(path.clone(), config::load_among(path, &self.known()).map_err(invalid)?);
                    }
                    let found = files.get(path).into_iter().flatten().find(|config| config.name == *name);
                    found.cloned().ok_or_else(|| gone_from(name, path))?
                }
            };
            let record = self.with_release(config, current.origin.clone(), current.environment.clone())?;
            prepared.push(self.prepared(kind, record));
        }
        Ok(prepared)
    }

    /// Leaves out apps whose configuration is the one that they run with.
    pub(super) fn only_changed(&self, mut prepared: Vec<Prepared>) -> Vec<Prepared> {
        prepared.retain(|part| {
            let runs = self.fleet.app(part.request.app()).map(|app| app.head.revision);
            part.record.as_ref().is_some_and(|(revision, _)| Some(*revision) != runs)
        });
        prepared
    }

    pub(super) fn prepared(&self, kind: CoreKind, record: RevisionRecord) -> Prepared {
        let name = record.config.name.clone();
        let (app, policy): (AppName, AppPolicy) = (name.clone(), record.config.policy());
        let revision = self.apps.get(&name).map_or(Revision(1), |shell| shell.revision_of(&record));
        let mut advice: Vec<String> = config::advise(&record.config).into_iter().map(|advice| advice.text).collect();
        advice.extend(self.unenforced(&record.config));
        let runs = self.fleet.app(&name).filter(|app| app.head.desired == Desired::Running);
        let changed = runs.is_some_and(|app| app.head.revision != revision);
        if kind == CoreKind::Start && changed {
            advice.push(format!("its configuration has changed: `agentctl reload {name}` applies it"));
        }
        let plan = record.config.upgrade.plan(record.config.upgrade.strategy);
        // A running app is not changed by a start.
        let record = (kind != CoreKind::Start || runs.is_none()).then(|| (revision, Arc::new(record)));
        let request = match kind {
            CoreKind::Reload => CoreRequest::Reload { app, revision, policy },
            CoreKind::Restart => CoreRequest::Restart { app, revision, policy },
            CoreKind::Upgrade | CoreKind::Rollback => CoreRequest::Upgrade { app, revision, policy, plan, kind },
            CoreKind::Refresh => CoreRequest::Refresh { app },
            CoreKind::Start | CoreKind::Stop | CoreKind::Delete | CoreKind::Scale | CoreKind::Adopt => {
                CoreRequest::Start { app, revision, policy }
            }
        };
        Prepared { request, record, advice }
    }

    /// Every app that is known, with what it needs.
    pub(super) fn known(&self) -> config::Known {
        self.fleet.apps().map(|app| (app.head.name.clone(), app.policy_now().needs.clone())).collect()
    }

    /// Each after all that it needs, so that nobody is asked to wait for what is about to be asked for; those that are to
    /// end come last, each before what it needs.
    pub(super) fn in_order(&self, mut prepared: Vec<Prepared>) -> Vec<Prepared> {
        let mut needs = self.known();
        for part in &prepared {
            if let Some((_, record)) = &part.record {
                needs.insert(record.config.name.clone(), record.config.needs.clone());
            }
        }
        // A circle is refused where configurations are read; whatever became of one since, the order is only a kindness.
        let Ok(order) = order(needs.keys(), &needs) else { return prepared };
        let places: BTreeMap<AppName, usize> = (0..).zip(order).map(|(place, name)| (name, place)).collect();
        prepared.sort_by_key(|part| {
            let place = places.get(part.request.app()).copied().unwrap_or(0);
            match part.request {
                CoreRequest::Stop { .. } | CoreRequest::Delete { .. } => (1, places.len() - place),
                CoreRequest::Start { .. }
                | CoreRequest::Reload { .. }
                | CoreRequest::Restart { .. }
                | CoreRequest::Create { .. }
                | CoreRequest::Adopt { .. }
                | CoreRequest::Upgrade { .. }
                | CoreRequest::Steer { .. }
                | CoreRequest::Refresh { .. }
                | CoreRequest::Scale { .. } => (0, place),
            }
        });
        prepared
    }

    pub(super) fn plain(&self, names: &[String], make: impl Fn(AppName) -> CoreRequest) -> Answer<Vec<Prepared>> {
        let apps = self.named(names)?;
        Ok(apps.into_iter().map(|app| Prepared { request: make(app), record: None, advice: Vec::new() }).collect())
    }

    /// The apps that `names` mean; `all` means every one.
    pub(super) fn named(&self, names: &[String]) -> Answer<Vec<AppName>> {
        if names.is_empty() {
            return Err(ErrorObject::new(ErrorKind::Usage, "name an app, or `all`"));
        }
        if names.iter().any(|name| name == ALL) {
            return Ok(self.fleet.apps().map(|app| app.head.name.clone()).collect());
        }
        names
            .iter()
            .map(|text| {
                let name = text.parse::<AppName>().ok().filter(|name| self.fleet.app(name).is_some());
                name.ok_or_else(|| self.no_such_app(text))
            })
            .collect()
    }

    /// As [`Self::named`], where `all` leaves out what is stopped: there is nothing to reload.
    pub(super) fn to_reload(&self, names: &[String]) -> Answer<Vec<AppName>> {
        let mut apps = self.named(names)?;
        if names.iter().any(|name| name == ALL) {
            apps.retain(|name| self.fleet.app(name).is_some_and(|app| app.head.desired == Desired::Running));
        }
        Ok(apps)
    }

    pub(super) fn no_such_app(&self, name: &str) -> ErrorObject {
        let known: Vec<&str> = self.fleet.apps().map(|app| app.head.name.as_str()).collect();
        let near = known.iter().max_by(|a, b| strsim::jaro_winkler(a, name).total_cmp(&strsim::jaro_winkler(b, name)));
        let help = match near.filter(|near| strsim::jaro_winkler(near, name) > 0.8) {
            Some(near) => format!("did you mean {near}?"),
            None if known.is_empty() => "no app is known; `agentctl start FILE` adds those of a file".to_owned(),
            None => "`agentctl ls` lists the apps that are known".to_owned(),
        };
        ErrorObject::new(ErrorKind::NoSuchApp, format!("no app is named {name:?}")).with_help(help)
    }

    pub(super) fn current_record(&self, name: &AppName) -> Answer<Arc<RevisionRecord>> {
        let app = self.fleet.app(name).ok_or_else(|| self.no_such_app(name.as_str()))?;
        let record = self.apps.get(name).and_then(|shell| shell.revisions.get(&app.head.revision));
        record.cloned().ok_or_else(|| {
            ErrorObject::new(ErrorKind::Internal, format!("the configuration of {name} is not known any more"))
                .with_help(format!("`agentctl delete {name}`, then start it from its file"))
        })
    }
}

pub(super) fn invalid(diagnostics: Vec<Diagnostic>) -> ErrorObject {
    let count = diagnostics.len();
    let text = if count == 1 { "the configuration has an error" } else { "the configuration has errors" };
    let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    let diagnostics = diagnostics
        .into_iter()
        .map(|found| agentd_protocol::control::Diagnostic {
            file: found.file.to_string(),
            line: number(found.line),
            column: number(found.column),
            end_column: number(found.end_column),
            source_line: found.source_line,
            message: found.message,
            expected: found.expected,
            help: found.help,
        })
        .collect();
    ErrorObject::new(ErrorKind::Usage, text).with_help("nothing was started or changed").with_diagnostics(diagnostics)
}

pub(super) fn gone_from(name: &AppName, path: &Utf8Path) -> ErrorObject {
    ErrorObject::new(ErrorKind::Usage, format!("{path} does not name {name} any more"))
        .with_help(format!("put it back, or `agentctl delete {name}`"))
}
