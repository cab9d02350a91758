//! The unit that makes agentd a service: its text for this machine, from the units that are shipped.
//!
//! But for where it belongs, pure: paths and users come in, text goes out. What is shipped in `systemd/` is what is installed, but for the paths of
//! the programs and the user; so whatever is verified of the one holds for the other.

use camino::{Utf8Path, Utf8PathBuf};

use crate::systemctl::Scope;

/// The unit's name.
pub(crate) const NAME: &str = "agentd.service";

const OF_THE_SYSTEM: &str = include_str!("../../systemd/agentd.service");
const OF_A_USER: &str = include_str!("../../systemd/agentd-user.service");

/// Lines that only mean something where the daemon is not root.
const WITHOUT_ROOT: [&str; 3] = ["# Ports below 1024", "AmbientCapabilities=", "CapabilityBoundingSet="];

/// Where the unit's file belongs. None where the user has no home.
pub(crate) fn path(scope: Scope) -> Option<Utf8PathBuf> {
    let variable = |name| std::env::var(name).ok().filter(|path| path.starts_with('/')).map(Utf8PathBuf::from);
    let folder = match scope {
        Scope::System => "/etc/systemd/system".into(),
        Scope::User => {
            variable("XDG_CONFIG_HOME").or_else(|| Some(variable("HOME")?.join(".config")))?.join("systemd/user")
        }
    };
    Some(folder.join(NAME))
}

/// The text of the system's unit.
pub(crate) fn of_the_system(programs: &Utf8Path, user: &str) -> String {
    let text = OF_THE_SYSTEM.replace("/usr/local/bin/", &folder(programs));
    let text = text.replace("\nUser=agentd\n", &format!("\nUser={user}\n"));
    if user != "root" {
        return text;
    }
    let lines = text.split_inclusive('\n');
    lines.filter(|line| !WITHOUT_ROOT.iter().any(|start| line.starts_with(start))).collect()
}

/// The text of a user's unit.
pub(crate) fn of_a_user(programs: &Utf8Path) -> String {
    OF_A_USER.replace("%h/.local/bin/", &folder(programs))
}

/// The user that a unit runs the daemon as.
pub(crate) fn user_of(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix("User="))
}

/// systemd reads `%` as the start of a specifier, and a blank as the end of the word.
fn folder(programs: &Utf8Path) -> String {
    format!("{}/", programs.as_str().replace('%', "%%").replace(' ', "\\x20"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_units_name_the_programs_where_they_are() {
        for text in [of_the_system("/opt/a b%c".into(), "ada"), of_a_user("/opt/a b%c".into())] {
            for program in ["agentd run", "agentctl daemon stop", "agentctl reload all --changed"] {
                assert!(text.contains(&format!("/opt/a\\x20b%%c/{program}")), "{text}");
            }
            assert!(!text.contains("/bin/agent"), "{text}");
        }
    }

    #[test]
    fn what_is_shipped_is_what_is_installed() {
        assert_eq!(of_the_system("/usr/local/bin".into(), "agentd"), OF_THE_SYSTEM);
        assert_eq!(of_a_user("%h/.local/bin".into()).replace("%%h", "%h"), OF_A_USER);
    }

    #[test]
    fn the_daemon_has_few_rights_unless_it_is_to_be_root() {
        let text = of_the_system("/usr/local/bin".into(), "ada");
        assert_eq!(user_of(&text), Some("ada"));
        assert!(text.contains("\nCapabilityBoundingSet=CAP_NET_BIND_SERVICE\n"));
        let text = of_the_system("/usr/local/bin".into(), "root");
        assert_eq!(user_of(&text), Some("root"));
        assert!(!text.contains("Capabilit"), "{text}");
    }
}
