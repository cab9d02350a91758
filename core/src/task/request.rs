//! What a person wants of a task.

use crate::time::Tick;

use super::input::{EffectState, Judged, Request};
use super::ledger::Ledger;
use super::name::TaskId;
use super::outcome::{Denied, Outcome, Row, Word};
use super::state::{End, ParkedFor, Paused, Stage, State};

impl Ledger {
    /// Does what a person wants of a task.
    ///
    /// # Errors
    /// Why not; then nothing changed.
    pub fn request(&mut self, tick: Tick, request: Request, out: &mut Outcome) -> Result<(), Denied> {
        match request {
            Request::Retry { task, effect } => self.retry(tick, &task, effect, out),
            Request::Discard { task } => match self.open_task(&task)? {
                State::Waiting { .. } | State::Parked { .. } => {
                    self.finish(tick.now, &task, End::Discarded, out);
                    Ok(())
                }
                State::Running(_) => Err(Denied::Running(task)),
                State::Told { .. } => Err(Denied::Unreachable(task)),
            },
            Request::Cancel { task, reason } => self.cancel(tick, &task, reason, out),
        }
    }

    fn open_task(&self, id: &TaskId) -> Result<&State, Denied> {
        self.tasks.get(id).map(|task| &task.state).ok_or_else(|| Denied::NotOpen(id.clone()))
    }

    fn retry(&mut self, tick: Tick, id: &TaskId, effect: Option<Judged>, out: &mut Outcome) -> Result<(), Denied> {
        let parked = match self.open_task(id)? {
            State::Parked { why, .. } => why.clone(),
            State::Running(_) | State::Told { .. } | State::Waiting { .. } => {
                return Err(Denied::NotParked(id.clone()));
            }
        };
        match (parked, effect) {
            (ParkedFor::Crashes, _) => {}
            (ParkedFor::Effect(key), None) => return Err(Denied::EffectUnjudged { task: id.clone(), key }),
            (ParkedFor::Effect(key), Some(judged)) => {
                let state = match judged {
                    Judged::Redo => EffectState::Failed,
                    Judged::Skip => EffectState::Skipped,
                };
                let fence = self.tasks[id].fence;
                out.rows.push(Row::Effect { task: id.clone(), key, fence, kind: None, state });
            }
        }
        self.change(tick.now, id, |task| {
            task.crashes = 0;
            task.state = State::Waiting { not_before: tick.now, after: None, why: Paused::Retried };
        });
        out.rows.push(Row::Task(id.clone()));
        let app = self.tasks[id].app.clone();
        self.place(tick.now, &app, out);
        Ok(())
    }

    fn cancel(&mut self, tick: Tick, id: &TaskId, reason: String, out: &mut Outcome) -> Result<(), Denied> {
        match self.open_task(id)? {
            State::Told { .. } => return Err(Denied::Unreachable(id.clone())),
            State::Waiting { .. } | State::Parked { .. } => {
                self.finish(tick.now, id, End::Cancelled, out);
                return Ok(());
            }
            State::Running(_) => {}
        }
        if let Some(State::Running(run)) = self.tasks.get_mut(id).map(|task| &mut task.state) {
            if let Some(link) = run.link {
                out.say(run.launch, link, Word::Cancel { task: id.clone(), reason: reason.clone() });
            }
            run.stage = Stage::Cancelling { reason };
            out.rows.push(Row::Task(id.clone()));
        }
        Ok(())
    }
}
