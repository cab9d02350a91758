//! What must have come about once faults and requests are over: nothing hangs, nobody is forgotten.

use std::collections::BTreeMap;

use agentd_core::app::{App, Desired, Rise};
use agentd_core::fleet::Fleet;
use agentd_core::id::{Lane, Operation};
use agentd_core::policy::Lanes;
use agentd_core::worker::Phase;

use super::Broken;
use super::invariants::ensure;
use super::world::World;

/// Whether everything has come to where it was wanted, once faults and requests are over.
///
/// # Errors
/// What has not.
pub fn at_rest(fleet: &Fleet, world: &World, operations: &BTreeMap<Operation, bool>) -> Result<(), Broken> {
    const NAME: &str = "without faults the fleet comes to rest";
    for app in fleet.apps() {
        at_rest_in(fleet, app).map_err(|detail| Broken::new(NAME, format!("{}: {detail}", app.head.name)))?;
        no_connection_is_lost(app, world)
            .map_err(|detail| Broken::new("no connection waits where nobody comes", detail))?;
    }
    match operations.iter().find(|(_, over)| !**over) {
        Some((id, _)) => Err(Broken::new("every operation ends", format!("{id} does not"))),
        None => Ok(()),
    }
}

fn at_rest_in(fleet: &Fleet, app: &App) -> Result<(), String> {
    let head = &app.head;
    ensure(head.rollout.is_none(), || format!("deployment {:?} is not over", head.rollout))?;
    ensure(head.pending.is_empty(), || format!("{:?} are not over", head.pending))?;
    ensure(head.refreshes.running.is_none(), || format!("refresh {:?} is not over", head.refreshes.running))?;
    match head.desired {
        Desired::Stopped => {
            let left = app.workers.values().find(|worker| worker.state.process().is_some());
            ensure(left.is_none(), || format!("{:?} is left", left.map(|worker| &worker.id)))
        }
        Desired::Running if head.rise == Rise::Waiting => {
            let idle = app.workers.values().all(|worker| worker.state.process().is_none());
            ensure(idle && fleet.is_stuck(app), || format!("it waits for {:?}", fleet.lacks(app)))
        }
        Desired::Deleted => Err("it is not gone".to_owned()),
        Desired::Running => {
            // Where the one that was to take an outgrown worker's place ended for good, both are there.
            let beside = app.workers.values().any(|worker| worker.has_outgrown())
                && app.workers.values().any(|worker| matches!(worker.state.phase(), Phase::Exited | Phase::Failed));
            let wanted = head.count as usize + usize::from(beside && app.workers.len() > head.count as usize);
            ensure(app.workers.len() == wanted, || {
                let are: Vec<(String, Phase)> =
                    app.workers.values().map(|worker| (worker.id.to_string(), worker.state.phase())).collect();
                format!("{are:?} where {} workers are wanted, owed {:?}", head.count, head.owed)
            })?;
            for worker in app.workers.values() {
                ensure(worker.id.generation == head.generation, || format!("{} is of another generation", worker.id))?;
                let well = matches!(worker.state.phase(), Phase::Ready | Phase::Exited | Phase::Failed);
                ensure(well, || format!("{} is {:?}", worker.id, worker.state))?;
            }
            Ok(())
        }
    }
}

/// While all of an app's workers are ready, every accept queue has somebody who empties it.
fn no_connection_is_lost(app: &App, world: &World) -> Result<(), String> {
    let policy = app.policy_now();
    // Where workers share a queue, or may not run beside each other, nobody is started for its sake alone.
    let listens = policy.lanes == Lanes::PerWorker && policy.reload.max_surge > 0;
    if app.head.desired != Desired::Running || app.ready() < app.head.count || !listens {
        return Ok(());
    }
    // Where the one beside an outgrown worker ended for good, enough are ready and not all is well: a person is waited for.
    if app.workers.values().any(|worker| worker.state.phase() != Phase::Ready) {
        return Ok(());
    }
    let Some(listener) = world.listeners.get(&app.head.name) else { return Ok(()) };
    for (lane, &queued) in listener.queues.iter().enumerate() {
        let lane_id = Lane(u32::try_from(lane).expect("a lane is a u32"));
        let waits = queued > 0 && !world.given_up.contains(&(app.head.name.clone(), lane_id));
        ensure(!waits, || format!("{}: {queued} connections wait in lane {lane} for ever", app.head.name))?;
    }
    Ok(())
}
