//! What may need releases before it can be carried out: a start, an apply, an upgrade.
//!
//! A wish is looked at ([`cutting`](super::cutting)), waits perhaps, and is carried out once everything it needs is there.

use agentd_protocol::control::{ApplyParams, OperationKind, Reply, StartParams, UpgradeParams};

use super::Dispatcher;
use crate::control::ReplySink;

/// A request that may need releases.
#[derive(Clone, Debug)]
pub(super) enum Wish {
    Start(StartParams),
    Apply(ApplyParams),
    Upgrade(UpgradeParams),
}

impl Wish {
    /// What is told of it while releases are cut. What has its first release cut for it is started.
    pub(super) const fn kind(&self) -> OperationKind {
        match self {
            Self::Upgrade(_) => OperationKind::Upgrade,
            Self::Start(_) | Self::Apply(_) => OperationKind::Start,
        }
    }

    /// What it upgrades, if that is what it does.
    pub(super) fn upgrades(&self) -> Option<&str> {
        match self {
            Self::Upgrade(params) if !params.dry_run => Some(&params.name),
            Self::Upgrade(_) | Self::Start(_) | Self::Apply(_) => None,
        }
    }
}

impl Dispatcher {
    /// Carries out what has all the releases that it needs. Gives what is to be said of an upgrade should no deployment have
    /// come of it: nothing where that serves already.
    pub(super) fn carry_on(&mut self, wish: Wish, reply: ReplySink) -> Option<String> {
        match wish {
            Wish::Start(params) => {
                let prepared = self.prepare_start(&params);
                self.begin(prepared, params.wait, reply, None);
                None
            }
            Wish::Upgrade(params) if params.dry_run => {
                let plan = self.plan_upgrade(&params, None);
                reply.finish(plan.map(|plan| Reply::UpgradePlan(Box::new(plan))));
                None
            }
            Wish::Upgrade(params) => match self.prepare_upgrade(&params) {
                Ok(prepared) if prepared.is_empty() => {
                    reply.finish(self.serves_it(&params.name));
                    None
                }
                prepared => {
                    let refused = prepared.as_ref().err().map(|error| error.message.clone());
                    self.begin(prepared, params.wait, reply, None);
                    Some(refused.unwrap_or_else(|| "something else of it was begun meanwhile".to_owned()))
                }
            },
            Wish::Apply(params) => {
                self.apply_configuration(&params, reply);
                None
            }
        }
    }
}
