//! Everything about one app, and about the daemon itself, for people.

use std::collections::{BTreeMap, BTreeSet};

use agentd_core::id::{AppName, Launch};
use agentd_core::policy::{AppPolicy, RestartWhen};
use agentd_protocol::control::{AppDetails, DaemonView, ListenerView, LogFileView, LogStream, PROTOCOL};

use super::Dispatcher;
use super::control::Answer;
use super::lines::wire_line;
use crate::config::AppConfig;
use crate::config::quantity::format_duration as duration;
use crate::logs::layout::{StreamKind, sources};
use crate::logs::read::{burst, tail};
use crate::process::usage;
use crate::revision::Origin;

/// Lines of its log that `describe` shows.
const DESCRIBED_LINES: usize = 10;

/// As many of them are shown when they came in one burst, such as a stack below its error.
const DESCRIBED_BURST: usize = 40;

impl Dispatcher {
    pub(super) fn describe(&mut self, text: &str) -> Answer<AppDetails> {
        let names = self.named(&[text.to_owned()])?;
        let Some(name) = names.first().cloned() else { return Err(self.no_such_app(text)) };
        let record = self.current_record(&name)?;
        let document = self.document(|app| app.head.name == name);
        let view = document.apps.into_iter().next().ok_or_else(|| self.no_such_app(text))?;
        let app = self.fleet.app(&name).ok_or_else(|| self.no_such_app(text))?;
        let config = &record.config;
        let listeners = config.listen.iter().map(|(listener, addr)| ListenerView {
            name: listener.clone(),
            configured: addr.to_string(),
            address: self.apps.get(&name).and_then(|shell| shell.addresses.local(addr)).map(|addr| addr.to_string()),
        });
        let printed = sources(&self.home.logs, &name).unwrap_or_default();
        let log_files = printed.iter().map(|source| LogFileView {
            stream: Some(match source.stream {
                StreamKind::Out => LogStream::Stdout,
                StreamKind::Err => LogStream::Stderr,
            }),
            path: source.path.to_string(),
            bytes: std::fs::metadata(&source.path).ok().map(|meta| meta.len()),
        });
        let workers: BTreeMap<Launch, _> =
            app.workers.values().filter_map(|worker| Some((worker.launch()?, worker.id.clone()))).collect();
        let last = burst(tail(&printed, DESCRIBED_BURST).unwrap_or_default(), DESCRIBED_LINES);
        let env: BTreeSet<String> = record.environment.keys().chain(config.env.keys()).cloned().collect();
        let mut policy = policy_words(app.policy_now());
        policy.extend(self.occasions(&name, config));
        Ok(AppDetails {
            command: config.command.clone(),
            cwd: config.cwd.to_string(),
            env: env.into_iter().collect(),
            listeners: listeners.collect(),
            config_file: match &record.origin {
                Origin::File { path } => Some(path.to_string()),
                Origin::CommandLine => None,
            },
            revision: app.head.revision.0,
            policy,
            log_files: log_files.collect(),
            last_lines: last.into_iter().map(|line| wire_line(line, &workers)).collect(),
            app: view,
        })
    }

    /// When it is reloaded without anybody's asking, what it needs, and what it is given.
    fn occasions(&self, name: &AppName, config: &AppConfig) -> BTreeMap<String, String> {
        let mut words = BTreeMap::new();
        if let Some(schedule) = &config.cron_reload {
            let zone = schedule.tz.as_deref().unwrap_or("the machine's time");
            let next = self.next_cron(name).map_or_else(|| "never".to_owned(), |at| at.to_string());
            words.insert("cron_reload".to_owned(), format!("{} in {zone}, next at {next}", schedule.at));
        }
        if !config.watch.is_empty() {
            words.insert("watch".to_owned(), config.watch.join(", "));
        }
        if let Some(refresh) = &config.refresh {
            words.insert("refresh".to_owned(), super::refresh::words(refresh));
        }
        if !config.account.is_unset() {
            words.insert("runs as".to_owned(), config.account.to_string());
        }
        for (name, source) in &config.secret {
            words.insert(format!("secret.{name}"), source.to_string());
        }
        for note in self.unenforced(config) {
            let (limit, _) = note.split_once(' ').unwrap_or((&note, ""));
            words.insert(limit.to_owned(), note.clone());
        }
        if !config.needs.is_empty() {
            let names: Vec<&str> = config.needs.iter().map(AppName::as_str).collect();
            words.insert("needs".to_owned(), names.join(", "));
        }
        words
    }

    pub(super) fn daemon_view(&self) -> DaemonView {
        let workers = u32::try_from(self.processes.len()).unwrap_or(u32::MAX);
        let mut notes = self.notes.clone();
        notes.extend_from_slice(self.standing.notes());
        notes.extend(self.log_notes());
        notes.extend(self.hook_notes());
        notes.extend(self.saving.trouble());
        DaemonView {
            instance: self.instance.to_string(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            protocol: PROTOCOL,
            started_at: self.started_at,
            state_dir: self.home.state.to_string(),
            runtime_dir: self.home.run.to_string(),
            log_dir: self.home.logs.to_string(),
            apps: u32::try_from(self.fleet.apps().count()).unwrap_or(u32::MAX),
            workers,
            memory_bytes: usage::of_process(agentd_core::id::Pid(std::process::id())),
            seq: self.journal.seq(),
            notes,
            supervisors: self.supervisors.views(),
        }
    }
}

/// The policy in words, for `describe`.
fn policy_words(policy: &AppPolicy) -> BTreeMap<String, String> {
    let restart = policy.restart;
    let mut words = BTreeMap::from([
        ("grace".to_owned(), duration(agentd_core::grace::bound(&policy.grace))),
        ("ready".to_owned(), format!("within {}", duration(policy.ready.timeout))),
        (
            "reload".to_owned(),
            format!(
                "at most {} more and {} fewer than {} workers; watched for {}",
                policy.reload.max_surge,
                policy.reload.max_unavailable,
                policy.workers,
                duration(policy.reload.settle)
            ),
        ),
        (
            "restart".to_owned(),
            format!(
                "{}, after {} to {}, at most {} in {}",
                match restart.when {
                    RestartWhen::Always => "always",
                    RestartWhen::OnFailure => "on failure",
                    RestartWhen::Never => "never",
                },
                duration(restart.backoff_min),
                duration(restart.backoff_max),
                restart.max,
                duration(restart.period)
            ),
        ),
        ("stop".to_owned(), format!("{:?}", policy.stop.drain).to_lowercase()),
    ]);
    if let Some(live) = policy.live {
        words.insert("live".to_owned(), format!("every {}, {} failures", duration(live.every), live.failures));
    }
    words
}
