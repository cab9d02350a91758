//! What a release is shown before it takes an app's tasks over: the newest checkpoint of each open one, as a copy.
//!
//! A line of JSON each, into a file that nobody else can open. Looked at once a deployment; at most [`BYTES_MAX`], so that
//! workers do not wait for long. What is beyond is told as not shown, and counted as read.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::sync::Arc;

use agentd_core::id::AppName;
use agentd_core::task::{State, Task, TaskId};
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::oneshot;

use super::desk::Desk;
use crate::causes::in_full;

/// Most bytes of all copies together.
const BYTES_MAX: u64 = 64 << 20;

/// A look at the checkpoints of an app.
#[derive(Debug)]
pub struct Inspect {
    /// Whose.
    pub app: AppName,
    /// The newest version of checkpoints that it reads; none where it does not say.
    pub reads: Option<u32>,
    /// Where copies go; none where they are only counted.
    pub copies: Option<Arc<File>>,
    /// What was found; an error is a fragment that follows "failed to".
    pub answer: oneshot::Sender<Result<Inspected, String>>,
}

/// What open checkpoints there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inspected {
    /// Tasks that have one.
    pub open: u64,
    /// Those whose version is newer than what is read, with why they are not read.
    pub newer: Vec<(TaskId, String)>,
    /// Those that were copied.
    pub copied: Vec<TaskId>,
}

/// A checkpoint as a `check` command reads it.
#[derive(Serialize)]
struct Copy<'a> {
    task: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'a str>,
    step: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    state_version: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    json: Option<&'a RawValue>,
}

impl Desk {
    pub(super) fn inspect(&mut self, inspect: Inspect) {
        let Inspect { app, reads, copies, answer } = inspect;
        let mut found = Inspected::default();
        let told = |task: &Task| matches!(task.state, State::Told { .. });
        let tasks = self.ledger.tasks().filter(|task| task.app == app && !told(task));
        let mut open = Vec::new();
        for task in tasks {
            let Some(mark) = task.checkpoint else { continue };
            found.open += 1;
            match mark.state_version.zip(reads).filter(|(written, reads)| written > reads) {
                Some((written, reads)) => {
                    let why =
                        format!("its checkpoint has state_version {written}, and {reads} is the newest that is read");
                    found.newer.push((task.id.clone(), why));
                }
                None => open.push(task.clone()),
            }
        }
        let copied = copies.map_or_else(|| Ok(Vec::new()), |file| self.copy(&open, &file));
        let result = copied.map(|copied| Inspected { copied, ..found });
        // Nobody waits any more when the daemon is ending.
        let _ = answer.send(result);
    }

    fn copy(&self, tasks: &[Task], file: &File) -> Result<Vec<TaskId>, String> {
        let failed = |error: &dyn std::error::Error| format!("copy its checkpoints: {}", in_full(error));
        let (mut out, mut copied, mut bytes) = (BufWriter::new(file), Vec::new(), 0_u64);
        for task in tasks {
            let Some(mark) = task.checkpoint else { continue };
            let Some((payload, state_version)) = self.db.ckpt(&task.id, mark.step).map_err(|error| failed(&error))?
            else {
                continue;
            };
            let (data, json) = payload.fields();
            let copy = Copy {
                task: task.id.as_str(),
                kind: task.kind.as_ref().map(agentd_core::task::Kind::as_str),
                step: mark.step,
                state_version,
                data: data.as_deref(),
                json,
            };
            let line = serde_json::to_vec(&copy).map_err(|error| failed(&io::Error::from(error)))?;
            bytes += line.len() as u64;
            if bytes > BYTES_MAX {
                let left = tasks.len() - copied.len();
                tracing::warn!(app = %task.app, left, "more checkpoints are open than a release is shown");
                break;
            }
            out.write_all(&line).and_then(|()| out.write_all(b"\n")).map_err(|error| failed(&error))?;
            copied.push(task.id.clone());
        }
        out.flush().map_err(|error| failed(&error))?;
        Ok(copied)
    }
}
