//! From how things stand to what is to be done. Pure.

use std::time::Duration;

use camino::Utf8PathBuf;
use thiserror::Error;

use super::facts::{Facts, Place};
use crate::systemctl::Scope;
use crate::unit;

/// One step, each of which leaves something that holds by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// An account for the daemon and its workers.
    MakeUser(String),
    /// What somebody else wrote is not lost.
    Keep { unit: Utf8PathBuf, copy: Utf8PathBuf },
    /// The unit's file.
    Write { unit: Utf8PathBuf, text: String },
    /// systemd reads its units.
    ReadUnits,
    /// It starts with the machine.
    Enable,
    /// The user's services run while nobody is logged in.
    Linger,
    /// It starts now.
    Start,
    /// It runs with another unit file; its workers stay.
    Restart,
    /// It does not start with the machine any more.
    Disable,
    /// Every worker drained, then the daemon.
    Stop,
    /// The unit's file.
    Remove(Utf8PathBuf),
}

/// What is there does not go with what is asked for; nothing was changed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// A daemon that systemd does not know of has the instance.
    #[error("a daemon runs here already, and not as a service")]
    Runs,
    /// The daemon's user may not run it.
    #[error("the user {user} may not run what is in {programs}: {barred_by} keeps it out")]
    Barred {
        /// The daemon's user.
        user: String,
        /// Where the programs are.
        programs: Utf8PathBuf,
        /// The file or folder.
        barred_by: Utf8PathBuf,
    },
    /// `--as` names nobody.
    #[error("there is no user {0}")]
    NoSuchUser(String),
    /// Workers of one user cannot be taken over by another.
    #[error("agentd runs as {now}, and its workers cannot be taken over by {wanted}")]
    OtherUser {
        /// Who runs it.
        now: String,
        /// Who is to.
        wanted: String,
    },
}

impl Refusal {
    /// What to do about it.
    pub(super) fn help(&self) -> String {
        match self {
            Self::Runs => {
                "end it with: agentctl daemon stop; then again: agentctl startup; its apps come back".to_owned()
            }
            Self::Barred { programs, .. } => {
                format!(
                    "install -m 755 {programs}/agentd {programs}/agentctl /usr/local/bin/; then: /usr/local/bin/agentctl startup"
                )
            }
            Self::NoSuchUser(name) => format!("make it first: useradd --create-home {name}"),
            Self::OtherUser { now, .. } => {
                format!("stop it first: systemctl stop agentd; or keep the user: --as {now}")
            }
        }
    }
}

impl Step {
    /// What is going to be done, after "would".
    pub(super) fn planned(&self) -> String {
        match self {
            Self::MakeUser(name) => format!("make the user {name}"),
            Self::Keep { unit, copy } => format!("keep the {unit} that is there as {copy}"),
            Self::Write { unit, .. } => format!("write {unit}"),
            Self::ReadUnits => "have systemd read its units again".to_owned(),
            Self::Enable => format!("enable {}", unit::NAME),
            Self::Linger => "have your services run while you are not logged in".to_owned(),
            Self::Start => format!("start {}", unit::NAME),
            Self::Restart => format!("restart {}, which keeps its workers", unit::NAME),
            Self::Disable => format!("disable {}", unit::NAME),
            Self::Stop => format!("stop {}, which drains every worker", unit::NAME),
            Self::Remove(unit) => format!("remove {unit}"),
        }
    }

    /// What was done, and how long it took where somebody waits for it.
    pub(super) fn done(&self, took: Duration) -> String {
        let took = took.as_secs_f64();
        match self {
            Self::MakeUser(name) => format!("made the user {name}"),
            Self::Keep { copy, .. } => format!("kept what was there as {copy}"),
            Self::Write { unit, .. } => format!("wrote {unit}"),
            Self::ReadUnits => "had systemd read its units again".to_owned(),
            Self::Enable => format!("enabled {}: it starts with the machine", unit::NAME),
            Self::Linger => "your services run while you are not logged in".to_owned(),
            Self::Start => format!("started {}: it answers after {took:.2} s", unit::NAME),
            Self::Restart => format!("restarted {} in {took:.2} s; its workers stayed", unit::NAME),
            Self::Disable => format!("disabled {}", unit::NAME),
            Self::Stop => format!("stopped {} and every worker in {took:.2} s", unit::NAME),
            Self::Remove(unit) => format!("removed {unit}"),
        }
    }
}

/// What is missing until agentd is a service that runs.
///
/// # Errors
/// [`Refusal`].
pub(super) fn installation(place: &Place, facts: &Facts) -> Result<Vec<Step>, Refusal> {
    if facts.answers && !facts.active {
        return Err(Refusal::Runs);
    }
    if let Some(barred_by) = &facts.barred_by {
        return Err(Refusal::Barred {
            user: place.user.clone(),
            programs: place.programs.clone(),
            barred_by: barred_by.clone(),
        });
    }
    let mut steps = Vec::new();
    if place.scope == Scope::System {
        let runs_as =
            facts.installed.as_deref().filter(|_| facts.active).map(|text| unit::user_of(text).unwrap_or("root"));
        if let Some(now) = runs_as.filter(|now| *now != place.user) {
            return Err(Refusal::OtherUser { now: now.to_owned(), wanted: place.user.clone() });
        }
        match (facts.user_exists, place.user.as_str()) {
            (true, _) => {}
            (false, super::SERVICE_USER) => steps.push(Step::MakeUser(place.user.clone())),
            (false, other) => return Err(Refusal::NoSuchUser(other.to_owned())),
        }
    }
    let as_wanted = facts.installed.as_ref() == Some(&place.text);
    if !as_wanted {
        if facts.installed.is_some() {
            steps.push(Step::Keep { unit: place.unit.clone(), copy: place.unit.with_extension("service.old") });
        }
        steps.push(Step::Write { unit: place.unit.clone(), text: place.text.clone() });
        steps.push(Step::ReadUnits);
    }
    if !facts.enabled {
        steps.push(Step::Enable);
    }
    if !facts.lingers {
        steps.push(Step::Linger);
    }
    match (facts.active, as_wanted) {
        (false, _) => steps.push(Step::Start),
        (true, false) => steps.push(Step::Restart),
        (true, true) => {}
    }
    Ok(steps)
}

/// What is there of the service.
pub(super) fn removal(place: &Place, facts: &Facts) -> Vec<Step> {
    let mut steps = Vec::new();
    if facts.enabled {
        steps.push(Step::Disable);
    }
    if facts.active {
        steps.push(Step::Stop);
    }
    if facts.installed.is_some() {
        steps.extend([Step::Remove(place.unit.clone()), Step::ReadUnits]);
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place {
        Place {
            scope: Scope::System,
            programs: "/usr/local/bin".into(),
            unit: "/etc/systemd/system/agentd.service".into(),
            text: unit::of_the_system("/usr/local/bin".into(), "agentd"),
            user: "agentd".to_owned(),
        }
    }

    fn fresh() -> Facts {
        Facts { lingers: true, ..Facts::default() }
    }

    fn complete() -> Facts {
        let installed = Some(place().text);
        Facts { installed, enabled: true, active: true, answers: true, user_exists: true, ..fresh() }
    }

    fn planned(steps: &[Step]) -> Vec<String> {
        steps.iter().map(Step::planned).collect()
    }

    #[test]
    fn on_a_fresh_machine_everything_is_done_and_the_second_time_nothing() {
        assert_eq!(
            planned(&installation(&place(), &fresh()).unwrap()),
            [
                "make the user agentd",
                "write /etc/systemd/system/agentd.service",
                "have systemd read its units again",
                "enable agentd.service",
                "start agentd.service",
            ]
        );
        assert_eq!(installation(&place(), &complete()), Ok(vec![]));
    }

    #[test]
    fn another_unit_file_is_kept_beside_and_the_running_service_restarted() {
        let facts = Facts { installed: Some("User=agentd\n".to_owned()), ..complete() };
        let steps = planned(&installation(&place(), &facts).unwrap());
        assert_eq!(steps.len(), 4, "{steps:?}");
        assert!(steps[0].ends_with("as /etc/systemd/system/agentd.service.old"), "{steps:?}");
        assert_eq!(steps[3], "restart agentd.service, which keeps its workers");
    }

    #[test]
    fn a_daemon_that_somebody_started_by_hand_is_not_fought_with() {
        let facts = Facts { answers: true, ..fresh() };
        assert_eq!(installation(&place(), &facts), Err(Refusal::Runs));
    }

    #[test]
    fn a_user_is_made_only_for_agentd_itself() {
        let wanted = Place { user: "ada".to_owned(), ..place() };
        assert_eq!(installation(&wanted, &fresh()), Err(Refusal::NoSuchUser("ada".to_owned())));
    }

    #[test]
    fn workers_of_one_user_are_not_given_to_another() {
        let wanted = Place { user: "root".to_owned(), ..place() };
        let refused = Refusal::OtherUser { now: "agentd".to_owned(), wanted: "root".to_owned() };
        assert_eq!(installation(&wanted, &complete()), Err(refused));
        let stopped = Facts { active: false, answers: false, ..complete() };
        assert!(installation(&wanted, &stopped).is_ok());
    }

    #[test]
    fn removing_what_is_there_ends_with_nothing_left_to_remove() {
        assert_eq!(
            planned(&removal(&place(), &complete())),
            [
                "disable agentd.service",
                "stop agentd.service, which drains every worker",
                "remove /etc/systemd/system/agentd.service",
                "have systemd read its units again",
            ]
        );
        assert_eq!(removal(&place(), &fresh()), []);
    }
}
