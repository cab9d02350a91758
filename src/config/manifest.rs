//! `skill.toml` and `agent.toml`: what a release says of itself.
//!
//! Read by the same reader as a configuration, from a text that anybody may have written.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use agentd_core::release::Version;
use serde::{Deserialize, Serialize};
use toml::de::DeTable;

use super::app::SkillKind;
use super::diagnostic::{Diagnostic, Source};
use super::document::syntax_errors;
use super::keys;
use super::reader::{Field, Report, TableReader};
use super::sections::pause;

/// Longest build where nobody says otherwise.
const BUILD_TIMEOUT: Duration = Duration::from_secs(600);

/// What a release says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// What it is called.
    pub name: Option<String>,
    /// How it is called by agents, if it is a skill.
    pub kind: Option<SkillKind>,
    /// Its version.
    pub version: Version,
    /// The version of the shape of its checkpoints, or of the state that it keeps; none when it keeps nothing.
    pub state_version: Option<u32>,
    /// The program and its arguments, for apps whose configuration names none.
    pub command: Vec<String>,
    /// What makes it ready to run, once.
    pub build: Option<Build>,
    /// The program, and its arguments, that says which open checkpoints it cannot read; empty where there is none.
    #[serde(default)]
    pub check: Vec<String>,
}

/// What makes a release ready to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Build {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Longest run.
    pub timeout: Duration,
    /// Variables of its environment, beside those that the app's workers inherit.
    pub env: BTreeMap<String, String>,
}

impl Default for Manifest {
    fn default() -> Self {
        Self {
            name: None,
            kind: None,
            version: Version::none(),
            state_version: None,
            command: Vec::new(),
            build: None,
            check: Vec::new(),
        }
    }
}

impl Manifest {
    /// Reads a manifest.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn read(file: &str, text: String) -> Result<Self, Vec<Diagnostic>> {
        let source = Source::new(file, text);
        let report = Report::new(&source);
        let (document, errors) = DeTable::parse_recoverable(source.text());
        if !errors.is_empty() {
            syntax_errors(&report, &errors);
            return Err(report.into_found());
        }
        let table = TableReader::new(&report, &keys::MANIFEST, document.get_ref());
        let command = table.get("command").map(|field| words(&field)).unwrap_or_default();
        let kind = match table.get("kind").and_then(|field| field.word()) {
            Some("service") => Some(SkillKind::Service),
            Some(_) => Some(SkillKind::Worker),
            None => None,
        };
        let manifest = Self {
            name: table.get("name").and_then(|field| field.text()).map(str::to_owned),
            kind,
            version: table
                .get("version")
                .and_then(|field| field.parsed(str::parse::<Version>))
                .unwrap_or_else(Version::none),
            state_version: table.get("state_version").and_then(|field| field.count()),
            command,
            build: table
                .get("build")
                .and_then(|field| Some((field.table()?, field.key_span)))
                .map(|(table, header)| build(&table, &header)),
            check: table.get("check").map(|field| words(&field)).unwrap_or_default(),
        };
        let found = report.into_found();
        if found.is_empty() { Ok(manifest) } else { Err(found) }
    }
}

fn build(table: &TableReader<'_>, header: &Range<usize>) -> Build {
    let mut env = BTreeMap::new();
    for (name, field) in table.get("env").and_then(|field| field.entries()).unwrap_or_default() {
        if name.is_empty() || name.contains(['=', '\0']) {
            field.report.add(field.report.at(&field.key_span, "an environment variable cannot be called so"));
        } else if let Some(value) = field.text() {
            env.insert(name.to_owned(), value.to_owned());
        }
    }
    let command = table.get("command").map(|field| words(&field)).unwrap_or_default();
    if command.is_empty() && table.get("command").is_none() {
        table.report.add(table.report.at(header, "`build` has no `command` to run"));
    }
    Build { command, timeout: pause(table, "timeout").unwrap_or(BUILD_TIMEOUT), env }
}

/// A program and its arguments. Which listeners there are is known to the configuration only, so placeholders are not
/// looked at here.
fn words(field: &Field<'_>) -> Vec<String> {
    let Some(items) = field.texts() else { return Vec::new() };
    let words: Vec<String> = items.iter().filter_map(|item| item.text()).map(str::to_owned).collect();
    if words.first().is_none_or(|program| program.trim().is_empty()) {
        field.refuse(format!("`{}` names no program", field.name));
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Manifest, String> {
        Manifest::read("skill.toml", text.to_owned())
            .map_err(|found| found.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    }

    #[test]
    fn a_manifest_says_what_it_is_and_how_it_is_built() {
        let manifest = read(
            "name = \"search\"\nkind = \"service\"\nversion = \"1.4.0\"\nstate_version = 3\n\
             command = [\"./run\", \"{fd:http}\"]\ncheck = [\"./check\"]\nbuild = { command = [\"make\"], timeout = \"2m\", env = { A = \"b\" } }\n",
        )
        .expect("it is sound");
        assert_eq!((manifest.version.as_str(), manifest.state_version), ("1.4.0", Some(3)));
        assert_eq!(manifest.kind, Some(SkillKind::Service));
        assert_eq!(manifest.check, ["./check"]);
        let build = manifest.build.expect("it has one");
        assert_eq!((build.command, build.timeout), (vec!["make".to_owned()], Duration::from_secs(120)));
        assert_eq!(read("").expect("it may say nothing"), Manifest::default());
    }

    #[test]
    fn mistakes_are_told_with_their_line() {
        for (text, words) in [
            ("versoin = \"1\"", "did you mean `version`?"),
            ("version = \"../1\"", "a version is"),
            ("\nversion = 1", "skill.toml:2"),
            ("build = { command = \"make\" }", "`command` cannot be a text"),
            ("= 1", "this is not TOML"),
        ] {
            let told = read(text).expect_err(text);
            assert!(told.contains(words), "{text}: {told}");
        }
    }
}
