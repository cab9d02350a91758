//! What a start is given that only this daemon may give: limits, secrets.
//!
//! Owns the way from a configuration to the parts of a plan that the shim carries out with the daemon's rights, and the
//! private folders that secrets are put into. A folder lives as long as its launch; those of launches that nobody had
//! a word about (a daemon that died) go when the next daemon begins.

use std::fs;

use agentd_core::id::Launch;
use camino::Utf8PathBuf;

use super::Dispatcher;
use super::launch::Obstacle;
use super::limits::processes_of_user;
use crate::causes::in_full;
use crate::config::AppConfig;
use crate::process::controllers::Controllers;
use crate::process::plan::{ExecPlan, Limit, Secrets};

/// A plan with all that needs rights; `folder` is for its secrets.
pub(super) fn with_rights(
    plan: ExecPlan,
    config: &AppConfig,
    folder: Utf8PathBuf,
    controllers: Controllers,
) -> Result<ExecPlan, Obstacle> {
    let given = config.secret.iter().map(|(name, source)| source.planned(name));
    let given = given.collect::<Result<Vec<_>, _>>().map_err(|error| Obstacle {
        why: format!("could not be started: failed to {}", in_full(&error)),
        permanent: true,
    })?;
    Ok(ExecPlan { limits: limits(config, controllers), secrets: Secrets { given, folder }, ..plan })
}

impl Dispatcher {
    /// Where the secrets of a launch are put that it gets by file.
    pub(super) fn secrets_of(&self, launch: Launch) -> Utf8PathBuf {
        self.home.secrets().join(launch.to_string())
    }

    /// Removes what a launch was given by file.
    pub(super) fn forget_secrets(&self, launch: Launch) {
        let folder = self.secrets_of(launch);
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(%folder, %error, "the secrets of a worker that has ended could not be removed");
            }
            Ok(()) | Err(_) => {}
        }
    }

    /// Removes what launches had that are not there any more.
    pub(super) fn forget_secrets_of_the_gone(&self) {
        let Ok(entries) = self.home.secrets().read_dir_utf8() else { return };
        for entry in entries.flatten() {
            let launch = entry.file_name().parse().ok().map(Launch);
            if let Some(launch) = launch.filter(|launch| !self.processes.contains_key(launch)) {
                self.forget_secrets(launch);
            }
        }
    }
}

/// The limits that the kernel holds each process to.
fn limits(config: &AppConfig, controllers: Controllers) -> Vec<(Limit, u64)> {
    let limits = &config.limits;
    let all = [
        (Limit::Files, limits.files.map(u64::from)),
        (Limit::FileSize, limits.file_size),
        (Limit::CpuSeconds, limits.cpu_seconds),
        (Limit::Core, limits.core),
        (Limit::Stack, limits.stack),
        (Limit::AddressSpace, limits.address_space),
        (Limit::LockedMemory, limits.locked_memory),
        (Limit::Processes, processes_of_user(config, controllers)),
    ];
    all.into_iter().filter_map(|(limit, value)| Some((limit, value?))).collect()
}
