//! What somebody outside sees of all tasks: what was acknowledged, who was given what, what the world felt. The named
//! invariants are held against this, not against what the ledger believes.

use std::collections::{BTreeMap, BTreeSet};

use agentd_core::id::{Launch, Pid};
use agentd_core::task::{EffectAnswer, EffectKey, EffectState, End, Fence, Ledger, Released, TaskId};

use super::super::report::Broken;
use super::store::Store;

/// Everything that was seen from outside.
#[derive(Debug, Default)]
pub(super) struct Witness {
    /// Who was last given a task.
    grants: BTreeMap<TaskId, Grant>,
    /// Owners that had been silent for a whole lease when their task was taken from them, whatever they said later.
    silent: BTreeSet<(TaskId, Fence)>,
    /// Tasks whose admission was acknowledged.
    admitted: BTreeSet<TaskId>,
    /// The last step that was acknowledged.
    steps: BTreeMap<TaskId, u64>,
    /// How tasks ended, where that was acknowledged.
    ended: BTreeMap<TaskId, End>,
    /// Effects whose end was acknowledged.
    done: BTreeSet<(TaskId, EffectKey)>,
    /// Effects that somebody was told to do, and under which fence last.
    begun: BTreeMap<(TaskId, EffectKey), Fence>,
    /// Effects that a person said may be done again.
    judged: BTreeSet<(TaskId, EffectKey)>,
}

/// Who was given a task.
#[derive(Clone, Copy, Debug)]
struct Grant {
    fence: Fence,
    launch: Launch,
    pid: Pid,
}

/// How the last owner of a task stands, when it is given to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// Its process is gone.
    Gone,
    /// It does not have the task.
    Without,
    /// It has the task.
    AtIt,
}

impl Witness {
    pub(super) fn admitted(&mut self, task: TaskId) {
        self.admitted.insert(task);
    }

    pub(super) fn acknowledged(&mut self, task: TaskId, step: u64) {
        let last = self.steps.entry(task).or_default();
        *last = step.max(*last);
    }

    pub(super) fn ended(&mut self, task: TaskId, end: End) {
        self.ended.insert(task, end);
    }

    pub(super) fn done(&mut self, task: TaskId, key: EffectKey) {
        self.done.insert((task, key));
    }

    pub(super) fn judged(&mut self, task: TaskId, key: EffectKey) {
        self.judged.insert((task, key));
    }

    /// Tasks that are not their last owner's any more.
    pub(super) fn taken<'a>(&self, ledger: &'a Ledger) -> impl Iterator<Item = (&'a TaskId, Pid, Fence)> {
        let taken = |task: &'a agentd_core::task::Task| {
            let grant = self.grants.get(&task.id).filter(|grant| grant.fence < task.fence)?;
            Some((&task.id, grant.pid, grant.fence))
        };
        ledger.tasks().filter_map(taken)
    }

    pub(super) fn was_silent(&mut self, task: TaskId, fence: Fence) {
        self.silent.insert((task, fence));
    }

    /// The process that was last given a task.
    pub(super) fn owner(&self, task: &TaskId) -> Option<(Launch, Pid, Fence)> {
        self.grants.get(task).map(|grant| (grant.launch, grant.pid, grant.fence))
    }

    /// A process is given a task.
    pub(super) fn granted(
        &mut self,
        task: &TaskId,
        fence: Fence,
        (launch, pid): (Launch, Pid),
        checkpoint: Option<u64>,
        last: Owner,
        released: Option<Released>,
    ) -> Result<(), Broken> {
        let acknowledged = self.steps.get(task).copied().unwrap_or(0);
        if checkpoint.unwrap_or(0) < acknowledged {
            let detail = format!("task {task} goes on from step {checkpoint:?}, {acknowledged} was acknowledged");
            return Err(Broken::new("no acknowledged checkpoint is lost", detail));
        }
        if let Some(end) = self.ended.get(task) {
            return Err(Broken::new("an acknowledged end stays", format!("task {task} is run again after {end:?}")));
        }
        let now = Grant { fence, launch, pid };
        let Some(before) = self.grants.insert(task.clone(), now) else { return Ok(()) };
        if fence < before.fence {
            let detail = format!("task {task} was given under fence {} and is given under {fence}", before.fence);
            return Err(Broken::new("fences strictly rise", detail));
        }
        if fence == before.fence {
            if launch == before.launch {
                return Ok(());
            }
            let detail = format!("task {task}, fence {fence}: launch {} and launch {launch}", before.launch);
            return Err(Broken::new("no task is owned twice", detail));
        }
        let silent = self.silent.contains(&(task.clone(), before.fence));
        let gave_up = released == Some(Released { launch: before.launch, fence: before.fence });
        match last {
            Owner::Gone | Owner::Without => Ok(()),
            Owner::AtIt if gave_up || silent => Ok(()),
            Owner::AtIt => {
                let detail = format!("task {task} is given to launch {launch} while launch {} is at it", before.launch);
                Err(Broken::new("a task is given on only when its owner ended, gave it up or fell silent", detail))
            }
        }
    }

    /// A process is told what to do about an effect.
    pub(super) fn effect(
        &mut self,
        task: &TaskId,
        key: &EffectKey,
        fence: Fence,
        kind: &str,
        answer: EffectAnswer,
    ) -> Result<(), Broken> {
        match answer {
            EffectAnswer::New | EffectAnswer::Retry => {}
            EffectAnswer::Done | EffectAnswer::Skip | EffectAnswer::Parked => return Ok(()),
        }
        let name = (task.clone(), key.clone());
        if self.done.contains(&name) {
            let detail = format!("effect {key} of task {task} is to be done under fence {fence}");
            return Err(Broken::new("no effect is run after done", detail));
        }
        let before = self.begun.insert(name.clone(), fence);
        let again = before.is_some_and(|before| before != fence);
        if again && kind == "mail" && !self.judged.contains(&name) {
            let detail = format!("effect {key} of task {task}: fences {before:?} and {fence}");
            return Err(Broken::new("an effect in doubt is asked about", detail));
        }
        Ok(())
    }

    /// What was acknowledged is still so in the store.
    pub(super) fn check(&self, store: &Store, ledger: &Ledger) -> Result<(), Broken> {
        for id in &self.admitted {
            if store.open(id).is_none() && store.ended(id).is_none() {
                let detail = format!("task {id} is neither open nor over, ledger: {:?}", ledger.task(id));
                return Err(Broken::new("every admitted task ends finished, parked or in flight", detail));
            }
        }
        for (id, end) in &self.ended {
            if store.ended(id).map(|ended| ended.end) != Some(*end) {
                let detail = format!("task {id} ended {end:?}, stored {:?}", store.ended(id));
                return Err(Broken::new("an acknowledged end stays", detail));
            }
        }
        for (task, key) in &self.done {
            if store.effect(task, key) != Some(EffectState::Done) {
                let detail = format!("effect {key} of task {task} is stored {:?}", store.effect(task, key));
                return Err(Broken::new("an acknowledged effect stays done", detail));
            }
        }
        Ok(())
    }
}
