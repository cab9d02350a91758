//! What is there already: read, and nothing changed.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use camino::{Utf8Path, Utf8PathBuf};
use nix::unistd::User;

use super::StartupError;
use crate::home::{CONTROL_SOCKET, Home};
use crate::systemctl::Scope;
use crate::unit;

/// Which unit is to be where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) scope: Scope,
    /// The folder of both programs.
    pub(super) programs: Utf8PathBuf,
    /// The unit's file.
    pub(super) unit: Utf8PathBuf,
    /// What is to stand in it.
    pub(super) text: String,
    /// Who runs the daemon.
    pub(super) user: String,
}

/// How things stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// The unit file's text, if it is there.
    pub(super) installed: Option<String>,
    /// It starts with the machine.
    pub(super) enabled: bool,
    /// systemd runs it.
    pub(super) active: bool,
    /// A daemon answers in its place, whoever started it.
    pub(super) answers: bool,
    /// The daemon's user exists.
    pub(super) user_exists: bool,
    /// What keeps the daemon's user from running the programs.
    pub(super) barred_by: Option<Utf8PathBuf>,
    /// The user's services run while nobody is logged in.
    pub(super) lingers: bool,
}

impl Place {
    /// What `--remove` leaves where it is.
    pub(super) fn left_behind(&self) -> String {
        match self.scope {
            Scope::System => format!(
                "left as they are: the apps in /var/lib/agentd, their logs in /var/log/agentd, the user {}",
                self.user
            ),
            Scope::User => "left as they are: the apps and logs in ~/.local/state/agentd, and lingering".to_owned(),
        }
    }
}

impl Facts {
    pub(super) fn gather(place: &Place, home: &Home) -> Result<Self, StartupError> {
        let installed = match fs::read_to_string(&place.unit) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(source) => return Err(StartupError::File { verb: "reading", path: place.unit.clone(), source }),
        };
        let state = place.scope.property(unit::NAME, "ActiveState")?;
        let known = User::from_name(&place.user).ok().flatten();
        let lingers = match place.scope {
            Scope::System => true,
            Scope::User => {
                let name =
                    User::from_uid(nix::unistd::geteuid()).ok().flatten().map_or_else(String::new, |user| user.name);
                Utf8Path::new("/var/lib/systemd/linger").join(name).exists()
            }
        };
        let barred_by = match place.scope {
            Scope::System if place.user != "root" => barred(&place.programs, known.as_ref()),
            Scope::System | Scope::User => None,
        };
        Ok(Self {
            installed,
            enabled: place.scope.property(unit::NAME, "UnitFileState")? == "enabled",
            active: matches!(state.as_str(), "active" | "activating" | "reloading"),
            answers: home.connect(CONTROL_SOCKET).is_ok(),
            user_exists: known.is_some(),
            barred_by,
            lingers,
        })
    }
}

/// The first of the programs, and of the folders above them, that the user may not enter or run.
fn barred(programs: &Utf8Path, user: Option<&User>) -> Option<Utf8PathBuf> {
    let files = ["agentd", "agentctl"].map(|name| programs.join(name));
    let mut all: Vec<&Utf8Path> = programs.ancestors().collect();
    all.reverse();
    all.extend(files.iter().map(Utf8PathBuf::as_path));
    let may_run = |path: &&Utf8Path| {
        let Ok(file) = fs::metadata(path) else { return false };
        let mode = file.permissions().mode();
        match user {
            Some(user) if file.uid() == user.uid.as_raw() => mode & 0o100 != 0,
            Some(user) if file.gid() == user.gid.as_raw() => mode & 0o010 != 0,
            Some(_) | None => mode & 0o001 != 0,
        }
    };
    all.into_iter().find(|path| !may_run(path)).map(Utf8Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_in_a_folder_that_the_service_may_not_enter_is_named() {
        let top = tempfile::tempdir().unwrap();
        let open = |path: &Utf8Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        let top = Utf8Path::from_path(top.path()).unwrap();
        open(top, 0o755);
        let folder = top.join("bin");
        fs::create_dir(&folder).unwrap();
        for program in ["agentd", "agentctl"] {
            fs::write(folder.join(program), "").unwrap();
            open(&folder.join(program), 0o755);
        }
        open(&folder, 0o755);
        assert_eq!(barred(&folder, None), None);
        open(&folder.join("agentctl"), 0o750);
        assert_eq!(barred(&folder, None), Some(folder.join("agentctl")));
        open(&folder, 0o700);
        assert_eq!(barred(&folder, None), Some(folder.clone()));
    }
}
