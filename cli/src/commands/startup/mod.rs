//! `startup [--system|--user] [--as USER] [--remove] [--dry-run]`: agentd as a service of systemd.
//!
//! ```text
//! facts: what is installed, enabled, running      facts.rs, read only
//!   └─► plan: the steps that are still missing    plan.rs, pure
//!         └─► each step done and told, or, with --dry-run, only told
//! ```
//!
//! Doing it again changes nothing; what is half done is finished. What can go wrong: systemd does not run this machine; the
//! system's unit needs root (the command to type is told); the service's user may not run the program; another daemon
//! runs in the same place; a step of systemd's fails, with its own words. Steps that were done before stay done.

mod facts;
mod plan;

use std::fs;
use std::io;
use std::time::Instant;

use agentd_protocol::exit;
use camino::{Utf8Path, Utf8PathBuf};
use serde_json::json;
use thiserror::Error;

use super::Context;
use crate::args::StartupArgs;
use crate::exit::Failure;
use crate::render;
use crate::systemctl::{self, Scope, SystemctlError};
use crate::unit;
use facts::{Facts, Place};
use plan::{Refusal, Step};

/// Who runs the system's daemon unless somebody else is named.
const SERVICE_USER: &str = "agentd";

/// Why agentd did not become a service, or did not cease to be one.
#[derive(Debug, Error)]
pub(crate) enum StartupError {
    /// Another init runs this machine.
    #[error("systemd does not run here")]
    NoSystemd,
    /// The system's unit is root's to install.
    #[error("only root installs a service of the system")]
    NotRoot {
        /// What to type instead.
        command: String,
    },
    /// Root has no instance of its own beside the system's.
    #[error("root's instance is the system's: use --system")]
    RootsOwn,
    /// Units are for the usual places only.
    #[error("startup installs the usual instance, not the one at {home}")]
    OtherHome {
        /// The home that was asked for.
        home: Utf8PathBuf,
    },
    /// Where our own program is, is not known.
    #[error("finding the folder of agentctl: {0}")]
    OwnFolder(io::Error),
    /// There is no agentd beside agentctl.
    #[error("there is no agentd in {folder}")]
    NoProgram {
        /// Where it should be.
        folder: Utf8PathBuf,
    },
    /// The user's own folder is not known.
    #[error("HOME is not set")]
    NoHome,
    /// What is there does not go with what is asked for.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A file could not be read, written or removed.
    #[error("{verb} {path}: {source}")]
    File {
        /// What was done with it.
        verb: &'static str,
        /// Which.
        path: Utf8PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// systemd refused.
    #[error(transparent)]
    Systemctl(#[from] SystemctlError),
}

impl StartupError {
    /// What to do about it.
    pub(crate) fn help(&self) -> Option<String> {
        match self {
            Self::NoSystemd => Some("have your init run: agentd run".to_owned()),
            Self::NotRoot { command } => {
                Some(format!("type: {command}; or, for this user only: agentctl startup --user"))
            }
            Self::OtherHome { .. } => Some("unset AGENTD_HOME and leave out --home".to_owned()),
            Self::NoProgram { .. } => Some("install both programs into one folder, such as /usr/local/bin".to_owned()),
            Self::Refused(refusal) => Some(refusal.help()),
            Self::Systemctl(SystemctlError::Failed { command, .. }) if command.ends_with("start agentd.service") => {
                let user = if command.contains("--user") { "--user " } else { "" };
                Some(format!("what it said before is in: journalctl {user}-u agentd -n 20"))
            }
            Self::RootsOwn | Self::OwnFolder(_) | Self::NoHome | Self::File { .. } | Self::Systemctl(_) => None,
        }
    }

    /// The exit code.
    pub(crate) const fn code(&self) -> u8 {
        match self {
            Self::NotRoot { .. } | Self::Refused(_) => exit::REFUSED,
            Self::OtherHome { .. } | Self::RootsOwn => exit::USAGE,
            Self::NoSystemd
            | Self::OwnFolder(_)
            | Self::NoProgram { .. }
            | Self::NoHome
            | Self::File { .. }
            | Self::Systemctl(_) => exit::FAILED,
        }
    }
}

/// Runs the command.
///
/// # Errors
/// [`StartupError`]; nothing was changed by a refusal.
pub(crate) fn run(context: &Context, args: &StartupArgs) -> Result<u8, Failure> {
    if let Some(home) = &context.home.given {
        return Err(StartupError::OtherHome { home: home.clone() }.into());
    }
    let place = place(args)?;
    let facts = Facts::gather(&place, &context.home)?;
    let steps = if args.remove {
        plan::removal(&place, &facts)
    } else {
        plan::installation(&place, &facts).map_err(StartupError::from)?
    };
    let mut told = Vec::new();
    for step in &steps {
        let line = if args.dry_run { format!("would {}", step.planned()) } else { perform(place.scope, step)? };
        if !context.json {
            render::print(&format!("{line}\n"))?;
        }
        told.push(line);
    }
    if args.dry_run && !args.remove && !context.json {
        render::print(&format!("\n{}", place.text))?;
    }
    let last = match (args.remove, steps.is_empty()) {
        (false, true) => "agentd is a service already, and runs; nothing to do".to_owned(),
        (false, false) => "start apps with: agentctl start FILE; they come back with the machine".to_owned(),
        (true, true) => "agentd is no service here; nothing to do".to_owned(),
        (true, false) => place.left_behind(),
    };
    if context.json {
        render::json(&json!({ "dry_run": args.dry_run, "unit": place.unit, "steps": told }))?;
    } else if !args.dry_run || steps.is_empty() {
        render::print(&format!("{last}\n"))?;
    }
    Ok(exit::DONE)
}

/// Where which unit belongs.
fn place(args: &StartupArgs) -> Result<Place, StartupError> {
    if !systemctl::is_booted() {
        return Err(StartupError::NoSystemd);
    }
    let own = std::env::current_exe().map_err(StartupError::OwnFolder)?;
    let own =
        Utf8PathBuf::from_path_buf(own).map_err(|_| StartupError::OwnFolder(io::ErrorKind::InvalidData.into()))?;
    let programs = own.parent().unwrap_or(Utf8Path::new("/")).to_owned();
    if !programs.join("agentd").is_file() {
        return Err(StartupError::NoProgram { folder: programs });
    }
    let root = nix::unistd::geteuid().is_root();
    let scope = if args.user || (!root && !args.system) { Scope::User } else { Scope::System };
    match scope {
        Scope::User if root => Err(StartupError::RootsOwn),
        Scope::System if !root => {
            // Behind sudo, PATH is not ours: the program is named in full.
            let words = std::env::args().skip(1).collect::<Vec<_>>().join(" ");
            Err(StartupError::NotRoot { command: format!("sudo {own} {words}") })
        }
        Scope::System => {
            let user = args.run_as.clone().unwrap_or_else(|| SERVICE_USER.to_owned());
            let text = unit::of_the_system(&programs, &user);
            Ok(Place { scope, programs, unit: unit::path(scope).ok_or(StartupError::NoHome)?, text, user })
        }
        Scope::User => {
            let text = unit::of_a_user(&programs);
            let user = nix::unistd::geteuid().to_string();
            Ok(Place { scope, programs, unit: unit::path(scope).ok_or(StartupError::NoHome)?, text, user })
        }
    }
}

/// Does one step, and says that it is done.
fn perform(scope: Scope, step: &Step) -> Result<String, StartupError> {
    let failed = |verb, path: &Utf8Path| {
        let path = path.to_owned();
        move |source| StartupError::File { verb, path, source }
    };
    let began = Instant::now();
    match step {
        Step::MakeUser(name) => {
            let line = format!("u {name} - \"agentd and its workers\" /var/lib/agentd");
            systemctl::run(&["systemd-sysusers", "--inline", &line])?;
        }
        Step::Keep { unit, copy } => {
            fs::copy(unit, copy).map_err(failed("copying to", copy))?;
        }
        Step::Write { unit, text } => {
            if let Some(folder) = unit.parent() {
                fs::create_dir_all(folder).map_err(failed("making the folder of", unit))?;
            }
            // Renamed into place: systemd never reads half of it.
            let new = unit.with_extension("service.new");
            fs::write(&new, text).map_err(failed("writing", &new))?;
            fs::rename(&new, unit).map_err(failed("renaming to", unit))?;
        }
        Step::ReadUnits => drop(scope.call(&["daemon-reload"])?),
        Step::Enable => drop(scope.call(&["enable", "--quiet", unit::NAME])?),
        Step::Linger => {
            // Only some machines let users do it themselves, and the service is none the worse until they log out.
            if systemctl::run(&["loginctl", "enable-linger"]).is_err() {
                let root = "loginctl enable-linger $USER";
                return Ok(format!("your services end when you log out, until root types: {root}"));
            }
        }
        Step::Start => drop(scope.call(&["start", unit::NAME])?),
        Step::Restart => drop(scope.call(&["restart", unit::NAME])?),
        Step::Disable => drop(scope.call(&["disable", "--quiet", unit::NAME])?),
        Step::Stop => drop(scope.call(&["stop", unit::NAME])?),
        Step::Remove(unit) => fs::remove_file(unit).map_err(failed("removing", unit))?,
    }
    Ok(step.done(began.elapsed()))
}
