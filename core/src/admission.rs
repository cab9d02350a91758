//! Requests, and the one place that says yes or no to them.
//!
//! Every request is answered at once: accepted (with the number of the operation that it begins), already so, or
//! denied with a reason that says what to do. The end of an accepted one is told by
//! [`News::Finished`].

use thiserror::Error;

use crate::app::{App, Context, Desired, Pending, Rise, Steer, Undo};
use crate::effect::{Effect, News, OperationKind, OperationResult, Toll};
use crate::fleet::Fleet;
use crate::id::{AppName, Generation, Operation, Revision, Slot};
use crate::policy::{AppPolicy, Lanes};
use crate::rollout::{Plan, Rollout, Side, Sides};
use crate::time::Moment;
use crate::worker::{Phase, State, Worker};

/// Most workers of one app: each has a place in the kernel's group and a share in its program.
pub const WORKERS_MAX: u32 = 4096;

/// Something that somebody asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// Make an app run. An unknown one is added.
    Start {
        /// Which.
        app: AppName,
        /// Its configuration as of now.
        revision: Revision,
        /// Its policy as of now.
        policy: AppPolicy,
    },
    /// Drain and end its workers; it stays known, and so do its sockets.
    Stop {
        /// Which.
        app: AppName,
    },
    /// Stop, then forget.
    Delete {
        /// Which.
        app: AppName,
    },
    /// Replace its workers beside each other, with today's configuration.
    Reload {
        /// Which.
        app: AppName,
        /// Its configuration as of now.
        revision: Revision,
        /// Its policy as of now.
        policy: AppPolicy,
    },
    /// End its workers, then start new ones, with today's configuration.
    Restart {
        /// Which.
        app: AppName,
        /// Its configuration as of now.
        revision: Revision,
        /// Its policy as of now.
        policy: AppPolicy,
    },
    /// Put another release in its place, by the strategy that its change needs.
    Upgrade {
        /// Which.
        app: AppName,
        /// The configuration of the new release.
        revision: Revision,
        /// Its policy.
        policy: AppPolicy,
        /// By which road.
        plan: Plan,
        /// Whether it is new, or one that served before.
        kind: OperationKind,
    },
    /// Say something to the deployment that runs.
    Steer {
        /// Whose.
        app: AppName,
        /// What.
        steer: Steer,
    },
    /// Make an app run that is not known; it is forgotten again when it does not come up.
    Create {
        /// Which.
        app: AppName,
        /// Its configuration.
        revision: Revision,
        /// Its policy.
        policy: AppPolicy,
    },
    /// Take another configuration without a new process: one that differs only in what governs the workers that run
    /// (see `diff`), or any for an app of which nothing runs.
    Adopt {
        /// Which.
        app: AppName,
        /// Its configuration as of now.
        revision: Revision,
        /// Its policy as of now.
        policy: AppPolicy,
    },
    /// Let its workers renew what they know, without another process.
    Refresh {
        /// Which.
        app: AppName,
    },
    /// Change how many workers serve.
    Scale {
        /// Which.
        app: AppName,
        /// How many.
        workers: u32,
    },
}

/// A yes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admitted {
    /// It began; its end is told by its number.
    Begun(Operation),
    /// The deployment of this number was told.
    Steered(Operation),
    /// Nothing to do: it is as asked.
    AlreadySo,
}

/// A no.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Denied {
    /// Nobody knows the app.
    #[error("no app is named {0}")]
    NoSuchApp(AppName),
    /// One deployment at a time.
    #[error("deployment {id} of {app} is running")]
    DeploymentRunning {
        /// Whose.
        app: AppName,
        /// The running one.
        id: Operation,
    },
    /// Nothing is put in the place of workers that are being asked to renew what they know.
    #[error("refresh {id} of {app} is running")]
    RefreshRunning {
        /// Whose.
        app: AppName,
        /// The running one.
        id: Operation,
    },
    /// Its configuration does not say how.
    #[error("{0} says nowhere how its workers are asked to refresh")]
    NoRefresh(AppName),
    /// There is nobody to ask.
    #[error("no worker of {0} runs, so none can be asked to refresh")]
    NobodyRuns(AppName),
    /// There is no deployment to say something to.
    #[error("no deployment of {0} is running")]
    NothingDeploys(AppName),
    /// Nothing changes the mind of one that goes back.
    #[error("deployment {id} of {app} is going back already")]
    GoingBack {
        /// Whose.
        app: AppName,
        /// Which.
        id: Operation,
    },
    /// What was there before is ended first.
    #[error("deployment {id} of {app} is a restart: there is nothing to go back to")]
    NoWayBack {
        /// Whose.
        app: AppName,
        /// Which.
        id: Operation,
    },
    /// It waits for no decision.
    #[error("deployment {id} of {app} waits for nobody: its new workers are not sharing connections")]
    NothingToPromote {
        /// Whose.
        app: AppName,
        /// Which.
        id: Operation,
    },
    /// A reload needs something to reload.
    #[error("{0} is stopped")]
    Stopped(AppName),
    /// It is on its way out.
    #[error("{0} is being deleted")]
    BeingDeleted(AppName),
    /// No or too many workers.
    #[error("{0} workers were asked for; between 1 and {WORKERS_MAX} are possible")]
    WorkerCount(u32),
}

impl Request {
    /// Which app it is about.
    #[must_use]
    pub fn app(&self) -> &AppName {
        match self {
            Self::Start { app, .. }
            | Self::Stop { app }
            | Self::Delete { app }
            | Self::Reload { app, .. }
            | Self::Restart { app, .. }
            | Self::Upgrade { app, .. }
            | Self::Steer { app, .. }
            | Self::Create { app, .. }
            | Self::Adopt { app, .. }
            | Self::Refresh { app }
            | Self::Scale { app, .. } => app,
        }
    }
}

impl Fleet {
    /// Says yes or no without doing anything; a yes is for a request that begins something or is met.
    ///
    /// # Errors
    /// The reason why not.
    pub fn check(&self, request: &Request) -> Result<(), Denied> {
        let name = request.app();
        let Some(app) = self.app(name) else {
            return match request {
                Request::Start { policy, .. } | Request::Create { policy, .. } => worker_count(policy.workers),
                Request::Stop { .. }
                | Request::Delete { .. }
                | Request::Reload { .. }
                | Request::Restart { .. }
                | Request::Upgrade { .. }
                | Request::Steer { .. }
                | Request::Adopt { .. }
                | Request::Refresh { .. }
                | Request::Scale { .. } => Err(Denied::NoSuchApp(name.clone())),
            };
        };
        let deleted = app.head.desired == Desired::Deleted;
        let free = || match (&app.head.rollout, &app.head.refreshes.running) {
            (Some(rollout), _) => Err(Denied::DeploymentRunning { app: name.clone(), id: rollout.id }),
            (None, Some(refresh)) => Err(Denied::RefreshRunning { app: name.clone(), id: refresh.id }),
            (None, None) => Ok(()),
        };
        let running = || match app.head.desired {
            Desired::Running => Ok(()),
            Desired::Stopped | Desired::Deleted => Err(Denied::Stopped(name.clone())),
        };
        match request {
            Request::Delete { .. } => Ok(()),
            _ if deleted => Err(Denied::BeingDeleted(name.clone())),
            Request::Stop { .. } => Ok(()),
            Request::Steer { steer, .. } => app.may_steer(*steer),
            Request::Start { policy, .. } | Request::Create { policy, .. } => worker_count(policy.workers),
            Request::Restart { policy, .. } | Request::Adopt { policy, .. } => {
                worker_count(policy.workers).and_then(|()| free())
            }
            Request::Reload { policy, .. } | Request::Upgrade { policy, .. } => {
                worker_count(policy.workers).and_then(|()| running()).and_then(|()| free())
            }
            Request::Scale { workers, .. } => worker_count(*workers).and_then(|()| free()),
            Request::Refresh { .. } => running().and_then(|()| free()).and_then(|()| app.may_refresh()),
        }
    }
}

fn worker_count(workers: u32) -> Result<(), Denied> {
    if (1..=WORKERS_MAX).contains(&workers) { Ok(()) } else { Err(Denied::WorkerCount(workers)) }
}

impl App {
    /// Begins what was admitted.
    pub(crate) fn begin(&mut self, cx: &mut Context<'_>, id: Operation, request: Request) -> Admitted {
        let admitted = match request {
            Request::Start { revision, policy, .. } => self.begin_start(cx, id, revision, policy, None),
            Request::Create { revision, policy, .. } => {
                let undo = (self.head.last_generation == Generation(0)).then_some(Undo::Forget);
                self.begin_start(cx, id, revision, policy, undo)
            }
            Request::Adopt { revision, policy, .. } => self.begin_adopt(cx, id, revision, policy),
            Request::Reload { revision, policy, .. }
            | Request::Restart { revision, policy, .. }
            | Request::Upgrade { revision, policy, .. }
                if self.head.desired == Desired::Running && self.head.rise == Rise::Waiting =>
            {
                // Nothing of it runs: it starts with today's configuration when it does.
                self.abort_pending(cx, &[OperationKind::Start], "it starts with another configuration");
                self.adopt_policy(revision, policy);
                self.head.revision = revision;
                self.push(cx, id, OperationKind::Start, None);
                Admitted::Begun(id)
            }
            Request::Stop { .. } => self.begin_stop(cx, id, OperationKind::Stop, Desired::Stopped),
            Request::Delete { .. } => self.begin_stop(cx, id, OperationKind::Delete, Desired::Deleted),
            Request::Reload { revision, policy, .. } => {
                self.begin_rollout(cx, id, OperationKind::Reload, revision, policy, Plan::rolling())
            }
            Request::Restart { revision, policy, .. } if self.head.desired == Desired::Running => {
                self.begin_rollout(cx, id, OperationKind::Restart, revision, policy, Plan::recreate())
            }
            Request::Upgrade { revision, policy, plan, kind, .. } => {
                self.begin_rollout(cx, id, kind, revision, policy, plan)
            }
            Request::Steer { steer, .. } => self.steer(cx, steer),
            Request::Restart { revision, policy, .. } => self.begin_start(cx, id, revision, policy, None),
            Request::Scale { workers, .. } => self.begin_scale(cx, id, workers),
            Request::Refresh { .. } => self.begin_refresh(cx, id),
        };
        cx.out.save_app(&self.head.name);
        self.reconcile(cx);
        admitted
    }

    fn begin_start(
        &mut self,
        cx: &mut Context<'_>,
        id: Operation,
        revision: Revision,
        policy: AppPolicy,
        undo: Option<Undo>,
    ) -> Admitted {
        if self.head.desired == Desired::Running {
            return self.revive(cx, id);
        }
        self.abort_pending(cx, &[OperationKind::Stop], "the app was started again");
        self.head.desired = Desired::Running;
        self.head.rise = if policy.needs.is_empty() { Rise::Begun } else { Rise::Waiting };
        self.adopt_policy(revision, policy);
        self.head.revision = revision;
        self.head.generation = self.next_generation();
        self.push(cx, id, OperationKind::Start, undo);
        Admitted::Begun(id)
    }

    /// Goes on with another configuration and the workers that are there.
    fn begin_adopt(&mut self, cx: &mut Context<'_>, id: Operation, revision: Revision, policy: AppPolicy) -> Admitted {
        let (before, count) = (self.head.revision, self.head.count);
        let runs = self.head.desired == Desired::Running && self.head.rise != Rise::Waiting;
        self.adopt_policy(revision, policy);
        if runs {
            self.govern(cx, revision);
        } else {
            self.head.revision = revision;
        }
        if runs && self.head.count != count {
            let why = "another configuration took its place";
            self.abort_pending(cx, &[OperationKind::Scale, OperationKind::Adopt], why);
            self.push(cx, id, OperationKind::Adopt, Some(Undo::Adopt { revision: before, count }));
        } else {
            let pending = pending(cx.tick.now, id, OperationKind::Adopt, None);
            self.finish(cx, &pending, OperationResult::Done, None);
        }
        Admitted::Begun(id)
    }

    /// From now on `revision`, whose policy is known, governs the app and those of its workers that ran what it had.
    pub(crate) fn govern(&mut self, cx: &mut Context<'_>, revision: Revision) {
        let before = std::mem::replace(&mut self.head.revision, revision);
        let policy = self.policy_now().clone();
        for worker in self.workers.values_mut().filter(|worker| worker.revision == before && before != revision) {
            worker.revision = revision;
            worker.regard(cx.tick, &policy);
            cx.out.save_worker(&worker.id);
            if let Some(launch) = worker.launch() {
                cx.out.act.push(Effect::Govern { launch, revision });
            }
        }
    }

    /// Starts what waits for a person or for its backoff. Where a deployment has no room for another process, whoever
    /// waits for a person makes way for one that is started as soon as there is.
    fn revive(&mut self, cx: &mut Context<'_>, id: Operation) -> Admitted {
        let generation = self.head.generation;
        let of_it = |worker: &Worker| {
            let waits = matches!(worker.state.phase(), Phase::Failed | Phase::Backoff | Phase::Exited);
            waits && worker.id.generation == generation
        };
        let slots: Vec<Slot> = self.workers.iter().filter(|(_, worker)| of_it(worker)).map(|(&slot, _)| slot).collect();
        if slots.is_empty() {
            return Admitted::AlreadySo;
        }
        let mut room = self.room();
        for slot in slots {
            let Some(worker) = self.workers.get_mut(&slot) else { continue };
            if worker.state.phase() != Phase::Backoff {
                let Some(left) = room.checked_sub(1) else {
                    self.remove(cx, slot);
                    continue;
                };
                room = left;
            }
            worker.restarts.forgive();
            worker.state = State::Backoff { until: cx.tick.now };
            cx.out.save_worker(&worker.id);
        }
        self.push(cx, id, OperationKind::Start, None);
        self.on_wake(cx);
        Admitted::Begun(id)
    }

    fn begin_stop(&mut self, cx: &mut Context<'_>, id: Operation, kind: OperationKind, desired: Desired) -> Admitted {
        if kind == OperationKind::Stop && self.head.desired == Desired::Stopped && !self.has_any_process() {
            return Admitted::AlreadySo;
        }
        let why = if kind == OperationKind::Stop { "the app was stopped" } else { "the app was deleted" };
        self.abort_rollout(cx, why);
        self.end_refresh(cx, OperationResult::Aborted, Some(why.to_owned()));
        self.abort_pending(cx, &[OperationKind::Start, OperationKind::Scale, OperationKind::Adopt], why);
        self.head.desired = desired;
        self.push(cx, id, kind, None);
        Admitted::Begun(id)
    }

    fn begin_rollout(
        &mut self,
        cx: &mut Context<'_>,
        id: Operation,
        kind: OperationKind,
        revision: Revision,
        policy: AppPolicy,
        plan: Plan,
    ) -> Admitted {
        let why = "a deployment took its place";
        self.abort_pending(cx, &[OperationKind::Start, OperationKind::Scale, OperationKind::Adopt], why);
        // A number that was scaled by hand stays, unless the configuration's own number changed.
        let count = if policy.workers == self.policy_now().workers { self.head.count } else { policy.workers };
        self.roll_to(cx, id, kind, (revision, policy), plan, count)
    }

    fn begin_scale(&mut self, cx: &mut Context<'_>, id: Operation, workers: u32) -> Admitted {
        if self.head.count == workers && self.head.pending.is_empty() {
            return Admitted::AlreadySo;
        }
        let shared = self.policy_now().lanes == Lanes::PerGeneration;
        let runs = self.head.desired == Desired::Running && self.head.rise != Rise::Waiting;
        if shared && workers < self.head.count && runs {
            // Workers that share a queue cannot be drained one by one: the whole generation is replaced.
            self.abort_pending(cx, &[OperationKind::Scale, OperationKind::Adopt], "it was scaled again");
            let (revision, policy) = (self.head.revision, self.policy_now().clone());
            return self.roll_to(cx, id, OperationKind::Scale, (revision, policy), Plan::rolling(), workers);
        }
        self.abort_pending(cx, &[OperationKind::Scale, OperationKind::Adopt], "it was scaled again");
        self.head.count = workers;
        self.push(cx, id, OperationKind::Scale, None);
        if !runs {
            // Only noted, for the next start.
            self.head.pending.retain(|pending| pending.id != id);
            return Admitted::AlreadySo;
        }
        Admitted::Begun(id)
    }

    fn roll_to(
        &mut self,
        cx: &mut Context<'_>,
        id: Operation,
        kind: OperationKind,
        (revision, policy): (Revision, AppPolicy),
        plan: Plan,
        count: u32,
    ) -> Admitted {
        let from = Side { generation: self.head.generation, revision: self.head.revision, count: self.head.count };
        let to = Side { generation: self.next_generation(), revision, count };
        let mut rollout = Rollout::begin(id, kind, Sides { from, to }, plan, &policy, cx.tick.now);
        if self.policy_now().lanes == Lanes::PerGeneration && !rollout.is_exclusive() {
            // Whatever comes after them: those that share a queue go together, so all that is new comes first.
            (rollout.surge, rollout.unavailable) = (from.count.max(to.count), 0);
        }
        self.head.policies.insert(revision, Box::new(policy));
        self.head.rollout = Some(rollout);
        cx.out.tell_app(&self.head.name, News::RolloutStarted { id, from: from.generation, to: to.generation });
        self.ask_about_stage(cx);
        Admitted::Begun(id)
    }

    fn adopt_policy(&mut self, revision: Revision, policy: AppPolicy) {
        let before = self.policy_now().workers;
        if self.head.last_generation.0 == 0 || before != policy.workers {
            self.head.count = policy.workers;
        }
        self.head.policies.insert(revision, Box::new(policy));
    }

    fn next_generation(&mut self) -> Generation {
        self.head.last_generation = self.head.last_generation.next();
        self.head.last_generation
    }

    fn push(&mut self, cx: &mut Context<'_>, id: Operation, kind: OperationKind, undo: Option<Undo>) {
        self.head.pending.push(pending(cx.tick.now, id, kind, undo));
    }
}

/// A request at its beginning.
fn pending(now: Moment, id: Operation, kind: OperationKind, undo: Option<Undo>) -> Pending {
    Pending { id, kind, started_at: now, failure: None, undo, toll: Toll::default() }
}
