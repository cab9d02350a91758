//! What the loop knows of logs beside reading them: how much is kept, and where lines are being dropped.
//!
//! Owns the sentence that status shows while a file takes nothing. The files are [`crate::logs`]'.

use std::collections::BTreeMap;

use agentd_core::id::{AppName, Launch, WorkerId};
use agentd_protocol::events::EventKind;
use camino::{Utf8Path, Utf8PathBuf};

use super::Dispatcher;
use crate::causes::in_full;
use crate::config::LogSink;
use crate::logs::housekeeper::TOTAL_BYTES;
use crate::logs::layout::{StreamKind, live_path, whose};
use crate::logs::thread::{Fields, LogNews, Target};
use crate::revision::RevisionRecord;

/// The folder of what goes to the journal, in the names that news are told by.
const JOURNAL: &str = "journald";

/// What does not reach its file.
#[derive(Debug, Default)]
pub(super) struct Dropping {
    /// Files that take nothing now, and why.
    now: BTreeMap<Utf8PathBuf, String>,
    /// Lines dropped since the start, as far as their files could tell of them since.
    lines: u64,
}

impl Dispatcher {
    /// Sees to it that an app's logs are kept as its configuration of now has it.
    pub(super) fn keep_logs(&self, name: &AppName) {
        let app = self.fleet.app(name);
        let record = app.and_then(|app| self.apps.get(name)?.revisions.get(&app.head.revision));
        if let Some(record) = record {
            self.housekeeper.keep(name, record.config.log.retention());
        }
    }

    /// Sees to it that all logs together are kept as the daemon's settings have it.
    pub(super) fn bound_all_logs(&self) {
        self.housekeeper.keep_in_all(Some(self.standing.logs_keep_bytes().unwrap_or(TOTAL_BYTES)));
    }

    /// Where the lines of a launch that come through the log thread are kept.
    pub(super) fn log_target(
        &self,
        worker: &WorkerId,
        launch: Launch,
        record: &RevisionRecord,
        stream: StreamKind,
    ) -> Target {
        let log = &record.config.log;
        match log.sink {
            LogSink::Journald => {
                let release = record.label(worker.generation.0);
                let fields = Fields::of(&self.instance, worker, launch, &release, stream);
                Target::Journal { name: live_path(Utf8Path::new(JOURNAL), &worker.app, worker.slot, stream), fields }
            }
            LogSink::Fifo | LogSink::File | LogSink::None => {
                let path = live_path(&self.home.logs, &worker.app, worker.slot, stream);
                Target::File { path, rotation: log.rotation() }
            }
        }
    }

    /// Where else than in its files an app's lines are, and how they are read there.
    pub(super) fn elsewhere(&self, app: &AppName) -> Option<String> {
        let revision = self.fleet.app(app)?.head.revision;
        let record = self.apps.get(app)?.revisions.get(&revision)?;
        match record.config.log.sink {
            LogSink::Fifo | LogSink::File => None,
            LogSink::None => Some(format!("{app} keeps no log: its log.sink is \"none\"")),
            LogSink::Journald => Some(format!(
                "{app} prints to the journal: journalctl AGENTD_INSTANCE={} AGENTD_APP={app}",
                self.instance
            )),
        }
    }

    /// The log thread tells something.
    pub(super) fn heard_of_logs(&mut self, news: LogNews) {
        let (path, event) = match news {
            // The housekeeper hears that from the log thread itself.
            LogNews::Rotated { .. } => return,
            LogNews::Dropping { path, why } => {
                self.dropping.now.insert(path.clone(), why.clone());
                let file = path.to_string();
                (path, EventKind::LogsDropping { file, why })
            }
            LogNews::Resumed { path, lines, bytes } => {
                self.dropping.now.remove(&path);
                self.dropping.lines += lines;
                let file = path.to_string();
                (path, EventKind::LogsResumed { file, lines, bytes })
            }
        };
        let app = whose(&path).map(|(app, ..)| app);
        self.record(app.as_ref(), None, event);
    }

    /// Other limits for the files that a launch prints into.
    pub(super) fn govern_logs(&self, launch: Launch) {
        let Some(process) = self.processes.get(&launch) else { return };
        for stream in &process.streams {
            if let Err(error) = self.logs.govern(stream.id, process.record.config.log.rotation()) {
                tracing::error!(error = in_full(&error), "a log's limits stay as they were");
            }
        }
    }

    /// Why lines of an app are being dropped, if any are.
    pub(super) fn drops_lines(&self, app: &AppName) -> Option<String> {
        let files = self.dropping.now.iter();
        let mut own = files.filter(|(path, _)| whose(path).is_some_and(|(whose, ..)| whose == *app));
        own.next().map(|(_, why)| format!("log lines are being dropped: {why}"))
    }

    /// What the operator should know of logs.
    pub(super) fn log_notes(&self) -> Vec<String> {
        let now = self.dropping.now.iter().map(|(path, why)| format!("log lines are being dropped: {path}: {why}"));
        let mut notes: Vec<String> = now.collect();
        if self.dropping.lines > 0 {
            notes.push(format!("{} log lines were dropped since the start", self.dropping.lines));
        }
        notes
    }
}
