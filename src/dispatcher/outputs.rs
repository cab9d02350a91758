//! What the loop knows of logs beside reading them: how much is kept, and where lines are being dropped.
//!
//! Owns the sentence that status shows while a file takes nothing. The files are [`crate::logs`]'.

use std::collections::BTreeMap;

use agentd_core::id::AppName;
use agentd_protocol::events::EventKind;
use camino::Utf8PathBuf;

use super::Dispatcher;
use super::commit::in_full;
use crate::logs::layout::whose;
use crate::logs::thread::LogNews;

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
    pub(super) fn govern_logs(&self, launch: agentd_core::id::Launch) {
        let Some(process) = self.processes.get(&launch) else { return };
        for id in &process.streams {
            if let Err(error) = self.logs.govern(*id, process.record.config.log.rotation()) {
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
