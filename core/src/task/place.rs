//! Who runs a task that waits: a ready worker of its app that is connected, awake, reads its checkpoint and has room;
//! who did not give it up, of the highest generation, then the least loaded.

use std::cmp::Reverse;

use crate::id::{AppName, Launch, Pid};
use crate::time::Moment;

use super::ledger::{Ledger, Phase, Voice, Worker};
use super::name::{Link, TaskId};
use super::outcome::{Outcome, Row};
use super::state::{Run, Stage, State};

/// Somewhere to send a task.
struct Place {
    launch: Launch,
    link: Link,
    pid: Pid,
}

impl Ledger {
    /// Sends tasks that wait for nothing but a worker to workers that have room.
    pub(super) fn place(&mut self, now: Moment, app: &AppName, out: &mut Outcome) {
        let Some(tasks) = self.apps.get(app) else { return };
        if tasks.waiting.first().is_none_or(|(at, _)| *at > now) || !self.any_room(app) {
            return;
        }
        let due: Vec<TaskId> =
            tasks.waiting.iter().take_while(|(at, _)| *at <= now).map(|(_, id)| id.clone()).collect();
        for id in due {
            if let Some(place) = self.place_for(&id) {
                self.offer(now, &id, &place, out);
            } else if !self.any_room(app) {
                return;
            }
        }
    }

    fn offer(&mut self, now: Moment, id: &TaskId, place: &Place, out: &mut Outcome) {
        let lease = self.lease(&self.tasks[id].app);
        self.change(now, id, |task| {
            task.state = State::Running(Run {
                launch: place.launch,
                pid: place.pid,
                link: Some(place.link),
                since: now,
                lease_until: now + lease,
                sign: now,
                progress: None,
                safe_at: Some(now),
                stage: Stage::Offered,
            });
        });
        out.rows.push(Row::Task(id.clone()));
        out.say(place.launch, place.link, self.tasks[id].word_run());
    }

    fn ready_workers<'a>(&'a self, app: &AppName) -> impl Iterator<Item = (Launch, &'a Worker)> {
        let launches = self.apps.get(app).into_iter().flat_map(|app| app.workers.iter());
        launches.filter_map(|launch| Some((*launch, self.workers.get(launch)?))).filter(|(_, worker)| {
            match worker.phase {
                Phase::Ready => true,
                Phase::Restored | Phase::Starting | Phase::Draining(_) => false,
            }
        })
    }

    fn any_room(&self, app: &AppName) -> bool {
        self.ready_workers(app).any(|(_, worker)| worker.dials.values().any(super::ledger::Dial::has_room))
    }

    fn place_for(&self, id: &TaskId) -> Option<Place> {
        let task = self.tasks.get(id)?;
        self.ready_workers(&task.app)
            .filter(|(_, worker)| task.is_read_by(worker.generation, worker.state_version))
            .flat_map(|(launch, worker)| worker.dials.iter().map(move |(&link, dial)| (launch, worker, link, dial)))
            .filter(|(_, _, _, dial)| dial.has_room())
            .min_by_key(|(launch, worker, link, dial)| {
                // Who gave it up gets it back only when there is nobody else.
                let back = task.released.is_some_and(|released| released.launch == *launch);
                (back, Reverse(worker.generation), dial.tasks, *launch, *link)
            })
            .map(|(launch, _, link, dial)| Place { launch, link, pid: dial.pid })
    }

    /// Whether a task waits though workers serve, because none of them reads its checkpoint.
    #[must_use]
    pub fn has_no_reader(&self, id: &TaskId) -> bool {
        let Some(task) = self.tasks.get(id).filter(|task| matches!(task.state, State::Waiting { .. })) else {
            return false;
        };
        let mut serving = self.ready_workers(&task.app).map(|(_, worker)| worker).peekable();
        serving.peek().is_some() && !serving.any(|worker| task.is_read_by(worker.generation, worker.state_version))
    }

    /// Whether a worker's release reads the task's checkpoint.
    pub(super) fn readable(&self, id: &TaskId, launch: Launch) -> bool {
        let (task, worker) = (self.tasks.get(id), self.workers.get(&launch));
        task.zip(worker).is_some_and(|(task, worker)| task.is_read_by(worker.generation, worker.state_version))
    }
}

impl super::ledger::Dial {
    fn has_room(&self) -> bool {
        self.voice == Voice::Heard && self.tasks < self.max_tasks
    }
}
