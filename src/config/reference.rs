//! The page of all configuration keys (docs/reference/configuration.md), from the lists that the reader goes by.

use std::fmt::Write as _;

use super::form::{Form, Key, Support, Table};
use super::keys::{AGENT, DAEMON, SKILL};

const HEAD: &str = "\
# Configuration keys

Generated from `src/config/keys.rs`, which the reader itself goes by. How values are written (durations, sizes,
addresses, placeholders) and every default is in [../design/configuration.md](../design/configuration.md); an example
that starts as it stands is [etc/agentd.toml](../../etc/agentd.toml). Editors take
[config.schema.json](config.schema.json): `agentctl schema > agentd.schema.json`, and as the first line of the file
`#:schema ./agentd.schema.json`.

Apps are the tables `[agent.NAME]` and `[skill.NAME]`. Unknown keys are errors that name the line and the nearest key.
";

/// The page, as Markdown.
#[must_use]
pub fn reference() -> String {
    let mut page = HEAD.to_owned();
    section(&mut page, "Every app", AGENT.keys.iter());
    section(&mut page, "Skills beside", SKILL.first.iter());
    for key in AGENT.keys {
        if let Some(table) = key.form.table().or_else(|| key.form.tables()).filter(|_| key.support == Support::Now) {
            section(&mut page, &format!("`{}`", key.name), table.keys());
        }
    }
    if DAEMON.keys().any(|key| key.support == Support::Now) {
        section(&mut page, "`[daemon]`", DAEMON.keys());
    }
    let later: Vec<String> =
        AGENT.keys.iter().filter(|key| key.support != Support::Now).map(|key| format!("`{}`", key.name)).collect();
    if !later.is_empty() {
        let _ = write!(page, "\nRefused in plain words until a later version acts on them: {}.\n", later.join(", "));
    }
    page
}

fn section<'k>(page: &mut String, title: &str, keys: impl Iterator<Item = &'k Key>) {
    let _ = write!(page, "\n## {title}\n\n| key | takes | for |\n|---|---|---|\n");
    for key in keys.filter(|key| key.support == Support::Now) {
        let _ = writeln!(page, "| `{}` | {} | {} |", key.name, cell(&takes(&key.form)), cell(key.about));
    }
}

fn takes(form: &Form) -> String {
    match form {
        Form::Table(table) => names(table),
        Form::Tables(like, table) => format!("{like}; each {}", names(table)),
        Form::Either(forms) => forms.iter().map(takes).collect::<Vec<_>>().join(", or "),
        Form::Word(words) => {
            let known = words.iter().filter(|word| word.support == Support::Now);
            known.map(|word| format!("`\"{}\"`", word.name)).collect::<Vec<_>>().join(", ")
        }
        Form::Flag
        | Form::Count(..)
        | Form::Counts(..)
        | Form::Fraction(..)
        | Form::Text(_)
        | Form::Texts(_)
        | Form::Map(..) => form.expected(),
    }
}

fn names(table: &Table) -> String {
    let known = table.keys().filter(|key| key.support == Support::Now);
    format!("a table: {}", known.map(|key| format!("`{}`", key.name)).collect::<Vec<_>>().join(", "))
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::config::schema;

    fn committed_is(name: &str, wanted: &str) {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/reference").join(name);
        if std::env::var_os("UPDATE_SCHEMA").is_some() {
            std::fs::write(&path, wanted).expect("docs/reference can be written");
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(committed == wanted, "docs/reference/{name} is not that of the keys: run with UPDATE_SCHEMA=1");
    }

    #[test]
    fn the_committed_page_of_keys_is_that_of_the_reader() {
        committed_is("configuration.md", &reference());
    }

    #[test]
    fn the_committed_configuration_schema_is_that_of_the_reader() {
        let mut text = serde_json::to_string_pretty(&schema()).expect("a schema is JSON");
        text.push('\n');
        committed_is("config.schema.json", &text);
    }
}
