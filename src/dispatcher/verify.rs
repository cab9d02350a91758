//! Looking at the new generation of a deployment before it gets anything: the configuration's `eval` command.
//!
//! The command runs as one of the new workers does (its folder, environment and cgroup) and reaches them, and them only,
//! at `AGENTD_EVAL_ADDR`: a port on the loopback interface that is open as long as it runs, each connection of which is
//! steered to the next of the new workers. Code 0 lets the deployment take its step; any other, or no end in time,
//! takes it back. Without a command nothing has to be looked at. Hooks before the stage come after it (`before`).

use std::time::Duration;

use agentd_core::event::RolloutEvent;
use agentd_core::id::{AppName, Launch, Operation, WorkerId};
use agentd_core::worker::Phase;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};

use super::Dispatcher;
use super::before::Awaited;
use super::input::{Input, OpenProbe, RunCommand};
use crate::process::reaper::Exit;
use crate::sockets::ProbeStream;

/// What is to be looked at, and how.
struct Look {
    app: AppName,
    id: Operation,
    step: usize,
    /// The new workers that serve.
    workers: Vec<(Launch, WorkerId)>,
    /// Where they listen; none for an app that does not.
    listener: Option<String>,
    commands: Vec<Vec<String>>,
    timeout: Duration,
    inputs: mpsc::UnboundedSender<Input>,
}

impl Dispatcher {
    /// Looks whether a deployment may take its step; the answer comes as an input.
    pub(super) fn verify(&mut self, app: &AppName, id: Operation, step: usize) {
        match self.look_of(app, id, step) {
            Some(look) => drop(tokio::spawn(look.take())),
            None => self.ask_hooks(app, id, Awaited::Stage { step }),
        }
    }

    fn look_of(&self, app: &AppName, id: Operation, step: usize) -> Option<Look> {
        let state = self.fleet.app(app)?;
        let rollout = state.head.rollout.as_ref()?;
        let record = self.apps.get(app)?.revisions.get(&rollout.to.revision)?;
        let upgrade = &record.config.upgrade;
        if upgrade.eval.is_empty() {
            return None;
        }
        let new = state
            .workers
            .values()
            .filter(|worker| worker.id.generation == rollout.to.generation && worker.state.phase() == Phase::Ready);
        Some(Look {
            app: app.clone(),
            id,
            step,
            workers: new.filter_map(|worker| Some((worker.launch()?, worker.id.clone()))).collect(),
            listener: record.config.first_stream_listener(),
            commands: upgrade.eval.clone(),
            timeout: upgrade.eval_timeout,
            inputs: self.inputs.clone(),
        })
    }
}

impl Look {
    async fn take(self) {
        let (app, id, step) = (self.app.clone(), self.id, self.step);
        let found = match self.run().await {
            Ok(()) => Input::Evaluated { app, id, step },
            Err(why) => Input::Rollout { app, id, event: RolloutEvent::Refused { step, why } },
        };
        // The loop is gone only at the very end.
        let _ = self.inputs.send(found);
    }

    async fn run(&self) -> Result<(), String> {
        let Some((launch, worker)) = self.workers.first() else {
            return Err("no new worker is ready any more".to_owned());
        };
        let mut env = vec![
            ("AGENTD_DEPLOYMENT".to_owned(), self.id.to_string()),
            ("AGENTD_EVAL_STEP".to_owned(), self.step.to_string()),
        ];
        let door = match &self.listener {
            Some(listener) => {
                let door = Door::open(
                    self.workers.iter().map(|&(launch, _)| launch).collect(),
                    listener.clone(),
                    self.inputs.clone(),
                )
                .await?;
                env.push(("AGENTD_EVAL_ADDR".to_owned(), door.addr.clone()));
                Some(door)
            }
            None => None,
        };
        for command in &self.commands {
            let name = command.first().map_or("", String::as_str);
            let (reply, answer) = oneshot::channel();
            let request = RunCommand { launch: *launch, command: command.clone(), env: env.clone(), reply };
            self.inputs.send(Input::RunCommand(request)).map_err(|_| "the daemon is ending".to_owned())?;
            match tokio::time::timeout(self.timeout, answer).await {
                Ok(Ok(Ok(Exit::Code(0)))) => {}
                Ok(Ok(Ok(exit))) => return Err(format!("eval refused it: {name} {exit}")),
                Ok(Ok(Err(why))) => return Err(format!("eval could not run: {name} beside {worker}: {why}")),
                Ok(Err(_)) => return Err("the daemon is ending".to_owned()),
                Err(_) => return Err(format!("eval did not end within {:?}: {name}", self.timeout)),
            }
        }
        drop(door);
        Ok(())
    }
}

/// A port of the loopback interface whose connections reach the new workers in turn; closed when dropped.
struct Door {
    addr: String,
    task: tokio::task::AbortHandle,
}

impl Drop for Door {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Door {
    async fn open(
        launches: Vec<Launch>,
        listener: String,
        inputs: mpsc::UnboundedSender<Input>,
    ) -> Result<Self, String> {
        let opening = |error: std::io::Error| format!("opening a port for eval: {error}");
        let socket = TcpListener::bind("127.0.0.1:0").await.map_err(opening)?;
        let addr = socket.local_addr().map_err(opening)?.to_string();
        let task = tokio::spawn(async move {
            let mut turn = launches.iter().copied().cycle();
            while let (Ok((client, _)), Some(launch)) = (socket.accept().await, turn.next()) {
                tokio::spawn(pass(client, launch, listener.clone(), inputs.clone()));
            }
        });
        Ok(Self { addr, task: task.abort_handle() })
    }
}

/// Passes one connection through to the worker of `launch`. What goes wrong is seen by the command, as a connection that
/// ends.
async fn pass(mut client: TcpStream, launch: Launch, listener: String, inputs: mpsc::UnboundedSender<Input>) {
    let (reply, answer) = oneshot::channel();
    if inputs.send(Input::OpenProbe(OpenProbe { launch, listener, reply })).is_err() {
        return;
    }
    // Once it is connected, it is in the worker's queue: the steering can end.
    let connected = match answer.await {
        Ok(Ok((connection, _end))) => connection.connected().await.map_err(|error| error.to_string()),
        Ok(Err(why)) => Err(why),
        Err(_) => return,
    };
    let passed = match connected {
        Ok(ProbeStream::Tcp(mut worker)) => tokio::io::copy_bidirectional(&mut client, &mut worker).await,
        Ok(ProbeStream::Unix(mut worker)) => tokio::io::copy_bidirectional(&mut client, &mut worker).await,
        Err(why) => return tracing::debug!(%launch, why, "eval did not reach the worker"),
    };
    if let Err(error) = passed {
        tracing::debug!(%launch, %error, "a connection of eval broke off");
    }
}
