//! Cutting releases before what needs them begins.
//!
//! ```text
//! request ─► which releases does it need that are not there? ── none ─────────────────► it goes its way
//!                │ an `agentd cut` each, beside the loop                                    ▲
//!                ▼                                                                          │ asked again
//!            a report ─► recorded ─► given its name ─► all there? ── yes ───────────────────┘
//!                └─ any failure, no answer in time ─► what was cut is removed, the request is refused
//! ```
//!
//! A cut changes nothing: what is asked for is looked up and checked anew when it is there. An upgrade that is being cut
//! has its number from the beginning, so that a second one can be told of it, and is [written down](super::postponed) until
//! then. A start or an apply has somebody who waits for it, who hears that it broke off.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use agentd_core::id::{AppName, Operation};
use agentd_core::time::Moment;
use agentd_protocol::control::{
    Accepted, Changed, ErrorKind, ErrorObject, Notice, OperationKind, OperationState, OperationView, Reply,
};
use agentd_protocol::events::EventKind;
use agentd_protocol::status::CuttingView;
use camino::Utf8PathBuf;
use jiff::Timestamp;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use super::control::Answer;
use super::input::Input;
use super::releases::Fresh;
use super::view::milliseconds;
use super::wish::Wish;
use super::{Child, Dispatcher};
use crate::causes::in_full;
use crate::config::AppConfig;
use crate::control::ReplySink;
use crate::process::reaper::Exit;
use crate::process::tree::{Identity, Tree};
use crate::process::{INSTANCE_VARIABLE, LAUNCH_VARIABLE, sys};
use crate::releases::store::remove_aside;
use crate::releases::{Cut, Failed, Order, Report, Source, Wanted};

/// How many mistakes of a configuration an event names.
const MISTAKES_TOLD: usize = 3;
/// Longest report of a cut.
const REPORT_MAX: u64 = 4 << 20;
/// How long a cut may take to tell, and to clean up, beyond what it may take to cut.
const TELL_WITHIN: Duration = Duration::from_secs(15);
/// Where foreign programs are looked for when nobody handed a PATH over.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A release that is needed.
pub(super) struct Need {
    pub(super) app: AppName,
    pub(super) config: AppConfig,
    pub(super) environment: BTreeMap<String, String>,
    pub(super) source: Source,
    pub(super) sha256: Option<String>,
    /// Only to be looked at, and compared with this release.
    pub(super) look: Option<Option<Utf8PathBuf>>,
}

/// A release that is being cut.
#[derive(Debug)]
pub(super) struct Cutting {
    pub(super) app: AppName,
    /// The number of what needs it.
    pub(super) operation: Operation,
    staging: Utf8PathBuf,
    task: AbortHandle,
    started: Moment,
    /// The same by the wall clock.
    since: Timestamp,
    /// What it is cut from.
    origin: String,
    /// Whether it is only looked at.
    looks: bool,
}

impl Cutting {
    /// What is shown of it; nothing of what is only looked at.
    pub(super) fn view(&self) -> Option<CuttingView> {
        (!self.looks).then(|| CuttingView {
            operation: self.operation.0,
            origin: self.origin.clone(),
            since: self.since,
        })
    }
}

/// A request that waits for releases.
#[derive(Debug)]
pub(super) struct Waiting {
    wish: Wish,
    reply: ReplySink,
    operation: Operation,
    since: Moment,
    /// What it waits for.
    open: BTreeSet<u64>,
    fresh: BTreeMap<AppName, Fresh>,
    looked: Option<Box<Cut>>,
    failed: Option<ErrorObject>,
}

/// How a cut went, as far as is known.
pub(super) type CutEnd = Result<Report, String>;

impl Dispatcher {
    /// The release that is being cut for an app, if one is.
    pub(super) fn cutting_view(&self, app: &AppName) -> Option<CuttingView> {
        self.releases.cuts.values().filter(|cutting| cutting.app == *app).find_map(Cutting::view)
    }

    /// Takes a request whose releases may have to be cut first.
    pub(super) fn control_with_releases(&mut self, wish: Wish, reply: ReplySink) {
        match self.needs_of(&wish) {
            Ok(needs) if needs.is_empty() => drop(self.carry_on(wish, reply)),
            Ok(needs) => self.cut_first(needs, wish, reply),
            Err(error) => reply.finish(Err(error)),
        }
    }

    fn cut_first(&mut self, needs: Vec<Need>, wish: Wish, reply: ReplySink) {
        if let Some(denied) = needs.iter().find_map(|need| self.cut_runs(&need.app)) {
            return reply.finish(Err(denied));
        }
        let operation = self.fleet.reserve();
        self.cut_under(operation, needs, wish, reply);
    }

    /// The same under a number that it has.
    pub(super) fn cut_under(&mut self, operation: Operation, needs: Vec<Need>, wish: Wish, reply: ReplySink) {
        let kind = wish.kind();
        if let Wish::Upgrade(params) = &wish
            && !params.dry_run
        {
            self.postpone(operation, params);
        }
        let views: Vec<OperationView> = needs
            .iter()
            .map(|need| OperationView {
                id: operation.0,
                app: need.app.to_string(),
                kind,
                already: false,
                note: Some(format!("a release is cut from {}", need.source)),
            })
            .collect();
        let looks = needs.iter().any(|need| need.look.is_some());
        let mut waiting = Waiting {
            wish,
            reply,
            operation,
            since: sys::boottime(),
            open: BTreeSet::new(),
            fresh: BTreeMap::new(),
            looked: None,
            failed: None,
        };
        for need in needs {
            let app = need.app.clone();
            match self.start_cut(need, operation) {
                Ok(number) => drop(waiting.open.insert(number)),
                Err(error) => {
                    waiting.open.iter().for_each(|number| self.drop_cut(*number));
                    if !looks {
                        self.tell_not_cut(&app, operation, sys::boottime(), kind, &error);
                    }
                    self.no_longer_postponed(operation);
                    return waiting.reply.finish(Err(error));
                }
            }
            if !looks {
                self.record(Some(&app), None, EventKind::ReleaseCutting { id: operation.0 });
            }
        }
        match &waiting.wish {
            Wish::Upgrade(params) if params.wait => {
                let _ = waiting.reply.notify(Notice::Accepted(Accepted { operations: views }));
            }
            Wish::Upgrade(params) if !params.dry_run => {
                let begun = Changed { operations: views, results: Vec::new() };
                std::mem::replace(&mut waiting.reply, ReplySink::nobody()).finish(Ok(Reply::Changed(begun)));
            }
            Wish::Upgrade(_) | Wish::Start(_) | Wish::Apply(_) => {}
        }
        self.releases.waiting.push(waiting);
    }

    /// Why no release of an app can be cut just now: another one is.
    pub(super) fn cut_runs(&self, app: &AppName) -> Option<ErrorObject> {
        let cutting = self.releases.cuts.values().find(|cutting| cutting.app == *app)?;
        let why = format!("deployment {} of {app} is running: its release is being cut", cutting.operation);
        let help = format!("wait for it, or `agentctl abort {app}`");
        Some(ErrorObject::new(ErrorKind::Refused, why).with_help(help))
    }

    /// Starts a process that cuts; returns the number of the cut.
    fn start_cut(&mut self, need: Need, operation: Operation) -> Answer<u64> {
        let failed = |why: String| {
            ErrorObject::new(ErrorKind::Internal, format!("no release could be cut: {why}"))
                .with_help("nothing was started or changed")
        };
        let Some(releases) = &need.config.releases else { return Err(failed("it has no source".to_owned())) };
        let number = self.releases.next_cut;
        self.releases.next_cut += 1;
        // Its mark is no other's, not even the program's before us in this process.
        let launch = self.marks.draw();
        let staging = self.releases.folders.staging(&need.app, launch.0).map_err(|error| failed(in_full(&error)))?;
        let order = self.order(&need, staging.clone()).map_err(|error| failed(error.to_string()))?;
        let mut command = self.launcher.itself();
        command.arg("cut").env_clear().current_dir("/").process_group(0);
        command.env(INSTANCE_VARIABLE, &*self.instance).env(LAUNCH_VARIABLE, launch.to_string());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
        let pid = agentd_core::id::Pid(child.id());
        let identity = Identity { instance: Arc::clone(&self.instance), launch };
        let tree = Tree::of_child(identity, pid, None);
        let (reply, ended) = oneshot::channel();
        self.children.insert(pid, Child::Command(reply));
        let pipes = child.stdin.take().map(OwnedFd::from).zip(child.stdout.take().map(OwnedFd::from));
        let line = serde_json::to_string(&order).map_err(|error| failed(error.to_string()))?;
        let conversation = Conversation { line, pipes, ended, tree, within: releases.timeout };
        let inputs = self.inputs.clone();
        let task = tokio::spawn(async move {
            let end = conversation.hold().await;
            // The loop is gone only at the very end.
            let _ = inputs.send(Input::Cut(number, Box::new(end)));
        });
        let cutting = Cutting {
            app: need.app,
            operation,
            staging,
            task: task.abort_handle(),
            started: sys::boottime(),
            origin: need.source.to_string(),
            since: Timestamp::now(),
            looks: need.look.is_some(),
        };
        self.releases.cuts.insert(number, cutting);
        Ok(number)
    }

    fn order(&self, need: &Need, staging: Utf8PathBuf) -> io::Result<Order> {
        let limits = need.config.releases.as_ref().map(|releases| releases.limits).unwrap_or_default();
        let wanted = match &need.look {
            Some(before) => Wanted::Look {
                before: before.clone(),
                parts: need.config.releases.iter().flat_map(|releases| releases.changes.clone()).collect(),
            },
            None => {
                let logs = self.home.logs.join("build");
                std::fs::create_dir_all(&logs)?;
                Wanted::Release {
                    have: self.releases.of(&need.app).map(|record| record.release.id.clone()).collect(),
                    build_log: logs.join(format!("{}.log", need.app)),
                }
            }
        };
        let mut env = need.environment.clone();
        env.entry("PATH".to_owned()).or_insert_with(|| PATH.to_owned());
        let manifest = match need.config.kind {
            crate::config::AppKind::Agent => "agent.toml",
            crate::config::AppKind::Skill(_) => "skill.toml",
        };
        Ok(Order {
            app: need.app.to_string(),
            manifest: manifest.to_owned(),
            source: need.source.clone(),
            sha256: need.sha256.clone(),
            staging,
            wanted,
            limits,
            env,
        })
    }

    /// A cut came to its end.
    pub(super) fn cut_ended(&mut self, number: u64, end: CutEnd) {
        let Some(cutting) = self.releases.cuts.remove(&number) else { return };
        let Some(place) = self.releases.waiting.iter().position(|waiting| waiting.open.contains(&number)) else {
            remove_aside(vec![cutting.staging]);
            return;
        };
        let mut waiting = self.releases.waiting.swap_remove(place);
        waiting.open.remove(&number);
        let failed = match end {
            Ok(Report::Cut(cut)) if cut.difference.is_some() => {
                waiting.looked = Some(cut);
                None
            }
            Ok(Report::Cut(cut)) => match self.install(&cutting.app, *cut) {
                Ok(release) => {
                    let fresh = Fresh { release, operation: waiting.operation };
                    waiting.fresh.insert(cutting.app.clone(), fresh);
                    None
                }
                Err(why) => Some(not_cut(&cutting.app, Failed { why, help: None, tail: Vec::new() })),
            },
            Ok(Report::Failed(failed)) => Some(not_cut(&cutting.app, failed)),
            Err(why) => Some(not_cut(&cutting.app, Failed { why, help: None, tail: Vec::new() })),
        };
        if let Some(error) = failed {
            if !cutting.looks {
                self.tell_not_cut(&cutting.app, cutting.operation, cutting.started, waiting.wish.kind(), &error);
            }
            waiting.failed.get_or_insert(error);
        }
        remove_aside(vec![cutting.staging]);
        if waiting.open.is_empty() {
            self.all_cut(waiting);
        } else {
            self.releases.waiting.push(waiting);
        }
    }

    /// No release of an app was cut, and so nothing came of what it was for.
    pub(super) fn tell_not_cut(
        &mut self,
        app: &AppName,
        of: Operation,
        since: Moment,
        kind: OperationKind,
        error: &ErrorObject,
    ) {
        let data = error.data.as_ref();
        let mistakes = data.into_iter().flat_map(|data| &data.diagnostics).take(MISTAKES_TOLD);
        let mistakes: Vec<String> = mistakes.map(|at| format!("{}:{}: {}", at.file, at.line, at.message)).collect();
        let why = if mistakes.is_empty() {
            error.message.clone()
        } else {
            format!("{}: {}", error.message, mistakes.join("; "))
        };
        tracing::info!(%app, why, "no release was cut");
        let log_tail = data.map(|data| data.advice.clone()).unwrap_or_default();
        self.record(Some(app), None, EventKind::ReleaseFailed { id: of.0, why: why.clone(), log_tail });
        self.tell_over(app, of, since, kind, Some(why));
    }

    /// What never became a deployment is over: it failed for this reason, or there was nothing to do.
    fn tell_over(&mut self, app: &AppName, of: Operation, since: Moment, kind: OperationKind, why: Option<String>) {
        let state = if why.is_some() { OperationState::Failed } else { OperationState::Done };
        let duration_ms = milliseconds(sys::boottime().since(since));
        self.record(Some(app), None, EventKind::OperationFinished { id: of.0, kind, state, why, duration_ms });
    }

    /// Everything that a request waited for is there, or some of it never will be.
    fn all_cut(&mut self, waiting: Waiting) {
        let Waiting { wish, reply, operation, since, fresh, looked, failed, .. } = waiting;
        let cut = fresh.clone();
        match (failed, looked) {
            (Some(error), _) => reply.finish(Err(error)),
            (None, Some(cut)) => self.show_plan(&wish, reply, &cut),
            (None, None) => {
                self.releases.fresh = fresh;
                let upgraded = wish.upgrades().and_then(|name| self.one(name).ok());
                let why = self.carry_on(wish, reply);
                self.releases.fresh.clear();
                if let Some(app) = upgraded
                    && !self.has_begun(&app, operation)
                {
                    // What is in its way tells more than that something is.
                    let why = why.map(|why| self.may_upgrade(&app).err().map_or(why, |denied| denied.message));
                    self.tell_over(&app, operation, since, OperationKind::Upgrade, why);
                }
            }
        }
        self.no_longer_postponed(operation);
        for (app, fresh) in cut {
            self.drop_unused(&app, &fresh.release.id);
            self.retire_releases(&app);
        }
    }

    /// Whether somebody waits for a release for what would be lost with us: a start, an apply.
    pub(super) fn awaits_what_cannot_be_resumed(&self) -> bool {
        let lost = |wish: &Wish| matches!(wish, Wish::Start(_) | Wish::Apply(_));
        self.releases.waiting.iter().any(|waiting| lost(&waiting.wish) && !waiting.reply.is_gone())
    }

    /// Gives up the cut of an app, if one runs: its process sees that nobody waits and cleans up after itself.
    pub(super) fn abort_cut(&mut self, app: &AppName, why: &str) -> Option<Operation> {
        let (&number, cutting) = self.releases.cuts.iter().find(|(_, cutting)| cutting.app == *app)?;
        let operation = cutting.operation;
        self.give_up_cut(number, why);
        Some(operation)
    }

    /// Gives up all that is being cut.
    pub(super) fn abort_cuts(&mut self, why: &str) {
        for number in self.releases.cuts.keys().copied().collect::<Vec<u64>>() {
            self.give_up_cut(number, why);
        }
    }

    fn give_up_cut(&mut self, number: u64, why: &str) {
        if let Some(cutting) = self.releases.cuts.get(&number) {
            cutting.task.abort();
        }
        self.cut_ended(number, Err(format!("go on: {why}")));
    }

    fn drop_cut(&mut self, number: u64) {
        if let Some(cutting) = self.releases.cuts.remove(&number) {
            cutting.task.abort();
            remove_aside(vec![cutting.staging]);
        }
    }
}

fn not_cut(app: &AppName, failed: Failed) -> ErrorObject {
    let Failed { why, help, tail } = failed;
    let message = format!("no release of {app} was cut: failed to {why}");
    let help = help.unwrap_or_else(|| "nothing was started or changed".to_owned());
    let error = ErrorObject::new(ErrorKind::Refused, message).with_help(help);
    tail.into_iter().fold(error, ErrorObject::with_advice)
}

/// What is said to and heard from a process that cuts.
struct Conversation {
    line: String,
    pipes: Option<(OwnedFd, OwnedFd)>,
    ended: oneshot::Receiver<Result<Exit, String>>,
    tree: Tree,
    within: Duration,
}

impl Conversation {
    async fn hold(self) -> CutEnd {
        let Self { line, pipes, ended, tree, within } = self;
        let (input, output) = pipes.ok_or("it has no pipes")?;
        let talk = async {
            let mut input = pipe::Sender::from_owned_fd(input)?;
            let output = pipe::Receiver::from_owned_fd(output)?;
            input.write_all(line.as_bytes()).await?;
            input.write_all(b"\n").await?;
            let mut report = Vec::new();
            output.take(REPORT_MAX).read_to_end(&mut report).await?;
            // Held open until here: its end tells the process that nobody waits any more.
            drop(input);
            io::Result::Ok(report)
        };
        let heard = tokio::time::timeout(within + TELL_WITHIN, talk).await;
        let late = heard.is_err();
        let report = match heard {
            Ok(Ok(report)) => serde_json::from_slice(&report).ok(),
            Ok(Err(_)) | Err(_) => None,
        };
        if let Some(report) = report {
            return Ok(report);
        }
        // What it has started would go on without it.
        if let Err(error) = tree.kill() {
            tracing::warn!(error = in_full(&error), "not all of a cut was ended");
        }
        let exit = tokio::time::timeout(TELL_WITHIN, ended).await;
        Err(match exit {
            _ if late => format!("end within {within:?}"),
            Ok(Ok(Ok(exit))) => format!("cut: its process {exit}, for want of memory perhaps"),
            Ok(Ok(Err(_)) | Err(_)) | Err(_) => "hear how the cut went".to_owned(),
        })
    }
}
