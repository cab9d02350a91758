//! The same for futures, with the feature `tokio`.
//!
//! Waiting for agentd is done on tokio's threads for what blocks, so that the runtime goes on meanwhile; the connection and
//! its two threads are those of [`Worker`].

use std::future::Future;
use std::ops::Deref;
use std::sync::Arc;

use serde_json::Value;
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;

use crate::task::Begun;
use crate::{Error, Options, Task, Worker};

/// A task in hand, for futures. What a [`Task`] tells without asking agentd it tells as well.
#[derive(Clone, Debug)]
pub struct AsyncTask(Arc<Task>);

impl Deref for AsyncTask {
    type Target = Task;

    fn deref(&self) -> &Task {
        &self.0
    }
}

impl AsyncTask {
    /// As [`Task::save`].
    ///
    /// # Errors
    /// As there.
    pub async fn save(&self, step: u64, state: &Value) -> Result<(), Error> {
        let state = state.clone();
        self.ask(move |task| task.save(step, &state)).await
    }

    /// As [`Task::hand_over`].
    ///
    /// # Errors
    /// As there.
    pub async fn hand_over(&self, reason: &str) -> Result<(), Error> {
        let reason = reason.to_owned();
        self.ask(move |task| task.hand_over(&reason)).await
    }

    /// As [`Task::effect`], with a future in the place of the function.
    ///
    /// # Errors
    /// As there.
    pub async fn effect<F>(&self, kind: &str, key: &str, run: impl FnOnce(String) -> F) -> Result<Value, Error>
    where
        F: Future<Output = Result<Value, Error>>,
    {
        let (kind, name) = (kind.to_owned(), key.to_owned());
        match self.ask(move |task| task.begin_effect(&kind, &name)).await? {
            Begun::Over(result) => Ok(result),
            Begun::Run { idempotency_key } => {
                let ran = run(idempotency_key).await;
                let name = key.to_owned();
                self.ask(move |task| task.end_effect(&name, ran)).await
            }
        }
    }

    async fn ask<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&Task) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let task = Arc::clone(&self.0);
        blocking(move || ask(&task)).await
    }
}

impl Worker {
    /// As [`Worker::task`], for a future.
    ///
    /// # Errors
    /// As there.
    pub async fn task_async<F>(&self, options: Options, work: impl FnOnce(AsyncTask) -> F) -> Result<Value, Error>
    where
        F: Future<Output = Result<Value, Error>>,
    {
        let worker = self.clone();
        let task = AsyncTask(Arc::new(blocking(move || worker.begin(options)).await?));
        let worked = work(task.clone()).await;
        task.ask(move |task| task.end(worked)).await
    }

    /// As [`Worker::on_task`], for a future that runs in this runtime.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn on_task_async<F>(&self, kind: &str, run: impl Fn(AsyncTask) -> F + Send + Sync + 'static)
    where
        F: Future<Output = Result<Value, Error>> + Send + 'static,
    {
        let runtime = Handle::current();
        self.on_shared_task(kind, move |task| runtime.block_on(run(AsyncTask(Arc::clone(task)))));
    }

    /// As [`Worker::serve`].
    ///
    /// # Errors
    /// As there.
    pub async fn serve_async(&self) -> Result<(), Error> {
        let worker = self.clone();
        blocking(move || worker.serve()).await
    }
}

async fn blocking<T: Send + 'static>(ask: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    // It ends otherwise only by a panic of its own, or with the runtime.
    spawn_blocking(ask).await.map_err(Error::failed)?
}
