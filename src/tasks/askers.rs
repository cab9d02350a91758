//! Who asked for the present operation of an app, when that was somebody in a worker: its drains do not wait for the task
//! that waits for them.
//!
//! Kept with the tasks, because the operation outlives the daemon that it was asked of. Should it not be possible to keep
//! it, the present daemon knows all the same, and the next one waits for the asker as for any other task.

use std::collections::BTreeMap;

use agentd_core::id::{AppName, Launch};
use agentd_core::task::{InHand, TaskId};
use rusqlite::params;
use serde::{Deserialize, Serialize};

use super::db::{Db, DbError};
use super::desk::Desk;

/// What keys in `meta` begin with that hold who asked.
const KEY: &str = "asked:";

/// Whether it was somebody in a worker who asked for an operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AskedBy {
    /// No.
    Others,
    /// A process of this worker, which did not say for which task. When it has one in hand it is that.
    Worker(Launch),
    /// This task, in whichever worker it is.
    Task(TaskId),
}

impl AskedBy {
    /// The task that a drain of this worker is not to wait for.
    pub(super) fn task_in(&self, launch: Launch, in_hand: &[InHand]) -> Option<TaskId> {
        match (self, in_hand) {
            (Self::Task(task), _) => Some(task.clone()),
            (Self::Worker(asker), [only]) if *asker == launch => Some(only.task.clone()),
            (Self::Worker(_) | Self::Others, _) => None,
        }
    }
}

impl Desk {
    /// An operation of an app began.
    pub(super) fn asked(&mut self, app: AppName, by: AskedBy) {
        let before = self.askers.get(&app).unwrap_or(&AskedBy::Others);
        if *before == by {
            return;
        }
        if let Err(error) = self.db.keep_asker(&app, &by) {
            self.fail(&error);
        }
        self.askers.insert(app, by);
    }
}

impl Db {
    /// Who asked for the operation of each app.
    pub(super) fn askers(&self) -> Result<BTreeMap<AppName, AskedBy>, DbError> {
        let mut askers = BTreeMap::new();
        self.each_with("who asked", "SELECT key, value FROM meta WHERE key GLOB ?1 || '*'", params![KEY], |row| {
            let (key, value): (String, String) = (row.get(0)?, row.get(1)?);
            let app = key.strip_prefix(KEY).and_then(|name| name.parse().ok());
            // What another version wrote is nobody that this one could wait less for.
            if let (Some(app), Ok(by)) = (app, serde_json::from_str(&value)) {
                askers.insert(app, by);
            }
            Ok(())
        })?;
        Ok(askers)
    }

    fn keep_asker(&self, app: &AppName, by: &AskedBy) -> Result<(), DbError> {
        self.begin()?;
        let key = format!("{KEY}{app}");
        let value = serde_json::to_string(by).expect("a word and a name have a JSON form");
        match by {
            AskedBy::Others => self.run("who asked", "DELETE FROM meta WHERE key = ?1", params![key]),
            AskedBy::Worker(_) | AskedBy::Task(_) => self.put_meta("who asked", &key, &value),
        }
    }
}
