//! What people ask for at any moment: random requests with random configurations.
//!
//! Durations are short (seconds where users have minutes), so that a run of a few virtual minutes sees every
//! deadline pass. Configurations change between requests as a user's file would: other counts, lanes, policies.

use std::collections::BTreeSet;
use std::time::Duration;

use agentd_core::admission::Request;
use agentd_core::app::Steer;
use agentd_core::effect::OperationKind;
use agentd_core::fleet::Fleet;
use agentd_core::id::{AppName, Revision};
use agentd_core::policy::{
    AppPolicy, DrainBy, GracePolicy, Lanes, LivePolicy, ReadyPolicy, RefreshPolicy, ReloadPolicy, RestartPolicy,
    RestartWhen, StopPolicy,
};
use agentd_core::rollout::{JudgedBy, Plan, Strategy};

use super::random::Random;

/// The apps that requests are about.
const APPS: [&str; 3] = ["alpha", "beta", "gamma"];

/// Where requests come from.
#[derive(Debug)]
pub struct Script {
    apps: Vec<AppName>,
    /// How each app listens; now and then a reload changes it, as an edited file would.
    lanes: Vec<Lanes>,
    revision: Revision,
}

impl Script {
    /// One to three apps.
    #[must_use]
    pub fn new(random: &mut Random) -> Self {
        let count = usize::try_from(random.between(1, 3)).expect("three is a usize");
        let apps: Vec<AppName> =
            APPS[..count].iter().map(|name| name.parse().expect("the names above are app names")).collect();
        let lanes = apps.iter().map(|_| any_lanes(random)).collect();
        Self { apps, lanes, revision: Revision(0) }
    }

    /// All apps by name.
    #[must_use]
    pub fn apps(&self) -> &[AppName] {
        &self.apps
    }

    /// The next thing that somebody asks for.
    pub fn request(&mut self, random: &mut Random) -> Request {
        let index = usize::try_from(random.between(0, self.apps.len() as u64 - 1)).expect("three is a usize");
        let app = self.apps[index].clone();
        match random.between(0, 99) {
            0..=29 => {
                let (revision, policy) = self.configuration(random, index);
                Request::Start { app, revision, policy }
            }
            30..=39 => Request::Stop { app },
            40..=44 => Request::Delete { app },
            45..=57 => {
                let (revision, policy) = self.configuration(random, index);
                Request::Reload { app, revision, policy }
            }
            58..=75 => {
                let (revision, policy) = self.configuration(random, index);
                let kind = random.pick(&[OperationKind::Upgrade, OperationKind::Upgrade, OperationKind::Rollback]);
                Request::Upgrade { app, revision, policy, plan: any_plan(random), kind }
            }
            76..=84 => {
                let steer = random.pick(&[Steer::Promote, Steer::Promote, Steer::Pause, Steer::Resume, Steer::Abort]);
                Request::Steer { app, steer }
            }
            85..=87 => {
                let (revision, policy) = self.configuration(random, index);
                Request::Create { app, revision, policy }
            }
            88..=90 => {
                let (revision, policy) = self.configuration(random, index);
                Request::Adopt { app, revision, policy }
            }
            91..=94 => {
                let (revision, policy) = self.configuration(random, index);
                Request::Restart { app, revision, policy }
            }
            95..=97 => Request::Refresh { app },
            _ => Request::Scale { app, workers: random.count(1, 5) },
        }
    }

    fn configuration(&mut self, random: &mut Random, app: usize) -> (Revision, AppPolicy) {
        if random.chance(8) {
            self.lanes[app] = any_lanes(random);
        }
        self.revision = self.revision.next();
        let mut policy = any_policy(random, self.lanes[app]);
        // Only on those before it, so that no circle comes about.
        policy.needs = self.apps[..app].iter().filter(|_| random.chance(25)).cloned().collect();
        (self.revision, policy)
    }
}

fn any_plan(random: &mut Random) -> Plan {
    let strategy =
        random.pick(&[Strategy::Rolling, Strategy::BlueGreen, Strategy::Canary, Strategy::Canary, Strategy::Recreate]);
    let steps = match strategy {
        Strategy::Canary => random.pick(&[&[10, 50, 100][..], &[1, 100], &[100], &[5, 25, 75, 100]]).to_vec(),
        Strategy::Rolling | Strategy::BlueGreen | Strategy::Recreate => Vec::new(),
    };
    Plan {
        strategy,
        steps,
        dwell: random.millis(0, 3_000),
        stability: random.millis(0, 4_000),
        judged_by: random.pick(&[JudgedBy::Gates, JudgedBy::Gates, JudgedBy::Time]),
        checks: random.chance(40),
        prepares: false,
        verifies: random.chance(30),
    }
}

/// The request with what a shell never asks for taken out of it: what differs only in place keeps what new workers
/// would be needed for (see `core::diff`).
pub fn fitting(request: Request, fleet: &Fleet) -> Request {
    let Request::Adopt { app: name, revision, mut policy } = request else { return request };
    if let Some(app) = fleet.app(&name) {
        let now = app.policy_now();
        (policy.lanes, policy.watchdog) = (now.lanes, now.watchdog);
        // The invariants judge an end by today's policy, and one that has begun goes by yesterday's.
        policy.stop = now.stop;
        if now.lanes == Lanes::PerGeneration {
            policy.workers = now.workers;
        }
    }
    Request::Adopt { app: name, revision, policy }
}

fn any_lanes(random: &mut Random) -> Lanes {
    random.pick(&[Lanes::None, Lanes::PerWorker, Lanes::PerWorker, Lanes::PerGeneration])
}

fn any_policy(random: &mut Random, lanes: Lanes) -> AppPolicy {
    let live = random.chance(40).then(|| LivePolicy { every: random.millis(500, 3_000), failures: random.count(1, 3) });
    let when = random.pick(&[
        RestartWhen::Always,
        RestartWhen::Always,
        RestartWhen::Always,
        RestartWhen::OnFailure,
        RestartWhen::Never,
    ]);
    AppPolicy {
        workers: random.count(1, 4),
        lanes,
        ready: ReadyPolicy { timeout: random.millis(1_000, 8_000) },
        live,
        watchdog: random.chance(20).then(|| random.millis(1_500, 4_000)),
        restart: RestartPolicy {
            when,
            backoff_min: random.millis(50, 500),
            backoff_max: random.millis(1_000, 6_000),
            max: random.count(1, 6),
            period: Duration::from_secs(60),
        },
        stop: StopPolicy {
            drain: random.pick(&[DrainBy::Connections, DrainBy::Connections, DrainBy::Signal]),
            timeout: random.chance(30).then(|| random.millis(500, 8_000)),
        },
        grace: GracePolicy {
            target: 0.99,
            default: random.millis(500, 12_000),
            min: Duration::from_secs(1),
            max: Duration::from_secs(10),
        },
        reload: ReloadPolicy {
            max_surge: random.count(0, 3),
            max_unavailable: random.count(0, 2),
            settle: if random.chance(70) { random.millis(0, 2_000) } else { Duration::ZERO },
        },
        needs: BTreeSet::new(),
        refresh: Some(RefreshPolicy { timeout: random.millis(200, 2_000) }),
        prepares: random.chance(25),
    }
}
