//! Why a task, or a step of it, is over.

use serde_json::Value;

/// What ends a step. [`Error::Drained`] and [`Error::Cancelled`] are no failures: hand them on with `?`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The task was handed over at a checkpoint, because this worker is replaced. It goes on elsewhere.
    #[error("handed over: {0}")]
    Drained(String),
    /// The task was cancelled.
    #[error("cancelled: {0}")]
    Cancelled(String),
    /// A task with this key runs or is over. Nothing was begun.
    #[error("a task with this key is {state}")]
    Duplicate {
        /// `running` or `done`.
        state: String,
        /// How it ended.
        outcome: Option<String>,
        /// What came of it.
        result: Value,
    },
    /// An effect was begun by an earlier worker and never ended. The task is parked for a person to look at.
    #[error("effect {key} of task {task} was begun and never ended; see agentctl effects")]
    Indeterminate {
        /// The task.
        task: String,
        /// The effect's key in it.
        key: String,
    },
    /// agentd refused a request. Nothing of it counts.
    #[error("{code}: {message}")]
    Refused {
        /// An error code of the protocol.
        code: String,
        /// For people.
        message: String,
    },
    /// The answer lacks something that the protocol promises.
    #[error("agentd answered without {0}")]
    Answer(&'static str),
    /// Threads or signal handlers could not be had.
    #[error("failed to start the worker: {0}")]
    Start(#[source] std::io::Error),
    /// The program's own failure. The task ends as an error.
    #[error("{0}")]
    Failed(Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// The program's own failure.
    pub fn failed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Failed(error.into())
    }

    pub(crate) fn of_answer(answer: &Value) -> Self {
        let text = |name: &str| answer[name].as_str().unwrap_or_default().to_owned();
        Self::Refused { code: text("err"), message: text("msg") }
    }

    pub(crate) fn is_conflict(&self) -> bool {
        matches!(self, Self::Refused { code, .. } if code == "conflict")
    }
}
