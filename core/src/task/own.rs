//! What an owner does with its task: checkpoints, effects, its end, and giving it up.

use crate::time::Moment;

use super::input::{Doubt, EffectState, Known, Own};
use super::ledger::{Ledger, Phase};
use super::name::{EffectKey, Kind, Speaker};
use super::outcome::{Answer, EffectAnswer, Fate, Outcome, Refused, Row};
use super::state::{End, Mark, ParkedFor, Paused, Released, Stage, State};
use super::taken::{Next, Taken};

impl Ledger {
    pub(super) fn checkpoint(
        &mut self,
        now: Moment,
        from: Speaker,
        own: &Own,
        mark: Mark,
        known: &Known,
        out: &mut Outcome,
    ) -> Result<Answer, Refused> {
        let task = self.owned(now, from, own, known)?;
        if let Some(last) = task.checkpoint.filter(|last| mark.step < last.step) {
            // A later one was acknowledged on the connection that took this one's acknowledgement with it.
            if known.checkpoint {
                return Ok(Answer::Ok);
            }
            return Err(Refused::StepBack { task: own.task.clone(), step: mark.step, last: last.step });
        }
        let again = task.checkpoint.is_some_and(|last| last.step == mark.step);
        task.checkpoint = Some(mark);
        let length = task.since_safe(now).filter(|_| mark.safe && !again);
        out.spans.extend(length.map(|length| task.gap(length, Fate::Done)));
        if let State::Running(run) = &mut task.state {
            run.sign = now;
            if mark.safe && !again {
                run.safe_at = Some(now);
            }
        }
        out.rows.push(Row::Checkpoint { task: own.task.clone(), fence: own.fence, mark });
        // It may be one now that whoever takes over does not read.
        self.tell_in_hand(from.launch, out);
        Ok(Answer::Ok)
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one message, and who, when and where to")]
    pub(super) fn effect_begin(
        &mut self,
        now: Moment,
        from: Speaker,
        own: &Own,
        key: EffectKey,
        kind: Kind,
        known: &Known,
        out: &mut Outcome,
    ) -> Result<Answer, Refused> {
        if self.was_released(from, own, known) {
            // It was parked for this very effect, and the answer was lost.
            return Ok(Answer::Effect(EffectAnswer::Parked));
        }
        let task = self.owned(now, from, own, known)?;
        if let State::Running(run) = &mut task.state {
            run.sign = now;
        }
        let app = task.app.clone();
        let (answer, state) = match known.effect.map(|effect| (effect.state, effect.fence == own.fence)) {
            None | Some((EffectState::Failed, _)) => (EffectAnswer::New, EffectState::Intent),
            // Begun by this very owner: the answer was lost.
            Some((EffectState::Intent, true)) => return Ok(Answer::Effect(EffectAnswer::New)),
            Some((EffectState::Done, _)) => return Ok(Answer::Effect(EffectAnswer::Done)),
            Some((EffectState::Skipped, _)) => return Ok(Answer::Effect(EffectAnswer::Skip)),
            Some((EffectState::Intent, false)) => match self.doubt(&app, &kind) {
                Doubt::Retry => (EffectAnswer::Retry, EffectState::Intent),
                Doubt::Skip => (EffectAnswer::Skip, EffectState::Skipped),
                Doubt::Ask => {
                    let released = Released { launch: from.launch, fence: own.fence };
                    let next = Next::Park(ParkedFor::Effect(key));
                    self.take(now, &own.task, Taken { next, fate: Fate::HandedOver, released: Some(released) }, out);
                    self.place(now, &app, out);
                    return Ok(Answer::Effect(EffectAnswer::Parked));
                }
            },
        };
        if let (EffectState::Intent, Some(task)) = (state, self.tasks.get_mut(&own.task)) {
            task.intents += 1;
        }
        out.rows.push(Row::Effect { task: own.task.clone(), key, fence: own.fence, kind: Some(kind), state });
        Ok(Answer::Effect(answer))
    }

    fn doubt(&self, app: &crate::id::AppName, kind: &Kind) -> Doubt {
        self.apps.get(app).map_or(Doubt::Ask, |app| app.policy.doubt(kind))
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one message, and who, when and where to")]
    pub(super) fn effect_end(
        &mut self,
        now: Moment,
        from: Speaker,
        own: &Own,
        key: EffectKey,
        ok: bool,
        known: &Known,
        out: &mut Outcome,
    ) -> Result<Answer, Refused> {
        let task = self.owned(now, from, own, known)?;
        if let State::Running(run) = &mut task.state {
            run.sign = now;
        }
        match known.effect.map(|effect| (effect.state, effect.fence == own.fence)) {
            Some((EffectState::Intent, true)) => {
                task.intents = task.intents.saturating_sub(1);
                let state = if ok { EffectState::Done } else { EffectState::Failed };
                out.rows.push(Row::Effect { task: own.task.clone(), key, fence: own.fence, kind: None, state });
                Ok(Answer::Ok)
            }
            // Its end is known: the answer was lost.
            Some((EffectState::Done | EffectState::Failed | EffectState::Skipped, _)) => Ok(Answer::Ok),
            None | Some((EffectState::Intent, false)) => Err(Refused::UnknownEffect { task: own.task.clone(), key }),
        }
    }

    pub(super) fn end(
        &mut self,
        now: Moment,
        from: Speaker,
        own: &Own,
        end: End,
        known: &Known,
        out: &mut Outcome,
    ) -> Result<Answer, Refused> {
        if !self.tasks.contains_key(&own.task)
            && known.task.as_ref().is_some_and(|ended| ended.fence == own.fence && ended.end == end)
        {
            // Its end was written, and the answer was lost.
            return Ok(Answer::Ok);
        }
        let app = self.owned(now, from, own, known)?.app.clone();
        self.finish(now, &own.task, end, out);
        self.place(now, &app, out);
        Ok(Answer::Ok)
    }

    /// Its owner gives it up at a safe point.
    pub(super) fn give_up(
        &mut self,
        now: Moment,
        from: Speaker,
        own: &Own,
        known: &Known,
        out: &mut Outcome,
    ) -> Result<Answer, Refused> {
        if self.was_released(from, own, known) {
            // It was taken from it as it wished, and the answer was lost.
            return Ok(Answer::Ok);
        }
        let released = Some(Released { launch: from.launch, fence: own.fence });
        let task = match self.owned(now, from, own, known) {
            // It is another's by now, which is what was asked for. Whoever took it up may have given it up as well before
            // this one's answer, lost on the way, could be given again.
            Err(Refused::Fenced { said, now, .. }) if said < now => return Ok(Answer::Ok),
            owned => owned?,
        };
        let (app, open, resumable) = (task.app.clone(), task.intents, task.resumable());
        let cancelling = task.run().is_some_and(|run| matches!(run.stage, Stage::Cancelling { .. }));
        if cancelling {
            task.released = released;
            self.finish(now, &own.task, End::Cancelled, out);
            self.place(now, &app, out);
            return Ok(Answer::Ok);
        }
        if !resumable {
            return Err(Refused::NotResumable(own.task.clone()));
        }
        if self.stays(&own.task, from.launch) {
            return Err(Refused::Unread(own.task.clone()));
        }
        let draining = matches!(self.workers[&from.launch].phase, Phase::Draining(_));
        if open > 0 && !draining {
            return Err(Refused::EffectsOpen { task: own.task.clone(), open });
        }
        // It may still be at an effect: nobody else is, before it has ended.
        let after = (open > 0).then_some(from.launch);
        let next = Next::Wait { not_before: now, after, why: Paused::Yielded };
        self.take(now, &own.task, Taken { next, fate: Fate::HandedOver, released }, out);
        self.place(now, &app, out);
        Ok(Answer::Ok)
    }

    /// Whether the speaker gave the task up under this fence, and was told so.
    fn was_released(&self, from: Speaker, own: &Own, known: &Known) -> bool {
        let said = Some(Released { launch: from.launch, fence: own.fence });
        match self.tasks.get(&own.task) {
            Some(task) => task.released == said,
            None => known.task.as_ref().is_some_and(|ended| ended.released == said),
        }
    }
}
