//! Workers that use more memory than they are meant to.
//!
//! Such a one serves on, and another is started beside it: one worker more than is wanted. Once that is ready, the
//! outgrown one is drained as in a reload: what it has in hand is finished, its connections are not cut. One at a time,
//! and none while a deployment runs, which replaces them all anyway. Where the configuration leaves no room for one more
//! (`max_surge = 0`) it is drained first.
//!
//! Not where workers share an accept queue: they cannot be drained one by one, so the shell asks for a reload there.

use std::time::Duration;

use crate::effect::StopReason;
use crate::id::Slot;
use crate::policy::Lanes;
use crate::worker::Worker;

use super::{App, Context};

impl App {
    /// A worker of the serving generation that another one is to take the place of.
    fn outgrown(&self) -> Option<Slot> {
        if self.policy_now().lanes == Lanes::PerGeneration {
            return None;
        }
        let of_now = |worker: &Worker| worker.id.generation == self.head.generation && worker.has_outgrown();
        self.workers.iter().find(|(_, worker)| of_now(worker)).map(|(&slot, _)| slot)
    }

    /// How many workers are wanted beyond the number for the sake of an outgrown one.
    pub(super) fn beside_outgrown(&self) -> u32 {
        u32::from(self.outgrown().is_some() && self.policy_now().reload.max_surge > 0)
    }

    /// Drains an outgrown worker once enough others serve.
    pub(super) fn replace_outgrown(&mut self, cx: &mut Context<'_>) {
        let Some(slot) = self.outgrown() else { return };
        let others = self.ready().saturating_sub(1);
        if others >= self.head.count || self.policy_now().reload.max_surge == 0 {
            self.drain_slot(cx, slot, StopReason::Replaced, Duration::ZERO);
        }
    }
}
