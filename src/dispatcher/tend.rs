//! Apps that are changed without anybody's asking: reloaded by the clock (`cron_reload`) and when their files change
//! (`watch`), refreshed when the files change that they know things from (`refresh.watch`).
//!
//! All go on with the configuration that runs: what was written into the file since is somebody's to apply. Neither
//! ever meets a deployment that runs: the clock's reload is left out then and told so, because the workers are new
//! already; a change of files waits, because the new workers may have read the old ones. Where both are due, a reload
//! makes a refresh needless. The clock is looked at at least
//! once a minute, so that one that is set is noticed: forward over a time, it is done once; back, nothing is done twice.
//! What was due while no daemon ran is not made up for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use agentd_core::admission::Admitted;
use agentd_core::app::Desired;
use agentd_core::effect::OperationKind as CoreKind;
use agentd_core::id::AppName;
use agentd_core::time::Moment;
use agentd_protocol::control::OperationKind;
use agentd_protocol::events::EventKind;
use camino::{Utf8Path, Utf8PathBuf};
use jiff::Timestamp;
use tokio::sync::mpsc;

use super::{Dispatcher, Input};
use crate::causes::in_full;
use crate::process::sys;
use crate::schedule::Schedule;
use crate::watch::Watch;

/// Files are quiet when none changed for so long.
const QUIET: Duration = Duration::from_millis(200);

/// A stream of changes is cut here.
const QUIET_MAX: Duration = Duration::from_secs(2);

/// The clock is looked at this often, whatever is due.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// What is kept of an app that is tended.
#[derive(Debug, Default)]
pub(super) struct Tended {
    cron: Option<Due>,
    watch: BTreeMap<Watches, Watched>,
}

/// What the files are to the app whose change is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Watches {
    /// What it is made of: a change reloads it.
    Code,
    /// What it knows things from: a change refreshes it.
    Knowledge,
}

#[derive(Debug)]
struct Due {
    schedule: Schedule,
    at: Timestamp,
    /// When the clock was read last: one that was set back since is noticed.
    seen: Timestamp,
}

#[derive(Debug)]
struct Watched {
    folder: Utf8PathBuf,
    patterns: Vec<String>,
    /// None where watching failed, which was told.
    _watch: Option<Watch>,
    change: Option<Change>,
}

#[derive(Debug)]
struct Change {
    first: Moment,
    due: Moment,
}

impl Dispatcher {
    /// Sees to it that an app is tended as its configuration of now has it.
    pub(super) fn tend(&mut self, name: &AppName) {
        self.keep_logs(name);
        let runs = self.fleet.app(name).filter(|app| app.head.desired == Desired::Running);
        let record = runs.and_then(|app| self.apps.get(name)?.revisions.get(&app.head.revision));
        let Some(record) = record.filter(|record| {
            let knowledge = record.config.refresh.as_ref().and_then(|refresh| refresh.watch.as_ref());
            record.config.cron_reload.is_some() || !record.config.watch.is_empty() || knowledge.is_some()
        }) else {
            self.tended.remove(name);
            return;
        };
        let record = Arc::clone(record);
        let tended = self.tended.entry(name.clone()).or_default();
        if tended.cron.as_ref().map(|due| &due.schedule) != record.config.cron_reload.as_ref() {
            tended.cron = record.config.cron_reload.clone().and_then(|schedule| due(name, schedule));
        }
        let code = (!record.config.watch.is_empty()).then_some((&record.config.cwd, &record.config.watch));
        let knowledge = record.config.refresh.as_ref().and_then(|refresh| refresh.watch.as_ref());
        let knowledge = knowledge.map(|knowledge| (&knowledge.folder, &knowledge.patterns));
        for (watches, wanted) in [(Watches::Code, code), (Watches::Knowledge, knowledge)] {
            let Some((folder, patterns)) = wanted else {
                tended.watch.remove(&watches);
                continue;
            };
            if tended.watch.get(&watches).is_none_or(|had| had.folder != *folder || had.patterns != *patterns) {
                tended.watch.insert(watches, watched(name, watches, folder, patterns, &self.inputs));
            }
        }
    }

    pub(super) fn file_changed(&mut self, name: &AppName, watches: Watches, path: &std::path::Path) {
        let now = sys::boottime();
        let Some(watched) = self.tended.get_mut(name).and_then(|tended| tended.watch.get_mut(&watches)) else { return };
        let change = watched.change.get_or_insert_with(|| {
            let then = match watches {
                Watches::Code => "reloaded",
                Watches::Knowledge => "refreshed",
            };
            tracing::info!(app = %name, file = %path.display(), "changed; it is {then} when its files are quiet");
            Change { first: now, due: now }
        });
        change.due = (now + QUIET).min(change.first + QUIET_MAX);
    }

    /// When an app may be due next.
    pub(super) fn next_tending(&self) -> Option<Moment> {
        let (now, wall) = (sys::boottime(), Timestamp::now());
        let cron = self.tended.values().filter_map(|tended| tended.cron.as_ref()).map(|due| {
            let left = Duration::try_from(wall.until(due.at).map_or(jiff::SignedDuration::ZERO, |span| {
                jiff::SignedDuration::try_from(span).unwrap_or(jiff::SignedDuration::ZERO)
            }));
            now + left.unwrap_or(Duration::ZERO).min(LOOK_EVERY)
        });
        let watched = self.tended.values().flat_map(|tended| tended.watch.values());
        let files = watched.filter_map(|watched| Some(watched.change.as_ref()?.due));
        cron.chain(files).min()
    }

    /// When the clock reloads an app next.
    pub(super) fn next_cron(&self, name: &AppName) -> Option<Timestamp> {
        Some(self.tended.get(name)?.cron.as_ref()?.at)
    }

    /// Reloads what is due.
    pub(super) fn tend_due(&mut self) {
        if self.tended.is_empty() {
            return;
        }
        let (now, wall) = (sys::boottime(), Timestamp::now());
        let mut due = Vec::new();
        for (name, tended) in &mut self.tended {
            let busy = self
                .fleet
                .app(name)
                .is_none_or(|app| app.head.rollout.is_some() || app.head.refreshes.running.is_some());
            if let Some(cron) = &mut tended.cron
                && (cron.at <= wall || wall < cron.seen)
            {
                if cron.at <= wall && busy {
                    tracing::info!(app = %name, "its cron_reload is left out: a deployment or a refresh runs");
                } else if cron.at <= wall {
                    due.push((name.clone(), By::Clock));
                }
                if let Ok(next) = cron.schedule.next_after(wall) {
                    cron.at = next;
                }
            }
            if let Some(cron) = &mut tended.cron {
                cron.seen = wall;
            }
            for (&watches, watched) in &mut tended.watch {
                let Some(change) = watched.change.as_mut().filter(|change| change.due <= now) else { continue };
                if busy {
                    change.due = now + QUIET;
                } else {
                    watched.change = None;
                    due.push((name.clone(), By::Files(watches)));
                }
            }
        }
        // Whoever reloads needs no refresh any more: a reload comes first, and the refresh is denied by it.
        for (name, by) in due {
            match by {
                By::Clock => self.reload_by_itself(&name, "cron_reload"),
                By::Files(Watches::Code) => self.reload_by_itself(&name, "watch"),
                By::Files(Watches::Knowledge) => self.refresh_by_itself(&name),
            }
        }
    }

    pub(super) fn reload_by_itself(&mut self, name: &AppName, why: &str) {
        let Ok(record) = self.current_record(name) else { return };
        let prepared = self.prepared(CoreKind::Reload, (*record).clone());
        let tick = self.tick();
        match self.fleet.request(tick, prepared.request) {
            Ok((admitted, outcome)) => {
                tracing::info!(app = %name, why, "reloaded without anybody's asking");
                if let Admitted::Begun(operation) = admitted {
                    let kind = OperationKind::Reload;
                    self.record(Some(name), None, EventKind::OperationStarted { id: operation.0, kind });
                }
                self.carry_out(outcome);
            }
            Err(denied) => tracing::info!(app = %name, why, %denied, "not reloaded"),
        }
    }
}

/// What made an app due.
#[derive(Clone, Copy)]
enum By {
    Clock,
    Files(Watches),
}

fn watched(
    name: &AppName,
    watches: Watches,
    folder: &Utf8Path,
    patterns: &[String],
    inputs: &mpsc::UnboundedSender<Input>,
) -> Watched {
    let (inputs, app) = (inputs.clone(), name.clone());
    let watch = Watch::begin(folder, patterns, move |path| {
        // The loop is gone only at the very end.
        let _ = inputs.send(Input::FileChanged(app.clone(), watches, path));
    });
    let watch = watch.inspect_err(|error| {
        let why = in_full(error);
        tracing::error!(app = %name, error = why, "its files are not watched");
    });
    Watched { folder: folder.to_owned(), patterns: patterns.to_vec(), _watch: watch.ok(), change: None }
}

fn due(name: &AppName, schedule: Schedule) -> Option<Due> {
    let seen = Timestamp::now();
    match schedule.next_after(seen) {
        Ok(at) => Some(Due { schedule, at, seen }),
        Err(error) => {
            tracing::error!(app = %name, %error, "its cron_reload is never due");
            None
        }
    }
}
