//! The loop, and the only place whose state changes.
//!
//! ```text
//! input = select(sources)                     input.rs, sources.rs
//! outcome = fleet.step(tick, event)           core: pure
//! commit(outcome.persist)                     commit.rs: before anything that others can see
//! apply(outcome.act)                          apply.rs: what comes of it is the next event
//! tell(outcome.publish)                       tell.rs: events, waiting clients
//! ```
//!
//! Everything that happened by the time the loop looks is taken in together: one commit for all of it.
//!
//! Owns: core's [`Fleet`], the store, the descriptors and tasks of apps and processes (`shell.rs`). Decides nothing.
//! What can go wrong here is I/O; whatever does is either an event of the worker it was for, or told in the log,
//! and the loop goes on. It ends only when somebody asks ([`Dispatcher::run`]).

mod addresses;
mod adopt;
mod apply;
mod applying;
mod before;
mod changes;
mod check;
mod commit;
mod control;
mod cutting;
mod describe;
mod drain;
mod handshakes;
mod history;
mod hook_end;
mod hooks;
mod input;
mod judge;
mod keep;
mod launch;
mod limits;
mod lines;
mod orders;
mod outputs;
mod planned;
mod planning;
mod postponed;
mod prepare;
mod probe;
mod rebuild;
mod refresh;
mod releases;
mod rest;
mod restore;
mod rights;
mod room;
mod shares;
mod shell;
mod sources;
mod stop;
mod strays;
mod successor;
mod tasks;
mod tell;
mod tend;
mod upgrade;
mod verify;
mod view;
mod wish;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use agentd_core::effect::{Effect, News, Outcome};
use agentd_core::event::{Event, WorkerEvent};
use agentd_core::fleet::Fleet;
use agentd_core::id::{AppName, Launch, Pid};
use agentd_core::time::{Moment, Tick};
use jiff::Timestamp;
use nix::sys::signal::Signal;
use tokio::sync::{mpsc, oneshot};

use crate::handover::NewBinary;
use crate::home::Home;
use crate::keeper::{Held, Keeper};
use crate::logs::housekeeper::Housekeeper;
use crate::logs::thread::LogThread;
use crate::process::cgroup::Cgroups;
use crate::process::reaper::Exit;
use crate::process::spawn::Launcher;
use crate::process::sys;
use crate::releases::store::ReleaseFolders;
use crate::sockets::SockDiag;
use crate::standing::Standing;
use crate::status::EventJournal;
use crate::store::{Damage, Opened, Store, Stored};
use crate::supervisors::Supervisors;
use crate::systemd::Systemd;
use crate::tasks::{AskedBy, LedgerOpened, Opening, TaskThread, TasksError};

pub use hook_end::HookEnd;
pub use input::{DaemonSignal, Input};
pub use sources::{Signals, Sources};
pub use successor::CheckResult;
pub use tend::Watches;

use shell::{AppShell, ProcessShell};
use tell::Waiter;

/// Inputs taken in before the outside is looked at again.
const BATCH: usize = 256;

/// Spawns done before the outside is looked at again, so that a thousand starts leave nobody unheard.
const SPAWNS_AT_ONCE: usize = 64;

/// Everything that the loop owns.
#[derive(Debug)]
pub struct Dispatcher {
    home: Home,
    instance: Arc<str>,
    started_at: Timestamp,
    fleet: Fleet,
    store: Store,
    /// What was in it, until it is taken up.
    found: Option<(Stored, Option<Damage>)>,
    apps: BTreeMap<AppName, AppShell>,
    processes: HashMap<Launch, ProcessShell>,
    /// What ended launches had, until it is cleared away.
    remains: Vec<(Launch, ProcessShell)>,
    /// Ended launches whose tasks the ledger is seeing to.
    seen_to: BTreeSet<Launch>,
    /// Whose end the reaper's word about a process is.
    children: HashMap<Pid, Child>,
    launcher: Launcher,
    cgroups: Option<Cgroups>,
    keeper: Option<Keeper>,
    /// How many keepers there were, the present one included.
    keepers: u64,
    orders: orders::Orders,
    sock_diag: Option<SockDiag>,
    logs: LogThread,
    housekeeper: Housekeeper,
    standing: Standing,
    dropping: outputs::Dropping,
    hooks: hooks::Hooks,
    marks: strays::Marks,
    /// The ledger of tasks; none where it could not be started.
    tasks: Option<TaskThread>,
    /// What is still to be heard of its start.
    ledger: Option<Result<LedgerOpened, TasksError>>,
    journal: EventJournal,
    waiters: Vec<Waiter>,
    /// Who asks for what is just being decided, when it is somebody with work in hand.
    asking: AskedBy,
    releases: releases::Releases,
    /// Apps that are reloaded by the clock or by a change of their files.
    tended: BTreeMap<AppName, tend::Tended>,
    /// When workers are measured that have a ceiling of memory.
    measuring: limits::Measuring,
    inputs: mpsc::UnboundedSender<Input>,
    events: VecDeque<Event>,
    todo: VecDeque<Effect>,
    usage: view::UsageCache,
    chance: u64,
    next_stream: u64,
    /// Event numbers below this are ours to give out.
    events_reserved: u64,
    end: End,
    /// The limit of open files that workers get unless they are configured otherwise.
    files: Option<u64>,
    systemd: Systemd,
    /// What systemd kept for us, until the restore has taken what it needs.
    kept_by_systemd: BTreeMap<Held, OwnedFd>,
    /// What the operator should know of this machine: what cannot be enforced, what could not be saved.
    notes: Vec<String>,
    /// Who supervised before us, and we.
    supervisors: Supervisors,
    /// Whether what is decided gets written down.
    saving: commit::Saving,
    /// Sharings of new connections that could not be done.
    owed: shares::Owed,
    /// What is told of deployments that run.
    reports: BTreeMap<agentd_core::id::Operation, agentd_protocol::control::DeploymentReport>,
    /// Another binary that is to take our place.
    successor: Option<successor::Successor>,
    /// Children that ended before we began to look, as they may have under the program before us in this process.
    ended_before: HashMap<Pid, Exit>,
    rest: rest::Rest,
}

/// What a child process is to us.
#[derive(Debug)]
enum Child {
    /// The main process of a worker.
    Worker(Launch),
    /// A probe's command.
    Command(oneshot::Sender<Result<Exit, String>>),
}

/// Whether and how the loop ends.
#[derive(Debug)]
enum End {
    /// Not.
    Open,
    /// As soon as every worker has ended; then those who wait are answered.
    WhenEmpty {
        /// How many workers there were to end.
        workers: u32,
        /// Who waits for it.
        waiting: Vec<crate::control::ReplySink>,
    },
    /// Now; the workers stay.
    Now(Signal),
    /// As soon as nothing is half told; then another binary takes our place.
    Upgrade(successor::Settling),
}

/// How the daemon's work ended.
#[derive(Debug)]
pub enum Departure {
    /// Every worker was drained and stopped, as somebody asked.
    Stopped,
    /// By this signal; the workers stay for the next daemon.
    Left(Signal),
    /// This binary is to take its place, and to serve these clients on.
    Upgrade(NewBinary, Vec<OwnedFd>),
}

/// What a dispatcher is made of.
#[derive(Debug)]
pub struct Parts {
    /// The folders.
    pub home: Home,
    /// The instance's name, unlike any other's.
    pub instance: Arc<str>,
    /// The opened store, and what was in it.
    pub opened: Opened,
    /// The log thread.
    pub logs: LogThread,
    /// What becomes of logs that were put aside.
    pub housekeeper: Housekeeper,
    /// The daemon's settings in force.
    pub standing: Standing,
    /// The ledger of tasks, which may still be opening.
    pub tasks: Result<Opening, TasksError>,
    /// Starts processes.
    pub launcher: Launcher,
    /// Contains them, where the machine lets us.
    pub cgroups: Option<Cgroups>,
    /// Where tasks send what they hear.
    pub inputs: mpsc::UnboundedSender<Input>,
    /// The limit of open files that workers get unless they are configured otherwise.
    pub files: Option<u64>,
    /// What the operator should know of this machine.
    pub notes: Vec<String>,
    /// Who started us, perhaps.
    pub systemd: Systemd,
    /// What it kept from our predecessor.
    pub kept_by_systemd: BTreeMap<Held, OwnedFd>,
    /// Children that had ended before the loop began to listen.
    pub ended_before: Vec<(Pid, Exit)>,
}

impl Dispatcher {
    /// A dispatcher of an empty fleet.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let Parts {
            home,
            instance,
            opened,
            logs,
            housekeeper,
            standing,
            tasks,
            launcher,
            cgroups,
            inputs,
            files,
            notes,
            systemd,
            kept_by_systemd,
            ended_before,
        } = parts;
        let Opened { store, stored, damage } = opened;
        let releases_of_home = ReleaseFolders::below(&home.state);
        let (tasks, ledger) = match tasks.map(Opening::begun) {
            Ok((thread, opened)) => (Some(thread), Ok(opened)),
            Err(error) => (None, Err(error)),
        };
        Self {
            home,
            instance,
            found: Some((stored, damage)),
            started_at: Timestamp::now(),
            fleet: Fleet::default(),
            store,
            apps: BTreeMap::new(),
            processes: HashMap::new(),
            remains: Vec::new(),
            seen_to: BTreeSet::new(),
            children: HashMap::new(),
            launcher,
            cgroups,
            keeper: None,
            keepers: 0,
            orders: orders::Orders::default(),
            sock_diag: None,
            logs,
            housekeeper,
            standing,
            dropping: outputs::Dropping::default(),
            hooks: hooks::Hooks::default(),
            marks: strays::Marks::of_who_begins(sys::boottime()),
            tasks,
            ledger: Some(ledger),
            journal: EventJournal::after(0),
            waiters: Vec::new(),
            asking: AskedBy::Others,
            releases: releases::Releases::new(releases_of_home),
            tended: BTreeMap::new(),
            measuring: limits::Measuring::Idle,
            inputs,
            events: VecDeque::new(),
            todo: VecDeque::new(),
            usage: view::UsageCache::default(),
            chance: seed(),
            next_stream: 0,
            events_reserved: 0,
            end: End::Open,
            files,
            systemd,
            kept_by_systemd,
            notes,
            supervisors: Supervisors::default(),
            saving: commit::Saving::Works,
            owed: shares::Owed::default(),
            reports: BTreeMap::new(),
            successor: None,
            ended_before: ended_before.into_iter().collect(),
            rest: rest::Rest::begin(sys::boottime()),
        }
    }

    /// Runs until somebody asks for the end.
    pub async fn run(mut self, sources: &mut Sources) -> Departure {
        self.systemd.ready();
        self.settle();
        while !self.ended(sources) {
            self.systemd.beat(sys::boottime());
            let more_to_do = !self.todo.is_empty();
            let input = sources.next(self.next_wake(), more_to_do).await;
            let happened = more_to_do || input.is_some();
            if let Some(input) = input {
                self.take(input);
                for _ in 1..BATCH {
                    let Some(input) = sources.try_next() else { break };
                    self.take(input);
                }
            }
            self.tend_due();
            self.measure_due();
            self.share_out_owed();
            if self.fleet.next_wake().is_some_and(|at| at <= sys::boottime()) {
                self.events.push_back(Event::Woke);
            }
            self.settle();
            self.save_again();
            self.go_on_with_succession(sources);
            self.rest(happened);
        }
        self.leave()
    }

    /// When the loop has something to do though nothing happens.
    fn next_wake(&self) -> Option<Moment> {
        let core = self
            .fleet
            .next_wake()
            .into_iter()
            .chain(self.next_show())
            .chain(self.next_tending())
            .chain(self.measuring.wake());
        core.chain(self.systemd.next_beat())
            .chain(self.succession_wake())
            .chain(self.saving.wake())
            .chain(self.owed.wake())
            .chain(self.rest.wake())
            .min()
    }

    /// Takes in one input. Facts are queued; everything else is done or answered.
    fn take(&mut self, input: Input) {
        match input {
            Input::Control(call) => self.control(call),
            Input::Status(query) => self.status(query),
            Input::Signal(DaemonSignal::Child) => self.reap(),
            Input::Signal(DaemonSignal::Leave(signal)) => {
                tracing::info!(%signal, "asked to leave; the workers stay");
                self.end = End::Now(signal);
            }
            Input::Signal(DaemonSignal::Hangup) => self.hang_up(),
            Input::Worker(launch, event) => self.fact(launch, event),
            Input::Rollout { app, id, event } => self.events.push_back(Event::Rollout { app, id, event }),
            Input::Evaluated { app, id, step } => self.ask_hooks(&app, id, before::Awaited::Stage { step }),
            Input::Notified(launch, datagram) => self.notified(launch, datagram),
            Input::Executed(launch, result) => self.executed(launch, result),
            Input::LogsDrained(launch) => self.logs_drained(launch),
            Input::Reaped(launch, pid, exit) => self.reaped(launch, pid, exit),
            Input::Gone(launch) => self.gone(launch),
            Input::FileChanged(app, watched, path) => self.file_changed(&app, watched, &path),
            Input::Measured(found) => self.beyond_limits(found),
            Input::Logs(news) => self.heard_of_logs(news),
            Input::HookEnded(number, end) => self.hook_ended(number, end),
            Input::KeeperGone { nth } => self.keeper_gone(nth),
            Input::Strays(marked) => {
                self.end_strays(&marked);
                self.remove_past_cuts(&marked);
            }
            Input::Emptied(clients) => self.emptied(clients),
            Input::SuccessorChecked(result) => self.successor_checked(result),
            Input::LookAtDrain(launch) => self.look_at_drain(launch),
            Input::MessageWasNotEnough(launch, kill_at) => self.message_was_not_enough(launch, kill_at),
            Input::SignalAgain(launch, signal, failed) => self.signal_again(launch, signal, failed),
            Input::Tasks(report) => self.heard_of_tasks(report),
            Input::OpenProbe(request) => self.open_probe(request),
            Input::CloseProbe { app, addr, probe } => self.close_probe(&app, &addr, probe),
            Input::RunCommand(request) => self.run_command(request),
            Input::RunCheck(run) => self.run_check(run),
            Input::Looked(looked) => self.looked(looked),
            Input::Cut(number, end) => self.cut_ended(number, *end),
        }
    }

    fn fact(&mut self, launch: Launch, event: WorkerEvent) {
        self.events.push_back(Event::Worker { launch, event });
    }

    /// Decides, persists, acts and tells until nothing is left to decide.
    fn settle(&mut self) {
        loop {
            let mut outcome = Outcome::default();
            while let Some(event) = self.events.pop_front() {
                let tick = self.tick();
                outcome.merge(self.fleet.step(tick, event));
            }
            self.commit(&outcome.persist);
            self.take_note(&outcome);
            // What is told of an app needs what is known of it.
            let (last, act): (Vec<_>, Vec<_>) =
                outcome.act.drain(..).partition(|effect| matches!(effect, Effect::Forget { .. }));
            self.todo.extend(act);
            self.apply_todo();
            self.publish(outcome);
            if !last.is_empty() {
                self.todo.extend(last);
                self.apply_todo();
            }
            self.clear_away();
            if self.events.is_empty() {
                break;
            }
        }
        self.show_progress();
    }

    /// Persists what was decided for somebody who asked, and tells it. It is done when the loop settles.
    fn carry_out(&mut self, mut outcome: Outcome) {
        self.commit(&outcome.persist);
        self.take_note(&outcome);
        self.todo.extend(outcome.act.drain(..));
        self.publish(outcome);
    }

    /// What acting on it builds upon: the report that hooks are shown, and what the ledger is told in the order in which it
    /// came about.
    fn take_note(&mut self, outcome: &Outcome) {
        for notice in &outcome.publish {
            self.remember(&notice.app, &notice.news);
            if let (News::Ready { .. }, Some(launch)) =
                (&notice.news, notice.worker.as_ref().and_then(|id| self.launch_of(id)))
            {
                self.tell_ready(launch);
            }
        }
    }

    fn publish(&mut self, outcome: Outcome) {
        let touched = changes::touched(&outcome);
        for notice in outcome.publish {
            self.tell(notice);
        }
        for app in touched {
            self.tell_changes(&app);
        }
    }

    fn tick(&mut self) -> Tick {
        // SplitMix64 (Steele, Lea and Flood, 2014): chance for jitter, not for secrets.
        self.chance = self.chance.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.chance;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        Tick { now: sys::boottime(), entropy: z ^ (z >> 31) }
    }

    fn ended(&mut self, sources: &Sources) -> bool {
        match &mut self.end {
            End::Open => false,
            End::Now(_) => true,
            End::Upgrade(settling) if settling.is_late(sys::boottime()) => true,
            End::Upgrade(settling) => settling.is_emptied() && sources.is_empty() && self.is_settled(),
            End::WhenEmpty { workers, waiting } => {
                if !self.processes.is_empty() {
                    return false;
                }
                for reply in waiting.drain(..) {
                    reply.finish(Ok(agentd_protocol::control::Reply::DaemonStop(
                        agentd_protocol::control::DaemonStop { workers: *workers, cut: None },
                    )));
                }
                true
            }
        }
    }
}

/// 64 bits that nobody could foresee, from the keys that the standard library draws for its hash maps.
fn seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(sys::boottime())
}
