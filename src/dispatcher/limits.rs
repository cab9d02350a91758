//! Limits of workers: by which means each is held, what is not held here, and which one a worker met.
//!
//! Owns the choice of means and the measuring. A cgroup's controllers hold memory, processes and processor time where
//! they were delegated to us. Elsewhere memory is **measured** every few seconds, for apps that have that limit and
//! beside the loop; a worker that passes its ceiling is replaced, not killed (core's `app::outgrown`). Processes are
//! held by `RLIMIT_NPROC` where the workers have a user of their own, whose processes it counts. What is left is told
//! when an app starts.
//!
//! Where the kernel holds memory, the ceiling is `memory.high`, below `memory.max`: a worker is replaced while it is
//! slowed down, before it is killed.

use std::time::Duration;

use agentd_core::effect::ExitCause;
use agentd_core::event::{Exit, WorkerEvent};
use agentd_core::id::{AppName, Launch};
use agentd_core::limit::LimitMet;
use agentd_core::policy::Lanes;
use agentd_core::time::Moment;
use agentd_protocol::status::ExitReason;

use super::{Dispatcher, Input};
use crate::config::{AppConfig, Limits};
use crate::process::controllers::{Amounts, Controllers, Met, high_of};
use crate::process::sys;
use crate::process::tree::Tree;
use crate::process::usage;

/// Pause between two measurings.
const MEASURE_EVERY: Duration = Duration::from_secs(5);

/// When workers are measured.
///
/// ```text
///  Idle ── one has a ceiling ──► At ── due ──► UnderWay ── measured ──► At, or Idle when none has a ceiling
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Measuring {
    /// No worker has a ceiling.
    Idle,
    /// Then.
    At(Moment),
    /// Now.
    UnderWay,
}

impl Measuring {
    pub(super) const fn wake(self) -> Option<Moment> {
        match self {
            Self::At(at) => Some(at),
            Self::Idle | Self::UnderWay => None,
        }
    }
}

/// A worker that uses more memory than its ceiling.
#[derive(Clone, Copy, Debug)]
pub struct Beyond {
    launch: Launch,
    /// In bytes.
    used: u64,
    /// In bytes.
    ceiling: u64,
}

impl Dispatcher {
    /// What the kernel holds workers to.
    pub(super) fn controllers(&self) -> Controllers {
        self.cgroups.as_ref().map_or_else(Controllers::default, |cgroups| cgroups.controllers())
    }

    /// Limits of an app that this machine does not hold its workers to, or in another way than was asked for.
    pub(super) fn unenforced(&self, config: &AppConfig) -> Vec<String> {
        unenforced(config, self.controllers(), nix::unistd::geteuid().is_root())
    }

    /// Measures from now on, if a worker has a ceiling.
    pub(super) fn begin_measuring(&mut self) {
        if self.measuring == Measuring::Idle && self.ceilings().next().is_some() {
            self.measuring = Measuring::At(sys::boottime() + MEASURE_EVERY);
        }
    }

    fn ceilings(&self) -> impl Iterator<Item = (Launch, &Tree, u64)> {
        let kernel = self.controllers().memory;
        self.processes.iter().filter_map(move |(&launch, process)| {
            let max = process.record.config.limits.memory?;
            Some((launch, &process.tree, if kernel { high_of(max) } else { max }))
        })
    }

    /// Measures, beside the loop, when it is due.
    pub(super) fn measure_due(&mut self) {
        if self.measuring.wake().is_none_or(|at| sys::boottime() < at) {
            return;
        }
        let trees: Vec<(Launch, Tree, u64)> =
            self.ceilings().map(|(launch, tree, ceiling)| (launch, tree.clone(), ceiling)).collect();
        if trees.is_empty() {
            self.measuring = Measuring::Idle;
            return;
        }
        self.measuring = Measuring::UnderWay;
        let inputs = self.inputs.clone();
        tokio::task::spawn_blocking(move || {
            let found = trees.iter().filter_map(|(launch, tree, ceiling)| {
                let used = usage::memory_beyond(tree, *ceiling)?;
                Some(Beyond { launch: *launch, used, ceiling: *ceiling })
            });
            // The loop is gone only at the very end.
            let _ = inputs.send(Input::Measured(found.collect()));
        });
    }

    /// Some workers use too much. Where they share an accept queue, the app as a whole is reloaded.
    pub(super) fn beyond_limits(&mut self, found: Vec<Beyond>) {
        self.measuring = Measuring::At(sys::boottime() + MEASURE_EVERY);
        let mut shared: Vec<AppName> = Vec::new();
        for Beyond { launch, used, ceiling } in found {
            let Some(process) = self.processes.get(&launch) else { continue };
            let name = process.worker.app.clone();
            let Some(app) = self.fleet.app(&name) else { continue };
            let known = app.workers.values().any(|worker| worker.launch() == Some(launch) && worker.has_outgrown());
            if known && app.policy_now().lanes == Lanes::PerGeneration && app.head.rollout.is_none() {
                shared.push(name);
            }
            self.fact(launch, WorkerEvent::LimitMet(LimitMet::MemoryCeiling { used, ceiling }));
        }
        shared.dedup();
        for name in shared {
            self.reload_by_itself(&name, "limits.memory");
        }
    }

    /// Which limit a process that has ended met, if it was one. To be asked while its cgroup is there.
    pub(super) fn limit_met(&self, launch: Launch, exit: Exit) -> Option<LimitMet> {
        let process = self.processes.get(&launch)?;
        let met = process.tree.cgroup().map_or_else(Met::default, |cgroup| cgroup.met(self.controllers()));
        limit_met(exit, met, &process.record.config.limits)
    }
}

/// The amounts that a cgroup holds a worker to.
pub(super) fn amounts(limits: &Limits) -> Amounts {
    Amounts { memory: limits.memory, pids: limits.pids, cpu_percent: limits.cpu_percent }
}

/// `RLIMIT_NPROC` of an app whose workers have a user of their own, where no cgroup counts processes. It counts all
/// processes of the user, so there is room for every worker and for those that a reload starts beside them.
pub(super) fn processes_of_user(config: &AppConfig, controllers: Controllers) -> Option<u64> {
    let pids = config.limits.pids.filter(|_| !controllers.pids && config.account.user.is_some())?;
    Some(u64::from(pids) * (u64::from(config.workers) + u64::from(config.reload.max_surge)))
}

fn unenforced(config: &AppConfig, controllers: Controllers, root: bool) -> Vec<String> {
    let (limits, mut told) = (&config.limits, Vec::new());
    if limits.memory.is_some() && !controllers.memory {
        let every = MEASURE_EVERY.as_secs();
        told.push(format!(
            "limits.memory is measured every {every} s here, and a worker beyond it is replaced; the kernel does not \
             hold it: no memory controller of cgroup v2 is delegated to agentd"
        ));
    }
    if let Some(pids) = limits.pids.filter(|_| !controllers.pids) {
        told.push(match (&config.account.user, processes_of_user(config, controllers)) {
            (Some(user), Some(all)) if root => format!(
                "limits.pids = {pids} is held by RLIMIT_NPROC here: {all} for all processes of user {user}, and root \
                 is not held by it; no pids controller of cgroup v2 is delegated to agentd"
            ),
            (Some(_) | None, _) => "limits.pids is not held here: no pids controller of cgroup v2 is delegated to \
                                    agentd, and the app has no `user` of its own"
                .to_owned(),
        });
    }
    if limits.cpu_percent.is_some() && !controllers.cpu {
        told.push("limits.cpu is not held here: no cpu controller of cgroup v2 is delegated to agentd".to_owned());
    }
    told
}

fn limit_met(exit: Exit, met: Met, limits: &Limits) -> Option<LimitMet> {
    use nix::libc::{SIGKILL, SIGXCPU, SIGXFSZ};
    match exit {
        Exit::Signal(SIGXCPU) => Some(LimitMet::CpuTime { seconds: limits.cpu_seconds }),
        Exit::Signal(SIGXFSZ) => Some(LimitMet::FileSize { limit: limits.file_size }),
        Exit::Signal(SIGKILL) | Exit::Unknown if met.oom_kills > 0 => {
            Some(LimitMet::OutOfMemory { limit: limits.memory })
        }
        Exit::Code(_) | Exit::Signal(_) | Exit::Unknown => {
            let limit = limits.pids.filter(|_| met.pids_refused > 0 && !exit.is_success())?;
            Some(LimitMet::Pids { limit })
        }
    }
}

/// What is said of an end by a limit.
pub(super) fn words(cause: ExitCause) -> Option<String> {
    match cause {
        ExitCause::Limit(limit) => Some(limit.to_string()),
        ExitCause::Itself | ExitCause::StartFailed | ExitCause::Asked(_) => None,
    }
}

pub(super) const fn reason(limit: LimitMet) -> ExitReason {
    match limit {
        LimitMet::OutOfMemory { .. } => ExitReason::OutOfMemory,
        LimitMet::MemoryCeiling { .. } => ExitReason::MemoryCeiling,
        LimitMet::Pids { .. } => ExitReason::PidsLimit,
        LimitMet::CpuTime { .. } => ExitReason::CpuTimeLimit,
        LimitMet::FileSize { .. } => ExitReason::FileSizeLimit,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Met = Met { oom_kills: 0, pids_refused: 0 };

    #[test]
    fn an_end_is_laid_to_the_limit_that_was_met() {
        let limits = Limits { memory: Some(1 << 30), pids: Some(8), ..Limits::default() };
        let killed = Met { oom_kills: 2, pids_refused: 0 };
        let refused = Met { oom_kills: 0, pids_refused: 3 };
        for (exit, met, limit) in [
            (Exit::Code(1), NONE, None),
            (Exit::Signal(9), NONE, None),
            (Exit::Signal(9), killed, Some(LimitMet::OutOfMemory { limit: Some(1 << 30) })),
            // A child was killed, and it went on to its own end.
            (Exit::Code(0), killed, None),
            (Exit::Code(1), refused, Some(LimitMet::Pids { limit: 8 })),
            (Exit::Code(0), refused, None),
            (Exit::Signal(24), NONE, Some(LimitMet::CpuTime { seconds: None })),
            (Exit::Signal(25), NONE, Some(LimitMet::FileSize { limit: None })),
        ] {
            assert_eq!(limit_met(exit, met, &limits), limit, "{exit:?} {met:?}");
        }
    }

    #[test]
    fn what_the_machine_does_not_hold_is_told_and_by_what_means_the_rest_is_held() {
        let mut app = AppConfig::new("a".parse().expect("valid"), vec!["a".to_owned()], "/".into());
        let all = Controllers { memory: true, pids: true, cpu: true };
        app.limits = Limits { memory: Some(1 << 30), pids: Some(8), cpu_percent: Some(50), ..Limits::default() };
        assert_eq!(unenforced(&app, all, true), Vec::<String>::new());
        let told = unenforced(&app, Controllers::default(), true);
        assert!(told[0].starts_with("limits.memory is measured every 5 s here") && told.len() == 3, "{told:?}");
        assert!(told[1].starts_with("limits.pids is not held here") && told[2].starts_with("limits.cpu"), "{told:?}");
        app.account.user = Some("web".to_owned());
        app.workers = 3;
        let told = unenforced(&app, Controllers::default(), true);
        assert!(told[1].contains("held by RLIMIT_NPROC here: 32 for all processes of user web"), "{told:?}");
        assert_eq!((processes_of_user(&app, Controllers::default()), processes_of_user(&app, all)), (Some(32), None));
    }
}
