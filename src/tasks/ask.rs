//! What people ask of tasks, answered between two lines of the workers; and what they want done with them.
//!
//! A list has at most [`ROWS_MAX`] rows. Looks run on the ledger's own thread: each is bounded by an index, so that no
//! worker waits for a person's curiosity longer than for another commit.

use std::time::Duration;

use agentd_core::grace::{Shape, Until};
use agentd_core::id::{AppName, Launch};
use agentd_core::task::{InHand, Judged, Kind, Outcome, ParkedFor, Request, State, Task, TaskId};
use agentd_core::time::Tick;
use agentd_protocol::Timestamp;
use agentd_protocol::control::tasks::ROWS_MAX;
use agentd_protocol::control::{
    ALL, AppUsage, CurveView, EffectJudgement, EffectsParams, ErrorKind, ErrorObject, GraceParams, GraceView,
    InHandView, Reply, SessionsParams, TaskChange, TaskChangeParams, TaskChanged, TaskList, TaskState, TaskView,
    TasksParams, TasksPruneParams, TasksUsage, WorkerGrace,
};
use rusqlite::params;

use super::db::{Db, DbError, now_ms};
use super::desk::Desk;
use super::details::{generation_of, paused_word};
use super::thread::Asker;
use crate::causes::in_full;

/// Tasks in hand that a look at the estimator shows.
const SHOWN: usize = 1000;

/// A question.
#[derive(Clone, Debug)]
pub enum Question {
    /// Which tasks are there?
    Tasks(TasksParams),
    /// Do this with a task.
    Change(TaskChangeParams),
    /// Which effects were there?
    Effects(EffectsParams),
    /// Which sessions does an app have?
    Sessions(SessionsParams),
    /// What do an app's tasks take?
    Grace(GraceParams),
    /// What is kept?
    Usage,
    /// Let go of some of it.
    Prune(TasksPruneParams),
}

impl Question {
    /// The apps that it names.
    #[must_use]
    pub fn names(&self) -> &[String] {
        match self {
            Self::Tasks(params) => &params.names,
            Self::Effects(params) => &params.names,
            Self::Sessions(params) => std::slice::from_ref(&params.name),
            Self::Grace(params) => std::slice::from_ref(&params.name),
            Self::Prune(params) => &params.names,
            Self::Change(_) | Self::Usage => &[],
        }
    }
}

type Answer = Result<Reply, ErrorObject>;

pub(super) fn failed(error: &DbError) -> ErrorObject {
    ErrorObject::new(ErrorKind::Internal, format!("failed to {}", in_full(error)))
}

/// Whether a list of names holds this one. An empty list, or `all`, holds every one.
pub(super) fn among(names: &[String], name: &str) -> bool {
    names.is_empty() || names.iter().any(|other| other == name || other == ALL)
}

impl Desk {
    /// Answers, or does what is asked.
    pub(super) fn ask(&mut self, tick: Tick, question: Question, asker: Asker) {
        let answer = match question {
            Question::Tasks(params) => self.list_tasks(tick, &params),
            Question::Change(params) => self.change(tick, &params),
            Question::Effects(params) => self.list_effects(&params).map(Reply::Effects),
            Question::Sessions(params) => self.list_sessions(&params).map(Reply::Sessions),
            Question::Grace(params) => self.show_grace(tick, &params),
            Question::Usage => self.db.usage().map(Reply::TasksUsage).map_err(|error| failed(&error)),
            Question::Prune(params) => self.prune(&params),
        };
        // What was changed is told when it is durable: see `Desk::settle`.
        self.batch.answers.push((asker, answer));
    }

    fn list_tasks(&mut self, tick: Tick, params: &TasksParams) -> Answer {
        let limit = params.limit.min(ROWS_MAX) as usize;
        let wanted = |state: TaskState| params.states.is_empty() || params.states.contains(&state);
        let fits = |task: &&Task| {
            among(&params.names, task.app.as_str())
                && params.kind.as_ref().is_none_or(|kind| task.kind.as_ref().is_some_and(|own| own.as_str() == kind))
                && params.session.as_ref().is_none_or(|of| task.session.as_ref().is_some_and(|own| own.as_str() == of))
                && params.task.as_ref().is_none_or(|id| task.id.as_str() == id)
                && wanted(state_of(task))
        };
        let mut open: Vec<Task> = self.ledger.tasks().filter(fits).cloned().collect();
        open.sort_by_key(|task| std::cmp::Reverse(task.age(tick.now)));
        let mut list = TaskList { more: open.len() > limit, tasks: Vec::new() };
        for task in open.iter().take(limit) {
            let view = self.view(tick, task).map_err(|error| failed(&error))?;
            list.tasks.push(view);
        }
        if wanted(TaskState::Ended) && list.tasks.len() < limit {
            let room = limit - list.tasks.len();
            let mut ended = self.db.ended(params, room + 1).map_err(|error| failed(&error))?;
            list.more |= ended.len() > room;
            ended.truncate(room);
            for view in &mut ended {
                self.compare(view);
            }
            list.tasks.append(&mut ended);
        }
        if params.task.is_some() {
            for view in &mut list.tasks {
                view.details = Some(Box::new(self.details(&view.id)?));
            }
        }
        Ok(Reply::Tasks(list))
    }

    fn change(&mut self, tick: Tick, params: &TaskChangeParams) -> Answer {
        let usage = |why: String| ErrorObject::new(ErrorKind::Usage, why);
        let id = TaskId::new(&params.task).map_err(|error| usage(error.to_string()))?;
        let request = match &params.change {
            TaskChange::Retry { effect } => Request::Retry {
                task: id.clone(),
                effect: effect.map(|effect| match effect {
                    EffectJudgement::Redo => Judged::Redo,
                    EffectJudgement::Skip => Judged::Skip,
                }),
            },
            TaskChange::Discard => Request::Discard { task: id.clone() },
            TaskChange::Cancel { reason } => {
                let reason = reason.clone().unwrap_or_else(|| "cancelled by a person".to_owned());
                Request::Cancel { task: id.clone(), reason }
            }
        };
        let mut out = Outcome::default();
        if let Err(denied) = self.ledger.request(tick, request, &mut out) {
            let error = ErrorObject::new(ErrorKind::Refused, denied.to_string());
            return Err(error.with_help("`agentctl tasks` shows how it stands"));
        }
        self.take_up(tick, out);
        let open = self.ledger.task(&id).cloned();
        let view = match open {
            Some(task) => self.view(tick, &task).map_err(|error| failed(&error))?,
            None => {
                let params = TasksParams { task: Some(params.task.clone()), ..TasksParams::default() };
                let found = self.db.ended(&params, 1).map_err(|error| failed(&error))?.pop();
                found.ok_or_else(|| ErrorObject::new(ErrorKind::Refused, format!("no task {id} is known")))?
            }
        };
        Ok(Reply::TaskChanged(Box::new(TaskChanged { task: view })))
    }

    /// An open task as people see it.
    fn view(&mut self, tick: Tick, task: &Task) -> Result<TaskView, DbError> {
        let row = self.db.open_row(&task.id)?.unwrap_or_default();
        let usual = self.usual_gap(&task.app, task.kind.as_ref());
        let (why, parked_effect) = match &task.state {
            State::Running(_) | State::Told { .. } => {
                let stays = self.ledger.is_left_to_its_worker(&task.id);
                (
                    stays.then(|| {
                        "stays where it is: what takes its worker's place does not read its checkpoint".to_owned()
                    }),
                    None,
                )
            }
            State::Waiting { .. } if self.ledger.has_no_reader(&task.id) => {
                (Some(format!("no worker that serves reads its checkpoint{}", version_of(task))), None)
            }
            State::Waiting { why, .. } => (Some(paused_word(*why).to_owned()), None),
            State::Parked { why: ParkedFor::Crashes, .. } => (Some("it crashed its worker too often".to_owned()), None),
            State::Parked { why: ParkedFor::Effect(key), .. } => {
                (Some(format!("nobody knows whether effect {key} happened")), Some(key.to_string()))
            }
        };
        let mut view = TaskView {
            id: task.id.to_string(),
            app: task.app.to_string(),
            kind: task.kind.as_ref().map(ToString::to_string),
            session: task.session.as_ref().map(ToString::to_string),
            key: task.key.as_ref().map(ToString::to_string),
            state: state_of(task),
            why,
            stuck: task.stuck(tick.now, usual),
            attempt: task.attempt,
            fence: task.fence.0,
            generation: generation_of(&row.worker),
            worker: Some(row.worker).filter(|worker| !worker.is_empty()),
            release: Some(row.release).filter(|release| !release.is_empty()),
            traceparent: row.traceparent,
            age_ms: ms(task.age(tick.now)),
            p50_ms: None,
            p99_ms: None,
            step: task.checkpoint.map(|mark| mark.step),
            checkpoint_at: task
                .checkpoint
                .and_then(|mark| wall(now_ms().saturating_sub(long(tick.now.since(mark.at))))),
            open_effects: task.intents,
            parked_effect,
            begun_at: wall(row.begun_at),
            ended_at: None,
            figures: None,
            details: None,
        };
        self.compare(&mut view);
        Ok(view)
    }

    /// What its kind usually takes.
    fn compare(&mut self, view: &mut TaskView) {
        let Ok(app) = view.app.parse::<AppName>() else { return };
        let Some(governed) = self.governed.get(&app) else { return };
        let shape = self.measures.shape(&app, view.kind.as_deref(), Until::End, &governed.grace);
        if shape.seen > 0 {
            view.p50_ms = Some(seconds_ms(shape.p50));
            view.p99_ms = Some(seconds_ms(shape.p99));
        }
    }

    fn usual_gap(&mut self, app: &AppName, kind: Option<&Kind>) -> Duration {
        match self.governed.get(app) {
            Some(governed) => self.measures.gap(app, kind.map(Kind::as_str), &governed.grace, governed.tasks.lease),
            None => Duration::MAX,
        }
    }

    fn show_grace(&mut self, tick: Tick, params: &GraceParams) -> Answer {
        let unknown = || ErrorObject::new(ErrorKind::NoSuchApp, format!("no app is called {:?}", params.name));
        let app: AppName = params.name.parse().map_err(|_| unknown())?;
        let Some(governed) = self.governed.get(&app).cloned() else {
            let error = ErrorObject::new(ErrorKind::Refused, format!("{app} has had no worker yet"));
            return Err(error.with_help("its tasks are measured as soon as it runs"));
        };
        let mut launches: Vec<(Launch, String)> = self
            .launches
            .iter()
            .filter(|(_, launched)| launched.worker.app == app)
            .map(|(&launch, launched)| (launch, launched.name.clone()))
            .collect();
        launches.sort();
        // What a drain that began now would wait for.
        let usual = self.measures.usual(&app, &governed.grace, governed.tasks.lease);
        let stuck = |task: &InHand| task.stuck(usual.of(task.kind.as_ref()));
        let mut all: Vec<(String, InHand)> = Vec::new();
        let mut workers = Vec::new();
        for (launch, worker) in launches {
            let in_hand = self.ledger.in_hand(launch, tick.now);
            let grace = self.measures.query(&app, in_hand.iter().filter(|task| !stuck(task)), &governed.grace);
            workers.push(WorkerGrace { worker: worker.clone(), grace_ms: ms(grace.bound), why: grace.to_string() });
            all.extend(in_hand.into_iter().map(|task| (worker.clone(), task)));
        }
        all.sort_by_key(|(_, task)| std::cmp::Reverse(task.age));
        let counted = all.iter().map(|(_, task)| task).filter(|task| !stuck(task));
        let whole = self.measures.query(&app, counted, &governed.grace);
        let mut curves = Vec::new();
        let kinds = self.measures.kinds(&app).into_iter().map(Some);
        for kind in std::iter::once(None).chain(kinds) {
            for until in [Until::End, Until::SafePoint] {
                let shape = self.measures.shape(&app, kind.as_deref(), until, &governed.grace);
                curves.push(curve(kind.clone(), until, shape));
            }
        }
        let grace_ms = if all.is_empty() { ms(agentd_core::grace::bound(&governed.grace)) } else { ms(whole.bound) };
        let tasks = all.into_iter().take(SHOWN).map(|(worker, task)| InHandView {
            stuck: stuck(&task),
            task: task.task.to_string(),
            kind: task.kind.map(|kind| kind.to_string()),
            worker,
            age_ms: ms(task.age),
            since_safe_ms: task.since_safe.map(ms),
        });
        let tasks = tasks.collect();
        let view = GraceView {
            app: app.to_string(),
            grace_ms,
            why: whole.to_string(),
            target: governed.grace.target,
            workers,
            curves,
            tasks,
        };
        Ok(Reply::Grace(Box::new(view)))
    }

    fn prune(&mut self, params: &TasksPruneParams) -> Answer {
        let age = i64::try_from(params.older_than_ms).unwrap_or(i64::MAX);
        let before = if age == 0 { i64::MAX } else { now_ms().saturating_sub(age) };
        let pruned = self.prune_kept(&params.names, before).map_err(|error| failed(&error))?;
        let freed_bytes = self.db.sweep_blobs().map_err(|error| failed(&error))?;
        let usage = self.db.usage().map_err(|error| failed(&error))?;
        Ok(Reply::TasksUsage(TasksUsage { pruned, freed_bytes, ..usage }))
    }
}

fn curve(kind: Option<String>, until: Until, shape: Shape) -> CurveView {
    let Shape { points, p50, p90, p99, seen, cut } = shape;
    CurveView { kind, gaps: until == Until::SafePoint, points, p50_s: p50, p90_s: p90, p99_s: p99, seen, cut }
}

fn state_of(task: &Task) -> TaskState {
    match task.state {
        State::Running(_) | State::Told { .. } => TaskState::Running,
        State::Waiting { .. } => TaskState::Waiting,
        State::Parked { .. } => TaskState::Parked,
    }
}

/// Of which version a checkpoint is, in brackets.
fn version_of(task: &Task) -> String {
    let version = task.checkpoint.and_then(|mark| mark.state_version);
    version.map_or_else(String::new, |version| format!(" (state_version {version})"))
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn long(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn seconds_ms(seconds: f64) -> u64 {
    Duration::try_from_secs_f64(seconds).map_or(u64::MAX, ms)
}

/// Milliseconds since 1970 as a time; none when it is none.
pub(super) fn wall(at: i64) -> Option<Timestamp> {
    (at > 0).then(|| Timestamp::from_millisecond(at).ok()).flatten()
}

impl Db {
    /// What is kept.
    pub(super) fn usage(&self) -> Result<TasksUsage, DbError> {
        let mut apps = Vec::new();
        self.each(
            "what is kept",
            "SELECT app, (SELECT count(*) FROM open_task o WHERE o.app = a.app),
                (SELECT count(*) FROM ended_task e WHERE e.app = a.app),
                (SELECT count(*) FROM effect f WHERE f.app = a.app),
                (SELECT count(*) FROM ckpt c JOIN open_task o ON o.id = c.task WHERE o.app = a.app),
                (SELECT count(*) FROM kv k WHERE k.app = a.app)
             FROM (SELECT app FROM open_task UNION SELECT app FROM ended_task UNION SELECT app FROM kv) a ORDER BY app",
            |row| {
                let count = |index| row.get::<_, i64>(index).map(i64::cast_unsigned);
                apps.push(AppUsage {
                    app: row.get(0)?,
                    open: count(1)?,
                    ended: count(2)?,
                    effects: count(3)?,
                    checkpoints: count(4)?,
                    items: count(5)?,
                });
                Ok(())
            },
        )?;
        let size = |name: &str| std::fs::metadata(self.path.with_file_name(name)).map_or(0, |about| about.len());
        let blobs = self.blobs.list()?;
        Ok(TasksUsage {
            apps,
            database_bytes: size("tasks.db") + size("tasks.db-wal"),
            blobs: blobs.len() as u64,
            blob_bytes: blobs.iter().map(|(_, bytes)| bytes).sum(),
            pruned: 0,
            freed_bytes: 0,
        })
    }

    /// What the database has of an open task beside core's record.
    fn open_row(&self, id: &TaskId) -> Result<Option<OpenRow>, DbError> {
        let sql = "SELECT worker, release, traceparent, begun_at FROM open_task WHERE id = ?1";
        self.one("a task", sql, params![id.as_str()], |row| {
            Ok(OpenRow { worker: row.get(0)?, release: row.get(1)?, traceparent: row.get(2)?, begun_at: row.get(3)? })
        })
    }
}

/// See [`Db::open_row`].
#[derive(Debug, Default)]
struct OpenRow {
    worker: String,
    release: String,
    traceparent: Option<String>,
    begun_at: i64,
}
