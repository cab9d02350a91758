//! A deployment that has both generations beside each other, until it is decided.
//!
//! Nobody is taken out of service here: shares alone say who gets what (`app::weights`). Going back is one change of
//! shares, and so is going on. What decides are facts from outside ([`RolloutEvent`]), time, and people.

use crate::admission::{Admitted, Denied};
use std::time::Duration;

use crate::effect::{Effect, News, StopReason};
use crate::event::RolloutEvent;
use crate::id::Operation;
use crate::rollout::{BackBy, Direction, Judgement, Pace, Rollout, Stage};

use super::{App, Context};

/// What a person may say to a deployment that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steer {
    /// Take the next step now, whatever dwell and gates say.
    Promote,
    /// Take no step until somebody says so.
    Pause,
    /// Go on.
    Resume,
    /// Go back.
    Abort,
}

impl App {
    /// One pass while both generations stay.
    pub(super) fn advance_stage(&mut self, cx: &mut Context<'_>, rollout: &Rollout) {
        let raised = rollout.raised();
        // Leavings of what was before: a relief, a generation that was being replaced.
        self.drain_beyond(cx, rollout.from, None);
        self.drain_where(cx, StopReason::Replaced, Duration::ZERO, |worker| {
            ![rollout.from.generation, rollout.to.generation].contains(&worker.id.generation)
        });
        self.start_missing(cx, raised, rollout.beside_raised());
        let up = matches!(rollout.stage, Stage::Raising { .. }) && self.fulfilled(raised.generation) >= raised.count;
        let due = rollout.due().is_some_and(|at| at <= cx.tick.now);
        if rollout.pace == Pace::Going && (up || due) {
            self.next_stage(cx);
        }
    }

    /// Leaves the present stage for the better.
    fn next_stage(&mut self, cx: &mut Context<'_>) {
        let Some(rollout) = &mut self.head.rollout else { return };
        rollout.stage = rollout.stage.next(&rollout.plan, cx.tick.now);
        rollout.note_step(cx.tick.now);
        let (id, percent) = (rollout.id, rollout.percent());
        let name = rollout.steps.last().expect("a step was just noted").name;
        self.ask_about_stage(cx);
        cx.out.save_app(&self.head.name);
        cx.out.tell_app(&self.head.name, News::StageReached { id, name, percent });
        // What it leads to may be there already.
        self.advance(cx);
    }

    /// Asks again for a yes that may have come, and counted for nothing, while it was paused.
    fn ask_for_leave(&self, cx: &mut Context<'_>) {
        let stage = self.head.rollout.as_ref().map(|rollout| &rollout.stage);
        match stage {
            Some(Stage::Preparing | Stage::Checking { .. } | Stage::Verifying { .. }) => self.ask_about_stage(cx),
            // These are judged on and on, or wait for what levels alone tell.
            Some(
                Stage::Replacing | Stage::Raising { .. } | Stage::Sharing { .. } | Stage::Warm { .. } | Stage::Retiring,
            )
            | None => {}
        }
    }

    /// Asks for the facts that the present stage waits for; again under a new supervisor.
    pub(crate) fn ask_about_stage(&self, cx: &mut Context<'_>) {
        let Some(rollout) = self.head.rollout.as_ref() else { return };
        if !(rollout.is_undecided() || rollout.is_judged_on_the_way()) {
            return;
        }
        let (app, id) = (self.head.name.clone(), rollout.id);
        match rollout.stage {
            Stage::Preparing => cx.out.act.push(Effect::Prepare { app, id }),
            Stage::Checking { last: _ } => cx.out.act.push(Effect::Check { app, id }),
            Stage::Verifying { step } => cx.out.act.push(Effect::Verify { app, id, step }),
            Stage::Replacing | Stage::Sharing { .. } | Stage::Warm { .. } => {
                cx.out.act.push(Effect::Judge { app, id });
            }
            Stage::Raising { .. } | Stage::Retiring => {}
        }
    }

    /// Takes in a fact about the deployment `id`; one about another, or a stage that is over, changes nothing.
    pub(crate) fn on_rollout(&mut self, cx: &mut Context<'_>, id: Operation, event: RolloutEvent) {
        let Some(rollout) = self.head.rollout.as_mut().filter(|rollout| rollout.id == id) else { return };
        if !(rollout.is_undecided() || rollout.is_judged_on_the_way()) {
            return;
        }
        let goes = rollout.pace == Pace::Going;
        match event {
            // Nothing is taken for a yes while nobody may go on: it is asked again then.
            RolloutEvent::Verified { .. } | RolloutEvent::Prepared | RolloutEvent::Checked { .. } if !goes => return,
            RolloutEvent::Verified { step } if rollout.stage == (Stage::Verifying { step }) => {
                self.next_stage(cx);
            }
            RolloutEvent::Refused { step, why } if rollout.stage == (Stage::Verifying { step }) => {
                self.reverse(cx, &why, None, BackBy::Failure);
            }
            RolloutEvent::Prepared if rollout.stage == Stage::Preparing => self.next_stage(cx),
            RolloutEvent::Unprepared { why } if rollout.stage == Stage::Preparing => {
                self.reverse(cx, &why, None, BackBy::Failure);
            }
            RolloutEvent::Checked { last } if rollout.stage == (Stage::Checking { last }) => {
                self.next_stage(cx);
            }
            RolloutEvent::Unfit { why } if matches!(rollout.stage, Stage::Checking { .. }) => {
                self.reverse(cx, &why, None, BackBy::Failure);
            }
            // Late or doubled: that stage is over.
            RolloutEvent::Prepared
            | RolloutEvent::Unprepared { .. }
            | RolloutEvent::Verified { .. }
            | RolloutEvent::Refused { .. }
            | RolloutEvent::Checked { .. }
            | RolloutEvent::Unfit { .. } => return,
            RolloutEvent::Judged(said) => {
                if !rollout.stage.take_judgement(said.clone()) {
                    return;
                }
                cx.out.save_app(&self.head.name);
                if let Judgement::Hold { why } = said {
                    cx.out.tell_app(&self.head.name, News::RolloutHeld { id, why });
                }
            }
            RolloutEvent::Condemned { why } => self.reverse(cx, &why, None, BackBy::Failure),
        }
        self.reconcile(cx);
    }

    /// Whether a person may say this to the deployment that runs.
    pub(crate) fn may_steer(&self, steer: Steer) -> Result<(), Denied> {
        let app = self.head.name.clone();
        let Some(rollout) = &self.head.rollout else { return Err(Denied::NothingDeploys(app)) };
        let id = rollout.id;
        match (steer, &rollout.direction) {
            (_, Direction::Back { .. }) => Err(Denied::GoingBack { app, id }),
            (Steer::Abort, Direction::Forward) if !rollout.can_go_back() => Err(Denied::NoWayBack { app, id }),
            (Steer::Promote, Direction::Forward) => match rollout.stage {
                Stage::Sharing { .. } | Stage::Warm { .. } => Ok(()),
                Stage::Preparing
                | Stage::Checking { .. }
                | Stage::Replacing
                | Stage::Raising { .. }
                | Stage::Verifying { .. }
                | Stage::Retiring => Err(Denied::NothingToPromote { app, id }),
            },
            (Steer::Abort | Steer::Pause | Steer::Resume, Direction::Forward) => Ok(()),
        }
    }

    /// Does what a person said; it was checked to be possible.
    pub(crate) fn steer(&mut self, cx: &mut Context<'_>, steer: Steer) -> Admitted {
        let Some(rollout) = &mut self.head.rollout else { return Admitted::AlreadySo };
        let id = rollout.id;
        let pace = match steer {
            Steer::Pause => Pace::Paused,
            Steer::Resume | Steer::Promote | Steer::Abort => Pace::Going,
        };
        let changed = rollout.pace != pace;
        rollout.pace = pace;
        match steer {
            Steer::Promote => self.next_stage(cx),
            Steer::Abort => self.reverse(cx, "somebody aborted it", None, BackBy::Person),
            Steer::Pause | Steer::Resume if !changed => return Admitted::AlreadySo,
            Steer::Pause => cx.out.tell_app(&self.head.name, News::RolloutPaused { id }),
            Steer::Resume => {
                cx.out.tell_app(&self.head.name, News::RolloutResumed { id });
                self.ask_for_leave(cx);
            }
        }
        Admitted::Steered(id)
    }
}
