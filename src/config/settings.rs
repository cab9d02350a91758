//! `daemon.toml`: the settings of the daemon itself, read when it starts.
//!
//! Owns where the table `[daemon]` may stand and what it means. It has a file of its own, that nobody but root and the
//! daemon's user may write: the files of apps come from whoever may operate, and must not say who that is.
//!
//! What can go wrong: the file is not valid, or others may write it. Then it grants nothing, which the caller tells; a
//! daemon does not stay down for it.

use std::os::unix::fs::MetadataExt;

use camino::Utf8Path;
use toml::de::DeTable;

use super::diagnostic::{Diagnostic, Place, Source};
use super::keys;
use super::load;
use super::quantity;
use super::reader::{Report, TableReader};

/// Bits of a mode that let others than the owner write.
const OTHERS_WRITE: u32 = 0o022;

/// The settings of the daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Who may look: users by name or number, groups as `group:NAME`.
    pub view: Vec<String>,
    /// Who may change things, likewise.
    pub operate: Vec<String>,
    /// Bytes that the logs of all apps may take on the disk; the daemon's own bound where none is given.
    pub logs_keep_bytes: Option<u64>,
}

impl Settings {
    /// Whether anybody is given a role.
    #[must_use]
    pub fn gives_roles(&self) -> bool {
        !self.view.is_empty() || !self.operate.is_empty()
    }
}

/// Reads the settings at `path`. No file is no settings.
///
/// # Errors
/// All that is wrong.
pub fn settings(path: &Utf8Path) -> Result<Settings, Vec<Diagnostic>> {
    match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Settings::default()),
        Ok(found) => {
            let us = nix::unistd::geteuid().as_raw();
            if found.mode() & OTHERS_WRITE != 0 || (found.uid() != us && found.uid() != 0) {
                let why = "others than root and the daemon's user may write it, and so make themselves operators";
                let diagnostic = Diagnostic::at(Place::whole(path), why);
                return Err(vec![diagnostic.help(format!("chown it to the daemon's user, and chmod 644 {path}"))]);
            }
        }
        // Reading it tells why.
        Err(_) => {}
    }
    let (source, _) = load::read(path).map_err(|diagnostic| vec![*diagnostic])?;
    read(&source)
}

fn read(source: &Source) -> Result<Settings, Vec<Diagnostic>> {
    let report = Report::new(source);
    let (document, errors) = DeTable::parse_recoverable(source.text());
    for error in &errors {
        report.add(report.at(&error.span().unwrap_or(0..0), format!("this is not TOML: {}", error.message())));
    }
    let mut settings = Settings::default();
    if errors.is_empty() {
        let reader = TableReader::new(&report, &keys::SETTINGS, document.get_ref());
        let daemon = reader.get("daemon").and_then(|field| field.table());
        let logs = daemon.as_ref().and_then(|daemon| daemon.get("logs")).and_then(|field| field.table());
        settings.logs_keep_bytes = logs.and_then(|logs| logs.get("keep_bytes")?.parsed(quantity::parse_size));
        let roles = daemon.and_then(|daemon| daemon.get("roles")).and_then(|field| field.table());
        if let Some(roles) = roles {
            let named = |role| {
                let items = roles.get(role).and_then(|field| field.texts()).unwrap_or_default();
                items.iter().filter_map(|item| item.text()).map(str::to_owned).collect()
            };
            (settings.view, settings.operate) = (named("view"), named("operate"));
        }
    }
    let found = report.into_found();
    if found.is_empty() { Ok(settings) } else { Err(found) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn read_text(text: &str) -> Result<Settings, Vec<String>> {
        read(&Source::new("daemon.toml", text.to_owned()))
            .map_err(|found| found.into_iter().map(|diagnostic| diagnostic.message).collect())
    }

    #[test]
    fn roles_are_lists_of_users_and_groups_and_nothing_else_stands_there() {
        let text = "[daemon]\nroles = { view = [\"alice\", \"group:ops\"], operate = [\"1000\"] }\n";
        let words = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let expected =
            Settings { view: words(&["alice", "group:ops"]), operate: words(&["1000"]), logs_keep_bytes: None };
        assert_eq!(read_text(text), Ok(expected));
        assert_eq!(read_text(""), Ok(Settings::default()));
        let logs = read_text("[daemon]\nlogs = { keep_bytes = \"2G\" }\n").expect("it is valid");
        assert_eq!((logs.logs_keep_bytes, logs.gives_roles()), (Some(2 << 30), false));
        assert_eq!(read_text("[agent.a]"), Err(words(&["unknown key `agent` in the daemon's settings"])));
        assert!(read_text("[daemon]\nroles = { admin = [] }").is_err());
        assert!(read_text("[daemon").is_err());
    }

    #[test]
    fn a_file_that_others_may_write_grants_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = camino::Utf8PathBuf::from_path_buf(dir.path().join("daemon.toml")).unwrap();
        assert_eq!(settings(&path), Ok(Settings::default()));
        std::fs::write(&path, "[daemon]\nroles = { operate = [\"1\"] }\n").unwrap();
        for (mode, read) in [(0o644, true), (0o600, true), (0o664, false), (0o646, false)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(settings(&path).is_ok(), read, "{mode:o}");
        }
    }
}
