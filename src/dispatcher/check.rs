//! Which open checkpoints the new release of a deployment reads, found out before it takes anything over.
//!
//! ```text
//!  Effect::Check ─► ledger: how many are open, which are newer than its state_version, copies of the others
//!                      └─► its `check`, in its folder: a line of JSON a checkpoint in, a line a task that it cannot read out
//!                             ├─ code 0 ─► ledger: written down ─► RolloutEvent::Checked
//!                             └─ anything else ─► RolloutEvent::Unfit: the deployment goes back, nobody was started
//! ```
//!
//! The command has the environment that a worker begins with, no secrets, no socket, and nothing of it is left at its end.
//! A next supervisor asks again from the beginning. Owns the command and its word; what follows for tasks is the ledger's.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use agentd_core::event::{Event, RolloutEvent};
use agentd_core::id::{AppName, Generation, Operation, Revision};
use agentd_core::rollout::Stage;
use agentd_core::task::TaskId;
use agentd_protocol::control::{CheckpointsView, UnreadTask};
use rustix::fs::{MemfdFlags, memfd_create};
use tokio::sync::{mpsc, oneshot};

use super::input::Input;
use super::launch::UMASK;
use super::{Child, Dispatcher};
use crate::causes::in_full;
use crate::process::plan::{ExecPlan, Limit, Secrets};
use crate::process::reaper::Exit;
use crate::process::spawn::{Company, Report, SpawnFds, spawn};
use crate::process::tree::{Identity, Tree};
use crate::tasks::{Command, Inspect, Inspected};

/// Most that a check may write, into any one file.
const OUTPUT_MAX: u64 = 4 << 20;

/// Tasks that are named in a report.
const NAMED: usize = 100;

/// What was found out for a deployment.
#[derive(Debug)]
pub struct Looked {
    pub(super) app: AppName,
    pub(super) id: Operation,
    /// What was open, and what of it is not read, with why; an error is a sentence.
    pub(super) found: Result<Found, String>,
}

/// Which open checkpoints are read.
#[derive(Debug, Default)]
pub(super) struct Found {
    inspected: Inspected,
    /// What its check named, with why.
    refused: Vec<(TaskId, String)>,
}

/// A check, please.
#[derive(Debug)]
pub struct RunCheck {
    app: AppName,
    id: Operation,
    copies: Arc<File>,
    reply: oneshot::Sender<Result<Running, String>>,
}

/// A check that runs.
#[derive(Debug)]
struct Running {
    program: String,
    output: File,
    said: File,
    report: Report,
    ended: oneshot::Receiver<Result<Exit, String>>,
    tree: Tree,
    within: Duration,
}

impl Dispatcher {
    /// Finds out what the new release of a deployment reads; the answer comes as an input.
    pub(super) fn check(&mut self, app: &AppName, id: Operation) {
        let Some((_, revision)) = self.checking(app, id) else { return };
        let record = self.apps.get(app).and_then(|shell| shell.revisions.get(&revision));
        let (Some(record), true) = (record, self.tasks.is_some()) else { return self.checked(app, id) };
        let copies = match record.check().map(|_| memfd_create("agentd-checkpoints", MemfdFlags::CLOEXEC)).transpose() {
            Ok(copies) => copies.map(|fd| Arc::new(File::from(fd))),
            Err(errno) => return self.unfit(app, id, format!("its checkpoints could not be copied: {errno}")),
        };
        let (answer, inspected) = oneshot::channel();
        let inspect = Inspect { app: app.clone(), reads: record.state_version(), copies: copies.clone(), answer };
        self.tell_tasks(Command::Inspect(Box::new(inspect)));
        let look = Look { app: app.clone(), id, copies, inspected, inputs: self.inputs.clone() };
        tokio::spawn(look.take());
    }

    /// The side that a deployment at this stage is about.
    fn checking(&self, app: &AppName, id: Operation) -> Option<(Generation, Revision)> {
        let rollout = self.fleet.app(app)?.head.rollout.as_ref().filter(|rollout| rollout.id == id)?;
        let here = matches!(rollout.stage, Stage::Checking { .. }) && rollout.is_undecided();
        here.then_some((rollout.to.generation, rollout.to.revision))
    }

    fn checked(&mut self, app: &AppName, id: Operation) {
        let rollout = self.fleet.app(app).and_then(|app| app.head.rollout.as_ref());
        if let Some(Stage::Checking { last }) = rollout.map(|rollout| &rollout.stage) {
            let event = RolloutEvent::Checked { last: *last };
            self.events.push_back(Event::Rollout { app: app.clone(), id, event });
        }
    }

    fn unfit(&mut self, app: &AppName, id: Operation, why: String) {
        self.events.push_back(Event::Rollout { app: app.clone(), id, event: RolloutEvent::Unfit { why } });
    }

    /// A deployment's look at checkpoints came to its end.
    pub(super) fn looked(&mut self, looked: Looked) {
        let Looked { app, id, found } = looked;
        let Some((generation, _)) = self.checking(&app, id) else { return };
        let Found { inspected, refused } = match found {
            Ok(found) => found,
            Err(why) => return self.unfit(&app, id, why),
        };
        let unread: BTreeSet<TaskId> = refused.iter().map(|(task, _)| task.clone()).collect();
        let all = inspected.newer.iter().chain(&refused);
        let view = CheckpointsView {
            open: inspected.open,
            shown: inspected.copied.len() as u64,
            unread: (inspected.newer.len() + refused.len()) as u64,
            tasks: all.take(NAMED).map(|(task, why)| UnreadTask { task: task.to_string(), why: why.clone() }).collect(),
        };
        self.remember_checkpoints(id, view);
        self.tell_tasks(Command::Looked { app, deployment: id, generation, unread });
    }

    /// The ledger has written it down.
    pub(super) fn look_is_kept(&mut self, app: &AppName, id: Operation) {
        if self.checking(app, id).is_some() {
            self.checked(app, id);
        }
    }

    pub(super) fn run_check(&mut self, run: RunCheck) {
        let RunCheck { app, id, copies, reply } = run;
        let started = self.start_check(&app, id, &copies).map_err(|why| format!("its check could not run: {why}"));
        // Who asked is gone only when the daemon is ending.
        let _ = reply.send(started);
    }

    fn start_check(&mut self, app: &AppName, id: Operation, copies: &File) -> Result<Running, String> {
        let failed = |error: &dyn std::error::Error| in_full(error);
        let (_, revision) = self.checking(app, id).ok_or("its deployment is over")?;
        let record = self.apps.get(app).and_then(|shell| shell.revisions.get(&revision)).ok_or("it is gone")?;
        let argv = record.check().ok_or("it has none")?;
        let argv: Vec<String> = argv.iter().map(|word| record.in_release(word)).collect();
        let scratch = || memfd_create("agentd-check", MemfdFlags::CLOEXEC).map(File::from);
        let (output, said) = scratch().and_then(|output| Ok((output, scratch()?))).map_err(|errno| failed(&errno))?;
        let mut env = record.config.environment(&record.environment, &Default::default()).map_err(|e| failed(&e))?;
        let launch = self.marks.draw();
        let identity = Identity { instance: Arc::clone(&self.instance), launch };
        env.extend(identity.variables());
        if let Some(release) = &record.release {
            env.insert("AGENTD_RELEASE".to_owned(), release.id.to_string());
            env.insert("AGENTD_RELEASE_DIR".to_owned(), release.folder.to_string());
        }
        let plan = ExecPlan {
            cwd: record.config.cwd.clone(),
            env: env.into_iter().map(|(name, value)| (name, record.in_release(&value))).collect(),
            umask: record.config.umask.unwrap_or(UMASK),
            limits: vec![(Limit::FileSize, OUTPUT_MAX)],
            soft_files: self.files,
            cgroup: None,
            listen_names: Vec::new(),
            listen_pid: false,
            node_channel: false,
            account: record.config.account.clone(),
            secrets: Secrets::default(),
            stdin: true,
            argv,
        };
        let (program, within) = (plan.argv.join(" "), record.config.upgrade.eval_timeout);
        let mut from = copies;
        from.rewind().map_err(|error| failed(&error))?;
        let fds = SpawnFds {
            stdin: Some(copies.as_fd()),
            stdout: output.as_fd(),
            stderr: said.as_fd(),
            listeners: Vec::new(),
        };
        let child = spawn(&mut self.launcher, &plan, &fds, Company::Others).map_err(|error| failed(&error))?;
        let tree = Tree::of_child(identity, child.pid, None);
        let (reply, ended) = oneshot::channel();
        self.children.insert(child.pid, Child::Command(reply));
        Ok(Running { program, output, said, report: child.report, ended, tree, within })
    }
}

/// A look that is being taken.
struct Look {
    app: AppName,
    id: Operation,
    copies: Option<Arc<File>>,
    inspected: oneshot::Receiver<Result<Inspected, String>>,
    inputs: mpsc::UnboundedSender<Input>,
}

impl Look {
    async fn take(self) {
        let Self { app, id, copies, inspected, inputs } = self;
        let found = async {
            let inspected = inspected.await.map_err(|_| "the daemon is ending".to_owned())?;
            let inspected = inspected.map_err(|why| format!("failed to {why}"))?;
            let Some(copies) = copies.filter(|_| !inspected.copied.is_empty()) else {
                return Ok(Found { inspected, refused: Vec::new() });
            };
            let (reply, started) = oneshot::channel();
            let run = RunCheck { app: app.clone(), id, copies, reply };
            inputs.send(Input::RunCheck(run)).map_err(|_| "the daemon is ending".to_owned())?;
            let running = started.await.map_err(|_| "the daemon is ending".to_owned())??;
            let refused = running.hear(&inspected.copied).await?;
            Ok(Found { inspected, refused })
        };
        let found = found.await;
        // The loop is gone only at the very end.
        let _ = inputs.send(Input::Looked(Looked { app, id, found }));
    }
}

impl Running {
    /// Waits for its end; returns the tasks that it named, which are to be among those that it was shown.
    async fn hear(self, shown: &[TaskId]) -> Result<Vec<(TaskId, String)>, String> {
        let Self { program, output, said, report, ended, tree, within } = self;
        let whole = async {
            report.outcome().await.map_err(|failure| format!("its check could not run: {failure}"))?;
            ended.await.map_err(|_| "the daemon is ending".to_owned())?
        };
        let outcome = tokio::time::timeout(within, whole).await;
        if let Err(error) = tree.kill() {
            tracing::warn!(error = in_full(&error), "what a check left behind may live on");
        }
        match outcome {
            Ok(Ok(Exit::Code(0))) => {}
            Ok(Ok(exit)) => {
                let last = text(said).lines().last().map(|line| format!(": {line}")).unwrap_or_default();
                return Err(format!("its check {program} {exit}{last}"));
            }
            Ok(Err(why)) => return Err(why),
            Err(_) => return Err(format!("its check {program} did not end within {within:?}")),
        }
        named(&text(output), shown)
            .map_err(|line| format!("its check {program} said {line:?}, which is no task that it was shown"))
    }
}

/// What was written into a file.
fn text(mut file: File) -> String {
    let mut bytes = Vec::new();
    match file.rewind().and_then(|()| file.read_to_end(&mut bytes)) {
        Ok(_) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => format!("(not to be read: {error})"),
    }
}

/// The tasks that lines name, each with why; an error is the first line that names none.
fn named(lines: &str, shown: &[TaskId]) -> Result<Vec<(TaskId, String)>, String> {
    let shown: BTreeSet<&str> = shown.iter().map(TaskId::as_str).collect();
    let lines = lines.lines().filter(|line| !line.trim().is_empty());
    lines
        .map(|line| {
            let (task, why) = line.split_once('\t').unwrap_or((line, "its check cannot read it"));
            let known = TaskId::new(task).ok().filter(|id| shown.contains(id.as_str()));
            known.map(|id| (id, why.trim().to_owned())).ok_or_else(|| line.to_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_names_tasks_that_it_was_shown_and_nothing_else() {
        let shown: Vec<TaskId> = ["a", "b c"].iter().map(|text| TaskId::new(text).unwrap()).collect();
        let told = named("a\tno field `x`\n\nb c\n", &shown).unwrap();
        assert_eq!((told[0].0.as_str(), told[0].1.as_str()), ("a", "no field `x`"));
        assert_eq!((told[1].0.as_str(), told.len()), ("b c", 2));
        assert_eq!(named("", &shown), Ok(Vec::new()));
        assert_eq!(named("a\nloading…\n", &shown), Err("loading…".to_owned()));
    }
}
