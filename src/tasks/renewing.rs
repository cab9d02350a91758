//! A refresh that workers are told of over their connections: who was told, who has answered.
//!
//! A worker with several connections has several processes, each of which knows things of its own: all of them are told,
//! and all have to answer. One that dials again meanwhile is told again. That nobody answers, or nobody is there, is
//! core's to judge by the time.

use std::collections::BTreeSet;

use agentd_core::id::{Launch, Operation};
use agentd_protocol::worker::{Message, Refreshed};

use super::desk::Desk;
use super::thread::Report;

/// Why a worker that says nothing more counts as refusing.
const NO_REASON: &str = "could not, and did not say why";

/// A refresh that a worker was told of.
#[derive(Debug)]
pub(super) struct Renewing {
    id: Operation,
    scope: String,
    /// Connections whose answer is awaited.
    awaited: BTreeSet<u64>,
}

impl Desk {
    /// Tells all connections of a worker.
    pub(super) fn tell_refresh(&mut self, launch: Launch, id: Operation, scope: String) {
        self.renewing.insert(launch, Renewing { id, scope, awaited: BTreeSet::new() });
        let links: Vec<u64> =
            self.links.iter().filter(|(_, link)| link.launch() == Some(launch)).map(|(&id, _)| id).collect();
        for link in links {
            self.tell_refresh_again(link, launch);
        }
    }

    /// A worker dialled: what it is to renew, if it is to.
    pub(super) fn tell_refresh_again(&mut self, link_id: u64, launch: Launch) {
        let (Some(renewing), Some(link)) = (self.renewing.get_mut(&launch), self.links.get_mut(&link_id)) else {
            return;
        };
        link.tell(&Message::Refresh { scope: renewing.scope.as_str().into(), refresh: renewing.id.0 });
        renewing.awaited.insert(link_id);
        self.batch.touched.insert(link_id);
    }

    /// A connection says what it made of it. One that was not asked, or about another, is passed over.
    pub(super) fn heard_refreshed(&mut self, link_id: u64, launch: Launch, said: &Refreshed<'_>) {
        let Some(renewing) = self.renewing.get_mut(&launch).filter(|renewing| renewing.id.0 == said.refresh) else {
            return;
        };
        renewing.awaited.remove(&link_id);
        let id = renewing.id;
        let result = match (said.ok, renewing.awaited.is_empty()) {
            (true, false) => return,
            (true, true) => Ok(()),
            (false, _) => Err(said.error.as_deref().unwrap_or(NO_REASON).to_owned()),
        };
        self.renewing.remove(&launch);
        self.report(Report::Refreshed { launch, id, result });
    }

    /// A connection is gone, and its answer with it: it dials again, or another process of the worker answers for all.
    pub(super) fn refresh_link_closed(&mut self, launch: Launch, link_id: u64) {
        if let Some(renewing) = self.renewing.get_mut(&launch) {
            renewing.awaited.remove(&link_id);
        }
    }
}
