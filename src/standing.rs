//! The daemon's settings as they stand: who has which role, the modes of the sockets that follow, how much logs may take.
//!
//! ```text
//!   daemon.toml ──start, SIGHUP──► valid? ──yes──► in force at once; who is connected keeps the role that it came with
//!                                    │ no
//!                                    ├── at the start ──► nobody has a role by it
//!                                    └── at a SIGHUP ───► what stood before stands on
//! ```
//!
//! Owns what is in force and the words about what is wrong with it. Reading the file is [`crate::config`]'s, the rule about
//! peers [`Access`]'s. Nothing here keeps a daemon down: a file that is not valid takes rights away and is told.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use crate::config::{self, Settings};
use crate::control::Access;
use crate::home::Home;

/// What the settings say now.
#[derive(Debug)]
pub struct Standing {
    settings: Settings,
    access: Access,
    notes: Vec<String>,
}

impl Standing {
    /// Reads the settings of `home` for the first time.
    #[must_use]
    pub fn of(home: &Home) -> Self {
        let access = Access::owner_only(nix::unistd::geteuid().as_raw());
        let mut standing = Self { settings: Settings::default(), access, notes: Vec::new() };
        match config::settings(&home.settings) {
            Ok(settings) => standing.settings = settings,
            Err(wrong) => standing.note_invalid(home, &wrong, "nobody has a role by it"),
        }
        standing.put_in_force(home);
        standing
    }

    /// Reads them again. True when they are valid, and so in force.
    pub fn read_again(&mut self, home: &Home) -> bool {
        self.notes.clear();
        match config::settings(&home.settings) {
            Ok(settings) => {
                self.settings = settings;
                self.put_in_force(home);
                for (socket, mode) in [(home.control_socket(), self.control()), (home.status_socket(), self.status())] {
                    if let Err(error) = std::fs::set_permissions(&socket, Permissions::from_mode(mode)) {
                        self.note(home, format!("the mode of {socket} stays as it was: {error}"));
                    }
                }
                true
            }
            Err(wrong) => {
                self.note_invalid(home, &wrong, "what it said before still holds");
                false
            }
        }
    }

    /// Who may do what; it follows what is read later.
    #[must_use]
    pub fn access(&self) -> Access {
        self.access.clone()
    }

    /// The mode of the control socket: as narrow as it can be. Modes know one group; where roles are given, everybody may
    /// knock and the kernel's word about the peer counts.
    #[must_use]
    pub fn control(&self) -> u32 {
        if self.settings.gives_roles() { 0o666 } else { 0o600 }
    }

    /// The mode of the status socket.
    #[must_use]
    pub fn status(&self) -> u32 {
        if self.settings.gives_roles() { 0o666 } else { 0o660 }
    }

    /// Bytes that all logs may take, where it is said.
    #[must_use]
    pub fn logs_keep_bytes(&self) -> Option<u64> {
        self.settings.logs_keep_bytes
    }

    /// What is wrong with the settings.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    fn put_in_force(&mut self, home: &Home) {
        let (owner, group) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        for why in self.access.grant(owner, group, &self.settings) {
            self.note(home, why);
        }
        if self.settings.gives_roles()
            && let Err(error) = home.open_to_everybody()
        {
            self.note(home, format!("those who have roles cannot get at the sockets: {error}"));
        }
    }

    fn note_invalid(&mut self, home: &Home, wrong: &[config::Diagnostic], so: &str) {
        let why = wrong.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        tracing::error!(path = %home.settings, why, "the daemon's settings are not valid: {so}");
        self.notes.push(format!("{} is not valid, so {so}: {why}", home.settings));
    }

    fn note(&mut self, home: &Home, why: String) {
        tracing::warn!(path = %home.settings, why, "the daemon's settings cannot be followed in all");
        self.notes.push(format!("{}: {why}", home.settings));
    }
}
